//! What stored tensors mean: reference decoding and encoding.

use bytemuck::bytes_of;
use half::{bf16, f16};

use super::blocks::Block;
use super::parts::largest;
use super::search::{GROUP, Group};
use crate::dtype::DType;
use crate::error::{FormatError, join_names};

/// Makes a block of values; `None`: the scale does not fit half precision.
pub(super) type Encoder<B, const N: usize> = fn(&[f32; N]) -> Option<B>;

/// A block of `N` values, and what it means.
pub(super) trait Reference<const N: usize>: Block {
    /// GGML's rounding; `None` for types that are only read, or are made by a search alone.
    const ENCODER: Option<Encoder<Self, N>> = None;

    /// Whether [`search`](Self::search) makes blocks.
    const SEARCHES: bool = false;

    fn decode(&self, out: &mut [f32; N]);

    /// Makes the blocks of a group; `None`: the scale of one does not fit half precision.
    fn search(group: &Group, blocks: &mut [Self]) -> Option<()> {
        let _ = (group, blocks);
        None
    }
}

/// Decodes `out.len()` values from exactly the bytes that they take.
///
/// Bytes need no alignment. Any bit pattern decodes: a block whose scale is NaN or infinite gives values
/// that are not finite. `I32` and `U8` hold no floats and are an error.
///
/// # Errors
/// [`FormatError::PartialBlock`] and [`FormatError::ByteLength`] for lengths that do not go together,
/// [`FormatError::Unsupported`] for `I32` and `U8`.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), FormatError> {
    check_length(dtype, out.len(), bytes.len())?;
    match dtype {
        DType::F32 => decode_elements(bytes, out, f32::from_le_bytes),
        DType::F16 => decode_elements(bytes, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
        DType::BF16 => decode_elements(bytes, out, |bytes| {
            f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
        }),
        _ => {
            with_block!(dtype, B => decode_blocks::<B, { B::DTYPE.block_len() }>(bytes, out), else => {
                return Err(unsupported("decoding floats from", dtype, DType::is_real));
            })
        }
    }
    Ok(())
}

/// Whether [`encode`] writes a type.
pub fn encodes(dtype: DType) -> bool {
    with_block!(dtype, B => B::ENCODER.is_some() || B::SEARCHES, else => dtype.is_real())
}

/// Whether [`encode_weighted`] makes use of an importance for a type.
pub fn searches(dtype: DType) -> bool {
    with_block!(dtype, B => B::SEARCHES, else => false)
}

/// Encodes `values` into exactly the bytes that they take, for the types that [`encodes`] names.
///
/// Floats, Q4_0 to Q8_0 and MXFP4 are rounded in the manner of GGML's reference, bit for bit: Q4_0 and Q5_0 scale a
/// block so that its largest magnitude gets the most negative code; Q4_1 and Q5_1 span minimum to maximum. The K types and
/// IQ2_XXS to IQ4_XS are searched: their scales, and the points of grids, are those of about the least squared error.
///
/// NaN, an infinity, or a value too large for the type (or its half-precision scale) is an error; the
/// contents of `out` are then unspecified. Values so small that the scale rounds to zero are stored as
/// zero.
///
/// # Errors
/// [`FormatError::NotFinite`] and [`FormatError::OutOfRange`] as above, [`FormatError::PartialBlock`] and
/// [`FormatError::ByteLength`] for lengths that do not go together, [`FormatError::Unsupported`] for other types.
pub fn encode(dtype: DType, values: &[f32], out: &mut [u8]) -> Result<(), FormatError> {
    check_source(dtype, values, out)?;
    match dtype {
        DType::F16 => encode_elements(dtype, values, out, |value| {
            let half = f16::from_f32(value);
            half.is_finite().then(|| half.to_le_bytes())
        }),
        DType::BF16 => encode_elements(dtype, values, out, |value| {
            let half = bf16::from_f32(value);
            half.is_finite().then(|| half.to_le_bytes())
        }),
        _ => with_block!(dtype, B => match B::ENCODER {
            Some(encoder) => encode_blocks(encoder, values, out),
            None => search_blocks::<B, { B::DTYPE.block_len() }>(values, None, out),
        }, else => encode_elements(dtype, values, out, |value| Some(value.to_le_bytes()))),
    }
}

/// Encodes as [`encode`] does, with an importance for each value: how much a squared error of it counts, such as the mean
/// square of what a column of weights is multiplied by. Types whose scale follows from the largest value (Q8_0, MXFP4)
/// and floats have no use for it.
///
/// # Errors
/// As [`encode`]; and [`FormatError::Importance`] for numbers that are negative, not finite, or not as many as values.
pub fn encode_weighted(
    dtype: DType,
    values: &[f32],
    importance: &[f32],
    out: &mut [u8],
) -> Result<(), FormatError> {
    if importance.len() != values.len() {
        return Err(FormatError::Importance {
            what: format!("{} numbers", importance.len()),
            values: values.len(),
        });
    }
    let is_bad = |number: &f32| !(number.is_finite() && *number >= 0.0);
    if let Some(index) = importance.iter().position(is_bad) {
        return Err(FormatError::Importance {
            what: format!("{} at {index}", importance[index]),
            values: values.len(),
        });
    }
    check_source(dtype, values, out)?;
    with_block!(dtype, B => if B::SEARCHES {
        search_blocks::<B, { B::DTYPE.block_len() }>(values, Some(importance), out)
    } else {
        encode(dtype, values, out)
    }, else => encode(dtype, values, out))
}

