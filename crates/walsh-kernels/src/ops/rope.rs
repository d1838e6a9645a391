//! Rotary position embeddings.

use std::f64::consts::TAU;

use walsh_core::ops::{Pairing, Rope, RopeConfig};
use walsh_core::{Result, Span};

use super::kv::store::{self, FINDING, KV_INSPECT, KvInspectArgs};
use crate::args::args;
use crate::dispatch::Dispatch;
use crate::kernel::{Kernel, Variant, no_tables, reads, writes};
use crate::lower::{Lowering, layout};

const THREADS: i64 = 128;

/// The most pairs of a head.
const MOST_PAIRS: usize = 256;

args! {
    /// Arguments of `rope_table`.
    RopeTableArgs {
        /// Turns per position of each pair, in units of 2⁻⁶⁴.
        turns: [u64; MOST_PAIRS],
        /// Tokens times pairs.
        count: u32,
        /// Pairs of a head.
        pairs: u32,
        /// What cosines and sines are multiplied by.
        magnitude: f32,
        /// The positions before which no temperature shows, or 0 where there is none.
        context: u32,
        /// The temperature's scale.
        scale: f32,
        /// Fills the struct up to a multiple of eight bytes.
        padding: u32,
    }

    /// Arguments of `rope`.
    RopeArgs {
        /// Heads of all tokens.
        heads: u32,
        /// Heads of a token.
        heads_per_token: u32,
        /// Numbers of a head.
        head_dim: u32,
        /// Pairs that turn.
        pairs: u32,
    }

    /// Arguments of `rope_inspect`.
    RopeInspectArgs {
        /// Query heads of all tokens.
        queries: u32,
        /// Query heads of a token.
        query_heads: u32,
        /// KV heads of all tokens.
        vectors: u32,
        /// KV heads of a token.
        kv_heads: u32,
        /// The number of the check.
        check: u32,
        /// Magnitudes stay below this, for keys and for values.
        most: [f32; 2],
        /// Norms stay below this, times 2⁻⁷⁰.
        norm: [f32; 2],
    }
}

static ROPE_TABLE: Kernel = Kernel {
    name: "rope_table",
    includes: &[],
    tables: no_tables,
    text: include_str!("../../kernels/rope_table.h"),
    native: &[],
    constants: &["THREADS"],
    args: layout::<RopeTableArgs>(),
    buffers: &[reads("positions", "int"), writes("output", "float")],
    shared: false,
};

static ROPE: Kernel = Kernel {
    name: "rope",
    includes: &[],
    tables: no_tables,
    text: include_str!("../../kernels/rope.h"),
    native: &[],
    constants: &["THREADS", "HALVES"],
    args: layout::<RopeArgs>(),
    buffers: &[
        reads("input", "float"),
        reads("table", "float"),
        writes("output", "float"),
    ],
    shared: false,
};

static ROPE_INSPECT: Kernel = Kernel {
    name: "rope_inspect",
    includes: &[FINDING],
    tables: no_tables,
    text: include_str!("../../kernels/rope_inspect.h"),
    native: &[],
    constants: &[
        "THREADS",
        "HEAD_DIM",
        "HALVES",
        "PAIRS",
        "EQUALISER",
        "CENTER",
    ],
    args: layout::<RopeInspectArgs>(),
    buffers: &[
        reads("query", "float"),
        reads("key", "float"),
        reads("values", "float"),
        reads("table", "float"),
        reads("equaliser", "float"),
        reads("center", "float"),
        writes("turned_query", "float"),
        writes("turned_key", "float"),
        writes("status", "uint"),
    ],
    shared: false,
};

pub(crate) const KERNELS: &[&Kernel] = &[&ROPE_TABLE, &ROPE, &ROPE_INSPECT];

/// A frequency in radians per position as a fraction of a turn, in units of 2⁻⁶⁴.
fn turns(frequency: f64) -> u64 {
    let fraction = (frequency / TAU).rem_euclid(1.0);
    // Above 2⁵³ a double is a whole number, and 1.0 itself cannot come out of the remainder but by rounding.
    (fraction * 2f64.powi(64)).min(u64::MAX as f64) as u64
}

/// Cosines and sines at some positions.
#[derive(PartialEq)]
struct Table(RopeConfig);

