//! The types of blocks of 32 values with one scale.

use half::f16;

use super::blocks::blocks;
use super::parts::{BLOCK, half, inverse, largest, nibble, pack_low};
use super::reference::{Encoder, Reference};
use super::search::{Even, Group, Spans, Symmetric};

blocks! {
    /// x = d·(q − 8).
    BlockQ4_0: Q4_0, 4 bits, zero at 8 {
        /// The scale.
        d: f16 as Scale,
        /// Value i in the low nibble of byte i, value i + 16 in the high one.
        qs: [u8; 16] as Codes,
    }

    /// x = d·q + m.
    BlockQ4_1: Q4_1, 4 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The minimum.
        m: f16 as Minimum,
        /// Value i in the low nibble of byte i, value i + 16 in the high one.
        qs: [u8; 16] as Codes,
    }

    /// x = d·(q − 16).
    BlockQ5_0: Q5_0, 5 bits, zero at 16 {
        /// The scale.
        d: f16 as Scale,
        /// Bit i, least significant first, is the fifth bit of value i.
        qh: [u8; 4] as HighCodes,
        /// The low four bits, as in [`BlockQ4_0`].
        qs: [u8; 16] as Codes,
    }

    /// x = d·q + m.
    BlockQ5_1: Q5_1, 5 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The minimum.
        m: f16 as Minimum,
        /// Bit i, least significant first, is the fifth bit of value i.
        qh: [u8; 4] as HighCodes,
        /// The low four bits, as in [`BlockQ4_0`].
        qs: [u8; 16] as Codes,
    }

    /// x = d·q.
    BlockQ8_0: Q8_0, 8 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The values in order.
        qs: [i8; 32] as Codes,
    }
}

impl Reference<BLOCK> for BlockQ4_0 {
    const ENCODER: Option<Encoder<Self, BLOCK>> = Some(Self::encode);
    const SEARCHES: bool = true;

    fn decode(&self, out: &mut [f32; BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * (f32::from(nibble(&self.qs, i)) - 8.0);
        }
    }

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let (d, codes) = Symmetric::<8>::apart::<Even<8>, BLOCK>(group, 8)?;
        for (l, (block, codes)) in blocks.iter_mut().zip(codes.as_chunks().0).enumerate() {
            *block = BlockQ4_0 {
                d: d[l],
                qs: pack_low(codes),
            };
        }
        Some(())
    }
}

impl BlockQ4_0 {
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        let (scale, codes) = signed_codes(values, 8);
        Some(BlockQ4_0 {
            d: half(scale)?,
            qs: pack_low(&codes),
        })
    }
}

impl Reference<BLOCK> for BlockQ4_1 {
    const ENCODER: Option<Encoder<Self, BLOCK>> = Some(Self::encode);
    const SEARCHES: bool = true;

    fn decode(&self, out: &mut [f32; BLOCK]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * f32::from(nibble(&self.qs, i)) + m;
        }
    }

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Spans::<8>::of::<BLOCK>(group, 15.0)?;
        for (l, (block, codes)) in blocks.iter_mut().zip(found.codes.as_chunks().0).enumerate() {
            *block = BlockQ4_1 {
                d: found.d[l],
                m: found.m[l],
                qs: pack_low(codes),
            };
        }
        Some(())
    }
}

impl BlockQ4_1 {
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        let (scale, min, codes) = spanning_codes(values, 15);
        Some(BlockQ4_1 {
            d: half(scale)?,
            m: half(min)?,
            qs: pack_low(&codes),
        })
    }
}

impl Reference<BLOCK> for BlockQ5_0 {
    const ENCODER: Option<Encoder<Self, BLOCK>> = Some(Self::encode);
    const SEARCHES: bool = true;

