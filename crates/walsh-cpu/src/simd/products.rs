//! What matrix products ask of an instruction set: one register of 32-bit lanes, what decoding needs, and products of
//! bytes.

use std::ops::Range;

use half::f16;

/// The steps of decoding a row for which the compiler does not find an instruction set's own instructions.
pub(crate) trait Primitives: Copy + 'static {
    /// The value of a half-precision number.
    fn widen(self, half: f16) -> f32;

    /// Widens consecutive numbers.
    ///
    /// # Safety
    /// `from` points to as many numbers as `to` takes, at any address.
    #[inline(always)]
    unsafe fn widen_all(self, from: *const f16, to: &mut [f32]) {
        for (i, to) in to.iter_mut().enumerate() {
            // SAFETY: `from` has as many numbers as `to`, as the method asks.
            *to = self.widen(unsafe { from.add(i).read_unaligned() });
        }
    }

    /// The bytes of a table at indices below 16.
    #[inline(always)]
    fn look_up_all(self, table: &[u8; 16], mut indices: [u8; 32]) -> [u8; 32] {
        for index in &mut indices {
            *index = table[usize::from(*index & 15)];
        }
        indices
    }

    /// Each bit, the lowest first, as a byte with all of its bits.
    #[inline(always)]
    fn masks(self, bits: u32) -> [u8; 32] {
        let mut masks = [0; 32];
        for (i, mask) in masks.iter_mut().enumerate() {
            *mask = 0u8.wrapping_sub((bits >> i & 1) as u8);
        }
        masks
    }

    /// 32 codes, of which those whose bit of `signs` is set are mirrored at `zero`: a power of two above all that they
    /// stand for.
    #[inline(always)]
    fn mirrored(self, codes: [u64; 4], signs: u32, zero: u8) -> [u8; 32] {
        let mut codes: [u8; 32] = bytemuck::cast(codes);
        for (code, mask) in codes.iter_mut().zip(self.masks(signs)) {
            // 2·zero − 1 is all bits of a code: a code's complement is that less the code.
            *code = (*code ^ mask & (2 * zero - 1)).wrapping_sub(mask);
        }
        codes
    }

    /// 32 numbers in 8 bits.
    #[inline(always)]
    fn quantise(self, values: &[f32; 32]) -> Quantised {
        // As integers, magnitudes compare like the numbers do, and infinity and NaN are above all others.
        let largest = values.iter().fold(0, |largest, value| {
            largest.max(value.to_bits() & 0x7fff_ffff)
        });
        let (scale, inverse) = scale_of(largest);
        let mut codes = [0; 32];
        for (code, value) in codes.iter_mut().zip(values) {
            *code = (value * inverse + SHIFT).to_bits() as i8;
        }
        let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum::<i32>();
        let sums = [sum(&codes[..16]), sum(&codes[16..])];
        Quantised { codes, scale, sums }
    }
}

/// 32 numbers in 8 bits.
pub(crate) struct Quantised {
    pub(crate) codes: [i8; 32],
    /// What a code of one stands for: the largest magnitude over 127, or NaN where one is not finite.
    pub(crate) scale: f32,
    /// The sums of the two halves' codes.
    pub(crate) sums: [i32; 2],
}

/// The scale of numbers in 8 bits, and what to multiply them by, from the bits of the largest magnitude.
#[inline(always)]
pub(super) fn scale_of(largest: u32) -> (f32, f32) {
    let magnitude = f32::from_bits(largest);
    if !magnitude.is_finite() {
        (f32::NAN, 0.0)
    } else if magnitude < 127.0 * f32::MIN_POSITIVE {
        // The inverse would overflow.
        (0.0, 0.0)
    } else {
        (magnitude / 127.0, 127.0 / magnitude)
    }
}

/// What a float of 8 bits is multiplied by once its bits are where single precision has them: the difference of the
/// biases.
#[cfg(target_arch = "x86_64")]
pub(crate) const SMALL_FLOAT_UNIT: f32 = f32::from_bits((119 + 127) << 23);

