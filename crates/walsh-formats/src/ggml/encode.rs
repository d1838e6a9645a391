//! Reference encoding.

use bytemuck::{NoUninit, Zeroable};
use half::{bf16, f16};

use super::IQ4_VALUES;
use super::blocks::*;
use crate::dtype::DType;
use crate::error::{FormatError, join_names};

/// The types that [`encode`] writes.
pub const ENCODABLE: &[DType] = &[
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::IQ4NL,
];

/// Encodes `values` into exactly the bytes that they take, for the types of [`ENCODABLE`].
///
/// Values are rounded to the nearest that the type holds, in the manner of GGML's reference: the result
/// is bit-equal to the `quantize` of the Python package `gguf`, which has all of these types except
/// IQ4_NL. Q4_0 and Q5_0 scale a block so that its largest magnitude gets the most negative code; Q4_1 and
/// Q5_1 span minimum to maximum; IQ4_NL searches the scale of least squared error.
///
/// NaN, an infinity, or a value too large for the type (or its half-precision scale) is an error; the
/// contents of `out` are then unspecified. Values so small that the scale rounds to zero are stored as
/// zero.
///
/// # Errors
/// [`FormatError::NotFinite`] and [`FormatError::OutOfRange`] as above, [`FormatError::PartialBlock`] and
/// [`FormatError::ByteLength`] for lengths that do not go together, [`FormatError::Unsupported`] for other types.
pub fn encode(dtype: DType, values: &[f32], out: &mut [u8]) -> Result<(), FormatError> {
    super::check_length(dtype, values.len(), out.len())?;
    if !ENCODABLE.contains(&dtype) {
        return Err(FormatError::Unsupported {
            what: "encoding to",
            dtype,
            supported: join_names(ENCODABLE),
        });
    }
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(FormatError::NotFinite {
            dtype,
            index,
            value: values[index],
        });
    }
    match dtype {
        DType::F16 => elements(dtype, values, out, |value| {
            let half = f16::from_f32(value);
            half.is_finite().then(|| half.to_le_bytes())
        }),
        DType::BF16 => elements(dtype, values, out, |value| {
            let half = bf16::from_f32(value);
            half.is_finite().then(|| half.to_le_bytes())
        }),
        DType::Q4_0 => blocks::<BlockQ4_0>(values, out),
        DType::Q4_1 => blocks::<BlockQ4_1>(values, out),
        DType::Q5_0 => blocks::<BlockQ5_0>(values, out),
        DType::Q5_1 => blocks::<BlockQ5_1>(values, out),
        DType::Q8_0 => blocks::<BlockQ8_0>(values, out),
        DType::IQ4NL => blocks::<BlockIq4Nl>(values, out),
        _ => elements(dtype, values, out, |value| Some(value.to_le_bytes())),
    }
}

fn elements<const N: usize>(
    dtype: DType,
    values: &[f32],
    out: &mut [u8],
    write: impl Fn(f32) -> Option<[u8; N]>,
) -> Result<(), FormatError> {
    let stored = out.as_chunks_mut::<N>().0;
    for (index, (&value, bytes)) in values.iter().zip(stored).enumerate() {
        *bytes = write(value).ok_or(FormatError::OutOfRange {
            dtype,
            index,
            value,
        })?;
    }
    Ok(())
}

/// A block of 32 values that can be encoded. `None`: the scale does not fit half precision.
trait Encode: Block + NoUninit {
    fn encode(values: &[f32; BLOCK]) -> Option<Self>;
}

fn blocks<B: Encode>(values: &[f32], out: &mut [u8]) -> Result<(), FormatError> {
    let stored = out.chunks_exact_mut(size_of::<B>());
    for (block, (values, bytes)) in values.as_chunks::<BLOCK>().0.iter().zip(stored).enumerate() {
        let encoded = B::encode(values).ok_or_else(|| {
            let largest = largest(values);
            FormatError::OutOfRange {
                dtype: B::DTYPE,
                index: block * BLOCK + largest,
                value: values[largest],
            }
        })?;
        bytes.copy_from_slice(bytemuck::bytes_of(&encoded));
    }
    Ok(())
}

/// Where the first value of the largest magnitude stands.
fn largest(values: &[f32; BLOCK]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if value.abs() > values[best].abs() {
            best = i;
        }
    }
    best
}

