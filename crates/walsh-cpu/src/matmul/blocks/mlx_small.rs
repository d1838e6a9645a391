//! MLX's affine groups of 32 values: a scale and a minimum for one run.

use std::mem::offset_of;

use walsh_formats::ggml::{BlockMlx2G32, BlockMlx3G32, BlockMlx6G32, BlockMlx8G32};

use super::across::{self, quads};
use super::along::{nibbles, or_bits_in_order, pairs_in_order};
use super::small::small_block;
use crate::simd::{Register, Unpack};

/// The bytes of two blocks, one behind the other.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn joined<const N: usize, const BOTH: usize>(first: &[u8; N], second: &[u8; N]) -> [u8; BOTH] {
    const { assert!(2 * N == BOTH) };
    let mut both = [0; BOTH];
    both[..N].copy_from_slice(first);
    both[N..].copy_from_slice(second);
    both
}

small_block! {
    BlockMlx2G32: codes to 3, minimum m;
    along |p, block, codes| pairs_in_order(block.qs, codes);
    across |s, blocks, signed| across::pairs_in_order(blocks, offset_of!(Self, qs));
    wide |s, a, b| s.bit_pairs_in_order(&joined(&a.qs, &b.qs));
}

small_block! {
    BlockMlx3G32: codes to 7, minimum m;
    along |p, block, codes| {
        pairs_in_order(block.qs, codes);
        or_bits_in_order(block.qh, 2, codes);
    };
    across |s, blocks, signed| {
        let low = across::pairs_in_order(blocks, offset_of!(Self, qs));
        let bits = blocks.word(offset_of!(Self, qh));
        quads!(|quad| s.or(low[quad], s.shr(s.fifth_bits(bits, quad), 2)))
    };
    wide |s, a, b| {
        let bits = u64::from_le_bytes(joined(&a.qh, &b.qh));
        s.with_bits(s.bit_pairs_in_order(&joined(&a.qs, &b.qs)), bits, 4)
    };
}

small_block! {
    BlockMlx6G32: codes to 63, minimum m;
    along |p, block, codes| {
        nibbles(block.qs, codes);
        let mut pairs = [0; 32];
        pairs_in_order(block.qh, &mut pairs);
        for (code, pair) in codes.iter_mut().zip(pairs) {
            *code |= pair << 4;
        }
    };
    across |s, blocks, signed| {
        let low = across::nibbles(s, blocks.columns(offset_of!(Self, qs)));
        let pairs = across::pairs_in_order(blocks, offset_of!(Self, qh));
        quads!(|quad| s.or(low[quad], s.shl(pairs[quad], 4)))
    };
    wide |s, a, b| s.with_pairs(s.nibbles(&a.qs, &b.qs), &joined(&a.qh, &b.qh));
}

small_block! {
    BlockMlx8G32: codes to 255, minimum m;
    along |p, block, codes| codes.copy_from_slice(&block.qs);
    across |s, blocks, signed| {
        let at = offset_of!(Self, qs);
        let halves = [blocks.columns(at), blocks.columns(at + 16)];
        quads!(|quad| {
            let codes = halves[quad / 4][quad % 4];
            if signed { s.xor(codes, s.bytes(0x80)) } else { codes }
        })
    };
    wide |s, a, b| s.all_bytes(&joined(&a.qs, &b.qs));
}
