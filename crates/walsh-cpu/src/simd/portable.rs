//! Plain Rust over arrays, which the compiler vectorises for the target's baseline.

use half::f16;
use walsh_formats::kv::lane_sum;

use super::{Primitives, Simd, Sixteen, Table, operations};

/// Arrays of sixteen.
#[derive(Clone, Copy)]
pub(crate) struct Portable(());

#[inline(always)]
fn each<A: Copy, R>(a: [A; 16], f: impl Fn(A) -> R) -> [R; 16] {
    std::array::from_fn(|i| f(a[i]))
}

#[inline(always)]
fn both<A: Copy, B: Copy, R>(a: [A; 16], b: [B; 16], f: impl Fn(A, B) -> R) -> [R; 16] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Portable {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(())
    }
}

impl Primitives for Portable {
    #[inline(always)]
    fn widen(self, half: f16) -> f32 {
        // Numbers below the normal range are scaled up by an exact product; infinities and NaN get the exponent that
        // the shift leaves them short of.
        let bits = u32::from(half.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        let value = if magnitude >= 0x0f80_0000 {
            f32::from_bits(magnitude | 0x7f80_0000)
        } else if magnitude >= 0x0080_0000 {
            f32::from_bits(magnitude + 0x3800_0000)
        } else {
            (magnitude >> 13) as f32 * f32::from_bits(0x3380_0000)
        };
        f32::from_bits(value.to_bits() | (bits & 0x8000) << 16)
    }
}

impl Simd for Portable {
    type F = [f32; 16];
    type I = [u32; 16];
    type D = [f64; 16];

    const ORDER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const SCORE_ROWS: usize = 2;
    const WIDE: bool = false;
    const VALUE_ROWS: usize = 2;

