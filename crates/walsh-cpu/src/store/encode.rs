//! Encoding a row sixteen numbers at a time, bit for bit as the codec does it.

use half::f16;
use walsh_formats::DType;
use walsh_formats::kv::{self, KvCodec, RowCodec, ScaleKind, Tq, TqBits, lane_sum};

use crate::lanes::{Lanes, Table, entries, rotate, table_numbers};

const LANES: usize = 16;

/// The most numbers of a head.
const MAX_HEAD_DIM: usize = 512;

/// A codec with the tables of its kernel.
pub(super) struct Encoder {
    codec: RowCodec,
    centroids: Vec<f32>,
    /// The boundaries of the codebook, then infinity. Of 256 centroids, the positive boundaries.
    boundaries: Vec<f32>,
    /// Every eighth of the boundaries, where the search for 8 bits begins.
    coarse: Vec<f32>,
}

impl Encoder {
    pub(super) fn of(codec: &RowCodec) -> Self {
        let (mut centroids, mut boundaries, mut coarse) = (vec![], vec![], vec![]);
        if let Some(book) = codec.codebook() {
            let skipped = if book.boundaries.len() == 255 { 128 } else { 0 };
            let ends = book.boundaries[skipped..]
                .iter()
                .copied()
                .chain([f32::INFINITY]);
            let ends: Vec<f32> = ends.collect();
            let eighths: Vec<f32> = ends.iter().skip(7).step_by(8).copied().collect();
            centroids = table_numbers(&book.centroids);
            coarse = table_numbers(if eighths.is_empty() { &ends } else { &eighths });
            boundaries = table_numbers(&ends);
        }
        Self {
            codec: codec.clone(),
            centroids,
            boundaries,
            coarse,
        }
    }
}

entries! {
    /// Encodes a row; false if there is no kernel for the codec or the row needs the codec's own care, such as for a
    /// NaN. `codes` and `scales` are then unspecified.
    ///
    /// # Safety
    /// The machine has the instruction set.
    pub(super) fn encode(encoder: &Encoder, row: &[f32], scratch: &mut [f32], codes: &mut [u8], scales: &mut [u8]) -> bool = encode_row
}

/// # Safety
/// The machine has the instruction set.
#[inline(always)]
unsafe fn encode_row<S: Lanes>(
    encoder: &Encoder,
    row: &[f32],
    scratch: &mut [f32],
    codes: &mut [u8],
    scales: &mut [u8],
) -> bool {
    if !row.len().is_multiple_of(LANES) {
        return false;
    }
    // SAFETY: the caller's.
    unsafe {
        match encoder.codec.codec() {
            KvCodec::Dense(dtype) => encode_dense::<S>(dtype, row, codes),
            KvCodec::Rotated(dtype @ (DType::F16 | DType::F32)) => {
                if !finite::<S>(row) {
                    return false;
                }
                scratch.copy_from_slice(row);
                if let Some(rotation) = encoder.codec.rotation() {
                    rotate::forward::<S>(rotation, scratch);
                }
                encode_dense::<S>(dtype, scratch, codes)
            }
            KvCodec::Tq(Tq {
                scale: ScaleKind::LeastSquares,
                bits,
                ..
            }) => {
                if !finite::<S>(row) {
                    return false;
                }
                scratch.copy_from_slice(row);
                if let Some(rotation) = encoder.codec.rotation() {
                    rotate::forward::<S>(rotation, scratch);
                }
                match bits {
                    TqBits::B2 => encode_fitted::<S, 2>(encoder, scratch, codes, scales),
                    TqBits::B3 => encode_fitted::<S, 3>(encoder, scratch, codes, scales),
                    TqBits::B4 => encode_fitted::<S, 4>(encoder, scratch, codes, scales),
                    TqBits::B5 => encode_fitted::<S, 5>(encoder, scratch, codes, scales),
                    TqBits::B6 => encode_fitted::<S, 6>(encoder, scratch, codes, scales),
                    TqBits::B8 => encode_fitted::<S, 8>(encoder, scratch, codes, scales),
                }
            }
            _ => false,
        }
    }
}

