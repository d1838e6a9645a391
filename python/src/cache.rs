//! A KV cache of one layer on a device, to store into and to attend over.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray3, PyArrayMethods};
use pyo3::prelude::*;
use walsh::formats::kv::{KvSpec, LayerKv};
use walsh::ops::{Attention, KvDecode, KvStore, Mask, VectorSpace};
use walsh::{CacheSide, DType, Device, DeviceSpec, KvCache, KvCacheOptions, OverlayOptions};

use crate::arrays::Input;
use crate::errors::{Failure, Result};
use crate::slot::Slot;

/// The most tokens that are stored or attended for at a time.
const MOST_ROWS: usize = 256;

/// What a cache is made of.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
struct Making {
    kv: String,
    kv_heads: u64,
    head_dim: u64,
    capacity: u64,
    device: String,
}

/// How queries see it.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Sight {
    scale: Option<f32>,
    window: Option<u32>,
    softcap: Option<f32>,
}

struct Layer {
    device: Device,
    cache: KvCache,
    stored: usize,
}

/// Keys and values of one layer and one sequence, as codes.
#[pyclass(frozen, module = "walsh._walsh", name = "Cache")]
pub(crate) struct PyCache(Arc<Slot<Layer>>);

impl PyCache {
    fn with<T>(&self, work: impl FnOnce(&mut Layer) -> Result<T>) -> Result<T> {
        // Lent, not locked: who waited for a lock with the interpreter's would wait for ever.
        work(self.0.lend()?.get()?)
    }
}

impl Layer {
    fn new(making: &Making) -> Result<Self> {
        let spec: KvSpec = making.kv.parse()?;
        let LayerKv {
            codecs,
            equalise,
            center,
            overlay,
        } = spec.layers(1)?[0];
        if equalise || center {
            return Err(Failure::option(format!(
                "{} prepares keys by what a model's calibration says, and a cache alone has no model: add +plain, or ;equalise=off;center=off",
                making.kv
            )));
        }
        let device = making.device.parse::<DeviceSpec>()?.open()?;
        let options = KvCacheOptions {
            overlay: overlay.map(|tokens| OverlayOptions {
                tokens,
                slack: MOST_ROWS as u64,
            }),
            ..KvCacheOptions::global(codecs, making.kv_heads, making.head_dim, making.capacity)
        };
        Ok(Self {
            cache: KvCache::new(&device, options)?,
            device,
            stored: 0,
        })
    }

    fn heads(&self) -> [usize; 2] {
        [
            self.cache.kv_heads() as usize,
            self.cache.head_dim() as usize,
        ]
    }

    fn positions(&self, first: usize, count: usize) -> Result<walsh::Tensor> {
        let positions: Vec<i32> = (first..first + count).map(|at| at as i32).collect();
        Ok(self.device.tensor(&[count as u64], &positions)?)
    }

    fn store(&mut self, keys: &[f32], values: &[f32]) -> Result<()> {
        let [heads, head_dim] = self.heads();
        let row = heads * head_dim;
        for (keys, values) in keys
            .chunks(MOST_ROWS * row)
            .zip(values.chunks(MOST_ROWS * row))
        {
            let count = keys.len() / row;
            let shape = [count as u64, heads as u64, head_dim as u64];
            let mut list = self.device.record();
            list.push(KvStore {
                keys: Some(self.device.tensor(&shape, keys)?),
                values: Some(self.device.tensor(&shape, values)?),
                positions: self.positions(self.stored, count)?,
                sequences: None,
                cache: self.cache.clone(),
            })?;
            self.device.run(&list.finish()?)?;
            self.stored += count;
        }
        Ok(())
    }

    fn attend(&self, query: &[f32], heads: usize, mask: Mask) -> Result<Vec<f32>> {
        let head_dim = self.heads()[1];
        let count = query.len() / (heads * head_dim);
        let shape = [count as u64, heads as u64, head_dim as u64];
        let output = self.device.zeros(DType::F32, &shape)?;
        let mut list = self.device.record();
        list.push(Attention {
            query: self.device.tensor(&shape, query)?,
            fresh: None,
            cache: self.cache.clone(),
            positions: self.positions(self.stored - count, count)?,
            sequences: None,
            mask,
            sinks: None,
            output: output.clone(),
        })?;
        self.device.run(&list.finish()?)?;
        Ok(self.device.read(&output)?)
    }

