//! Rows of weights as MLX quantises them, and what they are in blocks.
//!
//! MLX keeps the codes of a matrix as one stream of bits to a row, the first code in the lowest bits, and a number or two
//! for each group of consecutive values in tensors of their own: a scale and a bias (`affine`), a power of two (`mxfp4`,
//! `mxfp8`) or an 8-bit float (`nvfp4`), and perhaps one for a whole matrix. See the documentation of `mlx.core.quantize`.

use std::fmt;

use half::{bf16, f16};

use crate::dtype::DType;
use crate::error::FormatError;
use crate::fp8::e4m3;
use crate::ggml::{self, FP4_VALUES, e8m0, ue4m3};

/// How a matrix is quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    mode: Mode,
    bits: usize,
    group: usize,
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Affine => "affine",
            Mode::Mxfp4 => "mxfp4",
            Mode::Mxfp8 => "mxfp8",
            Mode::Nvfp4 => "nvfp4",
        };
        write!(
            f,
            "{mode} with {} bits in groups of {}",
            self.bits, self.group
        )
    }
}

/// What the numbers of a group are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Affine,
    Mxfp4,
    Mxfp8,
    Nvfp4,
}

/// The rows of a matrix, or of a stack of matrices.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// How they are quantised.
    pub recipe: Recipe,
    /// The values of a row.
    pub columns: usize,
    /// The codes: [`Recipe::code_bytes`] for each row.
    pub codes: &'a [u8],
    /// The groups' scales: [`Recipe::groups`] for each row.
    pub scales: &'a [u8],
    /// Their biases, of the scales' type, as many; empty where the mode has none.
    pub biases: &'a [u8],
    /// The type of scales and biases; [`DType::U8`] where scales are bytes.
    pub numbers: DType,
    /// The scales of whole matrices, in single precision: one for all rows, or for as many rows as there are then of each;
    /// empty where there are none. A value is multiplied by a 2688th of it, which is how MLX means it.
    pub global: &'a [u8],
    /// The rows of a matrix of a stack, which share one of those.
    pub matrix: usize,
}

impl Recipe {
    /// The recipe of a mode, so many bits and so many values of a group, by MLX's names.
    ///
    /// # Errors
    /// [`FormatError::Mlx`] when there is no such recipe, or Walsh does not read it.
    pub fn new(mode: &str, bits: u64, group: u64) -> Result<Recipe, FormatError> {
        let wrong = |what: String| Err(FormatError::Mlx { what });
        let (mode, fits) = match mode {
            "affine" => {
                let is_read = [32, 64, 128].contains(&group);
                (Mode::Affine, is_read && [2, 3, 4, 5, 6, 8].contains(&bits))
            }
            "mxfp4" => (Mode::Mxfp4, (bits, group) == (4, 32)),
            "mxfp8" => (Mode::Mxfp8, (bits, group) == (8, 32)),
            "nvfp4" => (Mode::Nvfp4, (bits, group) == (4, 16)),
            other => {
                return wrong(format!(
                    "the mode {other:?} is not read: affine, mxfp4, mxfp8 and nvfp4 are"
                ));
            }
        };
        if !fits {
            return wrong(format!(
                "{bits} bits in groups of {group} are not read of this mode: affine has 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128; mxfp4 has 4 and mxfp8 8 in groups of 32, and nvfp4 4 in groups of 16"
            ));
        }
        Ok(Recipe {
            mode,
            bits: bits as usize,
            group: group as usize,
        })
    }

    /// The type that holds such values as they are, and takes the least room: blocks with their codes and numbers, or floats
    /// where there are no such blocks. `own` says whether it may be a type that GGML does not have; where it may not, and
    /// GGML has none, it is one all the same.
    pub fn dtype(&self, own: bool) -> DType {
        let is_small = self.group == 32;
        match (self.mode, self.bits) {
            (Mode::Mxfp4, _) => DType::MXFP4,
            (Mode::Mxfp8, _) => DType::BF16,
            (Mode::Nvfp4, _) => DType::NVFP4,
            (Mode::Affine, 2..=4) if !own => DType::Q4_1,
            (Mode::Affine, 4) if is_small => DType::Q4_1,
            (Mode::Affine, 5) if !own || is_small => DType::Q5_1,
            (Mode::Affine, 2) if is_small => DType::MLX2G32,
            (Mode::Affine, 3) if is_small => DType::MLX3G32,
            (Mode::Affine, 6) if is_small => DType::MLX6G32,
            (Mode::Affine, 8) if is_small => DType::MLX8G32,
            (Mode::Affine, 2) => DType::MLX2,
            (Mode::Affine, 3) => DType::MLX3,
            (Mode::Affine, 4) => DType::MLX4,
            (Mode::Affine, 5) => DType::MLX5,
            (Mode::Affine, 6) => DType::MLX6,
            (Mode::Affine, _) => DType::MLX8,
        }
    }

