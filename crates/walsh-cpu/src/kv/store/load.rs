//! A vector as it is encoded: in single precision, prepared, and rotated where the codec rotates.

use walsh_formats::rotation::Rotation;
use walsh_formats::{DType, ggml};

use crate::kv::codec::limits::Within;
use crate::kv::rotate;
use crate::simd::{LANES, Simd, entries};

/// Up to this magnitude every codec stores a vector of at most 512 numbers: rotated, none exceeds √512 times it, which
/// half precision holds.
const SAFE_MAGNITUDE: f32 = 2000.0;

/// A vector of a tensor, and what is done to it.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) dtype: DType,
    pub(super) bytes: &'a [u8],
    /// What is subtracted first.
    pub(super) center: Option<&'a [f32]>,
    /// What is divided by then.
    pub(super) equaliser: Option<&'a [f32]>,
}

entries! {
    /// Loads and prepares a vector; whether all magnitudes are so small that every codec stores it.
    pub(super) fn load(source: Source<'_>, row: &mut [f32]) -> bool = load_row
}

entries! {
    /// `r = H·(s∘x)/√D` of a row of whole vectors, into another.
    pub(super) fn turn(rotation: &Rotation, row: &[f32], turned: &mut [f32]) = rotate::forward_from
}

#[inline(always)]
fn load_row<S: Simd>(s: S, source: Source<'_>, row: &mut [f32]) -> bool {
    let len = row.len();
    let of_len = |numbers: Option<&[f32]>| numbers.is_none_or(|numbers| numbers.len() == len);
    assert!(source.bytes.len() == len * source.dtype.block_bytes());
    assert!(of_len(source.center) && of_len(source.equaliser));
    if !len.is_multiple_of(LANES) {
        return decode(source, row);
    }
    // SAFETY: the slices have been measured.
    unsafe {
        match source.dtype {
            DType::F32 => convert::<S, F32>(s, source, row),
            DType::F16 => convert::<S, F16>(s, source, row),
            DType::BF16 => convert::<S, BF16>(s, source, row),
            _ => decode(source, row),
        }
    }
}

const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;

/// # Safety
/// The slices are as long as the row, whole vectors.
#[inline(always)]
unsafe fn convert<S: Simd, const TYPE: u8>(s: S, source: Source<'_>, row: &mut [f32]) -> bool {
    let width = if TYPE == F32 { 4 } else { 2 };
    // SAFETY: the caller's: the slices are as long as the row.
    unsafe {
        let mut safe = Within::below(s, SAFE_MAGNITUDE);
        let mut numbers = Within::below(s, 65_520.0);
        for at in (0..row.len()).step_by(LANES) {
            let p = source.bytes.as_ptr().add(width * at);
            let mut x = match TYPE {
                F32 => s.load(p.cast()),
                F16 => s.load_f16(p),
                _ => s.load_bf16(p),
            };
            if TYPE == F16 {
                numbers.note(s.abs(x));
            }
            if let Some(center) = source.center {
                x = s.sub(x, s.load(center.as_ptr().add(at)));
            }
            if let Some(equaliser) = source.equaliser {
                x = s.div(x, s.load(equaliser.as_ptr().add(at)));
            }
            safe.note(s.abs(x));
            s.store(row.as_mut_ptr().add(at), x);
        }
        if TYPE == F16 && !numbers.all() {
            // Not every set loads the infinities of half precision as such.
            return decode(source, row);
        }
        safe.all()
    }
}

/// Rows that are no whole vectors, and those that need care.
#[cold]
fn decode(source: Source<'_>, row: &mut [f32]) -> bool {
    if ggml::decode(source.dtype, source.bytes, row).is_err() {
        // The op was validated: its type is f32, f16 or bf16, which rows of any length decode from.
        row.fill(f32::NAN);
    }
    for (k, c) in row.iter_mut().zip(source.center.unwrap_or_default()) {
        *k -= c;
    }
    for (k, e) in row.iter_mut().zip(source.equaliser.unwrap_or_default()) {
        *k /= e;
    }
    row.iter().all(|x| x.abs() < SAFE_MAGNITUDE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn rows_of_every_type_and_what_is_no_number_load_alike() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for len in [72, 64] {
                let center: Vec<f32> = (0..len).map(|i| i as f32 * 0.01).collect();
                let equaliser: Vec<f32> = (0..len).map(|i| 0.3 + i as f32 * 0.02).collect();
                for (odd, bits) in [
                    (None, 0),
                    (Some(5), 0x7c00),
                    (Some(len - 1), 0xfc00),
                    (Some(9), 0x7e01),
                ] {
                    let x: Vec<f32> = (0..len).map(|i| (i * 37 % 41) as f32 - 20.0).collect();
                    let mut bytes = vec![0; len * dtype.block_bytes()];
                    ggml::encode(dtype, &x, &mut bytes).unwrap();
                    if let Some(odd) = odd {
                        // An infinity or a NaN, of the type.
                        let odd = &mut bytes[odd * dtype.block_bytes()..][..dtype.block_bytes()];
                        let value = half::f16::from_bits(bits);
                        match dtype {
                            DType::F16 => odd.copy_from_slice(&bits.to_le_bytes()),
                            DType::F32 => odd.copy_from_slice(&value.to_f32().to_le_bytes()),
                            _ => odd.copy_from_slice(&value.to_f32().to_le_bytes()[2..]),
                        }
                    }
                    let source = Source {
                        dtype,
                        bytes: &bytes,
                        center: Some(&center),
                        equaliser: Some(&equaliser),
                    };
                    let mut expected = vec![0.0; len];
                    assert_eq!(decode(source, &mut expected), odd.is_none());
                    for isa in Isa::available() {
                        let mut row = vec![0.0; len];
                        let safe = load(isa, source, &mut row);
                        assert_eq!(safe, odd.is_none(), "{isa} {dtype} {len}");
                        for (got, expected) in row.iter().zip(&expected) {
                            let alike = got.to_bits() == expected.to_bits();
                            assert!(
                                alike || got.is_nan() && expected.is_nan(),
                                "{isa} {dtype} {got}"
                            );
                        }
                    }
                }
            }
        }
    }
}
