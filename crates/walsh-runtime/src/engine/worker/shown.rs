//! What is told of an engine to who looks at it.

use std::sync::PoisonError;

use super::Worker;
use crate::engine::slots::SlotStatus;
use crate::engine::status::EngineStatus;
use crate::pages::PageGroup;

/// What is told of an engine to who looks at it.
#[derive(Default)]
pub(in crate::engine) struct Shown {
    pub(in crate::engine) status: EngineStatus,
    pub(in crate::engine) slots: Vec<SlotStatus>,
}

impl Worker {
    /// Tells those who look at it.
    pub(super) fn show(&mut self) {
        self.runner.stand(&self.running);
        let groups = &self.runner.caches.pool.groups;
        let sum =
            |of: &dyn Fn(&PageGroup) -> usize| groups.iter().map(|group| of(&group.pages)).sum();
        self.status.waiting = self.waiting.len();
        self.status.running = self.running.len();
        self.status.pages_used = sum(&PageGroup::held);
        self.status.pages_shared = sum(&PageGroup::shared);
        self.status.pages_kept = sum(&|pages| pages.pages() - pages.free() - pages.held());
        self.status.pages = sum(&PageGroup::pages);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.status = self.status;
        shown.slots.clear();
        shown
            .slots
            .extend(self.runner.held.iter().map(|held| SlotStatus {
                request: None,
                tokens: held.as_ref().map_or(0, |text| text.tokens.len()),
            }));
        for sequence in self.running.iter().chain(&self.waiting) {
            if let Some(slot) = sequence.slot {
                shown.slots[slot] = SlotStatus {
                    request: Some(sequence.number),
                    tokens: sequence.read(),
                };
            }
        }
    }
}
