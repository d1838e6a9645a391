//! Plans of products: which kernel, and how the work is divided.

use std::ops::Range;

use walsh_formats::DType;

use super::activations::{ActivationLayout, Arrangement, Tiles};
use super::kernels::Kernels;
use super::pack::LANES;
use super::tile;
use crate::isa::Isa;
use walsh_core::Activations;

/// What a product is planned from: `output[m, n] = Σ_k input[m, k] · weight[n, k]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductShape {
    /// The storage type of the weight.
    pub weight: DType,
    /// The rows of the input and the output.
    pub m: usize,
    /// The rows of the weight: the columns of the output.
    pub n: usize,
    /// The columns of the input and the weight.
    pub k: usize,
    /// Whether the weight is packed ([`Packing`](super::Packing)) rather than as a file has it.
    pub packed: bool,
}

impl ProductShape {
    /// Whether a packed weight meets one row of input: its panels are streamed as rows are otherwise.
    pub(super) fn is_packed_row(&self) -> bool {
        self.packed && self.m == 1
    }
}

/// Why a product cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProductError {
    /// A dimension is zero.
    #[error("a product of shape m={m}, n={n}, k={k} has no values")]
    Empty {
        /// The rows of the input.
        m: usize,
        /// The rows of the weight.
        n: usize,
        /// The columns of both.
        k: usize,
    },
    /// The storage type has no products.
    #[error("weights of type {0} have no product kernel")]
    Type(DType),
    /// Rows of the weight are not whole blocks.
    #[error("weight rows of {k} values are not whole blocks of {block}", block = weight.block_len())]
    PartialBlock {
        /// The storage type.
        weight: DType,
        /// The values of a row.
        k: usize,
    },
    /// The instruction set, or the type, has no kernels for packed weights.
    #[error("{isa} has no kernels for packed weights of type {weight}")]
    Packed {
        /// The instruction set.
        isa: Isa,
        /// The storage type.
        weight: DType,
    },
    /// The instruction set is not one of this machine's.
    #[error("this machine cannot run {0} kernels")]
    Isa(Isa),
}

/// How a product is computed.
#[derive(Clone, Debug)]
pub struct ProductPlan {
    kernels: &'static Kernels,
    shape: ProductShape,
    row_bytes: usize,
    layout: ActivationLayout,
    /// The weight rows, and the tiles of activations, of a work item.
    item: (usize, usize),
}

/// The memory of a product.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// The weight `[n, k]`, rows of whole blocks. Blocks lie on even addresses; floats need not be aligned.
    pub weight: *const u8,
    /// The input as [`ProductPlan::layout`] prepares it, or the input `[m, k]` itself when that layout is plain.
    pub input: *const u8,
    /// Added to every row of the output: `[n]`.
    pub bias: Option<*const f32>,
    /// The output `[m, n]`.
    pub output: *mut f32,
}

/// A work item.
pub(super) struct Job<'a> {
    pub(super) plan: &'a ProductPlan,
    pub(super) operands: Operands,
    /// The weight rows: the output's columns.
    pub(super) columns: Range<usize>,
    /// The tiles of activations; empty for dot kernels, which take all rows.
    pub(super) tiles: Range<usize>,
}

impl Job<'_> {
    /// A row of the weight.
    ///
    /// # Safety
    /// `row` is below n.
    #[inline(always)]
    pub(super) unsafe fn weight_row(&self, row: usize) -> *const u8 {
        // SAFETY: the caller's.
        unsafe { self.operands.weight.add(row * self.plan.row_bytes) }
    }

    /// Writes one value of the output, with its bias.
    ///
    /// # Safety
    /// The value lies in the output, and is this thread's.
    #[inline(always)]
    pub(super) unsafe fn put(&self, row: usize, column: usize, sum: f32) {
        // SAFETY: the caller's.
        unsafe {
            let bias = self
                .operands
                .bias
                .map_or(0.0, |bias| bias.add(column).read());
            self.operands
                .output
                .add(row * self.plan.shape.n + column)
                .write(sum + bias);
        }
    }
}

/// The weight bytes that a work item of a dot kernel reads: enough to be worth a claim, little enough to balance.
const ITEM_BYTES: Range<usize> = 8 << 10..128 << 10;

impl ProductPlan {
    /// Plans a product for a team of `threads`.
    ///
    /// # Errors
    /// When the shape is empty, the type has no products or does not fit the row length, or the instruction set is
    /// missing.
    pub fn new(
        isa: Isa,
        threads: usize,
        activations: Activations,
        shape: ProductShape,
    ) -> Result<ProductPlan, ProductError> {
        let plan = ProductPlan::of_set(isa, threads, activations, shape)?;
        match isa.is_available() {
            true => Ok(plan),
            false => Err(ProductError::Isa(isa)),
        }
    }

