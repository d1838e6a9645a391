//! What is stored of each layer's keys and values, beside what the model computed.

use walsh::formats::kv::RowCodec;
use walsh::ops::{KvDecode, KvStore, VectorSpace};
use walsh::{CacheSide, DType, Device, KeyPreparation, KvCache, KvRows, KvSpec, Tensor};

use super::measure::{FitOptions, layer_cache, read_text, text_for};
use crate::model::graph::{Graph, Reading};
use crate::model::memory::LayerMemory;
use crate::{Model, Result};

/// What is stored of the keys or of the values of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SideStats {
    /// The root mean square of what is encoded: keys as they are prepared, values as they are.
    pub rms: f64,
    /// The root mean square over the stored scales, which is near 1 where scales fit: of what a codebook's codes stand for.
    /// `None` for codecs that have no scales beside their codes.
    pub scaled_rms: Option<f64>,
    /// The mean squared error of what is decoded, in units of the mean square of what is encoded.
    pub error: f64,
}

/// What is stored of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerStats {
    /// Of the keys.
    pub keys: SideStats,
    /// Of the values.
    pub values: SideStats,
}

/// What a SPEC stores of each layer's keys and values for the built-in text that a [`fit`](crate::fit()) reads, overlays
/// apart: every token counts as its codes have it. The model computes with keys and values as they are, and the watch
/// is told of layers.
///
/// # Errors
/// When a codec does not fit the head size or cannot store a vector, and as for [`fit`](crate::fit()).
pub fn stored_stats(model: &Model, spec: &KvSpec, options: &FitOptions) -> Result<Vec<LayerStats>> {
    let text = text_for(model, options)?;
    let (device, rows) = (model.device(), text.len());
    let specs = model.layer_specs(spec)?;
    let intermediates = read_text(model, &text, 1)?;
    let caches = LayerMemory::idle(device, model.config())?;
    let graph = Graph {
        device,
        config: model.config(),
        weights: model.weights(),
        screen: None,
        memory: &caches,
        intermediates: &intermediates,
        adapters: None,
    };
    let config = model.config();
    // Layers are alike.
    let decoded = device.zeros(DType::F32, intermediates.heads(config, 0)?.key.shape())?;
    let mut layers = Vec::with_capacity(specs.len());
    for (index, kv) in specs.iter().enumerate() {
        options.watch.check()?;
        options.watch.tell(index, specs.len());
        device.run(&graph.layer(rows, index, Reading::CodesAndFresh)?)?;
        let heads = intermediates.heads(config, index)?;
        let cache = layer_cache(model, index, rows, kv)?;
        let mut list = device.record();
        list.push(KvStore {
            keys: Some(heads.key.clone()),
            values: Some(heads.value.clone()),
            positions: intermediates.positions.clone(),
            sequences: None,
            cache: cache.clone(),
        })?;
        device.run(&list.finish()?)?;
        let side = |side, source| -> Result<SideStats> {
            let mut list = device.record();
            list.push(KvDecode {
                cache: cache.clone(),
                side,
                positions: intermediates.positions.clone(),
                sequences: None,
                space: VectorSpace::Stored,
                output: decoded.clone(),
            })?;
            device.run(&list.finish()?)?;
            let encoded = encoded(device, &cache, (side, source))?;
            let scales = scales(device, &cache.side(side).rows)?;
            let decoded: Vec<f32> = device.read(&decoded)?;
            let kv_heads = config.layers[index].kv_heads;
            Ok(compare(kv_heads, (&encoded, &decoded), &scales))
        };
        layers.push(LayerStats {
            keys: side(CacheSide::Keys, &heads.key)?,
            values: side(CacheSide::Values, &heads.value)?,
        });
    }
    Ok(layers)
}

/// The vectors that are encoded, `[tokens][kv_heads][head_dim]`: prepared, and rotated where the codec rotates.
fn encoded(
    device: &Device,
    cache: &KvCache,
    (side, source): (CacheSide, &Tensor),
) -> Result<Vec<f32>> {
    let mut vectors: Vec<f32> = device.read(source)?;
    if side == CacheSide::Keys {
        let KeyPreparation { equaliser, center } = cache.preparation();
        if let Some(center) = center {
            let center: Vec<f32> = device.read(center)?;
            let centers = center.iter().cycle();
            vectors.iter_mut().zip(centers).for_each(|(k, c)| *k -= c);
        }
        if let Some(equaliser) = equaliser {
            let equaliser: Vec<f32> = device.read(equaliser)?;
            let equalisers = equaliser.iter().cycle();
            vectors
                .iter_mut()
                .zip(equalisers)
                .for_each(|(k, e)| *k /= e);
        }
    }
    let codec = &cache.side(side).rows.codec;
    if let Some(rotation) = codec.rotation() {
        vectors
            .chunks_exact_mut(codec.head_dim())
            .for_each(|vector| rotation.forward(vector));
    }
    Ok(vectors)
}

/// What a side's codes are multiplied by, `[kv_heads][slots][groups]`; nothing where scales lie among the codes.
struct Scales<'a> {
    factors: Vec<f32>,
    slots: usize,
    codec: &'a RowCodec,
}

fn scales<'a>(device: &Device, rows: &'a KvRows) -> Result<Scales<'a>> {
    let mut factors = Vec::new();
    if let Some(scales) = &rows.scales {
        let mut bytes = vec![0; scales.bytes() as usize];
        device.read_bytes(scales, &mut bytes)?;
        factors = vec![0.0; scales.elements() as usize];
        walsh::formats::ggml::decode(scales.dtype(), &bytes, &mut factors)
            .map_err(walsh::Error::from)?;
    }
    let factor = rows.codec.scale_factor();
    factors.iter_mut().for_each(|scale| *scale *= factor);
    Ok(Scales {
        factors,
        slots: rows.codes.shape()[1] as usize,
        codec: &rows.codec,
    })
}

/// Compares `[tokens][kv_heads][head_dim]` numbers as they are encoded and as they are decoded.
fn compare(
    kv_heads: usize,
    (encoded, decoded): (&[f32], &[f32]),
    scales: &Scales<'_>,
) -> SideStats {
    let sum = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
    let square = sum(&mut encoded.iter().map(|x| f64::from(*x)));
    let pairs = encoded.iter().zip(decoded);
    let error = sum(&mut pairs.map(|(x, y)| f64::from(*x) - f64::from(*y)));
    let codec = scales.codec;
    let (mut scaled, mut count) = (0.0, 0usize);
    if codec.groups() > 0 {
        for (vector, numbers) in encoded.chunks_exact(codec.head_dim()).enumerate() {
            let (token, head) = (vector / kv_heads, vector % kv_heads);
            let first = (head * scales.slots + token) * codec.groups();
            let factors = &scales.factors[first..first + codec.groups()];
            for (group, factor) in numbers.chunks_exact(codec.group_len()).zip(factors) {
                // A group of zeros has no scale.
                if *factor > 0.0 {
                    let factor = f64::from(*factor);
                    scaled += sum(&mut group.iter().map(|x| f64::from(*x) / factor));
                    count += group.len();
                }
            }
        }
    }
    SideStats {
        rms: (square / encoded.len().max(1) as f64).sqrt(),
        scaled_rms: (count > 0).then(|| (scaled / count as f64).sqrt()),
        error: if square > 0.0 { error / square } else { 0.0 },
    }
}
