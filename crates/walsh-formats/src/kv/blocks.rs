//! GGML's blocks of 32 numbers, each with its scale among the codes. [`ggml::form`](crate::ggml::form) says how they lie.

use super::family::{self, Bounds, Encoded, Family, HALF_BOUND, Refusal, Source};
use crate::DType;

family::types! {
    /// The block types that a cache can hold.
    BlockCodec: Q8_0, Q5_0, Q4_0
}

impl Family for BlockCodec {
    fn refuses(&self, head_dim: usize) -> Option<&'static str> {
        (!head_dim.is_multiple_of(self.dtype().block_len())).then_some(
            "it must be a multiple of the block of 32 numbers; f16 and tq8 take this size",
        )
    }

    fn code_bytes(&self, head_dim: usize) -> usize {
        family::dense_bytes(self.dtype(), head_dim)
    }

    fn bounds(&self, _group_len: usize) -> Bounds {
        // The largest magnitude of a block is so many times its scale.
        let most = match self {
            BlockCodec::Q8_0 => 127.0,
            BlockCodec::Q5_0 => 16.0,
            BlockCodec::Q4_0 => 8.0,
        };
        Bounds {
            number: most * HALF_BOUND,
            norm: f64::INFINITY,
        }
    }

    fn encode(&self, source: Source<'_>, out: Encoded<'_>) -> Result<(), Refusal> {
        family::encode_dense(self.dtype(), source, out)
    }

    fn decode(&self, codes: &[u8], _scales: &[u8], out: &mut [f32]) {
        family::decode_dense(self.dtype(), codes, out);
    }
}
