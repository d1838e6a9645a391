//! `q4_0`, `q4_1`, `q5_0`, `q5_1` and `q8_0`.

use std::mem::offset_of;

use walsh_formats::ggml::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};

use super::Codes;
use super::across::{self, quads};
use super::along::{array, each, nibbles};
use super::small::small_block;
use crate::simd::Unpack;

/// Adds 16 to the codes whose bit is set.
#[inline(always)]
fn fifth_bits(bits: [u8; 4], codes: &mut [u8]) {
    for (codes, byte) in codes.chunks_exact_mut(8).zip(bits) {
        // Each byte keeps one bit of the eight; adding carries it to the top, from where it moves to bit 4.
        let spread = u64::from(byte).wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        let fifth = (spread + 0x7f7f_7f7f_7f7f_7f7f) >> 3 & 0x1010_1010_1010_1010;
        let all = u64::from_le_bytes(array(codes)) | fifth;
        codes.copy_from_slice(&all.to_le_bytes());
    }
}

/// The same of codes across rows: bit `i` of a row's word is of value `i`.
#[inline(always)]
fn fifth_bits_across<S: Unpack>(s: S, codes: Codes<S>, bits: S::Words) -> Codes<S> {
    quads!(|quad| s.or(codes[quad], s.fifth_bits(bits, quad)))
}

small_block! {
    BlockQ4_0: codes to 15, zero 8;
    along |p, block, codes| nibbles(block.qs, codes);
    across |s, blocks, signed| across::nibbles(s, blocks.columns(offset_of!(Self, qs)));
    wide |s, a, b| s.nibbles(&a.qs, &b.qs);
}

small_block! {
    BlockQ4_1: codes to 15, minimum m;
    along |p, block, codes| nibbles(block.qs, codes);
    across |s, blocks, signed| across::nibbles(s, blocks.columns(offset_of!(Self, qs)));
    wide |s, a, b| s.nibbles(&a.qs, &b.qs);
}

small_block! {
    BlockQ5_0: codes to 31, zero 16;
    along |p, block, codes| {
        nibbles(block.qs, codes);
        fifth_bits(block.qh, codes);
    };
    across |s, blocks, signed| {
        let codes = across::nibbles(s, blocks.columns(offset_of!(Self, qs)));
        fifth_bits_across(s, codes, blocks.word(offset_of!(Self, qh)))
    };
    wide |s, a, b| s.with_fifth_bits(s.nibbles(&a.qs, &b.qs), a.qh, b.qh);
}

small_block! {
    BlockQ5_1: codes to 31, minimum m;
    along |p, block, codes| {
        nibbles(block.qs, codes);
        fifth_bits(block.qh, codes);
    };
    across |s, blocks, signed| {
        let codes = across::nibbles(s, blocks.columns(offset_of!(Self, qs)));
        fifth_bits_across(s, codes, blocks.word(offset_of!(Self, qh)))
    };
    wide |s, a, b| s.with_fifth_bits(s.nibbles(&a.qs, &b.qs), a.qh, b.qh);
}

small_block! {
    BlockQ8_0: codes to 255, zero 128;
    along |p, block, codes| {
        codes.copy_from_slice(&each::<32>(bytemuck::cast(block.qs), |code| code ^ 0x80));
    };
    across |s, blocks, signed| {
        let at = offset_of!(Self, qs);
        let halves = [blocks.columns(at), blocks.columns(at + 16)];
        quads!(|quad| {
            let codes = halves[quad / 4][quad % 4];
            if signed { codes } else { s.xor(codes, s.bytes(0x80)) }
        })
    };
    wide |s, a, b| s.raised(&a.qs, &b.qs);
}
