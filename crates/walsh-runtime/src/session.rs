//! A model's state while it reads and writes one text.

use std::collections::VecDeque;

use walsh::{
    CacheKind, DType, Device, KvCache, KvCacheOptions, KvCodec, KvSpec, LayerKv, OverlayOptions,
    Step,
};

use crate::model::graph::{Activations, Graph, Reading};
use crate::{Error, LayerConfig, Model, ModelConfig, Result};

/// How a session is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// How many tokens the session can hold; 0 for the model's own context, but
    /// at most [`DEFAULT_CONTEXT`].
    pub context: usize,
    /// How the KV cache is kept.
    pub kv: KvSpec,
    /// How many tokens are prefilled at a time.
    pub chunk: usize,
    /// How many tokens at a time attend over stored codes alone, which is how
    /// [`Session::score`] reads. An overlay keeps as many more recent tokens.
    pub scored: usize,
}

/// The largest context that a session takes without being asked to.
pub const DEFAULT_CONTEXT: usize = 4096;

/// The most bytes of logits that are computed at a time while scoring.
const LOGIT_BYTES: usize = 16 << 20;

/// How many recorded lists are kept for chunks of various lengths.
const KEPT_STEPS: usize = 6;

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
    /// The context and the chunk of a session over a model.
    pub(crate) fn sizes(&self, config: &ModelConfig) -> (usize, usize) {
        let context = match self.context {
            0 => config.context.min(DEFAULT_CONTEXT),
            context => context,
        };
        (context, self.chunk.min(context))
    }
}

/// How a layer's positions are kept, and how many: a sliding layer holds its
/// window and the chunk in flight.
pub(crate) fn cache_shape(
    window: Option<usize>,
    context: usize,
    chunk: usize,
) -> (CacheKind, usize) {
    match window {
        Some(window) if window + chunk < context => (CacheKind::Ring, window + chunk),
        _ => (CacheKind::Global, context),
    }
}

/// The options of a layer's cache.
pub(crate) fn cache_options(
    config: &ModelConfig,
    layer: &LayerConfig,
    kv: &LayerKv,
    options: &SessionOptions,
) -> KvCacheOptions {
    let (context, chunk) = options.sizes(config);
    let (kind, capacity) = cache_shape(layer.window, context, chunk);
    KvCacheOptions {
        codecs: kv.codecs,
        sequences: 1,
        kv_heads: config.kv_heads as u64,
        head_dim: config.head_dim as u64,
        capacity: capacity as u64,
        kind,
        overlay: kv.overlay.map(|tokens| OverlayOptions {
            tokens,
            slack: options.scored as u64,
        }),
    }
}

/// What a recorded list was recorded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StepKey {
    Body(usize, Reading),
    Head(usize, usize),
}

/// A text in the making: the KV caches of all layers, and how far they are
/// filled.
pub struct Session {
    model: Model,
    device: Device,
    caches: Vec<KvCache>,
    activations: Activations,
    /// The most recently used lists, the latest last.
    steps: VecDeque<(StepKey, Step)>,
    context: usize,
    chunk: usize,
    scored: usize,
    logit_rows: usize,
    /// How many tokens' keys and values are stored.
    stored: usize,
    /// A token that belongs to the text but was not read yet: the latest that
    /// was generated.
    held: Option<i32>,
    logits: Vec<f32>,
}

