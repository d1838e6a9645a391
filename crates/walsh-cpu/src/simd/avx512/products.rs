//! Products of bytes on 512-bit vectors.

use std::arch::x86_64::*;

use half::f16;

use super::Avx512;
use crate::isa::Isa;
use crate::simd::products::scale_of;
use crate::simd::{
    ColumnProducts, Gather, Primitives, Products, Quads, Quantised, Register, SMALL_FLOAT_UNIT,
    Unpack, Work, compiled_for, operations,
};

/// What the four bits of an index add to a quad.
static FIFTH_BITS: [u32; 16] = {
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

impl Primitives for Avx512 {
    operations! {
        fn widen(self, half: f16) -> f32 { self.avx2().widen(half) }
        unsafe fn widen_all(self, from: *const f16, to: &mut [f32]) { self.avx2().widen_all(from, to) }
        fn look_up_all(self, table: &[u8; 16], indices: [u8; 32]) -> [u8; 32] {
            self.avx2().look_up_all(table, indices)
        }
        fn masks(self, bits: u32) -> [u8; 32] { self.avx2().masks(bits) }
        fn mirrored(self, codes: [u64; 4], signs: u32, zero: u8) -> [u8; 32] {
            self.avx2().mirrored(codes, signs, zero)
        }
        fn quantise(self, values: &[f32; 32]) -> Quantised {
            let (first, second) = (_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(16)));
            // As integers, magnitudes compare like the numbers do, and infinity and NaN are above all others.
            let magnitude = |half: __m512| _mm512_castps_si512(_mm512_abs_ps(half));
            let largest = _mm512_max_epu32(magnitude(first), magnitude(second));
            let (scale, inverse) = scale_of(_mm512_reduce_max_epu32(largest));
            let inverse = _mm512_set1_ps(inverse);
            let code = |half: __m512| {
                _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(half, inverse)))
            };
            let codes = _mm256_set_m128i(code(second), code(first));
            let sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), codes);
            let sums = _mm256_hadd_epi32(sums, sums);
            let sums = _mm256_hadd_epi32(sums, sums);
            let first = _mm256_castsi256_si128(sums);
            let second = _mm256_extracti128_si256::<1>(sums);
            let mut out = Quantised {
                codes: [0; 32],
                scale,
                sums: [_mm_cvtsi128_si32(first), _mm_cvtsi128_si32(second)],
            };
            _mm256_storeu_si256(out.codes.as_mut_ptr().cast(), codes);
            out
        }
    }
}

/// One register of sixteen lanes.
impl Register for Avx512 {
    type Words = __m512i;
    type Numbers = __m512;
    const LANES: usize = 16;
    const MANY: bool = true;