/// Adding it leaves a small number, rounded to an integer, in the low bits.
pub(crate) const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³

/// A register of 32-bit lanes, or a pair of them where tiles need as many lanes: what kernels keep their sums in.
///
/// # Safety of the methods
/// Those that are unsafe ask for pointers that are valid for what is read or written; none needs to be aligned.
pub(crate) trait Register: Primitives {
    /// Words, or four bytes each.
    type Words: Copy;
    /// Numbers of single precision.
    type Numbers: Copy;
    /// The lanes: a divisor of the rows of a packed panel.
    const LANES: usize;
    /// Whether there is room for a block's sums beside those of all of K.
    const MANY: bool;

    fn words(self, x: i32) -> Self::Words;
    fn numbers(self, x: f32) -> Self::Numbers;
    unsafe fn store_words(self, p: *mut u8, a: Self::Words);
    unsafe fn load_numbers(self, p: *const f32) -> Self::Numbers;
    unsafe fn store_numbers(self, p: *mut f32, a: Self::Numbers);
    fn shl(self, a: Self::Words, by: usize) -> Self::Words;
    fn to_numbers(self, a: Self::Words) -> Self::Numbers;
    fn add(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;
    fn sub(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;
    fn mul(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;
    /// `a · b + c`.
    fn mul_add(self, a: Self::Numbers, b: Self::Numbers, c: Self::Numbers) -> Self::Numbers;
    /// The sum of all lanes.
    fn total(self, a: Self::Numbers) -> f32;
    /// Four words of as many rows as there are lanes, word by word.
    unsafe fn columns(self, row: impl Fn(usize) -> *const u8) -> [Self::Words; 4];
}

/// What unpacks the codes of blocks that lie side by side, a row to each lane.
///
/// # Safety of the methods
/// As of those of [`Register`].
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "packed panels are of x86")
)]
pub(crate) trait Unpack: Register {
    unsafe fn load_words(self, p: *const u8) -> Self::Words;
    /// As many bytes as there are lanes, side by side, as words.
    unsafe fn load_bytes(self, p: *const u8) -> Self::Words;
    /// As many half-precision numbers as there are lanes, side by side.
    unsafe fn load_halves(self, p: *const u8) -> Self::Numbers;
    /// A number in all lanes, from where it lies.
    fn broadcast(self, from: &i32) -> Self::Words;
    fn bytes(self, x: u8) -> Self::Words;
    fn and(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn xor(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a & b | c`.
    fn and_or(self, a: Self::Words, b: Self::Words, c: Self::Words) -> Self::Words;
    /// Each word shifted towards its lowest bit.
    fn shr(self, a: Self::Words, by: usize) -> Self::Words;
    /// Each word with bit `from` of its bytes at bit `to` of them. Other bits may be those of another byte.
    fn moved(self, a: Self::Words, from: usize, to: usize) -> Self::Words;
    /// The highest byte of each word, as a signed number.
    fn signed_top_byte(self, a: Self::Words) -> Self::Words;
    /// The byte of a table that each byte, below 16, is the index of.
    fn look_up(self, table: &[u8; 16], indices: Self::Words) -> Self::Words;
    /// Bits `4 · quad` to `4 · quad + 3` of each word as bits 4 of its bytes.
    fn fifth_bits(self, a: Self::Words, quad: usize) -> Self::Words;
    /// What [`e8m0`](walsh_formats::ggml::e8m0) makes of each word, which is a byte.
    fn powers(self, a: Self::Words) -> Self::Numbers;
    /// What [`ue4m3`](walsh_formats::ggml::ue4m3) makes of each word, which is a byte.
    fn small_floats(self, a: Self::Words) -> Self::Numbers;
    /// The lower halves and the upper halves of the words as half-precision numbers.
    fn widen_words(self, a: Self::Words) -> [Self::Numbers; 2];
    /// Fetches as many of the bytes that come later in a stream as are read now, from `at` on. There may be none.
    fn fetch_ahead(self, at: *const u8, bytes: usize);
    /// Fetches a line into the first-level cache, where there is one at this address.
    fn fetch(self, line: *const u8);
}

/// Words, bytes and half-precision numbers from any places, one for each lane.
///
/// # Safety of the methods
/// As of those of [`Register`].
#[cfg(target_arch = "x86_64")]
pub(crate) trait Gather: Unpack {
    unsafe fn gather_words(self, place: impl Fn(usize) -> *const u8) -> Self::Words;
    unsafe fn gather_bytes(self, place: impl Fn(usize) -> *const u8) -> Self::Words;
    unsafe fn gather_halves(self, place: impl Fn(usize) -> *const u8) -> Self::Numbers;
}

/// Which quads of a block are multiplied.
#[derive(Clone, Debug)]
pub(crate) struct Quads {
    pub(crate) range: Range<usize>,
    /// The largest code. Codes of 255 are symmetric about 128, and are multiplied as signed numbers where a set does so.
    pub(crate) top: u8,
}

/// A token of an instruction set's products of bytes: unsigned codes, and activations of 8 bits.
pub(crate) trait Products: Copy + 'static {
    /// The set that all but the products are of.
    type Set: Register;
    /// Whether codes that take all eight bits are multiplied as signed numbers. Otherwise they are raised by 128.
    const SIGNED: bool;

    /// The token, on a machine that has the set; on another there is none to run anything with.
    fn of_machine() -> Self;

    fn set(self) -> Self::Set;

    /// Runs work compiled with the set's features.
    fn run<W: Work<Self>>(self, work: W) -> W::Output;

    /// Adds the products of some quads of a block of a panel's codes, eight registers of bytes that are raised where they take
    /// all eight bits, and the values of each row.
    fn add_rows<const ROWS: usize>(
        self,
        sums: &mut [Words<Self>; ROWS],
        panel: &[u8],
        values: [&[i32; 8]; ROWS],
        quads: Quads,
    );
}

/// Products with blocks that lie side by side.
#[cfg(target_arch = "x86_64")]
pub(crate) trait ColumnProducts: Products<Set: Unpack> {
    /// Adds the products of some quads of codes and each row's values to each lane of the row's sums.
    fn add<const ROWS: usize>(
        self,
        sums: &mut [Words<Self>; ROWS],
        codes: &[Words<Self>; 8],
        values: [&[i32; 8]; ROWS],
        quads: Quads,
    );
}

/// Products with rows that are decoded to memory.
pub(crate) trait RowProducts: Products {
    /// Adds the products of 32 codes, raised where they take all eight bits, and values: each half times a scale of its
    /// own. The lanes together are the sum.
    fn add_block(
        self,
        sum: Numbers<Self>,
        codes: &[u8; 32],
        values: &[i8; 32],
        scales: Scales,
    ) -> Numbers<Self>;
}

/// What the halves of 32 products are multiplied by.
#[derive(Clone, Copy)]
pub(crate) struct Scales {
    /// Of both halves, or of the first.
    pub(crate) first: f32,
    /// Of the second where it has its own.
    pub(crate) second: Option<f32>,
    /// The largest code, as in [`Quads`].
    pub(crate) top: u8,
}

/// The words of a set of products.
pub(crate) type Words<P> = <<P as Products>::Set as Register>::Words;

/// The numbers of a set of products.
pub(crate) type Numbers<P> = <<P as Products>::Set as Register>::Numbers;

/// Work that is generic over a token, for [`Products::run`].
pub(crate) trait Work<S> {
    /// What it gives.
    type Output;

    /// Does it; always inlined, so that it is compiled with the set's features.
    fn on(self, s: S) -> Self::Output;
}
