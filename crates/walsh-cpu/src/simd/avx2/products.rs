//! Products of bytes on 256-bit vectors: by AVX2's own instructions, and with the 8-bit dot product of VNNI.
//!
//! That dot product adds in 32 bits and takes any codes. It is AVX-VNNI's, with a VEX prefix: processors that have only
//! AVX-512's have kernels of their own.
//!
//! AVX2's own multiply-add of bytes adds pairs of products in 16 bits. Codes up to 63 leave room for at least one more
//! pair; full 8-bit codes would overflow, so theirs are brought back to signed numbers, whose magnitude is multiplied by the
//! activation with the code's sign. Such types are symmetric, and lose their minimum with the offset.

use std::arch::x86_64::*;

use half::f16;

use super::Avx2;
use crate::isa::Isa;
use crate::simd::{
    ColumnProducts, Primitives, Products, Quads, Register, RowProducts, SMALL_FLOAT_UNIT, Scales,
    Unpack, Work, compiled_for, operations,
};

impl Primitives for Avx2 {
    operations! {
        fn widen(self, half: f16) -> f32 {
            _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(half.to_bits()))))
        }
        unsafe fn widen_all(self, from: *const f16, to: &mut [f32]) {
            let whole = to.len() / 8 * 8;
            for i in (0..whole).step_by(8) {
                let halves = _mm_loadu_si128(from.add(i).cast());
                _mm256_storeu_ps(to.as_mut_ptr().add(i), _mm256_cvtph_ps(halves));
            }
            for i in whole..to.len() {
                to[i] = self.widen(from.add(i).read_unaligned());
            }
        }
        fn look_up_all(self, table: &[u8; 16], indices: [u8; 32]) -> [u8; 32] {
            let mut bytes = [0; 32];
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            let indices = _mm256_loadu_si256(indices.as_ptr().cast());
            _mm256_storeu_si256(bytes.as_mut_ptr().cast(), _mm256_shuffle_epi8(table, indices));
            bytes
        }
        fn masks(self, bits: u32) -> [u8; 32] { self.array(self.mask_vector(bits)) }
        fn mirrored(self, codes: [u64; 4], signs: u32, zero: u8) -> [u8; 32] {
            let [a, b, c, d] = codes.map(u64::cast_signed);
            let (codes, mask) = (_mm256_set_epi64x(d, c, b, a), self.mask_vector(signs));
            let all = _mm256_and_si256(mask, self.bytes(2 * zero - 1));
            self.array(_mm256_sub_epi8(_mm256_xor_si256(codes, all), mask))
        }
    }
}

/// One register of eight lanes.
impl Register for Avx2 {
    type Words = __m256i;
    type Numbers = __m256;
    const LANES: usize = 8;
    const MANY: bool = false;

