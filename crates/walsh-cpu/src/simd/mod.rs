//! Sixteen numbers at a time: what the KV kernels ask of an instruction set.
//!
//! A kernel is written once, generic over [`Simd`], and inlined into one entry per instruction set that enables the
//! set's features ([`entries`]). Every operation that a cache's bytes depend on is exactly rounded and unfused, so that
//! all sets give the same bytes.

use half::f16;

use crate::isa::Isa;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bytes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::{Avx2, bytes::numbers_of_bytes};
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use bytes::Bytes;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;

/// Vectors of sixteen numbers of an instruction set.
///
/// # Safety of the methods
/// The machine has the instruction set. Pointers are valid for what is read or written; none needs to be aligned.
pub(crate) trait Simd: Copy + 'static {
    /// Sixteen singles.
    type F: Copy;
    /// Sixteen 32-bit integers.
    type I: Copy;
    /// Sixteen doubles.
    type D: Copy;

    /// Which of sixteen consecutive 4-bit numbers [`nibbles`](Self::nibbles) gives to each lane.
    const ORDER: [u8; 16];
    /// Query rows of the score kernel's register block.
    const SCORE_ROWS: usize;
    /// Whether register blocks hold several vectors per row: with 32 registers of 16 lanes.
    const WIDE: bool;
    /// Query rows of the value kernel's register block.
    const VALUE_ROWS: usize;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, a: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// a·b + c, fused where the set can.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; b where one is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; b where one is NaN.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    /// a, and zero in the lanes where `x` is below `limit`.
    unsafe fn zero_below(a: Self::F, x: Self::F, limit: Self::F) -> Self::F;
    /// a, and −∞ in the lanes before `first` and from `end` on.
    unsafe fn keep(a: Self::F, first: i32, end: i32) -> Self::F;
    /// a where `x` is below `limit`, else b.
    unsafe fn pick_below(x: Self::F, limit: Self::F, a: Self::F, b: Self::F) -> Self::F;
    unsafe fn reduce_max(a: Self::F) -> f32;
    /// The sum in the order of [`walsh_formats::kv::lane_sum`].
    unsafe fn reduce_add(a: Self::F) -> f32;
    /// The sums of sixteen vectors, each in the order of [`reduce_add`](Self::reduce_add).
    unsafe fn sums(rows: &[Self::F; 16]) -> Self::F;
    unsafe fn zeros() -> Self::D;
    /// s + a², in double precision, where a² is exact.
    unsafe fn add_squares(s: Self::D, a: Self::F) -> Self::D;
    /// The sum in the order of [`walsh_formats::kv::lane_sum`].
    unsafe fn reduce_doubles(s: Self::D) -> f64;
    /// Simd i and i ^ H of a pair become their sum and difference; H is 1, 2, 4 or 8.
    unsafe fn butterfly<const H: usize>(a: Self::F) -> Self::F;

    unsafe fn splat_i(x: u32) -> Self::I;
    unsafe fn load_i(p: *const u32) -> Self::I;
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn xor(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn sub_i(a: Self::I, b: Self::I) -> Self::I;
    /// Logical shift of each lane by its own count below 32.
    unsafe fn shr(a: Self::I, count: Self::I) -> Self::I;
    unsafe fn shl<const N: u32>(a: Self::I) -> Self::I;
    unsafe fn bits(a: Self::F) -> Self::I;
    unsafe fn from_bits(a: Self::I) -> Self::F;
    /// Integers below 2³¹ as numbers.
    unsafe fn number(a: Self::I) -> Self::F;
    /// a in the lanes whose bit of the lowest sixteen is set, else b.
    unsafe fn pick_bits(mask: u32, a: Self::F, b: Self::F) -> Self::F;
    /// n + `step` in the lanes where a < b, else n.
    unsafe fn add_if_less(n: Self::I, a: Self::F, b: Self::F, step: u32) -> Self::I;
    /// Numbers within 31 bits without their fractions.
    unsafe fn truncate(a: Self::F) -> Self::I;
    /// The low byte of each lane.
    unsafe fn store_u8(p: *mut u8, a: Self::I);
    /// The low half of each lane.
    unsafe fn store_u16(p: *mut u8, a: Self::I);
    /// The low `WIDTH` bits of each lane, the first in the lowest bits: 2·`WIDTH` bytes; `WIDTH` is 1, 2 or 4.
    #[inline(always)]
    unsafe fn store_bits<const WIDTH: usize>(p: *mut u8, a: Self::I) {
        let mut bytes = [0u8; 16];
        // SAFETY: the caller's; the array holds sixteen.
        unsafe { Self::store_u8(bytes.as_mut_ptr(), a) };
        let mut word = 0u64;
        for (i, byte) in bytes.into_iter().enumerate() {
            word |= (u64::from(byte) & ((1 << WIDTH) - 1)) << (i * WIDTH);
        }
        let word = word.to_le_bytes();
        // SAFETY: the caller's; no more than the eight bytes of the word.
        unsafe { p.copy_from_nonoverlapping(word.as_ptr(), 2 * WIDTH) };
    }
    /// Sixteen bytes, zero-extended.
    unsafe fn load_u8(p: *const u8) -> Self::I;
    /// Sixteen signed bytes as numbers.
    unsafe fn load_i8(p: *const u8) -> Self::F;
    unsafe fn load_f16(p: *const u8) -> Self::F;
    /// Rounds to nearest even.
    unsafe fn store_f16(p: *mut u8, a: Self::F);
    unsafe fn load_bf16(p: *const u8) -> Self::F;
    /// Sixteen 4-bit numbers of eight bytes, in the low bits of lanes in [`ORDER`](Self::ORDER); the bits above are
    /// unspecified.
    unsafe fn nibbles(p: *const u8) -> Self::I;
    /// One half-precision number.
    unsafe fn half(p: *const u8) -> f32;
    /// The bits of a number in half precision, rounded to nearest even.
    #[inline(always)]
    unsafe fn to_half(x: f32) -> u16 {
        f16::from_f32(x).to_bits()
    }
    /// The first eight 32-bit words of sixteen rows, word by word.
    unsafe fn columns(rows: &[*const u8; 16]) -> [Self::I; 8];
    /// As [`columns`](Self::columns) of rows that have only so many bytes, fewer than 32: zeros follow.
    #[inline(always)]
    unsafe fn short_columns(rows: &[*const u8; 16], bytes: usize) -> [Self::I; 8] {
        let mut copies = [[0u8; 32]; 16];
        let mut starts = *rows;
        for i in 0..16 {
            // SAFETY: the caller's.
            unsafe { rows[i].copy_to_nonoverlapping(copies[i].as_mut_ptr(), bytes.min(32)) };
            starts[i] = copies[i].as_ptr();
        }
        // SAFETY: whole copies.
        unsafe { Self::columns(&starts) }
    }
    /// Table entries by the low `BITS` bits of each lane; the bits above are ignored. A table for 8 bits must be odd:
    /// entry 255 − i is entry i negated.
    unsafe fn lookup<const BITS: usize>(table: &Table<Self>, index: Self::I) -> Self::F;
    unsafe fn transpose(rows: &mut [Self::F; 16]);
}

