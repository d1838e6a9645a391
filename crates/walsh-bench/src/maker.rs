use std::collections::HashMap;

use walsh::formats::ggml;
use walsh::formats::kv::RowCodec;
use walsh::formats::random::SplitMix64;
use walsh::{
    DType, Device, KeyPreparation, KvCache, KvCacheOptions, KvRows, Result, Screen, ScreenSample,
    Tensor,
};

/// How many random bytes are made on the host; a tensor repeats them.
const TILE_BYTES: usize = 4 << 20;

/// How many encoded vectors are made on the host; a cache repeats them.
const TILE_ROWS: usize = 1024;

/// Makes the tensors of a workload on a device.
///
/// What ops only read is made anew for each of them, so that it comes from memory and not from a cache.
/// What they write is shared, so that each waits for the one before, as in a model.
pub struct Maker {
    pub(crate) device: Device,
    random: SplitMix64,
    /// The number of the op that tensors are made for.
    pub(crate) index: usize,
    tiles: HashMap<DType, Vec<u8>>,
    vectors: Vec<Vectors>,
    outputs: Vec<Tensor>,
    /// Those of tokens, which all ops of the workload share: what follows from them is worked out once, as in a model.
    positions: Option<Tensor>,
    sequences: Option<Tensor>,
    /// How many of them this op has taken.
    taken: usize,
    output_cache: Option<KvCache>,
}

/// Encoded random vectors.
struct Vectors {
    codec: RowCodec,
    codes: Vec<u8>,
    scales: Vec<u8>,
}

