//! The K types: blocks of 256 values, whose runs have scales of their own.

use half::f16;

use super::blocks::blocks;
use super::parts::SUPER_BLOCK;
use super::reference::Reference;
use super::search::{Affine, Even, Group, Symmetric};

blocks! {
    /// x = d·scale·q − dmin·min for each run of 16 values.
    BlockQ2K: Q2K, 2 bits, zero at 0 {
        /// For each run of 16 values, the scale in the low nibble and the minimum in the high one.
        scales: [u8; 16] as Scales,
        /// Value 128·h + 32·s + i lies in byte 32·h + i, at bit 2·s.
        qs: [u8; 64] as Codes,
        /// The scale of the scales.
        d: f16 as Scale,
        /// The scale of the minima.
        dmin: f16 as MinimumScale,
    }

    /// x = d·(scale − 32)·(q − 4) for each run of 16 values.
    BlockQ3K: Q3K, 3 bits, zero at 4 {
        /// Value 32·s + i has its third bit in byte i, at bit s.
        hmask: [u8; 32] as HighCodes,
        /// The low two bits, as in [`BlockQ2K`].
        qs: [u8; 64] as Codes,
        /// Sixteen 6-bit scales. Scale j has its low four bits in byte j mod 8 (low nibble for j < 8, else
        /// high), and its high two bits in byte 8 + j mod 4, at bit 2·(j / 4).
        scales: [u8; 12] as Scales,
        /// The scale of the scales.
        d: f16 as Scale,
    }

    /// x = d·scale·q − dmin·min for each run of 32 values.
    BlockQ4K: Q4K, 4 bits, zero at 0 {
        /// The scale of the scales.
        d: f16 as Scale,
        /// The scale of the minima.
        dmin: f16 as MinimumScale,
        /// Eight 6-bit scales and eight 6-bit minima; [`scale_min_k4`] reads them.
        scales: [u8; 12] as Scales,
        /// Value 64·h + i lies in byte 32·h + i, low nibble for i < 32; value 64·h + 32 + i in the high one.
        qs: [u8; 128] as Codes,
    }

    /// x = d·scale·q − dmin·min for each run of 32 values.
    BlockQ5K: Q5K, 5 bits, zero at 0 {
        /// The scale of the scales.
        d: f16 as Scale,
        /// The scale of the minima.
        dmin: f16 as MinimumScale,
        /// As in [`BlockQ4K`].
        scales: [u8; 12] as Scales,
        /// Value 32·s + i has its fifth bit in byte i, at bit s.
        qh: [u8; 32] as HighCodes,
        /// The low four bits, as in [`BlockQ4K`].
        qs: [u8; 128] as Codes,
    }

    /// x = d·scale·(q − 32) for each run of 16 values.
    BlockQ6K: Q6K, 6 bits, zero at 32 {
        /// The low four bits: value 128·h + 64·n + i (i < 64) lies in byte 64·h + i, nibble n.
        ql: [u8; 128] as Codes,
        /// The high two bits: value 128·h + 32·s + i lies in byte 32·h + i, at bit 2·s.
        qh: [u8; 64] as HighCodes,
        /// One scale for each run of 16 values.
        scales: [i8; 16] as Scales,
        /// The scale of the scales.
        d: f16 as Scale,
    }
}

impl Reference<SUPER_BLOCK> for BlockQ2K {
    const SEARCHES: bool = true;

    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (i, value) in out.iter_mut().enumerate() {
            let packed = self.scales[i / 16];
            let scale = d * f32::from(packed & 15);
            let min = dmin * f32::from(packed >> 4);
            *value = scale * f32::from(two_bits(&self.qs, i)) - min;
        }
    }

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Affine::<16>::of::<16>(group, 3.0, 15.0)?;
        let scales = found.scales.into_iter().zip(found.minima);
        let mut packed = [0; 16];
        for (byte, (scale, min)) in packed.iter_mut().zip(scales) {
            *byte = scale as u8 | (min as u8) << 4;
        }
        blocks[0] = BlockQ2K {
            scales: packed,
            qs: pack_two_bits(&found.codes),
            d: found.d,
            dmin: found.dmin,
        };
        Some(())
    }
}

impl Reference<SUPER_BLOCK> for BlockQ3K {
    const SEARCHES: bool = true;

    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            let run = i / 16;
            let low = (self.scales[run % 8] >> (4 * (run / 8))) & 15;
            let high = (self.scales[8 + run % 4] >> (2 * (run / 4))) & 3;
            let scale = d * (f32::from(low | (high << 4)) - 32.0);
            let third = (self.hmask[i % 32] >> (i / 32)) & 1;
            *value = scale * (f32::from(two_bits(&self.qs, i) | (third << 2)) - 4.0);
        }
    }

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Symmetric::<16>::of::<Even<4>, 16>(group, 8, (-32.0, 31.0))?;
        let mut scales = [0; 12];
        for (run, scale) in found.scales.iter().enumerate() {
            let code = (scale + 32.0) as u8;
            scales[run % 8] |= (code & 15) << (4 * (run / 8));
            scales[8 + run % 4] |= (code >> 4) << (2 * (run / 4));
        }
        let mut hmask = [0; 32];
        for (i, code) in found.codes.iter().enumerate() {
            hmask[i % 32] |= (code >> 2) << (i / 32);
        }
        blocks[0] = BlockQ3K {
            hmask,
            qs: pack_two_bits(&found.codes),
            scales,
            d: found.d,
        };
        Some(())
    }
}

