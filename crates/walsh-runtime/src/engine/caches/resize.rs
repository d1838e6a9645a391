//! Caches of another size in the place of those that are there, with all that is in use.

use super::{Caches, Plan};
use crate::Result;

/// Where things are, and where they go.
#[derive(Debug, Default)]
pub(in crate::engine) struct Moves {
    /// Of each group, the pages that are in use.
    pub(in crate::engine) pages: Vec<Vec<(i32, i32)>>,
    /// The copies of overlays that are in use.
    pub(in crate::engine) copies: Vec<(usize, usize)>,
}

impl Caches {
    /// Lays all out anew by a plan, a layer at a time, so that one is there twice at most. Page groups know of the new
    /// places already. Where it fails, the caches are of no use any more.
    pub(in crate::engine) fn resize(&mut self, plan: &Plan, moves: &Moves) -> Result<()> {
        let slots = (0..self.slots).map(|slot| (slot, slot));
        let copies = moves
            .copies
            .iter()
            .map(|(from, to)| (self.slots + from, self.slots + to));
        let texts: Vec<(usize, usize)> = slots.chain(copies).collect();
        let count = self.slots + plan.copies.unwrap_or(0);
        self.texts.resize(&self.pool, count)?;
        for index in 0..self.texts.layers.len() {
            if let Some(group) = self.pool.group_of(index) {
                let pages = &moves.pages[group];
                self.pool.lay_out(index, plan.pages[group], pages)?;
            }
            self.texts.move_layer(&self.pool, index, &texts)?;
        }
        self.copies = plan.copies;
        Ok(())
    }
}
