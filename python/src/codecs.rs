//! KV codecs, rotations and codebooks, on arrays.

use numpy::{IntoPyArray, PyArray1, PyArray2};
use pyo3::prelude::*;
use walsh::formats::codebook::{TqBits, codebook as book};
use walsh::formats::kv::{KvCodec, RowCodec};
use walsh::formats::rotation::Rotation;

use crate::arrays::{CHUNK, Input, in_parts, room, zeros};
use crate::errors::{Failure, Result};
use crate::processor::{Encoder, processor};
use crate::session::matrix;

/// How many numbers are encoded at a time: as many as caches hold, so that they are read from memory but once.
const ENCODED: usize = 1 << 18;

fn row_codec(codec: &str, head_dim: usize) -> Result<RowCodec> {
    Ok(RowCodec::new(codec.parse::<KvCodec>()?, head_dim)?)
}

/// The names of all codecs without options.
#[pyfunction]
pub(crate) fn kv_codecs() -> Vec<String> {
    KvCodec::all().map(|codec| codec.to_string()).collect()
}

/// Of a codec at a head size: its name, bytes of codes and of scales of a row, the scales' type, the centroids' bits, and
/// whether it rotates.
type Layout = (String, usize, usize, Option<&'static str>, bool);

#[pyfunction]
pub(crate) fn kv_layout(codec: &str, head_dim: usize) -> Result<Layout> {
    let codec = row_codec(codec, head_dim)?;
    Ok((
        codec.codec().to_string(),
        codec.code_bytes(),
        codec.scale_bytes(),
        codec.scale_dtype().map(|dtype| dtype.name()),
        codec.rotation().is_some(),
    ))
}

/// Bytes of codes and of scales.
type Encoded<'py> = (Bound<'py, PyArray2<u8>>, Bound<'py, PyArray2<u8>>);

/// Centroids and boundaries.
type Book<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f32>>);

/// Rows of f32 `[n, head_dim]` as bytes of codes `[n, code_bytes]` and bytes of scales `[n, scale_bytes]`.
#[pyfunction]
pub(crate) fn kv_encode<'py>(
    py: Python<'py>,
    codec: &str,
    rows: &Bound<'py, PyAny>,
) -> Result<Encoded<'py>> {
    let input = Input::<f32>::new("x", rows, 2)?;
    let [count, head_dim] = [input.shape()[0], input.shape()[1]];
    let codec = row_codec(codec, head_dim)?;
    let [code, scale] = [codec.code_bytes(), codec.scale_bytes()];
    let mut codes = zeros(count * code)?;
    let mut scales = zeros(count * scale)?;
    let step = (ENCODED / head_dim).max(1).min(count);
    let mut encoder: Option<(usize, Encoder)> = None;
    for start in (0..count).step_by(step.max(1)) {
        let end = count.min(start + step);
        let rows = end - start;
        // The last rows may be fewer.
        let (_, encoder) = match encoder.take().filter(|(made, _)| *made == rows) {
            Some(made) => encoder.insert(made),
            None => {
                let device = processor(py)?;
                let made = py.detach(|| Encoder::new(&device, codec.codec(), [rows, head_dim]))?;
                encoder.insert((rows, made))
            }
        };
        input.with(start * head_dim..end * head_dim, |numbers| {
            encoder.take(numbers)
        })?;
        let codes = &mut codes[start * code..end * code];
        let scales = &mut scales[start * scale..end * scale];
        py.detach(|| encoder.encode(start, codes, scales))?;
        py.check_signals()?;
    }
    Ok((
        matrix(py, codes, [count, code])?,
        matrix(py, scales, [count, scale])?,
    ))
}

/// What rows are read as.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Reading {
    codec: String,
    head_dim: usize,
    /// As they lie, in rotated space where the codec rotates.
    rotated: bool,
}

