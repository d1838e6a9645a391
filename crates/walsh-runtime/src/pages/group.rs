//! Which pages of the caches hold which positions of which sequence.

use std::collections::BTreeSet;
use std::ops::Range;

/// Positions of a page.
pub(crate) const PAGE: usize = walsh::PAGE as usize;

/// What stands in a page table for no page.
const NONE: i32 = -1;

/// Where a page goes by the moves of [`PageGroup::resize`].
pub(crate) fn moved(moves: &[(i32, i32)], page: i32) -> i32 {
    let found = moves.binary_search_by_key(&page, |(from, _)| *from);
    found.map_or(NONE, |index| moves[index].1)
}

/// Who has a page.
#[derive(Debug, Clone, Copy, Default)]
struct Holders {
    slots: u32,
    prefixes: u32,
}

/// A page whose positions are to be copied to another before anything is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageCopy {
    pub(crate) from: i32,
    pub(crate) to: i32,
    /// How many positions, from the page's first on.
    pub(crate) positions: usize,
}

/// Pages for the same positions of all layers that see equally far back.
///
/// A page is had by slots and by prefixes that are kept, and free when nobody has it. Nobody but a single slot writes to a page.
pub(crate) struct PageGroup {
    /// How far back a token sees, its own position included; `None` for all the way.
    window: Option<usize>,
    /// Entries of the table per slot.
    per_slot: usize,
    /// `[slots, per_slot]`: the page of each 64 positions of a slot's sequence.
    table: Vec<i32>,
    /// Slots whose rows differ from the device's.
    changed: BTreeSet<usize>,
    free: BTreeSet<i32>,
    /// Of each page.
    holders: Vec<Holders>,
    /// How many pages slots have.
    held: usize,
    /// How many of them more than one has.
    shared: usize,
}

impl PageGroup {
    /// A group of free pages.
    pub(crate) fn new(
        window: Option<usize>,
        (slots, context): (usize, usize),
        pages: usize,
    ) -> Self {
        let per_slot = context.div_ceil(PAGE);
        Self {
            window,
            per_slot,
            table: vec![NONE; slots * per_slot],
            changed: (0..slots).collect(),
            // Below 2³¹, as a cache's slots are.
            free: (0..pages as i32).collect(),
            holders: vec![Holders::default(); pages],
            held: 0,
            shared: 0,
        }
    }

    /// How many pages there are.
    pub(crate) fn pages(&self) -> usize {
        self.holders.len()
    }

    /// How many pages nobody has.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// How many pages slots have.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// How many pages more than one slot has.
    pub(crate) fn shared(&self) -> usize {
        self.shared
    }

    /// How far back a token sees, its own position included; `None` for all the way.
    pub(crate) fn window(&self) -> Option<usize> {
        self.window
    }

    /// Whether tokens see back only so far.
    pub(crate) fn has_window(&self) -> bool {
        self.window.is_some()
    }

    /// Whether a slot has a page.
    pub(crate) fn is_held(&self, page: i32) -> bool {
        self.holders[page as usize].slots > 0
    }

    /// The first position that a token at one sees.
    fn first_seen(&self, position: usize) -> usize {
        match self.window {
            Some(window) => (position + 1).saturating_sub(window),
            None => 0,
        }
    }

    /// The pages that tokens at these positions see or are stored into, as entries of a row.
    fn entries(&self, positions: &Range<usize>) -> Range<usize> {
        self.first_seen(positions.start) / PAGE..positions.end.div_ceil(PAGE)
    }

    /// The pages of earlier positions that a token at one sees, as entries of a row.
    pub(crate) fn seen(&self, position: usize) -> Range<usize> {
        self.first_seen(position) / PAGE..position.div_ceil(PAGE)
    }

    /// How many pages a sequence has at once while tokens at these positions are read, at most.
    pub(crate) fn needed(&self, positions: &Range<usize>) -> usize {
        self.entries(positions).len()
    }

    /// How many more pages a slot needs for tokens at these positions.
    pub(crate) fn missing(&self, slot: usize, positions: &Range<usize>) -> usize {
        let row = &self.table[slot * self.per_slot..][..self.per_slot];
        let lacks = |entry: &usize| row[*entry] == NONE;
        let lacking = self.entries(positions).filter(lacks).count();
        lacking + usize::from(self.shares(slot, positions.start))
    }

