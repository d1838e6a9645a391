//! Plans of products: which kernel, and how the work is divided.

use std::ops::Range;

use walsh_core::Activations;

use super::blocks;
use super::contract::{InputLayout, Job, Kernels, Operands, ProductError, ProductShape};
use super::layout::{Arrangement, LANES, Tiles};
use super::{registry, tile};
use crate::isa::Isa;

/// How a product is computed.
#[derive(Clone, Debug)]
pub(crate) struct ProductPlan {
    kernels: &'static Kernels,
    shape: ProductShape,
    row_bytes: usize,
    layout: InputLayout,
    /// The weight rows, and the tiles of activations, of a work item.
    item: (usize, usize),
}

/// The weight bytes that a work item of a dot kernel reads: enough to be worth a claim, little enough to balance.
const ITEM_BYTES: Range<usize> = 8 << 10..128 << 10;

impl ProductPlan {
    /// Plans a product for a team of `threads`.
    ///
    /// # Errors
    /// When the shape is empty, the type has no products or does not fit the row length, or the instruction set is
    /// missing.
    pub(crate) fn new(
        isa: Isa,
        threads: usize,
        activations: Activations,
        shape: ProductShape,
    ) -> Result<ProductPlan, ProductError> {
        let row_bytes = shape.check()?;
        if !isa.is_available() {
            return Err(ProductError::Isa(isa));
        }
        let kernels = registry::kernels(isa);
        let weight = shape.weight;
        if shape.packed
            && !(kernels.packs.is_some()
                && blocks::is_side_by_side(weight)
                && activations == Activations::Int8)
        {
            return Err(ProductError::Packed { isa, weight });
        }
        let layout = InputLayout::new(kernels, activations, shape);
        let plan = ProductPlan {
            kernels,
            shape,
            row_bytes,
            layout,
            item: (0, 0),
        };
        Ok(plan.divided(threads))
    }

    /// The same product with so many rows of input and of the weight, for one thread.
    pub(super) fn part(&self, m: usize, n: usize, activations: Activations) -> ProductPlan {
        let shape = ProductShape { m, n, ..self.shape };
        let layout = InputLayout::new(self.kernels, activations, shape);
        let plan = ProductPlan {
            shape,
            layout,
            ..self.clone()
        };
        plan.divided(1)
    }

    /// The plan with its work divided for a team.
    fn divided(self, threads: usize) -> ProductPlan {
        let ProductPlan {
            kernels,
            shape,
            row_bytes,
            layout,
            ..
        } = self;
        let n = shape.n;
        let item = match layout.arrangement {
            Arrangement::Plain | Arrangement::Rows => (dot_rows(n, row_bytes, threads), 1),
            _ if shape.is_packed_row() => {
                (dot_rows(n, row_bytes, threads).next_multiple_of(LANES), 1)
            }
            Arrangement::Tiles(tiles) | Arrangement::FloatTiles(tiles) => {
                divide_tiles(n, kernels.panel_rows, tiles, threads)
            }
        };
        ProductPlan { item, ..self }
    }

    /// The bytes of a row of the weight.
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The weight rows of the panels that a work item of tiles has at most.
    pub(super) fn most_panels(&self) -> usize {
        tile::PANELS * self.kernels.panel_rows
    }

    /// The form in which the input is read.
    pub(crate) fn layout(&self) -> &InputLayout {
        &self.layout
    }

    /// The shape that was planned.
    pub(crate) fn shape(&self) -> ProductShape {
        self.shape
    }

    /// The number of work items.
    pub(crate) fn items(&self) -> usize {
        self.shape.n.div_ceil(self.item.0) * self.tile_items()
    }

    fn tile_items(&self) -> usize {
        match self.layout.arrangement {
            Arrangement::Plain | Arrangement::Rows => 1,
            Arrangement::Tiles(tiles) | Arrangement::FloatTiles(tiles) => {
                tiles.count().div_ceil(self.item.1)
            }
        }
    }

    /// The estimated time on one thread, in nanoseconds.
    pub(crate) fn cost(&self) -> u64 {
        let ProductShape { m, n, k, .. } = self.shape;
        let slow = if self.kernels.isa == Isa::Portable {
            8
        } else {
            1
        };
        let read = n as u64 * self.row_bytes as u64 / 15;
        let compute = m as u64 * n as u64 * k as u64 / 80;
        read.max(compute) * slow
    }

    /// The weight bytes of a work item where items read the weight once and in order: with few rows of input.
    pub(crate) fn stream_bytes(&self) -> Option<usize> {
        let once = self.shape.is_packed_row()
            || matches!(
                self.layout.arrangement,
                Arrangement::Plain | Arrangement::Rows
            );
        once.then_some(self.item.0 * self.row_bytes)
    }

