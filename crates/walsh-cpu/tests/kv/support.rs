//! A cache on a device, and attention over what it decodes to in double precision.

use walsh_core::ops::{Attention, Fresh, KvStore, Mask};
use walsh_core::{CacheKind, Device, KvCache, KvCacheOptions, KvSide, OverlayOptions, Result};
use walsh_cpu::{Activations, CpuOptions, Isa, Threads};
use walsh_formats::kv::Overlay;

/// Numbers close to N(0,1).
pub(crate) fn gaussian(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            let mut sum = -6.0;
            for _ in 0..12 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                sum += (state >> 40) as f32 / (1u64 << 24) as f32;
            }
            sum
        })
        .collect()
}

/// A device whose attention is in single precision.
pub(crate) fn exact(isa: Isa, threads: usize) -> Device {
    walsh_cpu::open(CpuOptions {
        threads: Threads::Count(threads),
        isa: Some(isa),
        activations: Activations::F32,
        ..CpuOptions::default()
    })
    .unwrap()
}

pub(crate) fn device(isa: Isa, threads: usize) -> Device {
    walsh_cpu::open(CpuOptions {
        threads: Threads::Count(threads),
        isa: Some(isa),
        ..CpuOptions::default()
    })
    .unwrap()
}

/// The sizes of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) capacity: usize,
    pub(crate) kind: CacheKind,
}

/// A cache that is fed by position.
pub(crate) struct Fixture {
    pub(crate) device: Device,
    pub(crate) sizes: Sizes,
    pub(crate) cache: KvCache,
}

/// One token's keys or values for all KV heads, by position.
pub(crate) fn rows_of(sizes: &Sizes, seed: u64, positions: std::ops::Range<usize>) -> Vec<f32> {
    positions
        .flat_map(|p| gaussian(seed + 7919 * p as u64, sizes.kv_heads * sizes.head_dim))
        .collect()
}

pub(crate) const KEYS: u64 = 1;
pub(crate) const VALUES: u64 = 2;

impl Fixture {
    pub(crate) fn new(device: Device, spec: &str, sizes: Sizes) -> Self {
        Self::with(device, spec, sizes, None)
    }

    /// With an overlay of the first and recent tokens, and its slack.
    pub(crate) fn with_overlay(
        device: Device,
        spec: &str,
        sizes: Sizes,
        (first, recent, slack): (u32, u32, u64),
    ) -> Self {
        let tokens = Overlay {
            first,
            recent,
            codec: None,
        };
        Self::with(device, spec, sizes, Some(OverlayOptions { tokens, slack }))
    }

    fn with(device: Device, spec: &str, sizes: Sizes, overlay: Option<OverlayOptions>) -> Self {
        let options = KvCacheOptions {
            codecs: spec.parse().unwrap(),
            kv_heads: sizes.kv_heads as u64,
            head_dim: sizes.head_dim as u64,
            capacity: sizes.capacity as u64,
            kind: sizes.kind,
            sequences: 1,
            overlay,
        };
        let cache = KvCache::new(&device, options).unwrap();
        Self {
            device,
            sizes,
            cache,
        }
    }

    /// Stores generated keys and values of these positions in one call.
    pub(crate) fn store(&self, positions: std::ops::Range<usize>) {
        let keys = rows_of(&self.sizes, KEYS, positions.clone());
        let values = rows_of(&self.sizes, VALUES, positions.clone());
        self.store_rows(positions, &keys, &values).unwrap();
    }

    pub(crate) fn store_rows(
        &self,
        positions: std::ops::Range<usize>,
        keys: &[f32],
        values: &[f32],
    ) -> Result<()> {
        let shape = [
            positions.len() as u64,
            self.sizes.kv_heads as u64,
            self.sizes.head_dim as u64,
        ];
        let mut list = self.device.record();
        list.push(KvStore {
            keys: Some(self.device.tensor(&shape, keys)?),
            values: Some(self.device.tensor(&shape, values)?),
            positions: self.positions(&positions)?,
            cache: self.cache.clone(),
            sequences: None,
        })?;
        self.device.run(&list.finish()?)
    }