    /// Whether the page of a position that is about to be written is somebody else's too.
    fn shares(&self, slot: usize, position: usize) -> bool {
        let page = self.table[slot * self.per_slot + position / PAGE];
        page != NONE && {
            let Holders { slots, prefixes } = self.holders[page as usize];
            slots + prefixes > 1
        }
    }

    /// Gives back what tokens from a position on no longer see.
    pub(crate) fn leave(&mut self, slot: usize, position: usize) {
        let seen = self.entries(&(position..position + 1));
        self.release(slot, 0..seen.start);
    }

    /// Gives a slot the pages that it lacks to see from and write to these positions, next to those that it has where they are
    /// free. There [are](Self::missing) as many. What is to be copied comes back, where the first of the pages was shared.
    pub(crate) fn take(&mut self, slot: usize, positions: &Range<usize>) -> Option<PageCopy> {
        let row = slot * self.per_slot;
        let mut copy = None;
        if self.shares(slot, positions.start) {
            let entry = positions.start / PAGE;
            let from = self.table[row + entry];
            self.release(slot, entry..entry + 1);
            copy = self.take_free(slot, entry).map(|to| PageCopy {
                from,
                to,
                positions: positions.start % PAGE,
            });
        }
        for entry in self.entries(positions) {
            if self.table[row + entry] == NONE {
                self.take_free(slot, entry);
            }
        }
        copy
    }

    /// Makes a free page an entry of a slot.
    fn take_free(&mut self, slot: usize, entry: usize) -> Option<i32> {
        let row = slot * self.per_slot;
        let near = match entry.checked_sub(1).map(|before| self.table[row + before]) {
            Some(before) if before != NONE => before + 1,
            // A new sequence begins where it has room to grow.
            _ => (slot * self.pages() / self.slots()) as i32,
        };
        let mut behind = self.free.range(near..);
        let page = *behind.next().or(self.free.first())?;
        self.share(slot, entry, page);
        Some(page)
    }

    /// Makes a page, which others may have too, an entry of a slot that has none there.
    pub(crate) fn share(&mut self, slot: usize, entry: usize, page: i32) {
        self.free.remove(&page);
        let holders = &mut self.holders[page as usize];
        self.held += usize::from(holders.slots == 0);
        self.shared += usize::from(holders.slots == 1);
        holders.slots += 1;
        self.table[slot * self.per_slot + entry] = page;
        self.changed.insert(slot);
    }

    /// Gives a slot that has no pages free ones for entries of its row, with which they come back. There are as many.
    pub(crate) fn hold(&mut self, slot: usize, entries: Range<usize>) -> Vec<(usize, i32)> {
        let held = entries.filter_map(|entry| Some((entry, self.take_free(slot, entry)?)));
        held.collect()
    }

    /// The pages of positions of a slot, where it has them.
    pub(crate) fn pages_of(&self, slot: usize, positions: &Range<usize>) -> Vec<Option<i32>> {
        let entries = positions.start / PAGE..positions.end.div_ceil(PAGE);
        let row = &self.table[slot * self.per_slot..][..self.per_slot];
        let pages = row[entries].iter().copied();
        pages.map(|page| (page != NONE).then_some(page)).collect()
    }

