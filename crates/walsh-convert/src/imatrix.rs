//! How much the columns of a model's weights matter: the mean square of what they are multiplied by on some text.
//!
//! The file is the GGUF form of llama.cpp's `llama-imatrix`: for each tensor its sums of squares (`NAME.in_sum2`, a row
//! for each matrix of a stack) and how many rows went into them (`NAME.counts`).

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use walsh_formats::gguf::write::{NewTensor, Writer};
use walsh_formats::gguf::{Gguf, Value};
use walsh_formats::{DType, ggml};

use crate::source::map;
use crate::{Error, Result};

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// An importance for each column of the tensors that have one.
#[derive(Debug)]
pub struct Imatrix {
    means: HashMap<String, Vec<f32>>,
    chunks: u32,
    datasets: Vec<String>,
}

impl Imatrix {
    /// Reads a file.
    ///
    /// # Errors
    /// When it is not there, no importance matrix in GGUF form, or has numbers that can be none.
    pub fn open(path: &Path) -> Result<Imatrix> {
        let bytes = map(path)?;
        let damaged = |error| Error::Gguf {
            path: path.to_owned(),
            error,
        };
        if !bytes.starts_with(b"GGUF") {
            let why = "it is no GGUF file: importance matrices in llama.cpp's older form are converted by its own llama-imatrix (--in-file OLD -o NEW.gguf)";
            return Err(Error::file(path, why));
        }
        let file = Gguf::parse(&bytes).map_err(damaged)?;
        let metadata = file.metadata();
        if metadata.opt_str("general.type").map_err(damaged)? != Some("imatrix") {
            let why = "it is no importance matrix, which says so in general.type: make one with 'walsh imatrix'";
            return Err(Error::file(path, why));
        }
        let chunks = metadata.opt_u32("imatrix.chunk_count").map_err(damaged)?;
        let mut datasets = Vec::new();
        if let Some(Value::Array(array)) = metadata.get("imatrix.datasets") {
            datasets.extend(array.strings().map_err(damaged)?.map(str::to_owned));
        }
        let mut means = HashMap::new();
        for tensor in file.tensors() {
            let Some(name) = tensor.name.strip_suffix(SUMS) else {
                continue;
            };
            let fail = |what: &str| Error::file(path, format!("{}: {what}", tensor.name));
            let counts = file.tensor(&format!("{name}{COUNTS}"));
            let counts = counts.ok_or_else(|| fail("there are no counts beside it"))?;
            let floats = |of: &walsh_formats::gguf::TensorInfo<'_>| {
                let mut values = vec![0.0; of.values() as usize];
                ggml::decode(of.dtype, file.data(of), &mut values)
                    .map_err(|error| fail(&error.to_string()))?;
                Ok::<_, Error>(values)
            };
            let (sums, counts) = (floats(tensor)?, floats(counts)?);
            if counts.is_empty() || !sums.len().is_multiple_of(counts.len()) {
                return Err(fail("its sums and counts do not go together"));
            }
            let is_bad = |number: &f32| !(number.is_finite() && *number >= 0.0);
            if sums.iter().chain(&counts).any(is_bad) {
                return Err(fail("it has numbers that are negative or not finite"));
            }
            means.insert(name.to_owned(), mean_squares(&sums, &counts));
        }
        if means.is_empty() {
            return Err(Error::file(path, "it says nothing about any tensor"));
        }
        Ok(Imatrix {
            means,
            chunks: chunks.unwrap_or(0),
            datasets,
        })
    }

    /// The importance of a tensor's columns, those of each matrix of a stack one after the other.
    pub fn get(&self, tensor: &str) -> Option<&[f32]> {
        Some(self.means.get(tensor)?)
    }

    pub(crate) fn len(&self) -> usize {
        self.means.len()
    }

    pub(crate) fn chunks(&self) -> u32 {
        self.chunks
    }

    pub(crate) fn datasets(&self) -> &[String] {
        &self.datasets
    }
}

/// The mean squares of a tensor's columns; of a matrix that nothing reached, the same for all.
fn mean_squares(sums: &[f32], counts: &[f32]) -> Vec<f32> {
    let columns = sums.len() / counts.len();
    let mut means = Vec::with_capacity(sums.len());
    for (sums, &count) in sums.chunks(columns.max(1)).zip(counts) {
        if count > 0.0 {
            means.extend(sums.iter().map(|sum| sum / count));
        } else {
            means.extend(sums.iter().map(|_| 1.0));
        }
    }
    means
}

/// What was collected on a text, to be written.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// For each tensor the sums of squares of its columns, matrix after matrix, and the rows that each matrix saw.
    pub tensors: BTreeMap<String, (Vec<f32>, Vec<u64>)>,
    /// What the text is called.
    pub dataset: String,
    /// How many chunks of the text were read.
    pub chunks: u32,
    /// The tokens of a chunk.
    pub chunk_tokens: u32,
}

impl Collected {
    /// Writes the file.
    ///
    /// # Errors
    /// Those of `out`, and sums that are no whole rows.
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        let mut writer = Writer::new();
        writer.set("general.type", "imatrix")?;
        writer.set("imatrix.datasets", vec![self.dataset.as_str()])?;
        writer.set("imatrix.chunk_count", self.chunks)?;
        writer.set("imatrix.chunk_size", self.chunk_tokens)?;
        for (name, (sums, counts)) in &self.tensors {
            let matrices = counts.len() as u64;
            let bytes = |values: &mut dyn Iterator<Item = f32>| -> Vec<u8> {
                values.flat_map(f32::to_le_bytes).collect()
            };
            writer.tensor(NewTensor {
                name: &format!("{name}{SUMS}"),
                dtype: DType::F32,
                shape: &[matrices, sums.len() as u64 / matrices.max(1)],
                data: bytes(&mut sums.iter().copied()).into(),
            })?;
            writer.tensor(NewTensor {
                name: &format!("{name}{COUNTS}"),
                dtype: DType::F32,
                shape: &[matrices, 1],
                data: bytes(&mut counts.iter().map(|count| *count as f32)).into(),
            })?;
        }
        let mut out = out;
        Ok(writer.write_to(&mut out)?)
    }
}
