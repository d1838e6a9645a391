//! Short convolutions and gated delta rules. What a column of a state becomes depends on that column and the tokens alone,
//! and is computed token by token: how a sequence was split over calls and threads changes no bit of it.

use std::ops::Range;

use walsh_core::ops::{DeltaRule, HeadOrder, Operation, ShortConv};
use walsh_core::{Result, Tensor, TokenLimits};

use super::elementwise::silu;
use crate::isa::Isa;
use crate::kv::positions::{self, Tokens};
use crate::lowering::Lowering;
use crate::memory::View;
use crate::simd::{LANES, Simd, entries};
use crate::team::{Phase, Scratch};

/// The rows of an op by their sequences.
struct Rows {
    positions: View<i32>,
    sequences: Option<View<i32>>,
}

/// Rows of one sequence, all that an op has.
struct Run {
    slot: usize,
    rows: Range<usize>,
    /// Whether the first is the first of its sequence.
    begins: bool,
}

impl Rows {
    /// The rows, and the proof that they are as the op asks.
    fn checked(
        op: &'static str,
        (positions, sequences): (&Tensor, Option<&Tensor>),
        limits: TokenLimits,
        lowering: &mut Lowering,
    ) -> Result<(Self, walsh_core::Buffer)> {
        let tokens = Tokens {
            op,
            positions,
            sequences,
            limits,
        };
        let checked = positions::checked(&tokens, None, lowering)?;
        let rows = Self {
            positions: View::of(positions)?,
            sequences: sequences.map(View::of).transpose()?,
        };
        Ok((rows, checked))
    }

    fn len(&self) -> usize {
        self.positions.len()
    }

    /// The run that begins with a row, if one does.
    ///
    /// # Safety
    /// The list orders the accesses, and the rows were checked.
    unsafe fn run_from(&self, row: usize) -> Option<Run> {
        // SAFETY: the caller's.
        let (positions, sequences) = unsafe {
            let sequences = self.sequences.as_ref().map(|sequences| sequences.all());
            (self.positions.all(), sequences)
        };
        let (slot, end) = match sequences {
            None if row > 0 => return None,
            None => (0, positions.len()),
            Some(all) => {
                let slot = all[row];
                if row > 0 && all[row - 1] == slot {
                    return None;
                }
                let count = all[row..].iter().take_while(|other| **other == slot);
                (slot as usize, row + count.count())
            }
        };
        Some(Run {
            slot,
            rows: row..end,
            begins: positions[row] == 0,
        })
    }

    /// The runs of items: of each piece all rows, so that pieces of few long runs lie apart.
    ///
    /// # Safety
    /// As for [`run_from`](Self::run_from).
    unsafe fn runs(&self, items: Range<usize>) -> impl Iterator<Item = (usize, Run)> {
        items.filter_map(|item| {
            // SAFETY: the caller's.
            let run = unsafe { self.run_from(item % self.len()) };
            run.map(|run| (item / self.len(), run))
        })
    }
}

struct Conv {
    isa: Isa,
    channels: usize,
    taps: usize,
    rows: Rows,
    input: View<f32>,
    weight: View<f32>,
    state: View<f32>,
    output: View<f32>,
}

/// Channels of a work item.
const CHANNELS: usize = 128;

pub(crate) fn lower_conv(op: &ShortConv, lowering: &mut Lowering) -> Result<()> {
    let tokens = (&op.positions, op.sequences.as_ref());
    let (rows, checked) = Rows::checked(ShortConv::NAME, tokens, op.token_limits(), lowering)?;
    let phase = Conv {
        isa: lowering.target().isa,
        channels: op.input.row_len() as usize,
        taps: op.weight.row_len() as usize,
        rows,
        input: View::of(&op.input)?,
        weight: View::of(&op.weight)?,
        state: View::of(&op.state)?,
        output: View::of(&op.output)?,
    };
    let mut accesses = op.accesses();
    accesses.read(checked.span());
    lowering.phase(&accesses, phase);
    Ok(())
}

/// Neighbouring channels of a run, from the first channel's numbers on.
#[derive(Clone, Copy)]
struct ConvPiece {
    /// How many, a multiple of the lanes.
    count: usize,
    rows: usize,
    /// From a row to the next, of inputs, outputs and the state.
    channels: usize,
    taps: usize,
    begins: bool,
    input: *const f32,
    weight: *const f32,
    state: *mut f32,
    output: *mut f32,
}

