//! GGML's blocks as structs, little-endian, without padding.
//!
//! All of them have an alignment of at most 2 bytes, because a row of a mapped file need not start at
//! more than that. In the field's comments, `d` is the block's scale and `x` a decoded value.

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};
use half::f16;

use crate::dtype::DType;

/// The values of a block of the K types and of IQ4_XS.
pub const SUPER_BLOCK: usize = 256;

/// The values of a block of the other quantised types.
pub const BLOCK: usize = 32;

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
    /// What is added to all values: half precision.
    Minimum,
    /// The scale of the minima, which are subtracted: half precision.
    MinimumScale,
    /// The codes, or their low bits.
    Codes,
    /// The bits of the codes above those.
    HighCodes,
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

    /// Where the field of a minimum begins, and at how many times the scale in it random codes average to zero.
    pub fn centring(&self) -> Option<(usize, f32)> {
        let mean = ((1u32 << self.bits) - 1) as f32 / 2.0;
        let added = self.at(Role::Minimum).map(|at| (at, -mean));
        added.or_else(|| self.at(Role::MinimumScale).map(|at| (at, mean)))
    }
}

/// Declares blocks: each with its type, the bits of a code and the code that stands for zero, and its fields with their
/// roles.
macro_rules! blocks {
    (($d:tt) $(
        $(#[$doc:meta])*
        $name:ident: $dtype:ident, $bits:literal bits, zero at $zero:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty as $role:ident,)*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            impl Block for $name {
                const DTYPE: DType = DType::$dtype;
                const FORM: Form = Form {
                    bits: $bits,
                    zero: $zero,
                    fields: &[$(Field {
                        role: Role::$role,
                        at: offset_of!($name, $field),
                        bytes: size_of::<$type>(),
                    },)*],
                };
            }

            const _: () = assert!(size_of::<$name>() == DType::$dtype.block_bytes());
            const _: () = assert!(align_of::<$name>() <= 2);
        )*

        /// The form of a type's blocks; `None` for types that have none.
        pub const fn form(dtype: DType) -> Option<Form> {
            match dtype {
                $(DType::$dtype => Some($name::FORM),)*
                DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::U8 => None,
            }
        }

        /// Evaluates an expression in which a name stands for the block struct of a [`DType`], or another for types
        /// without blocks.
        ///
        /// ```
        /// use walsh_formats::{DType, with_block};
        /// let bytes = |dtype| with_block!(dtype, B => size_of::<B>(), else => 0);
        /// assert_eq!((bytes(DType::Q4_0), bytes(DType::F16)), (18, 0));
        /// ```
        #[macro_export]
        macro_rules! with_block {
            ($d dtype:expr, $d block:ident => $d body:expr, else => $d other:expr) => {
                match $d dtype {
                    $($crate::DType::$dtype => {
                        type $d block = $crate::ggml::$name;
                        $d body
                    })*
                    $crate::DType::F32
                    | $crate::DType::F16
                    | $crate::DType::BF16
                    | $crate::DType::I32
                    | $crate::DType::U8 => $d other,
                }
            };
        }
    };
}

blocks! {
    ($)

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
        /// Eight 6-bit scales and eight 6-bit minima; [`scale_min_k4`](super::scale_min_k4) reads them.
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

    /// x = d·[`IQ4_VALUES`](super::IQ4_VALUES)\[q\].
    BlockIq4Nl: IQ4NL, 4 bits, zero at 0 {
        /// The scale.
        d: f16 as Scale,
        /// The indices, as in [`BlockQ4_0`].
        qs: [u8; 16] as Codes,
    }

    /// x = d·(scale − 32)·[`IQ4_VALUES`](super::IQ4_VALUES)\[q\] for each run of 32 values.
    BlockIq4Xs: IQ4XS, 4 bits, zero at 0 {
        /// The scale of the scales.
        d: f16 as Scale,
        /// The high two bits of the scale of run j, at bit 2·j.
        scales_h: u16 as HighScales,
        /// The low four bits of the scale of run j: byte j / 2, low nibble for even j.
        scales_l: [u8; 4] as Scales,
        /// Run j has its indices in bytes 16·j to 16·j + 15, laid out as in [`BlockQ4_0`].
        qs: [u8; 128] as Codes,
    }
}