    pub(crate) fn positions(
        &self,
        positions: &std::ops::Range<usize>,
    ) -> Result<walsh_core::Tensor> {
        let numbers: Vec<i32> = positions.clone().map(|p| p as i32).collect();
        self.device.tensor(&[numbers.len() as u64], &numbers)
    }

    /// Attention of generated queries at these positions.
    pub(crate) fn decode(&self, positions: std::ops::Range<usize>, mask: Mask) -> Vec<f32> {
        let query = self.queries(&positions);
        self.decode_queries(positions, &query, mask).unwrap()
    }

    pub(crate) fn decode_queries(
        &self,
        positions: std::ops::Range<usize>,
        query: &[f32],
        mask: Mask,
    ) -> Result<Vec<f32>> {
        let shape = [
            positions.len() as u64,
            self.sizes.heads as u64,
            self.sizes.head_dim as u64,
        ];
        let output = self.device.tensor(&shape, &vec![-77.0f32; query.len()])?;
        let mut list = self.device.record();
        list.push(Attention {
            query: self.device.tensor(&shape, query)?,
            fresh: None,
            cache: self.cache.clone(),
            positions: self.positions(&positions)?,
            mask,
            output: output.clone(),
            sequences: None,
            sinks: None,
        })?;
        self.device.run(&list.finish()?)?;
        self.device.read::<f32>(&output)
    }

    /// What the plan of a decode calls its kernel.
    pub(crate) fn decode_kernel(&self) -> String {
        let shape = [1, self.sizes.heads as u64, self.sizes.head_dim as u64];
        let row = || vec![0.0f32; self.sizes.heads * self.sizes.head_dim];
        let mut list = self.device.record();
        list.push(Attention {
            query: self.device.tensor(&shape, &row()).unwrap(),
            fresh: None,
            cache: self.cache.clone(),
            positions: self.positions(&(0..1)).unwrap(),
            mask: mask(self.sizes.head_dim),
            output: self.device.tensor(&shape, &row()).unwrap(),
            sequences: None,
            sinks: None,
        })
        .unwrap();
        let step = list.finish().unwrap();
        step.list().commands()[0].plan.kernel.clone()
    }

    /// Prefill of generated queries, keys and values at these positions, over what is stored before them.
    pub(crate) fn prefill(&self, positions: std::ops::Range<usize>, mask: Mask) -> Vec<f32> {
        let query = self.queries(&positions);
        let shape = [
            positions.len() as u64,
            self.sizes.heads as u64,
            self.sizes.head_dim as u64,
        ];
        let fresh = [shape[0], self.sizes.kv_heads as u64, shape[2]];
        let output = self
            .device
            .tensor(&shape, &vec![-77.0f32; query.len()])
            .unwrap();
        let mut list = self.device.record();
        let keys = rows_of(&self.sizes, KEYS, positions.clone());
        let values = rows_of(&self.sizes, VALUES, positions.clone());
        list.push(Attention {
            query: self.device.tensor(&shape, &query).unwrap(),
            fresh: Some(Fresh {
                keys: self.device.tensor(&fresh, &keys).unwrap(),
                values: self.device.tensor(&fresh, &values).unwrap(),
            }),
            cache: self.cache.clone(),
            positions: self.positions(&positions).unwrap(),
            mask,
            output: output.clone(),
            sequences: None,
            sinks: None,
        })
        .unwrap();
        self.device.run(&list.finish().unwrap()).unwrap();
        self.device.read::<f32>(&output).unwrap()
    }

    pub(crate) fn queries(&self, positions: &std::ops::Range<usize>) -> Vec<f32> {
        let n = self.sizes.heads * self.sizes.head_dim;
        positions
            .clone()
            .flat_map(|p| gaussian(31 + 104_729 * p as u64, n))
            .collect()
    }

    /// Every row of a side, decoded: `[kv_heads][capacity][head_dim]`.
    pub(crate) fn decoded(&self, side: &KvSide) -> Vec<f32> {
        let (codes, scales) = self.bytes(side);
        let (code, scale) = (side.rows.codec.code_bytes(), side.rows.codec.scale_bytes());
        let d = self.sizes.head_dim;
        let mut out = vec![0.0; self.sizes.kv_heads * self.sizes.capacity * d];
        for (i, row) in out.chunks_exact_mut(d).enumerate() {
            side.rows.codec.decode_row(
                &codes[i * code..][..code],
                &scales[i * scale..][..scale],
                row,
            );
        }
        out
    }