pub(crate) fn lower(op: &Rope, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.input])?;
    let pairs = (op.config.dims / 2) as usize;
    if pairs > MOST_PAIRS {
        return Err(lowering.unsupported(format_args!(
            "a head has {pairs} pairs that turn, and kernels take {MOST_PAIRS}"
        )));
    }
    let tokens = op.positions.elements();
    let what = Table(op.config.clone());
    let table = match lowering.known(&what, &[op.positions.span()]) {
        Some(table) => table,
        None => {
            let count = tokens * pairs as u64;
            let table = lowering.workspace(count * 8)?;
            let (frequencies, magnitude) = op.config.frequencies();
            let mut args = RopeTableArgs {
                turns: [0; MOST_PAIRS],
                count: count as u32,
                pairs: pairs as u32,
                magnitude: magnitude as f32,
                context: op.config.temperature.map_or(0, |of| of.context),
                scale: op.config.temperature.map_or(0.0, |of| of.scale),
                padding: 0,
            };
            for (out, frequency) in args.turns.iter_mut().zip(frequencies) {
                *out = turns(frequency);
            }
            let variant = Variant::new(&ROPE_TABLE, &[("THREADS", THREADS)]);
            let groups = [count.div_ceil(THREADS as u64), 1, 1];
            let spans = vec![op.positions.span(), table.span()];
            lowering.dispatch(variant, groups, &args, spans)?;
            lowering.keep(what, vec![op.positions.span()], table.clone());
            table
        }
    };
    let halves = op.config.pairing == Pairing::HalfSplit;
    let variant = Variant::new(
        &ROPE,
        &[("THREADS", THREADS), ("HALVES", i64::from(halves))],
    );
    let heads = op.input.shape()[1];
    let args = RopeArgs {
        heads: (tokens * heads) as u32,
        heads_per_token: heads as u32,
        head_dim: op.input.row_len() as u32,
        pairs: pairs as u32,
    };
    let units = tokens * heads * (op.input.row_len() - pairs as u64);
    let groups = [units.div_ceil(THREADS as u64), 1, 1];
    let spans = vec![op.input.span(), table.span(), op.output.span()];
    lowering.dispatch(variant, groups, &args, spans)?;
    lowering.computes(op.clone());
    Ok(())
}

/// The dispatches that turn queries and keys and look at what is to be stored, as they stand in a list.
pub(crate) struct RopeInspect<'a> {
    pub(crate) query: &'a Dispatch,
    pub(crate) key: &'a Dispatch,
    pub(crate) inspect: &'a Dispatch,
}

impl RopeInspect<'_> {
    /// Adds one dispatch that does what the three do, where they fit each other; whether they do.
    pub(crate) fn lower(&self, lowering: &mut Lowering<'_>) -> Result<bool> {
        let is =
            |dispatch: &Dispatch, kernel: &Kernel| dispatch.variant.kernel().name == kernel.name;
        if !is(self.query, &ROPE) || !is(self.key, &ROPE) || !is(self.inspect, &KV_INSPECT) {
            return Ok(false);
        }
        let [query, key]: [RopeArgs; 2] =
            [self.query, self.key].map(|dispatch| bytemuck::pod_read_unaligned(&dispatch.args));
        let inspect: KvInspectArgs = bytemuck::pod_read_unaligned(&self.inspect.args);
        let span = |dispatch: &Dispatch, at: usize| dispatch.buffers[at].span.clone();
        let [query_in, table, query_out] = [0, 1, 2].map(|at| span(self.query, at));
        let [key_in, key_table, key_out] = [0, 1, 2].map(|at| span(self.key, at));
        let [keys, values, equaliser, center, status] =
            [0, 1, 2, 3, 4].map(|at| span(self.inspect, at));
        let dim = self.inspect.variant.constant("HEAD_DIM");
        let alike = self.query.variant == self.key.variant
            && query.pairs == key.pairs
            && query.head_dim == key.head_dim
            && i64::from(key.head_dim) == dim
            && table.same(&key_table)
            && key_out.same(&keys)
            && values.bytes == keys.bytes
            && store::is_of_floats(self.inspect)
            && (inspect.vectors, inspect.first, inspect.end) == (key.heads, 0, 2 * key.heads)
            && inspect.kv_heads == key.heads_per_token;
        // A vector is read and written by one simdgroup, all others at any time.
        let own = |input: &Span, output: &Span| input.same(output) || !input.overlaps(output);
        let apart = [&key_in, &key_out, &values, &table]
            .iter()
            .all(|span| !span.overlaps(&query_out))
            && [&query_in, &values, &table]
                .iter()
                .all(|span| !span.overlaps(&key_out));
        if !(alike && apart && own(&query_in, &query_out) && own(&key_in, &key_out)) {
            return Ok(false);
        }
        let constant = |name| (name, self.inspect.variant.constant(name));
        let variant = Variant::new(
            &ROPE_INSPECT,
            &[
                ("THREADS", THREADS),
                constant("HEAD_DIM"),
                ("HALVES", self.query.variant.constant("HALVES")),
                ("PAIRS", i64::from(key.pairs)),
                constant("EQUALISER"),
                constant("CENTER"),
            ],
        );
        let args = RopeInspectArgs {
            queries: query.heads,
            query_heads: query.heads_per_token,
            vectors: key.heads,
            kv_heads: key.heads_per_token,
            check: inspect.check,
            most: inspect.most,
            norm: inspect.norm,
        };
        let vectors = u64::from(query.heads) + 2 * u64::from(key.heads);
        let groups = [vectors.div_ceil(THREADS as u64 / 32), 1, 1];
        let spans = vec![
            query_in, key_in, values, table, equaliser, center, query_out, key_out, status,
        ];
        lowering.dispatch(variant, groups, &args, spans)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_fractions_of_a_circle() {
        assert_eq!(turns(0.0), 0);
        assert_eq!(turns(TAU / 4.0), 1 << 62);
        assert_eq!(turns(TAU * 3.5), 1 << 63);
    }
}