entries! {
    /// Convolves channels, and leaves their latest inputs.
    ///
    /// # Safety
    /// The pointers are good for the piece's rows and channels.
    unsafe fn convolve(piece: ConvPiece) = convolve_piece
}

/// See [`convolve`].
#[inline(always)]
unsafe fn convolve_piece<S: Simd>(s: S, piece: ConvPiece) {
    // SAFETY: the caller's.
    unsafe {
        match piece.taps {
            2 => convolve_taps::<S, 2>(s, piece),
            3 => convolve_taps::<S, 3>(s, piece),
            _ => convolve_taps::<S, 4>(s, piece),
        }
    }
}

/// What lies before a sequence's first token.
static NOTHING: [f32; CHANNELS] = [0.0; CHANNELS];

impl ConvPiece {
    /// The inputs of a row, which may lie before the run.
    ///
    /// # Safety
    /// As for [`convolve`]; the row is at most the taps but one before the run.
    #[inline(always)]
    unsafe fn row(&self, row: isize) -> *const f32 {
        // SAFETY: the caller's.
        unsafe {
            match row {
                0.. => self.input.offset(row * self.channels as isize),
                _ if self.begins => NOTHING.as_ptr(),
                _ => {
                    let kept = self.taps as isize - 1 + row;
                    self.state.offset(kept * self.channels as isize)
                }
            }
        }
    }
}

/// Row by row, since those of a chunk lie far from each other.
///
/// # Safety
/// As for [`convolve`], and there are so many taps.
#[inline(always)]
unsafe fn convolve_taps<S: Simd, const TAPS: usize>(s: S, piece: ConvPiece) {
    // SAFETY: the caller's pointers; there are at most so many channels.
    unsafe {
        // Of each vector of channels, tap after tap.
        let mut weights = [[[0.0f32; LANES]; TAPS]; CHANNELS / LANES];
        for first in (0..piece.count).step_by(LANES) {
            let own = std::slice::from_raw_parts(piece.weight.add(first * TAPS), LANES * TAPS);
            let weights = &mut weights[first / LANES];
            for tap in 0..TAPS {
                for lane in 0..LANES {
                    weights[tap][lane] = own[lane * TAPS + tap];
                }
            }
        }
        for row in 0..piece.rows {
            let mut inputs = [std::ptr::null(); TAPS];
            for (tap, input) in inputs.iter_mut().enumerate() {
                *input = piece.row((row + tap) as isize - (TAPS as isize - 1));
            }
            let output = piece.output.add(row * piece.channels);
            for (vector, weights) in weights[..piece.count / LANES].iter().enumerate() {
                let first = vector * LANES;
                let mut sum = s.mul(s.read(&weights[0]), s.load(inputs[0].add(first)));
                for tap in 1..TAPS {
                    sum = s.fma(s.read(&weights[tap]), s.load(inputs[tap].add(first)), sum);
                }
                s.store(output.add(first), silu(s, sum));
            }
        }
        // What is kept moves towards the first: each row is read before it is written to.
        for kept in 0..TAPS - 1 {
            let latest = piece.row((piece.rows + kept) as isize - (TAPS as isize - 1));
            let to = piece.state.add(kept * piece.channels);
            std::ptr::copy(latest, to, piece.count);
        }
    }
}

impl Phase for Conv {
    fn items(&self) -> usize {
        self.rows.len() * self.channels.div_ceil(CHANNELS)
    }

    fn grain(&self) -> usize {
        (super::GRAIN / (CHANNELS * self.taps)).max(1)
    }

    fn cost(&self) -> u64 {
        self.input.len() as u64
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        // SAFETY: the list orders the accesses; a run's channels are one item's, and a checked sequence has a slot.
        unsafe {
            for (piece, run) in self.rows.runs(items) {
                let first = piece * CHANNELS;
                let at = run.rows.start * self.channels + first;
                let kept = (self.taps - 1) * self.channels;
                convolve(
                    self.isa,
                    ConvPiece {
                        count: CHANNELS.min(self.channels - first),
                        rows: run.rows.len(),
                        channels: self.channels,
                        taps: self.taps,
                        begins: run.begins,
                        input: self.input.base().add(at).cast_const(),
                        weight: self.weight.base().add(first * self.taps).cast_const(),
                        state: self.state.base().add(run.slot * kept + first),
                        output: self.output.base().add(at),
                    },
                );
            }
        }
    }
}