    operations! {
        fn words(self, x: i32) -> __m512i { _mm512_set1_epi32(x) }
        fn numbers(self, x: f32) -> __m512 { _mm512_set1_ps(x) }
        unsafe fn store_words(self, p: *mut u8, a: __m512i) { _mm512_storeu_si512(p.cast(), a) }
        unsafe fn load_numbers(self, p: *const f32) -> __m512 { _mm512_loadu_ps(p) }
        unsafe fn store_numbers(self, p: *mut f32, a: __m512) { _mm512_storeu_ps(p, a) }
        fn shl(self, a: __m512i, by: usize) -> __m512i { _mm512_sll_epi32(a, _mm_cvtsi32_si128(by as i32)) }
        fn to_numbers(self, a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn add(self, a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(self, a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(self, a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn total(self, a: __m512) -> f32 { _mm512_reduce_add_ps(a) }
        unsafe fn columns(self, row: impl Fn(usize) -> *const u8) -> [__m512i; 4] {
            // Each 128-bit lane of `rows[i]` is of one of the rows i, i + 4, i + 8 and i + 12.
            let mut rows = [_mm512_setzero_si512(); 4];
            for (i, rows) in rows.iter_mut().enumerate() {
                let first = row(i).cast::<__m128i>().read_unaligned();
                let second = row(i + 4).cast::<__m128i>().read_unaligned();
                let third = row(i + 8).cast::<__m128i>().read_unaligned();
                let last = row(i + 12).cast::<__m128i>().read_unaligned();
                let four = _mm512_castsi128_si512(first);
                let four = _mm512_mask_broadcast_i32x4(four, 0x00f0, second);
                let four = _mm512_mask_broadcast_i32x4(four, 0x0f00, third);
                *rows = _mm512_mask_broadcast_i32x4(four, 0xf000, last);
            }
            let [a, b, c, d] = rows;
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
}

impl Unpack for Avx512 {
    operations! {
        unsafe fn load_words(self, p: *const u8) -> __m512i { _mm512_loadu_si512(p.cast()) }
        unsafe fn load_bytes(self, p: *const u8) -> __m512i { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
        unsafe fn load_halves(self, p: *const u8) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        fn broadcast(self, from: &i32) -> __m512i { broadcast(from) }
        fn bytes(self, x: u8) -> __m512i { _mm512_set1_epi8(x as i8) }
        fn and(self, a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn or(self, a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        fn xor(self, a: __m512i, b: __m512i) -> __m512i { _mm512_xor_si512(a, b) }
        fn and_or(self, a: __m512i, b: __m512i, c: __m512i) -> __m512i {
            _mm512_ternarylogic_epi32::<0xea>(a, b, c)
        }
        fn shr(self, a: __m512i, by: usize) -> __m512i { _mm512_srl_epi32(a, _mm_cvtsi32_si128(by as i32)) }
        fn moved(self, a: __m512i, from: usize, to: usize) -> __m512i {
            // A turn stays one instruction; the compiler would take a shift and the mask after it apart.
            _mm512_rorv_epi32(a, _mm512_set1_epi32((from + 32 - to) as i32 % 32))
        }
        fn signed_top_byte(self, a: __m512i) -> __m512i { _mm512_srai_epi32::<24>(a) }
        fn look_up(self, table: &[u8; 16], indices: __m512i) -> __m512i {
            let table = _mm_loadu_si128(table.as_ptr().cast());
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), indices)
        }
        fn fifth_bits(self, a: __m512i, quad: usize) -> __m512i {
            // The permutation looks at the low four bits of an index alone.
            let quads = _mm512_loadu_si512(FIFTH_BITS.as_ptr().cast());
            _mm512_permutexvar_epi32(self.shr(a, 4 * quad), quads)
        }
        fn powers(self, a: __m512i) -> __m512 {
            let large = _mm512_slli_epi32::<23>(_mm512_sub_epi32(a, _mm512_set1_epi32(1)));
            let is_small = _mm512_cmplt_epi32_mask(a, _mm512_set1_epi32(2));
            let small = _mm512_set1_epi32(0x0020_0000);
            _mm512_castsi512_ps(_mm512_mask_sllv_epi32(large, is_small, small, a))
        }
        fn small_floats(self, a: __m512i) -> __m512 {
            let most = _mm512_set1_epi32(0x7f);
            let bits = _mm512_slli_epi32::<20>(_mm512_and_si512(a, most));
            let some = _mm512_cmpneq_epi32_mask(a, most);
            _mm512_maskz_mul_ps(some, _mm512_castsi512_ps(bits), _mm512_set1_ps(SMALL_FLOAT_UNIT))
        }
        fn widen_words(self, a: __m512i) -> [__m512; 2] {
            let high = self.shr(a, 16);
            [
                _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)),
                _mm512_cvtph_ps(_mm512_cvtepi32_epi16(high)),
            ]
        }
        fn fetch_ahead(self, at: *const u8, bytes: usize) { self.avx2().fetch_ahead(at, bytes) }
        fn fetch(self, line: *const u8) { self.avx2().fetch(line) }
    }
}

impl Gather for Avx512 {
    operations! {
        unsafe fn gather_words(self, place: impl Fn(usize) -> *const u8) -> __m512i {
            let word = |lane: usize| place(lane).cast::<i32>().read_unaligned();
            let four = |i: usize| _mm_set_epi32(word(i + 3), word(i + 2), word(i + 1), word(i));
            let low = _mm512_castsi256_si512(_mm256_set_m128i(four(4), four(0)));
            _mm512_inserti64x4::<1>(low, _mm256_set_m128i(four(12), four(8)))
        }
        unsafe fn gather_bytes(self, place: impl Fn(usize) -> *const u8) -> __m512i {
            let mut bytes = [0; 16];
            for (lane, byte) in bytes.iter_mut().enumerate() {
                *byte = *place(lane);
            }
            self.load_bytes(bytes.as_ptr())
        }
        unsafe fn gather_halves(self, place: impl Fn(usize) -> *const u8) -> __m512 {
            let half = |lane: usize| place(lane).cast::<i16>().read_unaligned();
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
}

/// A number in all lanes, from memory. (The compiler would work on the number first and then spread it, on units that
/// the decoder needs.)
#[target_feature(enable = "avx512f")]
#[inline]
fn broadcast(from: &i32) -> __m512i {
    let vector;
    // SAFETY: a reference can be read.
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

impl Products for Avx512 {
    type Set = Avx512;
    const SIGNED: bool = false;

    fn of_machine() -> Self {
        assert!(Isa::Avx512.is_available(), "a set of this machine");
        // SAFETY: the machine has the set.
        unsafe { Avx512::new_unchecked() }
    }

    #[inline(always)]
    fn set(self) -> Avx512 {
        self
    }

    #[inline(always)]
    fn run<W: Work<Self>>(self, work: W) -> W::Output {
        compiled_for! {
            Avx512: fn compiled<W: Work<Avx512>>(s: Avx512, work: W) -> W::Output { work.on(s) }
        }
        // SAFETY: the token exists only where the set does.
        unsafe { compiled(self, work) }
    }

    #[inline(always)]
    fn add_rows<const ROWS: usize>(
        self,
        sums: &mut [__m512i; ROWS],
        panel: &[u8],
        values: [&[i32; 8]; ROWS],
        quads: Quads,
    ) {
        assert!(quads.range.end <= 8 && panel.len() >= 8 * 4 * Self::Set::LANES);
        let panel = panel.as_ptr();
        // SAFETY: the token exists only where the set does; a panel has eight registers.
        unsafe {
            for quad in quads.range {
                let codes = self.load_words(panel.add(64 * quad));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let values = _mm512_set1_epi32(values[row][quad]);
                    *sums = _mm512_dpbusd_epi32(*sums, codes, values);
                }
            }
        }
    }
}

impl ColumnProducts for Avx512 {
    operations! {
        fn add<const ROWS: usize>(
            self,
            sums: &mut [__m512i; ROWS],
            codes: &[__m512i; 8],
            values: [&[i32; 8]; ROWS],
            quads: Quads,
        ) {
            for quad in quads.range {
                for (sums, values) in sums.iter_mut().zip(values) {
                    *sums = _mm512_dpbusd_epi32(*sums, codes[quad], _mm512_set1_epi32(values[quad]));
                }
            }
        }
    }
}