    /// The scratch bytes of a work item.
    pub(crate) fn scratch_bytes(&self) -> usize {
        match self.layout.arrangement {
            Arrangement::Plain | Arrangement::Rows => self.shape.m * 4,
            Arrangement::Tiles(tiles) | Arrangement::FloatTiles(tiles) => {
                let rows = tiles.start(self.item.1.min(tiles.count()));
                tile::scratch_bytes(self.kernels.panel_rows, rows)
            }
        }
    }

    /// The scratch bytes of a [part](Self::part) with at most so many rows of input.
    pub(super) fn most_scratch_bytes(&self, rows: usize) -> usize {
        tile::scratch_bytes(self.kernels.panel_rows, rows).max(rows * 4)
    }

    /// Computes some work items. The operands are what [`Operands`] says, and `scratch` has at least
    /// [`ProductPlan::scratch_bytes`] bytes and starts on a 64-byte boundary.
    ///
    /// # Safety
    /// Nothing else touches the items' columns and rows of the output.
    pub(crate) unsafe fn run(
        &self,
        items: Range<usize>,
        operands: Operands<'_>,
        scratch: &mut [u8],
    ) {
        let per_column = self.tile_items();
        let kernel = self.kernels.of_layout(&self.layout)(self.shape);
        for item in items {
            let column = item / per_column * self.item.0;
            let columns = column..(column + self.item.0).min(self.shape.n);
            let tiles = match self.layout.arrangement {
                Arrangement::Plain | Arrangement::Rows => 0..0,
                Arrangement::Tiles(tiles) | Arrangement::FloatTiles(tiles) => {
                    let tile = item % per_column * self.item.1;
                    tile..(tile + self.item.1).min(tiles.count())
                }
            };
            // SAFETY: items are apart, and nothing else touches their part of the output, as this method asks.
            let job = unsafe { self.job(operands, columns, tiles) };
            kernel(&job, scratch);
        }
    }

    /// # Safety
    /// As for [`Job::new`].
    unsafe fn job<'a>(
        &self,
        operands: Operands<'a>,
        columns: Range<usize>,
        tiles: Range<usize>,
    ) -> Job<'a> {
        let weight = (self.shape, self.row_bytes);
        // SAFETY: it is passed on.
        unsafe { Job::new(weight, self.layout.arrangement, operands, columns, tiles) }
    }
}

impl ProductPlan {
    /// Computes the products of one row of the weight, with the very bits that [`run`](Self::run) gives them; the plan is
    /// one for few rows of input, and the weight is not packed.
    ///
    /// # Safety
    /// Nothing else touches this column of the output.
    pub(super) unsafe fn run_row(&self, row: usize, operands: Operands<'_>, scratch: &mut [u8]) {
        let kernel = self.kernels.of_layout(&self.layout)(self.shape);
        // SAFETY: nothing else touches the column, as this method asks.
        let job = unsafe { self.job(operands, row..row + 1, 0..0) };
        kernel(&job, scratch);
    }

    /// Whether its kernel computes one row of the weight after the other, each by itself.
    pub(super) fn takes_single_rows(&self) -> bool {
        let few = matches!(
            self.layout.arrangement,
            Arrangement::Plain | Arrangement::Rows
        );
        few && !self.shape.packed
    }
}

/// The weight rows of a work item of a dot kernel.
fn dot_rows(n: usize, row_bytes: usize, threads: usize) -> usize {
    let bytes = (n * row_bytes / (threads * 8)).clamp(ITEM_BYTES.start, ITEM_BYTES.end);
    bytes.div_ceil(row_bytes).next_multiple_of(4).min(n)
}

/// The rows of activations that pay for decoding a panel.
const ITEM_ROWS: Range<usize> = 48..576;

/// The items that a thread gets: the last of them leave part of the team idle.
const ITEMS: usize = 12;

/// The weight rows and the tiles of a work item: as many panels as a tile's pass from the outer caches pays for, unless
/// that leaves the team too few items.
fn divide_tiles(n: usize, panel_rows: usize, tiles: Tiles, threads: usize) -> (usize, usize) {
    let wanted = if threads == 1 { 1 } else { threads * ITEMS };
    // Sums of an item stay in the second-level cache.
    let most = (ITEM_ROWS.end / tiles.most()).max(1);
    let fewest = ITEM_ROWS.start.div_ceil(tiles.most());
    let (mut panels, mut each) = (tile::PANELS, tiles.count().min(most));
    let items =
        |panels: usize, each: usize| n.div_ceil(panels * panel_rows) * tiles.count().div_ceil(each);
    // A panel is decoded anew for every item along the rows: that comes last, and stops where it would show.
    while items(panels, each) < wanted && (panels > 1 || each > fewest) {
        if panels > 1 {
            panels /= 2;
        } else {
            each = each.div_ceil(2).max(fewest);
        }
    }
    (panels * panel_rows, each)
}