/// Rows of f32 `[n, head_dim]` from bytes of codes and of scales.
#[pyfunction]
pub(crate) fn kv_decode<'py>(
    py: Python<'py>,
    reading: Reading,
    codes: &Bound<'py, PyAny>,
    scales: &Bound<'py, PyAny>,
) -> Result<Bound<'py, PyArray2<f32>>> {
    let head_dim = reading.head_dim;
    let codec = row_codec(&reading.codec, head_dim)?;
    let codes = Input::<u8>::new("codes", codes, 2)?;
    let scales = Input::<u8>::new("scales", scales, 2)?;
    let [code, scale] = [codec.code_bytes(), codec.scale_bytes()];
    let count = codes.shape()[0];
    for (name, shape, bytes) in [
        ("codes", codes.shape(), code),
        ("scales", scales.shape(), scale),
    ] {
        if shape != [count, bytes] {
            return Err(Failure::array(format!(
                "{name} of {} at {head_dim} numbers must be of {bytes} bytes a row, of {count} rows, but the shape in bytes is {shape:?}",
                reading.codec
            )));
        }
    }
    let mut out = zeros(count * head_dim)?;
    let step = (CHUNK / head_dim).max(1);
    for start in (0..count).step_by(step) {
        let end = count.min(start + step);
        let read_codes = codes.copy(start * code..end * code)?;
        let read_scales = scales.copy(start * scale..end * scale)?;
        let out = &mut out[start * head_dim..end * head_dim];
        py.detach(|| {
            in_parts(end - start, (out, head_dim), &|rows, part| {
                for (row, into) in rows.zip(part.chunks_exact_mut(head_dim)) {
                    let codes = &read_codes[row * code..(row + 1) * code];
                    let scales = &read_scales[row * scale..(row + 1) * scale];
                    match reading.rotated {
                        true => codec.decode_row_rotated(codes, scales, into),
                        false => codec.decode_row(codes, scales, into),
                    }
                }
                Ok(())
            })
        })?;
        py.check_signals()?;
    }
    matrix(py, out, [count, head_dim])
}

/// Rows of f32 `[n, head_dim]` rotated, or turned back.
#[pyfunction]
pub(crate) fn rotate<'py>(
    py: Python<'py>,
    rows: &Bound<'py, PyAny>,
    inverse: bool,
) -> Result<Bound<'py, PyArray2<f32>>> {
    let input = Input::<f32>::new("x", rows, 2)?;
    let [count, head_dim] = [input.shape()[0], input.shape()[1]];
    let rotation = Rotation::new(head_dim)?;
    let mut out = room(count * head_dim)?;
    let step = (CHUNK / head_dim).max(1);
    for start in (0..count).step_by(step) {
        let end = count.min(start + step);
        let mut numbers = input.copy(start * head_dim..end * head_dim)?;
        py.detach(|| {
            in_parts(end - start, (&mut numbers, head_dim), &|_, part| {
                for row in part.chunks_exact_mut(head_dim) {
                    match inverse {
                        true => rotation.inverse(row),
                        false => rotation.forward(row),
                    }
                }
                Ok(())
            })
        })?;
        out.extend_from_slice(&numbers);
        py.check_signals()?;
    }
    matrix(py, out, [count, head_dim])
}

/// The signs of a rotation, each +1 or −1.
#[pyfunction]
pub(crate) fn rotation_signs(py: Python<'_>, head_dim: usize) -> Result<Bound<'_, PyArray1<f32>>> {
    Ok(Rotation::new(head_dim)?.signs().to_vec().into_pyarray(py))
}

/// The centroids of a codebook in double precision, and the boundaries between them.
#[pyfunction]
pub(crate) fn codebook<'py>(py: Python<'py>, bits: usize) -> Result<Book<'py>> {
    let known = TqBits::from_bits(bits)
        .ok_or_else(|| Failure::option(format!("bits is {bits}: give 2, 3, 4, 5, 6 or 8")))?;
    let book = book(known);
    Ok((
        book.exact.clone().into_pyarray(py),
        book.boundaries.clone().into_pyarray(py),
    ))
}
