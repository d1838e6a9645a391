//! Phases that run together.

use std::sync::Arc;

use super::ahead::Ahead;
use super::division::Division;
use super::phase::Phase;

/// Phases without hazards between them: they may run in any order and at the same time.
#[derive(Default)]
pub(crate) struct Group {
    pub(super) phases: Vec<Box<dyn Phase>>,
    pub(super) division: Division,
    /// What threads may fetch when they are done with this group.
    pub(super) ahead: Option<Arc<Ahead>>,
}

impl Group {
    /// A group of phases.
    pub(crate) fn new(phases: Vec<Box<dyn Phase>>) -> Group {
        Group {
            division: Division::of(&phases),
            phases,
            ahead: None,
        }
    }

    /// Adds a phase that has no hazard with those already in the group.
    pub(crate) fn push(&mut self, phase: Box<dyn Phase>) {
        self.division.push(&*phase);
        self.phases.push(phase);
    }
}

/// Lets each group know what the next one with streams reads. Threads fetch it once they are done with the group.
pub(crate) fn look_ahead(groups: &mut [Group]) {
    let mut next = None;
    for group in groups.iter_mut().rev() {
        group.ahead.clone_from(&next);
        next = Ahead::of(&group.phases).map(Arc::new).or(next);
    }
}
