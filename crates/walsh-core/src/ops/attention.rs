use std::fmt;

use walsh_formats::DType;

use super::check::Check;
use super::cost::{Cost, bytes};
use super::kv::{check_cache, check_fresh, check_sequences};
use super::operation::Operation;
use crate::Result;
use crate::buffer::Span;
use crate::hazard::Accesses;
use crate::kv_cache::KvCache;
use crate::tensor::Tensor;
use crate::tokens::{PageUse, TokenLimits};

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

/// Attention of n query tokens over a cache.
///
/// A decode is without [`fresh`](Self::fresh): the cache already holds the queries'
/// own keys and values. A prefill is with them: the queries see what the cache held
/// before the chunk, and the chunk's own keys and values as they are, unquantised; a
/// [`KvStore`](super::KvStore) that is recorded after this op stores them.
///
/// The codes are read where they lie: a query head reads the KV head
/// `head / (heads / kv_heads)`, and all heads of a group share one pass. The
/// tokens of a sequence follow each other, and their positions ascend by one.
///
/// In a decode the last token is the newest that the cache holds of its sequence. A
/// ring must hold the window of the first query: its capacity is at least
/// window + n − 1, or positions that it has forgotten are not seen. An overlay of
/// recent tokens bounds the tokens of a sequence: see
/// [`KvCache::decode_tokens`](crate::KvCache::decode_tokens). In a prefill a ring must
/// hold `window − 1` positions before the first query, so its capacity is at least
/// that. A cache of pages must have those of all positions that queries see.
#[derive(Debug, Clone)]
pub struct Attention {
    /// `f32 [n, heads, head_dim]`, after RoPE.
    pub query: Tensor,
    /// The chunk's own keys and values, of a prefill.
    pub fresh: Option<Fresh>,
    /// The cache: with fresh keys, of the positions before the chunk.
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

/// Keys and values that no cache holds yet.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// `f32 [n, kv_heads, head_dim]`, after RoPE.
    pub keys: Tensor,
    /// `f32 [n, kv_heads, head_dim]`.
    pub values: Tensor,
}

impl Attention {
    /// The most query tokens of a sequence, where the cache's overlay bounds them.
    #[must_use]
    pub fn most_tokens(&self) -> Option<u64> {
        match self.fresh {
            None => self.cache.decode_tokens(),
            Some(_) => None,
        }
    }

    /// What its tokens must keep to when it runs.
    #[must_use]
    pub fn token_limits(&self) -> TokenLimits {
        // Validation has seen to the number of tokens of a single sequence.
        let most = self.sequences.as_ref().and(self.most_tokens());
        let used = PageUse::Seen {
            window: self.mask.window,
            own: self.fresh.is_none(),
        };
        self.cache.token_limits(most, used)
    }

    fn check_query(&self, check: Check) -> Result<()> {
        let Self {
            query,
            cache,
            output,
            ..
        } = self;
        check_cache(check, cache)?;
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
        check.dtype("positions", &self.positions, DType::I32)?;
        check.shape("positions", &self.positions, &[n])?;
        check_sequences(check, self.sequences.as_ref(), n)?;
        if let Some(sinks) = &self.sinks {
            check.f32("sinks", sinks, &[heads])?;
        }
        check.f32("output", output, query.shape())?;
        check.disjoint("output", output, &[query, &self.positions])?;
        for input in self.sequences.iter().chain(&self.sinks) {
            check.disjoint("output", output, &[input])?;
        }
        let kept = cache.spans().chain(cache.setting_spans());
        if kept.into_iter().any(|span| span.overlaps(&output.span())) {
            return check.fail("output", "apart from the cache", "overlapping it");
        }
        Ok(())
    }

    fn check_fresh(&self, check: Check, Fresh { keys, values }: &Fresh) -> Result<()> {
        let n = check_fresh(check, keys, values, &self.cache)?;
        check.dtype("keys", keys, DType::F32)?;
        let tokens = self.query.shape()[0];
        if n != tokens {
            return check.fail(
                "keys",
                format_args!("of the query's {tokens} tokens"),
                format_args!("of {n}"),
            );
        }
        check.disjoint("output", &self.output, &[keys, values])
    }
}

impl Operation for Attention {
    const NAME: &'static str = "Attention";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        self.check_query(check)?;
        let n = self.query.shape()[0];
        if let Some(fresh) = &self.fresh {
            self.check_fresh(check, fresh)?;
        }
        match self.most_tokens() {
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
        let tensors = [&self.query, &self.positions].into_iter();
        let tensors = tensors.chain(&self.sequences).chain(&self.sinks);
        let mut reads: Vec<Span> = tensors
            .map(Tensor::span)
            .chain(self.cache.spans())
            .chain(self.cache.setting_spans())
            .collect();
        if let Some(Fresh { keys, values }) = &self.fresh {
            reads.extend([keys.span(), values.span()]);
        }
        Accesses {
            reads,
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fresh = match self.fresh {
            Some(_) => " + fresh",
            None => "",
        };
        let codecs = self.cache.codecs();
        write!(f, "{} over {codecs}{fresh} -> {}", self.query, self.output)
    }

    fn cost(&self, stored: u64) -> Cost {
        let seen = self.mask.seen(stored);
        let sequences = self
            .sequences
            .as_ref()
            .map_or(1, |_| self.cache.sequences());
        let fresh = self.fresh.iter().flat_map(|f| [&f.keys, &f.values]);
        let tensors = [&self.query, &self.output, &self.positions];
        // A query sees those of its chunk up to itself: half of them, over all queries.
        let within = match self.fresh {
            Some(_) => self.mask.seen(self.query.shape()[0].div_ceil(2)),
            None => 0,
        };
        Cost {
            bytes: bytes(tensors.into_iter().chain(fresh))
                + sequences * self.cache.token_bytes(seen),
            operations: 4 * self.query.elements() * (seen + within),
        }
    }
}
