use std::fmt;

use walsh_formats::DType;

use super::check::Check;
use super::cost::{Cost, bytes};
use super::operation::Operation;
use crate::Result;
use crate::hazard::Accesses;
use crate::kv_cache::{CacheKind, CacheSide, KvCache, KvRows};
use crate::tensor::Tensor;
use crate::tokens::{PageUse, TokenLimits};

/// Encodes n tokens' keys and values, or one of the two, into a [`KvCache`].
///
/// The tokens of a sequence follow each other, and their positions ascend by
/// one. A position past a global cache's capacity, and a key or value that
/// cannot be stored, such as one with a NaN, are an
/// [`Error::Value`](crate::Error::Value) when the list runs, before anything is
/// written. So is, in a cache of pages, a position whose page is missing, and a page that
/// two sequences are stored into. A ring takes any position; of more tokens than its
/// capacity only the last are written. The bytes written do not depend on how the tokens were
/// split over calls.
#[derive(Debug, Clone)]
pub struct KvStore {
    /// `[n, kv_heads, head_dim]` of `f32`, `f16` or `bf16`, after RoPE; `None` to leave the cache's keys as they are.
    pub keys: Option<Tensor>,
    /// The same of values, of the keys' type where there are keys; `None` to leave the cache's values as they are.
    pub values: Option<Tensor>,
    /// `i32 [n]`: each token's position.
    pub positions: Tensor,
    /// `i32 [n]`: each token's sequence; `None` when all are of the first.
    pub sequences: Option<Tensor>,
    /// Where the codes go.
    pub cache: KvCache,
}

impl KvStore {
    /// The sides that are stored, and what is stored of each.
    pub fn sides(&self) -> impl Iterator<Item = (CacheSide, &Tensor)> {
        let keys = self.keys.iter().map(|keys| (CacheSide::Keys, keys));
        keys.chain(self.values.iter().map(|values| (CacheSide::Values, values)))
    }

    fn inputs(&self) -> impl Iterator<Item = &Tensor> {
        let vectors = self.keys.iter().chain(&self.values);
        vectors.chain([&self.positions]).chain(&self.sequences)
    }
}

/// The vectors fit a side of the cache; returns the number of tokens.
fn check_vectors(
    check: Check,
    argument: &'static str,
    vectors: &Tensor,
    cache: &KvCache,
) -> Result<u64> {
    check.rank(argument, vectors, 3)?;
    check.size(argument, vectors)?;
    let n = vectors.shape()[0];
    check.shape(argument, vectors, &[n, cache.kv_heads(), cache.head_dim()])?;
    check.vectors(argument, vectors)?;
    Ok(n)
}

/// The cache is whole.
pub(super) fn check_cache(check: Check, cache: &KvCache) -> Result<()> {
    match cache.kind() {
        CacheKind::Paged { .. } if cache.table().is_none() => {
            check.fail("cache", "with a page table", "without one")
        }
        _ => Ok(()),
    }
}

/// `keys` and `values` fit the cache; returns the number of tokens.
pub(super) fn check_fresh(
    check: Check,
    keys: &Tensor,
    values: &Tensor,
    cache: &KvCache,
) -> Result<u64> {
    let n = check_vectors(check, "keys", keys, cache)?;
    check.dtype("values", values, keys.dtype())?;
    check.shape("values", values, keys.shape())?;
    Ok(n)
}

/// `sequences`, where there is one, is `i32 [n]`.
pub(super) fn check_sequences(check: Check, sequences: Option<&Tensor>, n: u64) -> Result<()> {
    let Some(sequences) = sequences else {
        return Ok(());
    };
    check.dtype("sequences", sequences, DType::I32)?;
    check.shape("sequences", sequences, &[n])
}

impl KvStore {
    /// What its tokens must keep to when it runs.
    #[must_use]
    pub fn token_limits(&self) -> TokenLimits {
        self.cache.token_limits(None, PageUse::Stored)
    }
}

impl Operation for KvStore {
    const NAME: &'static str = "KvStore";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        let cache = &self.cache;
        check_cache(check, cache)?;
        let n = match (&self.keys, &self.values) {
            (Some(keys), Some(values)) => check_fresh(check, keys, values, cache)?,
            (Some(keys), None) => check_vectors(check, "keys", keys, cache)?,
            (None, Some(values)) => check_vectors(check, "values", values, cache)?,
            (None, None) => return check.fail("keys", "there, or values, or both", "neither"),
        };
        check.dtype("positions", &self.positions, DType::I32)?;
        check.shape("positions", &self.positions, &[n])?;
        check_sequences(check, self.sequences.as_ref(), n)?;
        for span in cache.spans() {
            if self.inputs().any(|input| span.overlaps(&input.span())) {
                return check.fail("cache", "apart from the inputs", "overlapping one");
            }
        }
        Ok(())
    }

    fn accesses(&self) -> Accesses {
        let prepared = self
            .keys
            .iter()
            .flat_map(|_| self.cache.preparation_spans());
        Accesses {
            reads: self
                .inputs()
                .chain(self.cache.table())
                .map(Tensor::span)
                .chain(prepared)
                .collect(),
            writes: self
                .sides()
                .flat_map(|(side, _)| self.cache.side(side).tensors())
                .map(Tensor::span)
                .collect(),
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.keys, &self.values) {
            (Some(keys), Some(_)) => write!(f, "{keys} -> {}", self.cache.codecs()),
            _ => self.sides().try_for_each(|(side, vectors)| {
                let codec = self.cache.side(side).rows.codec.codec();
                write!(f, "{vectors} -> {side} {codec}")
            }),
        }
    }

    fn cost(&self, _: u64) -> Cost {
        let tokens = self.positions.elements();
        let kept = self.cache.overlay().map_or(0, |overlay| overlay.slots());
        let stored = self.sides().map(|(side, _)| {
            let side = self.cache.side(side);
            let overlay = side.overlay.as_ref().map_or(0, KvRows::vector_bytes);
            tokens * side.rows.vector_bytes() + tokens.min(kept) * overlay
        });
        Cost {
            bytes: bytes(self.inputs()) + self.cache.kv_heads() * stored.sum::<u64>(),
            operations: 0,
        }
    }
}
