//! How many pages texts need, and how caches grow and shrink with what an engine holds of a budget.

use super::{KEPT_STEPS, Runner};
use crate::engine::budget::{Asked, Budget, Lack, Part, Standing};
use crate::engine::caches::{Moves, Plan, Sizes};
use crate::engine::options::EngineOptions;
use crate::engine::sequence::Sequence;
use crate::model::steps::Steps;
use crate::pages::{Group, PAGE, PageGroup};
use crate::size::size_text;
use crate::{Error, Model, Result};

/// An engine that serves somebody keeps this part of its pages free for them: what it is asked for it has to ask for again.
const RESERVE: usize = 8;

/// What an engine begins with of a budget.
pub(super) fn part(
    (model, options): (&Model, &EngineOptions),
    sizes: &Sizes,
    (budget, name): (&Budget, &str),
) -> Result<Part> {
    let (one, full) = (sizes.one(), sizes.full());
    let free = model.device().available_bytes();
    // Half of what is free where nothing else is said, for there is more to keep than codes.
    let usual = free.map_or(u64::MAX, |free| (free / 2).max(one));
    let bytes = budget.bytes().unwrap_or(usual);
    if bytes < one {
        return Err(Error::option(
            "kv_memory",
            format_args!(
                "at least {}, for one sequence of {} tokens in {}",
                size_text(one),
                options.context,
                options.kv,
            ),
            size_text(bytes),
        ));
    }
    let part = budget.open(name, one, full.min(bytes))?;
    match free.filter(|free| *free < part.held()) {
        None => Ok(part),
        Some(free) => Err(Error::option(
            "kv_memory",
            format_args!("at most the {} that are free", size_text(free)),
            size_text(part.held()),
        )),
    }
}

impl Runner {
    /// The positions of a text behind which all of it is read.
    fn last_chunk(&self, sequence: &Sequence) -> std::ops::Range<usize> {
        let tokens = sequence.tokens().len();
        tokens.saturating_sub(self.chunk)..tokens + 1
    }

    /// How many pages those need yet whose prompts are being read.
    fn promised(&self, pages: &PageGroup, running: &[Sequence]) -> usize {
        let reading = running.iter().filter(|sequence| sequence.is_being_read());
        let missing = reading.map(|sequence| {
            let slot = sequence.slot.unwrap_or_default();
            pages.missing(slot, &self.last_chunk(sequence))
        });
        missing.sum()
    }

    /// How many pages of each group a text needs that begins, besides those in use that it shares.
    fn needed(&self, sequence: &Sequence) -> Vec<usize> {
        let groups = &self.caches.pool.groups;
        let found = self.search(sequence).found;
        let shared = match (&self.prefixes, found) {
            (Some(prefixes), Some(found)) => prefixes.pages_of(&found, groups),
            _ => vec![Vec::new(); groups.len()],
        };
        // A page that is written to is not shared for long.
        let whole = found.map_or(0, |found| found.position / PAGE);
        let needed = |(Group { pages, .. }, shared): (&Group, Vec<(usize, i32)>)| {
            let held = shared
                .iter()
                .filter(|(entry, page)| *entry < whole && pages.is_held(*page));
            let needed = pages.needed(&self.last_chunk(sequence));
            needed.saturating_sub(held.count())
        };
        groups.iter().zip(shared).map(needed).collect()
    }

    /// Whether a text may begin beside others: each may need another page soon, and what is left of its prompt needs more.
    /// Alone, any may.
    pub(in crate::engine) fn has_room(&self, sequence: &Sequence, running: &[Sequence]) -> bool {
        let others = running.len();
        let fits = |(Group { pages, .. }, needed): (&Group, usize)| {
            needed + others + self.promised(pages, running) <= pages.pages() - pages.held()
        };
        let groups = &self.caches.pool.groups;
        others == 0 || groups.iter().zip(self.needed(sequence)).all(fits)
    }

    /// What is lacking for the next step of those that run and for the next that waits, before any beginning is given up.
    pub(in crate::engine) fn lack(
        &mut self,
        running: &[Sequence],
        waiting: Option<&Sequence>,
    ) -> Option<Lack> {
        let (held, full) = (self.part.held(), self.sizes.full());
        if held >= full {
            return None;
        }
        let needed = waiting.map(|sequence| self.needed(sequence));
        let (mut wanted, mut lacks, mut texts_wait) = (self.plan.pages.clone(), false, false);
        for (index, wanted) in wanted.iter_mut().enumerate() {
            let mut next = 0;
            for sequence in running {
                let (slot, rows) = (sequence.slot.unwrap_or_default(), sequence.next_rows());
                let positions = rows.positions();
                let pages = &mut self.caches.pool.groups[index].pages;
                pages.leave(slot, positions.start);
                next += pages.missing(slot, &positions);
            }
            let pages = &self.caches.pool.groups[index].pages;
            let begins = needed.as_ref().map_or(0, |needed| {
                needed[index] + running.len() + self.promised(pages, running)
            });
            let demand = next.max(begins);
            *wanted += demand.saturating_sub(pages.free());
            lacks |= demand > pages.free();
            texts_wait |= demand > pages.pages() - pages.held();
        }
        let least = self.sizes.bytes_for(&wanted).min(full);
        let oldest = self.prefixes.as_ref();
        let oldest = oldest.and_then(|prefixes| prefixes.oldest(&self.caches.pool.groups));
        lacks.then(|| Lack {
            least: least.saturating_sub(held).max(1),
            bytes: least.max(held + held / 4).min(full) - held,
            oldest: oldest.unwrap_or(u64::MAX),
            texts_wait,
        })
    }

