//! GGML's blocks as structs, little-endian, without padding.
//!
//! All of them have an alignment of at most 2 bytes, because a row of a mapped file need not start at
//! more than that. In the field's comments, `d` is the block's scale and `x` a decoded value.

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
}

macro_rules! block {
    ($(#[$doc:meta])* $name:ident: $dtype:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Block for $name {
            const DTYPE: DType = DType::$dtype;
        }

        const _: () = assert!(size_of::<$name>() == DType::$dtype.block_bytes());
        const _: () = assert!(align_of::<$name>() <= 2);
    };
}

block! {
    /// x = d·(q − 8).
    BlockQ4_0: Q4_0 {
        /// The scale.
        d: f16,
        /// Value i in the low nibble of byte i, value i + 16 in the high one.
        qs: [u8; 16],
    }
}

block! {
    /// x = d·q + m.
    BlockQ4_1: Q4_1 {
        /// The scale.
        d: f16,
        /// The minimum.
        m: f16,
        /// Value i in the low nibble of byte i, value i + 16 in the high one.
        qs: [u8; 16],
    }
}

block! {
    /// x = d·(q − 16).
    BlockQ5_0: Q5_0 {
        /// The scale.
        d: f16,
        /// Bit i, least significant first, is the fifth bit of value i.
        qh: [u8; 4],
        /// The low four bits, as in [`BlockQ4_0`].
        qs: [u8; 16],
    }
}

block! {
    /// x = d·q + m.
    BlockQ5_1: Q5_1 {
        /// The scale.
        d: f16,
        /// The minimum.
        m: f16,
        /// Bit i, least significant first, is the fifth bit of value i.
        qh: [u8; 4],
        /// The low four bits, as in [`BlockQ4_0`].
        qs: [u8; 16],
    }
}

block! {
    /// x = d·q.
    BlockQ8_0: Q8_0 {
        /// The scale.
        d: f16,
        /// The values in order.
        qs: [i8; 32],
    }
}

block! {
    /// x = d·scale·q − dmin·min for each run of 16 values.
    BlockQ2K: Q2K {
        /// For each run of 16 values, the scale in the low nibble and the minimum in the high one.
        scales: [u8; 16],
        /// Value 128·h + 32·s + i lies in byte 32·h + i, at bit 2·s.
        qs: [u8; 64],
        /// The scale of the scales.
        d: f16,
        /// The scale of the minima.
        dmin: f16,
    }
}

block! {
    /// x = d·(scale − 32)·(q − 4) for each run of 16 values.
    BlockQ3K: Q3K {
        /// Value 32·s + i has its third bit in byte i, at bit s.
        hmask: [u8; 32],
        /// The low two bits, as in [`BlockQ2K`].
        qs: [u8; 64],
        /// Sixteen 6-bit scales. Scale j has its low four bits in byte j mod 8 (low nibble for j < 8, else
        /// high), and its high two bits in byte 8 + j mod 4, at bit 2·(j / 4).
        scales: [u8; 12],
        /// The scale of the scales.
        d: f16,
    }
}

block! {
    /// x = d·scale·q − dmin·min for each run of 32 values.
    BlockQ4K: Q4K {
        /// The scale of the scales.
        d: f16,
        /// The scale of the minima.
        dmin: f16,
        /// Eight 6-bit scales and eight 6-bit minima; [`scale_min_k4`](super::scale_min_k4) reads them.
        scales: [u8; 12],
        /// Value 64·h + i lies in byte 32·h + i, low nibble for i < 32; value 64·h + 32 + i in the high one.
        qs: [u8; 128],
    }
}

block! {
    /// x = d·scale·q − dmin·min for each run of 32 values.
    BlockQ5K: Q5K {
        /// The scale of the scales.
        d: f16,
        /// The scale of the minima.
        dmin: f16,
        /// As in [`BlockQ4K`].
        scales: [u8; 12],
        /// Value 32·s + i has its fifth bit in byte i, at bit s.
        qh: [u8; 32],
        /// The low four bits, as in [`BlockQ4K`].
        qs: [u8; 128],
    }
}

block! {
    /// x = d·scale·(q − 32) for each run of 16 values.
    BlockQ6K: Q6K {
        /// The low four bits: value 128·h + 64·n + i (i < 64) lies in byte 64·h + i, nibble n.
        ql: [u8; 128],
        /// The high two bits: value 128·h + 32·s + i lies in byte 32·h + i, at bit 2·s.
        qh: [u8; 64],
        /// One scale for each run of 16 values.
        scales: [i8; 16],
        /// The scale of the scales.
        d: f16,
    }
}

block! {
    /// x = d·[`IQ4_VALUES`](super::IQ4_VALUES)\[q\].
    BlockIq4Nl: IQ4NL {
        /// The scale.
        d: f16,
        /// The indices, as in [`BlockQ4_0`].
        qs: [u8; 16],
    }
}

block! {
    /// x = d·(scale − 32)·[`IQ4_VALUES`](super::IQ4_VALUES)\[q\] for each run of 32 values.
    BlockIq4Xs: IQ4XS {
        /// The scale of the scales.
        d: f16,
        /// The high two bits of the scale of run j, at bit 2·j.
        scales_h: u16,
        /// The low four bits of the scale of run j: byte j / 2, low nibble for even j.
        scales_l: [u8; 4],
        /// Run j has its indices in bytes 16·j to 16·j + 15, laid out as in [`BlockQ4_0`].
        qs: [u8; 128],
    }
}
