//! What a team runs.

use std::ops::Range;

use super::scratch::Scratch;

/// A number of independent work items that the workers of a [`Team`](super::Team) share.
pub(crate) trait Phase: Send + Sync {
    /// The number of work items. It does not change.
    fn items(&self) -> usize;

    /// How many items a worker takes at a time; at least 1.
    fn grain(&self) -> usize {
        1
    }

    /// The bytes of scratch memory that [`Phase::run`] may use.
    fn scratch_bytes(&self) -> usize {
        0
    }

    /// The estimated time of the whole phase on one thread, in nanoseconds, to the nearest order of magnitude or so. It is
    /// asked for before every run, and may depend on what is in memory then.
    fn cost(&self) -> u64;

    /// The memory that the items read in order, if that is most of what they read and each of its bytes is read once.
    fn stream(&self) -> Option<Stream> {
        None
    }

    /// What a profile calls the phase: its type.
    fn name(&self) -> &'static str {
        let path = std::any::type_name::<Self>();
        path.rsplit("::").next().unwrap_or(path)
    }

    /// Does the work of `items`, a part of `0..self.items()`.
    ///
    /// # Safety
    /// The memory that the phase was made with is alive, and nothing else reads what this phase writes or writes what
    /// it touches while it runs. Each item runs at most once at a time. `scratch` holds at least
    /// [`Phase::scratch_bytes`] bytes.
    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch);
}

/// Memory that a phase reads once and in order: item after item, and each from front to back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    /// Where the first item's bytes are.
    pub start: *const u8,
    /// The bytes of an item.
    pub item_bytes: usize,
    /// The bytes of all items.
    pub bytes: usize,
}
