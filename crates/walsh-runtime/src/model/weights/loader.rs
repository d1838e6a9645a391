//! Tensors by their names, each with the shape that is asked for.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;

use walsh::formats::DType;
use walsh::{Buffer, Device, Tensor};

use super::linear::Linear;
use crate::{Error, Result};

/// Where a tensor lies.
pub(in crate::model) struct Place {
    /// Whether a part of the model is made of it.
    pub(super) used: Cell<bool>,
    pub(in crate::model) buffer: Buffer,
    pub(in crate::model) offset: u64,
    pub(in crate::model) dtype: DType,
    pub(in crate::model) shape: Vec<u64>,
}

impl Place {
    pub(in crate::model) fn new(
        buffer: Buffer,
        offset: u64,
        dtype: DType,
        shape: Vec<u64>,
    ) -> Self {
        Self {
            used: Cell::new(false),
            buffer,
            offset,
            dtype,
            shape,
        }
    }

    pub(in crate::model) fn of(tensor: &Tensor) -> Self {
        let (buffer, shape) = (tensor.buffer().clone(), tensor.shape().to_vec());
        Self::new(buffer, tensor.offset(), tensor.dtype(), shape)
    }
}

/// Hands out tensors by name, and checks that each has the shape that the
/// configuration asks for.
pub(in crate::model) struct Loader<'a> {
    pub(in crate::model) device: &'a Device,
    pub(in crate::model) path: &'a Path,
    pub(in crate::model) places: HashMap<String, Place>,
}

impl Loader<'_> {
    pub(super) fn optional(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        let Some(place) = self.places.get(name) else {
            return Ok(None);
        };
        let expected: Vec<u64> = shape.iter().map(|n| *n as u64).collect();
        if place.shape != expected {
            return Err(Error::model(
                self.path,
                format!(
                    "tensor {name} has the shape {:?}, but the metadata asks for {expected:?}: download it again",
                    place.shape
                ),
            ));
        }
        if shape.len() == 1 && place.dtype != DType::F32 {
            return Err(Error::model(
                self.path,
                format!(
                    "tensor {name} is {}, but vectors must be f32: convert the model again",
                    place.dtype
                ),
            ));
        }
        place.used.set(true);
        let buffer = place.buffer.clone();
        let tensor = Tensor::new(buffer, place.offset, place.dtype, &place.shape)?;
        Ok(Some(tensor))
    }

    pub(super) fn required(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.optional(name, shape)?
            .ok_or_else(|| self.missing(name))
    }

    pub(super) fn missing(&self, name: &str) -> Error {
        Error::model(
            self.path,
            format!("tensor {name} is missing: download the model again"),
        )
    }

    pub(super) fn linear(&self, name: &str, shape: [usize; 2], biased: bool) -> Result<Linear> {
        Ok(Linear {
            name: name.to_owned(),
            first: 0,
            weight: self.required(&format!("{name}.weight"), &shape)?,
            scale: self.scale(name)?,
            bias: self.bias(name, shape[0], biased)?,
        })
    }

    /// The scale of a whole weight: files have it where blocks alone cannot hold it, as those of NVFP4. What such files say
    /// of inputs beside it is for products whose inputs have four bits too.
    pub(super) fn scale(&self, name: &str) -> Result<Option<f32>> {
        if let Some(place) = self.places.get(&format!("{name}.input_scale")) {
            place.used.set(true);
        }
        let name = format!("{name}.scale");
        let Some(tensor) = self.optional(&name, &[1])? else {
            return Ok(None);
        };
        match self.device.read::<f32>(&tensor)?.as_slice() {
            [scale] if scale.is_finite() => Ok(Some(*scale)),
            _ => Err(Error::model(
                self.path,
                format!("tensor {name} is no finite number: convert the model again"),
            )),
        }
    }

    /// The bias of a product, if the architecture may have one here and the file has.
    pub(super) fn bias(&self, name: &str, rows: usize, biased: bool) -> Result<Option<Tensor>> {
        if !biased {
            return Ok(None);
        }
        self.optional(&format!("{name}.bias"), &[rows])
    }

    /// Products of experts, `shape` each.
    pub(super) fn experts(&self, name: &str, [count, rows, columns]: [usize; 3]) -> Result<Linear> {
        let weight = self.required(&format!("{name}.weight"), &[count, rows, columns])?;
        let bias_name = format!("{name}.bias");
        let bias = self.optional(&bias_name, &[count, rows])?;
        if let Some(bias) = bias.as_ref().filter(|bias| bias.dtype() != DType::F32) {
            let why = format!(
                "tensor {bias_name} is {}, but biases must be f32: convert the model again",
                bias.dtype()
            );
            return Err(Error::model(self.path, why));
        }
        // Scales of NVFP4 beside each expert would be a tensor that nothing reads, which is refused.
        Ok(Linear {
            name: name.to_owned(),
            first: 0,
            weight,
            scale: None,
            bias,
        })
    }

    /// Products of one input whose weights are one tensor, of so many rows each.
    pub(super) fn fused<const N: usize>(
        &self,
        name: &str,
        rows: [usize; N],
        columns: usize,
    ) -> Result<[Linear; N]> {
        let shape = [rows.iter().sum(), columns];
        let weight = self.required(&format!("{name}.weight"), &shape)?;
        let mut end = 0;
        let parts = rows.map(|rows| {
            let range = end..end + rows as u64;
            end = range.end;
            range
        });
        let scale = self.scale(name)?;
        let mut linears = Vec::with_capacity(N);
        for part in parts {
            linears.push(Linear {
                name: name.to_owned(),
                first: part.start,
                weight: weight.rows(part)?,
                scale,
                bias: None,
            });
        }
        // As many as there are rows.
        linears
            .try_into()
            .map_err(|_| Error::model(self.path, format!("tensor {name}.weight has no parts")))
    }
}