    /// Whether matrices may have a scale beside those of their groups.
    pub fn has_global(&self) -> bool {
        self.mode == Mode::Nvfp4
    }

    /// Whether groups have a bias.
    pub fn has_biases(&self) -> bool {
        self.mode == Mode::Affine
    }

    /// The bytes that the codes of a row of so many values take; `None` when they are not whole words of 32 bits.
    pub fn code_bytes(&self, columns: u64) -> Option<u64> {
        let bits = columns.checked_mul(self.bits as u64)?;
        bits.is_multiple_of(32).then_some(bits / 8)
    }

    /// The values of a row whose codes are so many words of 32 bits; `None` when those do not end with a value.
    pub fn columns(&self, words: u64) -> Option<u64> {
        let bits = words.checked_mul(32)?;
        let bits_of_value = self.bits as u64;
        bits.is_multiple_of(bits_of_value)
            .then_some(bits / bits_of_value)
    }

    /// The groups of a row of so many values; `None` when it does not end with a group.
    pub fn groups(&self, columns: u64) -> Option<u64> {
        let group = self.group as u64;
        columns.is_multiple_of(group).then_some(columns / group)
    }
}

/// Most values of a block that is made here.
const MOST: usize = 64;

impl Rows<'_> {
    /// Writes a row as blocks of a type, which [`Recipe::dtype`] names: the values are the same. Or as floats, which are then
    /// rounded where a whole matrix has a scale.
    ///
    /// # Errors
    /// [`FormatError::Inexact`] when the numbers of a group are not of those that blocks have; those of [`ggml::encode`].
    ///
    /// # Panics
    /// When there is no such row, or `out` has not its size.
    pub fn pack(&self, row: usize, dtype: DType, out: &mut [u8]) -> Result<(), FormatError> {
        if !dtype.is_quantised() {
            let mut values = vec![0.0; self.columns];
            self.decode(row, &mut values);
            return ggml::encode(dtype, &values, out);
        }
        let len = dtype.block_len();
        let mut codes = [0; MOST];
        for (index, block) in out.chunks_exact_mut(dtype.block_bytes()).enumerate() {
            let codes = &mut codes[..len];
            self.unpack(row, index * len, codes);
            match self.recipe.mode {
                Mode::Affine => {
                    let numbers = self.halves(row, index * len, (dtype, codes))?;
                    ggml::affine(dtype, numbers, codes, block);
                }
                Mode::Mxfp4 => {
                    block[0] = self.byte(row, index * len, dtype)?;
                    ggml::pack_nibbles(codes, &mut block[1..]);
                }
                // Floats are their type.
                Mode::Mxfp8 => {}
                Mode::Nvfp4 => {
                    let runs = len / self.recipe.group;
                    for run in 0..runs {
                        let at = run * self.recipe.group;
                        block[run] = self.byte(row, index * len + at, dtype)?;
                        let to = &mut block[runs + 8 * run..][..8];
                        ggml::pack_nibbles(&codes[at..at + 16], to);
                    }
                }
            }
        }
        Ok(())
    }

    /// Decodes a row to single precision, whatever its groups' numbers are.
    ///
    /// # Panics
    /// When there is no such row, or `out` has not its size.
    pub fn decode(&self, row: usize, out: &mut [f32]) {
        let mut codes = [0; MOST];
        let global = self.global_of(row);
        for (index, values) in out.chunks_mut(self.recipe.group.min(MOST)).enumerate() {
            let at = index * self.recipe.group.min(MOST);
            let codes = &mut codes[..values.len()];
            self.unpack(row, at, codes);
            let number = |numbers: &[u8]| self.number(numbers, self.group_of(row, at));
            let small = |code: u8| f32::from(FP4_VALUES[usize::from(code)]);
            let byte = || self.scales[self.group_of(row, at)];
            for (value, code) in values.iter_mut().zip(&*codes) {
                *value = match self.recipe.mode {
                    Mode::Affine => number(self.scales) * f32::from(*code) + number(self.biases),
                    Mode::Mxfp4 => e8m0(byte()) * small(*code),
                    Mode::Mxfp8 if byte() == u8::MAX => f32::NAN,
                    Mode::Mxfp8 => 2.0 * e8m0(byte()) * e4m3(*code),
                    Mode::Nvfp4 => ue4m3(byte()) * global * small(*code),
                };
            }
        }
    }

    /// What the values of a row are multiplied by beside their groups' scales.
    fn global_of(&self, row: usize) -> f32 {
        /// The largest of the 4-bit floats times the largest of the 8-bit ones.
        const LARGEST: f32 = 6.0 * 448.0;
        let (scales, _) = self.global.as_chunks::<4>();
        let scale = match scales {
            [] => return 1.0,
            [one] => one,
            each => &each[row / self.matrix],
        };
        f32::from_le_bytes(*scale) / LARGEST
    }

    /// The number in the tensors of scales and biases of the group that a value is in.
    fn group_of(&self, row: usize, at: usize) -> usize {
        (row * self.columns + at) / self.recipe.group
    }

    /// The codes from value `at` of a row on, a multiple of eight.
    fn unpack(&self, row: usize, at: usize, codes: &mut [u8]) {
        let bits = self.recipe.bits;
        let first = (row * self.columns + at) * bits / 8;
        let stream = &self.codes[first..first + codes.len() * bits / 8];
        // A code may end in the byte behind the one that it begins in.
        let mut bytes = [0; MOST + 1];
        bytes[..stream.len()].copy_from_slice(stream);
        for (i, code) in codes.iter_mut().enumerate() {
            let (byte, shift) = (i * bits / 8, i * bits % 8);
            let pair = u16::from_le_bytes([bytes[byte], bytes[byte + 1]]);
            *code = (pair >> shift) as u8 & (u8::MAX >> (8 - bits));
        }
    }

    /// A scale or a bias.
    fn number(&self, numbers: &[u8], index: usize) -> f32 {
        let half = |numbers: &[u8]| [numbers[2 * index], numbers[2 * index + 1]];
        match self.numbers {
            DType::F16 => f16::from_le_bytes(half(numbers)).to_f32(),
            DType::BF16 => bf16::from_le_bytes(half(numbers)).to_f32(),
            _ => f32::from_le_bytes(std::array::from_fn(|i| numbers[4 * index + i])),
        }
    }

    /// The scale and the bias of a value's group in half precision.
    fn halves(
        &self,
        row: usize,
        at: usize,
        (dtype, codes): (DType, &[u8]),
    ) -> Result<[f16; 2], FormatError> {
        let group = self.group_of(row, at);
        let (scale, bias) = (
            self.number(self.scales, group),
            self.number(self.biases, group),
        );
        // Groups of one value alone have a scale that is too small for half precision, which nothing is multiplied by.
        let scale = match codes.iter().all(|code| *code == 0) && scale.is_finite() {
            true => 0f32.copysign(scale),
            false => scale,
        };
        let exact = |number: f32| {
            let half = f16::from_f32(number);
            let is_same = half.is_finite() && half.to_f32() == number;
            is_same.then_some(half).ok_or(FormatError::Inexact {
                dtype,
                value: at,
                number,
            })
        };
        Ok([exact(scale)?, exact(bias)?])
    }

    /// The scale of a value's group where scales are bytes.
    fn byte(&self, row: usize, at: usize, dtype: DType) -> Result<u8, FormatError> {
        let byte = self.scales[self.group_of(row, at)];
        let (most, number) = match self.recipe.mode {
            Mode::Nvfp4 => (
                0x7e,
                if byte & 0x7f == 0x7f {
                    f32::NAN
                } else {
                    -2.0 * ue4m3(byte)
                },
            ),
            _ => (0xfe, f32::INFINITY),
        };
        match byte <= most {
            true => Ok(byte),
            // GGML's are neither negative nor without end.
            false => Err(FormatError::Inexact {
                dtype,
                value: at,
                number,
            }),
        }
    }
}
