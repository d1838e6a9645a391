use std::fmt;

use walsh_formats::DType;

use super::Operation;
use super::check::Check;
use super::cost::{Cost, bytes};
use crate::Result;
use crate::hazard::Accesses;
use crate::kv_cache::{KvCache, KvRows, KvSide};
use crate::tensor::Tensor;

/// Encodes n tokens' keys and values into a [`KvCache`].
///
/// The tokens of a sequence follow each other, and their positions ascend by
/// one. A position past a global cache's capacity, and a key or value that
/// cannot be stored, such as one with a NaN, are an
/// [`Error::Value`](crate::Error::Value) when the list runs, before anything is
/// written. A ring takes any position; of more tokens than its capacity only
/// the last are written. The bytes written do not depend on how the tokens were
/// split over calls.
#[derive(Debug, Clone)]
pub struct KvStore {
    /// `[n, kv_heads, head_dim]` of `f32`, `f16` or `bf16`, after RoPE.
    pub keys: Tensor,
    /// The keys' shape and type.
    pub values: Tensor,
    /// `i32 [n]`: each token's position.
    pub positions: Tensor,
    /// `i32 [n]`: each token's sequence; `None` when all are of the first.
    pub sequences: Option<Tensor>,
    /// Where the codes go.
    pub cache: KvCache,
}

/// `keys` and `values` fit the cache; returns the number of tokens.
pub(super) fn check_fresh(
    check: Check,
    keys: &Tensor,
    values: &Tensor,
    cache: &KvCache,
) -> Result<u64> {
    check.rank("keys", keys, 3)?;
    check.size("keys", keys)?;
    let n = keys.shape()[0];
    let shape = [n, cache.kv_heads(), cache.head_dim()];
    check.shape("keys", keys, &shape)?;
    check.vectors("keys", keys)?;
    check.dtype("values", values, keys.dtype())?;
    check.shape("values", values, &shape)?;
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

impl Operation for KvStore {
    const NAME: &'static str = "KvStore";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        let n = check_fresh(check, &self.keys, &self.values, &self.cache)?;
        check.dtype("positions", &self.positions, DType::I32)?;
        check.shape("positions", &self.positions, &[n])?;
        check_sequences(check, self.sequences.as_ref(), n)?;
        let inputs = [&self.keys, &self.values, &self.positions];
        for span in self.cache.spans() {
            for input in inputs.into_iter().chain(&self.sequences) {
                if span.overlaps(&input.span()) {
                    return check.fail("cache", "apart from the inputs", "overlapping one");
                }
            }
        }
        Ok(())
    }

    fn accesses(&self) -> Accesses {
        let inputs = [&self.keys, &self.values, &self.positions];
        let inputs = inputs.into_iter().chain(&self.sequences);
        Accesses {
            reads: inputs
                .map(Tensor::span)
                .chain(self.cache.preparation_spans())
                .collect(),
            writes: self.cache.spans().collect(),
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.keys, self.cache.codecs())
    }

    fn cost(&self, _: u64) -> Cost {
        let tokens = self.keys.shape()[0];
        let slots = self.cache.overlay().map_or(0, |overlay| overlay.slots());
        let kept = |side: &KvSide| {
            let row = side.overlay.as_ref().map_or(0, KvRows::vector_bytes);
            tokens.min(slots) * self.cache.kv_heads() * row
        };
        let inputs = [&self.keys, &self.values, &self.positions];
        Cost {
            bytes: bytes(inputs.into_iter().chain(&self.sequences))
                + self.cache.token_bytes(tokens)
                + kept(self.cache.key())
                + kept(self.cache.value()),
            operations: 0,
        }
    }
}
