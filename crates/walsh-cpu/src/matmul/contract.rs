//! What plans and kernels agree on: the shape of a product, the form of its input, a work item, and the table of an
//! instruction set's kernels. It knows no kernel.

use std::hash::{Hash, Hasher};
use std::ops::Range;

use walsh_core::Activations;
use walsh_formats::DType;
use walsh_formats::ggml::Block;

use super::layout::{Arrangement, BLOCK, BlockQ8, CHUNK, LANES, RowParts, Tiles};
use crate::isa::Isa;
use crate::memory::Parts;

/// What a product is planned from: `output[m, n] = Σ_k input[m, k] · weight[n, k]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProductShape {
    /// The storage type of the weight.
    pub(crate) weight: DType,
    /// The rows of the input and the output.
    pub(crate) m: usize,
    /// The rows of the weight: the columns of the output.
    pub(crate) n: usize,
    /// The columns of the input and the weight.
    pub(crate) k: usize,
    /// Whether the weight is packed ([`Packing`](super::Packing)) rather than as a file has it.
    pub(crate) packed: bool,
}

impl ProductShape {
    /// The bytes of a row of the weight.
    ///
    /// # Errors
    /// When the shape is empty, or the type has no products or does not fit the row length.
    pub(super) fn check(&self) -> Result<usize, ProductError> {
        let &ProductShape {
            weight, m, n, k, ..
        } = self;
        if m == 0 || n == 0 || k == 0 {
            return Err(ProductError::Empty { m, n, k });
        }
        if !weight.is_real() {
            return Err(ProductError::Type(weight));
        }
        weight
            .row_bytes(k as u64)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .ok_or(ProductError::PartialBlock { weight, k })
    }

    /// Whether a packed weight meets one row of input: its panels are streamed as rows are otherwise.
    pub(super) fn is_packed_row(&self) -> bool {
        self.packed && self.m == 1
    }

    /// The rows that the weight has in memory: whole panels where it is packed.
    pub(super) fn stored_rows(&self) -> usize {
        if self.packed {
            self.n.next_multiple_of(LANES)
        } else {
            self.n
        }
    }
}

/// Why a product cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProductError {
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

/// The memory of a product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands<'a> {
    /// The weight `[n, k]`, rows of whole blocks. Blocks lie on even addresses; floats need not be aligned.
    pub(crate) weight: &'a [u8],
    /// The input as [`ProductPlan::layout`](super::plan::ProductPlan::layout) prepares it, or the bytes of the input `[m, k]`
    /// itself when that layout is plain.
    pub(crate) input: &'a [u8],
    /// Added to every row of the output: `[n]`.
    pub(crate) bias: Option<&'a [f32]>,
    /// The output `[m, n]`.
    pub(crate) output: Parts<'a, f32>,
}

/// A work item.
pub(super) struct Job<'a> {
    pub(super) shape: ProductShape,
    /// The bytes of a row of the weight.
    row_bytes: usize,
    /// How the input is arranged.
    pub(super) arrangement: Arrangement,
    operands: Operands<'a>,
    /// The weight rows: the output's columns.
    pub(super) columns: Range<usize>,
    /// The tiles of activations; empty for dot kernels, which take all rows.
    pub(super) tiles: Range<usize>,
}

impl<'a> Job<'a> {
    /// Some columns of the rows of some tiles, or of all rows.
    ///
    /// # Safety
    /// While the job lives, nothing else touches these columns of these rows of the output.
    pub(super) unsafe fn new(
        (shape, row_bytes): (ProductShape, usize),
        arrangement: Arrangement,
        operands: Operands<'a>,
        columns: Range<usize>,
        tiles: Range<usize>,
    ) -> Self {
        let ProductShape { m, n, .. } = shape;
        assert!(columns.end <= n && operands.weight.len() >= shape.stored_rows() * row_bytes);
        assert!(operands.output.len() >= m * n);
        assert!(operands.bias.is_none_or(|bias| bias.len() >= n));
        Job {
            shape,
            row_bytes,
            arrangement,
            operands,
            columns,
            tiles,
        }
    }