    /// The plan for an instruction set that this machine need not have: such a plan is not for running.
    fn of_set(
        isa: Isa,
        threads: usize,
        activations: Activations,
        shape: ProductShape,
    ) -> Result<ProductPlan, ProductError> {
        let ProductShape {
            weight,
            m,
            n,
            k,
            packed,
        } = shape;
        if m == 0 || n == 0 || k == 0 {
            return Err(ProductError::Empty { m, n, k });
        }
        if !weight.is_real() {
            return Err(ProductError::Type(weight));
        }
        let row_bytes = weight
            .row_bytes(k as u64)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .ok_or(ProductError::PartialBlock { weight, k })?;
        let kernels = Kernels::of(isa);
        if packed
            && !(kernels.packs.is_some()
                && weight.is_quantised()
                && activations == Activations::Int8)
        {
            return Err(ProductError::Packed { isa, weight });
        }
        let layout = ActivationLayout::new(isa, activations, shape);
        let item = match layout.arrangement {
            Arrangement::Plain | Arrangement::Rows => (dot_rows(n, row_bytes, threads), 1),
            _ if shape.is_packed_row() => {
                (dot_rows(n, row_bytes, threads).next_multiple_of(LANES), 1)
            }
            Arrangement::Tiles(tiles) | Arrangement::FloatTiles(tiles) => {
                divide_tiles(n, kernels.panel_rows, tiles, threads)
            }
        };
        Ok(ProductPlan {
            kernels,
            shape,
            row_bytes,
            layout,
            item,
        })
    }

    /// The form in which the input is read.
    pub fn layout(&self) -> &ActivationLayout {
        &self.layout
    }

    /// The shape that was planned.
    pub fn shape(&self) -> ProductShape {
        self.shape
    }

    pub(super) fn n(&self) -> usize {
        self.shape.n
    }

    pub(super) fn k(&self) -> usize {
        self.shape.k
    }

    /// The bytes of a row of the weight.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The number of work items.
    pub fn items(&self) -> usize {
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
    pub fn cost(&self) -> u64 {
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
    pub fn stream_bytes(&self) -> Option<usize> {
        let once = self.shape.is_packed_row()
            || matches!(
                self.layout.arrangement,
                Arrangement::Plain | Arrangement::Rows
            );
        once.then_some(self.item.0 * self.row_bytes)
    }

    /// The scratch bytes of a work item.
    pub fn scratch_bytes(&self) -> usize {
        match self.layout.arrangement {
            Arrangement::Plain | Arrangement::Rows => self.shape.m * 4,
            Arrangement::Tiles(tiles) | Arrangement::FloatTiles(tiles) => {
                let rows = tiles.start(self.item.1.min(tiles.count()));
                tile::scratch_bytes(self.kernels.panel_rows, rows)
            }
        }
    }

    /// Computes some work items.
    ///
    /// # Safety
    /// The operands are what [`Operands`] says, nothing else touches the output, and `scratch` has at least
    /// [`ProductPlan::scratch_bytes`] bytes and starts on a 64-byte boundary.
    pub unsafe fn run(&self, items: Range<usize>, operands: Operands, scratch: &mut [u8]) {
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
            // SAFETY: the caller's; `new` has checked that the instruction set is there.
            unsafe {
                kernel(
                    &Job {
                        plan: self,
                        operands,
                        columns,
                        tiles,
                    },
                    scratch,
                )
            };
        }
    }
}

impl ProductPlan {
    /// Computes the products of one row of the weight, with the very bits that [`run`](Self::run) gives them.
    ///
    /// # Safety
    /// As for `run`; the plan is one for few rows of input, and the weight is not packed.
    pub(super) unsafe fn run_row(&self, row: usize, operands: Operands, scratch: &mut [u8]) {
        let kernel = self.kernels.of_layout(&self.layout)(self.shape);
        let job = Job {
            plan: self,
            operands,
            columns: row..row + 1,
            tiles: 0..0,
        };
        // SAFETY: the caller's; `new` has checked that the instruction set is there.
        unsafe { kernel(&job, scratch) }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of a team's time in which some of it waits for the last items, were all items of one length.
    fn idle(items: usize, threads: usize) -> f64 {
        1.0 - items as f64 / (items.div_ceil(threads) * threads) as f64
    }

    #[test]
    fn items_suffice_for_the_team() {
        for n in [576, 1536, 2048, 14336, 49152, 262_144] {
            for isa in Isa::built() {
                for (m, threads, most) in [(1, 2, 0.1), (1, 8, 0.2), (512, 2, 0.1), (512, 16, 0.2)]
                {
                    if m > 1 && isa == Isa::Portable {
                        continue; // Its items are those of one row.
                    }
                    let shape = ProductShape {
                        weight: DType::Q4_1,
                        packed: false,
                        m,
                        n,
                        k: 576,
                    };
                    let plan = ProductPlan::of_set(isa, threads, Activations::Int8, shape).unwrap();
                    let idle = idle(plan.items(), threads);
                    assert!(idle <= most, "{isa} n={n} m={m} threads={threads}: {idle}");
                }
            }
        }
    }
}
