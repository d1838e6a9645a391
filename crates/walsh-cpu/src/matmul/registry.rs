//! Which kernels an instruction set has.

use std::ops::Range;

use super::blocks::with_block;
use super::contract::{InputLayout, Kernel, Kernels, ProductShape, Source};
use super::float::{Blocks, with_float};
use super::kernel::kernel;
#[cfg(target_arch = "x86_64")]
use super::layout::LANES;
use super::portable;
use super::rows::{self, FloatRows, Rows};
use super::tile::{FloatTiled, FromRows, Stage, Tiled};
use crate::isa::Isa;
use crate::memory::Parts;
use crate::simd::{Products, Register, RowProducts, Work};

#[cfg(target_arch = "aarch64")]
use self::neon::{NEON, NEON_DOTPROD, NEON_I8MM};
#[cfg(target_arch = "x86_64")]
use self::x86::{AVX_VNNI, AVX2, AVX512};

/// The kernels of an instruction set; those of plain Rust when it is another architecture's.
pub(super) fn kernels(isa: Isa) -> &'static Kernels {
    match isa {
        Isa::Portable => &portable::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &AVX2,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => &AVX_VNNI,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => &AVX512,
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 => &portable::KERNELS,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => &NEON,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod => &NEON_DOTPROD,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm => &NEON_I8MM,
        #[cfg(not(target_arch = "aarch64"))]
        Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => &portable::KERNELS,
    }
}

/// Prepares work items of an input, compiled for a set.
///
/// # Safety
/// As for [`InputLayout::prepare`].
unsafe fn prepare<P: Products>(
    layout: &InputLayout,
    items: Range<usize>,
    source: Source<'_>,
    prepared: Parts<'_, u8>,
) {
    P::of_machine().run(Prepare {
        layout,
        items,
        source,
        prepared,
    });
}

/// A call of [`prepare`], which has been promised what it asks for.
struct Prepare<'a> {
    layout: &'a InputLayout,
    items: Range<usize>,
    source: Source<'a>,
    prepared: Parts<'a, u8>,
}

impl<P: Products> Work<P> for Prepare<'_> {
    type Output = ();

    #[inline(always)]
    fn on(self, p: P) {
        // SAFETY: promised to `prepare`.
        unsafe {
            self.layout
                .prepare_with(p.set(), self.items, self.source, self.prepared.base());
        }
    }
}

/// Writes words of sixteen rows side by side, compiled for a set.
///
/// # Safety
/// As for [`Transposition`](super::contract::Transposition).
#[cfg(target_arch = "x86_64")]
unsafe fn transpose<P: Products>(rows: &[*const u8; LANES], words: usize, to: *mut u8) {
    P::of_machine().run(Transpose { rows, words, to });
}

/// A call of [`transpose`], which has been promised what it asks for.
#[cfg(target_arch = "x86_64")]
struct Transpose<'a> {
    rows: &'a [*const u8; LANES],
    words: usize,
    to: *mut u8,
}

#[cfg(target_arch = "x86_64")]
impl<P: Products> Work<P> for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn on(self, p: P) {
        let (s, lanes) = (p.set(), P::Set::LANES);
        let whole = self.words / 4 * 4;
        // SAFETY: promised to `transpose`.
        unsafe {
            for word in (0..whole).step_by(4) {
                for first in (0..LANES).step_by(lanes) {
                    let columns = s.columns(|lane| self.rows[first + lane].add(4 * word));
                    for (i, column) in columns.into_iter().enumerate() {
                        s.store_words(self.to.add(4 * ((word + i) * LANES + first)), column);
                    }
                }
            }
            for word in whole..self.words {
                for (lane, row) in self.rows.iter().enumerate() {
                    let to = self.to.cast::<u32>().add(word * LANES + lane);
                    to.write_unaligned(row.cast::<u32>().add(word).read_unaligned());
                }
            }
        }
    }
}

/// Evaluates a kernel with its number of rows of activations as a constant.
macro_rules! few {
    ($m:expr, $set:ty, $body:ident<$of:ty>) => {
        match $m {
            1 => kernel::<$set, $body<$of, 1>> as Kernel,
            2 => kernel::<$set, $body<$of, 2>>,
            3 => kernel::<$set, $body<$of, 3>>,
            4 => kernel::<$set, $body<$of, 4>>,
            _ => unreachable!("more rows are tiled"),
        }
    };
}

fn dot<P: RowProducts>(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => few!(shape.m, P, Rows<B>), else => unreachable!("other weights take floats"))
}

fn float_dot<P: RowProducts>(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => kernel::<P, FloatRows<Blocks<B>, 1>> as Kernel, else => {
        with_float!(shape.weight, F => few!(shape.m, P, FloatRows<F>), else => unreachable!("plans refuse other types"))
    })
}

