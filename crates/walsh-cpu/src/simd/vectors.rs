//! Sixteen numbers at a time: what every instruction set has of them, and what is made of that.

use std::cell::Cell;

use half::f16;

/// The lanes of a vector, and the positions of a panel of keys.
pub(crate) const LANES: usize = 16;

/// Sixteen rows that lie at a fixed distance from each other.
#[derive(Clone, Copy)]
pub(crate) struct Sixteen {
    first: *const u8,
    stride: usize,
}

impl Sixteen {
    #[inline(always)]
    pub(crate) fn new(first: *const u8, stride: usize) -> Self {
        Self { first, stride }
    }

    /// The same rows from one of their bytes on.
    #[inline(always)]
    pub(crate) fn from(self, byte: usize) -> Self {
        Self::new(self.first.wrapping_add(byte), self.stride)
    }

    /// The same rows, of which the compiler does not know it: their addresses are worked out where they are read, which
    /// loads do by themselves. Kept for a whole loop, sixteen pointers lie in memory instead.
    #[inline(always)]
    pub(crate) fn again(self) -> Self {
        let mut stride = self.stride;
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        // SAFETY: no instruction.
        unsafe {
            std::arch::asm!("/* {0} */", inout(reg) stride, options(nomem, nostack, preserves_flags));
        }
        Self { stride, ..self }
    }

    #[inline(always)]
    pub(crate) fn row(self, row: usize) -> *const u8 {
        let four = self.first.wrapping_add(row / 4 * (4 * self.stride));
        four.wrapping_add(row % 4 * self.stride)
    }
}

