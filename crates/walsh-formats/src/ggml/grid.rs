//! Grids: what the indices of the IQ types of one to three bits stand for.

use super::grids;
use crate::dtype::DType;

/// Points of several values each. The numbers are GGML's, and part of its format.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// The points: the digits of a point's values in a word, the first lowest.
    pub points: &'static [u16],
    /// The values that digits stand for: magnitudes, but for IQ1_S and IQ1_M.
    pub digits: &'static [i8],
    /// How many values a point has: 8 of two bits, or 4 of four.
    pub values: usize,
}

impl Grid {
    /// Value `i` of a point.
    ///
    /// # Panics
    /// When there is no such point.
    pub const fn value(&self, point: usize, i: usize) -> i8 {
        let bits = 16 / self.values;
        let digit = self.points[point] >> (bits * i) & ((1 << bits) - 1);
        self.digits[digit as usize]
    }
}

const IQ2_DIGITS: &[i8] = &[8, 25, 43];

/// The grid of IQ3_S.
pub const IQ3_S_GRID: Grid = Grid {
    points: &grids::IQ3_S,
    digits: &[1, 3, 5, 7, 9, 11, 13, 15],
    values: 4,
};

/// The grid of IQ3_XXS.
pub const IQ3_XXS_GRID: Grid = Grid {
    points: &grids::IQ3_XXS,
    digits: &[4, 12, 20, 28, 36, 44, 52, 62],
    values: 4,
};

/// The grid of IQ2_S.
pub const IQ2_S_GRID: Grid = Grid {
    points: &grids::IQ2_S,
    digits: IQ2_DIGITS,
    values: 8,
};

/// The grid of IQ2_XS.
pub const IQ2_XS_GRID: Grid = Grid {
    points: &grids::IQ2_XS,
    digits: IQ2_DIGITS,
    values: 8,
};

/// The grid of IQ2_XXS.
pub const IQ2_XXS_GRID: Grid = Grid {
    points: &grids::IQ2_XXS,
    digits: IQ2_DIGITS,
    values: 8,
};

/// The grid of IQ1_S and IQ1_M.
pub const IQ1_GRID: Grid = Grid {
    points: &grids::IQ1,
    digits: &[-1, 0, 1],
    values: 8,
};

/// The grid of a type; `None` for those without.
pub const fn grid(dtype: DType) -> Option<Grid> {
    match dtype {
        DType::IQ3S => Some(IQ3_S_GRID),
        DType::IQ3XXS => Some(IQ3_XXS_GRID),
        DType::IQ2S => Some(IQ2_S_GRID),
        DType::IQ2XS => Some(IQ2_XS_GRID),
        DType::IQ2XXS => Some(IQ2_XXS_GRID),
        DType::IQ1S | DType::IQ1M => Some(IQ1_GRID),
        _ => None,
    }
}

/// The signs of eight values of which an even number is negative: a bit each, the eighth so that it is.
#[inline]
pub const fn even_signs(seven: u32) -> u8 {
    let seven = seven as u8 & 0x7f;
    seven | (seven.count_ones() as u8 & 1) << 7
}