    /// How many pages of each group stay, whatever is asked for.
    fn own(&self, running: &[Sequence], for_one: bool) -> Vec<usize> {
        let of = |Group { pages, .. }: &Group| {
            if running.is_empty() {
                return 0;
            }
            let reserve = if for_one { 0 } else { pages.pages() / RESERVE };
            let own = pages.held() + self.promised(pages, running) + running.len() + reserve;
            own.min(pages.pages())
        };
        self.caches.pool.groups.iter().map(of).collect()
    }

    /// Says what could be given to others, where there are any.
    pub(in crate::engine) fn stand(&self, running: &[Sequence]) {
        if !self.part.is_alone() {
            self.part.stand(self.standing(running));
        }
    }

    fn standing(&self, running: &[Sequence]) -> Standing {
        let own = self.own(running, false);
        let groups = self.caches.pool.groups.iter().zip(&self.sizes.groups);
        let (mut spare, mut has_more) = (0, false);
        for ((Group { pages, .. }, size), own) in groups.zip(own) {
            let more = pages.pages() - own.max(size.least);
            spare += more.min(pages.free()) as u64 * size.page_bytes;
            has_more |= more > 0;
        }
        let oldest = self.prefixes.as_ref().filter(|_| has_more);
        Standing {
            spare,
            oldest: oldest.and_then(|prefixes| prefixes.oldest(&self.caches.pool.groups)),
            idle: running.is_empty(),
        }
    }

    /// Gives up memory, as far as it is asked for and texts that run do not need it: how much that is.
    pub(in crate::engine) fn shrink(&mut self, asked: Asked, running: &[Sequence]) -> Result<u64> {
        let before = self.sizes.bytes(&self.plan);
        let own = self.own(running, asked.for_one);
        let target = before.saturating_sub(asked.bytes);
        let mut plan = self.sizes.plan_near(target, &own);
        for (index, pages) in plan.pages.iter_mut().enumerate() {
            let groups = &mut self.caches.pool.groups;
            let there = groups[index].pages.pages();
            if let Some(prefixes) = &mut self.prefixes {
                let wanted = there.saturating_sub(*pages);
                prefixes.make_room(groups, index, wanted, asked.before);
            }
            *pages = (*pages).max(there - groups[index].pages.free());
        }
        let given = before.saturating_sub(self.sizes.bytes(&plan));
        if given > 0 {
            self.lay_out(plan)?;
        }
        Ok(given)
    }

    /// Makes what it has taken into pages.
    pub(in crate::engine) fn grow(&mut self) -> Result<()> {
        let (held, before) = (self.part.held(), self.sizes.bytes(&self.plan));
        let plan = self.sizes.plan_with(held, &self.plan.pages);
        let plan = plan.filter(|plan| *plan != self.plan);
        let after = plan.as_ref().map_or(before, |plan| self.sizes.bytes(plan));
        let free = self.device.available_bytes();
        match plan.filter(|_| free.is_none_or(|free| free > after.saturating_sub(before))) {
            Some(plan) => {
                self.lay_out(plan)?;
                self.part.give(held.saturating_sub(after));
            }
            // The device has less than the budget: what is there has to do.
            None => self.part.give(held.saturating_sub(before)),
        }
        Ok(())
    }

    /// Lays the caches out by a plan, in which all that is in use has room.
    fn lay_out(&mut self, plan: Plan) -> Result<()> {
        let mut moves = Moves::default();
        for (index, pages) in plan.pages.iter().enumerate() {
            let moved = self.caches.pool.groups[index].pages.resize(*pages);
            if let Some(prefixes) = &mut self.prefixes {
                prefixes.move_pages(index, &moved);
            }
            moves.pages.push(moved);
        }
        if let (Some(prefixes), Some(copies)) = (&mut self.prefixes, plan.copies) {
            moves.copies = prefixes.resize_checkpoints(copies);
        }
        // Lists are recorded over the caches of before.
        self.steps = Steps::new(KEPT_STEPS);
        self.caches.resize(&plan, &moves)?;
        self.plan = plan;
        Ok(())
    }
}