#[inline(always)]
unsafe fn encode_dense<S: Lanes>(dtype: DType, row: &[f32], codes: &mut [u8]) -> bool {
    // SAFETY: the caller's.
    unsafe {
        match dtype {
            DType::F16 => encode_f16::<S>(row, codes),
            DType::F32 => encode_f32::<S>(row, codes),
            _ => false,
        }
    }
}

/// Whether no number is NaN or infinite.
#[inline(always)]
unsafe fn finite<S: Lanes>(row: &[f32]) -> bool {
    // SAFETY: the caller's; whole vectors of the row.
    unsafe {
        // Zero times anything finite is zero, and else NaN.
        let mut zeros = S::splat(0.0);
        for chunk in row.chunks_exact(LANES) {
            zeros = S::add(zeros, S::mul(S::load(chunk.as_ptr()), S::splat(0.0)));
        }
        S::reduce_add(zeros) == 0.0
    }
}

#[inline(always)]
unsafe fn encode_f32<S: Lanes>(row: &[f32], codes: &mut [u8]) -> bool {
    // SAFETY: the caller's; a row of f32 is four bytes a number.
    unsafe {
        if !finite::<S>(row) || !cfg!(target_endian = "little") {
            return false;
        }
        for (chunk, out) in row
            .chunks_exact(LANES)
            .zip(codes.chunks_exact_mut(4 * LANES))
        {
            S::store(out.as_mut_ptr().cast(), S::load(chunk.as_ptr()));
        }
    }
    true
}

#[inline(always)]
unsafe fn encode_f16<S: Lanes>(row: &[f32], codes: &mut [u8]) -> bool {
    // SAFETY: the caller's; a row of f16 is two bytes a number.
    unsafe {
        let mut largest = S::splat(0.0);
        for chunk in row.chunks_exact(LANES) {
            largest = S::max(largest, S::abs(S::load(chunk.as_ptr())));
        }
        // From 65,520 on halves round to infinity.
        if !finite::<S>(row) || S::reduce_max(largest) >= 65_520.0 {
            return false;
        }
        for (chunk, out) in row
            .chunks_exact(LANES)
            .zip(codes.chunks_exact_mut(2 * LANES))
        {
            S::store_f16(out.as_mut_ptr(), S::load(chunk.as_ptr()));
        }
    }
    true
}

/// The root mean square, summed as the codec sums it.
#[inline(always)]
fn sigma(values: &[f32]) -> f32 {
    let mut lanes = [0.0f64; LANES];
    for chunk in values.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            lanes[i] += f64::from(chunk[i]) * f64::from(chunk[i]);
        }
    }
    (lane_sum(lanes) / values.len() as f64).sqrt() as f32
}

#[inline(always)]
unsafe fn encode_fitted<S: Lanes, const BITS: usize>(
    encoder: &Encoder,
    rotated: &mut [f32],
    codes: &mut [u8],
    scales: &mut [u8],
) -> bool {
    let mut unpacked = [0u8; MAX_HEAD_DIM];
    let unpacked = &mut unpacked[..rotated.len()];
    let len = encoder.codec.group_len();
    // SAFETY: the caller's; the tables live as long as the encoder.
    let search = unsafe {
        Search::<S, BITS> {
            centroids: Table::new(&encoder.centroids),
            boundaries: Table::new(&encoder.boundaries),
            coarse: Table::new(&encoder.coarse),
        }
    };
    let groups = rotated
        .chunks_exact_mut(len)
        .zip(unpacked.chunks_exact_mut(len));
    for ((values, unpacked), scale) in groups.zip(scales.chunks_exact_mut(2)) {
        let sigma = sigma(values);
        if !sigma.is_finite() || sigma < kv::TINY_SIGMA {
            return false;
        }
        // SAFETY: as above.
        unsafe {
            let inverse = S::splat(1.0 / sigma);
            for chunk in values.chunks_exact_mut(LANES) {
                S::store(chunk.as_mut_ptr(), S::mul(S::load(chunk.as_ptr()), inverse));
            }
            let stored = f16::from_f32(sigma * search.best(values, unpacked));
            if !stored.is_finite() {
                return false;
            }
            scale.copy_from_slice(&stored.to_le_bytes());
        }
    }
    let Some(bits) = TqBits::from_bits(BITS) else {
        return false;
    };
    kv::pack::pack(bits, unpacked, codes);
    true
}

