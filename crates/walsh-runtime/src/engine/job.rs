//! What an engine's thread is asked for.

use super::runner::Runner;
use super::sequence::Sequence;

/// What is done with a slot that no request has, and what tells who asked for it.
pub(super) type SlotWork = Box<dyn FnOnce(&mut Runner, usize) -> Box<dyn FnOnce()> + Send>;

/// What an engine is asked for.
pub(super) enum Job {
    Serve(Box<Sequence>),
    Slot(usize, SlotWork),
    /// To look at its part of the budget: it is asked for some of it, or was answered.
    Look,
}