/// By the exponent of a power of two H: 1 in the lanes without that bit, −1 in those with it.
#[cfg(target_arch = "x86_64")]
static ALTERNATING: [[f32; 16]; 4] = {
    let mut signs = [[1.0; 16]; 4];
    let mut at = 0;
    while at < 64 {
        if (at % 16) >> (at / 16) & 1 == 1 {
            signs[at / 16][at % 16] = -1.0;
        }
        at += 1;
    }
    signs
};

/// [`Simd::ORDER`] of an instruction set.
pub(crate) fn order(isa: Isa) -> [u8; 16] {
    match isa.base() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Avx2::ORDER,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Avx512::ORDER,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Neon::ORDER,
        _ => Portable::ORDER,
    }
}

/// The numbers of a table for [`Table::new`]: shorter ones are repeated up to 128.
pub(crate) fn table_numbers(numbers: &[f32]) -> Vec<f32> {
    numbers
        .iter()
        .copied()
        .cycle()
        .take(numbers.len().max(128))
        .collect()
}

/// A table of a power of two up to 256 numbers.
pub(crate) struct Table<S: Simd> {
    /// The first 128 numbers, or the last 128 of 256.
    pub(crate) parts: [S::F; 8],
    /// All numbers.
    pub(crate) base: *const f32,
}