    /// A row of the weight.
    #[inline(always)]
    pub(super) fn weight_row(&self, row: usize) -> &'a [u8] {
        &self.operands.weight[row * self.row_bytes..][..self.row_bytes]
    }

    /// A row of the weight that is blocks.
    #[inline(always)]
    pub(super) fn blocks<B: Block>(&self, row: usize) -> &'a [B] {
        blocks_of(self.weight_row(row), self.shape.k / B::DTYPE.block_len())
    }

    /// The rows of the panel that a row of a packed weight is in.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn panel(&self, row: usize) -> &'a [u8] {
        let start = row / LANES * LANES * self.row_bytes;
        &self.operands.weight[start..][..LANES * self.row_bytes]
    }

    /// The bytes of a row of the weight.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The input of floats: rows as they are, or tiles.
    #[inline(always)]
    pub(super) fn floats(&self) -> &'a [f32] {
        let values = self.shape.m * self.shape.k;
        bytemuck::cast_slice(&self.operands.input[..values * size_of::<f32>()])
    }

    /// The quantised input of tiles, of which a row takes a block for each 32 values.
    #[inline(always)]
    pub(super) fn tile_blocks(&self) -> &'a [BlockQ8] {
        let blocks = self.shape.m * (self.shape.k / BLOCK);
        bytemuck::cast_slice(&self.operands.input[..blocks * size_of::<BlockQ8>()])
    }

    /// A quantised row of the input, whose parts are as [`RowParts`] says.
    #[inline(always)]
    pub(super) fn quantised_row(&self, row: usize) -> &'a [u8] {
        let stride = RowParts::new(self.shape.k).stride();
        &self.operands.input[row * stride..][..stride]
    }

    /// What is added to some columns.
    #[inline(always)]
    pub(super) fn bias(&self, columns: Range<usize>) -> Option<&'a [f32]> {
        self.operands.bias.map(|bias| &bias[columns])
    }

    /// Writes one value of the output, with its bias.
    #[inline(always)]
    pub(super) fn put(&self, row: usize, column: usize, sum: f32) {
        assert!(self.columns.contains(&column));
        let bias = self.operands.bias.map_or(0.0, |bias| bias[column]);
        let at = row * self.shape.n + column;
        // SAFETY: a column of the job's own.
        unsafe { self.operands.output.part(at..at + 1)[0] = sum + bias };
    }

    /// Writes sums of neighbouring columns of the job from one on, with their bias.
    #[inline(always)]
    pub(super) fn put_all(&self, row: usize, first: usize, sums: &[f32]) {
        let columns = first..first + sums.len();
        assert!(self.columns.start <= first && columns.end <= self.columns.end);
        let at = row * self.shape.n + first;
        // SAFETY: columns of the job's own.
        let output = unsafe { self.operands.output.part(at..at + sums.len()) };
        match self.bias(columns) {
            None => output.copy_from_slice(sums),
            Some(bias) => {
                for ((output, sum), bias) in output.iter_mut().zip(sums).zip(bias) {
                    *output = sum + bias;
                }
            }
        }
    }
}

/// The first blocks of a row's bytes.
#[inline(always)]
pub(super) fn blocks_of<B: Block>(row: &[u8], count: usize) -> &[B] {
    let start = row.as_ptr().cast::<B>();
    assert!(count * size_of::<B>() <= row.len() && start.is_aligned());
    // SAFETY: so many bytes, on an even address; blocks are plain numbers and bytes.
    unsafe { std::slice::from_raw_parts(start, count) }
}

/// Computes a work item, in scratch as the plan asks for.
pub(super) type Kernel = fn(&Job<'_>, &mut [u8]);

/// The rows that a layout is prepared from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// Rows of `k` floats, one after the other.
    pub(super) input: &'a [f32],
    /// Which of them is each row of the layout, times `each`; the rows in their order where there is none.
    pub(super) order: Option<&'a [u32]>,
    /// How many numbers of the order stand for one row.
    pub(super) each: usize,
}

