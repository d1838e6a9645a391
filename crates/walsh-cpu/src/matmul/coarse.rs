//! Coarse copies of weights, with which the largest products are found: see [`Screen`].
//!
//! A row `w` of the weight has a copy `c` in blocks of 4 or 5 bits. Products of both with an input `x` differ by
//! `(w − c) · x`, at most `‖w − c‖ · ‖x‖` (Cauchy and Schwarz). Most of an input's norm lies in few of its columns, the
//! same for most inputs of a model, so what the copy leaves out there is kept beside it in 8 bits: the product with it is
//! added, and the norms are those of the other columns. What products in 32-bit floats lose to rounding is proportional
//! to `‖x‖`. A row's *reach* bounds all that, as a multiple of the input's *span*, [`span`].

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use half::slice::HalfFloatSliceExt;
use walsh_core::{Error, Memory, Result, Screen, Tensor};
use walsh_formats::DType;

use super::blocks::{Decode, Decoded, Primitives, with_block};
use super::pack::{LANES, PackWeights, Packing, Repacking};
use crate::isa::Isa;
use crate::memory::{CpuMemory, Pages, View};
use crate::team::{Group, Phase, Scratch, Team};

/// The types that copies have.
const COPIES: [DType; 2] = [DType::Q4_0, DType::Q5_0];

/// The type of what they leave out of some columns, and how many columns these are: a block.
pub(super) const FINE: DType = DType::Q8_0;
pub(super) const COLUMNS: usize = FINE.block_len();

/// The values of a block of a copy.
const BLOCK: usize = 32;

/// The smallest weight, in bytes, for which a search through a copy gains more than its own steps cost.
const LEAST_BYTES: u64 = 4 << 20;

/// How many rows are looked at to choose a copy, or more where that is less than one of [`EVERY`].
const LOOKS: usize = 4096;

/// The rows of which one is looked at, or more.
const EVERY: usize = 8;

/// An input's norm is at most so many times its span.
const SPANS: f64 = 32.0;

/// A weight `[n, k]` that gains by a coarse copy.
#[derive(Clone, Copy, Debug)]
struct Coarsening {
    isa: Isa,
    weight: DType,
    n: usize,
    k: usize,
    row_bytes: usize,
    /// The type of the copy.
    copy: DType,
    /// How the copy is packed, and what it leaves out.
    coarse: Packing,
    fine: Packing,
}

impl Coarsening {
    /// `None` where nothing would be gained: the instruction set has no kernels of packed weights, or the weight's own
    /// blocks are not much larger than the smallest copy's.
    fn new(isa: Isa, weight: &Tensor) -> Option<Coarsening> {
        let size = |dimension: u64| usize::try_from(dimension).ok();
        let (n, k) = (size(weight.shape()[0])?, size(weight.shape()[1])?);
        let row_bytes = size(weight.dtype().row_bytes(k as u64)?)?;
        let [copy, ..] = COPIES;
        let coarse = Packing::new(isa, copy, n, k)?;
        let gains = weight.dtype().is_quantised() && 4 * coarse.row_bytes() <= 3 * row_bytes;
        gains.then_some(Coarsening {
            isa,
            weight: weight.dtype(),
            n,
            k,
            row_bytes,
            copy,
            coarse,
            fine: Packing::new(isa, FINE, n, COLUMNS)?,
        })
    }

    /// The same with a copy of another type.
    fn with_copy(self, copy: DType) -> Option<Coarsening> {
        let coarse = Packing::new(self.isa, copy, self.n, self.k)?;
        Some(Coarsening {
            copy,
            coarse,
            ..self
        })
    }

    /// Room to copy a row in.
    fn scratch_bytes(&self) -> usize {
        LANES * (self.coarse.row_bytes() + self.fine.row_bytes()) + 4 * (self.k + self.k / BLOCK)
    }

    /// The bytes of the parts of a screen.
    fn bytes(&self) -> [u64; 4] {
        [
            self.coarse.bytes() as u64,
            self.fine.bytes() as u64,
            4 * self.n as u64,
            4 * (COLUMNS as u64 + 1),
        ]
    }
}

