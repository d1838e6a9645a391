//! The types whose codes are indices of points of a grid: a few values at once.

use std::sync::LazyLock;

use half::f16;

use super::blocks::blocks;
use super::grid::{
    Grid, IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID, even_signs,
};
use super::parts::SUPER_BLOCK;
use super::reference::Reference;
use super::search::{Found, Group, Lattice, by_value};

/// An eighth, by which all values of a point of IQ1_S and IQ1_M are shifted up or down.
const SHIFT: f32 = 0.125;

blocks! {
    /// x = ±d·(1 + 2·scale)·[`IQ3_S_GRID`](super::IQ3_S_GRID)\[q\] for each run of 32 values.
    BlockIq3S: IQ3S, 3 bits, zero at 0 {
        /// The scale of the scales.
        d: f16 as Scale,
        /// The low eight bits of the index of values 4·i to 4·i + 3.
        qs: [u8; 64] as Codes,
        /// The ninth bit of index 8·j + i lies in byte j, at bit i.
        qh: [u8; 8] as HighCodes,
        /// A set bit: the value is negative. Value 8·j + i has its bit in byte j, at bit i.
        signs: [u8; 32] as Signs,
        /// The scale of run j: byte j / 2, low nibble for even j.
        scales: [u8; 4] as Scales,
    }

    /// x = ±d·(½ + scale)/2·[`IQ3_XXS_GRID`](super::IQ3_XXS_GRID)\[q\] for each run of 32 values.
    BlockIq3Xxs: IQ3XXS, 3 bits, zero at 0 {
        /// The scale of the scales.
        d: f16 as Scale,
        /// The index of values 4·i to 4·i + 3.
        qs: [u8; 64] as Codes,
        /// A word of each run, as its second word in [`BlockIq2Xxs`].
        signs: [[u8; 4]; 8] as Signs,
    }

    /// x = ±d·(½ + scale)/4·[`IQ2_S_GRID`](super::IQ2_S_GRID)\[q\] for each run of 16 values.
    BlockIq2S: IQ2S, 2 bits, zero at 0 {
        /// The scale of the scales.
        d: f16 as Scale,
        /// The low eight bits of the index of values 8·i to 8·i + 7.
        qs: [u8; 32] as Codes,
        /// As in [`BlockIq3S`].
        signs: [u8; 32] as Signs,
        /// The high two bits of index 4·j + i lie in byte j, at bit 2·i.
        qh: [u8; 8] as HighCodes,
        /// The scale of run j: byte j / 2, low nibble for even j.
        scales: [u8; 8] as Scales,
    }

    /// x = ±d·(½ + scale)/4·[`IQ2_XS_GRID`](super::IQ2_XS_GRID)\[q\] for each run of 16 values.
    BlockIq2Xs: IQ2XS, 2 bits, zero at 0 {
        /// The scale of the scales.
        d: f16 as Scale,
        /// The index of values 8·i to 8·i + 7 in the low nine bits, and their signs in seven bits above it: see
        /// [`even_signs`](super::even_signs).
        qs: [u16; 32] as Codes,
        /// The scale of run j: byte j / 2, low nibble for even j.
        scales: [u8; 8] as Scales,
    }

    /// x = ±d·(½ + scale)/4·[`IQ2_XXS_GRID`](super::IQ2_XXS_GRID)\[q\] for each run of 32 values.
    BlockIq2Xxs: IQ2XXS, 2 bits, zero at 0 {
        /// The scale of the scales.
        d: f16 as Scale,
        /// Two words of each run: the indices of values 8·i to 8·i + 7, a byte each; then their signs, seven bits each (see
        /// [`even_signs`](super::even_signs)), and the run's scale in the topmost four bits.
        qs: [[u8; 8]; 8] as Codes,
    }

    /// x = d·(1 + 2·scale)·([`IQ1_GRID`](super::IQ1_GRID)\[q\] ± ⅛), with a scale for each run of 16 values, and a shift for
    /// each 8.
    BlockIq1M: IQ1M, 2 bits, zero at 0 {
        /// The low eight bits of the index of values 8·i to 8·i + 7.
        qs: [u8; 32] as Codes,
        /// The high three bits of index i, and the shift (a set bit: down): byte i / 2, low nibble for even i.
        qh: [u8; 16] as HighCodes,
        /// The 3-bit scale of run j: word j / 4, at bit 3·(j mod 4). Above them the scale of the scales, its lowest four bits
        /// in the first word.
        scales: [u16; 4] as SpreadScale,
    }

    /// x = d·(1 + 2·scale)·([`IQ1_GRID`](super::IQ1_GRID)\[q\] ± ⅛) for each run of 32 values.
    BlockIq1S: IQ1S, 2 bits, zero at 0 {
        /// The scale of the scales.
        d: f16 as Scale,
        /// The low eight bits of the index of values 8·i to 8·i + 7.
        qs: [u8; 32] as Codes,
        /// A word of each run: the high three bits of its indices, the first lowest, the scale in three bits, and the shift
        /// (a set bit: down).
        qh: [u16; 8] as HighCodes,
    }
}

