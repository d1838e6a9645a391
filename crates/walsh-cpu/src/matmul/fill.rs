//! Filling the panels of tiled products from packed ones.

use std::ops::Range;

use super::blocks::{Columns, Kept, Part, Run};
use super::layout::BLOCK;
use super::panels::{PackedPanel, Panel, for_parts};
use super::tile::{Fill, Item, panel_block};
use crate::simd::{Products, Register, Unpack};

/// Filling from packed panels. Codes that take all eight bits are raised, whichever instructions multiply them.
pub(super) struct FromPanels;

impl<P: Products<Set: Unpack>, B: Columns> Fill<P, B> for FromPanels {
    #[inline(always)]
    fn fill(p: P, item: &mut Item<'_>, panel: usize, values: Range<usize>) {
        let s = p.set();
        let lanes = P::Set::LANES;
        let mut kept = Kept::new(s);
        let from = PackedPanel::of(s, item.job, item.panel_rows(panel).start);
        // A panel has 8 columns of quads for each 32 values, then each run's scales and minima.
        let bytes = panel_block(lanes, B::RUN);
        let range = values.start / B::LEN..values.end / B::LEN;
        let panel = item.panel(panel);
        let panel = panel.chunks_exact_mut(B::LEN / BLOCK * bytes);
        assert!(range.len() <= panel.len(), "room for a piece");
        for (block, to) in range.zip(panel) {
            let to = to.as_mut_ptr();
            // SAFETY: the panel's rows are of such blocks, and the values are some of K.
            let blocks = unsafe { from.block::<B>(block) };
            B::start(blocks, &mut kept);
            for_parts!(B, |index| {
                let part = Part {
                    index,
                    signed: false,
                };
                let codes = B::codes(blocks, part, &mut kept);
                // SAFETY: each part of the block has room for eight registers of quads, and two of each run.
                unsafe {
                    let to = to.add(index * bytes);
                    for (quad, codes) in codes.into_iter().enumerate() {
                        s.store_words(to.add(quad * lanes * 4), codes);
                    }
                    let runs = to.add(lanes * BLOCK).cast::<f32>();
                    for run in 0..BLOCK / B::RUN {
                        let Run { scale, min } = B::run(s, &kept, index * (BLOCK / B::RUN) + run);
                        s.store_numbers(runs.add(2 * run * lanes), scale);
                        s.store_numbers(runs.add((2 * run + 1) * lanes), min);
                    }
                }
            });
        }
    }
}