    /// The codes and scales of a side.
    pub(crate) fn bytes(&self, side: &KvSide) -> (Vec<u8>, Vec<u8>) {
        let read = |tensor: &walsh_core::Tensor| {
            let mut bytes = vec![0; tensor.bytes() as usize];
            self.device.read_bytes(tensor, &mut bytes).unwrap();
            bytes
        };
        (
            read(&side.rows.codes),
            side.rows.scales.as_ref().map(read).unwrap_or_default(),
        )
    }

    /// What [`decode`](Self::decode) should give, or [`prefill`](Self::prefill) when `fresh` says from which position
    /// on rows are those before they were stored.
    pub(crate) fn expected(
        &self,
        positions: std::ops::Range<usize>,
        mask: Mask,
        fresh: Option<usize>,
    ) -> Vec<f64> {
        let Sizes {
            heads,
            kv_heads,
            head_dim: d,
            capacity,
            ..
        } = self.sizes;
        let (keys, values) = (
            self.decoded(self.cache.key()),
            self.decoded(self.cache.value()),
        );
        let fresh_from = fresh.unwrap_or(usize::MAX);
        let (fresh_keys, fresh_values) = match fresh {
            Some(_) => (
                rows_of(&self.sizes, KEYS, positions.clone()),
                rows_of(&self.sizes, VALUES, positions.clone()),
            ),
            None => (vec![], vec![]),
        };
        let queries = self.queries(&positions);
        let mut out = vec![0.0; queries.len()];
        let window = mask.window.map_or(usize::MAX, |w| w as usize);
        for (i, p) in positions.clone().enumerate() {
            for head in 0..heads {
                let h = head / (heads / kv_heads);
                let stored_at = |t: usize| (h * capacity + t % capacity) * d;
                let fresh_at = |t: usize| ((t - positions.start) * kv_heads + h) * d;
                let key = |t: usize| match t >= fresh_from {
                    true => &fresh_keys[fresh_at(t)..][..d],
                    false => &keys[stored_at(t)..][..d],
                };
                let value = |t: usize| match t >= fresh_from {
                    true => &fresh_values[fresh_at(t)..][..d],
                    false => &values[stored_at(t)..][..d],
                };
                let at = (i * heads + head) * d;
                let q = &queries[at..at + d];
                let first = (p + 1).saturating_sub(window);
                let scores: Vec<f64> = (first..=p)
                    .map(|t| {
                        let k = key(t);
                        let dot: f64 = q
                            .iter()
                            .zip(k)
                            .map(|(a, b)| f64::from(*a) * f64::from(*b))
                            .sum();
                        let s = dot * f64::from(mask.scale);
                        mask.softcap
                            .map_or(s, |c| f64::from(c) * (s / f64::from(c)).tanh())
                    })
                    .collect();
                let max = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
                let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for (t, s) in (first..=p).zip(&scores) {
                    let weight = (s - max).exp() / sum;
                    for (o, v) in out[at..at + d].iter_mut().zip(value(t)) {
                        *o += weight * f64::from(*v);
                    }
                }
            }
        }
        out
    }
}

pub(crate) fn mask(head_dim: usize) -> Mask {
    Mask {
        scale: 1.0 / (head_dim as f32).sqrt(),
        window: None,
        softcap: None,
    }
}

/// All numbers within `tolerance`.
#[track_caller]
pub(crate) fn close(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(*a) - b).abs() <= tolerance,
            "{what}: number {i} is {a}, not {b}"
        );
    }
}

/// Within a root mean square of the differences, and no number beyond six times it.
#[track_caller]
pub(crate) fn near(got: &[f32], expected: &[f64], rms: f64, what: &str) {
    close(got, expected, 6.0 * rms, what);
    let squares = got.iter().zip(expected);
    let squares: f64 = squares.map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    let found = (squares / got.len() as f64).sqrt();
    assert!(found <= rms, "{what}: off by {found}");
}