    operations! {
        fn splat(self, x: f32) -> [f32; 16] { [x; 16] }
        unsafe fn load(self, p: *const f32) -> [f32; 16] { p.cast::<[f32; 16]>().read_unaligned() }
        unsafe fn store(self, p: *mut f32, a: [f32; 16]) { p.cast::<[f32; 16]>().write_unaligned(a) }
        fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] { both(a, b, |a, b| a + b) }
        fn sub(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] { both(a, b, |a, b| a - b) }
        fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] { both(a, b, |a, b| a * b) }
        fn div(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] { both(a, b, |a, b| a / b) }
        fn fma(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
            std::array::from_fn(|i| a[i] * b[i] + c[i])
        }
        fn max(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] { both(a, b, |a, b| if a > b { a } else { b }) }
        fn min(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] { both(a, b, |a, b| if a < b { a } else { b }) }
        fn abs(self, a: [f32; 16]) -> [f32; 16] { each(a, f32::abs) }
        fn zero_below(self, a: [f32; 16], x: [f32; 16], limit: [f32; 16]) -> [f32; 16] {
            std::array::from_fn(|i| if x[i] < limit[i] { 0.0 } else { a[i] })
        }
        fn keep(self, a: [f32; 16], first: i32, end: i32) -> [f32; 16] {
            std::array::from_fn(|i| {
                if (first..end).contains(&(i as i32)) { a[i] } else { f32::NEG_INFINITY }
            })
        }
        fn pick_below(self, x: [f32; 16], limit: [f32; 16], a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
            std::array::from_fn(|i| if x[i] < limit[i] { a[i] } else { b[i] })
        }
        fn reduce_max(self, a: [f32; 16]) -> f32 {
            a.into_iter().fold(f32::NEG_INFINITY, |m, x| if m > x { m } else { x })
        }
        fn reduce_add(self, a: [f32; 16]) -> f32 { lane_sum(a) }
        fn sums(self, rows: &[[f32; 16]; 16]) -> [f32; 16] { rows.map(lane_sum) }
        fn zeros(self) -> [f64; 16] { [0.0; 16] }
        fn add_squares(self, s: [f64; 16], a: [f32; 16]) -> [f64; 16] {
            std::array::from_fn(|i| s[i] + f64::from(a[i]) * f64::from(a[i]))
        }
        fn reduce_doubles(self, s: [f64; 16]) -> f64 { lane_sum(s) }
        fn butterfly<const H: usize>(self, a: [f32; 16]) -> [f32; 16] {
            std::array::from_fn(|i| if i & H == 0 { a[i] + a[i ^ H] } else { a[i ^ H] - a[i] })
        }
        fn splat_i(self, x: u32) -> [u32; 16] { [x; 16] }
        unsafe fn load_i(self, p: *const u32) -> [u32; 16] { p.cast::<[u32; 16]>().read_unaligned() }
        fn and(self, a: [u32; 16], b: [u32; 16]) -> [u32; 16] { both(a, b, |a, b| a & b) }
        fn or(self, a: [u32; 16], b: [u32; 16]) -> [u32; 16] { both(a, b, |a, b| a | b) }
        fn xor(self, a: [u32; 16], b: [u32; 16]) -> [u32; 16] { both(a, b, |a, b| a ^ b) }
        fn add_i(self, a: [u32; 16], b: [u32; 16]) -> [u32; 16] { both(a, b, u32::wrapping_add) }
        fn sub_i(self, a: [u32; 16], b: [u32; 16]) -> [u32; 16] { both(a, b, u32::wrapping_sub) }
        fn shr(self, a: [u32; 16], count: [u32; 16]) -> [u32; 16] { both(a, count, |a, n| a >> (n & 31)) }
        fn shl<const N: u32>(self, a: [u32; 16]) -> [u32; 16] { each(a, |a| a << N) }
        fn bits(self, a: [f32; 16]) -> [u32; 16] { each(a, f32::to_bits) }
        fn of_bits(self, a: [u32; 16]) -> [f32; 16] { each(a, f32::from_bits) }
        fn number(self, a: [u32; 16]) -> [f32; 16] { each(a, |a| a as f32) }
        fn pick_bits(self, mask: u32, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
            std::array::from_fn(|i| if mask >> i & 1 == 1 { a[i] } else { b[i] })
        }
        fn add_if_less(self, n: [u32; 16], a: [f32; 16], b: [f32; 16], step: u32) -> [u32; 16] {
            std::array::from_fn(|i| if a[i] < b[i] { n[i].wrapping_add(step) } else { n[i] })
        }
        fn truncate(self, a: [f32; 16]) -> [u32; 16] { each(a, |a| a as i32 as u32) }
        unsafe fn store_u16(self, p: *mut u8, a: [u32; 16]) {
            p.cast::<[u16; 16]>().write_unaligned(each(a, |a| a as u16))
        }
        unsafe fn store_u8(self, p: *mut u8, a: [u32; 16]) {
            p.cast::<[u8; 16]>().write_unaligned(each(a, |a| a as u8))
        }
        unsafe fn load_u8(self, p: *const u8) -> [u32; 16] { each(p.cast::<[u8; 16]>().read_unaligned(), u32::from) }
        unsafe fn load_i8(self, p: *const u8) -> [f32; 16] { each(p.cast::<[i8; 16]>().read_unaligned(), f32::from) }
        unsafe fn load_f16(self, p: *const u8) -> [f32; 16] {
            each(p.cast::<[u16; 16]>().read_unaligned(), |x| f16::from_bits(x).to_f32())
        }
        unsafe fn store_f16(self, p: *mut u8, a: [f32; 16]) {
            p.cast::<[u16; 16]>().write_unaligned(each(a, |x| f16::from_f32(x).to_bits()))
        }
        unsafe fn load_bf16(self, p: *const u8) -> [f32; 16] {
            each(p.cast::<[u16; 16]>().read_unaligned(), |x| f32::from_bits(u32::from(x) << 16))
        }
        unsafe fn nibbles(self, p: *const u8) -> [u32; 16] {
            let bytes = p.cast::<[u8; 8]>().read_unaligned();
            std::array::from_fn(|i| u32::from(bytes[i / 2] >> (4 * (i % 2))))
        }
        unsafe fn half(self, p: *const u8) -> f32 { f16::from_bits(p.cast::<u16>().read_unaligned()).to_f32() }
        unsafe fn columns(self, rows: Sixteen) -> [[u32; 16]; 8] {
            std::array::from_fn(|word| {
                std::array::from_fn(|row| rows.row(row).cast::<u32>().add(word).read_unaligned())
            })
        }
        fn lookup<const BITS: usize>(self, table: &Table<'_, Self>, index: [u32; 16]) -> [f32; 16] {
            let entries = &table.numbers[..1 << BITS];
            std::array::from_fn(|i| entries[(index[i] & ((1 << BITS) - 1)) as usize])
        }
        fn transpose(self, rows: &mut [[f32; 16]; 16]) {
            let source = *rows;
            for (i, row) in rows.iter_mut().enumerate() {
                *row = std::array::from_fn(|j| source[j][i]);
            }
        }
    }
}
