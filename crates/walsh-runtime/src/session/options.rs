//! How sessions are started, and the caches that they get.

use walsh::formats::kv::Overlay;
use walsh::{CacheKind, DType, KvCacheOptions, KvCodec, KvSpec, LayerKv, OverlayOptions};

use crate::{Error, LayerConfig, Model, Result};

/// How a session is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// How many tokens the session can hold; 0 for the model's own context, but
    /// at most [`DEFAULT_CONTEXT`]. Where the KV caches could not be filled with so
    /// many, for want of memory, the session is refused, not made smaller.
    pub context: usize,
    /// How the KV cache is kept; a budget is what the model [makes of it](Model::kv_policy).
    pub kv: KvSpec,
    /// How many tokens are prefilled at a time, the context's if it has fewer.
    pub chunk: usize,
    /// How many tokens at a time attend over stored codes alone, which is how
    /// [`Session::score`](crate::Session::score) reads, the chunk's if it has fewer. An overlay keeps as many
    /// more recent tokens.
    pub scored: usize,
}

/// The largest context that a session takes without being asked to.
pub const DEFAULT_CONTEXT: usize = 4096;

/// The most tokens that a session can hold: positions have 31 bits.
const MOST_TOKENS: usize = i32::MAX as usize;

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            context: 0,
            kv: KvSpec::plain(KvCodec::Dense(DType::F16)),
            chunk: 512,
            scored: 32,
        }
    }
}

impl SessionOptions {
    /// The options of a session over a model, with the defaults filled in, no size
    /// larger than it can matter, and a budget spelled out.
    ///
    /// # Errors
    /// When a size is out of range, or a fit cannot be read.
    pub(crate) fn resolved(&self, model: &Model) -> Result<Self> {
        let context = match self.context {
            0 => model.config().context.min(DEFAULT_CONTEXT),
            context => context,
        };
        if context > MOST_TOKENS {
            return Err(Error::option("context", "below 2^31", context));
        }
        for (name, size) in [("chunk", self.chunk), ("scored", self.scored)] {
            if size == 0 {
                return Err(Error::option(name, "at least 1", size));
            }
        }
        let chunk = self.chunk.min(context);
        Ok(Self {
            context,
            kv: model.kv_policy(&self.kv)?,
            chunk,
            scored: self.scored.min(chunk),
        })
    }
}

/// How many of the latest positions a sliding layer keeps that forgets any: its window and the chunk in flight.
pub(super) fn ring(layer: &LayerConfig, options: &SessionOptions) -> Option<usize> {
    let kept = layer.window.map(|window| window + options.chunk);
    kept.filter(|kept| *kept < options.context)
}

/// The options of a layer's cache; a session's options are
/// [resolved](SessionOptions::resolved).
///
/// A sliding layer holds its window and the chunk in flight, and no overlay has more
/// tokens of a kind than the context.
pub(crate) fn cache_options(
    layer: &LayerConfig,
    kv: &LayerKv,
    options: &SessionOptions,
) -> KvCacheOptions {
    let context = options.context;
    let (kind, capacity) = match ring(layer, options) {
        Some(kept) => (CacheKind::Ring, kept),
        None => (CacheKind::Global, context),
    };
    // Below 2^31, as contexts are.
    let most = context as u32;
    KvCacheOptions {
        codecs: kv.codecs,
        sequences: 1,
        kv_heads: layer.kv_heads as u64,
        head_dim: layer.head_dim as u64,
        capacity: capacity as u64,
        kind,
        overlay: kv.overlay.map(|tokens| OverlayOptions {
            tokens: Overlay {
                first: tokens.first.min(most),
                recent: tokens.recent.min(most),
                ..tokens
            },
            slack: options.scored as u64,
        }),
    }
}
