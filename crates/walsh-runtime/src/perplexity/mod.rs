//! Perplexity of a text, and what a KV codec changes about the predictions.
//!
//! The protocol is that of llama.cpp's `llama-perplexity`: the text is
//! tokenised once and cut into chunks of N tokens; the first token of each
//! chunk is replaced by BOS when the model adds one; what the positions from
//! N/2 to N − 2 predict is scored against the token that follows.
//!
//! Several codecs walk through a chunk side by side, a few positions at a time,
//! so that only those positions' logits are ever held.

mod pieces;
mod softmax;
mod stats;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use walsh::DType;
use walsh::formats::kv::{FloatCodec, KvCodec, KvSpec, LayerKv};

use crate::tokenizer::{Special, Tokenizer};
use crate::{Error, Model, Result, Session, SessionOptions, TextReader, Watch};
pub(crate) use pieces::in_parallel;
use pieces::{Pieces, Predictor};
pub use softmax::log_likelihood;
pub(crate) use softmax::{Normaliser, divergence};
use stats::Scores;

/// Tokens that are scored at a time: enough for products to run at speed.
const SCORED: usize = 256;

/// The most tokens that are held of a text.
const MOST_TOKENS: usize = 1 << 26;

/// What to measure.
#[derive(Debug, Clone)]
pub struct PerplexityOptions {
    /// Tokens in a chunk.
    pub context: usize,
    /// How many chunks at most; all that the text has when `None`.
    pub chunks: Option<usize>,
    /// The KV codecs, the reference first.
    pub kv: Vec<KvSpec>,
    /// Setting it ends the run within a few hundred tokens. The chunks that were scored
    /// count.
    pub cancel: Arc<AtomicBool>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PerplexityReport {
    /// The model's name.
    pub model: String,
    /// The device, and what its kernels were chosen for.
    pub device: String,
    /// Tokens in a chunk.
    pub context: usize,
    /// Chunks scored.
    pub chunks: usize,
    /// Tokens of the text: no more than the chunks need, where their number was given.
    pub tokens: usize,
    /// One entry per codec, in the order given.
    pub results: Vec<PerplexityResult>,
    /// What to know before the figures are believed, a line each.
    pub warnings: Vec<String>,
    /// Whether the run was ended before all chunks were scored.
    pub cancelled: bool,
}

/// One codec's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PerplexityResult {
    /// The SPEC as it was given.
    pub kv: String,
    /// What it was fitted to the model as, of a budget where there is a fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// exp of the mean negative log-likelihood.
    pub ppl: f64,
    /// The standard error of `ppl`.
    pub ppl_stderr: f64,
    /// Mean KL divergence from the first codec's predictions, in nats.
    pub kld_mean: f64,
    /// The standard error of `kld_mean`, positions taken as independent.
    pub kld_stderr: f64,
    /// The divergence that 99 of 100 positions stay below, in nats.
    pub kld_p99: f64,
    /// The fraction of positions whose likeliest token is the first codec's.
    pub same_top: f64,
    /// What the cache holds for a token, over all layers, in bytes.
    pub kv_bytes_per_token: u64,
    /// Bits for a number of a key or a value, scales included, over keys and
    /// values together.
    pub bits_per_value: f64,
}

/// How far a run is, after each chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct PerplexityProgress {
    /// Chunks scored so far.
    pub chunk: usize,
    /// Chunks in all.
    pub chunks: usize,
    /// The perplexity so far, per codec.
    pub perplexities: Vec<f64>,
}

impl Predictor for Session {
    fn reset(&mut self) {
        Session::reset(self);
    }

    fn score(
        &mut self,
        tokens: &[i32],
        from: usize,
        each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        Session::score(self, tokens, from, each)
    }
}

/// Measures the perplexity of `text`, with one session per codec.
///
/// Memory beyond the model and the caches is bounded: two blocks of at most
/// 16 MiB of logits (one when there is one codec), what it takes to tokenise a
/// mebibyte of text, and the tokens, of a text without end as well.
///
/// # Errors
/// When there is no codec, the text cannot be read or has fewer tokens than one
/// chunk, the model cannot take the context, or its logits are not finite. When it is
/// cancelled before a chunk was scored.
pub fn perplexity(
    model: &Model,
    text: &mut TextReader<'_>,
    options: &PerplexityOptions,
    progress: &mut dyn FnMut(&PerplexityProgress),
) -> Result<PerplexityReport> {
    let context = options.context;
    if context < 4 {
        return Err(Error::measure(format!(
            "a chunk of {context} tokens is too short: use at least 4"
        )));
    }
    let most = options.chunks.map(|chunks| chunks.saturating_mul(context));
    let tokens = read_tokens(model.tokenizer(), text, most)?;
    let chunks = tokens.len() / context;
    if chunks == 0 {
        return Err(Error::measure(format!(
            "the text has {} tokens, and at least one chunk of {context} is needed: use a longer text or a smaller context",
            tokens.len()
        )));
    }
    let policies: Vec<KvSpec> = options
        .kv
        .iter()
        .map(|kv| model.kv_policy(kv))
        .collect::<Result<_>>()?;
    let mut sessions = Vec::with_capacity(options.kv.len());
    for kv in &policies {
        let mut session = model.session(SessionOptions {
            context,
            kv: kv.clone(),
            scored: SCORED,
            ..SessionOptions::default()
        })?;
        session.set_watch(Watch::cancelled_by(&options.cancel));
        sessions.push(session);
    }
    let bos = model
        .tokenizer()
        .bos()
        .filter(|_| model.tokenizer().add_bos());
    let workers = model.device().properties().parallelism;
    let mut pieces = Pieces::new(model.config().vocabulary, workers);
    let mut scores = vec![Scores::default(); sessions.len()];
    let mut scored = 0;
    for (index, chunk) in tokens.chunks_exact(context).enumerate() {
        let mut chunk = chunk.to_vec();
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        // Of a chunk that is broken off, nothing counts.
        let mut with_chunk = scores.clone();
        match pieces.score_chunk(&mut sessions, &chunk, &mut with_chunk) {
            Err(Error::Cancelled) if index > 0 => break,
            ended => ended?,
        }
        scores = with_chunk;
        scored = index + 1;
        progress(&PerplexityProgress {
            chunk: scored,
            chunks,
            perplexities: scores.iter().map(Scores::perplexity).collect(),
        });
    }
    let mut results = Vec::with_capacity(scores.len());
    for ((given, kv), scores) in options.kv.iter().zip(&policies).zip(&scores) {
        results.push(PerplexityResult {
            kv: given.to_string(),
            policy: (kv != given).then(|| kv.to_string()),
            ppl: scores.perplexity(),
            ppl_stderr: scores.standard_error(),
            kld_mean: scores.mean_divergence(),
            kld_stderr: scores.divergence_standard_error(),
            kld_p99: scores.divergence_percentile(0.99),
            same_top: scores.same_top(),
            kv_bytes_per_token: model.kv_bytes_per_token(kv)?,
            bits_per_value: model.kv_bits_per_value(kv)?,
        });
    }
    let cancelled = scored < chunks;
    let warnings = match cancelled {
        true => reference_warning(&policies).into_iter().collect(),
        false => warnings(model, &policies)?,
    };
    Ok(PerplexityReport {
        model: model.name().to_owned(),
        device: model.device().properties().to_string(),
        context,
        chunks: scored,
        tokens: tokens.len(),
        results,
        warnings,
        cancelled,
    })
}

