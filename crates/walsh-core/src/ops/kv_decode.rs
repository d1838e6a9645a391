use std::fmt;

use walsh_formats::DType;

use super::check::Check;
use super::cost::{Cost, bytes};
use super::kv::{check_cache, check_sequences};
use super::operation::Operation;
use crate::Result;
use crate::hazard::Accesses;
use crate::kv_cache::{CacheKind, CacheSide, KvCache};
use crate::tensor::Tensor;
use crate::tokens::{PageUse, TokenLimits};

/// The space that stored vectors are decoded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VectorSpace {
    /// As they are encoded: rotated where the codec rotates, and keys prepared.
    Stored,
    /// With the rotation turned back, and keys as they were prepared: (k − center) / equaliser. For values this is the
    /// model's.
    Prepared,
    /// As the model gave them: keys are multiplied by the equaliser, and the center is added.
    Model,
}

/// Decodes the keys or the values of n tokens of a [`KvCache`].
///
/// Codes are decoded, not what an overlay has beside them. The tokens of a sequence follow each other, and their
/// positions ascend by one; a position past a global cache's capacity is an [`Error::Value`](crate::Error::Value) when
/// the list runs, and so is one whose page is missing. A ring has at most as many tokens of a sequence as its capacity. As in an
/// [`Attention`](super::Attention), what was stored is the caller's to know: a slot of a new cache decodes as zeros, and
/// one of a ring as whatever position was stored into it last.
///
/// Numbers are the same bits on every device. In half precision those past its range are infinite.
#[derive(Debug, Clone)]
pub struct KvDecode {
    /// Where the codes are.
    pub cache: KvCache,
    /// Keys or values.
    pub side: CacheSide,
    /// `i32 [n]`: each token's position.
    pub positions: Tensor,
    /// `i32 [n]`: each token's sequence; `None` when all are of the first.
    pub sequences: Option<Tensor>,
    /// What the output's vectors are.
    pub space: VectorSpace,
    /// `[n, kv_heads, head_dim]` of `f32`, `f16` or `bf16`.
    pub output: Tensor,
}

impl KvDecode {
    /// The most tokens of a sequence, where the cache bounds them: a ring's slots.
    #[must_use]
    pub fn most_tokens(&self) -> Option<u64> {
        match self.cache.kind() {
            CacheKind::Global | CacheKind::Paged { .. } => None,
            CacheKind::Ring => Some(self.cache.capacity()),
        }
    }

    /// What its tokens must keep to when it runs.
    #[must_use]
    pub fn token_limits(&self) -> TokenLimits {
        // Validation has seen to the number of tokens of a single sequence.
        let most = self.sequences.as_ref().and(self.most_tokens());
        // A token looks at itself alone.
        let used = PageUse::Seen {
            window: Some(1),
            own: true,
        };
        self.cache.token_limits(most, used)
    }

    /// What keys were divided by and what was subtracted from them, where that is undone: equaliser and center.
    #[must_use]
    pub fn undone(&self) -> [Option<&Tensor>; 2] {
        let undone = self.side == CacheSide::Keys && self.space == VectorSpace::Model;
        let preparation = self.cache.preparation();
        [&preparation.equaliser, &preparation.center].map(|t| t.as_ref().filter(|_| undone))
    }

    /// Whether vectors are turned back from the rotation of their codec.
    #[must_use]
    pub fn turns_back(&self) -> bool {
        let codec = &self.cache.side(self.side).rows.codec;
        self.space != VectorSpace::Stored && codec.rotation().is_some()
    }

    fn inputs(&self) -> impl Iterator<Item = &Tensor> {
        let codes = self.cache.side(self.side).rows.tensors();
        let undone = self.undone().into_iter().flatten();
        let tokens = std::iter::once(&self.positions).chain(&self.sequences);
        codes.chain(undone).chain(tokens).chain(self.cache.table())
    }
}

impl Operation for KvDecode {
    const NAME: &'static str = "KvDecode";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        let Self { output, cache, .. } = self;
        check_cache(check, cache)?;
        check.rank("output", output, 3)?;
        check.size("output", output)?;
        let n = output.shape()[0];
        check.shape("output", output, &[n, cache.kv_heads(), cache.head_dim()])?;
        check.vectors("output", output)?;
        check.dtype("positions", &self.positions, DType::I32)?;
        check.shape("positions", &self.positions, &[n])?;
        check_sequences(check, self.sequences.as_ref(), n)?;
        match self.most_tokens() {
            Some(most) if self.sequences.is_none() && n > most => {
                return check.fail(
                    "output",
                    format_args!("of at most {most} tokens, as many as the ring holds"),
                    format_args!("of {n}"),
                );
            }
            _ => {}
        }
        for input in self.inputs() {
            check.disjoint("output", output, &[input])?;
        }
        Ok(())
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: self.inputs().map(Tensor::span).collect(),
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codec = self.cache.side(self.side).rows.codec.codec();
        write!(f, "{codec} {} -> {}", self.side, self.output)
    }

    fn cost(&self, _: u64) -> Cost {
        let rows = &self.cache.side(self.side).rows;
        let vectors = self.output.shape()[0] * self.cache.kv_heads();
        let tokens = std::iter::once(&self.positions).chain(&self.sequences);
        let beside = self.undone().into_iter().flatten().chain(tokens);
        Cost {
            bytes: bytes(beside.chain([&self.output])) + vectors * rows.vector_bytes(),
            operations: 0,
        }
    }
}
