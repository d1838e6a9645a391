//! Where an op's tokens go: the check of their positions, and their slots.

use walsh_core::{Buffer, CacheKind, KvCache, Result, Tensor, TokenLimits};

use crate::args::args;
use crate::check::CheckKind;
use crate::kernel::{Kernel, Variant, no_tables, reads, writes};
use crate::lower::{Lowering, layout};

const THREADS: i64 = 256;

/// Bytes of an entry: eight numbers, as kernels/kv_tokens.h describes them.
const PLACE_BYTES: u64 = 32;

args! {
    /// Arguments of `kv_tokens`.
    KvTokensArgs {
        /// How many tokens there are.
        tokens: u32,
        /// Slots per KV head.
        capacity: u32,
        /// Whether slots are positions modulo the capacity.
        ring_cache: u32,
        /// How many sequences the cache has.
        sequences: u32,
        /// The most tokens of a sequence; 0 for no bound.
        most: u32,
        /// The overlay's slots of first tokens.
        first: u32,
        /// The overlay's slots of recent tokens.
        ring: u32,
        /// The number of the check.
        check: u32,
    }
}

pub(super) static KV_TOKENS: Kernel = Kernel {
    name: "kv_tokens",
    includes: &[],
    tables: no_tables,
    text: include_str!("../../../kernels/kv_tokens.h"),
    native: &[],
    constants: &["THREADS", "SEQUENCES"],
    args: layout::<KvTokensArgs>(),
    buffers: &[
        reads("positions", "int"),
        reads("sequences", "int"),
        writes("slot_mapping", "int"),
        writes("status", "uint"),
    ],
    shared: false,
};

/// What of a cache decides where tokens go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    capacity: u64,
    ring_cache: bool,
    sequences: u64,
    most: u64,
    first: u32,
    ring: u64,
}

/// The slot mapping of an op's tokens, worked out once for all layers whose caches are alike, unless there are sequences.
pub(super) fn slot_mapping(
    (positions, sequences): (&Tensor, Option<&Tensor>),
    most: Option<u64>,
    cache: &KvCache,
    lowering: &mut Lowering<'_>,
) -> Result<Buffer> {
    let overlay = cache.overlay();
    let geometry = Geometry {
        capacity: cache.capacity(),
        ring_cache: cache.kind() == CacheKind::Ring,
        sequences: cache.sequences(),
        // Validation has seen to the number of tokens of a single sequence.
        most: sequences.and(most).unwrap_or(0),
        first: overlay.map_or(0, |overlay| overlay.tokens.first),
        ring: overlay.map_or(0, |overlay| overlay.ring()),
    };
    match lowering.known(&geometry, &positions.span()) {
        Some(known) if sequences.is_none() => return Ok(known),
        _ => {}
    }
    let tokens = positions.elements();
    let buffer = lowering.workspace(tokens * PLACE_BYTES)?;
    let check = lowering.check(CheckKind::Tokens {
        positions: positions.span(),
        sequences: sequences.map(Tensor::span),
        limits: TokenLimits {
            capacity: (!geometry.ring_cache).then_some(geometry.capacity),
            sequences: geometry.sequences,
            most: sequences.and(most),
        },
    })?;
    let args = KvTokensArgs {
        tokens: tokens as u32,
        capacity: geometry.capacity as u32,
        ring_cache: u32::from(geometry.ring_cache),
        sequences: geometry.sequences as u32,
        most: geometry.most.min(u64::from(u32::MAX)) as u32,
        first: geometry.first,
        ring: geometry.ring as u32,
        check,
    };
    let variant = Variant::new(
        &KV_TOKENS,
        &[
            ("THREADS", THREADS),
            ("SEQUENCES", i64::from(sequences.is_some())),
        ],
    );
    let nothing = lowering.nothing();
    let spans = vec![
        positions.span(),
        sequences.map_or(nothing, Tensor::span),
        buffer.span(),
        lowering.status(),
    ];
    lowering.dispatch(variant, [1, 1, 1], &args, spans)?;
    if sequences.is_none() {
        lowering.keep(geometry, positions.span(), buffer.clone());
    }
    Ok(buffer)
}