    fn decode(&self, out: &mut [f32; BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * (f32::from(five_bits(&self.qs, self.qh, i)) - 16.0);
        }
    }

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let (d, codes) = Symmetric::<8>::apart::<Even<16>, BLOCK>(group, 8)?;
        for (l, (block, codes)) in blocks.iter_mut().zip(codes.as_chunks().0).enumerate() {
            *block = BlockQ5_0 {
                d: d[l],
                qh: pack_fifth(codes),
                qs: pack_low(codes),
            };
        }
        Some(())
    }
}

impl BlockQ5_0 {
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        let (scale, codes) = signed_codes(values, 16);
        Some(BlockQ5_0 {
            d: half(scale)?,
            qh: pack_fifth(&codes),
            qs: pack_low(&codes),
        })
    }
}

impl Reference<BLOCK> for BlockQ5_1 {
    const ENCODER: Option<Encoder<Self, BLOCK>> = Some(Self::encode);
    const SEARCHES: bool = true;

    fn decode(&self, out: &mut [f32; BLOCK]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * f32::from(five_bits(&self.qs, self.qh, i)) + m;
        }
    }

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Spans::<8>::of::<BLOCK>(group, 31.0)?;
        for (l, (block, codes)) in blocks.iter_mut().zip(found.codes.as_chunks().0).enumerate() {
            *block = BlockQ5_1 {
                d: found.d[l],
                m: found.m[l],
                qh: pack_fifth(codes),
                qs: pack_low(codes),
            };
        }
        Some(())
    }
}

impl BlockQ5_1 {
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        let (scale, min, codes) = spanning_codes(values, 31);
        Some(BlockQ5_1 {
            d: half(scale)?,
            m: half(min)?,
            qh: pack_fifth(&codes),
            qs: pack_low(&codes),
        })
    }
}

impl Reference<BLOCK> for BlockQ8_0 {
    const ENCODER: Option<Encoder<Self, BLOCK>> = Some(Self::encode);

    fn decode(&self, out: &mut [f32; BLOCK]) {
        let d = self.d.to_f32();
        for (value, q) in out.iter_mut().zip(self.qs) {
            *value = d * f32::from(q);
        }
    }
}

impl BlockQ8_0 {
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        let scale = values[largest(values)].abs() / 127.0;
        let inverse = inverse(scale);
        Some(BlockQ8_0 {
            d: half(scale)?,
            qs: values.map(|value| (value * inverse).round() as i8),
        })
    }
}

/// The same with a fifth bit.
fn five_bits(qs: &[u8; 16], qh: [u8; 4], i: usize) -> u8 {
    let high = (u32::from_le_bytes(qh) >> i) as u8 & 1;
    nibble(qs, i) | (high << 4)
}

fn range(values: &[f32; BLOCK]) -> (f32, f32) {
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    (
        values.iter().copied().fold(values[0], smaller),
        values.iter().copied().fold(values[0], larger),
    )
}

/// A code from 0 to `most`: `value` without its fraction.
fn code(value: f32, most: u8) -> u8 {
    (value as u8).min(most)
}

/// The fifth bits of 32 codes.
fn pack_fifth(codes: &[u8; BLOCK]) -> [u8; 4] {
    let mut bits = 0;
    for (i, code) in codes.iter().enumerate() {
        bits |= u32::from(code >> 4 & 1) << i;
    }
    bits.to_le_bytes()
}

/// Codes around an offset of 2^(bits−1), the scale chosen by the value of the largest magnitude.
fn signed_codes(values: &[f32; BLOCK], offset: u8) -> (f32, [u8; BLOCK]) {
    let centre = f32::from(offset);
    let scale = values[largest(values)] / -centre;
    let inverse = inverse(scale);
    let codes = values.map(|value| code(value * inverse + (centre + 0.5), 2 * offset - 1));
    (scale, codes)
}

/// Codes from the minimum to the maximum.
fn spanning_codes(values: &[f32; BLOCK], most: u8) -> (f32, f32, [u8; BLOCK]) {
    let (min, max) = range(values);
    let scale = (max - min) / f32::from(most);
    let inverse = inverse(scale);
    let codes = values.map(|value| code((value - min) * inverse + 0.5, most));
    (scale, min, codes)
}
