mod allocate;
mod layout;

use std::fmt;

use walsh_formats::DType;
use walsh_formats::kv::{KvCodecs, Overlay, RowCodec};

use self::layout::SideLayout;
use crate::buffer::Span;
use crate::tensor::Tensor;
use crate::tokens::{PAGE, PageLimits, PageUse, TokenLimits};
use crate::{Error, Result};

/// How positions map to slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheKind {
    /// Slot = position; a position past the capacity is an error.
    Global,
    /// Slot = position mod capacity: the cache of a sliding-window layer, which
    /// forgets the oldest positions.
    Ring,
    /// Position p lies in the [page](PAGE) that the sequence's row of the [page
    /// table](KvCache::table) names at p / 64. Sequences may share pages that none of them
    /// stores into, and need none for positions that no query sees.
    Paged {
        /// How many pages there are for all sequences.
        pages: u64,
    },
}

/// What a [`KvCache`] is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvCacheOptions {
    /// The codecs of keys and values.
    pub codecs: KvCodecs,
    /// How many sequences are held apart from each other.
    pub sequences: u64,
    /// How many KV heads there are.
    pub kv_heads: u64,
    /// Numbers per head.
    pub head_dim: u64,
    /// How many positions of a sequence are held; of pages, a whole number of them.
    pub capacity: u64,
    /// How positions map to slots.
    pub kind: CacheKind,
    /// Which positions are also kept in a denser codec and read from there.
    pub overlay: Option<OverlayOptions>,
}

impl KvCacheOptions {
    /// A global cache of one sequence with no overlay; the other options are
    /// fields.
    #[must_use]
    pub fn global(codecs: KvCodecs, kv_heads: u64, head_dim: u64, capacity: u64) -> Self {
        Self {
            codecs,
            sequences: 1,
            kv_heads,
            head_dim,
            capacity,
            kind: CacheKind::Global,
            overlay: None,
        }
    }

    /// The rows of all positions: how many heads, and slots of each.
    fn rows(&self) -> [u64; 2] {
        match self.kind {
            CacheKind::Global | CacheKind::Ring => [self.sequences * self.kv_heads, self.capacity],
            CacheKind::Paged { pages } => [self.kv_heads, pages * PAGE],
        }
    }
}

/// The overlay of a [`KvCache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayOptions {
    /// Which tokens, and how.
    pub tokens: Overlay,
    /// How many more of the latest tokens are kept than are read as recent: a decode
    /// ([`Attention`](crate::ops::Attention)) may have one query token more than this, and as many of the latest tokens can be stored
    /// anew.
    pub slack: u64,
}

impl OverlayOptions {
    /// The slots of the most recent tokens, a ring behind those of the first.
    #[must_use]
    pub fn ring(&self) -> u64 {
        match self.tokens.recent {
            0 => 0,
            recent => u64::from(recent) + self.slack,
        }
    }

    /// All slots of a KV head.
    #[must_use]
    pub fn slots(&self) -> u64 {
        u64::from(self.tokens.first) + self.ring()
    }

    /// The slots, from the first on, that the first `stored` positions lie in.
    #[must_use]
    pub fn used(&self, stored: u64) -> u64 {
        let first = u64::from(self.tokens.first);
        match stored > first {
            // Position p lies in slot p mod ring behind the first ones.
            true => first + stored.min(self.ring()),
            false => stored,
        }
    }
}

/// Encoded vectors: a codec, and the memory of what it encodes to.
#[derive(Debug, Clone)]
pub struct KvRows {
    /// The codec, bound to the head size.
    pub codec: RowCodec,
    /// `u8 [sequences · kv_heads, slots, codec.code_bytes()]`; of pages, `[kv_heads, pages · 64, …]`.
    pub codes: Tensor,
    /// `[…, slots, codec.groups()]` of the codec's scale
    /// type; absent for dense codecs, which hold their scales within their
    /// blocks.
    pub scales: Option<Tensor>,
}

