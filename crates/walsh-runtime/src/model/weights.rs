//! A model's tensors, by their part in the computation.

use std::collections::HashMap;
use std::path::Path;

use walsh::formats::DType;
use walsh::{Buffer, Device, Tensor};

use super::config::ModelConfig;
use crate::{Error, Result};

/// A matrix product's weight with its optional bias.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
}

/// The tensors of one transformer block. Norms that an architecture lacks are
/// `None`.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Tensor,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) query_norm: Option<Tensor>,
    pub(crate) key_norm: Option<Tensor>,
    pub(crate) attention_output: Linear,
    pub(crate) attention_post_norm: Option<Tensor>,
    pub(crate) feed_forward_norm: Tensor,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) feed_forward_post_norm: Option<Tensor>,
}

/// All tensors.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Tensor,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Tensor,
    /// The embedding table itself where the two are tied.
    pub(crate) output: Linear,
    /// Whether the likeliest tokens are to be found without all of the output's weight.
    pub(crate) screened: bool,
}

impl Layer {
    /// The weights of its products.
    fn products(&mut self) -> [&mut Tensor; 7] {
        [
            &mut self.query.weight,
            &mut self.key.weight,
            &mut self.value.weight,
            &mut self.attention_output.weight,
            &mut self.gate.weight,
            &mut self.up.weight,
            &mut self.down.weight,
        ]
    }
}

impl Weights {
    /// Packs the weights of all products as far as the device does, and returns the bytes that this takes. The
    /// embedding table stays as it is: rows are read from it, even where it is the output's weight too. So does the
    /// output's weight where the device can find the likeliest tokens without all of it: rows are read one by one then.
    /// Logits that are more than products have no such way.
    ///
    /// # Errors
    /// When the device fails, or was told to pack and memory is missing.
    pub(super) fn pack(&mut self, device: &Device, config: &ModelConfig) -> Result<u64> {
        let products = self.output.bias.is_none() && config.logit_softcap.is_none();
        self.screened = products && device.screens(&self.output.weight);
        let mut places: Vec<&mut Tensor> = Vec::new();
        if !self.screened {
            places.push(&mut self.output.weight);
        }
        places.extend(self.layers.iter_mut().flat_map(Layer::products));
        let weights: Vec<Tensor> = places.iter().map(|weight| (**weight).clone()).collect();
        let mut bytes = 0;
        for (place, weight) in places.into_iter().zip(device.pack(&weights)?) {
            if weight.is_packed() {
                bytes += weight.bytes();
            }
            *place = weight;
        }
        Ok(bytes)
    }
}

/// Where a tensor lies.
pub(super) struct Place {
    pub(super) buffer: Buffer,
    pub(super) offset: u64,
    pub(super) dtype: DType,
    pub(super) shape: Vec<u64>,
}

impl Place {
    pub(super) fn of(tensor: &Tensor) -> Self {
        Self {
            buffer: tensor.buffer().clone(),
            offset: tensor.offset(),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
        }
    }
}

/// Hands out tensors by name, and checks that each has the shape that the
/// configuration asks for.
pub(super) struct Loader<'a> {
    pub(super) path: &'a Path,
    pub(super) places: HashMap<String, Place>,
}

impl Loader<'_> {
    fn optional(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
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
        let buffer = place.buffer.clone();
        let tensor = Tensor::new(buffer, place.offset, place.dtype, &place.shape)?;
        Ok(Some(tensor))
    }

    fn required(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.optional(name, shape)?.ok_or_else(|| {
            Error::model(
                self.path,
                format!("tensor {name} is missing: download the model again"),
            )
        })
    }

    fn linear(&self, name: &str, rows: usize, columns: usize) -> Result<Linear> {
        Ok(Linear {
            weight: self.required(&format!("{name}.weight"), &[rows, columns])?,
            bias: self.optional(&format!("{name}.bias"), &[rows])?,
        })
    }

    fn layer(&self, config: &ModelConfig, index: usize) -> Result<Layer> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let vector = |part: &str, len| self.required(&name(&format!("{part}.weight")), &[len]);
        let maybe = |part: &str, len| self.optional(&name(&format!("{part}.weight")), &[len]);
        let linear = |part: &str, rows, columns| self.linear(&name(part), rows, columns);
        let (width, inner) = (config.width, config.feed_forward);
        let queries = config.heads * config.head_dim;
        let keys = config.kv_heads * config.head_dim;
        Ok(Layer {
            attention_norm: vector("attn_norm", width)?,
            query: linear("attn_q", queries, width)?,
            key: linear("attn_k", keys, width)?,
            value: linear("attn_v", keys, width)?,
            query_norm: maybe("attn_q_norm", config.head_dim)?,
            key_norm: maybe("attn_k_norm", config.head_dim)?,
            attention_output: linear("attn_output", width, queries)?,
            attention_post_norm: maybe("post_attention_norm", width)?,
            feed_forward_norm: vector("ffn_norm", width)?,
            gate: linear("ffn_gate", inner, width)?,
            up: linear("ffn_up", inner, width)?,
            down: linear("ffn_down", width, inner)?,
            feed_forward_post_norm: maybe("post_ffw_norm", width)?,
        })
    }

    /// All tensors that the configuration asks for.
    ///
    /// # Errors
    /// When one is missing or of another shape.
    pub(super) fn weights(&self, config: &ModelConfig) -> Result<Weights> {
        let embedding = self.required("token_embd.weight", &[config.vocabulary, config.width])?;
        let output = if self.places.contains_key("output.weight") {
            self.linear("output", config.vocabulary, config.width)?
        } else {
            Linear {
                weight: embedding.clone(),
                bias: None,
            }
        };
        let layers: Result<Vec<_>> = (0..config.layers.len())
            .map(|index| self.layer(config, index))
            .collect();
        Ok(Weights {
            embedding,
            layers: layers?,
            output_norm: self.required("output_norm.weight", &[config.width])?,
            output,
            screened: false,
        })
    }
}
