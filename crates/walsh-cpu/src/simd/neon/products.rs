//! Products of bytes with NEON: by its own instructions, with the dot-product instruction, and with the 8-bit matrix
//! instruction.

use std::arch::aarch64::*;

use half::f16;

use super::Neon;
use crate::isa::Isa;
use crate::simd::{
    Primitives, Products, Quads, Register, RowProducts, Scales, Work, compiled_for, operations,
};

impl Primitives for Neon {
    operations! {
        fn widen(self, half: f16) -> f32 {
            let halves = vreinterpret_f16_u16(vdup_n_u16(half.to_bits()));
            vgetq_lane_f32::<0>(vcvt_f32_f16(halves))
        }
        unsafe fn widen_all(self, from: *const f16, to: &mut [f32]) {
            let whole = to.len() / 4 * 4;
            for i in (0..whole).step_by(4) {
                let halves = vreinterpret_f16_u16(vld1_u16(from.add(i).cast()));
                vst1q_f32(to.as_mut_ptr().add(i), vcvt_f32_f16(halves));
            }
            for i in whole..to.len() {
                to[i] = self.widen(from.add(i).read_unaligned());
            }
        }
        fn look_up_all(self, table: &[u8; 16], indices: [u8; 32]) -> [u8; 32] {
            let mut bytes = [0; 32];
            let table = vld1q_u8(table.as_ptr());
            for half in [0, 16] {
                let found = vqtbl1q_u8(table, vld1q_u8(indices.as_ptr().add(half)));
                vst1q_u8(bytes.as_mut_ptr().add(half), found);
            }
            bytes
        }
        fn masks(self, bits: u32) -> [u8; 32] {
            let mut masks = [0; 32];
            for half in 0..2 {
                vst1q_u8(masks.as_mut_ptr().add(16 * half), self.mask_vector(bits >> (16 * half)));
            }
            masks
        }
        fn mirrored(self, codes: [u64; 4], signs: u32, zero: u8) -> [u8; 32] {
            let mut bytes = [0; 32];
            for half in 0..2 {
                let pair = vcombine_u64(vcreate_u64(codes[2 * half]), vcreate_u64(codes[2 * half + 1]));
                let mask = self.mask_vector(signs >> (16 * half));
                let all = vandq_u8(mask, vdupq_n_u8(2 * zero - 1));
                let mirrored = vsubq_u8(veorq_u8(vreinterpretq_u8_u64(pair), all), mask);
                vst1q_u8(bytes.as_mut_ptr().add(16 * half), mirrored);
            }
            bytes
        }
    }
}

/// Words of a pair of registers.
type Words = [int32x4_t; 2];
/// Numbers of a pair of registers.
type Numbers = [float32x4_t; 2];

/// A pair of registers of four lanes.
impl Register for Neon {
    type Words = Words;
    type Numbers = Numbers;
    const LANES: usize = 8;
    const MANY: bool = false;

    operations! {
        fn words(self, x: i32) -> Words { [vdupq_n_s32(x); 2] }
        fn numbers(self, x: f32) -> Numbers { [vdupq_n_f32(x); 2] }
        unsafe fn store_words(self, p: *mut u8, a: Words) {
            vst1q_s32(p.cast(), a[0]);
            vst1q_s32(p.add(16).cast(), a[1]);
        }
        unsafe fn load_numbers(self, p: *const f32) -> Numbers { [vld1q_f32(p), vld1q_f32(p.add(4))] }
        unsafe fn store_numbers(self, p: *mut f32, a: Numbers) {
            vst1q_f32(p, a[0]);
            vst1q_f32(p.add(4), a[1]);
        }
        fn shl(self, a: Words, by: usize) -> Words {
            let by = vdupq_n_s32(by as i32);
            [vshlq_s32(a[0], by), vshlq_s32(a[1], by)]
        }
        fn to_numbers(self, a: Words) -> Numbers { [vcvtq_f32_s32(a[0]), vcvtq_f32_s32(a[1])] }
        fn add(self, a: Numbers, b: Numbers) -> Numbers { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])] }
        fn sub(self, a: Numbers, b: Numbers) -> Numbers { [vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1])] }
        fn mul(self, a: Numbers, b: Numbers) -> Numbers { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
        fn mul_add(self, a: Numbers, b: Numbers, c: Numbers) -> Numbers {
            [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])]
        }
        fn total(self, a: Numbers) -> f32 { vaddvq_f32(vaddq_f32(a[0], a[1])) }
        unsafe fn columns(self, row: impl Fn(usize) -> *const u8) -> [Words; 4] {
            let [low, high] = [self.columns_of_four(&row, 0), self.columns_of_four(&row, 4)];
            [[low[0], high[0]], [low[1], high[1]], [low[2], high[2]], [low[3], high[3]]]
        }
    }
}

