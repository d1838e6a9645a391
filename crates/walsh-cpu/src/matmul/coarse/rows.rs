//! Rows of a copy: blocks of few bits, what they leave out, and how far products may be apart.

use half::slice::HalfFloatSliceExt;
use walsh_formats::DType;
use walsh_formats::ggml::{self, BlockQ5_1, BlockQ6K, BlockQ8_0};

use super::{BLOCK, COLUMNS, Coarsening, FINE, SPANS};
use crate::isa::Isa;
use crate::matmul::blocks::{Decode, Decoded};
use crate::matmul::contract::blocks_of;
use crate::matmul::float::value_of;
use crate::matmul::layout::LANES;
use crate::simd::{Primitives, SHIFT, Steps, Token};

/// Where a row's copy is made.
pub(super) struct Room<'a> {
    coarse: &'a mut [u8],
    fine: &'a mut [u8],
    values: &'a mut [f32],
    scales: &'a mut [f32],
    columns: &'a [u32; COLUMNS],
}

impl<'a> Room<'a> {
    /// The room of a row of a panel, within scratch memory for a panel.
    pub(super) fn within(
        scratch: &'a mut [u8],
        coarsening: &Coarsening,
        row: usize,
        columns: &'a [u32; COLUMNS],
    ) -> Room<'a> {
        let Coarsening {
            k, coarse, fine, ..
        } = *coarsening;
        let floats = 4 * (k + k / BLOCK);
        let (floats, rows) = scratch.split_at_mut(floats);
        let (coarse_rows, fine_rows) = rows.split_at_mut(LANES * coarse.row_bytes());
        let floats: &mut [f32] = bytemuck::cast_slice_mut(floats);
        let (values, scales) = floats.split_at_mut(k);
        Room {
            coarse: &mut coarse_rows[row * coarse.row_bytes()..][..coarse.row_bytes()],
            fine: &mut fine_rows[row * fine.row_bytes()..][..fine.row_bytes()],
            values,
            scales,
            columns,
        }
    }
}

/// Writes the copy of a row of blocks, as many as there is room for; returns its reach, and how much of what the copy
/// leaves out is lost.
pub(super) fn coarsen(coarsening: &Coarsening, row: &[u8], room: Room<'_>) -> (f32, f32) {
    match coarsening.copy {
        DType::Q5_0 => coarsen_to::<5>(coarsening, row, room),
        _ => coarsen_to::<4>(coarsening, row, room),
    }
}

fn coarsen_to<const BITS: usize>(
    coarsening: &Coarsening,
    row: &[u8],
    room: Room<'_>,
) -> (f32, f32) {
    let isa = coarsening.isa;
    match coarsening.weight {
        DType::Q8_0 => of_set::<BlockQ8_0, BITS>(isa, row, room),
        DType::Q6K => of_set::<BlockQ6K, BITS>(isa, row, room),
        DType::Q5_1 => of_set::<BlockQ5_1, BITS>(isa, row, room),
        _ => unreachable!("no other type gains by coarse copies"),
    }
}

fn of_set<B: Decode, const BITS: usize>(isa: Isa, row: &[u8], room: Room<'_>) -> (f32, f32) {
    let row = blocks_of::<B>(row, room.values.len() / B::LEN);
    Token::of(isa).run(Coarsen::<B, BITS> { row, room })
}

/// A row to be copied.
struct Coarsen<'a, B, const BITS: usize> {
    row: &'a [B],
    room: Room<'a>,
}

impl<B: Decode, const BITS: usize> Steps for Coarsen<'_, B, BITS> {
    type Output = (f32, f32);

    #[inline(always)]
    fn by<P: Primitives>(self, p: P) -> (f32, f32) {
        coarsen_row::<P, B, BITS>(p, self.row, self.room)
    }
}

#[inline(always)]
fn coarsen_row<P: Primitives, B: Decode, const BITS: usize>(
    p: P,
    row: &[B],
    room: Room<'_>,
) -> (f32, f32) {
    let Room {
        coarse,
        fine,
        values,
        scales,
        columns,
    } = room;
    let mut terms = 0.0;
    for (block, values) in row.iter().zip(values.chunks_exact_mut(B::LEN)) {
        terms += decode(p, block, values);
    }
    let (blocks, _) = values.as_chunks_mut::<BLOCK>();
    for (scale, block) in scales.iter_mut().zip(&*blocks) {
        // The largest magnitude lies half a step inside the codes' range on both sides.
        *scale = largest(block) / (zero(BITS) - 0.5);
    }
    let mut residual = [0.0; BLOCK / 2];
    let mut halves = [half::f16::ZERO; AT_ONCE];
    let bytes = 2 + BITS * BLOCK / 8;
    let groups = scales.chunks(AT_ONCE).zip(blocks.chunks_mut(AT_ONCE));
    for ((scales, blocks), to) in groups.zip(coarse.chunks_mut(AT_ONCE * bytes)) {
        let halves = &mut halves[..scales.len()];
        halves.convert_from_f32_slice(scales);
        let outputs = to.chunks_exact_mut(bytes);
        for ((half, block), to) in halves.iter().zip(blocks).zip(outputs) {
            let scale = p.widen(*half);
            to[..2].copy_from_slice(&half.to_le_bytes());
            let codes = quantise::<BITS>(block, scale, &mut residual);
            write_codes::<BITS>(&codes, &mut to[2..]);
            // A code, and the zero that is taken away apart.
            terms += BLOCK as f64 * f64::from(3.0 * zero(BITS) * scale).powi(2);
        }
    }
    // What is left of the values is what the copy leaves out.
    let residual: f64 = residual.iter().map(|sum| f64::from(*sum)).sum();
    let residual = residual.sqrt();
    let mut apart = [0.0; COLUMNS];
    for (value, column) in apart.iter_mut().zip(columns) {
        *value = values[*column as usize];
    }
    let (lost, more) = keep(&apart, fine);
    let relative = match lost == 0.0 {
        true => 0.0,
        false => ((lost / residual) as f32).next_up(),
    };
    (
        reach(residual, (terms + more).sqrt(), values.len()),
        relative,
    )
}

