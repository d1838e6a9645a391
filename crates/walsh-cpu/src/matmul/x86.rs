//! Decoding steps that both x86 paths share.

use std::arch::x86_64::*;

use half::f16;

use super::blocks::{IQ4_CODES, Primitives};

pub(super) struct X86;

impl Primitives for X86 {
    #[inline(always)]
    unsafe fn widen(half: f16) -> f32 {
        // SAFETY: the instruction set is the caller's promise.
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(half.to_bits())))) }
    }

    #[inline(always)]
    unsafe fn widen_all(from: *const f16, to: &mut [f32]) {
        let whole = to.len() / 8 * 8;
        // SAFETY: the caller's; eight numbers at a time, then what is left.
        unsafe {
            for i in (0..whole).step_by(8) {
                let halves = _mm_loadu_si128(from.add(i).cast());
                _mm256_storeu_ps(to.as_mut_ptr().add(i), _mm256_cvtph_ps(halves));
            }
            for i in whole..to.len() {
                to[i] = Self::widen(from.add(i).read_unaligned());
            }
        }
    }

    #[inline(always)]
    unsafe fn look_up(indices: [u8; 32]) -> [u8; 32] {
        let mut codes = [0; 32];
        // SAFETY: the instruction set is the caller's promise.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(IQ4_CODES.as_ptr().cast()));
            let indices = _mm256_loadu_si256(indices.as_ptr().cast());
            _mm256_storeu_si256(
                codes.as_mut_ptr().cast(),
                _mm256_shuffle_epi8(table, indices),
            );
        }
        codes
    }
}

/// Fetches a line into the first-level cache, where there is one at this address.
#[inline(always)]
pub(super) fn fetch(line: *const u8) {
    // SAFETY: fetching touches nothing, and every machine of this family can.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
}

/// How far ahead of what is read weights are fetched into the second-level cache, in bytes. The first-level cache alone
/// waits for too few lines at once to keep memory busy.
const FAR: usize = 12 << 10;

/// How far ahead they are fetched from there into the first-level cache, in bytes: to be read once.
const NEAR: usize = 4 << 10;

/// Fetches as many of the bytes that come later in a stream of weights as are read now, from `at` on.
#[inline(always)]
pub(super) fn fetch_ahead(at: *const u8, bytes: usize) {
    for line in 0..bytes.div_ceil(64) {
        let at = at.wrapping_add(64 * line);
        // SAFETY: as for `fetch`.
        unsafe {
            _mm_prefetch::<_MM_HINT_NTA>(at.wrapping_add(NEAR).cast());
            _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(FAR).cast());
        }
    }
}