/// The tokens of a text: all, or the first so many.
pub(crate) fn read_tokens(
    tokenizer: &Tokenizer,
    text: &mut TextReader<'_>,
    most: Option<usize>,
) -> Result<Vec<i32>> {
    let mut tokens: Vec<i32> = Vec::new();
    if tokenizer.add_bos() {
        tokens.extend(tokenizer.bos());
    }
    let most = most.unwrap_or(MOST_TOKENS + 1);
    while tokens.len() < most {
        let Some(piece) = text.next_piece()? else {
            tokens.extend(tokenizer.last());
            break;
        };
        let previous = tokens.last().copied();
        tokens.extend(tokenizer.encode_after(previous, &piece, Special::Text)?);
    }
    tokens.truncate(most);
    match tokens.len() > MOST_TOKENS {
        true => Err(Error::measure(format!(
            "more than {MOST_TOKENS} tokens are to be read: score fewer chunks of the text"
        ))),
        false => Ok(tokens),
    }
}

/// What to know of SPECs that are compared with the first of them.
pub(crate) fn warnings(model: &Model, specs: &[KvSpec]) -> Result<Vec<String>> {
    let mut warnings: Vec<String> = reference_warning(specs).into_iter().collect();
    warnings.extend(bias_warnings(model, specs)?);
    Ok(warnings)
}

/// Says of each SPEC that stores biased keys coarsely and as they are.
fn bias_warnings(model: &Model, specs: &[KvSpec]) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for spec in specs {
        let layers = model.layer_specs(spec)?;
        let coarse = |layer: usize| {
            let kv = &layers[layer];
            let floats = [DType::F32, DType::F16, DType::BF16];
            let exact = kv.codecs.key.dense().is_some_and(|d| floats.contains(&d));
            !exact && !kv.center
        };
        if !(0..layers.len()).any(coarse) {
            continue;
        }
        let biased = model.calibration()?.biased_layers(coarse);
        if biased.is_empty() {
            continue;
        }
        let numbers: Vec<String> = biased.iter().map(ToString::to_string).collect();
        warnings.push(format!(
            "{spec}: the keys of layers {} have a large constant part that it spends its bits on: add ;center=on",
            numbers.join(", ")
        ));
    }
    Ok(warnings)
}

/// Says which codec the others are compared with when it is itself quantised.
fn reference_warning(specs: &[KvSpec]) -> Option<String> {
    match specs {
        [first, _, ..] if !is_float(first) => Some(format!(
            "the reference is {first}, which is itself quantised: give f16 first to see what each SPEC changes about an unquantised cache"
        )),
        _ => None,
    }
}

/// Whether a SPEC stores plain floats.
fn is_float(spec: &KvSpec) -> bool {
    let codecs = spec.all.codecs;
    let floats = [codecs.key, codecs.value]
        .into_iter()
        .all(|codec| matches!(codec, KvCodec::Dense(dtype) if FloatCodec::of(dtype).is_some()));
    floats && *spec == KvSpec::from(LayerKv::plain(codecs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(specs: &[&str]) -> Option<String> {
        let specs: Vec<KvSpec> = specs.iter().map(|s| s.parse().expect("a SPEC")).collect();
        reference_warning(&specs)
    }

    #[test]
    fn a_quantised_reference_is_named() {
        assert_eq!(warning(&["f16", "tq4"]), None);
        assert_eq!(warning(&["k=f32,v=f16", "tq4"]), None);
        assert_eq!(warning(&["tq8"]), None);
        assert!(warning(&["f16+rot", "tq4"]).is_some());
        assert!(warning(&["f16;layers=0:tq4", "tq4"]).is_some());
        let warning = warning(&["q8_0", "tq4"]).expect("a warning");
        assert!(warning.contains("the reference is q8_0"), "{warning}");
    }
}