fn range(values: &[f32; BLOCK]) -> (f32, f32) {
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    (
        values.iter().copied().fold(values[0], smaller),
        values.iter().copied().fold(values[0], larger),
    )
}

fn half(value: f32) -> Option<f16> {
    let half = f16::from_f32(value);
    half.is_finite().then_some(half)
}

/// 1 / scale, or 0 where that is no number: the scale is then zero in half precision, and so is whatever is
/// decoded.
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// A code from 0 to `most`: `value` without its fraction.
fn code(value: f32, most: u8) -> u8 {
    (value as u8).min(most)
}

/// The low four bits of 32 codes, the halves sharing bytes.
fn pack_low(codes: &[u8; BLOCK]) -> [u8; 16] {
    std::array::from_fn(|i| (codes[i] & 15) | (codes[i + 16] << 4))
}

/// The fifth bits of 32 codes.
fn pack_fifth(codes: &[u8; BLOCK]) -> [u8; 4] {
    let mut bits = 0;
    for (i, code) in codes.iter().enumerate() {
        bits |= u32::from(code >> 4 & 1) << i;
    }
    bits.to_le_bytes()
}

/// Codes around an offset of 2^(bits−1), the scale chosen by the value of the largest magnitude.
fn signed_codes(values: &[f32; BLOCK], offset: u8) -> (f32, [u8; BLOCK]) {
    let centre = f32::from(offset);
    let scale = values[largest(values)] / -centre;
    let inverse = inverse(scale);
    let codes = values.map(|value| code(value * inverse + (centre + 0.5), 2 * offset - 1));
    (scale, codes)
}

/// Codes from the minimum to the maximum.
fn spanning_codes(values: &[f32; BLOCK], most: u8) -> (f32, f32, [u8; BLOCK]) {
    let (min, max) = range(values);
    let scale = (max - min) / f32::from(most);
    let inverse = inverse(scale);
    let codes = values.map(|value| code((value - min) * inverse + 0.5, most));
    (scale, min, codes)
}

impl Encode for BlockQ4_0 {
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        let (scale, codes) = signed_codes(values, 8);
        Some(BlockQ4_0 {
            d: half(scale)?,
            qs: pack_low(&codes),
        })
    }
}

impl Encode for BlockQ4_1 {
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        let (scale, min, codes) = spanning_codes(values, 15);
        Some(BlockQ4_1 {
            d: half(scale)?,
            m: half(min)?,
            qs: pack_low(&codes),
        })
    }
}

impl Encode for BlockQ5_0 {
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        let (scale, codes) = signed_codes(values, 16);
        Some(BlockQ5_0 {
            d: half(scale)?,
            qh: pack_fifth(&codes),
            qs: pack_low(&codes),
        })
    }
}

impl Encode for BlockQ5_1 {
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        let (scale, min, codes) = spanning_codes(values, 31);
        Some(BlockQ5_1 {
            d: half(scale)?,
            m: half(min)?,
            qh: pack_fifth(&codes),
            qs: pack_low(&codes),
        })
    }
}

impl Encode for BlockQ8_0 {
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        let scale = values[largest(values)].abs() / 127.0;
        let inverse = inverse(scale);
        Some(BlockQ8_0 {
            d: half(scale)?,
            qs: values.map(|value| (value * inverse).round() as i8),
        })
    }
}

