//! The types of one scale and codes of two or three values, or four.

use half::f16;

use super::blocks::blocks;
use super::parts::SUPER_BLOCK;
use super::reference::Reference;

/// The values of a block of Q1_0.
const Q1_0_BLOCK: usize = 128;

/// The values of a block of Q2_0.
const Q2_0_BLOCK: usize = 64;

blocks! {
    /// x = d·(q − 1), with q from 0 to 2.
    BlockTq1_0: TQ1_0, 2 bits, zero at 1 {
        /// Five codes a byte, as [`ternary_digit`] reads them. Value 32·n + i (n < 5, i < 32) is digit n of byte i; value
        /// 160 + 16·n + i (i < 16) is digit n of byte 32 + i.
        qs: [u8; 48] as Codes,
        /// Four codes a byte: value 240 + 4·n + i (n < 4, i < 4) is digit n of byte i.
        qh: [u8; 4] as HighCodes,
        /// The scale.
        d: f16 as Scale,
    }

    /// x = d·(q − 1).
    BlockTq2_0: TQ2_0, 2 bits, zero at 1 {
        /// Value 128·h + 32·s + i lies in byte 32·h + i, at bit 2·s.
        qs: [u8; 64] as Codes,
        /// The scale.
        d: f16 as Scale,
    }

    /// x = d·(2·q − 1).
    BlockQ1_0: Q1_0, 1 bits, zero at 1 {
        /// The scale.
        d: f16 as Scale,
        /// Value 8·j + i lies in byte j, at bit i.
        qs: [u8; 16] as Codes,
    }

    /// x = d·(q − 1).
    BlockQ2_0: Q2_0, 2 bits, zero at 1 {
        /// The scale.
        d: f16 as Scale,
        /// Value 4·j + i lies in byte j, at bit 2·i.
        qs: [u8; 16] as Codes,
    }
}

/// What a byte is multiplied by to bring ternary digit `n` to the front.
pub const POWERS_OF_3: [u8; 5] = [1, 3, 9, 27, 81];

/// Ternary digit `n` (below 5), the first most significant, of a byte, which is a fraction of 256.
#[inline]
pub const fn ternary_digit(byte: u8, n: usize) -> u8 {
    ((byte.wrapping_mul(POWERS_OF_3[n]) as u16 * 3) >> 8) as u8
}

impl Reference<SUPER_BLOCK> for BlockTq1_0 {
    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            let digit = match i {
                0..160 => ternary_digit(self.qs[i % 32], i / 32),
                160..240 => ternary_digit(self.qs[32 + i % 16], (i - 160) / 16),
                _ => ternary_digit(self.qh[i % 4], (i - 240) / 4),
            };
            *value = d * (f32::from(digit) - 1.0);
        }
    }
}

impl Reference<SUPER_BLOCK> for BlockTq2_0 {
    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            let code = self.qs[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4)) & 3;
            *value = d * (f32::from(code) - 1.0);
        }
    }
}

impl Reference<Q1_0_BLOCK> for BlockQ1_0 {
    fn decode(&self, out: &mut [f32; Q1_0_BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            let is_set = self.qs[i / 8] >> (i % 8) & 1 == 1;
            *value = if is_set { d } else { -d };
        }
    }
}

impl Reference<Q2_0_BLOCK> for BlockQ2_0 {
    fn decode(&self, out: &mut [f32; Q2_0_BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            let code = self.qs[i / 4] >> (2 * (i % 4)) & 3;
            *value = d * (f32::from(code) - 1.0);
        }
    }
}