/// A token of an instruction set: it exists only where the machine has the set, so that arithmetic on the set's vectors of
/// sixteen numbers is safe.
///
/// # Safety of the methods
/// Those that are unsafe ask for pointers that are valid for what is read or written; none needs to be aligned.
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
    /// Of a set that has [`Bytes`]: the most query rows whose keys are multiplied as they are decoded, and whose values are.
    const FUSED_ROWS: Option<(usize, usize)> = None;

    fn splat(self, x: f32) -> Self::F;
    unsafe fn load(self, p: *const f32) -> Self::F;
    unsafe fn store(self, p: *mut f32, a: Self::F);
    #[inline(always)]
    fn read(self, numbers: &[f32; 16]) -> Self::F {
        // SAFETY: sixteen numbers.
        unsafe { self.load(numbers.as_ptr()) }
    }
    #[inline(always)]
    fn write(self, numbers: &mut [f32; 16], a: Self::F) {
        // SAFETY: room for sixteen numbers.
        unsafe { self.store(numbers.as_mut_ptr(), a) }
    }
    /// Numbers that may be written through other references of this thread.
    #[inline(always)]
    fn get(self, numbers: &[Cell<f32>; 16]) -> Self::F {
        // SAFETY: sixteen numbers.
        unsafe { self.load(numbers.as_ptr().cast()) }
    }
    #[inline(always)]
    fn set(self, numbers: &[Cell<f32>; 16], a: Self::F) {
        // SAFETY: room for sixteen numbers, which are to be written through such references.
        unsafe { self.store(numbers.as_ptr().cast::<f32>().cast_mut(), a) }
    }
    /// Sixteen numbers of a row of bytes.
    #[inline(always)]
    fn read_f32(self, bytes: &[u8; 64]) -> Self::F {
        // SAFETY: the bytes of sixteen numbers.
        unsafe { self.load(bytes.as_ptr().cast()) }
    }
    #[inline(always)]
    fn read_f16(self, bytes: &[u8; 32]) -> Self::F {
        // SAFETY: the bytes of sixteen numbers.
        unsafe { self.load_f16(bytes.as_ptr()) }
    }
    #[inline(always)]
    fn read_bf16(self, bytes: &[u8; 32]) -> Self::F {
        // SAFETY: the bytes of sixteen numbers.
        unsafe { self.load_bf16(bytes.as_ptr()) }
    }
    #[inline(always)]
    fn read_i8(self, bytes: &[u8; 16]) -> Self::F {
        // SAFETY: sixteen bytes.
        unsafe { self.load_i8(bytes.as_ptr()) }
    }
    /// Sixteen bytes, zero-extended.
    #[inline(always)]
    fn read_u8(self, bytes: &[u8; 16]) -> Self::I {
        // SAFETY: sixteen bytes.
        unsafe { self.load_u8(bytes.as_ptr()) }
    }
    #[inline(always)]
    fn read_i(self, words: &[u32; 16]) -> Self::I {
        // SAFETY: sixteen words.
        unsafe { self.load_i(words.as_ptr()) }
    }
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a·b + c, fused where the set can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; b where one is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; b where one is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// a, and zero in the lanes where `x` is below `limit`.
    fn zero_below(self, a: Self::F, x: Self::F, limit: Self::F) -> Self::F;
    /// a, and −∞ in the lanes before `first` and from `end` on.
    fn keep(self, a: Self::F, first: i32, end: i32) -> Self::F;
    /// a where `x` is below `limit`, else b.
    fn pick_below(self, x: Self::F, limit: Self::F, a: Self::F, b: Self::F) -> Self::F;
    fn reduce_max(self, a: Self::F) -> f32;
    /// The sum in the order of [`walsh_formats::kv::lane_sum`].
    fn reduce_add(self, a: Self::F) -> f32;
    /// The sums of sixteen vectors, each in the order of [`reduce_add`](Self::reduce_add).
    fn sums(self, rows: &[Self::F; 16]) -> Self::F;
    fn zeros(self) -> Self::D;
    /// s + a², in double precision, where a² is exact.
    fn add_squares(self, s: Self::D, a: Self::F) -> Self::D;
    /// The sum in the order of [`walsh_formats::kv::lane_sum`].
    fn reduce_doubles(self, s: Self::D) -> f64;
    /// Lanes i and i ^ H of a pair become their sum and difference; H is 1, 2, 4 or 8.
    fn butterfly<const H: usize>(self, a: Self::F) -> Self::F;

    fn splat_i(self, x: u32) -> Self::I;
    unsafe fn load_i(self, p: *const u32) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn xor(self, a: Self::I, b: Self::I) -> Self::I;
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Logical shift of each lane by its own count below 32.
    fn shr(self, a: Self::I, count: Self::I) -> Self::I;
    fn shl<const N: u32>(self, a: Self::I) -> Self::I;
    fn bits(self, a: Self::F) -> Self::I;
    fn of_bits(self, a: Self::I) -> Self::F;
    /// Integers below 2³¹ as numbers.
    fn number(self, a: Self::I) -> Self::F;
    /// a in the lanes whose bit of the lowest sixteen is set, else b.
    fn pick_bits(self, mask: u32, a: Self::F, b: Self::F) -> Self::F;
    /// n + `step` in the lanes where a < b, else n.
    fn add_if_less(self, n: Self::I, a: Self::F, b: Self::F, step: u32) -> Self::I;
    /// Numbers within 31 bits without their fractions.
    fn truncate(self, a: Self::F) -> Self::I;
    /// The low byte of each lane.
    unsafe fn store_u8(self, p: *mut u8, a: Self::I);
    /// The low half of each lane.
    unsafe fn store_u16(self, p: *mut u8, a: Self::I);
    /// The low `WIDTH` bits of each lane, the first in the lowest bits: 2·`WIDTH` bytes; `WIDTH` is 1, 2 or 4.
    #[inline(always)]
    unsafe fn store_bits<const WIDTH: usize>(self, p: *mut u8, a: Self::I) {
        let mut bytes = [0u8; 16];
        // SAFETY: the array holds sixteen.
        unsafe { self.store_u8(bytes.as_mut_ptr(), a) };
        let mut word = 0u64;
        for (i, byte) in bytes.into_iter().enumerate() {
            word |= (u64::from(byte) & ((1 << WIDTH) - 1)) << (i * WIDTH);
        }
        let word = word.to_le_bytes();
        // SAFETY: the method asks for room for so many bytes, and the word has eight.
        unsafe { p.copy_from_nonoverlapping(word.as_ptr(), 2 * WIDTH) };
    }
    /// Sixteen bytes, zero-extended.
    unsafe fn load_u8(self, p: *const u8) -> Self::I;
    /// Sixteen signed bytes as numbers.
    unsafe fn load_i8(self, p: *const u8) -> Self::F;
    unsafe fn load_f16(self, p: *const u8) -> Self::F;
    /// Rounds to nearest even.
    unsafe fn store_f16(self, p: *mut u8, a: Self::F);
    unsafe fn load_bf16(self, p: *const u8) -> Self::F;
    /// Sixteen 4-bit numbers of eight bytes, in the low bits of lanes in [`ORDER`](Self::ORDER); the bits above are
    /// unspecified.
    unsafe fn nibbles(self, p: *const u8) -> Self::I;
    /// One half-precision number.
    unsafe fn half(self, p: *const u8) -> f32;
    /// The bits of a number in half precision, rounded to nearest even.
    #[inline(always)]
    fn to_half(self, x: f32) -> u16 {
        f16::from_f32(x).to_bits()
    }
    /// The first eight 32-bit words of sixteen rows, word by word.
    unsafe fn columns(self, rows: Sixteen) -> [Self::I; 8];
    /// As [`columns`](Self::columns) of rows that have only so many bytes, fewer than 32: zeros follow.
    #[inline(always)]
    unsafe fn short_columns(self, rows: Sixteen, bytes: usize) -> [Self::I; 8] {
        let mut copies = [[0u8; 32]; 16];
        for (i, copy) in copies.iter_mut().enumerate() {
            // SAFETY: a row has so many bytes, as the method asks, and a copy 32.
            unsafe {
                rows.row(i)
                    .copy_to_nonoverlapping(copy.as_mut_ptr(), bytes.min(32))
            };
        }
        // SAFETY: whole copies.
        unsafe { self.columns(Sixteen::new(copies.as_ptr().cast(), 32)) }
    }
    /// Table entries by the low `BITS` bits of each lane; the bits above are ignored. A table for 8 bits must be odd:
    /// entry 255 − i is entry i negated.
    fn lookup<const BITS: usize>(self, table: &Table<'_, Self>, index: Self::I) -> Self::F;
    fn transpose(self, rows: &mut [Self::F; 16]);
}

