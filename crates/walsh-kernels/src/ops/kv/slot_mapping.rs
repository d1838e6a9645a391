//! Where an op's tokens go: the check of their positions, and their slots.

use walsh_core::{Buffer, KvCache, PAGE, PageUse, Result, Tensor, TokenLimits};

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
        /// How many pages there are.
        pages: u32,
        /// Entries of the page table per sequence.
        per_sequence: u32,
        /// Whether the tokens are stored, or see what is.
        stores: u32,
        /// Whether tokens that see are stored themselves.
        own: u32,
        /// Positions that a token sees; 0 for all.
        window: u32,
        /// Nothing.
        padding: u32,
    }
}

pub(super) static KV_TOKENS: Kernel = Kernel {
    name: "kv_tokens",
    includes: &[],
    tables: no_tables,
    text: include_str!("../../../kernels/kv_tokens.h"),
    native: &[],
    constants: &["THREADS", "SEQUENCES", "PAGE"],
    args: layout::<KvTokensArgs>(),
    buffers: &[
        reads("positions", "int"),
        reads("sequences", "int"),
        reads("table", "int"),
        writes("slot_mapping", "int"),
        writes("status", "uint"),
    ],
    shared: false,
};

/// What of an op and its cache decides where tokens go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    limits: TokenLimits,
    capacity: u64,
    first: u32,
    ring: u64,
    /// Whether the second source is the tokens' sequences.
    has_sequences: bool,
}

/// The constant that says how caches lie: positions of a page, or 0.
pub(super) fn page_size(cache: &KvCache) -> i64 {
    cache.table().map_or(0, |_| PAGE as i64)
}

/// The slot mapping of an op's tokens, worked out once for all ops that keep to the same limits and whose caches are alike.
/// Without a cache it says whose the tokens are, and which belong together.
pub(in crate::ops) fn slot_mapping(
    (positions, sequences): (&Tensor, Option<&Tensor>),
    limits: TokenLimits,
    cache: Option<&KvCache>,
    lowering: &mut Lowering<'_>,
) -> Result<Buffer> {
    let overlay = cache.and_then(KvCache::overlay);
    let table = cache.and_then(KvCache::table);
    let geometry = Geometry {
        limits,
        capacity: cache.map_or(1, KvCache::capacity),
        first: overlay.map_or(0, |overlay| overlay.tokens.first),
        ring: overlay.map_or(0, |overlay| overlay.ring()),
        has_sequences: sequences.is_some(),
    };
    let sources = [Some(positions), sequences, table];
    let sources: Vec<_> = sources.into_iter().flatten().map(Tensor::span).collect();
    if let Some(known) = lowering.known(&geometry, &sources) {
        return Ok(known);
    }
    let tokens = positions.elements();
    let buffer = lowering.workspace(tokens * PLACE_BYTES)?;
    let check = lowering.check(CheckKind::Tokens {
        positions: positions.span(),
        sequences: sequences.map(Tensor::span),
        table: table.map(Tensor::span),
        limits,
    })?;
    let pages = limits.pages;
    let (stores, window, own) = match pages.map(|pages| pages.used) {
        None => (false, None, false),
        Some(PageUse::Stored) => (true, None, true),
        Some(PageUse::Seen { window, own }) => (false, window, own),
    };
    let args = KvTokensArgs {
        tokens: tokens as u32,
        capacity: geometry.capacity as u32,
        ring_cache: u32::from(limits.capacity.is_none()),
        sequences: limits.sequences as u32,
        most: limits.most.unwrap_or(0).min(u64::from(u32::MAX)) as u32,
        first: geometry.first,
        ring: geometry.ring as u32,
        check,
        pages: pages.map_or(0, |pages| pages.pages as u32),
        per_sequence: pages.map_or(0, |pages| pages.per_sequence as u32),
        stores: u32::from(stores),
        own: u32::from(own),
        window: window.unwrap_or(0),
        padding: 0,
    };
    let variant = Variant::new(
        &KV_TOKENS,
        &[
            ("THREADS", THREADS),
            ("SEQUENCES", i64::from(sequences.is_some())),
            ("PAGE", cache.map_or(0, page_size)),
        ],
    );
    let span = |tensor: Option<&Tensor>| lowering.span(tensor);
    let spans = vec![
        positions.span(),
        span(sequences),
        span(table),
        buffer.span(),
        lowering.status(),
    ];
    lowering.dispatch(variant, [1, 1, 1], &args, spans)?;
    lowering.keep(geometry, sources, buffer.clone());
    Ok(buffer)
}
