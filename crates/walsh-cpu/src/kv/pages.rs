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

    /// The table, to read.
    ///
    /// # Safety
    /// Nothing writes it while it is borrowed.
    pub(super) unsafe fn read(&self) -> Table<'_> {
        Table {
            // SAFETY: nothing writes the table, as this method asks.
            pages: unsafe { self.table.all() },
            per_sequence: self.per_sequence,
        }
    }
}

/// [`Pages`] while nothing writes them.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pages: &'a [i32],
    per_sequence: usize,
}

impl Table<'_> {
    /// The slot of a position of a sequence.
    pub(super) fn slot(&self, sequence: usize, position: usize) -> usize {
        let page = self.pages[sequence * self.per_sequence + position / PAGE];
        page as usize * PAGE + position % PAGE
    }
}