/// By the exponent of a power of two H: 1 in the lanes without that bit, −1 in those with it.
#[cfg(target_arch = "x86_64")]
pub(super) static ALTERNATING: [[f32; 16]; 4] = {
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
pub(crate) struct Table<'a, S: Simd> {
    /// The first 128 numbers, or the last 128 of 256.
    pub(super) parts: [S::F; 8],
    /// All numbers.
    pub(super) numbers: &'a [f32],
}

impl<'a, S: Simd> Table<'a, S> {
    /// Loads a table from [`table_numbers`].
    #[inline(always)]
    pub(crate) fn new(s: S, numbers: &'a [f32]) -> Self {
        let last = &numbers[numbers.len() - 128..];
        let mut parts = [s.splat(0.0); 8];
        for i in 0..8 {
            // SAFETY: sixteen of the last 128 numbers.
            parts[i] = unsafe { s.load(last.as_ptr().add(16 * i)) };
        }
        Self { parts, numbers }
    }
}

/// eˣ for x ≤ 0, to about two units in the last place; zero below −87, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // Adding 1.5·2²³ rounds to an integer, whose bits then make the power of two.
    let shift = s.splat(12_582_912.0);
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), shift);
    let n = s.sub(shifted, shift);
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = s.fma(p, r, s.splat(c));
    }
    let y = s.fma(s.mul(p, r), r, s.add(r, s.splat(1.0)));
    let power = s.add_i(s.shl::<23>(s.bits(shifted)), s.splat_i(0x3f80_0000));
    s.zero_below(s.mul(y, s.of_bits(power)), x, s.splat(-87.0))
}

/// tanh x, to about three units of 2⁻²⁴; NaN for NaN.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let size = s.abs(x);
    // tanh |x| = (1 − e)/(1 + e) with e = exp(−2|x|), which cancels near zero: a series serves there.
    let e = exp(s, s.mul(size, s.splat(-2.0)));
    let quotient = s.div(s.sub(one, e), s.add(one, e));
    let square = s.mul(x, x);
    let mut series = s.splat(-17.0 / 315.0);
    for c in [2.0 / 15.0, -1.0 / 3.0, 1.0] {
        series = s.fma(series, square, s.splat(c));
    }
    let sign = s.and(s.bits(x), s.splat_i(0x8000_0000));
    let signed = s.of_bits(s.or(s.bits(quotient), sign));
    s.pick_below(square, s.splat(0.02), s.mul(series, x), signed)
}