    operations! {
        fn words(self, x: i32) -> __m256i { _mm256_set1_epi32(x) }
        fn numbers(self, x: f32) -> __m256 { _mm256_set1_ps(x) }
        unsafe fn store_words(self, p: *mut u8, a: __m256i) { _mm256_storeu_si256(p.cast(), a) }
        unsafe fn load_numbers(self, p: *const f32) -> __m256 { _mm256_loadu_ps(p) }
        unsafe fn store_numbers(self, p: *mut f32, a: __m256) { _mm256_storeu_ps(p, a) }
        fn shl(self, a: __m256i, by: usize) -> __m256i { _mm256_sll_epi32(a, _mm_cvtsi32_si128(by as i32)) }
        fn to_numbers(self, a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
        fn add(self, a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(self, a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(self, a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn total(self, a: __m256) -> f32 {
            let sum = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
            _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)))
        }
        unsafe fn columns(self, row: impl Fn(usize) -> *const u8) -> [__m256i; 4] {
            // Each half of `rows[i]` holds one of the rows i and i + 4.
            let mut rows = [_mm256_setzero_si256(); 4];
            for (i, rows) in rows.iter_mut().enumerate() {
                let (low, high) = (_mm_loadu_si128(row(i).cast()), _mm_loadu_si128(row(i + 4).cast()));
                *rows = _mm256_set_m128i(high, low);
            }
            let [a, b, c, d] = rows;
            let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab_low, cd_low),
                _mm256_unpackhi_epi64(ab_low, cd_low),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }
}

/// How far ahead of what is read weights are fetched into the second-level cache, in bytes. The first-level cache alone
/// waits for too few lines at once to keep memory busy.
const FAR: usize = 12 << 10;

/// How far ahead they are fetched from there into the first-level cache, in bytes: to be read once.
const NEAR: usize = 4 << 10;

impl Unpack for Avx2 {
    operations! {
        unsafe fn load_words(self, p: *const u8) -> __m256i { _mm256_loadu_si256(p.cast()) }
        unsafe fn load_bytes(self, p: *const u8) -> __m256i { _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())) }
        unsafe fn load_halves(self, p: *const u8) -> __m256 { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
        fn broadcast(self, from: &i32) -> __m256i { broadcast(from) }
        fn bytes(self, x: u8) -> __m256i { _mm256_set1_epi8(x as i8) }
        fn and(self, a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn or(self, a: __m256i, b: __m256i) -> __m256i { _mm256_or_si256(a, b) }
        fn xor(self, a: __m256i, b: __m256i) -> __m256i { _mm256_xor_si256(a, b) }
        fn and_or(self, a: __m256i, b: __m256i, c: __m256i) -> __m256i {
            _mm256_or_si256(_mm256_and_si256(a, b), c)
        }
        fn shr(self, a: __m256i, by: usize) -> __m256i { _mm256_srl_epi32(a, _mm_cvtsi32_si128(by as i32)) }
        fn moved(self, a: __m256i, from: usize, to: usize) -> __m256i {
            if from < to {
                self.shl(a, to - from)
            } else {
                self.shr(a, from - to)
            }
        }
        fn signed_top_byte(self, a: __m256i) -> __m256i { _mm256_srai_epi32::<24>(a) }
        fn look_up(self, table: &[u8; 16], indices: __m256i) -> __m256i {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, indices)
        }
        fn fifth_bits(self, a: __m256i, quad: usize) -> __m256i {
            // The four bits are the upper half of a byte, which goes to all four bytes of the word; each keeps its own
            // bit, and the least of that and 16 is 16 or nothing.
            let upper = if quad.is_multiple_of(2) { self.shl(a, 4) } else { a };
            let byte = _mm256_set1_epi32(0x0101_0101 * (quad as i32 / 2));
            let words = _mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c);
            let first = _mm256_broadcastsi128_si256(words);
            let spread = _mm256_shuffle_epi8(upper, _mm256_or_si256(first, byte));
            let own = _mm256_and_si256(spread, _mm256_set1_epi32(0x8040_2010_u32 as i32));
            _mm256_min_epu8(own, self.bytes(16))
        }
        fn powers(self, a: __m256i) -> __m256 {
            let small = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), a);
            let large = _mm256_slli_epi32::<23>(_mm256_sub_epi32(a, _mm256_set1_epi32(1)));
            let is_large = _mm256_cmpgt_epi32(a, _mm256_set1_epi32(1));
            _mm256_castsi256_ps(_mm256_blendv_epi8(small, large, is_large))
        }
        fn small_floats(self, a: __m256i) -> __m256 {
            let most = _mm256_set1_epi32(0x7f);
            let bits = _mm256_slli_epi32::<20>(_mm256_and_si256(a, most));
            let bits = _mm256_andnot_si256(_mm256_cmpeq_epi32(a, most), bits);
            _mm256_mul_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(SMALL_FLOAT_UNIT))
        }
        fn widen_words(self, a: __m256i) -> [__m256; 2] {
            // Lower halves, then upper ones, in each half of the vector; then in all of it.
            let halves = _mm256_broadcastsi128_si256(_mm_setr_epi8(
                0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
            ));
            let halves = _mm256_permute4x64_epi64::<0xd8>(_mm256_shuffle_epi8(a, halves));
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(halves)),
            ]
        }
        fn fetch_ahead(self, at: *const u8, bytes: usize) {
            for line in 0..bytes.div_ceil(64) {
                let at = at.wrapping_add(64 * line);
                _mm_prefetch::<_MM_HINT_NTA>(at.wrapping_add(NEAR).cast());
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(FAR).cast());
            }
        }
        fn fetch(self, line: *const u8) { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }
}