impl Maker {
    pub(crate) fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            random: SplitMix64(1),
            index: 0,
            tiles: HashMap::new(),
            vectors: Vec::new(),
            outputs: Vec::new(),
            positions: None,
            sequences: None,
            taken: 0,
            output_cache: None,
        }
    }

    /// Begins with the tensors of another op of the same workload.
    pub(crate) fn begin(&mut self, index: usize) {
        self.index = index;
        self.taken = 0;
    }

    /// Random numbers of any type, as weights have them.
    pub(crate) fn weight(&mut self, dtype: DType, shape: &[u64]) -> Result<Tensor> {
        let deviation = 0.02;
        self.random(dtype, deviation, shape)
    }

    /// A product's weight as models have it: packed where the device does so.
    pub(crate) fn product_weight(&mut self, dtype: DType, shape: &[u64]) -> Result<Tensor> {
        let weight = self.weight(dtype, shape)?;
        Ok(self.device.pack(&[weight])?.remove(0))
    }

    /// What finds the largest products of a weight, where the device gains by it.
    pub(crate) fn screen(
        &self,
        weight: &Tensor,
        input: &Tensor,
        count: u64,
    ) -> Result<Option<Screen>> {
        let sample = ScreenSample::find(&self.device, weight, input, count)?;
        self.device.screen(weight, &sample)
    }

    /// Random numbers of a magnitude around 1.
    pub(crate) fn floats(&mut self, shape: &[u64]) -> Result<Tensor> {
        self.random(DType::F32, 1.0, shape)
    }

    fn random(&mut self, dtype: DType, deviation: f32, shape: &[u64]) -> Result<Tensor> {
        let tensor = self.device.zeros(dtype, shape)?;
        let known = self.tiles.contains_key(&dtype);
        if !known {
            // Whole vectors of any width, so that copies of the tile begin where devices copy fast.
            let unit = 128 * dtype.block_bytes();
            let mut tile = vec![0; TILE_BYTES / unit * unit];
            ggml::random(dtype, deviation, &mut self.random, &mut tile)?;
            self.tiles.insert(dtype, tile);
        }
        if let Some(tile) = self.tiles.get(&dtype) {
            self.device.fill(&tensor, tile)?;
        }
        Ok(tensor)
    }

    /// Integers from `first` on.
    pub(crate) fn ascending(&mut self, first: u64, count: u64) -> Result<Tensor> {
        let values: Vec<i32> = (first..first + count).map(|n| n as i32).collect();
        self.device.tensor(&[count], &values)
    }

    /// The positions of a workload's tokens.
    pub(crate) fn positions(&mut self, values: &[i32]) -> Result<Tensor> {
        if let Some(positions) = &self.positions {
            return Ok(positions.clone());
        }
        let positions = self.device.tensor(&[values.len() as u64], values)?;
        Ok(self.positions.insert(positions).clone())
    }

    /// The sequences of a workload's tokens, one of each.
    pub(crate) fn sequences(&mut self, count: u64) -> Result<Tensor> {
        if let Some(sequences) = &self.sequences {
            return Ok(sequences.clone());
        }
        let sequences = self.ascending(0, count)?;
        Ok(self.sequences.insert(sequences).clone())
    }

    /// Random integers below `end`.
    pub(crate) fn ids(&mut self, end: u64, count: u64) -> Result<Tensor> {
        let random = &mut self.random;
        let values: Vec<i32> = (0..count).map(|_| (random.bits() % end) as i32).collect();
        self.device.tensor(&[count], &values)
    }

    /// Random experts of tokens; those of a token differ where the number of experts is a power of two.
    pub(crate) fn experts(&mut self, count: u64, [tokens, used]: [u64; 2]) -> Result<Tensor> {
        let mut values = Vec::new();
        for _ in 0..tokens {
            let (first, step) = (
                self.random.bits() % count,
                2 * (self.random.bits() % count) + 1,
            );
            values.extend((0..used).map(|slot| ((first + slot * step) % count) as i32));
        }
        self.device.tensor(&[tokens, used], &values)
    }

    /// What all ops of the workload write.
    pub(crate) fn output(&mut self, dtype: DType, shape: &[u64]) -> Result<Tensor> {
        if self.taken == self.outputs.len() {
            self.outputs.push(self.device.zeros(dtype, shape)?);
        }
        self.taken += 1;
        Ok(self.outputs[self.taken - 1].clone())
    }

    /// A cache that all ops of the workload write.
    pub(crate) fn output_cache(&mut self, options: KvCacheOptions) -> Result<KvCache> {
        if let Some(cache) = &self.output_cache {
            return Ok(cache.clone());
        }
        let cache = KvCache::new(&self.device, options)?;
        Ok(self.output_cache.insert(cache).clone())
    }

    /// A cache full of random vectors.
    pub(crate) fn cache(&mut self, options: KvCacheOptions) -> Result<KvCache> {
        let cache = KvCache::new(&self.device, options)?;
        for side in [cache.key(), cache.value()] {
            self.fill_rows(&side.rows)?;
            if let Some(overlay) = &side.overlay {
                self.fill_rows(overlay)?;
            }
        }
        Ok(cache)
    }

    /// One whose keys are prepared, as those of a calibrated model are.
    pub(crate) fn prepared(&mut self, cache: KvCache) -> Result<KvCache> {
        let shape = [cache.kv_heads(), cache.head_dim()];
        let equaliser = vec![1.0f32; (shape[0] * shape[1]) as usize];
        cache.with_preparation(KeyPreparation {
            equaliser: Some(self.device.tensor(&shape, &equaliser)?),
            center: Some(self.floats(&shape)?),
        })
    }

    fn fill_rows(&mut self, rows: &KvRows) -> Result<()> {
        let alike = |known: &Vectors| {
            known.codec.codec() == rows.codec.codec()
                && known.codec.head_dim() == rows.codec.head_dim()
        };
        if !self.vectors.iter().any(alike) {
            let vectors = self.encoded(&rows.codec)?;
            self.vectors.push(vectors);
        }
        if let Some(vectors) = self.vectors.iter().find(|known| alike(known)) {
            self.device.fill(&rows.codes, &vectors.codes)?;
            if let Some(tensor) = &rows.scales {
                self.device.fill(tensor, &vectors.scales)?;
            }
        }
        Ok(())
    }

    fn encoded(&mut self, codec: &RowCodec) -> Result<Vectors> {
        let (code_bytes, scale_bytes) = (codec.code_bytes(), codec.scale_bytes());
        let mut codes = vec![0; TILE_ROWS * code_bytes];
        let mut scales = vec![0; TILE_ROWS * scale_bytes];
        let mut scratch = vec![0.0; codec.head_dim()];
        let mut numbers = vec![0; 4 * codec.head_dim()];
        for row in 0..TILE_ROWS {
            ggml::random(DType::F32, 1.0, &mut self.random, &mut numbers)?;
            let numbers = numbers.as_chunks().0.iter();
            let numbers: Vec<f32> = numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let codes = &mut codes[row * code_bytes..][..code_bytes];
            let scales = &mut scales[row * scale_bytes..][..scale_bytes];
            codec.encode_row(&numbers, &mut scratch, codes, scales)?;
        }
        Ok(Vectors {
            codec: codec.clone(),
            codes,
            scales,
        })
    }
}