/// Whether a device makes coarse copies of a weight.
pub(crate) fn coarsens(weight: &Tensor, how: &Repacking) -> bool {
    let Some(coarsening) = Coarsening::new(how.isa, weight) else {
        return false;
    };
    let bytes: u64 = coarsening.bytes().iter().sum();
    match how.packing {
        PackWeights::Never => false,
        PackWeights::Always => true,
        PackWeights::Auto => {
            weight.bytes() >= LEAST_BYTES && how.available.is_some_and(|free| bytes <= free / 2)
        }
    }
}

/// Makes the coarse copy of a weight on a team, and what belongs to it: `None` where nothing is gained by it, and where a
/// number of the weight is not finite.
pub(crate) fn coarse_copy(
    weight: &Tensor,
    sample: &Tensor,
    how: &Repacking,
    team: &Team,
) -> Result<Option<Vec<(u64, Box<dyn Memory>)>>> {
    let Some(coarsening) = Coarsening::new(how.isa, weight) else {
        return Ok(None);
    };
    let (weight, sample) = (View::of(weight)?, View::<f32>::of(sample)?);
    // SAFETY: the lock of the device keeps writers away.
    let sample = unsafe { sample.all() };
    let columns = largest_columns(sample, coarsening.k);
    let newest = &sample[sample.len() - coarsening.k..];
    let copies = COPIES.iter().filter_map(|copy| coarsening.with_copy(*copy));
    let costs = copies.map(|coarsening| {
        let look = Look {
            coarsening,
            columns: &columns,
            input: newest,
        };
        (look.cost(&weight), coarsening)
    });
    let cheapest = costs.min_by(|a, b| a.0.total_cmp(&b.0));
    let gains =
        |cost: f64| cost < coarsening.row_bytes as f64 || how.packing == PackWeights::Always;
    let Some((_, coarsening)) = cheapest.filter(|(cost, _)| gains(*cost)) else {
        return Ok(None);
    };
    let sizes = coarsening.bytes();
    let pages = |bytes| Ok::<_, Error>(CpuMemory::Part(Arc::new(Pages::zeroed(bytes)?), 0));
    let (coarse, fine) = (pages(sizes[0])?, pages(sizes[1])?);
    let (reach, about) = (CpuMemory::zeroed(sizes[2])?, CpuMemory::zeroed(sizes[3])?);
    let seen = Arc::new(Seen {
        finite: AtomicBool::new(true),
        lost: AtomicU32::new(0),
    });
    let phase = Coarsen {
        coarsening,
        columns,
        weight,
        copy: Copies {
            coarse: coarse.base(),
            fine: fine.base(),
            reach: reach.base().cast(),
        },
        seen: seen.clone(),
    };
    // SAFETY: the phase writes memory that nothing else knows yet, and reads what the lock of the device protects.
    unsafe { team.run(&[Group::new(vec![Box::new(phase)])]) }.map_err(|error| Error::Device {
        device: "cpu".into(),
        message: error.to_string(),
    })?;
    if !seen.finite.load(Ordering::Relaxed) {
        return Ok(None);
    }
    // SAFETY: the memory is new, and has room for the columns and a number.
    unsafe {
        let about = about.base().cast::<u32>();
        about.cast::<[u32; COLUMNS]>().write(columns);
        about.add(COLUMNS).write(seen.lost.load(Ordering::Relaxed));
    }
    let parts = [coarse, fine, reach, about];
    let boxed = |memory| Box::new(memory) as Box<dyn Memory>;
    Ok(Some(sizes.into_iter().zip(parts.map(boxed)).collect()))
}

/// An estimate of what a search costs with a copy, from some of the rows and an input.
struct Look<'a> {
    coarsening: Coarsening,
    columns: &'a [u32; COLUMNS],
    input: &'a [f32],
}