/// The index of the table's value nearest to `value`.
fn nearest_iq4(value: f32) -> u8 {
    let mut index = 0;
    for pair in IQ4_VALUES.windows(2) {
        let middle = (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
        index += u8::from(value > middle);
    }
    index
}

impl Encode for BlockIq4Nl {
    /// The table is not symmetric, so that both signs of the scale are worth a try. For given indices the
    /// best scale follows by least squares; what remains is the search for the indices, from scales that
    /// put the largest value near either end of the table. Candidates are judged after rounding the scale,
    /// which matters where it is subnormal.
    fn encode(values: &[f32; BLOCK]) -> Option<Self> {
        const STEPS: i8 = 8;
        let peak = values[largest(values)];
        if peak == 0.0 {
            return Some(BlockIq4Nl {
                qs: [nearest_iq4(0.0) * 0x11; 16],
                ..BlockIq4Nl::zeroed()
            });
        }
        // In units of the peak, so that squares neither overflow nor vanish.
        let unit = values.map(|value| value / peak);
        let mut best: Option<(f32, BlockIq4Nl)> = None;
        for end in [IQ4_VALUES[0], IQ4_VALUES[15]] {
            for step in -STEPS..=STEPS {
                let inverse = f32::from(end) + f32::from(step);
                let (mut along, mut square) = (0.0, 0.0);
                for value in unit {
                    let stored = iq4(nearest_iq4(value * inverse));
                    along += stored * value;
                    square += stored * stored;
                }
                let Some(d) = half(along / square * peak) else {
                    continue;
                };
                let (error, block) = iq4_nl_with_scale(values, d, peak);
                if best.is_none_or(|best| error < best.0) {
                    best = Some((error, block));
                }
            }
        }
        best.map(|best| best.1)
    }
}

/// The value that an index of the 4-bit table stands for.
fn iq4(index: u8) -> f32 {
    f32::from(IQ4_VALUES[usize::from(index)])
}

/// The block with this scale, and its squared error in units of `peak`.
fn iq4_nl_with_scale(values: &[f32; BLOCK], d: f16, peak: f32) -> (f32, BlockIq4Nl) {
    let scale = d.to_f32();
    let inverse = inverse(scale);
    let codes = values.map(|value| nearest_iq4(value * inverse));
    let mut error = 0.0;
    for (value, index) in values.iter().zip(codes) {
        let difference = (value - scale * iq4(index)) / peak;
        error += difference * difference;
    }
    let qs = pack_low(&codes);
    (error, BlockIq4Nl { d, qs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ggml::decode;

    fn encoded(dtype: DType, values: &[f32]) -> Result<Vec<u8>, FormatError> {
        let bytes = values.len() / dtype.block_len() * dtype.block_bytes();
        let mut out = vec![0; bytes];
        encode(dtype, values, &mut out)?;
        Ok(out)
    }

    #[test]
    fn what_is_not_finite_is_refused_with_its_place() {
        for &dtype in ENCODABLE {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = [1.0; 64];
                values[40] = bad;
                let error = encoded(dtype, &values).unwrap_err();
                assert!(
                    matches!(error, FormatError::NotFinite { index: 40, .. }),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn what_is_too_large_is_refused_with_its_place() {
        for &dtype in ENCODABLE {
            if dtype == DType::F32 {
                continue;
            }
            let mut values = [1.0; 64];
            values[33] = f32::MAX;
            let error = encoded(dtype, &values).unwrap_err();
            assert!(
                matches!(error, FormatError::OutOfRange { index: 33, .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn zeros_and_tiny_values_decode_to_zero() {
        for &dtype in ENCODABLE {
            for value in [0.0, -0.0, 1e-44, -1e-44, 1e-39] {
                let bytes = encoded(dtype, &[value; 32]).unwrap();
                let mut out = [1.0; 32];
                decode(dtype, &bytes, &mut out).unwrap();
                let small = 1e-38 * f32::from(matches!(dtype, DType::F32 | DType::BF16) as u8);
                assert!(out.iter().all(|value| value.abs() <= small), "{dtype}");
            }
        }
    }

    #[test]
    fn lengths_must_agree() {
        let mut out = [0; 34];
        let partial = encode(DType::Q8_0, &[0.0; 31], &mut out).unwrap_err();
        assert!(matches!(
            partial,
            FormatError::PartialBlock { values: 31, .. }
        ));
        let short = encode(DType::Q8_0, &[0.0; 64], &mut out).unwrap_err();
        assert!(matches!(
            short,
            FormatError::ByteLength {
                expected: 68,
                found: 34,
                ..
            }
        ));
        let mut values = [0.0; 32];
        assert!(decode(DType::Q8_0, &out[1..], &mut values).is_err());
        assert!(decode(DType::I32, &[0; 4], &mut values[..1]).is_err());
    }

    #[test]
    fn types_without_an_encoder_say_so() {
        let mut out = [0; 144];
        let error = encode(DType::Q4K, &[0.0; 256], &mut out).unwrap_err();
        assert!(error.to_string().contains("q4_K"), "{error}");
    }
}
