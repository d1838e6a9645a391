//! MLX's affine groups of 64 and 32 values as blocks of Walsh's own.
//!
//! MLX keeps codes, scales and biases in tensors of their own; here a group's lie together, its numbers in half
//! precision. Groups of 128 values are two blocks alike. Those of 32 have the types of GGML with a minimum where their
//! codes have 4 or 5 bits ([`BlockQ4_1`](super::BlockQ4_1), [`BlockQ5_1`](super::BlockQ5_1)).

use half::f16;

use super::blocks::{Field, Role, blocks, form};
use super::reference::Reference;
use crate::dtype::DType;

blocks! {
    /// x = d·q + m.
    BlockMlx2: MLX2, 2 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The bias.
        m: f16 as Minimum,
        /// Value 4·j + i lies in byte j, at bit 2·i.
        qs: [u8; 16] as Codes,
    }

    /// x = d·q + m.
    BlockMlx3: MLX3, 3 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The bias.
        m: f16 as Minimum,
        /// The low two bits, as in [`BlockMlx2`].
        qs: [u8; 16] as Codes,
        /// Bit i, least significant first, is the third bit of value i.
        qh: [u8; 8] as HighCodes,
    }

    /// x = d·q + m.
    BlockMlx4: MLX4, 4 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The bias.
        m: f16 as Minimum,
        /// The codes of two runs of 32 values, each as in [`BlockQ4_0`](super::BlockQ4_0).
        qs: [u8; 32] as Codes,
    }

    /// x = d·q + m.
    BlockMlx5: MLX5, 5 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The bias.
        m: f16 as Minimum,
        /// The low four bits, as in [`BlockMlx4`].
        qs: [u8; 32] as Codes,
        /// Bit i, least significant first, is the fifth bit of value i.
        qh: [u8; 8] as HighCodes,
    }

    /// x = d·q + m.
    BlockMlx6: MLX6, 6 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The bias.
        m: f16 as Minimum,
        /// The low four bits, as in [`BlockMlx4`].
        qs: [u8; 32] as Codes,
        /// The two bits above, as in [`BlockMlx2`].
        qh: [u8; 16] as HighCodes,
    }

    /// x = d·q + m.
    BlockMlx8: MLX8, 8 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The bias.
        m: f16 as Minimum,
        /// The codes in order.
        qs: [u8; 64] as Codes,
    }

    /// x = d·q + m.
    BlockMlx2G32: MLX2G32, 2 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The bias.
        m: f16 as Minimum,
        /// The codes, as in [`BlockMlx2`].
        qs: [u8; 8] as Codes,
    }

    /// x = d·q + m.
    BlockMlx3G32: MLX3G32, 3 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The bias.
        m: f16 as Minimum,
        /// The low two bits, as in [`BlockMlx2`].
        qs: [u8; 8] as Codes,
        /// Bit i, least significant first, is the third bit of value i.
        qh: [u8; 4] as HighCodes,
    }

    /// x = d·q + m.
    BlockMlx6G32: MLX6G32, 6 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The bias.
        m: f16 as Minimum,
        /// The low four bits, as in [`BlockQ4_0`](super::BlockQ4_0).
        qs: [u8; 16] as Codes,
        /// The two bits above, as in [`BlockMlx2`].
        qh: [u8; 8] as HighCodes,
    }

    /// x = d·q + m.
    BlockMlx8G32: MLX8G32, 8 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The bias.
        m: f16 as Minimum,
        /// The codes in order.
        qs: [u8; 32] as Codes,
    }
}

/// Decodes a block by its codes.
macro_rules! reference {
    ($($block:ident of $group:literal: |$self:ident, $i:ident| $code:expr;)*) => {$(
        impl Reference<$group> for $block {
            fn decode(&self, out: &mut [f32; $group]) {
                let ($self, d, m) = (self, self.d.to_f32(), self.m.to_f32());
                for ($i, value) in out.iter_mut().enumerate() {
                    *value = d * f32::from($code) + m;
                }
            }
        }
    )*};
}

reference! {
    BlockMlx2 of 64: |block, i| bits(&block.qs, 2, i);
    BlockMlx3 of 64: |block, i| bits(&block.qs, 2, i) | bits(&block.qh, 1, i) << 2;
    BlockMlx4 of 64: |block, i| bits(&block.qs, 4, i);
    BlockMlx5 of 64: |block, i| bits(&block.qs, 4, i) | bits(&block.qh, 1, i) << 4;
    BlockMlx6 of 64: |block, i| bits(&block.qs, 4, i) | bits(&block.qh, 2, i) << 4;
    BlockMlx8 of 64: |block, i| block.qs[i];
    BlockMlx2G32 of 32: |block, i| bits(&block.qs, 2, i);
    BlockMlx3G32 of 32: |block, i| bits(&block.qs, 2, i) | bits(&block.qh, 1, i) << 2;
    BlockMlx6G32 of 32: |block, i| bits(&block.qs, 4, i) | bits(&block.qh, 2, i) << 4;
    BlockMlx8G32 of 32: |block, i| block.qs[i];
}

/// So many bits of the code of value `i`: four in runs of 32 as in [`BlockQ4_0`](super::BlockQ4_0), fewer in order, the
/// least significant first.
fn bits(bytes: &[u8], bits: usize, i: usize) -> u8 {
    let (at, shift) = place(bits, i);
    bytes[at] >> shift & (u8::MAX >> (8 - bits))
}

/// The byte, and the lowest bit in it, that value `i` has of bits that so many of each code lie together.
fn place(bits: usize, i: usize) -> (usize, usize) {
    match bits {
        4 => (i / 32 * 16 + i % 16, i % 32 / 16 * 4),
        _ => (i * bits / 8, i * bits % 8),
    }
}

/// Packs codes of four bits into half as many bytes: the first half of them into the low nibbles, as in
/// [`BlockQ4_0`](super::BlockQ4_0).
pub(crate) fn pack_nibbles(codes: &[u8], to: &mut [u8]) {
    let (low, high) = codes.split_at(to.len());
    for ((byte, low), high) in to.iter_mut().zip(low).zip(high) {
        *byte = low | high << 4;
    }
}

/// Makes a block of the codes of a group: `scale·code + bias`. Groups of several blocks are made block by block.
///
/// It returns whether the type is one of those with a scale, a minimum and codes in order: those of MLX, and `q4_1` and
/// `q5_1`.
///
/// # Panics
/// When `codes` or `block` are no block's.
pub fn affine(dtype: DType, [scale, bias]: [f16; 2], codes: &[u8], block: &mut [u8]) -> bool {
    let Some(form) = form(dtype).filter(|form| form.at(Role::Minimum).is_some()) else {
        return false;
    };
    assert!(codes.len() == dtype.block_len() && block.len() == dtype.block_bytes());
    block.fill(0);
    let mut done = 0;
    for Field { role, at, bytes } in form.fields {
        let field = &mut block[*at..*at + *bytes];
        match role {
            Role::Scale => field.copy_from_slice(&scale.to_le_bytes()),
            Role::Minimum => field.copy_from_slice(&bias.to_le_bytes()),
            _ => {
                let bits = 8 * bytes / codes.len();
                // The codes' low bits come after the others in GGML's blocks.
                let below = if *role == Role::Codes {
                    0
                } else {
                    form.bits as usize - bits
                };
                for (i, code) in codes.iter().enumerate() {
                    let (at, shift) = place(bits, i);
                    field[at] |= (code >> below & (u8::MAX >> (8 - bits))) << shift;
                }
                done += bits;
            }
        }
    }
    debug_assert_eq!(done, form.bits as usize);
    true
}
