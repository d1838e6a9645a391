//! Plain floats: each number for itself.

use super::family::{self, Bounds, Encoded, Family, HALF_BOUND, Refusal, Source};
use crate::DType;

family::types! {
    /// The floats that a cache can hold.
    FloatCodec: F32, F16, BF16
}

impl Family for FloatCodec {
    fn refuses(&self, _head_dim: usize) -> Option<&'static str> {
        None
    }

    fn code_bytes(&self, head_dim: usize) -> usize {
        family::dense_bytes(self.dtype(), head_dim)
    }

    fn bounds(&self, _group_len: usize) -> Bounds {
        let number = match self {
            FloatCodec::F32 => f64::INFINITY,
            FloatCodec::F16 => HALF_BOUND,
            // A little below what rounds to infinity.
            FloatCodec::BF16 => 3.396e38,
        };
        let norm = f64::INFINITY;
        Bounds { number, norm }
    }

    fn encode(&self, source: Source<'_>, out: Encoded<'_>) -> Result<(), Refusal> {
        family::encode_dense(self.dtype(), source, out)
    }

    fn decode(&self, codes: &[u8], _scales: &[u8], out: &mut [f32]) {
        family::decode_dense(self.dtype(), codes, out);
    }
}
