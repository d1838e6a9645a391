//! The types whose 4-bit codes are indices into a table.

use half::f16;

use super::blocks::blocks;
use super::parts::{BLOCK, SUPER_BLOCK, nibble, pack_low};
use super::reference::Reference;
use super::search::{Grid, Group, Symmetric};

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

/// The table, as a search sees it.
struct Table;

impl Grid for Table {
    const ENDS: (f32, f32) = (IQ4_VALUES[0] as f32, IQ4_VALUES[15] as f32);
    const STEP: f32 = 1.5;
    const HAS_TWO_ENDS: bool = true;

    #[inline(always)]
    fn nearest(value: f32) -> f32 {
        let mut number = Self::ENDS.0;
        for pair in IQ4_VALUES.windows(2) {
            let (low, high) = (f32::from(pair[0]), f32::from(pair[1]));
            number += if value > (low + high) / 2.0 {
                high - low
            } else {
                0.0
            };
        }
        number
    }

    fn code(number: f32) -> u8 {
        IQ4_VALUES.partition_point(|value| f32::from(*value) < number) as u8
    }
}

impl Reference<BLOCK> for BlockIq4Nl {
    const SEARCHES: bool = true;

    fn decode(&self, out: &mut [f32; BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * f32::from(IQ4_VALUES[usize::from(nibble(&self.qs, i))]);
        }
    }
    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let (d, codes) = Symmetric::<8>::apart::<Table, BLOCK>(group, 7)?;
        for (l, (block, codes)) in blocks.iter_mut().zip(codes.as_chunks().0).enumerate() {
            *block = BlockIq4Nl {
                d: d[l],
                qs: pack_low(codes),
            };
        }
        Some(())
    }
}

impl Reference<SUPER_BLOCK> for BlockIq4Xs {
    const SEARCHES: bool = true;

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
    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Symmetric::<8>::of::<Table, BLOCK>(group, 7, (-32.0, 31.0))?;
        let (mut scales_h, mut scales_l) = (0, [0; 4]);
        for (run, scale) in found.scales.iter().enumerate() {
            let code = (scale + 32.0) as u8;
            scales_l[run / 2] |= (code & 15) << (4 * (run % 2));
            scales_h |= u16::from(code >> 4) << (2 * run);
        }
        let mut qs = [0; 128];
        let runs = found.codes.as_chunks().0;
        for (bytes, codes) in qs.as_chunks_mut().0.iter_mut().zip(runs) {
            *bytes = pack_low(codes);
        }
        blocks[0] = BlockIq4Xs {
            d: found.d,
            scales_h,
            scales_l,
            qs,
        };
        Some(())
    }
}