impl Neon {
    operations! {
        /// Four words of the four rows from `first` on, word by word.
        unsafe fn columns_of_four(self, row: &impl Fn(usize) -> *const u8, first: usize) -> [int32x4_t; 4] {
            let quad = |i: usize| vld1q_s32(row(first + i).cast());
            let (a, b, c, d) = (quad(0), quad(1), quad(2), quad(3));
            let low = |a, b| vreinterpretq_s64_s32(vzip1q_s32(a, b));
            let high = |a, b| vreinterpretq_s64_s32(vzip2q_s32(a, b));
            let (ab_low, ab_high, cd_low, cd_high) = (low(a, b), high(a, b), low(c, d), high(c, d));
            [
                vreinterpretq_s32_s64(vzip1q_s64(ab_low, cd_low)),
                vreinterpretq_s32_s64(vzip2q_s64(ab_low, cd_low)),
                vreinterpretq_s32_s64(vzip1q_s64(ab_high, cd_high)),
                vreinterpretq_s32_s64(vzip2q_s64(ab_high, cd_high)),
            ]
        }

        /// Each of sixteen bits as a byte with all of its bits.
        fn mask_vector(self, bits: u32) -> uint8x16_t {
            let own = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let [first, second, ..] = bits.to_le_bytes();
            vtstq_u8(vcombine_u8(vdup_n_u8(first), vdup_n_u8(second)), own)
        }

        /// Sixteen codes as signed numbers: less 128 where they take all 8 bits. Such types are symmetric, and lose their
        /// minimum with the offset.
        unsafe fn signed(self, codes: *const u8, top: u8) -> int8x16_t {
            let codes = vld1q_u8(codes);
            let codes = if top == 255 { veorq_u8(codes, vdupq_n_u8(128)) } else { codes };
            vreinterpretq_s8_u8(codes)
        }
    }
}

/// The products of NEON: by its own instructions, with the dot product, or with that and the matrix instruction.
#[derive(Clone, Copy)]
pub(crate) struct NeonProducts<const DOT: bool, const MATRIX: bool>(Neon);

impl<const DOT: bool, const MATRIX: bool> NeonProducts<DOT, MATRIX> {
    operations! {
        /// Adds the products of four pairs of bytes to each lane.
        fn dot(self, sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
            if DOT {
                let mut sum = sum;
                // The intrinsic is not stable. The directive lets the assembler take the instruction wherever this function
                // is inlined, or is not.
                std::arch::asm!(
                    ".arch_extension dotprod",
                    "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                    sum = inout(vreg) sum,
                    a = in(vreg) a,
                    b = in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags),
                );
                sum
            } else {
                let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
                let high = vpaddlq_s16(vmull_high_s8(a, b));
                vaddq_s32(sum, vpaddq_s32(low, high))
            }
        }

        /// Adds to [a₀·b₀, a₀·b₁, a₁·b₀, a₁·b₁] the products of the halves, eight bytes each, of two vectors. Only where
        /// `MATRIX` is true.
        fn dot_halves(self, sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
            let mut sum = sum;
            // As for `dot`.
            std::arch::asm!(
                ".arch_extension i8mm",
                "smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                sum = inout(vreg) sum,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
            sum
        }
    }

    /// [`Products::add_rows`] by squares of two rows and two lanes. The second row of the last square of an odd number is
    /// the first again.
    ///
    /// # Safety
    /// As there, with an even number of quads.
    #[inline(always)]
    fn add_squares<const ROWS: usize>(
        self,
        sums: &mut [Words; ROWS],
        panel: &[u8],
        values: [&[i32; 8]; ROWS],
        quads: Quads,
    ) {
        let Quads { range, top } = quads;
        assert!(range.end <= 8 && panel.len() >= 8 * 4 * Neon::LANES);
        let panel = panel.as_ptr();
        // SAFETY: the token exists only where the set does; a panel has eight registers.
        unsafe {
            // Only one for each pair of rows is used; the compiler drops the others.
            let mut squares = [[vdupq_n_s32(0); 4]; ROWS];
            for two in range.step_by(2) {
                let quads = |at: usize| {
                    vreinterpretq_s32_s8(self.0.signed(panel.add(32 * two + 16 * at), top))
                };
                let (low, high) = ([quads(0), quads(2)], [quads(1), quads(3)]);
                let codes = [
                    vzip1q_s32(low[0], low[1]),
                    vzip2q_s32(low[0], low[1]),
                    vzip1q_s32(high[0], high[1]),
                    vzip2q_s32(high[0], high[1]),
                ];
                for pair in 0..ROWS.div_ceil(2) {
                    let eight =
                        |row: usize| vld1_s32(values[row.min(ROWS - 1)][two..two + 2].as_ptr());
                    let values = vcombine_s32(eight(2 * pair), eight(2 * pair + 1));
                    for (square, codes) in squares[pair].iter_mut().zip(codes) {
                        let (values, codes) =
                            (vreinterpretq_s8_s32(values), vreinterpretq_s8_s32(codes));
                        *square = self.dot_halves(*square, values, codes);
                    }
                }
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let square = squares[row / 2].map(|square| vreinterpretq_s64_s32(square));
                for (half, sums) in sums.iter_mut().enumerate() {
                    let (a, b) = (square[2 * half], square[2 * half + 1]);
                    let lanes = if row % 2 == 0 {
                        vzip1q_s64(a, b)
                    } else {
                        vzip2q_s64(a, b)
                    };
                    *sums = vaddq_s32(*sums, vreinterpretq_s32_s64(lanes));
                }
            }
        }
    }
}

