//! NEON: four registers hold the sixteen lanes.

use std::arch::aarch64::*;

use half::f16;

use super::{Simd, Sixteen, Table, operations};

mod products;

pub(crate) use products::NeonProducts;

/// Quadruples of 128-bit vectors, on a machine that has NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

/// Sixteen singles.
type F = [float32x4_t; 4];
/// Sixteen integers.
type I = [uint32x4_t; 4];

/// The same expression for all four registers.
macro_rules! four {
    ($i:ident => $body:expr) => {
        [
            {
                let $i = 0;
                $body
            },
            {
                let $i = 1;
                $body
            },
            {
                let $i = 2;
                $body
            },
            {
                let $i = 3;
                $body
            },
        ]
    };
}

const LANES: [i32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const NIBBLE_SHIFT: [i32; 8] = [0, -4, -8, -12, -16, -20, -24, -28];

impl Neon {
    /// # Safety
    /// The machine has NEON.
    #[inline(always)]
    pub(crate) unsafe fn new_unchecked() -> Self {
        Self(())
    }

    operations! {
        /// Sixteen bytes, zero-extended to four vectors of words.
        fn widen_bytes(self, bytes: uint8x16_t) -> I {
            let low = vmovl_u8(vget_low_u8(bytes));
            let high = vmovl_u8(vget_high_u8(bytes));
            [
                vmovl_u16(vget_low_u16(low)),
                vmovl_u16(vget_high_u16(low)),
                vmovl_u16(vget_low_u16(high)),
                vmovl_u16(vget_high_u16(high)),
            ]
        }

        /// Four entries of a table of sixteen numbers; zero where the index is 16 or more.
        fn lookup_sixteen(self, table: F, index: uint32x4_t) -> uint8x16_t {
            let bytes = uint8x16x4_t(
                vreinterpretq_u8_f32(table[0]),
                vreinterpretq_u8_f32(table[1]),
                vreinterpretq_u8_f32(table[2]),
                vreinterpretq_u8_f32(table[3]),
            );
            // Entry i is bytes 4i to 4i + 3.
            let at = vmlaq_u32(vdupq_n_u32(0x0302_0100), index, vdupq_n_u32(0x0404_0404));
            vqtbl4q_u8(bytes, vreinterpretq_u8_u32(at))
        }

        /// Transposes four rows of four.
        fn transpose_four(self, r: F) -> F {
            let (ab0, ab1) = (vtrn1q_f32(r[0], r[1]), vtrn2q_f32(r[0], r[1]));
            let (cd0, cd1) = (vtrn1q_f32(r[2], r[3]), vtrn2q_f32(r[2], r[3]));
            [
                vcombine_f32(vget_low_f32(ab0), vget_low_f32(cd0)),
                vcombine_f32(vget_low_f32(ab1), vget_low_f32(cd1)),
                vcombine_f32(vget_high_f32(ab0), vget_high_f32(cd0)),
                vcombine_f32(vget_high_f32(ab1), vget_high_f32(cd1)),
            ]
        }
    }
}

impl Simd for Neon {
    type F = F;
    type I = I;
    type D = [float64x2_t; 8];

    const ORDER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const SCORE_ROWS: usize = 6;
    const WIDE: bool = false;
    const VALUE_ROWS: usize = 6;

    operations! {
        fn splat(self, x: f32) -> F { [vdupq_n_f32(x); 4] }
        unsafe fn load(self, p: *const f32) -> F { four!(i => vld1q_f32(p.add(4 * i))) }
        unsafe fn store(self, p: *mut f32, a: F) {
            vst1q_f32(p, a[0]);
            vst1q_f32(p.add(4), a[1]);
            vst1q_f32(p.add(8), a[2]);
            vst1q_f32(p.add(12), a[3]);
        }
        fn add(self, a: F, b: F) -> F { four!(i => vaddq_f32(a[i], b[i])) }
        fn sub(self, a: F, b: F) -> F { four!(i => vsubq_f32(a[i], b[i])) }
        fn mul(self, a: F, b: F) -> F { four!(i => vmulq_f32(a[i], b[i])) }
        fn div(self, a: F, b: F) -> F { four!(i => vdivq_f32(a[i], b[i])) }
        fn fma(self, a: F, b: F, c: F) -> F { four!(i => vfmaq_f32(c[i], a[i], b[i])) }
        fn max(self, a: F, b: F) -> F { four!(i => vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i])) }
        fn min(self, a: F, b: F) -> F { four!(i => vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i])) }
        fn abs(self, a: F) -> F { four!(i => vabsq_f32(a[i])) }
        fn zero_below(self, a: F, x: F, limit: F) -> F {
            four!(i => vbslq_f32(vcltq_f32(x[i], limit[i]), vdupq_n_f32(0.0), a[i]))
        }
        fn keep(self, a: F, first: i32, end: i32) -> F {
            four!(i => {
                let lane = vld1q_s32(LANES.as_ptr().add(4 * i));
                let inside = vandq_u32(
                    vcgeq_s32(lane, vdupq_n_s32(first)),
                    vcltq_s32(lane, vdupq_n_s32(end)),
                );
                vbslq_f32(inside, a[i], vdupq_n_f32(f32::NEG_INFINITY))
            })
        }
        fn pick_below(self, x: F, limit: F, a: F, b: F) -> F {
            four!(i => vbslq_f32(vcltq_f32(x[i], limit[i]), a[i], b[i]))
        }
        fn reduce_max(self, a: F) -> f32 {
            vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a[0], a[1]), vmaxnmq_f32(a[2], a[3])))
        }
        fn reduce_add(self, a: F) -> f32 {
            let four = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
        fn sums(self, rows: &[F; 16]) -> F {
            let pair = |a: F, b: F| {
                let a = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
                let b = vaddq_f32(vaddq_f32(b[0], b[2]), vaddq_f32(b[1], b[3]));
                vaddq_f32(
                    vcombine_f32(vget_low_f32(a), vget_low_f32(b)),
                    vcombine_f32(vget_high_f32(a), vget_high_f32(b)),
                )
            };
            four!(i => vpaddq_f32(
                pair(rows[4 * i], rows[4 * i + 1]),
                pair(rows[4 * i + 2], rows[4 * i + 3]),
            ))
        }
        fn zeros(self) -> [float64x2_t; 8] { [vdupq_n_f64(0.0); 8] }
        fn add_squares(self, s: [float64x2_t; 8], a: F) -> [float64x2_t; 8] {
            let mut out = s;
            for i in 0..4 {
                let (low, high) = (vcvt_f64_f32(vget_low_f32(a[i])), vcvt_high_f64_f32(a[i]));
                out[2 * i] = vfmaq_f64(s[2 * i], low, low);
                out[2 * i + 1] = vfmaq_f64(s[2 * i + 1], high, high);
            }
            out
        }
        fn reduce_doubles(self, s: [float64x2_t; 8]) -> f64 {
            let eight = [
                vaddq_f64(s[0], s[4]), vaddq_f64(s[1], s[5]), vaddq_f64(s[2], s[6]), vaddq_f64(s[3], s[7]),
            ];
            let two = vaddq_f64(vaddq_f64(eight[0], eight[2]), vaddq_f64(eight[1], eight[3]));
            vgetq_lane_f64::<0>(two) + vgetq_lane_f64::<1>(two)
        }
        fn butterfly<const H: usize>(self, a: F) -> F {
            match H {
                8 => [
                    vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]),
                    vsubq_f32(a[0], a[2]), vsubq_f32(a[1], a[3]),
                ],
                4 => [
                    vaddq_f32(a[0], a[1]), vsubq_f32(a[0], a[1]),
                    vaddq_f32(a[2], a[3]), vsubq_f32(a[2], a[3]),
                ],
                2 => four!(i => {
                    let other = vextq_f32::<2>(a[i], a[i]);
                    vcombine_f32(
                        vget_low_f32(vaddq_f32(a[i], other)),
                        vget_high_f32(vsubq_f32(other, a[i])),
                    )
                }),
                _ => four!(i => {
                    let other = vrev64q_f32(a[i]);
                    vtrn1q_f32(vaddq_f32(a[i], other), vrev64q_f32(vsubq_f32(other, a[i])))
                }),
            }
        }
        fn splat_i(self, x: u32) -> I { [vdupq_n_u32(x); 4] }
        unsafe fn load_i(self, p: *const u32) -> I { four!(i => vld1q_u32(p.add(4 * i))) }
        fn and(self, a: I, b: I) -> I { four!(i => vandq_u32(a[i], b[i])) }
        fn or(self, a: I, b: I) -> I { four!(i => vorrq_u32(a[i], b[i])) }
        fn xor(self, a: I, b: I) -> I { four!(i => veorq_u32(a[i], b[i])) }
        fn add_i(self, a: I, b: I) -> I { four!(i => vaddq_u32(a[i], b[i])) }
        fn sub_i(self, a: I, b: I) -> I { four!(i => vsubq_u32(a[i], b[i])) }
        fn shr(self, a: I, count: I) -> I {
            four!(i => vshlq_u32(a[i], vnegq_s32(vreinterpretq_s32_u32(count[i]))))
        }
        fn shl<const N: u32>(self, a: I) -> I { four!(i => vshlq_u32(a[i], vdupq_n_s32(N as i32))) }
        fn bits(self, a: F) -> I { four!(i => vreinterpretq_u32_f32(a[i])) }
        fn of_bits(self, a: I) -> F { four!(i => vreinterpretq_f32_u32(a[i])) }
        fn number(self, a: I) -> F { four!(i => vcvtq_f32_u32(a[i])) }
        fn pick_bits(self, mask: u32, a: F, b: F) -> F {
            let bit = [1u32, 2, 4, 8];
            let bit = vld1q_u32(bit.as_ptr());
            four!(i => vbslq_f32(vtstq_u32(vdupq_n_u32(mask >> (4 * i)), bit), a[i], b[i]))
        }
        fn add_if_less(self, n: I, a: F, b: F, step: u32) -> I {
            four!(i => vaddq_u32(n[i], vandq_u32(vcltq_f32(a[i], b[i]), vdupq_n_u32(step))))
        }
        fn truncate(self, a: F) -> I { four!(i => vreinterpretq_u32_s32(vcvtq_s32_f32(a[i]))) }
        unsafe fn store_u16(self, p: *mut u8, a: I) {
            vst1q_u16(p.cast(), vcombine_u16(vmovn_u32(a[0]), vmovn_u32(a[1])));
            vst1q_u16(p.add(16).cast(), vcombine_u16(vmovn_u32(a[2]), vmovn_u32(a[3])));
        }
        unsafe fn store_u8(self, p: *mut u8, a: I) {
            let low = vcombine_u16(vmovn_u32(a[0]), vmovn_u32(a[1]));
            let high = vcombine_u16(vmovn_u32(a[2]), vmovn_u32(a[3]));
            vst1q_u8(p, vcombine_u8(vmovn_u16(low), vmovn_u16(high)))
        }
        unsafe fn load_u8(self, p: *const u8) -> I { self.widen_bytes(vld1q_u8(p)) }
        unsafe fn load_i8(self, p: *const u8) -> F {
            let bytes = vld1q_s8(p.cast());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes)));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))),
            ]
        }
        unsafe fn load_f16(self, p: *const u8) -> F {
            // The half-precision vector type is not in stable Rust: widen by the exponent's bias instead. The product
            // is exact and makes subnormals normal; a cache holds no infinity.
            four!(i => {
                let halves = vld1_u16(p.add(8 * i).cast());
                let wide = vmovl_u16(halves);
                let sign = vshlq_n_u32::<16>(vandq_u32(wide, vdupq_n_u32(0x8000)));
                let size = vshlq_n_u32::<13>(vandq_u32(wide, vdupq_n_u32(0x7fff)));
                let size = vmulq_n_f32(vreinterpretq_f32_u32(size), f32::from_bits(0x7780_0000));
                vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(size), sign))
            })
        }
        unsafe fn store_f16(self, p: *mut u8, a: F) {
            let mut numbers = [0f32; 16];
            self.store(numbers.as_mut_ptr(), a);
            for (i, x) in numbers.into_iter().enumerate() {
                p.cast::<u16>().add(i).write_unaligned(f16::from_f32(x).to_bits());
            }
        }
        unsafe fn load_bf16(self, p: *const u8) -> F {
            four!(i => {
                let halves = vld1_u16(p.add(8 * i).cast());
                vreinterpretq_f32_u32(vshll_n_u16::<16>(halves))
            })
        }
        unsafe fn nibbles(self, p: *const u8) -> I {
            let (low, high) = (p.cast::<u32>().read_unaligned(), p.add(4).cast::<u32>().read_unaligned());
            let (low, high) = (vdupq_n_u32(low), vdupq_n_u32(high));
            let (first, second) = (vld1q_s32(NIBBLE_SHIFT.as_ptr()), vld1q_s32(NIBBLE_SHIFT.as_ptr().add(4)));
            [
                vshlq_u32(low, first), vshlq_u32(low, second),
                vshlq_u32(high, first), vshlq_u32(high, second),
            ]
        }
        unsafe fn half(self, p: *const u8) -> f32 { f16::from_bits(p.cast::<u16>().read_unaligned()).to_f32() }
        unsafe fn columns(self, rows: Sixteen) -> [I; 8] {
            let mut out = [self.splat_i(0); 8];
            for part in 0..2 {
                for i in 0..4 {
                    let block = four!(k => vld1q_f32(rows.row(4 * i + k).cast::<f32>().add(4 * part)));
                    let block = self.transpose_four(block);
                    for k in 0..4 {
                        out[4 * part + k][i] = vreinterpretq_u32_f32(block[k]);
                    }
                }
            }
            out
        }
        fn lookup<const BITS: usize>(self, table: &Table<'_, Self>, index: I) -> F {
            if BITS > 6 {
                let entries = &table.numbers[..1 << BITS];
                let mut numbers = [0f32; 16];
                let mut at = [0u8; 16];
                self.store_u8(at.as_mut_ptr(), self.and(index, self.splat_i((1 << BITS) - 1)));
                for (number, at) in numbers.iter_mut().zip(at) {
                    *number = entries[usize::from(at)];
                }
                return self.load(numbers.as_ptr());
            }
            let table = &table.parts;
            // Short tables are repeated up to sixteen entries.
            let mask = vdupq_n_u32(if BITS < 4 { 15 } else { (1 << BITS) - 1 });
            four!(i => {
                let index = vandq_u32(index[i], mask);
                let mut found = self.lookup_sixteen(table[0], index);
                let parts = (1usize << BITS).div_ceil(16);
                for (part, numbers) in table.iter().enumerate().take(parts).skip(1) {
                    // Only one part answers: the index of the others is put past their end, where they give zero.
                    let first = vdupq_n_u32(16 * part as u32);
                    let before = vcltq_u32(index, first);
                    let next = vbslq_u32(before, vdupq_n_u32(48), vsubq_u32(index, first));
                    found = vorrq_u8(found, self.lookup_sixteen(*numbers, next));
                }
                vreinterpretq_f32_u8(found)
            })
        }
        fn transpose(self, rows: &mut [F; 16]) {
            let source = *rows;
            for i in 0..4 {
                for j in 0..4 {
                    // The block of rows 4j.. and columns 4i.. becomes rows 4i.. and columns 4j...
                    let block = self.transpose_four(four!(k => source[4 * j + k][i]));
                    for k in 0..4 {
                        rows[4 * i + k][j] = block[k];
                    }
                }
            }
        }
    }
}