impl<'a> Source<'a> {
    /// All rows, in their order.
    pub(super) fn of(input: &'a [f32]) -> Self {
        Source {
            input,
            order: None,
            each: 1,
        }
    }

    /// A row of the layout, of `k` floats.
    #[inline(always)]
    pub(super) fn row(&self, row: usize, k: usize) -> &'a [f32] {
        let row = match self.order {
            None => row,
            Some(order) => order[row] as usize / self.each,
        };
        &self.input[row * k..(row + 1) * k]
    }
}

/// Prepares work items of an input: [`InputLayout::prepare`].
///
/// # Safety
/// As there.
pub(super) type Preparation = unsafe fn(&InputLayout, Range<usize>, Source<'_>, Parts<'_, u8>);

/// Writes so many words of each of sixteen rows side by side: word `i` of row `r` to word `16 · i + r`.
///
/// # Safety
/// The words are readable and writable, at any addresses.
pub(super) type Transposition = unsafe fn(&[*const u8; LANES], usize, *mut u8);

/// Picks the kernel for a weight's type and the number of rows. Kernels of quantised activations exist for
/// block-quantised weights alone.
pub(super) type Choice = fn(ProductShape) -> Kernel;

/// The kernels of an instruction set, of which each has one table.
#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) isa: Isa,
    /// Up to this many rows of quantised activations the dot kernels take all of them at once; above, tiles are used.
    pub(super) dot_rows: usize,
    /// The same for rows of floats and weights of floats.
    pub(super) float_dot_rows: usize,
    /// The same for rows of floats and weights in blocks: few ask for these, and every number of rows is a kernel of each
    /// type.
    pub(super) exact_dot_rows: usize,
    /// The most rows of a tile of quantised activations, in products of a shape.
    pub(super) tile_rows: fn(ProductShape) -> usize,
    /// The most rows of a tile of floats.
    pub(super) float_tile_rows: usize,
    /// How weights are packed, where the kernels of quantised activations take packed weights too, as the shape says.
    pub(super) packs: Option<Transposition>,
    /// The weight rows of a panel.
    pub(super) panel_rows: usize,
    /// Brings activations into their layout.
    pub(super) prepare: Preparation,
    /// The kernel for few rows, quantised.
    pub(super) dot: Choice,
    /// The kernel for many rows, quantised.
    pub(super) tile: Choice,
    /// The kernel for few rows of floats.
    pub(super) float_dot: Choice,
    /// The kernel for many rows of floats.
    pub(super) float_tile: Choice,
}

impl PartialEq for Kernels {
    fn eq(&self, other: &Kernels) -> bool {
        self.isa == other.isa
    }
}

impl Eq for Kernels {}

impl Hash for Kernels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.isa.hash(state);
    }
}

impl Kernels {
    /// The kernels that read activations in a layout.
    pub(super) fn of_layout(&self, layout: &InputLayout) -> Choice {
        match layout.arrangement {
            Arrangement::Plain => self.float_dot,
            Arrangement::Rows => self.dot,
            Arrangement::Tiles(_) => self.tile,
            Arrangement::FloatTiles(_) => self.float_tile,
        }
    }
}

/// The form in which a product kernel wants its input, and the work of bringing it there.
///
/// Products whose layouts are equal can share one prepared input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct InputLayout {
    pub(super) kernels: &'static Kernels,
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) arrangement: Arrangement,
}