/// A number in all lanes, from memory. (The compiler would work on the number first and then spread it, on units that
/// the decoder needs.)
#[target_feature(enable = "avx2")]
#[inline]
fn broadcast(from: &i32) -> __m256i {
    let vector;
    // SAFETY: a reference can be read.
    unsafe {
        std::arch::asm!(
            "vpbroadcastd {vector}, dword ptr [{from}]",
            vector = lateout(ymm_reg) vector,
            from = in(reg) from,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    vector
}

/// Codes, ready to be multiplied: for full 8-bit codes their magnitude, and the signed code for its sign.
#[derive(Clone, Copy)]
struct Codes {
    magnitude: __m256i,
    signed: __m256i,
}

/// How many pairs of products add up in 16 bits.
pub(crate) const fn pairs_in_16_bits(top: u8) -> usize {
    let magnitude = if top == 255 { 128 } else { top as usize };
    i16::MAX as usize / (2 * 127 * magnitude)
}

impl Avx2 {
    operations! {
        /// Each bit as a byte with all of its bits.
        fn mask_vector(self, bits: u32) -> __m256i {
            // Each byte goes to the eight bytes of its bits, which keep their own.
            let (first, second) = (0x0101_0101_0101_0101, 0x0202_0202_0202_0202);
            let bytes = _mm256_set_epi64x(first | second, second, first, 0);
            let spread = _mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), bytes);
            let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            _mm256_cmpeq_epi8(_mm256_and_si256(spread, own), own)
        }

        /// The bytes of a vector.
        fn array(self, a: __m256i) -> [u8; 32] {
            let mut bytes = [0; 32];
            _mm256_storeu_si256(bytes.as_mut_ptr().cast(), a);
            bytes
        }

        /// Codes that are signed numbers where they are full 8-bit codes.
        fn signed(self, codes: __m256i, top: u8) -> Codes {
            let magnitude = if top == 255 { _mm256_abs_epi8(codes) } else { codes };
            Codes { magnitude, signed: codes }
        }

        /// Codes that are raised by 128 where they are full 8-bit codes.
        fn raised(self, codes: __m256i, top: u8) -> Codes {
            let codes = if top == 255 { self.xor(codes, self.bytes(0x80)) } else { codes };
            self.signed(codes, top)
        }

        /// The activations with the signs of the codes whose magnitudes are multiplied.
        fn sign(self, codes: Codes, values: __m256i, top: u8) -> __m256i {
            if top == 255 { _mm256_sign_epi8(values, codes.signed) } else { values }
        }

        /// The products with 32 activations, added in pairs.
        fn pairs(self, codes: Codes, values: __m256i, top: u8) -> __m256i {
            _mm256_maddubs_epi16(codes.magnitude, self.sign(codes, values, top))
        }

        /// Adds neighbouring 16-bit numbers.
        fn widen_pairs(self, pairs: __m256i) -> __m256i { _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)) }

        /// The sum and products of eight words, each half times its scale.
        fn add_scaled(self, sum: __m256, dots: __m256i, scales: Scales) -> __m256 {
            let scale = match scales.second {
                Some(second) => _mm256_set_m128(_mm_set1_ps(second), _mm_set1_ps(scales.first)),
                None => _mm256_set1_ps(scales.first),
            };
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, sum)
        }
    }
}

