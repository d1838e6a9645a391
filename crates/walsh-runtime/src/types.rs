//! What is known of the types that weights are stored in.

use walsh::formats::ggml;
use walsh::formats::random::SplitMix64;
use walsh::ops::MatMul;
use walsh::{DType, Device};

use crate::{Error, Result};

/// A type of weights.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TypeFacts {
    /// Its name.
    pub name: &'static str,
    /// Whether GGML has it: other types are Walsh's own.
    pub is_of_ggml: bool,
    /// The values of a block.
    pub block: usize,
    /// The bits of a weight.
    pub bits: f64,
    /// Whether Walsh makes tensors of it.
    pub is_written: bool,
    /// Whether an importance matters when it does.
    pub takes_importance: bool,
    /// The squared error of its encoder over the square, without an importance, on numbers that are normally distributed.
    pub error: Option<f64>,
    /// Why the device has no products with it.
    pub no_products: Option<String>,
}

/// The values that errors are measured on: rows, and their length.
const MEASURED: (usize, usize) = (32, 2048);

/// All types of weights, and which of them a device has products with.
///
/// # Errors
/// When a type's encoder does not take what it is measured on.
pub fn weight_types(device: &Device) -> Result<Vec<TypeFacts>> {
    let (rows, columns) = MEASURED;
    let values = SplitMix64(1).normals(rows * columns);
    let types = DType::ALL.iter().filter(|dtype| dtype.is_real());
    types
        .map(|&dtype| {
            let is_written = ggml::encodes(dtype);
            Ok(TypeFacts {
                name: dtype.name(),
                is_of_ggml: dtype.ggml_id().is_some(),
                block: dtype.block_len(),
                bits: 8.0 * dtype.block_bytes() as f64 / dtype.block_len() as f64,
                is_written,
                takes_importance: ggml::searches(dtype),
                error: match is_written {
                    true => Some(error(dtype, &values, columns)?),
                    false => None,
                },
                no_products: products(device, dtype).err().map(|why| why.to_string()),
            })
        })
        .collect()
}

/// Whether a device records a product with weights of a type.
fn products(device: &Device, dtype: DType) -> walsh::Result<()> {
    /// As long as the longest block.
    const COLUMNS: u64 = 256;
    let mut list = device.record();
    list.push(MatMul {
        weight: device.zeros(dtype, &[16, COLUMNS])?,
        input: device.zeros(DType::F32, &[1, COLUMNS])?,
        bias: None,
        output: device.zeros(DType::F32, &[1, 16])?,
    })?;
    list.finish().map(|_| ())
}

fn error(dtype: DType, values: &[f32], columns: usize) -> Result<f64> {
    let bytes = columns / dtype.block_len() * dtype.block_bytes();
    let (mut stored, mut decoded) = (vec![0; bytes], vec![0.0; columns]);
    let (mut apart, mut square) = (0.0, 0.0);
    let failed = |error: walsh::formats::FormatError| Error::measure(error.to_string());
    for row in values.chunks_exact(columns) {
        ggml::encode(dtype, row, &mut stored).map_err(failed)?;
        ggml::decode(dtype, &stored, &mut decoded).map_err(failed)?;
        for (value, decoded) in row.iter().zip(&decoded) {
            apart += (f64::from(*value) - f64::from(*decoded)).powi(2);
            square += f64::from(*value).powi(2);
        }
    }
    Ok(apart / square)
}
