//! Models of real shapes with random weights: speed at true size, without a file.

mod convolutions;
mod mix;
mod shape;
#[cfg(test)]
mod tests;
mod unlike;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use walsh::formats::ggml;
use walsh::formats::random::SplitMix64;
use walsh::{DType, Device, Tensor, tensor_bytes};

use super::config::ModelConfig;
use super::file::ModelFiles;
use super::weights::Place;
use super::{Model, Parts};
use crate::calibration::CalibrationOptions;
use crate::size::size_text;
use crate::{Error, Result};
use mix::Mix;
use shape::{Shape, Weight};

/// A model of a known shape, and the types of its weights.
///
/// Its text form is both names with a colon between them: `llama3-8b:q4_k_m`. The types are spread over
/// the tensors as llama.cpp's quantiser does under that name.
///
/// ```
/// use walsh_runtime::Synthetic;
///
/// let model: Synthetic = "llama3-8b:q4_k_m".parse()?;
/// assert_eq!(model.to_string(), "llama3-8b:q4_k_m");
/// assert_eq!(model.bytes(), 4_912_898_048);
/// # Ok::<(), walsh_runtime::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synthetic {
    shape: &'static Shape,
    mix: Mix,
}

/// How many random bytes of a type are made; a tensor repeats them.
const TILE_BYTES: usize = 4 << 20;

/// What matrices' weights spread by: products of normed inputs are then of a magnitude around 1, as they
/// are in trained models.
const DEVIATION: f32 = 0.02;

impl Synthetic {
    /// The names of all shapes, and of all mixes of types.
    #[must_use]
    pub fn names() -> (Vec<&'static str>, Vec<&'static str>) {
        let shapes = shape::SHAPES.iter().map(|shape| shape.name).collect();
        (shapes, Mix::NAMES.iter().map(|(name, _)| *name).collect())
    }

    /// The bytes of all weights.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let weights = self.shape.weights();
        weights
            .iter()
            .map(|weight| tensor_bytes(self.dtype(weight), &weight.shape).unwrap_or(0))
            .sum()
    }

    fn dtype(&self, weight: &Weight) -> DType {
        match weight.shape.as_slice() {
            [_, columns] | [_, _, columns] => {
                self.mix.dtype(weight.role, *columns, self.shape.layers)
            }
            _ => DType::F32,
        }
    }

    /// Allocates every tensor before it fills the first, so that missing memory is known at once.
    fn places(&self, device: &Device) -> Result<HashMap<String, Place>> {
        let mut tensors = Vec::new();
        for weight in self.shape.weights() {
            let tensor = device.zeros(self.dtype(&weight), &weight.shape)?;
            tensors.push((weight.name, tensor));
        }
        let mut tiles = HashMap::new();
        for (name, tensor) in &tensors {
            let tile = match tiles.entry(tensor.dtype()) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => new.insert(tile(tensor.dtype())?),
            };
            let filling = match name.ends_with(".ssm_a") {
                true => MINUS_ONE,
                false if is_vector(tensor) => ONE,
                false => tile,
            };
            device.fill(tensor, filling)?;
        }
        let place = |(name, tensor): (String, Tensor)| (name, Place::of(&tensor));
        Ok(tensors.into_iter().map(place).collect())
    }
}

/// What every entry of a norm is.
const ONE: &[u8] = &1.0f32.to_le_bytes();

/// What heads with a state forget by.
const MINUS_ONE: &[u8] = &(-1.0f32).to_le_bytes();

fn is_vector(tensor: &Tensor) -> bool {
    tensor.shape().len() == 1
}

/// Random numbers of a type; the same on every machine.
fn tile(dtype: DType) -> Result<Vec<u8>> {
    let mut random = SplitMix64(0x5eed);
    // Whole vectors of any width, so that copies of the tile begin where devices copy fast.
    let unit = 128 * dtype.block_bytes();
    let mut tile = vec![0; TILE_BYTES / unit * unit];
    ggml::random(dtype, DEVIATION, &mut random, &mut tile).map_err(walsh::Error::from)?;
    Ok(tile)
}

impl Model {
    /// A model of a known shape with random weights, made on the device. It runs as fast as a trained one
    /// and says nothing that makes sense; its vocabulary is the 256 bytes and unused names.
    ///
    /// # Errors
    /// When the device has not the memory.
    pub fn synthetic(device: &Device, synthetic: &Synthetic) -> Result<Self> {
        let bytes = synthetic.bytes();
        if let Some(available) = device
            .available_bytes()
            .filter(|available| *available < bytes)
        {
            return Err(Error::measure(format!(
                "{synthetic} has {} of weights, but {} has {} of memory left: take a smaller model or fewer bits",
                size_text(bytes),
                device.properties().name,
                size_text(available),
            )));
        }
        synthetic.parts(device)?.assemble(device)
    }
}

impl Synthetic {
    fn parts(&self, device: &Device) -> Result<Parts> {
        let header = self.shape.header(&self.to_string())?;
        let files = ModelFiles::in_memory(PathBuf::from(self.to_string()), header);
        let config = {
            let parsed = files.parse()?;
            let vocabulary = self.shape.vocabulary;
            let factors = self.shape.rope_factors();
            ModelConfig::read(&files.path, parsed[0].metadata(), vocabulary, factors)?
        };
        Ok(Parts {
            config,
            places: self.places(device)?,
            calibrations: CalibrationOptions::default(),
            files,
        })
    }
}

impl fmt::Display for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shape.name, self.mix)
    }
}

impl FromStr for Synthetic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (shape, mix) = text.split_once(':').unwrap_or((text, ""));
        let shape = shape::SHAPES.iter().find(|known| known.name == shape);
        let mix = Mix::NAMES.iter().find(|(name, _)| *name == mix);
        match (shape, mix) {
            (Some(shape), Some(&(_, mix))) => Ok(Self { shape, mix }),
            _ => {
                let (shapes, mixes) = Self::names();
                Err(Error::option(
                    "the synthetic model",
                    format_args!(
                        "one of {}, a colon, and one of {}",
                        shapes.join(", "),
                        mixes.join(", ")
                    ),
                    format_args!("{text:?}"),
                ))
            }
        }
    }
}