fn float_tile<P: Products, const MOST: usize>(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => kernel::<P, FloatTiled<Blocks<B>, MOST>> as Kernel, else => {
        with_float!(shape.weight, F => kernel::<P, FloatTiled<F, MOST>> as Kernel, else => {
            unreachable!("plans refuse other types")
        })
    })
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::__cpuid;
    use std::sync::OnceLock;

    use super::*;
    use crate::matmul::blocks::{Decode, is_side_by_side, with_columns};
    use crate::matmul::fill::FromPanels;
    use crate::matmul::layout::BLOCK;
    use crate::matmul::stream::{self, Packed, PackedRow, Stored, Streamed};
    use crate::matmul::wide::{self, ExactRow, Row, WideBlocks, WideRows};
    use crate::simd::{Avx2, Avx512, AvxVnni, ColumnProducts, pairs_in_16_bits};

    /// The most rows of a tile of floats.
    const FLOAT_TILE: usize = 12;

    /// The most rows of a tile of quantised activations: with their integer and float sums, what 16 registers hold. AVX2's
    /// own instructions need sums of 16 bits beside those.
    const AVX2_TILE: usize = 4;
    const VNNI_TILE: usize = 6;

    pub(super) static AVX2: Kernels = table::<Avx2, AVX2_TILE>(Isa::Avx2);

    pub(super) static AVX_VNNI: Kernels = table::<AvxVnni, VNNI_TILE>(Isa::AvxVnni);

    const fn table<P: Stage + RowProducts + ColumnProducts, const MOST: usize>(
        isa: Isa,
    ) -> Kernels {
        Kernels {
            isa,
            dot_rows: rows::ROWS,
            float_dot_rows: rows::ROWS,
            exact_dot_rows: 1,
            tile_rows: tile_rows::<P, MOST>,
            float_tile_rows: FLOAT_TILE,
            packs: Some(transpose::<P>),
            panel_rows: P::Set::LANES,
            prepare: prepare::<P>,
            dot: dot::<P>,
            tile: tile::<P, MOST>,
            float_dot: float_dot::<P>,
            float_tile: float_tile::<P, FLOAT_TILE>,
        }
    }

    /// The most rows that all packed weights are streamed for. They make a single tile in either way.
    const STREAM_ROWS: usize = 4;

    /// Whether packed weights are decoded into registers and multiplied there: with few rows, and where products are not summed
    /// over all of a block before they are widened or scaled. What a tile's rows share, loads of codes, is little beside that,
    /// and their sums leave it too few registers.
    fn streams<P: Products>(shape: ProductShape) -> bool {
        let short = with_block!(shape.weight, B => {
            B::RUN < BLOCK || P::SIGNED && pairs_in_16_bits(B::TOP) < BLOCK / 4
        }, else => false);
        shape.packed && (shape.m <= STREAM_ROWS || short)
    }

    fn tile_rows<P: Products, const MOST: usize>(shape: ProductShape) -> usize {
        if streams::<P>(shape) {
            stream::ROWS
        } else {
            MOST
        }
    }

    fn tile<P: Stage + ColumnProducts, const MOST: usize>(shape: ProductShape) -> Kernel {
        if !shape.packed {
            return with_block!(shape.weight, B => kernel::<P, Tiled<FromRows, B, MOST>> as Kernel, else => {
                unreachable!("other weights take floats")
            });
        }
        with_columns!(shape.weight, B => {
            match streams::<P>(shape) {
                _ if shape.is_packed_row() => kernel::<P, PackedRow<B>> as Kernel,
                true => kernel::<P, Streamed<Packed, B, 1>>,
                false => kernel::<P, Tiled<FromPanels, B, MOST>>,
            }
        }, else => unreachable!("plans refuse other packed weights"))
    }

    impl Stage for Avx2 {}
    impl Stage for AvxVnni {}

    /// The most rows of a tile: with their integer and float sums, what 32 registers hold.
    const AVX512_TILE: usize = 12;

    /// The rows that the streaming kernel multiplies side by side: with their sums of a block, and the block's codes, what 32
    /// registers hold.
    const AVX512_TOGETHER: usize = 8;

    pub(super) static AVX512: Kernels = Kernels {
        isa: Isa::Avx512,
        dot_rows: 1,
        float_dot_rows: wide::FLOAT_ROWS,
        exact_dot_rows: 1,
        tile_rows: avx512_tile_rows,
        float_tile_rows: FLOAT_TILE,
        packs: Some(transpose::<Avx512>),
        panel_rows: LANES,
        prepare: prepare::<Avx512>,
        dot: avx512_dot,
        tile: avx512_tile,
        float_dot: avx512_float_dot,
        float_tile: avx512_float_tile,
    };

    fn avx512_dot(shape: ProductShape) -> Kernel {
        with_block!(shape.weight, B => kernel::<Avx512, Row<B>> as Kernel, else => unreachable!("other weights take floats"))
    }

    /// The most rows for which the streaming kernel is the faster: on processors that execute 512-bit instructions in halves
    /// (Zen 4, family 19h) its loads and stores cost nothing, on others they hold the arithmetic up.
    fn stream_rows() -> usize {
        static ROWS: OnceLock<usize> = OnceLock::new();
        *ROWS.get_or_init(|| {
            let name = __cpuid(0);
            let signature = __cpuid(1).eax;
            let family = (signature >> 8 & 15) + (signature >> 20 & 255);
            let amd = [name.ebx, name.edx, name.ecx]
                .map(u32::to_le_bytes)
                .concat()
                == *b"AuthenticAMD";
            if amd && family == 0x19 { 128 } else { 16 }
        })
    }

    /// Whether weights are decoded into registers, a row to a lane, and multiplied there.
    fn avx512_streams(shape: ProductShape) -> bool {
        shape.m <= stream_rows() && is_side_by_side(shape.weight)
    }

    fn avx512_tile_rows(shape: ProductShape) -> usize {
        if avx512_streams(shape) {
            stream::ROWS
        } else {
            AVX512_TILE
        }
    }

    fn avx512_tile(shape: ProductShape) -> Kernel {
        if !shape.packed && !avx512_streams(shape) {
            return with_block!(shape.weight, B => kernel::<Avx512, Tiled<FromRows, B, AVX512_TILE>> as Kernel, else => {
                unreachable!("other weights take floats")
            });
        }
        with_columns!(shape.weight, B => {
            match (shape.packed, avx512_streams(shape)) {
                _ if shape.is_packed_row() => kernel::<Avx512, PackedRow<B>> as Kernel,
                (true, true) => kernel::<Avx512, Streamed<Packed, B, AVX512_TOGETHER>>,
                (true, false) => kernel::<Avx512, Tiled<FromPanels, B, AVX512_TILE>>,
                (false, _) => kernel::<Avx512, Streamed<Stored, B, AVX512_TOGETHER>>,
            }
        }, else => unreachable!("plans refuse other packed weights, and do not stream them"))
    }

    fn avx512_float_dot(shape: ProductShape) -> Kernel {
        with_block!(shape.weight, B => kernel::<Avx512, ExactRow<B>> as Kernel, else => {
            with_float!(shape.weight, F => few!(shape.m, Avx512, WideRows<F>), else => {
                unreachable!("plans refuse other types")
            })
        })
    }

    fn avx512_float_tile(shape: ProductShape) -> Kernel {
        with_block!(shape.weight, B => kernel::<Avx512, FloatTiled<WideBlocks<B>, FLOAT_TILE>> as Kernel, else => {
            float_tile::<Avx512, FLOAT_TILE>(shape)
        })
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::*;
    use crate::simd::NeonProducts;

    /// The most rows of a tile of quantised activations: with two registers each of integer and float sums, what 32 hold.
    const TILE: usize = 6;

    /// The most rows of a tile of floats.
    const FLOAT_TILE: usize = 8;

    pub(super) static NEON: Kernels = table::<NeonProducts<false, false>>(Isa::Neon);
    pub(super) static NEON_DOTPROD: Kernels = table::<NeonProducts<true, false>>(Isa::NeonDotprod);
    pub(super) static NEON_I8MM: Kernels = table::<NeonProducts<true, true>>(Isa::NeonI8mm);

    const fn table<P: Stage + RowProducts>(isa: Isa) -> Kernels {
        Kernels {
            isa,
            dot_rows: rows::ROWS,
            float_dot_rows: rows::ROWS,
            exact_dot_rows: 1,
            tile_rows: |_| TILE,
            float_tile_rows: FLOAT_TILE,
            packs: None,
            panel_rows: P::Set::LANES,
            prepare: prepare::<P>,
            dot: dot::<P>,
            tile: tile::<P>,
            float_dot: float_dot::<P>,
            float_tile: float_tile::<P, FLOAT_TILE>,
        }
    }

    fn tile<P: Stage>(shape: ProductShape) -> Kernel {
        with_block!(shape.weight, B => kernel::<P, Tiled<FromRows, B, TILE>> as Kernel, else => {
            unreachable!("other weights take floats")
        })
    }

    impl<const DOT: bool, const MATRIX: bool> Stage for NeonProducts<DOT, MATRIX> {}
}
