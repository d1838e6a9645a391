//! Short convolutions and gated delta rules. What a column of a state becomes depends on that column and the tokens alone,
//! and is computed token by token: how a sequence was split over calls and threads changes no bit of it.

use std::ops::Range;

use walsh_core::ops::{DeltaRule, HeadOrder, Operation, ShortConv};
use walsh_core::{Result, Tensor, TokenLimits};

use super::elementwise::silu;
use crate::kv::positions;
use crate::lowering::Lowering;
use crate::memory::{Parts, View};
use crate::simd::{LANES, Simd, Token, entries};
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
        let tokens = positions::Tokens {
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

    /// What they are.
    ///
    /// # Safety
    /// Nothing writes the positions and the sequences while they are borrowed.
    unsafe fn read(&self) -> Tokens<'_> {
        // SAFETY: nothing writes them, as this method asks.
        unsafe {
            Tokens {
                positions: self.positions.all(),
                sequences: self.sequences.as_ref().map(|sequences| sequences.all()),
            }
        }
    }
}

/// [`Rows`] while nothing writes them; they have been checked.
struct Tokens<'a> {
    positions: &'a [i32],
    sequences: Option<&'a [i32]>,
}

impl Tokens<'_> {
    /// The run that begins with a row, if one does.
    fn run_from(&self, row: usize) -> Option<Run> {
        let (slot, end) = match self.sequences {
            None if row > 0 => return None,
            None => (0, self.positions.len()),
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
            begins: self.positions[row] == 0,
        })
    }

    /// The runs of items: of each piece all rows, so that pieces of few long runs lie apart.
    fn runs(&self, items: Range<usize>) -> impl Iterator<Item = (usize, Run)> {
        let rows = self.positions.len();
        items.filter_map(move |item| Some((item / rows, self.run_from(item % rows)?)))
    }
}

struct Conv {
    set: Token,
    channels: usize,
    taps: usize,
    silu: bool,
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
        set: lowering.target().token(),
        channels: op.input.row_len() as usize,
        taps: op.weight.row_len() as usize,
        silu: op.silu,
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
struct ConvPiece<'a> {
    /// How many, a multiple of the lanes.
    count: usize,
    rows: usize,
    /// From a row to the next, of inputs, outputs and the state.
    channels: usize,
    taps: usize,
    silu: bool,
    begins: bool,
    input: &'a [f32],
    /// `[count][taps]`.
    weight: &'a [f32],
    /// `[taps - 1]` rows.
    state: Parts<'a, f32>,
    output: Parts<'a, f32>,
}

