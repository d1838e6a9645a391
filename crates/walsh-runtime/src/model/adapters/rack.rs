//! The factors of a model's adapters, on its device.

use std::collections::HashMap;
use std::path::PathBuf;

use twox_hash::XxHash3_128;
use walsh::{Device, Tensor};
use walsh_convert::{Adapter, Base, Pair};

use super::lora::Lora;
use crate::model::config::ModelConfig;
use crate::model::weights::{Linear, Weights};
use crate::{Error, Result};

/// All adapters of a model.
pub(crate) struct Rack {
    pub(in crate::model) adapters: Vec<Loaded>,
    /// Of each product that an adapter has something for: its name, and the row of its tensor that it begins at.
    stacks: HashMap<(String, u64), Stack>,
    /// The largest rank, and the most rows.
    pub(super) largest: [u64; 2],
}

/// An adapter that was read.
pub(in crate::model) struct Loaded {
    pub(in crate::model) name: String,
    pub(in crate::model) path: PathBuf,
    /// What tells it from others, whatever file it came from.
    pub(super) fingerprint: [u8; 16],
}

/// The factors of one product, of all adapters: stacks of them, of which the first are zeros, and ranks filled up with zeros
/// to the largest.
pub(super) struct Stack {
    /// `f32 [1 + adapters, rank, columns]`.
    pub(super) a: Tensor,
    /// `f32 [1 + adapters, rows, rank]`.
    pub(super) b: Tensor,
}

impl Rack {
    /// Reads the adapters of a model.
    pub(in crate::model) fn open(
        (device, config, weights): (&Device, &ModelConfig, &Weights),
        sources: &[Lora],
    ) -> Result<Self> {
        let base = Base {
            architecture: config.architecture.name(),
            heads: config.heads as u64,
            // Those whose rows lie in another order than PEFT's have as many in all layers.
            kv_heads: config.layers.first().map_or(0, |layer| layer.kv_heads) as u64,
        };
        let mut read: Vec<Adapter> = Vec::with_capacity(sources.len());
        let mut adapters: Vec<Loaded> = Vec::with_capacity(sources.len());
        for source in sources {
            let adapter = Adapter::open(&source.path, &base).map_err(|error| Error::Adapter {
                what: error.to_string(),
            })?;
            let fingerprint = fingerprint(&adapter);
            let same = |other: &&Loaded| other.fingerprint == fingerprint;
            if let Some(other) = adapters.iter().find(same) {
                return Err(Error::adapter(
                    &source.path,
                    format!(
                        "it is the same adapter as {}: give it once, with the sum of the scales",
                        other.path.display()
                    ),
                ));
            }
            adapters.push(Loaded {
                name: adapter.name.clone(),
                path: adapter.path.clone(),
                fingerprint,
            });
            read.push(adapter);
        }
        let mut rack = Self {
            adapters,
            stacks: HashMap::new(),
            largest: [1, 1],
        };
        let mut products: HashMap<&str, Vec<&Linear>> = HashMap::new();
        for linear in weights.linears() {
            products.entry(&linear.name).or_default().push(linear);
        }
        for adapter in &read {
            check(adapter, &products)?;
        }
        for linear in weights.linears() {
            rack.add(device, linear, &read)?;
        }
        Ok(rack)
    }

    fn add(&mut self, device: &Device, linear: &Linear, read: &[Adapter]) -> Result<()> {
        let pairs = || read.iter().map(|adapter| adapter.pairs.get(&linear.name));
        let Some(rank) = pairs().flatten().map(|pair| pair.rank).max() else {
            return Ok(());
        };
        let [rows, columns] = [0, 1].map(|dim| linear.weight.shape()[dim] as usize);
        let first = linear.first as usize;
        let (mut a, mut b) = (vec![0.0; rank * columns], vec![0.0; rows * rank]);
        for pair in pairs() {
            let Some(pair) = pair else {
                a.resize(a.len() + rank * columns, 0.0);
                b.resize(b.len() + rows * rank, 0.0);
                continue;
            };
            a.extend_from_slice(&pair.a);
            a.resize(a.len() + (rank - pair.rank) * columns, 0.0);
            for row in pair.b.chunks_exact(pair.rank).skip(first).take(rows) {
                b.extend_from_slice(row);
                b.resize(b.len() + rank - pair.rank, 0.0);
            }
        }
        let count = 1 + read.len() as u64;
        let [rows, columns, rank] = [rows, columns, rank].map(|size| size as u64);
        let stack = Stack {
            a: device.tensor(&[count, rank, columns], &a)?,
            b: device.tensor(&[count, rows, rank], &b)?,
        };
        self.largest = [self.largest[0].max(rank), self.largest[1].max(rows)];
        self.stacks
            .insert((linear.name.clone(), linear.first), stack);
        Ok(())
    }

    /// What is added to a product.
    pub(super) fn stack(&self, linear: &Linear) -> Option<&Stack> {
        self.stacks.get(&(linear.name.clone(), linear.first))
    }

    /// How many adapters there are.
    pub(crate) fn len(&self) -> usize {
        self.adapters.len()
    }
}

/// Refuses what has no place in a model.
fn check(adapter: &Adapter, products: &HashMap<&str, Vec<&Linear>>) -> Result<()> {
    for (name, pair) in &adapter.pairs {
        let wrong = |what: String| Err(Error::adapter(&adapter.path, what));
        let Some(parts) = products.get(name.as_str()) else {
            return match name.as_str() {
                "output" => wrong(
                    "it has something for the output's weight, which is not applied beside products: 'walsh convert MODEL OUT --lora' merges it, where the model has such a weight of its own".to_owned(),
                ),
                _ => wrong(format!(
                    "it has something for {name}, which is no product of a matrix that the model has: use an adapter of this model"
                )),
            };
        };
        let rows: u64 = parts.iter().map(|part| part.weight.shape()[0]).sum();
        let shape = [rows, parts[0].weight.shape()[1]];
        let Pair { rows, columns, .. } = pair;
        if [*rows as u64, *columns as u64] != shape {
            return wrong(format!(
                "what it has for {name} has the shape {:?}, and the model's is {shape:?}: use an adapter of this model",
                [rows, columns]
            ));
        }
    }
    Ok(())
}

fn fingerprint(adapter: &Adapter) -> [u8; 16] {
    let mut hasher = XxHash3_128::new();
    for (name, pair) in &adapter.pairs {
        hasher.write(name.as_bytes());
        for size in [name.len(), pair.rows, pair.columns, pair.rank] {
            hasher.write(&(size as u64).to_le_bytes());
        }
        for values in [&pair.a, &pair.b] {
            for value in values {
                hasher.write(&value.to_le_bytes());
            }
        }
    }
    hasher.finish_128().to_be_bytes()
}
