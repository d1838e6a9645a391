//! Models as GGUF has them, with rows that can be read.

use std::borrow::Cow;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use walsh_formats::gguf::write::NewValue;
use walsh_formats::gguf::{self, Gguf};
use walsh_formats::{DType, FormatError, fp8, ggml, mlx};

use crate::lora::merge::Addition;
use crate::{Error, Result};

/// The files of a model, mapped. They must not be changed meanwhile.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    maps: Vec<Mmap>,
}

/// A model: metadata in order, and tensors.
#[derive(Debug)]
pub struct Source<'a> {
    /// The metadata.
    pub metadata: Vec<(String, NewValue)>,
    /// The tensors, in the order of layers and then of names, which is that of the files that are written.
    pub tensors: Vec<Tensor<'a>>,
    /// Whether tensors may have types that GGML does not have: in a file that Walsh alone is to read.
    pub own_types: bool,
    /// What the user may want to know of how it was read, in sentences.
    pub(crate) notes: Vec<String>,
}

/// A tensor of a model.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// Its name in GGUF.
    pub name: String,
    /// How it is stored.
    pub dtype: DType,
    /// Its lengths, outermost first.
    pub shape: Vec<u64>,
    pub(crate) data: Data<'a>,
    /// What is added to its values.
    pub(crate) additions: Vec<Addition>,
}

/// Where the values of a tensor lie.
#[derive(Debug)]
pub(crate) enum Data<'a> {
    /// In the order that they are to have.
    Stored(&'a [u8]),
    /// The same, made for the purpose.
    Made(Vec<u8>),
    /// Matrix after matrix of a stack, whose rows may have another order.
    Rows {
        parts: Vec<Part<'a>>,
        /// Where halves of heads of so many rows are to become neighbours: how many.
        turned: Option<u64>,
    },
}

/// Rows of a matrix, or of a stack of matrices.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    /// As they are to be.
    Stored(&'a [u8]),
    /// As MLX quantises them.
    Mlx(mlx::Rows<'a>),
    /// As 8-bit floats with scales.
    Fp8(fp8::Rows<'a>),
}

impl Files {
    /// Maps a model's file, or all parts of a split one.
    ///
    /// # Errors
    /// When a file is missing, empty, no file or no GGUF file.
    pub fn open(path: &Path) -> Result<Files> {
        let first = map(path)?;
        let damaged = |error| Error::Gguf {
            path: path.to_owned(),
            error,
        };
        let head = Gguf::parse(&first).map_err(damaged)?;
        let split = gguf::split_info(head.metadata()).map_err(damaged)?;
        let Some(split) = split else {
            return Ok(Files {
                paths: vec![path.to_owned()],
                maps: vec![first],
            });
        };
        let mut files = Files {
            paths: Vec::new(),
            maps: Vec::new(),
        };
        for number in 0..split.count {
            let part = gguf::split_path(path, number, split.count).ok_or_else(|| {
                let count = split.count;
                Error::file(
                    path,
                    format!(
                        "it is one of {count} parts, but its name does not end in -00001-of-{count:05}.gguf: give the parts their original names"
                    ),
                )
            })?;
            files.maps.push(map(&part)?);
            files.paths.push(part);
        }
        Ok(files)
    }

    /// Where they are.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The model in the files.
    ///
    /// # Errors
    /// When a file is damaged, or a part of another model.
    pub fn source(&self) -> Result<Source<'_>> {
        let mut parts = Vec::new();
        for (path, map) in self.paths.iter().zip(&self.maps) {
            let parsed = Gguf::parse(map);
            parts.push(parsed.map_err(|error| Error::Gguf {
                path: path.clone(),
                error,
            })?);
        }
        if parts.len() > 1 {
            gguf::check_split(&parts)?;
        }
        let mut metadata = Vec::new();
        for (key, value) in parts[0].metadata().iter() {
            if !key.starts_with("split.") {
                metadata.push((key.to_owned(), NewValue::try_from(*value)?));
            }
        }
        let mut tensors = Vec::new();
        for (part, map) in parts.iter().zip(&self.maps) {
            for tensor in part.tensors() {
                let start = tensor.offset as usize;
                tensors.push(Tensor {
                    name: tensor.name.to_owned(),
                    dtype: tensor.dtype,
                    shape: tensor.shape.clone(),
                    data: Data::Stored(&map[start..start + tensor.bytes as usize]),
                    additions: Vec::new(),
                });
            }
        }
        Ok(Source::new(metadata, tensors))
    }
}

impl<'a> Source<'a> {
    pub(crate) fn new(metadata: Vec<(String, NewValue)>, mut tensors: Vec<Tensor<'a>>) -> Self {
        tensors.sort_by(|a, b| (layer(&a.name), &a.name).cmp(&(layer(&b.name), &b.name)));
        Source {
            metadata,
            tensors,
            own_types: false,
            notes: Vec::new(),
        }
    }

    /// The value of a metadata key.
    pub fn get(&self, key: &str) -> Option<&NewValue> {
        let mut pairs = self.metadata.iter();
        Some(&pairs.find(|pair| pair.0 == key)?.1)
    }

    /// The name of the architecture, or nothing.
    pub(crate) fn architecture(&self) -> &str {
        match self.get("general.architecture") {
            Some(NewValue::String(name)) => name,
            _ => "",
        }
    }

    /// A non-negative number of the architecture's metadata; of an array the first.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        whole(self.get(&format!("{}.{key}", self.architecture()))?)
    }
}