impl BlockIq1M {
    /// The scale of the scales.
    pub fn d(&self) -> f16 {
        let quarters = self.scales.iter().enumerate();
        f16::from_bits(quarters.fold(0, |bits, (i, word)| bits | word >> 12 << (4 * i)))
    }
}

/// The values of a point, a set bit of `signs` for those that are negative.
fn signed(grid: &Grid, point: usize, signs: u8, scale: f32, out: &mut [f32]) {
    for (i, value) in out.iter_mut().enumerate() {
        let magnitude = scale * f32::from(grid.value(point, i));
        *value = if signs >> i & 1 == 0 {
            magnitude
        } else {
            -magnitude
        };
    }
}

/// The values of a point, shifted.
fn shifted(point: usize, down: bool, scale: f32, out: &mut [f32]) {
    let shift = if down { -SHIFT } else { SHIFT };
    for (i, value) in out.iter_mut().enumerate() {
        *value = scale * (f32::from(IQ1_GRID.value(point, i)) + shift);
    }
}

/// Nibble `i` of some bytes.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (4 * (i % 2)) & 15
}

/// Types that are searched, each with its grid, the values of a point, their number and that of a run's values, what a run's
/// scale 1 + 2·scale is multiplied by beside the block's, and whether of eight signs an even number is negative.
macro_rules! lattices {
    ($(
        $block:ident: $grid:ident of $values:literal by $points:literal, runs of $run:literal by $unit:literal, $even:literal;
    )*) => {$(
        impl Lattice<$values, $points> for $block {
            const RUN: usize = $run;
            const EVEN: bool = $even;
            const UNIT: f32 = $unit;

            fn points() -> &'static [[f32; $points]; $values] {
                const { assert!($grid.points.len() == $points && $grid.values == $values) };
                static POINTS: LazyLock<Box<[[f32; $points]; $values]>> =
                    LazyLock::new(|| by_value(&$grid));
                &POINTS
            }
        }
    )*};
}

lattices! {
    BlockIq3S: IQ3_S_GRID of 4 by 512, runs of 32 by 1.0, false;
    BlockIq3Xxs: IQ3_XXS_GRID of 4 by 256, runs of 32 by 0.25, true;
    BlockIq2S: IQ2_S_GRID of 8 by 1024, runs of 16 by 0.125, false;
    BlockIq2Xs: IQ2_XS_GRID of 8 by 512, runs of 16 by 0.125, true;
    BlockIq2Xxs: IQ2_XXS_GRID of 8 by 256, runs of 32 by 0.125, true;
}

/// Nibbles, two to a byte.
fn nibbles<const N: usize>(codes: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| codes[2 * i] | codes[2 * i + 1] << 4)
}

/// The word of a run of 32 values: four times seven signs, and the scale.
fn signs_and_scale(found: &Found, run: usize) -> [u8; 4] {
    let signs = &found.signs[4 * run..][..4];
    let sevens = signs.iter().rev();
    let word = sevens.fold(0, |word, signs| word << 7 | u32::from(signs & 0x7f));
    (word | u32::from(found.scales[run]) << 28).to_le_bytes()
}

impl Reference<SUPER_BLOCK> for BlockIq3S {
    const SEARCHES: bool = true;

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Found::of::<Self, 4, 512>(group)?;
        let high = |i: usize| (found.points[i] >> 8) as u8;
        blocks[0] = BlockIq3S {
            d: found.d,
            qs: std::array::from_fn(|i| found.points[i] as u8),
            qh: std::array::from_fn(|j| (0..8).fold(0, |byte, i| byte | high(8 * j + i) << i)),
            signs: found.signs,
            scales: nibbles(&found.scales),
        };
        Some(())
    }

    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        for (i, values) in out.chunks_exact_mut(4).enumerate() {
            let scale = self.d.to_f32() * f32::from(1 + 2 * nibble(&self.scales, i / 8));
            let high = usize::from(self.qh[i / 8] >> (i % 8) & 1);
            let signs = nibble(&self.signs, i);
            let point = usize::from(self.qs[i]) | high << 8;
            signed(&IQ3_S_GRID, point, signs, scale, values);
        }
    }
}