/// By AVX2's own instructions.
impl Products for Avx2 {
    type Set = Avx2;
    const SIGNED: bool = true;

    fn of_machine() -> Self {
        assert!(Isa::Avx2.is_available(), "a set of this machine");
        // SAFETY: the machine has the set.
        unsafe { Avx2::new_unchecked() }
    }

    #[inline(always)]
    fn set(self) -> Avx2 {
        self
    }

    #[inline(always)]
    fn run<W: Work<Self>>(self, work: W) -> W::Output {
        compiled_for! {
            Avx2: fn compiled<W: Work<Avx2>>(s: Avx2, work: W) -> W::Output { work.on(s) }
        }
        // SAFETY: the token exists only where the set does.
        unsafe { compiled(self, work) }
    }

    #[inline(always)]
    fn add_rows<const ROWS: usize>(
        self,
        sums: &mut [__m256i; ROWS],
        panel: &[u8],
        values: [&[i32; 8]; ROWS],
        quads: Quads,
    ) {
        let Quads { range, top } = quads;
        let together = pairs_in_16_bits(top);
        assert!(range.end <= 8 && panel.len() >= 8 * 4 * Self::Set::LANES);
        let panel = panel.as_ptr();
        // SAFETY: the token exists only where the set does; a panel has eight registers.
        unsafe {
            for first in range.clone().step_by(together) {
                let mut pairs = [_mm256_setzero_si256(); ROWS];
                for quad in first..range.end.min(first + together) {
                    let codes = self.raised(self.load_words(panel.add(32 * quad)), top);
                    for (row, pairs) in pairs.iter_mut().enumerate() {
                        let values = _mm256_set1_epi32(values[row][quad]);
                        *pairs = _mm256_add_epi16(*pairs, self.pairs(codes, values, top));
                    }
                }
                for (sums, pairs) in sums.iter_mut().zip(pairs) {
                    *sums = _mm256_add_epi32(*sums, self.widen_pairs(pairs));
                }
            }
        }
    }
}

impl ColumnProducts for Avx2 {
    operations! {
        fn add<const ROWS: usize>(
            self,
            sums: &mut [__m256i; ROWS],
            codes: &[__m256i; 8],
            values: [&[i32; 8]; ROWS],
            quads: Quads,
        ) {
            let Quads { range, top } = quads;
            let together = pairs_in_16_bits(top);
            for (sums, values) in sums.iter_mut().zip(values) {
                let mut first = range.start;
                while first < range.end {
                    let mut pairs = _mm256_setzero_si256();
                    for quad in first..range.end.min(first + together) {
                        let values = _mm256_set1_epi32(values[quad]);
                        let products = self.pairs(self.signed(codes[quad], top), values, top);
                        pairs = _mm256_add_epi16(pairs, products);
                    }
                    *sums = _mm256_add_epi32(*sums, self.widen_pairs(pairs));
                    first += together;
                }
            }
        }
    }
}

impl RowProducts for Avx2 {
    operations! {
        fn add_block(self, sum: __m256, codes: &[u8; 32], values: &[i8; 32], scales: Scales) -> __m256 {
            let codes = self.raised(_mm256_loadu_si256(codes.as_ptr().cast()), scales.top);
            let values = _mm256_loadu_si256(values.as_ptr().cast());
            let dots = self.widen_pairs(self.pairs(codes, values, scales.top));
            self.add_scaled(sum, dots, scales)
        }
    }
}

/// AVX2 with the dot product of AVX-VNNI.
#[derive(Clone, Copy)]
pub(crate) struct AvxVnni(Avx2);

/// The most dot products that are added one after another.
const CHAIN: usize = 4;