impl Look<'_> {
    /// The bytes that a search reads for each row of the weight: of the copy, and of rows that are not left out. The
    /// largest of few products is about as large as one of the largest few of all.
    fn cost(&self, weight: &View<u8>) -> f64 {
        let Coarsening {
            n,
            k,
            row_bytes,
            coarse,
            fine,
            ..
        } = self.coarsening;
        let mut input = self.input.to_vec();
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let (whole, mut kept) = (norm(&input), [0.0; COLUMNS]);
        for (kept, column) in kept.iter_mut().zip(self.columns) {
            *kept = std::mem::take(&mut input[*column as usize]);
        }
        let norms = Norms {
            input: whole,
            rest: norm(&input),
            kept: norm(&kept),
        };
        let mut values = vec![0.0; k];
        let mut scratch = vec![0.0; self.coarsening.scratch_bytes().div_ceil(4)];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut scratch);
        let mut looks = Vec::new();
        for row in (0..n).step_by(EVERY.max(n / LOOKS)) {
            // SAFETY: the weight has these rows, the lock of the device keeps writers away, and the instruction set is the
            // device's.
            let (reach, lost) = unsafe {
                let row = weight.slice(row * row_bytes..(row + 1) * row_bytes);
                // The block types all have a decoder.
                let decoded = walsh_formats::ggml::decode(self.coarsening.weight, row, &mut values);
                if decoded.is_err() {
                    return f64::INFINITY;
                }
                let room = Room::within(bytes, &self.coarsening, 0, self.columns);
                coarsen(&self.coarsening, row.as_ptr(), room)
            };
            let product: f32 = values.iter().zip(self.input).map(|(w, x)| w * x).sum();
            looks.push((product, reach * span(&norms, lost)));
        }
        let largest = looks
            .iter()
            .fold(f32::NEG_INFINITY, |most, look| most.max(look.0));
        let reaching = looks
            .iter()
            .filter(|look| look.0 + look.1 >= largest)
            .count();
        let share = reaching as f64 / looks.len() as f64;
        (coarse.row_bytes() + fine.row_bytes() + 4) as f64 + share * row_bytes as f64
    }
}

/// The parts of a screen that was made here.
pub(super) struct Parts {
    /// The type of the copy.
    pub(super) copy: DType,
    /// The copy, packed.
    pub(super) coarse: View<u8>,
    /// What it leaves out of some columns, packed.
    pub(super) fine: View<u8>,
    /// Each row's reach.
    pub(super) reach: View<f32>,
    /// The columns, and as an `f32` the most that is lost of what the copy leaves out of them, relative to all that it
    /// leaves out.
    pub(super) about: View<u32>,
}

impl Parts {
    pub(super) fn of(screen: &Screen) -> Result<Parts> {
        let foreign = || Error::Device {
            device: "cpu".into(),
            message: "the screen was not made by the CPU backend".into(),
        };
        let [coarse, fine, reach, about] = screen.parts() else {
            return Err(foreign());
        };
        let shape = screen.weight().shape();
        let rows = shape[0].next_multiple_of(LANES as u64);
        let has = |copy: &DType| copy.row_bytes(shape[1]).map(|row| row * rows);
        let copy = COPIES.iter().find(|copy| has(copy) == Some(coarse.bytes()));
        Ok(Parts {
            copy: *copy.ok_or_else(foreign)?,
            coarse: View::range(coarse, 0, coarse.bytes())?,
            fine: View::range(fine, 0, fine.bytes())?,
            reach: View::range(reach, 0, reach.bytes())?,
            about: View::range(about, 0, about.bytes())?,
        })
    }
}

/// The norms of an input, and of parts of it.
pub(super) struct Norms {
    pub(super) input: f64,
    /// Of what products leave to the copy alone: the columns that are not kept apart, and what those lose in 8 bits.
    pub(super) rest: f64,
    /// Of what 8 bits have of the columns that are kept apart.
    pub(super) kept: f64,
}

/// What reaches are multiples of; `lost` is as in [`Parts::about`].
pub(super) fn span(norms: &Norms, lost: f32) -> f32 {
    let span = norms.rest + norms.kept * f64::from(lost);
    (span.max(norms.input / SPANS) as f32).next_up()
}

/// The columns where the rows of a sample are largest, relative to their norms; of equals the first.
fn largest_columns(sample: &[f32], k: usize) -> [u32; COLUMNS] {
    let mut weights = vec![0.0; k];
    for row in sample.chunks_exact(k) {
        let norm: f32 = row.iter().map(|x| x * x).sum();
        if norm.is_normal() {
            for (sum, x) in weights.iter_mut().zip(row) {
                *sum += x * x / norm;
            }
        }
    }
    let mut order: Vec<u32> = (0..k as u32).collect();
    order.sort_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]));
    let mut columns = [0; COLUMNS];
    columns.copy_from_slice(&order[..COLUMNS]);
    columns
}

