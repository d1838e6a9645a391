//! Filling the panels of tiled products from packed ones.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Columns, Kept, PackedPanel, Panel, Run, Vectors, for_parts};
use crate::matmul::layout::BLOCK;
use crate::matmul::tile::{Fill, Item, TileIsa, panel_block};

/// Filling from packed panels, with as many lanes as the tiles' panels have.
pub(in crate::matmul) struct FromPanels<V>(PhantomData<V>);

impl<V: Vectors, T: TileIsa, B: Columns> Fill<T, B> for FromPanels<V> {
    #[inline(always)]
    unsafe fn fill(item: &Item<'_>, panel: usize, values: Range<usize>) {
        const { assert!(V::LANES == T::LANES && !V::SIGNED) };
        let mut kept = Kept::<V>::new();
        // SAFETY: the caller's; a panel has 8 columns of quads for each 32 values, then each run's scales and minima.
        unsafe {
            let from = PackedPanel::<V>::of(item.job, item.panel_rows(panel).start);
            let mut to = item.panel(panel);
            for block in values.start / B::LEN..values.end / B::LEN {
                let words = from.block::<B>(block);
                B::start(words, &mut kept);
                for_parts!(B, |part| {
                    let codes = B::codes(words, part, &mut kept);
                    for (quad, codes) in codes.into_iter().enumerate() {
                        V::store(codes, to.add(quad * V::LANES * 4));
                    }
                    let runs = to.add(V::LANES * BLOCK).cast::<f32>();
                    for index in 0..BLOCK / B::RUN {
                        let Run { scale, min } =
                            B::run::<V>(&kept, part * (BLOCK / B::RUN) + index);
                        V::store_floats(scale, runs.add(2 * index * V::LANES));
                        V::store_floats(min, runs.add((2 * index + 1) * V::LANES));
                    }
                    to = to.add(panel_block(V::LANES, B::RUN));
                });
            }
        }
    }
}
