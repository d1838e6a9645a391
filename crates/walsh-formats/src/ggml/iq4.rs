//! The types whose 4-bit codes are indices into a table.

use bytemuck::Zeroable;
use half::f16;

use super::blocks::{BLOCK, SUPER_BLOCK, blocks};
use super::legacy::{nibble, pack_low};
use super::reference::{Encoder, Reference, half, inverse, largest};

/// The values that the 4-bit indices of IQ4_NL and IQ4_XS stand for.
pub const IQ4_VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

blocks! {
    /// x = d·[`IQ4_VALUES`]\[q\].
    BlockIq4Nl: IQ4NL, 4 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The indices, as in [`BlockQ4_0`](super::BlockQ4_0).
        qs: [u8; 16] as Codes,
    }

    /// x = d·(scale − 32)·[`IQ4_VALUES`]\[q\] for each run of 32 values.
    BlockIq4Xs: IQ4XS, 4 bits, zero at 0 {
        /// The scale of the scales.
        d: f16 as Scale,
        /// The high two bits of the scale of run j, at bit 2·j.
        scales_h: u16 as HighScales,
        /// The low four bits of the scale of run j: byte j / 2, low nibble for even j.
        scales_l: [u8; 4] as Scales,
        /// Run j has its indices in bytes 16·j to 16·j + 15, laid out as in [`BlockQ4_0`](super::BlockQ4_0).
        qs: [u8; 128] as Codes,
    }
}

impl Reference<BLOCK> for BlockIq4Nl {
    const ENCODER: Option<Encoder<Self, BLOCK>> = Some(Self::encode);

    fn decode(&self, out: &mut [f32; BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * f32::from(IQ4_VALUES[usize::from(nibble(&self.qs, i))]);
        }
    }
}

impl BlockIq4Nl {
    /// The table is not symmetric, so that both signs of the scale are worth a try. For given indices the
    /// best scale follows by least squares; what remains is the search for the indices, from scales that
    /// put the largest value near either end of the table. Candidates are judged after rounding the scale,
    /// which matters where it is subnormal.
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        const STEPS: i8 = 8;
        let peak = values[largest(values)];
        if peak == 0.0 {
            return Some(BlockIq4Nl {
                qs: [nearest_iq4(0.0) * 0x11; 16],
                ..BlockIq4Nl::zeroed()
            });
        }
        // In units of the peak, so that squares neither overflow nor vanish.
        let unit = values.map(|value| value / peak);
        let mut best: Option<(f32, BlockIq4Nl)> = None;
        for end in [IQ4_VALUES[0], IQ4_VALUES[15]] {
            for step in -STEPS..=STEPS {
                let inverse = f32::from(end) + f32::from(step);
                let (mut along, mut square) = (0.0, 0.0);
                for value in unit {
                    let stored = iq4(nearest_iq4(value * inverse));
                    along += stored * value;
                    square += stored * stored;
                }
                let Some(d) = half(along / square * peak) else {
                    continue;
                };
                let (error, block) = iq4_nl_with_scale(values, d, peak);
                if best.is_none_or(|best| error < best.0) {
                    best = Some((error, block));
                }
            }
        }
        best.map(|best| best.1)
    }
}

impl Reference<SUPER_BLOCK> for BlockIq4Xs {
    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let d = self.d.to_f32();
        for (run, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = (self.scales_l[run / 2] >> (4 * (run % 2))) & 15;
            let high = (self.scales_h >> (2 * run)) as u8 & 3;
            let scale = d * (f32::from(low | (high << 4)) - 32.0);
            let qs = &self.qs[16 * run..16 * run + 16];
            for (i, value) in values.iter_mut().enumerate() {
                *value = scale * f32::from(IQ4_VALUES[usize::from(nibble(qs, i))]);
            }
        }
    }
}

/// The index of the table's value nearest to `value`.
fn nearest_iq4(value: f32) -> u8 {
    let mut index = 0;
    for pair in IQ4_VALUES.windows(2) {
        let middle = (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
        index += u8::from(value > middle);
    }
    index
}

/// The value that an index of the 4-bit table stands for.
fn iq4(index: u8) -> f32 {
    f32::from(IQ4_VALUES[usize::from(index)])
}

/// The block with this scale, and its squared error in units of `peak`.
fn iq4_nl_with_scale(values: &[f32; BLOCK], d: f16, peak: f32) -> (f32, BlockIq4Nl) {
    let scale = d.to_f32();
    let inverse = inverse(scale);
    let codes = values.map(|value| nearest_iq4(value * inverse));
    let mut error = 0.0;
    for (value, index) in values.iter().zip(codes) {
        let difference = (value - scale * iq4(index)) / peak;
        error += difference * difference;
    }
    let qs = pack_low(&codes);
    (error, BlockIq4Nl { d, qs })
}