    fn decode(&self, side: CacheSide, space: VectorSpace) -> Result<Vec<f32>> {
        let [heads, head_dim] = self.heads();
        if self.stored == 0 {
            return Ok(Vec::new());
        }
        let shape = [self.stored as u64, heads as u64, head_dim as u64];
        let output = self.device.zeros(DType::F32, &shape)?;
        let mut list = self.device.record();
        list.push(KvDecode {
            cache: self.cache.clone(),
            side,
            positions: self.positions(0, self.stored)?,
            sequences: None,
            space,
            output: output.clone(),
        })?;
        self.device.run(&list.finish()?)?;
        Ok(self.device.read(&output)?)
    }
}

#[pymethods]
impl PyCache {
    #[new]
    fn new(py: Python<'_>, making: Making) -> Result<Self> {
        let layer = py.detach(|| Layer::new(&making))?;
        Ok(Self(Slot::new("cache", layer)))
    }

    #[getter]
    fn stored(&self) -> Result<usize> {
        self.with(|layer| Ok(layer.stored))
    }

    #[getter]
    fn bytes(&self) -> Result<u64> {
        self.with(|layer| Ok(layer.cache.bytes()))
    }

    /// Stores keys and values, f32 `[n, kv_heads, head_dim]` each, behind those that are there.
    fn store(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyAny>,
        values: &Bound<'_, PyAny>,
    ) -> Result<()> {
        let keys = Input::<f32>::new("keys", keys, 3)?;
        let values = Input::<f32>::new("values", values, 3)?;
        self.with(|layer| {
            let heads = layer.heads();
            let count = keys.shape()[0];
            for (name, shape) in [("keys", keys.shape()), ("values", values.shape())] {
                if shape != [count, heads[0], heads[1]] {
                    return Err(Failure::array(format!(
                        "{name} must be of shape [n, {}, {}], as many keys as values, but is {shape:?}",
                        heads[0], heads[1]
                    )));
                }
            }
            let needed = layer.stored + count;
            let capacity = layer.cache.capacity() as usize;
            if needed > capacity {
                return Err(Failure::Named(
                    "ContextError",
                    format!("{needed} tokens do not fit into a cache of {capacity}: make a larger one"),
                ));
            }
            let (keys, values) = (keys.all()?, values.all()?);
            py.detach(|| layer.store(&keys, &values))
        })
    }

    /// Attention of the latest n tokens' queries, f32 `[n, heads, head_dim]`, over the stored codes; the same shape.
    fn attend<'py>(
        &self,
        py: Python<'py>,
        query: &Bound<'py, PyAny>,
        sight: Sight,
    ) -> Result<Bound<'py, PyArray3<f32>>> {
        let query = Input::<f32>::new("query", query, 3)?;
        let shape = [query.shape()[0], query.shape()[1], query.shape()[2]];
        let out = self.with(|layer| {
            let [kv_heads, head_dim] = layer.heads();
            let grouped = shape[1] > 0 && shape[1].is_multiple_of(kv_heads);
            if shape[0] == 0 || !grouped || shape[2] != head_dim {
                return Err(Failure::array(format!(
                    "query must be of shape [n, heads, {head_dim}] with heads a multiple of {kv_heads}, but is {shape:?}"
                )));
            }
            if shape[0] > layer.stored {
                return Err(Failure::array(format!(
                    "query has {} tokens, but {} are stored: their own keys and values come first",
                    shape[0], layer.stored
                )));
            }
            let causal = Mask::causal(head_dim as u64);
            let mask = Mask {
                scale: sight.scale.unwrap_or(causal.scale),
                window: sight.window,
                softcap: sight.softcap,
            };
            let query = query.all()?;
            py.detach(|| layer.attend(&query, shape[1], mask))
        })?;
        Ok(out.into_pyarray(py).reshape(shape)?)
    }

    /// What is stored, f32 `[stored, kv_heads, head_dim]`: as it was given up to what the codec loses, or as it lies.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        values: bool,
        rotated: bool,
    ) -> Result<Bound<'py, PyArray3<f32>>> {
        let side = match values {
            true => CacheSide::Values,
            false => CacheSide::Keys,
        };
        let space = match rotated {
            true => VectorSpace::Stored,
            false => VectorSpace::Model,
        };
        let (out, shape) = self.with(|layer| {
            let [heads, head_dim] = layer.heads();
            let out = py.detach(|| layer.decode(side, space))?;
            Ok((out, [layer.stored, heads, head_dim]))
        })?;
        Ok(out.into_pyarray(py).reshape(shape)?)
    }
}