impl Reference<SUPER_BLOCK> for BlockQ4K {
    const SEARCHES: bool = true;

    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (i, value) in out.iter_mut().enumerate() {
            let (scale, min) = scale_min_k4(&self.scales, i / 32);
            let q = f32::from(four_bits(&self.qs, i));
            *value = d * f32::from(scale) * q - dmin * f32::from(min);
        }
    }

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Affine::<8>::of::<32>(group, 15.0, 63.0)?;
        blocks[0] = BlockQ4K {
            d: found.d,
            dmin: found.dmin,
            scales: pack_scales_k4(&found),
            qs: pack_four_bits(&found.codes),
        };
        Some(())
    }
}

impl Reference<SUPER_BLOCK> for BlockQ5K {
    const SEARCHES: bool = true;

    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (i, value) in out.iter_mut().enumerate() {
            let (scale, min) = scale_min_k4(&self.scales, i / 32);
            let fifth = (self.qh[i % 32] >> (i / 32)) & 1;
            let q = f32::from(four_bits(&self.qs, i) | (fifth << 4));
            *value = d * f32::from(scale) * q - dmin * f32::from(min);
        }
    }

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Affine::<8>::of::<32>(group, 31.0, 63.0)?;
        let mut qh = [0; 32];
        for (i, code) in found.codes.iter().enumerate() {
            qh[i % 32] |= (code >> 4) << (i / 32);
        }
        blocks[0] = BlockQ5K {
            d: found.d,
            dmin: found.dmin,
            scales: pack_scales_k4(&found),
            qh,
            qs: pack_four_bits(&found.codes),
        };
        Some(())
    }
}

impl Reference<SUPER_BLOCK> for BlockQ6K {
    const SEARCHES: bool = true;

    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            let low = (self.ql[64 * (i / 128) + i % 64] >> (4 * (i / 64 % 2))) & 15;
            let high = two_bits(&self.qh, i);
            let scale = d * f32::from(self.scales[i / 16]);
            *value = scale * (f32::from(low | (high << 4)) - 32.0);
        }
    }

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Symmetric::<16>::of::<Even<32>, 16>(group, 8, (-128.0, 127.0))?;
        let mut ql = [0; 128];
        for (i, code) in found.codes.iter().enumerate() {
            ql[64 * (i / 128) + i % 64] |= (code & 15) << (4 * (i / 64 % 2));
        }
        let high = found.codes.map(|code| code >> 4);
        blocks[0] = BlockQ6K {
            ql,
            qh: pack_two_bits(&high),
            scales: found.scales.map(|scale| scale as i8),
            d: found.d,
        };
        Some(())
    }
}

/// The low two bits of value `i` of a block of the 2-bit and 3-bit types.
fn two_bits(qs: &[u8; 64], i: usize) -> u8 {
    let (half, shift, byte) = (i / 128, i / 32 % 4, i % 32);
    (qs[32 * half + byte] >> (2 * shift)) & 3
}

/// The low two bits of codes, where [`two_bits`] finds them.
fn pack_two_bits(codes: &[u8; SUPER_BLOCK]) -> [u8; 64] {
    let mut qs = [0; 64];
    for (i, code) in codes.iter().enumerate() {
        qs[32 * (i / 128) + i % 32] |= (code & 3) << (2 * (i / 32 % 4));
    }
    qs
}

/// The low four bits of value `i` of a block of Q4_K and Q5_K.
fn four_bits(qs: &[u8; 128], i: usize) -> u8 {
    (qs[32 * (i / 64) + i % 32] >> (4 * (i / 32 % 2))) & 15
}

/// The low four bits of codes, where [`four_bits`] finds them.
fn pack_four_bits(codes: &[u8; SUPER_BLOCK]) -> [u8; 128] {
    let mut qs = [0; 128];
    for (i, code) in codes.iter().enumerate() {
        qs[32 * (i / 64) + i % 32] |= (code & 15) << (4 * (i / 32 % 2));
    }
    qs
}

/// Scales and minima of 6 bits, where [`scale_min_k4`] finds them.
fn pack_scales_k4(found: &Affine<8>) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..8 {
        let (scale, min) = (found.scales[j] as u8, found.minima[j] as u8);
        if j < 4 {
            packed[j] |= scale;
            packed[j + 4] |= min;
        } else {
            packed[j + 4] = (scale & 15) | (min & 15) << 4;
            packed[j - 4] |= (scale >> 4) << 6;
            packed[j] |= (min >> 4) << 6;
        }
    }
    packed
}

/// The 6-bit scale and minimum of run `j` (0 to 7) of 32 values in a block of Q4_K or Q5_K.
///
/// The first four of each lie in the low six bits of bytes 0 to 7. Of the last four, the low four bits
/// lie in bytes 8 to 11 (scale low, minimum high) and the high two in the upper bits of bytes 0 to 7.
#[inline]
pub fn scale_min_k4(scales: &[u8; 12], j: usize) -> (u8, u8) {
    if j < 4 {
        return (scales[j] & 63, scales[j + 4] & 63);
    }
    let low = scales[j + 4];
    let scale = (low & 15) | ((scales[j - 4] >> 6) << 4);
    let min = (low >> 4) | ((scales[j] >> 6) << 4);
    (scale, min)
}
