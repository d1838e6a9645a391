use std::fmt;

use walsh_formats::DType;

use super::Operation;
use super::check::Check;
use super::cost::{Cost, bytes, token_bytes};
use super::kv::{check_fresh, check_sequences};
use crate::Result;
use crate::buffer::Span;
use crate::hazard::Accesses;
use crate::kv_cache::KvCache;
use crate::tensor::Tensor;

/// How scores become weights, and which positions are seen.
///
/// `weight[t] = softmax_t(cap(scale · q · k[t]))` over the positions t up to
/// the query's own and, with a window w, above its own − w;
/// `cap(s) = softcap · tanh(s / softcap)`. With sinks, the softmax of a head has
/// one more term, exp(sink), that goes to no value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mask {
    /// What scores are multiplied by, commonly 1/√head_dim.
    pub scale: f32,
    /// How many positions a query sees, its own included; `None` for all.
    pub window: Option<u32>,
    /// The bound of the scores; `None` for no bound.
    pub softcap: Option<f32>,
}

impl Mask {
    /// Every position up to the query's own, at scale 1/√head_dim.
    #[must_use]
    pub fn causal(head_dim: u64) -> Self {
        Self {
            scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            window: None,
            softcap: None,
        }
    }

    /// How many of so many stored tokens a query at their end sees.
    fn seen(&self, stored: u64) -> u64 {
        stored.min(self.window.map_or(u64::MAX, u64::from))
    }

    fn validate(&self, check: Check) -> Result<()> {
        check.finite("mask.scale", self.scale)?;
        if self.window == Some(0) {
            return check.fail("mask.window", "at least 1", 0);
        }
        match self.softcap {
            Some(softcap) => check.positive("mask.softcap", softcap),
            None => Ok(()),
        }
    }
}

/// Attention of n query tokens over a cache that already holds their own keys
/// and values.
///
/// The codes are read where they lie: a query head reads the KV head
/// `head / (heads / kv_heads)`, and all heads of a group share one pass. The
/// tokens of a sequence follow each other, their positions ascend by one, and
/// the last is the newest that the cache holds of the sequence. A ring must hold
/// the window of the first query: its capacity is at least window + n − 1, or
/// positions that it has forgotten are not seen. An overlay of recent tokens
/// bounds the tokens of a sequence: see
/// [`KvCache::decode_tokens`](crate::KvCache::decode_tokens).
#[derive(Debug, Clone)]
pub struct AttentionDecode {
    /// `f32 [n, heads, head_dim]`, after RoPE.
    pub query: Tensor,
    /// The cache.
    pub cache: KvCache,
    /// `i32 [n]`: each query's position.
    pub positions: Tensor,
    /// `i32 [n]`: each query's sequence; `None` when all are of the first.
    pub sequences: Option<Tensor>,
    /// Scale, window and soft cap.
    pub mask: Mask,
    /// `f32 [heads]`: a logit of each head's softmax that goes to no value.
    pub sinks: Option<Tensor>,
    /// `f32 [n, heads, head_dim]`.
    pub output: Tensor,
}

/// Attention of a chunk of n query tokens over what a cache held before the
/// chunk plus the chunk's own keys and values, which are used unquantised.
///
/// The chunk's keys and values are stored by a [`KvStore`](super::KvStore)
/// recorded after this op. The tokens of a sequence follow each other, and their
/// positions ascend by one. A ring must hold
/// `window − 1` positions before the first query, so its capacity is at least
/// that.
#[derive(Debug, Clone)]
pub struct AttentionPrefill {
    /// `f32 [n, heads, head_dim]`, after RoPE.
    pub query: Tensor,
    /// `f32 [n, kv_heads, head_dim]`, after RoPE.
    pub keys: Tensor,
    /// `f32 [n, kv_heads, head_dim]`.
    pub values: Tensor,
    /// The cache of the positions before the chunk.
    pub cache: KvCache,
    /// `i32 [n]`: each query's position.
    pub positions: Tensor,
    /// `i32 [n]`: each query's sequence; `None` when all are of the first.
    pub sequences: Option<Tensor>,
    /// Scale, window and soft cap.
    pub mask: Mask,
    /// `f32 [heads]`: a logit of each head's softmax that goes to no value.
    pub sinks: Option<Tensor>,
    /// `f32 [n, heads, head_dim]`.
    pub output: Tensor,
}

/// What both forms share.
struct Common<'a> {
    query: &'a Tensor,
    positions: &'a Tensor,
    sequences: Option<&'a Tensor>,
    sinks: Option<&'a Tensor>,
    cache: &'a KvCache,
    output: &'a Tensor,
}

