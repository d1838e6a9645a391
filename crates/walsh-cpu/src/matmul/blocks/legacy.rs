//! `q4_0`, `q4_1`, `q5_0`, `q5_1` and `q8_0`.

use std::mem::offset_of;

use walsh_formats::ggml::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};

use super::across::{self, fifth_bits, quads};
use super::along::{each, nibbles, or_bits_in_order};
use super::small::small_block;
use crate::simd::Unpack;

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
        or_bits_in_order(block.qh, 4, codes);
    };
    across |s, blocks, signed| {
        let codes = across::nibbles(s, blocks.columns(offset_of!(Self, qs)));
        fifth_bits(s, codes, blocks.word(offset_of!(Self, qh)))
    };
    wide |s, a, b| s.with_fifth_bits(s.nibbles(&a.qs, &b.qs), a.qh, b.qh);
}

small_block! {
    BlockQ5_1: codes to 31, minimum m;
    along |p, block, codes| {
        nibbles(block.qs, codes);
        or_bits_in_order(block.qh, 4, codes);
    };
    across |s, blocks, signed| {
        let codes = across::nibbles(s, blocks.columns(offset_of!(Self, qs)));
        fifth_bits(s, codes, blocks.word(offset_of!(Self, qh)))
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