/// The blocks whose scales are rounded together.
const AT_ONCE: usize = 64;

/// The code that stands for zero.
const fn zero(bits: usize) -> f32 {
    (1 << (bits - 1)) as f32
}

/// Codes as `q4_0` and `q5_0` have them: fifth bits, then the others of one half beside those of the other.
#[inline(always)]
fn write_codes<const BITS: usize>(codes: &[u8; BLOCK], to: &mut [u8]) {
    let nibbles = match BITS {
        4 => to,
        _ => {
            let mut bits = 0u32;
            for (i, code) in codes.iter().enumerate() {
                bits |= u32::from(code >> 4) << i;
            }
            let (fifth, nibbles) = to.split_at_mut(4);
            fifth.copy_from_slice(&bits.to_le_bytes());
            nibbles
        }
    };
    for (i, to) in nibbles[..BLOCK / 2].iter_mut().enumerate() {
        *to = codes[i] & 15 | codes[i + BLOCK / 2] << 4;
    }
}

/// Writes a block of 8 bits; returns the norm of what it leaves out, and the square of that of the terms of products.
fn keep(values: &[f32; COLUMNS], to: &mut [u8]) -> (f64, f64) {
    let mut kept = [0.0; COLUMNS];
    let written = ggml::encode(FINE, values, to).and_then(|()| ggml::decode(FINE, to, &mut kept));
    if written.is_err() {
        // Numbers that are not finite have no such block.
        return (f64::NAN, f64::NAN);
    }
    let left = values.iter().zip(&kept).map(|(value, kept)| value - kept);
    let lost: f64 = left.map(|left| f64::from(left).powi(2)).sum();
    // A code with its zero, which products take away apart.
    let scale = half::f16::from_le_bytes([to[0], to[1]]).to_f64();
    let terms = COLUMNS as f64 * (384.0 * scale).powi(2);
    (lost.sqrt() * (1.0 + 1e-6), terms)
}

/// How far a row's product may be from the product with its copy, for inputs of span 1. `residual` is the norm of what
/// the copy leaves out, and `terms` the norm of what the terms of the products can come to before any cancel.
fn reach(residual: f64, terms: f64, k: usize) -> f32 {
    // A kernel adds no more than a term for every 16 values into one sum, with a few roundings beside; the sum of three
    // norms is at most √3 times the norm of all.
    let roundings = (k / 16 + 64) as f64;
    let lost = 1.75 * roundings * f64::from(f32::EPSILON) / 2.0;
    // The residual itself was summed up in 32-bit floats, of values rounded once.
    let reach = residual * (1.0 + lost) + terms * lost * SPANS;
    (reach as f32).next_up()
}

/// Decodes a block; the square of the norm of what the terms of a product with it can come to.
#[inline(always)]
fn decode<P: Primitives, B: Decode>(p: P, block: &B, values: &mut [f32]) -> f64 {
    const MOST: usize = 256;
    let (mut codes, mut scales, mut mins) = ([0; MOST], [0.0; MOST / 16], [0.0; MOST / 16]);
    let runs = B::LEN / B::RUN;
    let out = Decoded {
        codes: &mut codes[..B::LEN],
        scales: &mut scales[..runs],
        mins: &mut mins[..runs],
    };
    block.decode(p, out);
    let mut terms = 0.0;
    for (run, values) in values.chunks_exact_mut(B::RUN).enumerate() {
        let (scale, min) = (scales[run], mins[run]);
        let codes = &codes[run * B::RUN..(run + 1) * B::RUN];
        for (value, &code) in values.iter_mut().zip(codes) {
            *value = value_of::<B>(code, scale, min);
        }
        let most = f64::from(scale.abs() * f32::from(B::TOP) + min.abs());
        terms += B::RUN as f64 * most * most;
    }
    terms
}

/// The largest magnitude of a block.
#[inline(always)]
fn largest(block: &[f32; BLOCK]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [0.0; BLOCK / 2];
    for (i, lane) in lanes.iter_mut().enumerate() {
        *lane = larger(block[i].abs(), block[i + BLOCK / 2].abs());
    }
    let mut width = BLOCK / 4;
    while width > 0 {
        for i in 0..width {
            lanes[i] = larger(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The codes of a block. What they leave out is left of the values; adds its squares.
#[inline(always)]
fn quantise<const BITS: usize>(
    block: &mut [f32; BLOCK],
    scale: f32,
    residual: &mut [f32; BLOCK / 2],
) -> [u8; BLOCK] {
    let (zero, top) = (zero(BITS), 2.0 * zero(BITS) - 1.0);
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let mut codes = [0; BLOCK];
    for (code, value) in codes.iter_mut().zip(&mut *block) {
        let x = *value * inverse + zero;
        let x = if x > 0.0 { x } else { 0.0 };
        let shifted = (if x < top { x } else { top }) + SHIFT;
        *value -= (shifted - (SHIFT + zero)) * scale;
        *code = shifted.to_bits() as u8;
    }
    for (i, sum) in residual.iter_mut().enumerate() {
        let pair = [block[i], block[i + BLOCK / 2]];
        *sum += pair[0] * pair[0] + pair[1] * pair[1];
    }
    codes
}
