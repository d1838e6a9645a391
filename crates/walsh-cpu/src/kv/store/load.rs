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
    match source.dtype {
        DType::F32 => convert(s, source, row, |bytes| s.read_f32(bytes)),
        DType::F16 => convert_halves(s, source, row),
        DType::BF16 => convert(s, source, row, |bytes| s.read_bf16(bytes)),
        _ => decode(source, row),
    }
}

/// Half precision. Not every set loads its infinities as such: rows with one are decoded instead.
#[inline(always)]
fn convert_halves<S: Simd>(s: S, source: Source<'_>, row: &mut [f32]) -> bool {
    let mut numbers = Within::below(s, 65_520.0);
    let safe = convert(s, source, row, |bytes| {
        let x = s.read_f16(bytes);
        numbers.note(s.abs(x));
        x
    });
    if !numbers.all() {
        return decode(source, row);
    }
    safe
}

/// Whole vectors, of sixteen numbers in `BYTES` bytes each.
#[inline(always)]
fn convert<S: Simd, const BYTES: usize>(
    s: S,
    source: Source<'_>,
    row: &mut [f32],
    mut read: impl FnMut(&[u8; BYTES]) -> S::F,
) -> bool {
    let center = source.center.map(|numbers| numbers.as_chunks().0);
    let equaliser = source.equaliser.map(|numbers| numbers.as_chunks().0);
    let mut safe = Within::below(s, SAFE_MAGNITUDE);
    let from = source.bytes.as_chunks().0;
    for (i, (to, from)) in row.as_chunks_mut().0.iter_mut().zip(from).enumerate() {
        let mut x = read(from);
        if let Some(center) = center {
            x = s.sub(x, s.read(&center[i]));
        }
        if let Some(equaliser) = equaliser {
            x = s.div(x, s.read(&equaliser[i]));
        }
        safe.note(s.abs(x));
        s.write(to, x);
    }
    safe.all()
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
    use crate::simd::Token;

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
                        let safe = load(Token::of(isa), source, &mut row);
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