/// What was seen of all rows.
struct Seen {
    /// Whether all numbers are finite.
    finite: AtomicBool,
    /// The bits of the `f32` that [`Parts::about`] has.
    lost: AtomicU32,
}

/// The memory that copies go to.
struct Copies {
    coarse: *mut u8,
    fine: *mut u8,
    reach: *mut f32,
}

// SAFETY: each panel, with the reach of its rows, is written by the one thread that makes it.
unsafe impl Send for Copies {}
// SAFETY: as above.
unsafe impl Sync for Copies {}

/// Makes the copy, panel by panel.
struct Coarsen {
    coarsening: Coarsening,
    columns: [u32; COLUMNS],
    weight: View<u8>,
    copy: Copies,
    seen: Arc<Seen>,
}

/// Where a row's copy is made.
struct Room<'a> {
    coarse: &'a mut [u8],
    fine: &'a mut [u8],
    values: &'a mut [f32],
    scales: &'a mut [f32],
    columns: &'a [u32; COLUMNS],
}

impl<'a> Room<'a> {
    /// The room of a row of a panel, within scratch memory for a panel.
    fn within(
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

impl Phase for Coarsen {
    fn items(&self) -> usize {
        self.coarsening.coarse.panels()
    }

    fn cost(&self) -> u64 {
        (self.coarsening.n * self.coarsening.k) as u64
    }

    fn scratch_bytes(&self) -> usize {
        self.coarsening.scratch_bytes()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let Coarsening {
            n,
            k,
            row_bytes,
            coarse,
            fine,
            ..
        } = self.coarsening;
        let scratch = scratch.bytes();
        for panel in items {
            let first = panel * LANES;
            let count = LANES.min(n - first);
            for row in 0..count {
                let room = Room::within(scratch, &self.coarsening, row, &self.columns);
                // SAFETY: the weight has these rows, nothing of this group writes them, and the instruction set is the
                // device's.
                let (reach, lost) = unsafe {
                    let row = self.weight.base().add((first + row) * row_bytes);
                    coarsen(&self.coarsening, row, room)
                };
                if !(reach.is_finite() && lost.is_finite()) {
                    self.seen.finite.store(false, Ordering::Relaxed);
                }
                // Numbers that are not negative are ordered as their bits.
                self.seen.lost.fetch_max(lost.to_bits(), Ordering::Relaxed);
                // SAFETY: each row's is written once.
                unsafe { self.copy.reach.add(first + row).write(reach) };
            }
            let rows = &scratch[4 * (k + k / BLOCK)..];
            let fine_rows = &rows[LANES * coarse.row_bytes()..];
            // SAFETY: the rows are those of weights of so many rows, and the panels are this thread's.
            unsafe {
                let to = self.copy.coarse.add(panel * coarse.panel_bytes());
                coarse.of_rows(count).pack(0, rows.as_ptr(), to);
                let to = self.copy.fine.add(panel * fine.panel_bytes());
                fine.of_rows(count).pack(0, fine_rows.as_ptr(), to);
            }
        }
    }
}

/// Writes the copy of a row of blocks; returns its reach, and how much of what the copy leaves out is lost.
///
/// # Safety
/// `row` points to as many values of the type as there is room for, and the instruction set is available.
unsafe fn coarsen(coarsening: &Coarsening, row: *const u8, room: Room<'_>) -> (f32, f32) {
    // SAFETY: the caller's.
    unsafe {
        match coarsening.copy {
            DType::Q5_0 => coarsen_to::<5>(coarsening, row, room),
            _ => coarsen_to::<4>(coarsening, row, room),
        }
    }
}

/// # Safety
/// As for [`coarsen`].
unsafe fn coarsen_to<const BITS: usize>(
    coarsening: &Coarsening,
    row: *const u8,
    room: Room<'_>,
) -> (f32, f32) {
    // SAFETY: the caller's.
    unsafe {
        with_block!(coarsening.weight, B => match coarsening.isa.base() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::<B, BITS>(row.cast(), room),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::<B, BITS>(row.cast(), room),
            _ => coarsen_row::<B, super::blocks::Plain, BITS>(row.cast(), room),
        }, else => unreachable!("coarse copies are of blocks"))
    }
}

/// # Safety
/// As for [`coarsen`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<B: Decode, const BITS: usize>(row: *const B, room: Room<'_>) -> (f32, f32) {
    // SAFETY: the caller's.
    unsafe { coarsen_row::<B, super::x86::X86, BITS>(row, room) }
}