impl Common<'_> {
    fn reads(&self) -> Vec<Span> {
        let tensors = [self.query, self.positions].into_iter();
        let tensors = tensors.chain(self.sequences).chain(self.sinks);
        tensors
            .map(Tensor::span)
            .chain(self.cache.spans())
            .chain(self.cache.preparation_spans())
            .collect()
    }
}

fn check_query(check: Check, common: &Common<'_>) -> Result<()> {
    let Common {
        query,
        positions,
        sequences,
        sinks,
        cache,
        output,
    } = *common;
    check.rank("query", query, 3)?;
    check.size("query", query)?;
    let (n, heads) = (query.shape()[0], query.shape()[1]);
    check.f32("query", query, &[n, heads, cache.head_dim()])?;
    if heads % cache.kv_heads() != 0 {
        return check.fail(
            "query",
            format_args!("of a multiple of the cache's {} KV heads", cache.kv_heads()),
            format_args!("of {heads} heads"),
        );
    }
    check.dtype("positions", positions, DType::I32)?;
    check.shape("positions", positions, &[n])?;
    check_sequences(check, sequences, n)?;
    if let Some(sinks) = sinks {
        check.f32("sinks", sinks, &[heads])?;
    }
    check.f32("output", output, query.shape())?;
    check.disjoint("output", output, &[query, positions])?;
    for input in sequences.into_iter().chain(sinks) {
        check.disjoint("output", output, &[input])?;
    }
    let kept = cache.spans().chain(cache.preparation_spans());
    if kept.into_iter().any(|span| span.overlaps(&output.span())) {
        return check.fail("output", "apart from the cache", "overlapping it");
    }
    Ok(())
}

impl AttentionDecode {
    fn common(&self) -> Common<'_> {
        Common {
            query: &self.query,
            positions: &self.positions,
            sequences: self.sequences.as_ref(),
            sinks: self.sinks.as_ref(),
            cache: &self.cache,
            output: &self.output,
        }
    }
}

impl Operation for AttentionDecode {
    const NAME: &'static str = "AttentionDecode";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check_query(check, &self.common())?;
        let n = self.query.shape()[0];
        match self.cache.decode_tokens() {
            Some(most) if self.sequences.is_none() && n > most => {
                return check.fail(
                    "query",
                    format_args!("of at most {most} tokens, for the cache's overlay"),
                    format_args!("of {n}"),
                );
            }
            _ => {}
        }
        self.mask.validate(check)
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: self.common().reads(),
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} over {} -> {}",
            self.query,
            self.cache.codecs(),
            self.output
        )
    }

    fn cost(&self, stored: u64) -> Cost {
        let seen = self.mask.seen(stored);
        let sequences = self
            .sequences
            .as_ref()
            .map_or(1, |_| self.cache.sequences());
        Cost {
            bytes: bytes([&self.query, &self.output, &self.positions])
                + sequences * token_bytes(&self.cache, seen),
            operations: 4 * self.query.elements() * seen,
        }
    }
}

impl AttentionPrefill {
    fn common(&self) -> Common<'_> {
        Common {
            query: &self.query,
            positions: &self.positions,
            sequences: self.sequences.as_ref(),
            sinks: self.sinks.as_ref(),
            cache: &self.cache,
            output: &self.output,
        }
    }
}

impl Operation for AttentionPrefill {
    const NAME: &'static str = "AttentionPrefill";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check_query(check, &self.common())?;
        let n = check_fresh(check, &self.keys, &self.values, &self.cache)?;
        check.dtype("keys", &self.keys, DType::F32)?;
        if n != self.query.shape()[0] {
            return check.fail(
                "keys",
                format_args!("of the query's {} tokens", self.query.shape()[0]),
                format_args!("of {n}"),
            );
        }
        check.disjoint("output", &self.output, &[&self.keys, &self.values])?;
        self.mask.validate(check)
    }

    fn accesses(&self) -> Accesses {
        let mut reads = self.common().reads();
        reads.extend([self.keys.span(), self.values.span()]);
        Accesses {
            reads,
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} over {} + fresh -> {}",
            self.query,
            self.cache.codecs(),
            self.output
        )
    }

    fn cost(&self, stored: u64) -> Cost {
        let chunk = self.query.shape()[0];
        let stored = self.mask.seen(stored);
        let sequences = self
            .sequences
            .as_ref()
            .map_or(1, |_| self.cache.sequences());
        let inputs = bytes([
            &self.query,
            &self.keys,
            &self.values,
            &self.output,
            &self.positions,
        ]);
        // A query sees those of its chunk up to itself: half of them, over all queries.
        let within = self.mask.seen(chunk.div_ceil(2));
        Cost {
            bytes: inputs + sequences * token_bytes(&self.cache, stored),
            operations: 4 * self.query.elements() * (stored + within),
        }
    }
}
