//! Floats of four bits, with scales that are powers of two (MXFP4) or floats of eight bits (NVFP4).

use super::blocks::blocks;
use super::parts::{BLOCK, e8m0, largest, nibble, pack_low, ue4m3};
use super::reference::{Encoder, Reference};

/// Twice the values that the codes of MXFP4 and NVFP4 stand for: E2M1 floats. The scales are halved for it.
pub const FP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The values of a block of NVFP4.
const NVFP4_BLOCK: usize = 64;

/// The values that share a scale of NVFP4.
const NVFP4_RUN: usize = 16;

blocks! {
    /// x = [`e8m0`]\(e\)·[`FP4_VALUES`]\[q\].
    BlockMxfp4: MXFP4, 4 bits, zero at 0 {
        /// The scale.
        e: u8 as PowerScale,
        /// The codes, as in [`BlockQ4_0`](super::BlockQ4_0).
        qs: [u8; 16] as Codes,
    }

    /// x = [`ue4m3`]\(d\)·[`FP4_VALUES`]\[q\] for each run of 16 values. What a file's tensor is multiplied by beside that
    /// lies in a tensor of its own.
    BlockNvfp4: NVFP4, 4 bits, zero at 0 {
        /// The scales.
        d: [u8; 4] as FloatScales,
        /// Run j has its codes in bytes 8·j to 8·j + 7: value i in the low nibble of byte i, value i + 8 in the high one.
        qs: [u8; 32] as Codes,
    }
}

impl Reference<BLOCK> for BlockMxfp4 {
    const ENCODER: Option<Encoder<Self, BLOCK>> = Some(Self::encode);

    fn decode(&self, out: &mut [f32; BLOCK]) {
        let d = e8m0(self.e);
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * f32::from(FP4_VALUES[usize::from(nibble(&self.qs, i))]);
        }
    }
}

impl BlockMxfp4 {
    /// The power of two two below the largest magnitude, whose codes reach up to six times it.
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        let peak = values[largest(values)].abs();
        // The logarithm is rounded to single precision before its fraction goes, as in GGML: a number just below a power
        // of two may count as that power.
        let exponent = libm::floorf(libm::log2(f64::from(peak)) as f32);
        let e = if peak > 0.0 {
            (exponent + 125.0).max(0.0) as u8
        } else {
            0
        };
        let d = e8m0(e);
        let codes = values.map(|value| {
            let apart =
                |code: &u8| (d * f32::from(FP4_VALUES[usize::from(*code)]) - value.abs()).abs();
            // Of two as near the first.
            let code = (0..8)
                .min_by(|a, b| apart(a).total_cmp(&apart(b)))
                .unwrap_or(0);
            if value < 0.0 && code > 0 {
                code + 8
            } else {
                code
            }
        });
        Some(BlockMxfp4 {
            e,
            qs: pack_low(&codes),
        })
    }
}

impl Reference<NVFP4_BLOCK> for BlockNvfp4 {
    fn decode(&self, out: &mut [f32; NVFP4_BLOCK]) {
        for (i, value) in out.iter_mut().enumerate() {
            let (run, at) = (i / NVFP4_RUN, i % NVFP4_RUN);
            let code = self.qs[8 * run + at % 8] >> (4 * (at / 8)) & 15;
            *value = ue4m3(self.d[run]) * f32::from(FP4_VALUES[usize::from(code)]);
        }
    }
}
