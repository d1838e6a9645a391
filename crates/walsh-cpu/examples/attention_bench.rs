//! Times attention and stores over a KV cache.
//!
//! `cargo run --release -p walsh-cpu --example attention_bench -- [threads] [isa] [depth=N] [decode] [dim=N] [cache]...`
//!
//! Decode reads 8,192 positions, or `depth`, of as many caches as a model has layers, so that codes come from where they
//! would in use; prefill attends a chunk of 512 tokens over nothing and over these positions. `decode` times nothing else,
//! and for longer. `dim` picks the shapes of one head size. Caches are SPECs, with their overlay and prepared keys. Numbers
//! are microseconds per op. With one thread they are processor time where the system tells it, so that a busy machine does
//! not spoil them.

use std::time::Instant;

use walsh_core::ops::{Attention, Fresh, KvStore, Mask};
use walsh_core::{Device, KeyPreparation, KvCache, KvCacheOptions, OverlayOptions, Result, Tensor};
use walsh_cpu::{CpuOptions, Threads};
use walsh_formats::kv::KvSpec;

/// A model's attention.
struct Shape {
    name: &'static str,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
}

const SHAPES: [Shape; 3] = [
    Shape {
        name: "smollm2-135m",
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
    },
    Shape {
        name: "llama-like",
        heads: 8,
        kv_heads: 2,
        head_dim: 128,
    },
    Shape {
        name: "gemma3-270m",
        heads: 4,
        kv_heads: 1,
        head_dim: 256,
    },
];

const SPECS: [&str; 13] = [
    "tq4+plain",
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q5_0",
    "q4_0",
    "tq8",
    "tq6",
    "tq5",
    "tq4",
    "tq3",
    "k=tq5,v=tq3",
];
const LAYERS: usize = 12;
const CHUNK: u64 = 512;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(Ok(2), |word| word.parse())?;
    let isa = args.next().map(|word| word.parse()).transpose()?;
    let mut wanted = Wanted {
        depth: 8192,
        dim: None,
        decode_only: false,
    };
    let mut specs = Vec::new();
    for word in args {
        match word.split_once('=') {
            Some(("depth", depth)) => wanted.depth = depth.parse()?,
            Some(("dim", dim)) => wanted.dim = Some(dim.parse()?),
            _ if word == "decode" => wanted.decode_only = true,
            _ => specs.push(word),
        }
    }
    let device = walsh_cpu::open(CpuOptions {
        threads: Threads::Count(threads),
        isa,
        ..CpuOptions::default()
    })?;
    println!(
        "{}, {threads} threads; microseconds per op",
        device.properties().architecture
    );
    println!(
        "{:14} {:12} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "shape",
        "cache",
        "decode",
        "GB/s",
        "prefill",
        format!("at {}", wanted.depth),
        "store"
    );
    for shape in SHAPES
        .iter()
        .filter(|shape| wanted.dim.is_none_or(|dim| dim == shape.head_dim))
    {
        for spec in SPECS
            .iter()
            .filter(|spec| specs.is_empty() || specs.iter().any(|w| w == *spec))
        {
            bench(&device, shape, spec, &wanted)?;
        }
    }
    Ok(())
}

/// What is timed.
struct Wanted {
    /// Positions that the cache holds.
    depth: u64,
    /// The head size of the shapes, unless all.
    dim: Option<u64>,
    decode_only: bool,
}

