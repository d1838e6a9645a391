use walsh_formats::DType;

use super::Operation;
use super::check::Check;
use crate::Result;
use crate::hazard::Accesses;
use crate::kv_cache::KvCache;
use crate::tensor::Tensor;

/// Encodes n tokens' keys and values into a [`KvCache`].
///
/// The positions must ascend by one. A position past a global cache's capacity,
/// and a NaN or infinity in a key or value, are an
/// [`Error::Value`](crate::Error::Value) when the list runs; for a position,
/// before anything is written. A ring takes any position; of more tokens than
/// its capacity only the last are written. The bytes written do not depend on
/// how the tokens were split over calls.
#[derive(Debug, Clone)]
pub struct KvStore {
    /// `[n, kv_heads, head_dim]` of `f32`, `f16` or `bf16`, after RoPE.
    pub keys: Tensor,
    /// The keys' shape and type.
    pub values: Tensor,
    /// `i32 [n]`: each token's position.
    pub positions: Tensor,
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
    if !matches!(keys.dtype(), DType::F32 | DType::F16 | DType::BF16) {
        return check.fail("keys", "f32, f16 or bf16", keys);
    }
    check.dtype("values", values, keys.dtype())?;
    check.shape("values", values, &shape)?;
    Ok(n)
}

impl Operation for KvStore {
    const NAME: &'static str = "KvStore";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        let n = check_fresh(check, &self.keys, &self.values, &self.cache)?;
        check.dtype("positions", &self.positions, DType::I32)?;
        check.shape("positions", &self.positions, &[n])?;
        for span in self.cache.spans() {
            for input in [&self.keys, &self.values, &self.positions] {
                if span.overlaps(&input.span()) {
                    return check.fail("cache", "apart from the inputs", "overlapping one");
                }
            }
        }
        Ok(())
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: vec![self.keys.span(), self.values.span(), self.positions.span()],
            writes: self.cache.spans().collect(),
        }
    }
}