/// A value as a non-negative whole number; of an array the first.
fn whole(value: &NewValue) -> Option<u64> {
    match value {
        NewValue::U8(value) => Some((*value).into()),
        NewValue::U16(value) => Some((*value).into()),
        NewValue::U32(value) => Some((*value).into()),
        NewValue::U64(value) => Some(*value),
        NewValue::I8(value) => u64::try_from(*value).ok(),
        NewValue::I16(value) => u64::try_from(*value).ok(),
        NewValue::I32(value) => u64::try_from(*value).ok(),
        NewValue::I64(value) => u64::try_from(*value).ok(),
        NewValue::Array(_, values) => whole(values.first()?),
        _ => None,
    }
}

impl Tensor<'_> {
    /// The length of a row.
    pub(crate) fn columns(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> u64 {
        let outer = self.shape.split_last();
        outer.map_or(1, |(_, outer)| outer.iter().product())
    }

    /// The rows of each matrix of a stack of them.
    pub(crate) fn rows_per_matrix(&self) -> u64 {
        self.shape.iter().rev().nth(1).copied().unwrap_or(1)
    }

    /// The number of matrices.
    pub(crate) fn matrices(&self) -> u64 {
        self.shape.iter().rev().skip(2).product()
    }

    /// The number of dimensions, without leading ones of a single entry.
    pub(crate) fn dimensions(&self) -> usize {
        let leading = self.shape.iter().take_while(|length| **length == 1).count();
        (self.shape.len() - leading).max(1)
    }

    /// The bytes of all values.
    pub fn bytes(&self) -> u64 {
        match &self.data {
            Data::Stored(data) => data.len() as u64,
            Data::Made(data) => data.len() as u64,
            // Sizes of rows are checked where tensors are made.
            Data::Rows { .. } => self.rows() * self.dtype.row_bytes(self.columns()).unwrap_or(0),
        }
    }

    /// The stored bytes of a row, without what is added to it.
    pub(crate) fn row(&self, row: usize) -> Result<Cow<'_, [u8]>> {
        let rows = self.rows().max(1) as usize;
        let bytes = self.bytes() as usize / rows;
        let (part, row) = self.place(row);
        match part {
            Part::Stored(data) => Ok(data[row * bytes..(row + 1) * bytes].into()),
            Part::Mlx(groups) => {
                let mut packed = vec![0; bytes];
                let done = groups.pack(row, self.dtype, &mut packed);
                done.map_err(|error| self.wrong(error))?;
                Ok(packed.into())
            }
            Part::Fp8(rows) => {
                let mut packed = vec![0; bytes];
                let done = rows.pack(row, self.dtype, &mut packed);
                done.map_err(|error| self.wrong(error))?;
                Ok(packed.into())
            }
        }
    }

    /// The part that a row is in, and its number there.
    fn place(&self, row: usize) -> (Part<'_>, usize) {
        match &self.data {
            Data::Stored(data) => (Part::Stored(data), row),
            Data::Made(data) => (Part::Stored(data), row),
            Data::Rows {
                parts,
                turned: halves,
            } => {
                let each = self.rows().max(1) as usize / parts.len().max(1);
                let at = row % each;
                let at = halves.map_or(at, |head| turned(at as u64, head) as usize);
                (parts[row / each], at)
            }
        }
    }

    /// Whether rows lie as bytes that are written as they are.
    pub(crate) fn is_stored(&self) -> bool {
        match &self.data {
            Data::Rows { parts, .. } => parts.iter().all(|part| matches!(part, Part::Stored(_))),
            _ => true,
        }
    }

    /// Decodes a row.
    pub(crate) fn read(&self, row: usize, out: &mut [f32]) -> Result<()> {
        match self.place(row) {
            (Part::Mlx(groups), row) => groups.decode(row, out),
            (Part::Fp8(rows), row) => rows.decode(row, out),
            _ => {
                ggml::decode(self.dtype, &self.row(row)?, out).map_err(|error| self.wrong(error))?
            }
        }
        for addition in &self.additions {
            addition.add(row, out);
        }
        Ok(())
    }

    fn wrong(&self, error: FormatError) -> Error {
        Error::Values {
            tensor: self.name.clone(),
            error,
        }
    }
}

/// The row of which GGUF's row `row` is a copy: halves of a head become neighbours.
pub(crate) fn turned(row: u64, head: u64) -> u64 {
    let (first, at) = (row / head * head, row % head);
    first + at % 2 * (head / 2) + at / 2
}

/// The layer that a tensor's name says it is of; those of no layer come first.
pub(crate) fn layer(name: &str) -> Option<u64> {
    let rest = name.strip_prefix("blk.")?;
    rest.split_once('.')?.0.parse().ok()
}

pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let failed = |error: std::io::Error| Error::file(path, error);
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::file(path, "it is no file: check the path"));
    }
    if metadata.len() == 0 {
        return Err(Error::file(path, "it is empty: make it again"));
    }
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is read-only, and the contract of `Files` forbids changing the file meanwhile.
    unsafe { Mmap::map(&file) }.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::turned;

    #[test]
    fn halves_of_heads_become_neighbours() {
        let rows: Vec<u64> = (0..12).map(|row| turned(row, 6)).collect();
        assert_eq!(rows, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}