impl<const DOT: bool, const MATRIX: bool> Products for NeonProducts<DOT, MATRIX> {
    type Set = Neon;
    const SIGNED: bool = true;

    fn of_machine() -> Self {
        let isa = match (DOT, MATRIX) {
            (_, true) => Isa::NeonI8mm,
            (true, false) => Isa::NeonDotprod,
            (false, false) => Isa::Neon,
        };
        assert!(isa.is_available(), "a set of this machine");
        // SAFETY: such a machine has NEON.
        NeonProducts(unsafe { Neon::new_unchecked() })
    }

    #[inline(always)]
    fn set(self) -> Neon {
        self.0
    }

    #[inline(always)]
    fn run<W: Work<Self>>(self, work: W) -> W::Output {
        compiled_for! {
            NeonI8mm: fn with_matrix<S, W: Work<S>>(s: S, work: W) -> W::Output { work.on(s) }
        }
        compiled_for! {
            NeonDotprod: fn with_dot<S, W: Work<S>>(s: S, work: W) -> W::Output { work.on(s) }
        }
        // SAFETY: the token exists only where the set does.
        unsafe {
            match (DOT, MATRIX) {
                (_, true) => with_matrix(self, work),
                (true, false) => with_dot(self, work),
                (false, false) => work.on(self),
            }
        }
    }

    #[inline(always)]
    fn add_rows<const ROWS: usize>(
        self,
        sums: &mut [Words; ROWS],
        panel: &[u8],
        values: [&[i32; 8]; ROWS],
        quads: Quads,
    ) {
        if MATRIX {
            return self.add_squares(sums, panel, values, quads);
        }
        assert!(quads.range.end <= 8 && panel.len() >= 8 * 4 * Self::Set::LANES);
        let panel = panel.as_ptr();
        // SAFETY: the token exists only where the set does; a panel has eight registers.
        unsafe {
            for quad in quads.range {
                let codes = panel.add(32 * quad);
                let codes = [
                    self.0.signed(codes, quads.top),
                    self.0.signed(codes.add(16), quads.top),
                ];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let values = vreinterpretq_s8_s32(vdupq_n_s32(values[row][quad]));
                    for (sums, codes) in sums.iter_mut().zip(codes) {
                        *sums = self.dot(*sums, codes, values);
                    }
                }
            }
        }
    }
}

impl<const DOT: bool, const MATRIX: bool> RowProducts for NeonProducts<DOT, MATRIX> {
    operations! {
        fn add_block(self, sum: Numbers, codes: &[u8; 32], values: &[i8; 32], scales: Scales) -> Numbers {
            let zero = vdupq_n_s32(0);
            let codes = codes.as_ptr();
            let (first, second) = (self.0.signed(codes, scales.top), self.0.signed(codes.add(16), scales.top));
            let values = [vld1q_s8(values.as_ptr()), vld1q_s8(values.as_ptr().add(16))];
            let dots = self.dot(zero, first, values[0]);
            match scales.second {
                Some(scale) => {
                    let more = self.dot(zero, second, values[1]);
                    [
                        vfmaq_n_f32(sum[0], vcvtq_f32_s32(dots), scales.first),
                        vfmaq_n_f32(sum[1], vcvtq_f32_s32(more), scale),
                    ]
                }
                None => {
                    let dots = self.dot(dots, second, values[1]);
                    [vfmaq_n_f32(sum[0], vcvtq_f32_s32(dots), scales.first), sum[1]]
                }
            }
        }
    }
}
