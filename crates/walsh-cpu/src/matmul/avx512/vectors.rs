//! Vectors of sixteen words: decoding of rows as they are stored, which are transposed as they are read, and of packed
//! rows.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::decode;
use super::tile::Avx512;
use crate::matmul::blocks::Decode;
use crate::matmul::columns::{Codes, Columns, Panel, Vectors, Words};
use crate::matmul::contract::Job;
use crate::matmul::layout::{BLOCK, BlockQ8, GROUP, LANES};
use crate::matmul::stream::{Form, Sweep};
use crate::matmul::x86;

/// What the four bits of an index add to a quad.
const FIFTH_BITS: [u32; 16] = {
    let mut quads = [0; 16];
    let mut index = 0;
    while index < 16 {
        let mut bit = 0;
        while bit < 4 {
            quads[index] |= (index as u32 >> bit & 1) << (8 * bit + 4);
            bit += 1;
        }
        index += 1;
    }
    quads
};

impl Vectors for Avx512 {
    type Words = __m512i;
    type Floats = __m512;
    const LANES: usize = LANES;
    const SIGNED: bool = false;

    #[inline(always)]
    fn fetch_ahead(at: *const u8, bytes: usize) {
        x86::fetch_ahead(at, bytes);
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(words: __m512i, to: *mut u8) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_si512(to.cast(), words) }
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const i32) -> __m512i {
        // SAFETY: the caller's.
        unsafe { broadcast(from) }
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const u8) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_floats(from: *const f32) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_floats(floats: __m512, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(to, floats) }
    }

    #[inline(always)]
    unsafe fn bytes(value: u8) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_set1_epi8(value as i8) }
    }

    #[inline(always)]
    unsafe fn ints(value: i32) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn floats(value: f32) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn xor(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn and_or(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_ternarylogic_epi32::<0xea>(a, b, c) }
    }

    #[inline(always)]
    unsafe fn shr(words: __m512i, by: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_srl_epi32(words, _mm_cvtsi32_si128(by as i32)) }
    }

    #[inline(always)]
    unsafe fn shl(words: __m512i, by: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_sll_epi32(words, _mm_cvtsi32_si128(by as i32)) }
    }

    #[inline(always)]
    unsafe fn moved(words: __m512i, from: usize, to: usize) -> __m512i {
        // A turn stays one instruction; the compiler would take a shift and the mask after it apart.
        // SAFETY: the caller's.
        unsafe { _mm512_rorv_epi32(words, _mm512_set1_epi32((from + 32 - to) as i32 % 32)) }
    }

    #[inline(always)]
    unsafe fn signed_top_byte(words: __m512i) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_srai_epi32::<24>(words) }
    }

    #[inline(always)]
    unsafe fn look_up(indices: __m512i) -> __m512i {
        decode::look_up(indices)
    }

    #[inline(always)]
    unsafe fn fifth_bits(words: __m512i, quad: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            // The permutation looks at the low four bits of an index alone.
            let quads = _mm512_loadu_si512(FIFTH_BITS.as_ptr().cast());
            _mm512_permutexvar_epi32(Self::shr(words, 4 * quad), quads)
        }
    }

    #[inline(always)]
    unsafe fn widen(words: __m512i) -> [__m512; 2] {
        // SAFETY: the caller's.
        unsafe {
            let high = Self::shr(words, 16);
            [
                _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)),
                _mm512_cvtph_ps(_mm512_cvtepi32_epi16(high)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn to_floats(ints: __m512i) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn add_products<B: Decode>(
        mut sums: __m512i,
        codes: &Codes<Self>,
        quads: Range<usize>,
        record: *const BlockQ8,
    ) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            for quad in quads {
                let values = _mm512_set1_epi32((*record).quads[quad]);
                sums = _mm512_dpbusd_epi32(sums, codes[quad], values);
            }
        }
        sums
    }
}

/// A number in all lanes, from memory. (The compiler would work on the number first and then spread it, on units that
/// the decoder needs.)
///
/// # Safety
/// The number is readable, and the machine has AVX-512.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn broadcast(from: *const i32) -> __m512i {
    let vector;
    // SAFETY: the caller's.
    unsafe {
        std::arch::asm!(
            "vpbroadcastd {vector}, dword ptr [{from}]",
            vector = lateout(zmm_reg) vector,
            from = in(reg) from,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    vector
}

/// Writes words of sixteen rows side by side.
///
/// # Safety
/// As for [`Transposition`](crate::matmul::contract::Transposition).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn transpose(rows: &[*const u8; LANES], words: usize, to: *mut u8) {
    let blocks = InRows { rows, offset: 0 };
    let to = to.cast::<__m512i>();
    // SAFETY: the caller's.
    unsafe {
        for word in (0..words / 4 * 4).step_by(4) {
            for (i, column) in blocks.columns(4 * word).into_iter().enumerate() {
                to.add(word + i).write_unaligned(column);
            }
        }
        for word in words / 4 * 4..words {
            to.add(word).write_unaligned(blocks.word(4 * word));
        }
    }
}

/// Blocks in rows of the weight, which are transposed as they are read.
#[derive(Clone, Copy)]
struct InRows<'a> {
    /// Where the rows start. Rows may repeat.
    rows: &'a [*const u8; LANES],
    /// The bytes between a row's start and the block.
    offset: usize,
}

