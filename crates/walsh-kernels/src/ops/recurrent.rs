//! Short convolutions and gated delta rules.

use walsh_core::Result;
use walsh_core::ops::{DeltaRule, HeadOrder, ShortConv};

use super::kv::slot_mapping::slot_mapping;
use crate::args::args;
use crate::kernel::{Kernel, Variant, no_tables, reads, writes};
use crate::lower::{Lowering, layout};

/// Threads of a group.
const THREADS: i64 = 128;

/// Columns of a state that a group has.
const COLUMNS: u64 = 32;

args! {
    /// Arguments of `short_conv`.
    ShortConvArgs {
        /// Channels of a row.
        channels: u32,
        /// Groups that share a row.
        pieces: u32,
    }

    /// Arguments of `delta_rule`.
    DeltaRuleArgs {
        /// Heads of values.
        heads: u32,
        /// Heads of queries and keys.
        key_heads: u32,
        /// Groups that share a head.
        pieces: u32,
        /// What is added to the squares of queries and keys.
        epsilon: f32,
    }
}

static SHORT_CONV: Kernel = Kernel {
    name: "short_conv",
    includes: &[include_str!("../../kernels/gates.h")],
    tables: no_tables,
    text: include_str!("../../kernels/short_conv.h"),
    native: &[],
    constants: &["THREADS", "TAPS", "SILU"],
    args: layout::<ShortConvArgs>(),
    buffers: &[
        reads("input", "float"),
        reads("weight", "float"),
        reads("slot_mapping", "int"),
        reads("verdict", "uint"),
        writes("state", "float"),
        writes("output", "float"),
    ],
    shared: false,
};

static DELTA_RULE: Kernel = Kernel {
    name: "delta_rule",
    includes: &[],
    tables: no_tables,
    text: include_str!("../../kernels/delta_rule.h"),
    native: &[],
    constants: &["THREADS", "KEY_DIM", "VALUE_DIM", "TILED"],
    args: layout::<DeltaRuleArgs>(),
    buffers: &[
        reads("mixed", "float"),
        reads("decay", "float"),
        reads("rate", "float"),
        reads("decay_bias", "float"),
        reads("decay_scale", "float"),
        reads("slot_mapping", "int"),
        reads("verdict", "uint"),
        writes("state", "float"),
        writes("output", "float"),
    ],
    shared: true,
};

pub(crate) const KERNELS: &[&Kernel] = &[&SHORT_CONV, &DELTA_RULE];

pub(crate) fn conv(op: &ShortConv, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.input, &op.weight])?;
    let tokens = (&op.positions, op.sequences.as_ref());
    let mapping = slot_mapping(tokens, op.token_limits(), None, lowering)?;
    let taps = op.weight.row_len() as i64;
    let silu = i64::from(op.silu);
    let variant = Variant::new(
        &SHORT_CONV,
        &[("THREADS", THREADS), ("TAPS", taps), ("SILU", silu)],
    );
    let channels = op.input.row_len();
    let pieces = channels.div_ceil(THREADS as u64);
    let args = ShortConvArgs {
        channels: channels as u32,
        pieces: pieces as u32,
    };
    let spans = vec![
        op.input.span(),
        op.weight.span(),
        mapping.span(),
        lowering.verdict(),
        op.state.span(),
        op.output.span(),
    ];
    let groups = [pieces * op.positions.elements(), 1, 1];
    lowering.dispatch(variant, groups, &args, spans)
}

pub(crate) fn delta(op: &DeltaRule, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.mixed, &op.decay, &op.output])?;
    let tokens = (&op.positions, op.sequences.as_ref());
    let mapping = slot_mapping(tokens, op.token_limits(), None, lowering)?;
    let [heads, key_dim, value_dim] = op.sizes();
    let variant = Variant::new(
        &DELTA_RULE,
        &[
            ("THREADS", THREADS),
            ("KEY_DIM", key_dim as i64),
            ("VALUE_DIM", value_dim as i64),
            ("TILED", i64::from(op.order == HeadOrder::Tiled)),
        ],
    );
    let pieces = value_dim.div_ceil(COLUMNS);
    let args = DeltaRuleArgs {
        heads: heads as u32,
        key_heads: op.key_heads() as u32,
        pieces: pieces as u32,
        epsilon: DeltaRule::EPSILON,
    };
    let spans = vec![
        op.mixed.span(),
        op.decay.span(),
        op.rate.span(),
        op.decay_bias.span(),
        op.decay_scale.span(),
        mapping.span(),
        lowering.verdict(),
        op.state.span(),
        op.output.span(),
    ];
    let groups = [pieces * heads * op.positions.elements(), 1, 1];
    lowering.dispatch(variant, groups, &args, spans)
}