/// The search for the best of the candidate scales.
struct Search<S: Lanes, const BITS: usize> {
    centroids: Table<S>,
    boundaries: Table<S>,
    coarse: Table<S>,
}

impl<S: Lanes, const BITS: usize> Search<S, BITS> {
    /// How many boundaries lie strictly below each number: a binary search, one bit at a time.
    #[inline(always)]
    unsafe fn codes(&self, u: S::F) -> S::I {
        // SAFETY: the caller's.
        unsafe {
            if BITS == 8 {
                return self.codes_by_size(u);
            }
            let mut code = S::splat_i(0);
            for bit in (0..BITS).rev() {
                let at = S::add_i(code, S::splat_i((1 << bit) - 1));
                let boundary = S::lookup::<BITS>(&self.boundaries, at);
                code = S::add_if_less(code, boundary, u, 1 << bit);
            }
            code
        }
    }

    /// As [`codes`](Self::codes) for 8 bits: among the 127 positive boundaries, by magnitude.
    #[inline(always)]
    unsafe fn codes_by_size(&self, u: S::F) -> S::I {
        // SAFETY: the caller's.
        unsafe {
            let zero = S::splat(0.0);
            let size = S::and(S::bits(u), S::splat_i(0x7fff_ffff));
            // A negative number on a boundary lies above it in magnitude: the next larger number does strictly.
            let size = S::add_i(size, S::add_if_less(S::splat_i(1), zero, u, u32::MAX));
            let size = S::from_bits(size);
            // Four bits by every eighth boundary, which fit a register, then three among all.
            let mut below = S::splat_i(0);
            for bit in [8, 4, 2, 1] {
                let at = S::add_i(below, S::splat_i(bit - 1));
                below = S::add_if_less(below, S::lookup::<4>(&self.coarse, at), size, bit);
            }
            below = S::shl::<3>(below);
            for bit in [4, 2, 1] {
                let at = S::add_i(below, S::splat_i(bit - 1));
                below = S::add_if_less(below, S::lookup::<7>(&self.boundaries, at), size, bit);
            }
            // 128 + below where u is positive, else 127 − below.
            let flip = S::add_if_less(S::splat_i(127), zero, u, 1);
            S::xor(below, flip)
        }
    }

    /// Quantises at the best scale; returns ⟨u,c⟩/⟨c,c⟩.
    #[inline(always)]
    unsafe fn best(&self, unit: &[f32], codes: &mut [u8]) -> f32 {
        const COUNT: usize = kv::SCALE_CANDIDATES.len();
        let inverses = kv::SCALE_CANDIDATES.map(|candidate| 1.0 / candidate);
        // SAFETY: the caller's.
        unsafe {
            // ⟨u,c⟩ and ⟨c,c⟩ of all candidates side by side, so that their long chains overlap.
            let (mut dots, mut squares) = ([S::splat(0.0); COUNT], [S::splat(0.0); COUNT]);
            for chunk in unit.chunks_exact(LANES) {
                let u = S::load(chunk.as_ptr());
                for k in 0..COUNT {
                    let code = self.codes(S::mul(u, S::splat(inverses[k])));
                    let c = S::lookup::<BITS>(&self.centroids, code);
                    dots[k] = S::add(dots[k], S::mul(u, c));
                    squares[k] = S::add(squares[k], S::mul(c, c));
                }
            }
            let (mut best, mut gain, mut factor) = (0, f32::NEG_INFINITY, 0.0);
            for k in 0..COUNT {
                let (dot, square) = (S::reduce_add(dots[k]), S::reduce_add(squares[k]));
                let found = dot * dot / square;
                if found > gain {
                    (best, gain, factor) = (k, found, dot / square);
                }
            }
            let inverse = S::splat(inverses[best]);
            for (chunk, out) in unit.chunks_exact(LANES).zip(codes.chunks_exact_mut(LANES)) {
                let u = S::mul(S::load(chunk.as_ptr()), inverse);
                S::store_u8(out.as_mut_ptr(), self.codes(u));
            }
            factor
        }
    }
}
