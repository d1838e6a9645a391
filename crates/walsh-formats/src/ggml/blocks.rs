//! GGML's blocks as structs, little-endian, without padding.
//!
//! All of them have an alignment of at most 2 bytes, because a row of a mapped file need not start at
//! more than that. In the field's comments, `d` is the block's scale and `x` a decoded value.

use bytemuck::Pod;
use half::f16;

use super::parts::{e8m0, ue4m3};
use crate::dtype::DType;

/// A block as it lies in a file.
pub trait Block: Pod {
    /// The type that the block belongs to.
    const DTYPE: DType;
    /// Where its fields lie, and what its codes mean.
    const FORM: Form;
}

/// What a block's bytes are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Form {
    /// The bits of a value's code.
    pub bits: u32,
    /// The code that stands for zero; 0 too where a minimum or a table says what codes stand for.
    pub zero: u32,
    /// Its fields, in their order.
    pub fields: &'static [Field],
}

/// A field of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub role: Role,
    /// Where it begins, in bytes.
    pub at: usize,
    /// How many bytes it has.
    pub bytes: usize,
}

/// What a field of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The block's scale, or the scale of its scales: half precision.
    Scale,
    /// The block's scale as a power of two: a byte, see [`e8m0`](super::e8m0).
    PowerScale,
    /// The scales of runs as floats of a byte, see [`ue4m3`](super::ue4m3).
    FloatScales,
    /// The scales of runs, and the scale of those scales: half precision, a quarter of it in the upper four bits of each
    /// of four words.
    SpreadScale,
    /// What is added to all values: half precision.
    Minimum,
    /// The scale of the minima, which are subtracted: half precision.
    MinimumScale,
    /// The codes, or their low bits.
    Codes,
    /// The bits of the codes above those.
    HighCodes,
    /// The signs of values whose codes have none, and perhaps the scales of runs beside them.
    Signs,
    /// The scales of runs of values, their minima among them, or the scales' low bits.
    Scales,
    /// The bits of the scales above those.
    HighScales,
}

impl Form {
    /// The field of a role; `None` where there is none.
    pub fn field(&self, role: Role) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.role == role)
    }

    /// Where the field of a role begins, in bytes; `None` where there is none.
    pub fn at(&self, role: Role) -> Option<usize> {
        self.field(role).map(|field| field.at)
    }

    /// Gives a block a scale, or its scales a scale: as near to `scale` as the block holds, and but its magnitude where
    /// it holds no sign.
    ///
    /// # Panics
    /// When `block` is shorter than the form's.
    pub fn set_scale(&self, block: &mut [u8], scale: f32) {
        for field in self.fields {
            let bytes = &mut block[field.at..field.at + field.bytes];
            match field.role {
                Role::Scale => bytes.copy_from_slice(&f16::from_f32(scale).to_le_bytes()),
                Role::PowerScale => bytes.fill(nearest(e8m0, scale.abs())),
                Role::FloatScales => bytes.fill(nearest(ue4m3, scale.abs())),
                Role::SpreadScale => {
                    let bits = f16::from_f32(scale).to_bits();
                    for (quarter, word) in bytes.chunks_exact_mut(2).enumerate() {
                        let upper = (bits >> (4 * quarter) & 15) as u8;
                        word[1] = (word[1] & 15) | (upper << 4);
                    }
                }
                _ => {}
            }
        }
    }

    /// Where the field of a minimum begins, and at how many times the scale in it random codes average to zero.
    pub fn centring(&self) -> Option<(usize, f32)> {
        let mean = ((1u32 << self.bits) - 1) as f32 / 2.0;
        let added = self.at(Role::Minimum).map(|at| (at, -mean));
        added.or_else(|| self.at(Role::MinimumScale).map(|at| (at, mean)))
    }
}

/// The byte that stands for the number nearest to `scale`, and for more than zero.
fn nearest(number: fn(u8) -> f32, scale: f32) -> u8 {
    let apart = |byte: &u8| (number(*byte) - scale).abs();
    let bytes = (0..=0x7e).chain(0x80..=u8::MAX);
    bytes
        .filter(|byte| number(*byte) > 0.0)
        .min_by(|a, b| apart(a).total_cmp(&apart(b)))
        .unwrap_or(0)
}

/// The form of a type's blocks; `None` for types that have none.
pub const fn form(dtype: DType) -> Option<Form> {
    with_block!(dtype, B => Some(B::FORM), else => None)
}

/// Declares the blocks of a family: each with its type, the bits of a code and the code that stands for zero, and its
/// fields with their roles.
macro_rules! blocks {
    ($(
        $(#[$doc:meta])*
        $name:ident: $dtype:ident, $bits:literal bits, zero at $zero:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty as $role:ident,)*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            impl $crate::ggml::Block for $name {
                const DTYPE: $crate::DType = $crate::DType::$dtype;
                const FORM: $crate::ggml::Form = $crate::ggml::Form {
                    bits: $bits,
                    zero: $zero,
                    fields: &[$($crate::ggml::Field {
                        role: $crate::ggml::Role::$role,
                        at: std::mem::offset_of!($name, $field),
                        bytes: size_of::<$type>(),
                    },)*],
                };
            }

            const _: () = assert!(size_of::<$name>() == $crate::DType::$dtype.block_bytes());
            const _: () = assert!(align_of::<$name>() <= 2);
        )*
    };
}

pub(super) use blocks;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantised_types_and_no_others_have_a_block() {
        for &dtype in DType::ALL {
            let block = with_block!(dtype, B => Some(B::DTYPE), else => None);
            assert_eq!(block, dtype.is_quantised().then_some(dtype));
        }
    }
}
