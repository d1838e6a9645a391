//! The kernels of attention over zones of positions, and their arguments.

use super::super::codec;
use super::super::store::ROTATION;
use crate::args::args;
use crate::kernel::{Kernel, Native, Platform, reads, writes};
use crate::lower::layout;

/// Which positions queries see.
pub(super) const ZONES: &str = include_str!("../../../../kernels/attention_zones.h");

args! {
    /// Arguments of `attention_query`.
    AttentionQueryArgs {
        /// Query vectors.
        vectors: u32,
        /// Query heads.
        heads: u32,
        /// Query heads per KV head.
        group: u32,
        /// What queries are multiplied by.
        scale: f32,
    }

    /// Arguments of `attention_pass`.
    AttentionPassArgs {
        /// Where the statistics begin in the partial results, in numbers.
        statistics: u64,
        /// Query heads.
        heads: u32,
        /// Query heads per KV head.
        group: u32,
        /// KV heads.
        kv_heads: u32,
        /// Rows of a unit: those of all tokens, or with sequences of one.
        unit_rows: u32,
        /// Tiles of a unit.
        tiles: u32,
        /// Numbers from one query vector to the next.
        query_stride: u32,
        /// Parts of this pass.
        parts: u32,
        /// Parts of all passes.
        all_parts: u32,
        /// The first part of this pass among all.
        first_part: u32,
        /// Positions that a query sees; 0 for all.
        window: u32,
        /// Whether the cache ends before the run of tokens.
        prefill: u32,
        /// Slots per KV head of the cache.
        capacity: u32,
        /// Rows per KV head of what keys are read from.
        key_slots: u32,
        /// The same for values.
        value_slots: u32,
        /// Whether keys are read from the overlay.
        key_overlaid: u32,
        /// The same for values.
        value_overlaid: u32,
        /// The overlay's first tokens.
        first: u32,
        /// The overlay's recent tokens.
        recent: u32,
        /// The overlay's slots of recent tokens.
        ring: u32,
        /// What queries are multiplied by here.
        scale: f32,
        /// The bound of scores; 0 for none.
        softcap: f32,
        /// What the keys' stored scales are multiplied by.
        key_factor: f32,
        /// The same for values.
        value_factor: f32,
        /// Entries of the page table per sequence.
        per_sequence: u32,
        /// Query tokens.
        tokens: u32,
        /// Whether they have sequences.
        sequences: u32,
    }

    /// Arguments of `attention_combine`.
    AttentionCombineArgs {
        /// Where the statistics begin in the partial results, in numbers.
        statistics: u64,
        /// Query heads.
        heads: u32,
        /// Parts of all passes.
        all_parts: u32,
        /// Those of stored keys and values, which come first.
        stored_parts: u32,
        /// Nothing.
        padding: u32,
    }
}

pub(in crate::ops::kv) static ATTENTION_QUERY: Kernel = Kernel {
    name: "attention_query",
    includes: &[ROTATION],
    tables: codec::rotation_tables,
    text: include_str!("../../../../kernels/attention_query.h"),
    native: &[],
    constants: &[
        "THREADS",
        "HEAD_DIM",
        "EQUALISER",
        "CENTER",
        "ROTATE",
        "ORDER",
    ],
    args: layout::<AttentionQueryArgs>(),
    buffers: &[
        reads("query", "float"),
        reads("equaliser", "float"),
        reads("center", "float"),
        writes("output", "float"),
    ],
    shared: true,
};

pub(in crate::ops::kv) static ATTENTION_PASS: Kernel = Kernel {
    name: "attention_pass",
    includes: &[include_str!("../../../../kernels/kv_decode.h"), ZONES],
    tables: codec::decoder_tables,
    text: include_str!("../../../../kernels/attention_pass.h"),
    native: &[],
    constants: &[
        "THREADS",
        "HEAD_DIM",
        "ROWS",
        "ZONE",
        "PAGE",
        "CENTER",
        "KEY_KIND",
        "KEY_BITS",
        "KEY_BYTES",
        "VALUE_KIND",
        "VALUE_BITS",
        "VALUE_BYTES",
    ],
    args: layout::<AttentionPassArgs>(),
    buffers: &[
        reads("query", "float"),
        reads("keys", "uchar"),
        reads("key_scales", "uchar"),
        reads("values", "uchar"),
        reads("value_scales", "uchar"),
        reads("slot_mapping", "int"),
        reads("table", "int"),
        reads("status", "uint"),
        writes("partial", "float"),
    ],
    shared: true,
};

/// [`ATTENTION_PASS`] for many query rows, as CUDA's own kernel.
pub(in crate::ops::kv) static ATTENTION_TILES: Kernel = Kernel {
    name: "attention_tiles",
    includes: &[
        include_str!("../../../../kernels/kv_decode.h"),
        ZONES,
        include_str!("../../../../kernels/cuda/matrices.h"),
    ],
    tables: codec::decoder_tables,
    text: "",
    native: &[Native {
        platform: Platform::Cuda,
        text: include_str!("../../../../kernels/cuda/attention_tiles.cu"),
    }],
    constants: &[
        "THREADS",
        "RESIDENT",
        "DYNAMIC",
        "HEAD_DIM",
        "ROWS",
        "POSITIONS",
        "SOFTCAP",
        "ZONE",
        "PAGE",
        "CENTER",
        "KEY_KIND",
        "KEY_BITS",
        "KEY_BYTES",
        "VALUE_KIND",
        "VALUE_BITS",
        "VALUE_BYTES",
    ],
    args: layout::<AttentionPassArgs>(),
    buffers: ATTENTION_PASS.buffers,
    shared: false,
};

pub(in crate::ops::kv) static ATTENTION_COMBINE: Kernel = Kernel {
    name: "attention_combine",
    includes: &[ROTATION],
    tables: codec::rotation_tables,
    text: include_str!("../../../../kernels/attention_combine.h"),
    native: &[],
    constants: &["THREADS", "HEAD_DIM", "SINKS", "ROTATE", "ORDER"],
    args: layout::<AttentionCombineArgs>(),
    buffers: &[
        reads("partial", "float"),
        reads("sinks", "float"),
        reads("status", "uint"),
        writes("output", "float"),
    ],
    shared: true,
};