impl InputLayout {
    /// The layout of a product's input.
    pub(super) fn new(
        kernels: &'static Kernels,
        activations: Activations,
        shape: ProductShape,
    ) -> InputLayout {
        let ProductShape {
            weight,
            m,
            k,
            packed,
            ..
        } = shape;
        let quantised = weight.is_quantised() && activations == Activations::Int8;
        let arrangement = if quantised {
            if m <= kernels.dot_rows && !packed {
                Arrangement::Rows
            } else {
                Arrangement::Tiles(Tiles::new(m, (kernels.tile_rows)(shape)))
            }
        } else {
            let dot_rows = match weight.is_quantised() {
                true => kernels.exact_dot_rows,
                false => kernels.float_dot_rows,
            };
            match m <= dot_rows {
                true => Arrangement::Plain,
                false => Arrangement::FloatTiles(Tiles::new(m, kernels.float_tile_rows)),
            }
        };
        InputLayout {
            kernels,
            m,
            k,
            arrangement,
        }
    }

    /// Whether the kernels read the input as it is: nothing needs to be prepared.
    pub(crate) fn is_plain(&self) -> bool {
        self.arrangement == Arrangement::Plain
    }

    /// The bytes of the prepared input, which starts on a 64-byte boundary.
    pub(crate) fn bytes(&self) -> usize {
        match self.arrangement {
            Arrangement::Plain => 0,
            Arrangement::Rows => self.m * RowParts::new(self.k).stride(),
            Arrangement::Tiles(_) => self.m * (self.k / BLOCK) * size_of::<BlockQ8>(),
            Arrangement::FloatTiles(_) => self.m * self.k * 4,
        }
    }

    /// The work items of [`InputLayout::prepare`].
    pub(crate) fn items(&self) -> usize {
        let chunks = self.k.div_ceil(CHUNK);
        match self.arrangement {
            Arrangement::Plain => 0,
            Arrangement::Rows => self.m * chunks,
            Arrangement::Tiles(tiles) | Arrangement::FloatTiles(tiles) => tiles.count() * chunks,
        }
    }

    /// The estimated time of preparing the whole input on one thread, in nanoseconds.
    pub(crate) fn cost(&self) -> u64 {
        let per_value = if self.kernels.isa == Isa::Portable {
            4
        } else {
            16
        };
        (self.m * self.k / per_value) as u64
    }

    /// Prepares some items. `prepared` has [`InputLayout::bytes`] bytes, on a 64-byte boundary.
    ///
    /// # Safety
    /// No one else touches an item's part of `prepared`.
    pub(super) unsafe fn prepare(
        &self,
        items: Range<usize>,
        source: Source<'_>,
        prepared: Parts<'_, u8>,
    ) {
        let aligned = prepared.base().cast::<BlockQ8>().is_aligned();
        assert!(self.is_plain() || prepared.len() >= self.bytes() && aligned);
        // SAFETY: nobody else touches the items' parts, as this method asks.
        unsafe { (self.kernels.prepare)(self, items, source, prepared) }
    }

    /// The layout of `m` rows, each of which lies as the one row of this layout does.
    pub(super) fn of_rows(self, m: usize) -> InputLayout {
        debug_assert_eq!(self.m, 1, "rows that lie by themselves");
        let arrangement = match self.arrangement {
            Arrangement::Tiles(_) => Arrangement::Tiles(Tiles::new(m, 1)),
            Arrangement::FloatTiles(_) => Arrangement::FloatTiles(Tiles::new(m, 1)),
            rows => rows,
        };
        InputLayout {
            m,
            arrangement,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_planned_is_an_error() {
        let check = |weight, m, n, k| {
            let shape = ProductShape {
                weight,
                m,
                n,
                k,
                packed: false,
            };
            shape.check()
        };
        assert_eq!(
            check(DType::Q4_0, 0, 1, 32),
            Err(ProductError::Empty { m: 0, n: 1, k: 32 })
        );
        assert_eq!(
            check(DType::I32, 1, 1, 32),
            Err(ProductError::Type(DType::I32))
        );
        let error = ProductError::PartialBlock {
            weight: DType::Q4K,
            k: 128,
        };
        assert_eq!(check(DType::Q4K, 1, 1, 128), Err(error.clone()));
        assert_eq!(
            error.to_string(),
            "weight rows of 128 values are not whole blocks of 256"
        );
    }
}