impl<S: Simd> Table<S> {
    /// Loads a table from [`table_numbers`].
    ///
    /// # Safety
    /// The machine has the instruction set, and `numbers` outlives the table.
    #[inline(always)]
    pub(crate) unsafe fn new(numbers: &[f32]) -> Self {
        assert!(numbers.len() >= 128);
        let base = numbers.as_ptr();
        // SAFETY: within the last 128 numbers; the set is the caller's promise.
        unsafe {
            let p = base.add(numbers.len() - 128);
            let mut parts = [S::splat(0.0); 8];
            for i in 0..8 {
                parts[i] = S::load(p.add(16 * i));
            }
            Self { parts, base }
        }
    }
}

/// eˣ for x ≤ 0, to about two units in the last place; zero below −87, NaN for NaN.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the caller's.
    unsafe {
        // Adding 1.5·2²³ rounds to an integer, whose bits then make the power of two.
        let shift = S::splat(12_582_912.0);
        let shifted = S::fma(x, S::splat(std::f32::consts::LOG2_E), shift);
        let n = S::sub(shifted, shift);
        let r = S::fma(n, S::splat(-0.693_359_4), x);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        for c in [
            1.398_199_9e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            0.5,
        ] {
            p = S::fma(p, r, S::splat(c));
        }
        let y = S::fma(S::mul(p, r), r, S::add(r, S::splat(1.0)));
        let power = S::add_i(S::shl::<23>(S::bits(shifted)), S::splat_i(0x3f80_0000));
        S::zero_below(S::mul(y, S::from_bits(power)), x, S::splat(-87.0))
    }
}

/// tanh x, to about three units of 2⁻²⁴; NaN for NaN.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
pub(crate) unsafe fn tanh<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the caller's.
    unsafe {
        let one = S::splat(1.0);
        let size = S::abs(x);
        // tanh |x| = (1 − e)/(1 + e) with e = exp(−2|x|), which cancels near zero: a series serves there.
        let e = exp::<S>(S::mul(size, S::splat(-2.0)));
        let quotient = S::div(S::sub(one, e), S::add(one, e));
        let square = S::mul(x, x);
        let mut series = S::splat(-17.0 / 315.0);
        for c in [2.0 / 15.0, -1.0 / 3.0, 1.0] {
            series = S::fma(series, square, S::splat(c));
        }
        let sign = S::and(S::bits(x), S::splat_i(0x8000_0000));
        let signed = S::from_bits(S::or(S::bits(quotient), sign));
        S::pick_below(square, S::splat(0.02), S::mul(series, x), signed)
    }
}

/// Implements unsafe, always inlined functions whose bodies may use the set's intrinsics.
macro_rules! operations {
    ($($(#[$doc:meta])* fn $name:ident $(<const $c:ident: $ct:ty>)? ($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block)*) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            unsafe fn $name $(<const $c: $ct>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller promises the instruction set and valid pointers, as `Simd` asks.
                #[allow(unused_unsafe, reason = "some bodies are safe")]
                unsafe { $body }
            }
        )*
    };
}
pub(crate) use operations;

/// Calls a function that is generic over [`Simd`], compiled with the features of an instruction set.
macro_rules! entries {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$doc])*
        $vis unsafe fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            use $body as body;

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's.
                unsafe { body::<$crate::simd::Avx2>($($arg),*) }
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's.
                unsafe { body::<$crate::simd::Avx512>($($arg),*) }
            }

            // SAFETY: a device is opened only for a set that the machine has; the rest is the caller's.
            unsafe {
                match isa.base() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Isa::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Isa::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::isa::Isa::Neon => body::<$crate::simd::Neon>($($arg),*),
                    _ => body::<$crate::simd::Portable>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use entries;

/// Defines a function that is compiled for each instruction set and takes the
/// one to run as its first argument. The body must be branch-free enough for
/// the compiler to vectorise.
macro_rules! versions {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            match isa.base() {
                // SAFETY: a device is opened only for a set that the machine has.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512 => unsafe { avx512($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use versions;

#[cfg(test)]
mod tests;
