//! What attention over codes asks of an instruction set beside [`Simd`]: products of bytes, and bytes of codes.

use super::Simd;

/// Vectors of 64 bytes, and their products.
///
/// # Safety of the methods
/// As of those of [`Simd`].
pub(crate) trait Bytes: Simd {
    /// Sixty-four bytes.
    type B: Copy;
    /// Sixteen sums of products.
    type Sums: Copy;

    /// The most query rows whose keys are multiplied as they are decoded.
    const FUSED_KEY_ROWS: usize;
    /// The most query rows whose values are.
    const FUSED_VALUE_ROWS: usize;

    unsafe fn load_b(self, p: *const u8) -> Self::B;
    /// Asks for 64 bytes that are read soon; any address will do.
    fn prefetch(self, p: *const u8);
    unsafe fn store_b(self, p: *mut u8, a: Self::B);
    #[inline(always)]
    fn read_b(self, bytes: &[u8; 64]) -> Self::B {
        // SAFETY: sixty-four bytes.
        unsafe { self.load_b(bytes.as_ptr()) }
    }
    #[inline(always)]
    fn write_b(self, bytes: &mut [u8; 64], a: Self::B) {
        // SAFETY: room for sixty-four bytes.
        unsafe { self.store_b(bytes.as_mut_ptr(), a) }
    }
    /// Sums of no products.
    fn nothing(self) -> Self::Sums;
    /// Each sum with the products of its four unsigned bytes and four integers, whose two parts are at `first` and
    /// `second` as [`split`](Bytes::split) writes them.
    fn dot(self, sums: Self::Sums, a: Self::B, first: &[i8; 4], second: &[i8; 4]) -> Self::Sums;
    /// The sums, wrapping, − less, as numbers.
    fn number_of(self, sums: Self::Sums, less: i32) -> Self::F;
    /// Rounds numbers below 2¹⁵ to integers and writes them in two parts of sixteen bytes, four of each for every four
    /// integers; returns the integers.
    fn split(self, a: Self::F, first: &mut [i8; 16], second: &mut [i8; 16]) -> Self::I;
    fn reduce_add_i(self, a: Self::I) -> i32;
    /// A table of 64 bytes, sixteen of them in each part.
    fn table(self, numbers: &[u8; 64]) -> [Self::B; 4];
    /// The table's bytes for up to 64 codes of a row from its number `first` on, `left` of which exist; the others are
    /// some byte of the table. `planes` are the row, and where its second plane lies.
    unsafe fn numbers<const BITS: usize>(
        self,
        table: &[Self::B; 4],
        planes: (*const u8, usize),
        first: usize,
        left: usize,
    ) -> Self::B;
    /// The table's bytes for the codes of a word of sixteen rows whose numbers are each the `at`th of their byte of the
    /// low plane. The word of the high plane begins at its bit `bit`.
    fn numbers_of_word<const BITS: usize>(
        self,
        table: &[Self::B; 4],
        at: usize,
        low: Self::I,
        high: (Self::I, usize),
    ) -> Self::B;
    /// The table's bytes for the fours of bits of 16 bytes of four rows: word `i` of the first vector is of the lower
    /// fours of each row's byte `i`, of the second of the upper.
    fn nibbles_of_rows(
        self,
        table: &[Self::B; 4],
        order: &[Self::B; 2],
        rows: [&[u8; 16]; 4],
    ) -> [Self::B; 2];
    /// Writes the table's bytes for the fours of bits of 64 bytes of four rows: those of each vector that they
    /// [interleave](Bytes::interleave) to, the lower, then the upper.
    fn wide_nibbles(self, table: &[Self::B; 4], rows: [&[u8; 64]; 4], out: &mut [u8; 512]);
    /// The same of 32 bytes of two times four rows: half vectors.
    fn half_nibbles(self, table: &[Self::B; 4], rows: [[&[u8; 32]; 4]; 2], out: &mut [u8; 512]);
    /// What [`Bytes::nibbles_of_rows`] permutes by.
    fn row_order(self) -> [Self::B; 2];
    /// Puts lanes into an order.
    fn permute(self, a: Self::F, order: &[i32; 16]) -> Self::F;
    /// Numbers at some places.
    unsafe fn gather(self, p: *const f32, places: *const i32) -> Self::F;
    /// Words of the bytes of four vectors at one place. Word 4·l + k of vector j is of place 16·l + 4·j + k.
    fn interleave(self, rows: [Self::B; 4]) -> [Self::B; 4];
}
