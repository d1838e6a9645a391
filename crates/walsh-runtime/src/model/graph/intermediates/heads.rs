//! Where queries, keys and values lie, of layers that may have heads of unlike sizes and keys and values of others.

use walsh::formats::DType;
use walsh::{Device, Tensor};

use crate::Result;
use crate::model::config::ModelConfig;

/// What a layer attends with.
#[derive(Debug)]
pub(crate) struct Heads {
    /// `[rows, heads, head_dim]`, after RoPE.
    pub(crate) query: Tensor,
    /// `[rows, kv_heads, head_dim]`, after RoPE.
    pub(crate) key: Tensor,
    /// `[rows, kv_heads, head_dim]`.
    pub(crate) value: Tensor,
    /// `[rows, heads, head_dim]`.
    pub(crate) attended: Tensor,
}

/// Those of all layers, one after the other in the same place: `[rows, ..]` of the layer that has most.
#[derive(Debug)]
pub(in super::super) struct AllHeads {
    pub(super) query: Tensor,
    pub(super) attended: Tensor,
    /// Keys and values.
    pub(super) stored: [Tensor; 2],
    /// Of layers whose keys and values later ones attend to, which are not to be overwritten until then.
    pub(super) kept: Vec<(usize, [Tensor; 2])>,
}

impl AllHeads {
    pub(super) fn new(device: &Device, config: &ModelConfig, rows: usize) -> Result<Self> {
        let floats = |width: usize| device.zeros(DType::F32, &[rows as u64, width as u64]);
        let queries = config.heads * config.most(|layer| layer.head_dim);
        let width = config.most(|layer| layer.kv_heads * layer.head_dim);
        let both = |width| Ok::<_, walsh::Error>([floats(width)?, floats(width)?]);
        let mut kept = Vec::new();
        for (index, layer) in config.layers.iter().enumerate() {
            if config.last_reader(index) != index {
                kept.push((index, both(layer.kv_heads * layer.head_dim)?));
            }
        }
        Ok(Self {
            query: floats(queries)?,
            attended: floats(queries)?,
            stored: both(width)?,
            kept,
        })
    }

    pub(super) fn rows(&self, rows: usize) -> Result<Self> {
        let first = |tensor: &Tensor| tensor.rows(0..rows as u64);
        let both = |[key, value]: &[Tensor; 2]| Ok::<_, walsh::Error>([first(key)?, first(value)?]);
        let kept = self.kept.iter().map(|(index, of)| Ok((*index, both(of)?)));
        Ok(Self {
            query: first(&self.query)?,
            attended: first(&self.attended)?,
            stored: both(&self.stored)?,
            kept: kept.collect::<walsh::Result<_>>()?,
        })
    }
}

/// The first numbers of a tensor, as a tensor of another shape.
pub(in super::super) fn beginning(tensor: &Tensor, shape: &[u64]) -> Result<Tensor> {
    let numbers = tensor.reshape(&[tensor.elements()])?;
    Ok(numbers.rows(0..shape.iter().product())?.reshape(shape)?)
}
