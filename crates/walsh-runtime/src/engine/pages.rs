//! Which pages of the caches hold which positions of which sequence.

use std::collections::BTreeSet;
use std::ops::Range;

/// Positions of a page.
pub(super) const PAGE: usize = walsh::PAGE as usize;

/// What stands in a page table for no page.
const NONE: i32 = -1;

/// Pages for the same positions of all layers that see equally far back.
pub(super) struct PageGroup {
    /// How far back a token sees, its own position included; `None` for all the way.
    window: Option<usize>,
    /// Entries of the table per slot.
    per_slot: usize,
    /// `[slots, per_slot]`: the page of each 64 positions of a slot's sequence.
    table: Vec<i32>,
    /// Slots whose rows differ from the device's.
    changed: BTreeSet<usize>,
    free: BTreeSet<i32>,
    pages: usize,
}

impl PageGroup {
    /// A group of free pages.
    pub(super) fn new(
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
            pages,
        }
    }

    /// How many pages there are.
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// How many pages hold nothing.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// The pages that tokens at these positions see or are stored into, as entries of a row.
    fn entries(&self, positions: &Range<usize>) -> Range<usize> {
        let first = match self.window {
            Some(window) => (positions.start + 1).saturating_sub(window),
            None => 0,
        };
        first / PAGE..positions.end.div_ceil(PAGE)
    }

    /// How many pages a sequence has at once while tokens at these positions are read, at most.
    pub(super) fn needed(&self, positions: &Range<usize>) -> usize {
        self.entries(positions).len()
    }

    /// How many more pages a slot needs for tokens at these positions.
    pub(super) fn missing(&self, slot: usize, positions: &Range<usize>) -> usize {
        let row = &self.table[slot * self.per_slot..][..self.per_slot];
        let lacks = |entry: &usize| row[*entry] == NONE;
        self.entries(positions).filter(lacks).count()
    }

    /// Gives back what tokens from a position on no longer see.
    pub(super) fn leave(&mut self, slot: usize, position: usize) {
        let seen = self.entries(&(position..position + 1));
        self.release(slot, 0..seen.start);
    }

    /// Gives a slot the pages that it lacks for tokens at these positions, next to those that it has where they are free.
    /// There [are](Self::missing) as many.
    pub(super) fn take(&mut self, slot: usize, positions: &Range<usize>) {
        let row = slot * self.per_slot;
        for entry in self.entries(positions) {
            if self.table[row + entry] != NONE {
                continue;
            }
            let near = match entry.checked_sub(1).map(|before| self.table[row + before]) {
                Some(before) if before != NONE => before + 1,
                // A new sequence begins where it has room to grow.
                _ => (slot * self.pages / (self.table.len() / self.per_slot)) as i32,
            };
            let found = self
                .free
                .range(near..)
                .next()
                .or(self.free.first())
                .copied();
            let Some(page) = found else { return };
            self.free.remove(&page);
            self.table[row + entry] = page;
            self.changed.insert(slot);
        }
    }

    /// Gives back all pages of a slot.
    pub(super) fn clear(&mut self, slot: usize) {
        self.release(slot, 0..self.per_slot);
    }

    fn release(&mut self, slot: usize, entries: Range<usize>) {
        let row = slot * self.per_slot;
        for entry in entries {
            let page = std::mem::replace(&mut self.table[row + entry], NONE);
            if page != NONE {
                self.free.insert(page);
                self.changed.insert(slot);
            }
        }
    }

    /// The rows of the table that changed since the last call.
    pub(super) fn changes(&mut self) -> impl Iterator<Item = (usize, &[i32])> {
        let (table, per_slot) = (&self.table, self.per_slot);
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed.map(move |slot| (slot, &table[slot * per_slot..][..per_slot]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(group: &mut PageGroup) -> Vec<(usize, Vec<i32>)> {
        let changes = group.changes();
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
}