    /// Where positions of a slot lie among those of all pages, which are there: those that follow each other at once.
    pub(crate) fn rows_of(&self, slot: usize, positions: &Range<usize>) -> Vec<Range<u64>> {
        let mut rows: Vec<Range<u64>> = Vec::new();
        let first = positions.start / PAGE;
        for (index, page) in self.pages_of(slot, positions).into_iter().enumerate() {
            let start = positions.start.max((first + index) * PAGE);
            let end = positions.end.min((first + index + 1) * PAGE);
            let at = page.unwrap_or_default() as u64 * PAGE as u64 + (start % PAGE) as u64;
            let end = at + (end - start) as u64;
            match rows.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => rows.push(at..end),
            }
        }
        rows
    }

    /// Notes that a prefix keeps a page.
    pub(crate) fn keep(&mut self, page: i32) {
        self.free.remove(&page);
        self.holders[page as usize].prefixes += 1;
    }

    /// Notes that a prefix no longer keeps a page.
    pub(crate) fn give_up(&mut self, page: i32) {
        self.holders[page as usize].prefixes -= 1;
        self.free_if_unused(page);
    }

    /// Gives back all pages of a slot.
    pub(crate) fn clear(&mut self, slot: usize) {
        self.cut(slot, 0);
    }

    /// Gives back the pages of a slot that lie wholly behind so many positions.
    pub(crate) fn cut(&mut self, slot: usize, positions: usize) {
        self.release(slot, positions.div_ceil(PAGE)..self.per_slot);
    }

    /// Another slot, which has no pages: its number.
    pub(crate) fn add_slot(&mut self) -> usize {
        let slot = self.slots();
        self.table.resize((slot + 1) * self.per_slot, NONE);
        self.changed.insert(slot);
        slot
    }

    /// Lets a slot that has no pages share those that another has of its first positions.
    pub(crate) fn share_all(&mut self, (from, to): (usize, usize), positions: usize) {
        for (entry, page) in self.pages_of(from, &(0..positions)).into_iter().enumerate() {
            if let Some(page) = page {
                self.share(to, entry, page);
            }
        }
    }

    fn slots(&self) -> usize {
        self.table.len() / self.per_slot.max(1)
    }

    fn release(&mut self, slot: usize, entries: Range<usize>) {
        let row = slot * self.per_slot;
        for entry in entries {
            let page = std::mem::replace(&mut self.table[row + entry], NONE);
            if page != NONE {
                let holders = &mut self.holders[page as usize];
                holders.slots -= 1;
                self.held -= usize::from(holders.slots == 0);
                self.shared -= usize::from(holders.slots == 1);
                self.free_if_unused(page);
                self.changed.insert(slot);
            }
        }
    }

    fn free_if_unused(&mut self, page: i32) {
        let Holders { slots, prefixes } = self.holders[page as usize];
        if slots + prefixes == 0 {
            self.free.insert(page);
        }
    }

    /// The pages that somebody has, in ascending order.
    pub(crate) fn used(&self) -> Vec<i32> {
        // Below 2³¹, as a cache's slots are.
        let all = 0..self.holders.len() as i32;
        all.filter(|page| !self.free.contains(page)).collect()
    }

    /// Makes it a group of so many pages, of which no more are in use: where each that is lies and where it goes. Those that
    /// there will be stay where they are.
    pub(crate) fn resize(&mut self, pages: usize) -> Vec<(i32, i32)> {
        let used = self.used();
        let holders = std::mem::take(&mut self.holders);
        let is_left = |page: &i32| (*page as usize) < pages;
        let stays = |page: &i32| used.binary_search(page).is_err();
        let mut free: BTreeSet<i32> = (0..pages as i32).filter(stays).collect();
        self.holders = vec![Holders::default(); pages];
        let mut moves = Vec::new();
        for from in used {
            let to = match is_left(&from) {
                true => from,
                // There are as many as are in use.
                false => free.pop_first().unwrap_or(NONE),
            };
            moves.push((from, to));
            if let Some(place) = self.holders.get_mut(to as usize) {
                *place = holders[from as usize];
            }
        }
        self.free = free;
        for page in self.table.iter_mut().filter(|page| **page != NONE) {
            *page = moved(&moves, *page);
        }
        self.changed = (0..self.slots()).collect();
        moves
    }

    /// The rows of the table, of some slots, that changed since they were last asked for.
    pub(crate) fn changes(&mut self, slots: Range<usize>) -> impl Iterator<Item = (usize, &[i32])> {
        let (table, per_slot) = (&self.table, self.per_slot);
        let changed: Vec<usize> = self.changed.range(slots).copied().collect();
        for slot in &changed {
            self.changed.remove(slot);
        }
        let row = move |slot| (slot, &table[slot * per_slot..][..per_slot]);
        changed.into_iter().map(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(group: &mut PageGroup) -> Vec<(usize, Vec<i32>)> {
        let changes = group.changes(0..group.slots());
        changes.map(|(slot, row)| (slot, row.to_vec())).collect()
    }

    #[test]
    fn pages_follow_each_other_where_they_can() {
        let mut group = PageGroup::new(None, (2, 256), 6);
        rows(&mut group);
        group.take(0, &(0..65));
        group.take(1, &(0..1));
        assert_eq!(
            rows(&mut group),
            [(0, vec![0, 1, -1, -1]), (1, vec![3, -1, -1, -1])]
        );
        assert_eq!(group.missing(0, &(65..200)), 2);
        group.take(0, &(65..200));
        assert_eq!(rows(&mut group), [(0, vec![0, 1, 2, 4])]);
        assert_eq!((group.free(), group.missing(1, &(1..129))), (1, 2));
        group.clear(0);
        assert_eq!(rows(&mut group), [(0, vec![-1; 4])]);
        assert_eq!(group.free(), 5);
        assert!(rows(&mut group).is_empty());
    }

    #[test]
    fn what_a_window_has_left_is_given_back() {
        let mut group = PageGroup::new(Some(70), (1, 640), 4);
        assert_eq!(group.needed(&(0..300)), 5);
        assert_eq!(group.needed(&(300..301)), 2);
        group.take(0, &(0..130));
        // A token at 132 sees 63 and on, one at 133 sees 64.
        group.leave(0, 132);
        assert_eq!(group.free(), 1);
        group.leave(0, 133);
        assert_eq!(group.free(), 2);
        group.take(0, &(133..193));
        let (_, row) = rows(&mut group).pop().expect("a change");
        assert_eq!(row[0], NONE);
        assert!(row[1..4].iter().all(|page| *page != NONE));
        assert_eq!(group.free(), 1);
    }

    #[test]
    fn who_writes_to_a_shared_page_gets_another() {
        let mut group = PageGroup::new(None, (2, 256), 4);
        assert_eq!(group.take(0, &(0..100)), None);
        for page in group.pages_of(0, &(0..100)).into_iter().flatten() {
            group.keep(page);
        }
        // What is kept of the first page is whole; of the second, 36 positions.
        assert_eq!(group.missing(0, &(100..101)), 1);
        let copy = group.take(0, &(100..101)).expect("a copy");
        assert_eq!((copy.from, copy.to, copy.positions), (1, 2, 36));
        assert_eq!((group.missing(0, &(101..128)), group.held()), (0, 2));
        group.share(1, 0, 0);
        group.share(1, 1, 1);
        assert_eq!((group.held(), group.free(), group.shared()), (3, 1, 1));
        group.clear(0);
        group.clear(1);
        assert_eq!((group.held(), group.free(), group.shared()), (0, 2, 0));
        // Nobody else has it: it is written in place.
        group.give_up(1);
        group.share(1, 0, 0);
        group.give_up(0);
        assert_eq!(
            (group.missing(1, &(9..20)), group.take(1, &(9..20))),
            (0, None)
        );
        group.clear(1);
        assert_eq!(group.free(), 4);
    }
    #[test]
    fn pages_in_use_move_to_the_front_where_there_are_fewer() {
        let mut group = PageGroup::new(None, (2, 256), 8);
        group.take(0, &(0..130));
        group.take(1, &(0..130));
        // A prefix keeps the first two of the second.
        for page in group.pages_of(1, &(0..128)).into_iter().flatten() {
            group.keep(page);
        }
        group.clear(1);
        rows(&mut group);
        assert_eq!((group.held(), group.free()), (3, 3));
        let moves = group.resize(5);
        assert_eq!(moves, [(0, 0), (1, 1), (2, 2), (4, 4), (5, 3)]);
        assert_eq!((group.pages(), group.free(), group.held()), (5, 0, 3));
        assert_eq!(rows(&mut group)[0], (0, vec![0, 1, 2, -1]));
        group.give_up(moved(&moves, 4));
        assert_eq!(group.missing(0, &(130..193)), 1);
        group.take(0, &(130..193));
        assert_eq!(rows(&mut group), [(0, vec![0, 1, 2, 4])]);
        // More of them leave all where it is.
        let moves = group.resize(9);
        assert!(moves.iter().all(|(from, to)| from == to) && moves.len() == 5);
        assert_eq!((group.free(), group.held()), (4, 4));
        group.clear(0);
        group.give_up(3);
        assert_eq!((group.free(), group.held()), (9, 0));
    }
}
