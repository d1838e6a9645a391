//! Where the positions of sequences lie that are in pages.

use walsh_core::{KvCache, Result};

use crate::memory::View;

/// Positions of a page.
pub(super) const PAGE: usize = walsh_core::PAGE as usize;

/// Which page holds which positions of a sequence.
pub(super) struct Pages {
    /// `[sequences][per_sequence]`.
    table: View<i32>,
    per_sequence: usize,
}

impl Pages {
    /// Those of a cache that has any.
    pub(super) fn of(cache: &KvCache) -> Result<Option<Self>> {
        let Some(table) = cache.table() else {
            return Ok(None);
        };
        Ok(Some(Self {
            table: View::of(table)?,
            per_sequence: table.shape()[1] as usize,
        }))
    }

    /// The slot of a position of a sequence.
    ///
    /// # Safety
    /// The list orders the read of the table, and the position has been checked.
    pub(super) unsafe fn slot(&self, sequence: usize, position: usize) -> usize {
        let at = sequence * self.per_sequence + position / PAGE;
        // SAFETY: the caller's.
        let page = unsafe { self.table.slice(at..at + 1)[0] };
        page as usize * PAGE + position % PAGE
    }
}