impl InRows<'_> {
    /// A number `at` bytes into a lane's block.
    ///
    /// # Safety
    /// It is readable.
    #[inline(always)]
    unsafe fn read<T>(self, lane: usize, at: usize) -> T {
        // SAFETY: the caller's.
        unsafe {
            self.rows[lane]
                .add(self.offset + at)
                .cast::<T>()
                .read_unaligned()
        }
    }
}

impl Words for InRows<'_> {
    type Vectors = Avx512;

    #[inline(always)]
    unsafe fn columns(self, at: usize) -> [__m512i; 4] {
        // SAFETY: the caller's.
        unsafe {
            // Each 128-bit lane of `row(i)` is of one of the rows i, i + 4, i + 8 and i + 12.
            let row = |i: usize| {
                let quarter = |quarter: usize| self.read::<__m128i>(i + 4 * quarter, at);
                let rows = _mm512_castsi128_si512(quarter(0));
                let rows = _mm512_mask_broadcast_i32x4(rows, 0x00f0, quarter(1));
                let rows = _mm512_mask_broadcast_i32x4(rows, 0x0f00, quarter(2));
                _mm512_mask_broadcast_i32x4(rows, 0xf000, quarter(3))
            };
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab_low, cd_low),
                _mm512_unpackhi_epi64(ab_low, cd_low),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    unsafe fn word(self, at: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            let word = |lane: usize| self.read::<i32>(lane, at);
            let four = |i: usize| _mm_set_epi32(word(i + 3), word(i + 2), word(i + 1), word(i));
            let low = _mm256_set_m128i(four(4), four(0));
            _mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(low),
                _mm256_set_m128i(four(12), four(8)),
            )
        }
    }

    #[inline(always)]
    unsafe fn halves(self, at: usize) -> __m512 {
        // SAFETY: the caller's.
        unsafe {
            let half = |lane: usize| self.read::<i16>(lane, at);
            let eight = |i: usize| {
                _mm_set_epi16(
                    half(i + 7),
                    half(i + 6),
                    half(i + 5),
                    half(i + 4),
                    half(i + 3),
                    half(i + 2),
                    half(i + 1),
                    half(i),
                )
            };
            _mm512_cvtph_ps(_mm256_set_m128i(eight(8), eight(0)))
        }
    }

    #[inline(always)]
    unsafe fn keep(self, at: usize, kept: &mut [MaybeUninit<__m512i>]) {
        for (chunk, to) in kept.chunks_exact_mut(4).enumerate() {
            // SAFETY: the caller's.
            let columns = unsafe { self.columns(at + 16 * chunk) };
            for (to, column) in to.iter_mut().zip(columns) {
                to.write(column);
            }
        }
    }

    #[inline(always)]
    unsafe fn kept(self, _: usize, kept: &[MaybeUninit<__m512i>], index: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { kept[index].assume_init() }
    }
}

/// Rows of the weight as a file has them.
#[derive(Clone, Copy)]
struct Rows<'a> {
    /// Where the rows start. Rows may repeat.
    rows: &'a [*const u8; LANES],
    /// The bytes of a row.
    row_bytes: usize,
}

/// How far ahead of the decoder each of sixteen rows is fetched, in bytes.
const ROW_AHEAD: usize = 512;

impl<'a> Panel for Rows<'a> {
    type Words = InRows<'a>;

    #[inline(always)]
    unsafe fn block<B: Decode>(self, index: usize) -> InRows<'a> {
        InRows {
            rows: self.rows,
            offset: index * size_of::<B>(),
        }
    }

    /// Fetches what two of the rows need for 256 values: each row has its turn every eight blocks, so that the fetches
    /// come evenly.
    #[inline(always)]
    fn fetch_ahead<B: Decode>(self, step: usize) {
        const STEPS: usize = GROUP / BLOCK;
        let bytes = GROUP / B::LEN * size_of::<B>();
        let mut ahead = step / STEPS * bytes + ROW_AHEAD;
        if ahead >= self.row_bytes {
            // Past a row's end comes the next panel: the row that lies as many rows on as a panel has.
            ahead += (LANES - 1) * self.row_bytes;
        }
        for row in &self.rows[step % STEPS * (LANES / STEPS)..][..LANES / STEPS] {
            for line in 0..bytes.div_ceil(64) {
                x86::fetch(row.wrapping_add(ahead + 64 * line));
            }
        }
    }
}

/// Where the rows of a panel start. Lanes without a row repeat the last: their sums are never read.
///
/// # Safety
/// The rows are the weight's, and there is one at least.
#[inline(always)]
unsafe fn panel_rows(job: &Job, columns: Range<usize>) -> [*const u8; LANES] {
    let mut rows = [job.operands.weight; LANES];
    for (lane, row) in rows.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *row = unsafe { job.weight_row(columns.start + lane.min(columns.len() - 1)) };
    }
    rows
}

/// Weights as a file has them.
pub(super) struct Stored;

impl Form<Avx512> for Stored {
    #[inline(always)]
    unsafe fn sweep<B: Columns>(
        job: &Job,
        rows: Range<usize>,
        blocks: Range<usize>,
        sweep: &Sweep,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let rows = &panel_rows(job, rows);
            let row_bytes = job.row_bytes;
            sweep.run::<Avx512, B>(Rows { rows, row_bytes }, blocks);
        }
    }
}