/// The stored keys, or the stored values, of one layer.
#[derive(Debug, Clone)]
pub struct KvSide {
    /// Every position: `capacity` slots, or those of all pages.
    pub rows: KvRows,
    /// The first and the most recent positions, [`OverlayOptions::slots`];
    /// absent where the cache has none or the side's own codec has as many
    /// bits.
    pub overlay: Option<KvRows>,
}

/// Keys or values: which side of a cache is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheSide {
    /// The stored keys.
    Keys,
    /// The stored values.
    Values,
}

impl fmt::Display for CacheSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys => "keys",
            Self::Values => "values",
        })
    }
}

/// Memory for [`KvRows`].
#[derive(Debug, Clone)]
pub struct KvTensors {
    /// `u8 [sequences · kv_heads, slots, code bytes]`, from a multiple of 16
    /// bytes on.
    pub codes: Tensor,
    /// `[sequences · kv_heads, slots, groups]` of the codec's scale type;
    /// `None` for dense codecs.
    pub scales: Option<Tensor>,
}

/// Memory for a [`KvSide`].
#[derive(Debug, Clone)]
pub struct KvSideTensors {
    /// Of every position.
    pub rows: KvTensors,
    /// Of the overlay, if the side has one.
    pub overlay: Option<KvTensors>,
}

/// What keys are prepared with before they are encoded, k ← (k − center) / equaliser,
/// and queries before they meet them, q ← q · equaliser.
///
/// Scores stay what they were but for q · center, which attention adds back.
#[derive(Debug, Clone, Default)]
pub struct KeyPreparation {
    /// `f32 [kv_heads, head_dim]`, finite and above zero.
    pub equaliser: Option<Tensor>,
    /// `f32 [kv_heads, head_dim]`, finite.
    pub center: Option<Tensor>,
}

impl KvRows {
    /// The bytes of one vector of one head.
    pub(crate) fn vector_bytes(&self) -> u64 {
        (self.codec.code_bytes() + self.codec.scale_bytes()) as u64
    }

    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.codes).chain(&self.scales)
    }
}

impl KvSide {
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let overlay = self.overlay.iter().flat_map(KvRows::tensors);
        self.rows.tensors().chain(overlay)
    }
}

/// One layer's KV cache: rotated, scaled and quantised keys and values.
///
/// The layout and the codecs are those of the [`walsh_formats::kv`] module; KV
/// head h of sequence s is entry s · kv_heads + h of the outermost dimension. Of a cache of
/// pages, that holds for the overlay alone: slot i of page p is entry 64 · p + i of each KV
/// head's rows, so that a head's page, and pages whose numbers follow each other, are one
/// piece of memory. Cloning shares the memory.
#[derive(Debug, Clone)]
pub struct KvCache {
    options: KvCacheOptions,
    key: KvSide,
    value: KvSide,
    preparation: KeyPreparation,
    table: Option<Tensor>,
}

impl KvCache {
    /// A cache over memory of the caller's, which may hold stored positions:
    /// the tensors of the keys, then of the values.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when a tensor's type, shape or alignment is
    /// not what its codec asks for, or tensors overlap.
    pub fn from_tensors(options: KvCacheOptions, tensors: [KvSideTensors; 2]) -> Result<Self> {
        let [key_layout, value_layout] = Self::layouts(&options)?;
        let [key, value] = tensors;
        let cache = Self {
            options,
            key: key_layout.side(key)?,
            value: value_layout.side(value)?,
            preparation: KeyPreparation::default(),
            table: None,
        };
        let spans: Vec<Span> = cache.spans().collect();
        for (index, span) in spans.iter().enumerate() {
            if spans[index + 1..].iter().any(|other| span.overlaps(other)) {
                return Err(Error::argument(
                    "KvCache",
                    "tensors",
                    "apart from each other",
                    "overlapping",
                ));
            }
        }
        Ok(cache)
    }