/// Checks that values can be encoded, as far as it does not depend on their size.
fn check_source(dtype: DType, values: &[f32], out: &[u8]) -> Result<(), FormatError> {
    check_length(dtype, values.len(), out.len())?;
    if !encodes(dtype) {
        return Err(unsupported("encoding to", dtype, encodes));
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(FormatError::NotFinite {
            dtype,
            index,
            value: values[index],
        }),
        None => Ok(()),
    }
}

fn unsupported(what: &'static str, dtype: DType, supports: fn(DType) -> bool) -> FormatError {
    let types = DType::ALL.iter().copied();
    let supported: Vec<DType> = types.filter(|other| supports(*other)).collect();
    FormatError::Unsupported {
        what,
        dtype,
        supported: join_names(&supported),
    }
}

/// Checks that `values` are whole blocks and that they take `found` bytes.
pub(super) fn check_length(dtype: DType, values: usize, found: usize) -> Result<(), FormatError> {
    let bytes = dtype
        .row_bytes(values as u64)
        .ok_or(FormatError::PartialBlock { dtype, values })?;
    if bytes != found as u64 {
        return Err(FormatError::ByteLength {
            dtype,
            values,
            expected: usize::try_from(bytes).unwrap_or(usize::MAX),
            found,
        });
    }
    Ok(())
}

fn decode_elements<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = read(*bytes);
    }
}

fn decode_blocks<B: Reference<N>, const N: usize>(bytes: &[u8], out: &mut [f32]) {
    let stored = bytes.chunks_exact(size_of::<B>());
    for (values, bytes) in out.as_chunks_mut::<N>().0.iter_mut().zip(stored) {
        bytemuck::pod_read_unaligned::<B>(bytes).decode(values);
    }
}

fn encode_elements<const N: usize>(
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

fn encode_blocks<B: Block, const N: usize>(
    encoder: Encoder<B, N>,
    values: &[f32],
    out: &mut [u8],
) -> Result<(), FormatError> {
    let stored = out.chunks_exact_mut(size_of::<B>());
    for (block, (values, bytes)) in values.as_chunks::<N>().0.iter().zip(stored).enumerate() {
        let encoded = encoder(values).ok_or_else(|| {
            let largest = largest(values);
            FormatError::OutOfRange {
                dtype: B::DTYPE,
                index: block * N + largest,
                value: values[largest],
            }
        })?;
        bytes.copy_from_slice(bytes_of(&encoded));
    }
    Ok(())
}

/// Encodes by searching: group after group, the last one filled up with zeros.
fn search_blocks<B: Reference<N>, const N: usize>(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), FormatError> {
    // The same arithmetic with wider registers. Nothing is contracted, so that files do not depend on the machine.
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            #[target_feature(enable = "avx512f")]
            fn avx512<B: Reference<N>, const N: usize>(
                values: &[f32],
                importance: Option<&[f32]>,
                out: &mut [u8],
            ) -> Result<(), FormatError> {
                search_groups::<B, N>(values, importance, out)
            }
            // SAFETY: the machine has AVX-512.
            return unsafe { avx512::<B, N>(values, importance, out) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            #[target_feature(enable = "avx2")]
            fn avx2<B: Reference<N>, const N: usize>(
                values: &[f32],
                importance: Option<&[f32]>,
                out: &mut [u8],
            ) -> Result<(), FormatError> {
                search_groups::<B, N>(values, importance, out)
            }
            // SAFETY: the machine has AVX2.
            return unsafe { avx2::<B, N>(values, importance, out) };
        }
    }
    search_groups::<B, N>(values, importance, out)
}

#[inline(always)]
fn search_groups<B: Reference<N>, const N: usize>(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), FormatError> {
    let mut blocks = vec![B::zeroed(); GROUP / N];
    for (index, values) in values.chunks(GROUP).enumerate() {
        let at = index * GROUP;
        let importance = importance.map(|all| filled(&all[at..at + values.len()]));
        let group = Group::new(&filled(values), importance.as_ref());
        B::search(&group, &mut blocks).ok_or_else(|| {
            let largest = largest(values);
            FormatError::OutOfRange {
                dtype: B::DTYPE,
                index: at + largest,
                value: values[largest],
            }
        })?;
        let bytes = bytemuck::cast_slice(&blocks[..values.len() / N]);
        out[at / N * size_of::<B>()..][..bytes.len()].copy_from_slice(bytes);
    }
    Ok(())
}

/// A group of values; those that are not there are zero.
fn filled(values: &[f32]) -> [f32; GROUP] {
    let mut group = [0.0; GROUP];
    group[..values.len()].copy_from_slice(values);
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encodable() -> impl Iterator<Item = DType> {
        DType::ALL.iter().copied().filter(|dtype| encodes(*dtype))
    }

    fn encoded(dtype: DType, values: &[f32]) -> Result<Vec<u8>, FormatError> {
        let bytes = values.len() / dtype.block_len() * dtype.block_bytes();
        let mut out = vec![0; bytes];
        encode(dtype, values, &mut out)?;
        Ok(out)
    }

    #[test]
    fn what_is_not_finite_is_refused_with_its_place() {
        for dtype in encodable() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = [1.0; 256];
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
        for dtype in encodable() {
            // MXFP4's powers of two reach as far as single precision.
            if matches!(dtype, DType::F32 | DType::MXFP4) {
                continue;
            }
            let mut values = [1.0; 256];
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
        for dtype in encodable() {
            for value in [0.0, -0.0, 1e-44, -1e-44, 1e-39] {
                let bytes = encoded(dtype, &[value; 256]).unwrap();
                let mut out = [1.0; 256];
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
        let mut out = [0; 82];
        let error = encode(DType::MLX6, &[0.0; 64], &mut out[..52]).unwrap_err();
        assert!(error.to_string().contains("mlx6"), "{error}");
    }
}
