//! MLX's affine groups of 64 values: a scale and a minimum for two runs of 32, whose codes lie apart.

use std::mem::offset_of;

use walsh_formats::ggml::{BlockMlx2, BlockMlx3, BlockMlx4, BlockMlx5, BlockMlx6, BlockMlx8};

use super::across::{self, quads};
use super::along::{array, nibbles, or_bits_in_order, pairs_in_order};
#[cfg(target_arch = "x86_64")]
use super::wide::four;
use super::{Codes, Part, SideBySide};
use crate::simd::{Register, Unpack};

/// Defines all decoders of a type: its largest code, and the codes of a block along a row, of a part across rows, and of a
/// block in a wide register.
macro_rules! affine_block {
    (
        $type:ident: codes to $top:literal;
        along |$block:ident, $codes:ident| $along:expr;
        across |$s:ident, $blocks:ident, $part:ident| $across:expr;
        wide |$w:ident, $one:ident| $wide:expr;
    ) => {
        impl $crate::matmul::blocks::Decode for $type {
            const RUN: usize = 32;
            const TOP: u8 = $top;
            const ZERO: Option<u8> = None;

            #[inline(always)]
            fn decode<P: $crate::simd::Primitives>(
                &self,
                p: P,
                out: $crate::matmul::blocks::Decoded<'_>,
            ) {
                let $block = self;
                let $codes: &mut [u8] = &mut out.codes[..64];
                $along;
                out.scales.fill(p.widen(self.d));
                out.mins.fill(-p.widen(self.m));
            }
        }

        impl $crate::matmul::blocks::Columns for $type {
            #[inline(always)]
            fn start<W: $crate::matmul::blocks::SideBySide>(
                blocks: W,
                kept: &mut $crate::matmul::blocks::Kept<W::Set>,
            ) {
                across::keep_scale_and_minimum(blocks, kept);
            }

            #[inline(always)]
            fn run<S: $crate::simd::Unpack>(
                _: S,
                kept: &$crate::matmul::blocks::Kept<S>,
                _: usize,
            ) -> $crate::matmul::blocks::Run<S> {
                let [scale, min] = kept.factors;
                $crate::matmul::blocks::Run { scale, min }
            }

            #[inline(always)]
            fn codes<W: $crate::matmul::blocks::SideBySide>(
                $blocks: W,
                $part: $crate::matmul::blocks::Part,
                _: &mut $crate::matmul::blocks::Kept<W::Set>,
            ) -> $crate::matmul::blocks::Codes<W::Set> {
                let $s = $blocks.set();
                // Not all types use it.
                let _ = $s;
                $across
            }
        }

        #[cfg(target_arch = "x86_64")]
        impl $crate::matmul::blocks::Wide for $type {
            #[inline(always)]
            fn wide($w: $crate::simd::Avx512, blocks: &[Self]) -> $crate::matmul::blocks::Group {
                let words = |block: usize| [blocks[block].d, blocks[block].m];
                $crate::matmul::blocks::Group {
                    codes: four!(|vector| {
                        let $one = &blocks[vector];
                        $wide
                    }),
                    scales: $w.scales_and_negated([words(0), words(1), words(2), words(3)]),
                    mins: $crate::simd::Register::numbers($w, 0.0),
                }
            }
        }

        // Decoders that read both numbers as a word.
        const _: () = assert!(offset_of!($type, d) == 0 && offset_of!($type, m) == 2);
    };
}

/// The nibbles of both runs along a row.
#[inline(always)]
fn both_nibbles(packed: &[u8; 32], codes: &mut [u8]) {
    for (run, codes) in codes.chunks_exact_mut(32).enumerate() {
        nibbles(array::<16>(&packed[16 * run..]), codes);
    }
}

/// The nibbles of a part across rows.
#[inline(always)]
fn nibbles_of<W: SideBySide>(blocks: W, at: usize, part: Part) -> Codes<W::Set> {
    across::nibbles(blocks.set(), blocks.columns(at + 16 * part.index))
}

affine_block! {
    BlockMlx2: codes to 3;
    along |block, codes| pairs_in_order(block.qs, codes);
    across |s, blocks, part| {
        across::pairs_in_order(blocks, offset_of!(Self, qs) + 8 * part.index)
    };
    wide |s, block| s.bit_pairs_in_order(&block.qs);
}

affine_block! {
    BlockMlx3: codes to 7;
    along |block, codes| {
        pairs_in_order(block.qs, codes);
        or_bits_in_order(block.qh, 2, codes);
    };
    across |s, blocks, part| {
        let low = across::pairs_in_order(blocks, offset_of!(Self, qs) + 8 * part.index);
        let bits = blocks.word(offset_of!(Self, qh) + 4 * part.index);
        quads!(|quad| s.or(low[quad], s.shr(s.fifth_bits(bits, quad), 2)))
    };
    wide |s, block| {
        s.with_bits(s.bit_pairs_in_order(&block.qs), u64::from_le_bytes(block.qh), 4)
    };
}

affine_block! {
    BlockMlx4: codes to 15;
    along |block, codes| both_nibbles(&block.qs, codes);
    across |s, blocks, part| nibbles_of(blocks, offset_of!(Self, qs), part);
    wide |s, block| s.nibbles_of_halves(&block.qs);
}

affine_block! {
    BlockMlx5: codes to 31;
    along |block, codes| {
        both_nibbles(&block.qs, codes);
        or_bits_in_order(block.qh, 4, codes);
    };
    across |s, blocks, part| {
        let low = nibbles_of(blocks, offset_of!(Self, qs), part);
        across::fifth_bits(s, low, blocks.word(offset_of!(Self, qh) + 4 * part.index))
    };
    wide |s, block| {
        s.with_bits(s.nibbles_of_halves(&block.qs), u64::from_le_bytes(block.qh), 16)
    };
}

affine_block! {
    BlockMlx6: codes to 63;
    along |block, codes| {
        both_nibbles(&block.qs, codes);
        let mut pairs = [0; 64];
        pairs_in_order(block.qh, &mut pairs);
        for (code, pair) in codes.iter_mut().zip(pairs) {
            *code |= pair << 4;
        }
    };
    across |s, blocks, part| {
        let low = nibbles_of(blocks, offset_of!(Self, qs), part);
        let pairs = across::pairs_in_order(blocks, offset_of!(Self, qh) + 8 * part.index);
        quads!(|quad| s.or(low[quad], s.shl(pairs[quad], 4)))
    };
    wide |s, block| s.with_pairs(s.nibbles_of_halves(&block.qs), &block.qh);
}

affine_block! {
    BlockMlx8: codes to 255;
    along |block, codes| codes.copy_from_slice(&block.qs);
    across |s, blocks, part| {
        let at = offset_of!(Self, qs) + 32 * part.index;
        let halves = [blocks.columns(at), blocks.columns(at + 16)];
        quads!(|quad| {
            let codes = halves[quad / 4][quad % 4];
            if part.signed { s.xor(codes, s.bytes(0x80)) } else { codes }
        })
    };
    wide |s, block| s.all_bytes(&block.qs);
}
