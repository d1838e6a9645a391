//! GGUF files and GGML's blocks, on arrays.

use numpy::{IntoPyArray, PyArray1, PyArrayDyn, PyArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use walsh::DType;
use walsh::formats::ggml;
use walsh::formats::gguf::{Gguf, Value};

use crate::arrays::{CHUNK, Input, in_parts, zeros};
use crate::errors::{Failure, Result};

fn dtype(name: &str) -> Result<DType> {
    let found = DType::ALL
        .iter()
        .find(|dtype| dtype.name().eq_ignore_ascii_case(name));
    found.copied().ok_or_else(|| {
        let names: Vec<_> = DType::ALL.iter().map(|dtype| dtype.name()).collect();
        Failure::option(format!(
            "there is no type {name:?}: give one of {}",
            names.join(", ")
        ))
    })
}

/// Every storage type: its name, its number in files, values and bytes of a block, and whether values can be encoded.
#[pyfunction]
pub(crate) fn block_types() -> Vec<(&'static str, Option<u32>, usize, usize, bool)> {
    let line = |dtype: &DType| {
        (
            dtype.name(),
            dtype.file_id(),
            dtype.block_len(),
            dtype.block_bytes(),
            ggml::encodes(*dtype),
        )
    };
    DType::ALL.iter().map(line).collect()
}

/// Values of blocks, f32, from their bytes.
#[pyfunction]
pub(crate) fn block_decode<'py>(
    py: Python<'py>,
    name: &str,
    bytes: &Bound<'py, PyAny>,
) -> Result<Bound<'py, PyArray1<f32>>> {
    let dtype = dtype(name)?;
    let input = Input::<u8>::new("blocks", bytes, 1)?;
    let [len, size] = [dtype.block_len(), dtype.block_bytes()];
    let given = input.shape()[0];
    if !given.is_multiple_of(size) {
        return Err(Failure::array(format!(
            "blocks of {name} are of {size} bytes, and {given} are no whole number of them"
        )));
    }
    let count = given / size;
    let mut out = zeros(count * len)?;
    let step = (CHUNK / len).max(1);
    for start in (0..count).step_by(step) {
        let end = count.min(start + step);
        let blocks = input.copy(start * size..end * size)?;
        let out = &mut out[start * len..end * len];
        py.detach(|| {
            in_parts(end - start, (out, len), &|rows, part| {
                let bytes = &blocks[rows.start * size..rows.end * size];
                Ok(ggml::decode(dtype, bytes, part)?)
            })
        })?;
        py.check_signals()?;
    }
    Ok(out.into_pyarray(py))
}

/// The bytes of blocks of values, f32.
#[pyfunction]
pub(crate) fn block_encode<'py>(
    py: Python<'py>,
    name: &str,
    values: &Bound<'py, PyAny>,
) -> Result<Bound<'py, PyArray1<u8>>> {
    let dtype = dtype(name)?;
    let input = Input::<f32>::new("x", values, 1)?;
    let [len, size] = [dtype.block_len(), dtype.block_bytes()];
    let given = input.shape()[0];
    if !given.is_multiple_of(len) {
        return Err(Failure::array(format!(
            "blocks of {name} are of {len} values, and {given} are no whole number of them"
        )));
    }
    let count = given / len;
    let mut out = zeros(count * size)?;
    let step = (CHUNK / len).max(1);
    for start in (0..count).step_by(step) {
        let end = count.min(start + step);
        let values = input.copy(start * len..end * len)?;
        let out = &mut out[start * size..end * size];
        py.detach(|| {
            in_parts(end - start, (out, size), &|rows, part| {
                let values = &values[rows.start * len..rows.end * len];
                Ok(ggml::encode(dtype, values, part)?)
            })
        })?;
        py.check_signals()?;
    }
    Ok(out.into_pyarray(py))
}

/// A tensor of a file: its name, type, shape (outermost first), and where its bytes lie.
type Tensor = (String, &'static str, Vec<u64>, u64, u64);

/// The version, the metadata and the tensors of a file, from its bytes.
#[pyfunction]
pub(crate) fn gguf_parse<'py>(
    py: Python<'py>,
    bytes: &Bound<'py, PyAny>,
) -> Result<(u32, Bound<'py, PyDict>, Vec<Tensor>)> {
    let array = bytes
        .cast::<PyArrayDyn<u8>>()
        .map_err(|_| Failure::array("a file's bytes must be an array of uint8"))?;
    let reader = array
        .try_readonly()
        .map_err(|_| Failure::array("a file's bytes are being written"))?;
    let bytes = reader
        .as_slice()
        .map_err(|_| Failure::array("a file's bytes must be contiguous"))?;
    let gguf = Gguf::parse(bytes)?;
    let metadata = PyDict::new(py);
    for (key, value) in gguf.metadata().iter() {
        metadata.set_item(key, object(py, value)?)?;
    }
    let tensors = gguf.tensors().iter().map(|tensor| {
        (
            tensor.name.to_owned(),
            tensor.dtype.name(),
            tensor.shape.clone(),
            tensor.offset,
            tensor.bytes,
        )
    });
    Ok((gguf.version(), metadata, tensors.collect()))
}

/// A metadata value; texts that are no UTF-8 are bytes.
fn object<'py>(py: Python<'py>, value: &Value<'_>) -> Result<Bound<'py, PyAny>> {
    Ok(match value {
        Value::U8(number) => number.into_bound_py_any(py)?,
        Value::I8(number) => number.into_bound_py_any(py)?,
        Value::U16(number) => number.into_bound_py_any(py)?,
        Value::I16(number) => number.into_bound_py_any(py)?,
        Value::U32(number) => number.into_bound_py_any(py)?,
        Value::I32(number) => number.into_bound_py_any(py)?,
        Value::U64(number) => number.into_bound_py_any(py)?,
        Value::I64(number) => number.into_bound_py_any(py)?,
        Value::F32(number) => number.into_bound_py_any(py)?,
        Value::F64(number) => number.into_bound_py_any(py)?,
        Value::Bool(truth) => truth.into_bound_py_any(py)?,
        Value::String(text) => text.into_bound_py_any(py)?,
        Value::Array(array) => {
            if let Ok(texts) = array.byte_strings() {
                let list = PyList::empty(py);
                for text in texts {
                    match std::str::from_utf8(text) {
                        Ok(text) => list.append(text)?,
                        Err(_) => list.append(pyo3::types::PyBytes::new(py, text))?,
                    }
                }
                return Ok(list.into_any());
            }
            let list = PyList::empty(py);
            for value in array.values() {
                list.append(object(py, &value?)?)?;
            }
            list.into_any()
        }
    })
}