struct Delta {
    isa: Isa,
    heads: usize,
    key_heads: usize,
    key_dim: usize,
    value_dim: usize,
    order: HeadOrder,
    /// Columns of a work item.
    columns: usize,
    rows: Rows,
    mixed: View<f32>,
    decay: View<f32>,
    rate: View<f32>,
    decay_bias: View<f32>,
    decay_scale: View<f32>,
    state: View<f32>,
    output: View<f32>,
}

pub(crate) fn lower_delta(op: &DeltaRule, lowering: &mut Lowering) -> Result<()> {
    let tokens = (&op.positions, op.sequences.as_ref());
    let (rows, checked) = Rows::checked(DeltaRule::NAME, tokens, op.token_limits(), lowering)?;
    let [heads, key_dim, value_dim] = op.sizes().map(|size| size as usize);
    let columns = [64, 32, 16].into_iter().find(|c| value_dim % c == 0);
    let phase = Delta {
        isa: lowering.target().isa,
        heads,
        key_heads: op.key_heads() as usize,
        key_dim,
        value_dim,
        order: op.order,
        columns: columns.unwrap_or(LANES),
        rows,
        mixed: View::of(&op.mixed)?,
        decay: View::of(&op.decay)?,
        rate: View::of(&op.rate)?,
        decay_bias: View::of(&op.decay_bias)?,
        decay_scale: View::of(&op.decay_scale)?,
        state: View::of(&op.state)?,
        output: View::of(&op.output)?,
    };
    let mut accesses = op.accesses();
    accesses.read(checked.span());
    lowering.phase(&accesses, phase);
    Ok(())
}

/// Neighbouring columns of a head's state, and the tokens of a run.
#[derive(Clone, Copy)]
struct DeltaPiece {
    columns: usize,
    rows: usize,
    begins: bool,
    key_dim: usize,
    /// From a row of the state to the next.
    value_dim: usize,
    /// From a token to the next: of queries, keys and values, of decays and rates, and of outputs.
    strides: [usize; 3],
    query: *const f32,
    key: *const f32,
    value: *const f32,
    decay: *const f32,
    rate: *const f32,
    decay_bias: f32,
    decay_scale: f32,
    state: *mut f32,
    output: *mut f32,
}

entries! {
    /// Takes columns of a state from token to token.
    ///
    /// # Safety
    /// The pointers are good for the piece's rows and columns.
    unsafe fn follow(piece: DeltaPiece) = follow_piece
}

/// See [`follow`].
#[inline(always)]
unsafe fn follow_piece<S: Simd>(s: S, piece: DeltaPiece) {
    // SAFETY: the caller's.
    unsafe {
        match piece.columns {
            64 => follow_columns::<S, 4>(s, piece),
            32 => follow_columns::<S, 2>(s, piece),
            _ => follow_columns::<S, 1>(s, piece),
        }
    }
}

/// `1 / √(x · x + ε)`.
///
/// # Safety
/// There are so many numbers, a multiple of the lanes.
#[inline(always)]
unsafe fn norm<S: Simd>(s: S, x: *const f32, count: usize) -> f32 {
    let mut squares = s.splat(0.0);
    for at in (0..count).step_by(LANES) {
        // SAFETY: the caller's.
        let x = unsafe { s.load(x.add(at)) };
        squares = s.fma(x, x, squares);
    }
    1.0 / (s.reduce_add(squares) + DeltaRule::EPSILON).sqrt()
}

/// `ln(1 + eˣ)`.
fn softplus(x: f32) -> f32 {
    match x > 20.0 {
        true => x,
        false => x.exp().ln_1p(),
    }
}