/// # Safety
/// As for [`coarsen`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn avx512<B: Decode, const BITS: usize>(row: *const B, room: Room<'_>) -> (f32, f32) {
    // SAFETY: the caller's.
    unsafe { coarsen_row::<B, super::x86::X86, BITS>(row, room) }
}

/// # Safety
/// As for [`coarsen`].
#[inline(always)]
unsafe fn coarsen_row<B: Decode, P: Primitives, const BITS: usize>(
    row: *const B,
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
    for (index, values) in values.chunks_exact_mut(B::LEN).enumerate() {
        // SAFETY: the caller's.
        terms += unsafe { decode::<B, P>(&*row.add(index), values) };
    }
    let (blocks, _) = values.as_chunks_mut::<BLOCK>();
    for (scale, block) in scales.iter_mut().zip(&*blocks) {
        // The largest magnitude lies half a step inside the codes' range on both sides.
        *scale = largest(block) / (zero(BITS) - 0.5);
    }
    let mut residual = [0.0; BLOCK / 2];
    let mut halves = [half::f16::ZERO; 64];
    let bytes = 2 + BITS * BLOCK / 8;
    let groups = scales.chunks(halves.len());
    let outputs = coarse.chunks_mut(halves.len() * bytes);
    for ((scales, blocks), to) in groups.zip(blocks.chunks_mut(64)).zip(outputs) {
        let halves = &mut halves[..scales.len()];
        halves.convert_from_f32_slice(scales);
        let outputs = to.chunks_exact_mut(bytes);
        for ((half, block), to) in halves.iter().zip(blocks).zip(outputs) {
            // SAFETY: the caller's.
            let scale = unsafe { P::widen(*half) };
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
    let relative = match lost > 0.0 {
        true => ((lost / residual) as f32).next_up(),
        false => 0.0,
    };
    (
        reach(residual, (terms + more).sqrt(), values.len()),
        relative,
    )
}

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
#[inline(always)]
fn keep(values: &[f32; COLUMNS], to: &mut [u8]) -> (f64, f64) {
    let half = half::f16::from_f32(largest(values) / 127.0);
    let scale = half.to_f32();
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    to[..2].copy_from_slice(&half.to_le_bytes());
    let mut lost = 0.0;
    for (to, value) in to[2..].iter_mut().zip(values) {
        let code = (value * inverse).round_ties_even().clamp(-127.0, 127.0);
        *to = code as i8 as u8;
        lost += f64::from(value - code * scale).powi(2);
    }
    // A code with its zero, which products take away apart.
    let terms = COLUMNS as f64 * f64::from(384.0 * scale).powi(2);
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
///
/// # Safety
/// The instruction set of `P` is available.
#[inline(always)]
unsafe fn decode<B: Decode, P: Primitives>(block: &B, values: &mut [f32]) -> f64 {
    const MOST: usize = 256;
    let (mut codes, mut scales, mut mins) = ([0; MOST], [0.0; MOST / 16], [0.0; MOST / 16]);
    let runs = B::LEN / B::RUN;
    let out = Decoded {
        codes: &mut codes[..B::LEN],
        scales: &mut scales[..runs],
        mins: &mut mins[..runs],
    };
    // SAFETY: the caller's.
    unsafe { block.decode::<P>(out) };
    let mut terms = 0.0;
    for (run, values) in values.chunks_exact_mut(B::RUN).enumerate() {
        let (scale, min) = (scales[run], mins[run]);
        let codes = &codes[run * B::RUN..(run + 1) * B::RUN];
        for (value, &code) in values.iter_mut().zip(codes) {
            // As products with floats decode.
            *value = match B::ZERO {
                Some(zero) => scale * (i32::from(code) - i32::from(zero)) as f32,
                None => scale * f32::from(code) - min,
            };
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
    // Adding it leaves a small number, rounded to an integer, in the low bits.
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³
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