impl Reference<SUPER_BLOCK> for BlockIq3Xxs {
    const SEARCHES: bool = true;

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Found::of::<Self, 4, 256>(group)?;
        blocks[0] = BlockIq3Xxs {
            d: found.d,
            qs: std::array::from_fn(|i| found.points[i] as u8),
            signs: std::array::from_fn(|run| signs_and_scale(&found, run)),
        };
        Some(())
    }

    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        for (i, values) in out.chunks_exact_mut(4).enumerate() {
            let word = u32::from_le_bytes(self.signs[i / 8]);
            let scale = self.d.to_f32() * (0.5 + (word >> 28) as f32) * 0.5;
            let signs = even_signs(word >> (7 * (i % 8 / 2))) >> (4 * (i % 2));
            let point = usize::from(self.qs[i]);
            signed(&IQ3_XXS_GRID, point, signs, scale, values);
        }
    }
}

impl Reference<SUPER_BLOCK> for BlockIq2S {
    const SEARCHES: bool = true;

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Found::of::<Self, 8, 1024>(group)?;
        let high = |i: usize| (found.points[i] >> 8) as u8;
        blocks[0] = BlockIq2S {
            d: found.d,
            qs: std::array::from_fn(|i| found.points[i] as u8),
            signs: found.signs,
            qh: std::array::from_fn(|j| {
                (0..4).fold(0, |byte, i| byte | high(4 * j + i) << (2 * i))
            }),
            scales: nibbles(&found.scales),
        };
        Some(())
    }

    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        for (i, values) in out.chunks_exact_mut(8).enumerate() {
            let scale = self.d.to_f32() * (0.5 + f32::from(nibble(&self.scales, i / 2))) * 0.25;
            let high = usize::from(self.qh[i / 4] >> (2 * (i % 4)) & 3);
            let point = usize::from(self.qs[i]) | high << 8;
            signed(&IQ2_S_GRID, point, self.signs[i], scale, values);
        }
    }
}

impl Reference<SUPER_BLOCK> for BlockIq2Xs {
    const SEARCHES: bool = true;

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Found::of::<Self, 8, 512>(group)?;
        let signs = |i: usize| u16::from(found.signs[i] & 0x7f);
        blocks[0] = BlockIq2Xs {
            d: found.d,
            qs: std::array::from_fn(|i| found.points[i] | signs(i) << 9),
            scales: nibbles(&found.scales),
        };
        Some(())
    }

    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        for (i, values) in out.chunks_exact_mut(8).enumerate() {
            let scale = self.d.to_f32() * (0.5 + f32::from(nibble(&self.scales, i / 2))) * 0.25;
            let signs = even_signs(u32::from(self.qs[i] >> 9));
            let point = usize::from(self.qs[i] & 511);
            signed(&IQ2_XS_GRID, point, signs, scale, values);
        }
    }
}

impl Reference<SUPER_BLOCK> for BlockIq2Xxs {
    const SEARCHES: bool = true;

    #[inline(always)]
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let found = Found::of::<Self, 8, 256>(group)?;
        blocks[0] = BlockIq2Xxs {
            d: found.d,
            qs: std::array::from_fn(|run| {
                let [a, b, c, d] = std::array::from_fn(|i| found.points[4 * run + i] as u8);
                let [e, f, g, h] = signs_and_scale(&found, run);
                [a, b, c, d, e, f, g, h]
            }),
        };
        Some(())
    }

    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        for (i, values) in out.chunks_exact_mut(8).enumerate() {
            let [a, b, c, d, rest @ ..] = self.qs[i / 4];
            let word = u32::from_le_bytes(rest);
            let scale = self.d.to_f32() * (0.5 + (word >> 28) as f32) * 0.25;
            let signs = even_signs(word >> (7 * (i % 4)));
            let point = usize::from([a, b, c, d][i % 4]);
            signed(&IQ2_XXS_GRID, point, signs, scale, values);
        }
    }
}

impl Reference<SUPER_BLOCK> for BlockIq1M {
    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        for (i, values) in out.chunks_exact_mut(8).enumerate() {
            let run = i / 2;
            let scale = self.scales[run / 4] >> (3 * (run % 4)) & 7;
            let scale = self.d().to_f32() * f32::from(1 + 2 * scale);
            let high = usize::from(nibble(&self.qh, i));
            let point = usize::from(self.qs[i]) | (high & 7) << 8;
            shifted(point, high & 8 != 0, scale, values);
        }
    }
}

impl Reference<SUPER_BLOCK> for BlockIq1S {
    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        for (i, values) in out.chunks_exact_mut(8).enumerate() {
            let word = self.qh[i / 4];
            let scale = self.d.to_f32() * f32::from(1 + 2 * (word >> 12 & 7));
            let high = usize::from(word >> (3 * (i % 4)) & 7);
            let point = usize::from(self.qs[i]) | high << 8;
            shifted(point, word & 0x8000 != 0, scale, values);
        }
    }
}