/// # Safety
/// As for [`follow`], and the columns are so many vectors.
#[inline(always)]
unsafe fn follow_columns<S: Simd, const VECTORS: usize>(s: S, piece: DeltaPiece) {
    let DeltaPiece {
        key_dim, value_dim, ..
    } = piece;
    // SAFETY: the caller's pointers.
    unsafe {
        let state = |row: usize, vector: usize| piece.state.add(row * value_dim + vector * LANES);
        if piece.begins {
            for (row, vector) in (0..key_dim).flat_map(|r| (0..VECTORS).map(move |v| (r, v))) {
                s.store(state(row, vector), s.splat(0.0));
            }
        }
        for token in 0..piece.rows {
            let [vectors, scalars, outputs] = piece.strides.map(|stride| token * stride);
            let (query, key) = (piece.query.add(vectors), piece.key.add(vectors));
            let value = piece.value.add(vectors);
            let decay = softplus(*piece.decay.add(scalars) + piece.decay_bias);
            let decay = (piece.decay_scale * decay).exp();
            let rate = 1.0 / (1.0 + (-*piece.rate.add(scalars)).exp());
            let key_norm = norm(s, key, key_dim);
            let query_norm = norm(s, query, key_dim) / (key_dim as f32).sqrt();
            // Sums of rows in turns: one after the other they would wait for each other.
            let mut sums = [[s.splat(0.0); VECTORS]; 2];
            for row in (0..key_dim).step_by(2) {
                for turn in 0..2 {
                    let k = s.splat(*key.add(row + turn));
                    for vector in 0..VECTORS {
                        let old = s.load(state(row + turn, vector));
                        sums[turn][vector] = s.fma(old, k, sums[turn][vector]);
                    }
                }
            }
            let (kept, fade) = (s.splat(decay), s.splat(-decay * key_norm));
            let step = s.splat(rate * key_norm);
            let mut change = sums[0];
            for vector in 0..VECTORS {
                let found = s.add(sums[0][vector], sums[1][vector]);
                let v = s.load(value.add(vector * LANES));
                change[vector] = s.mul(step, s.fma(fade, found, v));
            }
            let mut sums = [[s.splat(0.0); VECTORS]; 2];
            for row in (0..key_dim).step_by(2) {
                for turn in 0..2 {
                    let row = row + turn;
                    let (k, q) = (s.splat(*key.add(row)), s.splat(*query.add(row)));
                    for vector in 0..VECTORS {
                        let old = s.mul(kept, s.load(state(row, vector)));
                        let new = s.fma(k, change[vector], old);
                        s.store(state(row, vector), new);
                        sums[turn][vector] = s.fma(q, new, sums[turn][vector]);
                    }
                }
            }
            for vector in 0..VECTORS {
                let output = piece.output.add(outputs + vector * LANES);
                let read = s.add(sums[0][vector], sums[1][vector]);
                s.store(output, s.mul(s.splat(query_norm), read));
            }
        }
    }
}

impl Phase for Delta {
    fn items(&self) -> usize {
        self.rows.len() * self.heads * (self.value_dim / self.columns)
    }

    fn cost(&self) -> u64 {
        (self.rows.len() * self.heads * self.key_dim * self.value_dim) as u64 / 16
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        let pieces = self.value_dim / self.columns;
        let keys = self.key_heads * self.key_dim;
        let values = self.heads * self.value_dim;
        let width = 2 * keys + values;
        // SAFETY: the list orders the accesses; a run's columns are one item's, and a checked sequence has a slot.
        unsafe {
            for (piece, run) in self.rows.runs(items) {
                let (head, first) = (piece / pieces, piece % pieces * self.columns);
                let key_head = match self.order {
                    HeadOrder::Grouped => head / (self.heads / self.key_heads),
                    HeadOrder::Tiled => head % self.key_heads,
                };
                let row = run.rows.start;
                let mixed = self.mixed.base().add(row * width).cast_const();
                let column = head * self.value_dim + first;
                let of_head = |view: &View<f32>| view.slice(head..head + 1)[0];
                let state = (run.slot * self.heads + head) * self.key_dim * self.value_dim;
                follow(
                    self.isa,
                    DeltaPiece {
                        columns: self.columns,
                        rows: run.rows.len(),
                        begins: run.begins,
                        key_dim: self.key_dim,
                        value_dim: self.value_dim,
                        strides: [width, self.heads, values],
                        query: mixed.add(key_head * self.key_dim),
                        key: mixed.add(keys + key_head * self.key_dim),
                        value: mixed.add(2 * keys + column),
                        decay: self.decay.base().add(row * self.heads + head).cast_const(),
                        rate: self.rate.base().add(row * self.heads + head).cast_const(),
                        decay_bias: of_head(&self.decay_bias),
                        decay_scale: of_head(&self.decay_scale),
                        state: self.state.base().add(state + first),
                        output: self.output.base().add(row * values + column),
                    },
                );
            }
        }
    }
}
