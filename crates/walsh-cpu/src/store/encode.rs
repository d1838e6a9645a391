//! Encoding a row sixteen numbers at a time, bit for bit as the codec does it.

use half::f16;
use walsh_formats::DType;
use walsh_formats::kv::{self, KvCodec, RowCodec, ScaleKind, Tq, TqBits, lane_sum};

use crate::lanes::{Lanes, Table, entries, rotate};

const LANES: usize = 16;

/// A codec with what its kernel looks up.
pub(super) struct Encoder {
    codec: RowCodec,
    /// The boundaries of the codebook, then infinity: as many as there are centroids.
    boundaries: Vec<f32>,
    /// Every sixteenth boundary of 256, then infinity: where the search for 8 bits begins.
    coarse: Vec<f32>,
}

impl Encoder {
    pub(super) fn of(codec: &RowCodec) -> Self {
        let mut boundaries = codec
            .codebook()
            .map(|book| book.boundaries.clone())
            .unwrap_or_default();
        boundaries.push(f32::INFINITY);
        let coarse = boundaries.iter().skip(15).step_by(16).copied().collect();
        Self {
            codec: codec.clone(),
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
            KvCodec::Dense(DType::F16) => encode_f16::<S>(row, codes),
            KvCodec::Dense(DType::F32) => encode_f32::<S>(row, codes),
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
    let Some(book) = encoder.codec.codebook() else {
        return false;
    };
    let mut unpacked = [0u8; super::MAX_HEAD_DIM];
    let unpacked = &mut unpacked[..rotated.len()];
    let len = encoder.codec.group_len();
    // SAFETY: the caller's; the tables live as long as the encoder and the codebook.
    let search = unsafe {
        Search::<S, BITS> {
            centroids: Table::new(&book.centroids),
            boundaries: Table::new(&encoder.boundaries),
            coarse: Table::new(if BITS == 8 {
                &encoder.coarse
            } else {
                &encoder.boundaries
            }),
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
            let mut code = S::splat_i(0);
            let mut bits = BITS;
            if BITS == 8 {
                // The first four bits from every sixteenth boundary, which fit a register.
                for bit in [8, 4, 2, 1] {
                    let at = S::add_i(code, S::splat_i(bit - 1));
                    let boundary = S::lookup::<4>(&self.coarse, at);
                    code = S::add_i(code, S::step_if_less(boundary, u, bit));
                }
                code = S::shl::<4>(code);
                bits = 4;
            }
            for bit in (0..bits).rev() {
                let at = S::add_i(code, S::splat_i((1 << bit) - 1));
                let boundary = S::lookup::<BITS>(&self.boundaries, at);
                code = S::add_i(code, S::step_if_less(boundary, u, 1 << bit));
            }
            code
        }
    }

    /// ⟨u,c⟩ and ⟨c,c⟩ at a scale.
    #[inline(always)]
    unsafe fn fit(&self, unit: &[f32], inverse: f32) -> (f32, f32) {
        // SAFETY: the caller's.
        unsafe {
            let inverse = S::splat(inverse);
            let (mut dot, mut square) = (S::splat(0.0), S::splat(0.0));
            for chunk in unit.chunks_exact(LANES) {
                let u = S::load(chunk.as_ptr());
                let c = S::lookup::<BITS>(&self.centroids, self.codes(S::mul(u, inverse)));
                dot = S::add(dot, S::mul(u, c));
                square = S::add(square, S::mul(c, c));
            }
            (S::reduce_add(dot), S::reduce_add(square))
        }
    }

    /// Quantises at the best scale; returns ⟨u,c⟩/⟨c,c⟩.
    #[inline(always)]
    unsafe fn best(&self, unit: &[f32], codes: &mut [u8]) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            let (mut dot, mut square) = self.fit(unit, 1.0);
            let mut best = 1.0;
            for candidate in &kv::SCALE_CANDIDATES[1..] {
                let inverse = 1.0 / candidate;
                let (d, s) = self.fit(unit, inverse);
                if d * d / s > dot * dot / square {
                    (dot, square, best) = (d, s, inverse);
                }
            }
            let inverse = S::splat(best);
            for (chunk, out) in unit.chunks_exact(LANES).zip(codes.chunks_exact_mut(LANES)) {
                let u = S::mul(S::load(chunk.as_ptr()), inverse);
                S::store_u8(out.as_mut_ptr(), self.codes(u));
            }
            dot / square
        }
    }
}