impl AvxVnni {
    operations! {
        /// Adds the products of four pairs of unsigned and signed bytes to each lane.
        fn dot(self, sum: __m256i, codes: __m256i, values: __m256i) -> __m256i { dot(sum, codes, values) }
    }
}

impl Products for AvxVnni {
    type Set = Avx2;
    const SIGNED: bool = false;

    fn of_machine() -> Self {
        assert!(
            is_x86_feature_detected!("avxvnni"),
            "an instruction of this machine"
        );
        AvxVnni(<Avx2 as Products>::of_machine())
    }

    #[inline(always)]
    fn set(self) -> Avx2 {
        self.0
    }

    #[inline(always)]
    fn run<W: Work<Self>>(self, work: W) -> W::Output {
        // The dot product is written as an instruction: a kernel with a feature of AVX-512 enabled would have more of it.
        compiled_for! {
            Avx2: fn compiled<W: Work<AvxVnni>>(s: AvxVnni, work: W) -> W::Output {
                work.on(s)
            }
        }
        // SAFETY: the token exists only where the set does.
        unsafe { compiled(self, work) }
    }

    #[inline(always)]
    fn add_rows<const ROWS: usize>(
        self,
        sums: &mut [__m256i; ROWS],
        panel: &[u8],
        values: [&[i32; 8]; ROWS],
        quads: Quads,
    ) {
        assert!(quads.range.end <= 8 && panel.len() >= 8 * 4 * Self::Set::LANES);
        let panel = panel.as_ptr();
        // SAFETY: the token exists only where the set does; a panel has eight registers.
        unsafe {
            for quad in quads.range {
                let codes = self.0.load_words(panel.add(32 * quad));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let values = _mm256_set1_epi32(values[row][quad]);
                    *sums = self.dot(*sums, codes, values);
                }
            }
        }
    }
}

impl ColumnProducts for AvxVnni {
    operations! {
        fn add<const ROWS: usize>(
            self,
            sums: &mut [__m256i; ROWS],
            codes: &[__m256i; 8],
            values: [&[i32; 8]; ROWS],
            quads: Quads,
        ) {
            // Two chains where one has eight links: an out-of-order processor does not look far enough ahead to hide the
            // latency of so many.
            let range = quads.range;
            let chain = range.len().min(CHAIN);
            for (sums, values) in sums.iter_mut().zip(values) {
                let mut others = _mm256_setzero_si256();
                for quad in range.start..range.start + chain {
                    *sums = self.dot(*sums, codes[quad], _mm256_set1_epi32(values[quad]));
                }
                for quad in range.start + chain..range.end {
                    others = self.dot(others, codes[quad], _mm256_set1_epi32(values[quad]));
                }
                *sums = _mm256_add_epi32(*sums, others);
            }
        }
    }
}

impl RowProducts for AvxVnni {
    operations! {
        fn add_block(self, sum: __m256, codes: &[u8; 32], values: &[i8; 32], scales: Scales) -> __m256 {
            // Types whose codes take all eight bits have no minima then, as where codes are signed.
            let codes = self.0.raised(_mm256_loadu_si256(codes.as_ptr().cast()), scales.top);
            let values = _mm256_loadu_si256(values.as_ptr().cast());
            let values = self.0.sign(codes, values, scales.top);
            let dots = self.dot(_mm256_setzero_si256(), codes.magnitude, values);
            self.0.add_scaled(sum, dots, scales)
        }
    }
}

/// The dot product, which the machine must have. The intrinsic asks for more.
#[target_feature(enable = "avx2")]
#[inline]
fn dot(mut sum: __m256i, codes: __m256i, values: __m256i) -> __m256i {
    // SAFETY: only tokens of machines that have the instruction call this.
    unsafe {
        std::arch::asm!(
            "{{vex}} vpdpbusd {sum}, {codes}, {values}",
            sum = inout(ymm_reg) sum,
            codes = in(ymm_reg) codes,
            values = in(ymm_reg) values,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