entries! {
    /// Convolves channels, and leaves their latest inputs.
    ///
    /// # Safety
    /// Nothing else touches the piece's channels of the state and of the output.
    unsafe fn convolve(piece: ConvPiece<'_>) = convolve_piece
}

/// See [`convolve`].
#[inline(always)]
unsafe fn convolve_piece<S: Simd>(s: S, piece: ConvPiece<'_>) {
    // SAFETY: nothing else touches the channels, as `convolve` asks.
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

impl<'a> ConvPiece<'a> {
    /// The channels of a row.
    fn of_row(&self, row: usize) -> Range<usize> {
        row * self.channels..row * self.channels + self.count
    }

    /// The inputs of a row, which may lie before the run, at most the taps but one.
    ///
    /// # Safety
    /// Nothing writes what is kept of that row while it is borrowed.
    #[inline(always)]
    unsafe fn row(&self, row: isize) -> &'a [f32] {
        match row {
            0.. => &self.input[self.of_row(row as usize)],
            _ if self.begins => &NOTHING[..self.count],
            _ => {
                let kept = (self.taps as isize - 1 + row) as usize;
                // SAFETY: nothing writes it, as this method asks.
                unsafe { self.state.part(self.of_row(kept)) }
            }
        }
    }
}

/// Row by row, since those of a chunk lie far from each other.
///
/// # Safety
/// As for [`convolve`], and there are so many taps.
#[inline(always)]
unsafe fn convolve_taps<S: Simd, const TAPS: usize>(s: S, piece: ConvPiece<'_>) {
    // Of each vector of channels, tap after tap.
    let mut weights = [[[0.0f32; LANES]; TAPS]; CHANNELS / LANES];
    let weights = &mut weights[..piece.count / LANES];
    for (weights, own) in weights
        .iter_mut()
        .zip(piece.weight.chunks_exact(LANES * TAPS))
    {
        for tap in 0..TAPS {
            for lane in 0..LANES {
                weights[tap][lane] = own[lane * TAPS + tap];
            }
        }
    }
    let before = TAPS as isize - 1;
    for row in 0..piece.rows {
        // SAFETY: the state is written behind all rows; a row of the output is this piece's, and apart from inputs.
        let (inputs, output) = unsafe {
            let inputs: [_; TAPS] = std::array::from_fn(|tap| {
                piece
                    .row((row + tap) as isize - before)
                    .as_chunks::<LANES>()
                    .0
            });
            (inputs, piece.output.part(piece.of_row(row)))
        };
        let inputs = inputs.map(|input| &input[..weights.len()]);
        for (vector, (weights, output)) in weights.iter().zip(output.as_chunks_mut().0).enumerate()
        {
            let mut sum = s.mul(s.read(&weights[0]), s.read(&inputs[0][vector]));
            for tap in 1..TAPS {
                sum = s.fma(s.read(&weights[tap]), s.read(&inputs[tap][vector]), sum);
            }
            s.write(output, if piece.silu { silu(s, sum) } else { sum });
        }
    }
    // What is kept moves towards the first: each row is read before it is written to.
    for kept in 0..TAPS - 1 {
        // SAFETY: the channels of a row of the state, which are this piece's, and those of a later one or of an input.
        let (latest, to) = unsafe {
            let latest = piece.row((piece.rows + kept) as isize - before);
            (latest, piece.state.part(piece.of_row(kept)))
        };
        to.copy_from_slice(latest);
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
        // SAFETY: the list orders the accesses.
        let (tokens, input, weight) =
            unsafe { (self.rows.read(), self.input.all(), self.weight.all()) };
        for (piece, run) in tokens.runs(items) {
            let first = piece * CHANNELS;
            let count = CHANNELS.min(self.channels - first);
            let at = run.rows.start * self.channels + first;
            let kept = (self.taps - 1) * self.channels;
            let state = run.slot * kept;
            let piece = ConvPiece {
                count,
                rows: run.rows.len(),
                channels: self.channels,
                taps: self.taps,
                silu: self.silu,
                begins: run.begins,
                input: &input[at..],
                weight: &weight[first * self.taps..(first + count) * self.taps],
                state: self.state.parts().range(state + first..state + kept),
                output: self.output.parts().range(at..self.output.len()),
            };
            // SAFETY: a run's channels are one item's, and a checked sequence has a slot of its own.
            unsafe { convolve(self.set, piece) };
        }
    }
}

struct Delta {
    set: Token,
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
        set: lowering.target().token(),
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
struct DeltaPiece<'a> {
    columns: usize,
    rows: usize,
    begins: bool,
    /// An even number.
    key_dim: usize,
    /// From a row of the state to the next.
    value_dim: usize,
    /// From a token to the next: of queries, keys and values, of decays and rates, and of outputs.
    strides: [usize; 3],
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    decay: &'a [f32],
    rate: &'a [f32],
    decay_bias: f32,
    decay_scale: f32,
    state: Parts<'a, f32>,
    output: Parts<'a, f32>,
}

entries! {
    /// Takes columns of a state from token to token.
    ///
    /// # Safety
    /// Nothing else touches the piece's columns of the state and of the output.
    unsafe fn follow(piece: DeltaPiece<'_>) = follow_piece
}

/// See [`follow`].
#[inline(always)]
unsafe fn follow_piece<S: Simd>(s: S, piece: DeltaPiece<'_>) {
    // SAFETY: nothing else touches the columns, as `follow` asks.
    unsafe {
        match piece.columns {
            64 => follow_columns::<S, 4>(s, piece),
            32 => follow_columns::<S, 2>(s, piece),
            _ => follow_columns::<S, 1>(s, piece),
        }
    }
}

/// `1 / √(x · x + ε)` of whole vectors.
#[inline(always)]
fn norm<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut squares = s.splat(0.0);
    for x in x.as_chunks().0 {
        let x = s.read(x);
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
unsafe fn follow_columns<S: Simd, const VECTORS: usize>(s: S, piece: DeltaPiece<'_>) {
    let DeltaPiece {
        key_dim, value_dim, ..
    } = piece;
    assert!(piece.state.len() >= (key_dim - 1) * value_dim + VECTORS * LANES);
    let start = piece.state.base();
    let state = |row: usize, vector: usize| start.wrapping_add(row * value_dim + vector * LANES);
    if piece.begins {
        for (row, vector) in (0..key_dim).flat_map(|r| (0..VECTORS).map(move |v| (r, v))) {
            // SAFETY: the columns of one of `key_dim` rows of the state, which are this piece's.
            unsafe { s.store(state(row, vector), s.splat(0.0)) };
        }
    }
    for token in 0..piece.rows {
        let [vectors, scalars, outputs] = piece.strides.map(|stride| token * stride);
        let query = &piece.query[vectors..][..key_dim];
        let key = &piece.key[vectors..][..key_dim];
        let value = &piece.value[vectors..][..VECTORS * LANES];
        let decay = softplus(piece.decay[scalars] + piece.decay_bias);
        let decay = (piece.decay_scale * decay).exp();
        let rate = 1.0 / (1.0 + (-piece.rate[scalars]).exp());
        let key_norm = norm(s, key);
        let query_norm = norm(s, query) / (key_dim as f32).sqrt();
        let (key, query) = (key.as_chunks::<2>().0, query.as_chunks::<2>().0);
        // Sums of rows in turns: one after the other they would wait for each other.
        let mut sums = [[s.splat(0.0); VECTORS]; 2];
        for (two, key) in key.iter().enumerate() {
            for turn in 0..2 {
                let k = s.splat(key[turn]);
                for vector in 0..VECTORS {
                    // SAFETY: as above.
                    let old = unsafe { s.load(state(2 * two + turn, vector)) };
                    sums[turn][vector] = s.fma(old, k, sums[turn][vector]);
                }
            }
        }
        let (kept, fade) = (s.splat(decay), s.splat(-decay * key_norm));
        let step = s.splat(rate * key_norm);
        let mut change = sums[0];
        for (vector, value) in value.as_chunks().0.iter().enumerate() {
            let found = s.add(sums[0][vector], sums[1][vector]);
            change[vector] = s.mul(step, s.fma(fade, found, s.read(value)));
        }
        let mut sums = [[s.splat(0.0); VECTORS]; 2];
        for (two, (key, query)) in key.iter().zip(query).enumerate() {
            for turn in 0..2 {
                let (k, q) = (s.splat(key[turn]), s.splat(query[turn]));
                for vector in 0..VECTORS {
                    let at = state(2 * two + turn, vector);
                    // SAFETY: as above.
                    let old = unsafe { s.load(at) };
                    let new = s.fma(k, change[vector], s.mul(kept, old));
                    // SAFETY: as above.
                    unsafe { s.store(at, new) };
                    sums[turn][vector] = s.fma(q, new, sums[turn][vector]);
                }
            }
        }
        // SAFETY: the piece's columns of a token's output.
        let output = unsafe { piece.output.part(outputs..outputs + VECTORS * LANES) };
        for (vector, output) in output.as_chunks_mut().0.iter_mut().enumerate() {
            let read = s.add(sums[0][vector], sums[1][vector]);
            s.write(output, s.mul(s.splat(query_norm), read));
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
        // SAFETY: the list orders the accesses.
        let (tokens, mixed, decay, rate) = unsafe {
            (
                self.rows.read(),
                self.mixed.all(),
                self.decay.all(),
                self.rate.all(),
            )
        };
        // SAFETY: as above.
        let of_head = |view: &View<f32>, head: usize| unsafe { view.slice(head..head + 1)[0] };
        for (piece, run) in tokens.runs(items) {
            let (head, first) = (piece / pieces, piece % pieces * self.columns);
            let key_head = match self.order {
                HeadOrder::Grouped => head / (self.heads / self.key_heads),
                HeadOrder::Tiled => head % self.key_heads,
            };
            let row = run.rows.start;
            let mixed = &mixed[row * width..];
            let column = head * self.value_dim + first;
            let size = self.key_dim * self.value_dim;
            let state = (run.slot * self.heads + head) * size;
            let piece = DeltaPiece {
                columns: self.columns,
                rows: run.rows.len(),
                begins: run.begins,
                key_dim: self.key_dim,
                value_dim: self.value_dim,
                strides: [width, self.heads, values],
                query: &mixed[key_head * self.key_dim..],
                key: &mixed[keys + key_head * self.key_dim..],
                value: &mixed[2 * keys + column..],
                decay: &decay[row * self.heads + head..],
                rate: &rate[row * self.heads + head..],
                decay_bias: of_head(&self.decay_bias, head),
                decay_scale: of_head(&self.decay_scale, head),
                state: self.state.parts().range(state + first..state + size),
                output: self
                    .output
                    .parts()
                    .range(row * values + column..self.output.len()),
            };
            // SAFETY: a run's columns are one item's, and a checked sequence has a slot of its own.
            unsafe { follow(self.set, piece) };
        }
    }
}