    /// The same memory, whose keys are prepared before they are encoded. What is
    /// stored already must have been prepared alike.
    ///
    /// # Errors
    /// When a tensor is not `f32 [kv_heads, head_dim]` or overlaps the cache.
    pub fn with_preparation(self, preparation: KeyPreparation) -> Result<Self> {
        let shape = [self.options.kv_heads, self.options.head_dim];
        for (argument, tensor) in [
            ("equaliser", &preparation.equaliser),
            ("center", &preparation.center),
        ] {
            let Some(tensor) = tensor else { continue };
            if tensor.dtype() != DType::F32 || tensor.shape() != shape {
                return Err(Error::argument(
                    "KvCache",
                    argument,
                    format_args!("f32{shape:?}"),
                    tensor,
                ));
            }
            if self.spans().any(|span| span.overlaps(&tensor.span())) {
                return Err(Error::argument(
                    "KvCache",
                    argument,
                    "apart from the cache",
                    "overlapping it",
                ));
            }
        }
        Ok(Self {
            preparation,
            ..self
        })
    }

    /// The same memory, with the table that says which page holds which positions of a
    /// sequence: `i32 [sequences, capacity / 64]`. Entries that no op touches may hold
    /// anything; a negative one is no page. Caches of several layers may share a table.
    ///
    /// # Errors
    /// When the cache is not of pages, or the tensor is not of this type and shape or
    /// overlaps the cache.
    pub fn with_table(self, table: Tensor) -> Result<Self> {
        let shape = [self.options.sequences, self.options.capacity / PAGE];
        let fail = |expected: std::fmt::Arguments<'_>| {
            Err(Error::argument("KvCache", "table", expected, &table))
        };
        if !matches!(self.options.kind, CacheKind::Paged { .. }) {
            return fail(format_args!("absent from a cache without pages"));
        }
        if table.dtype() != DType::I32 || table.shape() != shape {
            return fail(format_args!("i32{shape:?}"));
        }
        if self.spans().any(|span| span.overlaps(&table.span())) {
            return fail(format_args!("apart from the cache"));
        }
        Ok(Self {
            table: Some(table),
            ..self
        })
    }

    /// The layouts of keys and values, when the options are sound.
    fn layouts(options: &KvCacheOptions) -> Result<[SideLayout; 2]> {
        let mut sizes = vec![
            ("sequences", options.sequences),
            ("kv_heads", options.kv_heads),
            (
                "sequences * kv_heads",
                options.sequences.saturating_mul(options.kv_heads),
            ),
            ("head_dim", options.head_dim),
            ("capacity", options.capacity),
        ];
        if let Some(overlay) = options.overlay {
            sizes.push((
                "overlay slots",
                u64::from(overlay.tokens.first)
                    .saturating_add(u64::from(overlay.tokens.recent).saturating_add(overlay.slack)),
            ));
        }
        for (argument, size) in sizes {
            if size == 0 || size > i32::MAX as u64 {
                return Err(Error::argument(
                    "KvCache",
                    argument,
                    "between 1 and 2^31 - 1",
                    size,
                ));
            }
        }
        if let CacheKind::Paged { pages } = options.kind {
            if !options.capacity.is_multiple_of(PAGE) {
                return Err(Error::argument(
                    "KvCache",
                    "capacity",
                    format_args!("a multiple of {PAGE}, of a cache of pages"),
                    options.capacity,
                ));
            }
            if pages == 0 || pages > i32::MAX as u64 / PAGE {
                return Err(Error::argument(
                    "KvCache",
                    "pages",
                    format_args!("between 1 and {}", i32::MAX as u64 / PAGE),
                    pages,
                ));
            }
        }
        Ok([
            SideLayout::new(options.codecs.key, RowCodec::for_keys, options)?,
            SideLayout::new(options.codecs.value, RowCodec::for_values, options)?,
        ])
    }

    /// The stored keys.
    #[must_use]
    pub fn key(&self) -> &KvSide {
        &self.key
    }

    /// The stored values.
    #[must_use]
    pub fn value(&self) -> &KvSide {
        &self.value
    }

    /// The stored keys or values.
    #[must_use]
    pub fn side(&self, side: CacheSide) -> &KvSide {
        match side {
            CacheSide::Keys => &self.key,
            CacheSide::Values => &self.value,
        }
    }

    /// What keys are prepared with.
    #[must_use]
    pub fn preparation(&self) -> &KeyPreparation {
        &self.preparation
    }

    /// Which page holds which positions of a sequence, of a cache of pages.
    #[must_use]
    pub fn table(&self) -> Option<&Tensor> {
        self.table.as_ref()
    }

    /// How many sequences it holds.
    #[must_use]
    pub fn sequences(&self) -> u64 {
        self.options.sequences
    }

    /// How many KV heads it holds.
    #[must_use]
    pub fn kv_heads(&self) -> u64 {
        self.options.kv_heads
    }

    /// The bytes of so many tokens of one sequence, keys and values of all heads.
    pub(crate) fn token_bytes(&self, tokens: u64) -> u64 {
        let row = self.key().rows.vector_bytes() + self.value().rows.vector_bytes();
        tokens * self.kv_heads() * row
    }

    /// Numbers per head.
    #[must_use]
    pub fn head_dim(&self) -> u64 {
        self.options.head_dim
    }

    /// How many positions of a sequence it holds.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.options.capacity
    }

    /// How positions map to slots.
    #[must_use]
    pub fn kind(&self) -> CacheKind {
        self.options.kind
    }

    /// The codecs of keys and values.
    #[must_use]
    pub fn codecs(&self) -> KvCodecs {
        self.options.codecs
    }

    /// Which positions are also kept in a denser codec, where a side does so.
    #[must_use]
    pub fn overlay(&self) -> Option<OverlayOptions> {
        let kept = self.key.overlay.is_some() || self.value.overlay.is_some();
        self.options.overlay.filter(|_| kept)
    }

    /// The most query tokens of a sequence that one decode may have: what the
    /// overlay of recent tokens keeps beyond what the latest of them reads.
    #[must_use]
    pub fn decode_tokens(&self) -> Option<u64> {
        let overlay = self.overlay()?;
        (overlay.ring() > 0).then_some(overlay.slack + 1)
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.spans().map(|span| span.bytes).sum()
    }

    /// The memory of what is stored: codes and scales of the keys, of their
    /// overlay, of the values and of theirs.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.key.tensors().chain(self.value.tensors())
    }

    /// Every range of its memory.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        self.tensors().map(Tensor::span)
    }

    /// The ranges of what keys are prepared with.
    pub fn preparation_spans(&self) -> impl Iterator<Item = Span> {
        let KeyPreparation { equaliser, center } = &self.preparation;
        equaliser.iter().chain(center).map(Tensor::span)
    }

    /// The ranges of what its codes are read with: what keys are prepared with, and the page table.
    pub fn setting_spans(&self) -> impl Iterator<Item = Span> {
        let table = self.table.iter().map(Tensor::span);
        self.preparation_spans().chain(table)
    }

    /// What the tokens of an op must keep to that does this with pages.
    #[must_use]
    pub fn token_limits(&self, most: Option<u64>, used: PageUse) -> TokenLimits {
        let pages = match self.options.kind {
            CacheKind::Paged { pages } => Some(PageLimits {
                pages,
                per_sequence: self.options.capacity / PAGE,
                used,
            }),
            CacheKind::Global | CacheKind::Ring => None,
        };
        let forgets = self.options.kind == CacheKind::Ring;
        TokenLimits {
            capacity: (!forgets).then_some(self.options.capacity),
            sequences: self.options.sequences,
            most,
            pages,
        }
    }

    /// The least length that a text can be cut back to and continued from, when
    /// positions up to `reached` were stored and queries see `window` positions,
    /// their own included: a ring has lost the oldest ones, and so has an overlay
    /// of those that were recent.
    #[must_use]
    pub fn earliest_return(&self, reached: u64, window: u64) -> u64 {
        let earliest = |slots: u64, seen: u64| match reached.saturating_sub(slots) {
            0 => 0,
            lost => lost + seen.saturating_sub(1),
        };
        let ring = match self.options.kind {
            CacheKind::Global | CacheKind::Paged { .. } => 0,
            CacheKind::Ring => earliest(self.options.capacity, window),
        };
        let overlay = self.overlay().filter(|overlay| overlay.ring() > 0);
        ring.max(overlay.map_or(0, |overlay| {
            earliest(overlay.ring(), u64::from(overlay.tokens.recent))
        }))
    }
}