impl Session {
    pub(crate) fn new(model: Model, options: SessionOptions) -> Result<Self> {
        let config = model.config();
        let (context, chunk) = options.sizes(config);
        if context > i32::MAX as usize {
            return Err(Error::option("context", "below 2^31", context));
        }
        for (name, size) in [("chunk", options.chunk), ("scored", options.scored)] {
            if size == 0 {
                return Err(Error::option(name, "at least 1", size));
            }
        }
        let device = model.device().clone();
        let layers = options
            .kv
            .layers(config.layers.len())
            .map_err(walsh::Error::from)?;
        let calibration = options
            .kv
            .needs_calibration()
            .then(|| model.calibration())
            .transpose()?;
        let mut caches = Vec::with_capacity(layers.len());
        for (index, (layer, kv)) in config.layers.iter().zip(&layers).enumerate() {
            let mut cache = KvCache::new(&device, cache_options(config, layer, kv, &options))?;
            if let Some(calibration) = calibration.filter(|_| kv.needs_calibration()) {
                let moments = &calibration.layers[index];
                let shape = (config, &layer.rope);
                cache = cache.with_preparation(moments.preparation(&device, shape, kv)?)?;
            }
            caches.push(cache);
        }
        let row_bytes = config.vocabulary * size_of::<f32>();
        let logit_rows = (LOGIT_BYTES / row_bytes).clamp(1, chunk);
        let activations = Activations::new(&device, config, chunk, logit_rows)?;
        let logits = vec![0.0; config.vocabulary];
        Ok(Self {
            device,
            caches,
            activations,
            steps: VecDeque::new(),
            context,
            chunk,
            scored: options.scored.min(chunk),
            logit_rows,
            stored: 0,
            held: None,
            logits,
            model,
        })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How many tokens it holds.
    #[must_use]
    pub fn position(&self) -> usize {
        self.stored + usize::from(self.held.is_some())
    }

    /// How many tokens it can hold.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// The bytes that its KV caches take.
    #[must_use]
    pub fn kv_bytes(&self) -> u64 {
        self.caches.iter().map(KvCache::bytes).sum()
    }

    /// The logits behind the latest token, one per entry of the vocabulary;
    /// zeros before the first.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        self.stored = 0;
        self.held = None;
        self.logits.fill(0.0);
    }

    /// Forgets the tokens from number `position` on. The logits are zeros until
    /// the next token.
    ///
    /// # Errors
    /// When it holds fewer, or a sliding-window layer has overwritten what the
    /// tokens before `position` were attending to: its ring keeps the window and
    /// one chunk.
    pub fn truncate(&mut self, position: usize) -> Result<()> {
        if position > self.position() {
            return Err(Error::option(
                "position",
                format_args!("at most {}", self.position()),
                position,
            ));
        }
        let gone = self.stored.saturating_sub(position);
        let rings = self.caches.iter().any(|c| c.kind() == CacheKind::Ring);
        if rings && gone > self.chunk && position > 0 {
            return Err(Error::option(
                "position",
                format_args!(
                    "0, or at least {}: sliding-window layers keep no more",
                    self.stored - self.chunk
                ),
                position,
            ));
        }
        if position < self.position() {
            self.held = None;
            self.logits.fill(0.0);
        }
        self.stored = self.stored.min(position);
        Ok(())
    }

    /// How many more tokens can be read, a held one included.
    pub(crate) fn room(&self) -> usize {
        self.context - self.stored
    }

    /// The token that belongs to the text but was not read yet.
    pub(crate) fn held(&self) -> Option<i32> {
        self.held
    }

    /// Makes a token part of the text, to be read before the next one.
    pub(crate) fn hold(&mut self, token: i32) {
        self.held = Some(token);
    }

    /// Reads the held token, if there is one.
    pub(crate) fn read_held(&mut self) -> Result<()> {
        let Some(token) = self.held else {
            return Ok(());
        };
        self.check_tokens(&[token])?;
        self.advance(&[token], Reading::Codes)?;
        self.held = None;
        self.read_logits(0)
    }

    /// Appends tokens, in chunks. Within a chunk, tokens attend over the
    /// unquantised keys and values of the chunk.
    ///
    /// # Errors
    /// When they do not fit into the context or the vocabulary; nothing is
    /// appended then. When the model computes a number that is not finite.
    pub fn prefill(&mut self, tokens: &[i32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let tokens: Vec<i32> = self.held.iter().chain(tokens).copied().collect();
        self.check_tokens(&tokens)?;
        self.held = None;
        for chunk in tokens.chunks(self.chunk) {
            self.advance(chunk, Reading::CodesAndFresh)?;
        }
        let last = (tokens.len() - 1) % self.chunk;
        self.read_logits(last)
    }

    /// Appends one token.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn decode(&mut self, token: i32) -> Result<()> {
        self.read_held()?;
        self.hold(token);
        let read = self.read_held();
        if read.is_err() {
            self.held = None;
        }
        read
    }