fn bench(
    device: &Device,
    shape: &Shape,
    spec: &str,
    wanted: &Wanted,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let depth = wanted.depth;
    let kv = spec.parse::<KvSpec>()?.all;
    let overlay = kv
        .overlay
        .map(|tokens| OverlayOptions { tokens, slack: 32 });
    let capacity = depth + CHUNK;
    let options = KvCacheOptions {
        overlay,
        ..KvCacheOptions::global(kv.codecs, shape.kv_heads, shape.head_dim, capacity)
    };
    let ones = || {
        device.tensor(
            &[shape.kv_heads, shape.head_dim],
            &vec![1.0f32; (shape.kv_heads * shape.head_dim) as usize],
        )
    };
    let caches = (0..LAYERS)
        .map(|_| {
            KvCache::new(device, options)?.with_preparation(KeyPreparation {
                equaliser: kv.equalise.then(ones).transpose()?,
                center: kv.center.then(ones).transpose()?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mask = Mask {
        scale: 1.0 / (shape.head_dim as f32).sqrt(),
        window: None,
        softcap: None,
    };
    let rows = |n: u64, heads: u64| numbers(device, &[n, heads, shape.head_dim]);
    let positions = |first: u64, n: u64| {
        let numbers: Vec<i32> = (first..first + n).map(|p| p as i32).collect();
        device.tensor(&[n], &numbers)
    };
    let store = |cache: &KvCache, first: u64, n: u64| -> Result<KvStore> {
        Ok(KvStore {
            keys: Some(rows(n, shape.kv_heads)?),
            values: Some(rows(n, shape.kv_heads)?),
            positions: positions(first, n)?,
            cache: cache.clone(),
            sequences: None,
        })
    };
    for cache in &caches {
        let mut list = device.record();
        list.push(store(cache, 0, depth)?)?;
        device.run(&list.finish()?)?;
    }
    let decode = time(
        device,
        |cache| {
            Ok(Attention {
                query: rows(1, shape.heads)?,
                fresh: None,
                cache: cache.clone(),
                positions: positions(depth - 1, 1)?,
                mask,
                output: rows(1, shape.heads)?,
                sequences: None,
                sinks: None,
            }
            .into())
        },
        &caches,
        if wanted.decode_only { 40 } else { 20 } * 8192usize.div_ceil(depth as usize),
    )?;
    let bytes = caches[0].bytes() as f64 * depth as f64 / capacity as f64;
    let rate = bytes / decode / 1e3;
    if wanted.decode_only {
        println!("{:14} {spec:12} {decode:9.1} {rate:9.1}", shape.name);
        return Ok(());
    }
    let prefill = |first: u64, runs| {
        time(
            device,
            |cache| {
                Ok(Attention {
                    query: rows(CHUNK, shape.heads)?,
                    fresh: Some(Fresh {
                        keys: rows(CHUNK, shape.kv_heads)?,
                        values: rows(CHUNK, shape.kv_heads)?,
                    }),
                    cache: cache.clone(),
                    positions: positions(first, CHUNK)?,
                    mask,
                    output: rows(CHUNK, shape.heads)?,
                    sequences: None,
                    sinks: None,
                }
                .into())
            },
            &caches,
            runs,
        )
    };
    let (chunk, deep) = (prefill(0, 3)?, prefill(depth, 1)?);
    let stored = time(
        device,
        |cache| Ok(store(cache, depth, CHUNK)?.into()),
        &caches,
        3,
    )?;
    println!(
        "{:14} {spec:12} {decode:9.0} {rate:9.1} {chunk:9.0} {deep:9.0} {stored:9.0}",
        shape.name
    );
    Ok(())
}

/// Mean microseconds of one op over several runs of a list that does it once for every cache.
fn time(
    device: &Device,
    op: impl Fn(&KvCache) -> Result<walsh_core::ops::Op>,
    caches: &[KvCache],
    runs: usize,
) -> Result<f64> {
    let mut list = device.record();
    for cache in caches {
        list.push(op(cache)?)?;
    }
    let step = list.finish()?;
    device.run(&step)?;
    let (start, used) = (Instant::now(), processor_time());
    for _ in 0..runs {
        device.run(&step)?;
    }
    let spent = match (used, processor_time()) {
        (Some(before), Some(after)) if device.properties().parallelism == 1 => after - before,
        _ => start.elapsed().as_secs_f64() * 1e6,
    };
    Ok(spent / (runs * caches.len()) as f64)
}

/// Microseconds that this thread has run, on Linux.
fn processor_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1e3)
}

/// A tensor of numbers from −1 to 1.
fn numbers(device: &Device, shape: &[u64]) -> Result<Tensor> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let n = shape.iter().product::<u64>() as usize;
    let numbers: Vec<f32> = (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    device.tensor(shape, &numbers)
}