    /// Appends tokens as [`decode`](Self::decode) one after the other would, so
    /// that each attends over stored codes alone, and hands out the logits behind
    /// each token from number `from` on, in order.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), and what `each` returns.
    pub fn score(
        &mut self,
        tokens: &[i32],
        from: usize,
        each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.read_held()?;
        self.check_tokens(tokens)?;
        let vocabulary = self.logits.len();
        let mut logits = vec![0.0; self.logit_rows * vocabulary];
        for (index, chunk) in tokens.chunks(self.scored).enumerate() {
            let start = index * self.scored;
            self.advance(chunk, Reading::Codes)?;
            let mut row = from.saturating_sub(start).min(chunk.len());
            while row < chunk.len() {
                let count = self.logit_rows.min(chunk.len() - row);
                self.run(StepKey::Head(row, count))?;
                let rows = self.activations.logits.rows(0..count as u64)?;
                let logits = &mut logits[..count * vocabulary];
                self.device.read_into(&rows, logits)?;
                for (offset, logits) in logits.chunks_exact(vocabulary).enumerate() {
                    each(start + row + offset, logits)?;
                }
                row += count;
            }
        }
        Ok(())
    }

    fn check_tokens(&self, tokens: &[i32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let needed = self.stored + tokens.len();
        if needed > self.context {
            return Err(Error::ContextFull {
                needed,
                context: self.context,
            });
        }
        let vocabulary = self.logits.len();
        let unknown = |id: &&i32| usize::try_from(**id).map_or(true, |id| id >= vocabulary);
        match tokens.iter().find(unknown) {
            Some(id) => Err(Error::option(
                "token",
                format_args!("below the vocabulary's {vocabulary}"),
                id,
            )),
            None => Ok(()),
        }
    }

    /// Runs one chunk through the blocks.
    fn advance(&mut self, tokens: &[i32], reading: Reading) -> Result<()> {
        let rows = tokens.len();
        let positions: Vec<i32> = (self.stored..self.stored + rows)
            .map(|position| position as i32)
            .collect();
        let a = &self.activations;
        self.device.write(&a.ids.rows(0..rows as u64)?, tokens)?;
        self.device
            .write(&a.positions.rows(0..rows as u64)?, &positions)?;
        self.run(StepKey::Body(rows, reading))?;
        self.stored += rows;
        Ok(())
    }

    /// Computes the logits behind a row of the latest chunk.
    fn read_logits(&mut self, row: usize) -> Result<()> {
        self.run(StepKey::Head(row, 1))?;
        let rows = self.activations.logits.rows(0..1)?;
        self.device.read_into(&rows, &mut self.logits)?;
        Ok(())
    }

    /// Runs the list for `key`, recording it when it is not at hand.
    fn run(&mut self, key: StepKey) -> Result<()> {
        let found = self.steps.iter().position(|(known, _)| *known == key);
        let entry = match found.and_then(|index| self.steps.remove(index)) {
            Some(entry) => entry,
            None => (key, self.record(key)?),
        };
        if self.steps.len() == KEPT_STEPS {
            self.steps.pop_front();
        }
        let ended = self.device.run(&entry.1);
        self.steps.push_back(entry);
        Ok(ended?)
    }

    fn record(&self, key: StepKey) -> Result<Step> {
        let graph = Graph {
            device: &self.device,
            config: self.model.config(),
            weights: self.model.weights(),
            caches: &self.caches,
            activations: &self.activations,
        };
        match key {
            StepKey::Body(rows, reading) => graph.body(rows, reading),
            StepKey::Head(first, count) => graph.head(first, count),
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("model", &self.model)
            .field("position", &self.position())
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}
