//! Times storing keys and values into KV caches.
//!
//! `cargo run --release -p walsh-cpu --example store_bench -- [threads=1] [isa=avx512] [kv=tq4,f16] [d=64,256] [heads=3] [n=1,512] [source=f32] [layers=24] [ms=150]`
//!
//! A list stores `n` tokens into each of `layers` caches, as a step of a model does. Caches are SPECs, with their overlay
//! and prepared keys. Prints microseconds per op, and nanoseconds per row: a key or a value of one token and head. With
//! one thread they are processor time where the system tells it, so that a busy machine does not spoil them.

use std::error::Error;
use std::time::{Duration, Instant};

use walsh_core::ops::KvStore;
use walsh_core::{Device, KeyPreparation, KvCache, KvCacheOptions, OverlayOptions, Result, Tensor};
use walsh_cpu::{CpuOptions, Isa, Threads};
use walsh_formats::kv::KvSpec;
use walsh_formats::{DType, ggml};

/// The position of the first token: behind those that an overlay keeps from the start.
const FIRST: u64 = 64;

struct Options {
    threads: usize,
    isa: Isa,
    specs: Vec<String>,
    head_dims: Vec<u64>,
    heads: u64,
    tokens: Vec<u64>,
    source: DType,
    layers: usize,
    time: Duration,
}

fn options() -> std::result::Result<Options, Box<dyn Error>> {
    let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut options = Options {
        threads: 1,
        isa: Isa::detect(),
        specs: words(
            "f32,f16,bf16,q8_0,q5_0,q4_0,q8_0+rot,tq2+plain,tq3+plain,tq4+plain,tq5+plain,tq6+plain,tq8,tq4+norm+plain,tq4",
        ),
        head_dims: vec![64, 256],
        heads: 3,
        tokens: vec![1, 512],
        source: DType::F32,
        layers: 24,
        time: Duration::from_millis(150),
    };
    for argument in std::env::args().skip(1) {
        let numbers = |value: &str| -> std::result::Result<Vec<u64>, _> {
            value.split(',').map(str::parse).collect()
        };
        match argument.split_once('=') {
            Some(("threads", value)) => options.threads = value.parse()?,
            Some(("isa", value)) => options.isa = value.parse()?,
            // A pair has a comma of its own: pairs are separated by semicolons.
            Some(("kv", value)) if value.contains(';') || value.contains("k=") => {
                options.specs = value.split(';').map(str::to_owned).collect();
            }
            Some(("kv", value)) => options.specs = words(value),
            Some(("d", value)) => options.head_dims = numbers(value)?,
            Some(("heads", value)) => options.heads = value.parse()?,
            Some(("n", value)) => options.tokens = numbers(value)?,
            Some(("source", value)) => options.source = value.parse()?,
            Some(("layers", value)) => options.layers = value.parse()?,
            Some(("ms", value)) => options.time = Duration::from_millis(value.parse()?),
            _ => return Err(format!("unknown argument '{argument}'").into()),
        }
    }
    Ok(options)
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let options = options()?;
    let device = walsh_cpu::open(CpuOptions {
        threads: Threads::Count(options.threads),
        isa: Some(options.isa),
        ..CpuOptions::default()
    })?;
    println!(
        "{}, {} threads, {} heads, from {}",
        device.properties().architecture,
        options.threads,
        options.heads,
        options.source
    );
    println!(
        "{:12} {:>5} {:>7} {:>10} {:>9}",
        "cache", "d", "tokens", "us per op", "ns a row"
    );
    for spec in &options.specs {
        for &head_dim in &options.head_dims {
            for &tokens in &options.tokens {
                let spent = bench(&device, &options, (spec, head_dim, tokens))?;
                println!(
                    "{spec:12} {head_dim:5} {tokens:7} {spent:10.2} {:9.0}",
                    spent * 1e3 / (2 * tokens * options.heads) as f64
                );
            }
        }
    }
    Ok(())
}

/// The mean microseconds of an op.
fn bench(
    device: &Device,
    options: &Options,
    (spec, head_dim, tokens): (&str, u64, u64),
) -> std::result::Result<f64, Box<dyn Error>> {
    let kv = spec.parse::<KvSpec>()?.all;
    let heads = options.heads;
    let cache_options = KvCacheOptions {
        overlay: kv
            .overlay
            .map(|tokens| OverlayOptions { tokens, slack: 32 }),
        ..KvCacheOptions::global(kv.codecs, heads, head_dim, FIRST + tokens)
    };
    let ones = || {
        device.tensor(
            &[heads, head_dim],
            &vec![1.0f32; (heads * head_dim) as usize],
        )
    };
    let positions: Vec<i32> = (FIRST..FIRST + tokens).map(|p| p as i32).collect();
    let positions = device.tensor(&[tokens], &positions)?;
    // All layers store the same rows, which then lie in the caches, as what a step has just computed does.
    let rows = || numbers(device, &[tokens, heads, head_dim], options.source);
    let rows = [rows()?, rows()?];
    let mut list = device.record();
    for _ in 0..options.layers {
        let cache = KvCache::new(device, cache_options)?.with_preparation(KeyPreparation {
            equaliser: kv.equalise.then(ones).transpose()?,
            center: kv.center.then(ones).transpose()?,
        })?;
        list.push(KvStore {
            keys: Some(rows[0].clone()),
            values: Some(rows[1].clone()),
            positions: positions.clone(),
            cache,
            sequences: None,
        })?;
    }
    let step = list.finish()?;
    device.run(&step)?;
    let (mut runs, start, used) = (0, Instant::now(), processor_time());
    while start.elapsed() < options.time {
        for _ in 0..4 {
            device.run(&step)?;
        }
        runs += 4;
    }
    let spent = match (used, processor_time()) {
        (Some(before), Some(after)) if options.threads == 1 => after - before,
        _ => start.elapsed().as_secs_f64() * 1e6,
    };
    Ok(spent / (runs * options.layers) as f64)
}

/// Microseconds that this thread has run, on Linux.
fn processor_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1e3)
}

/// A tensor of numbers close to N(0,1), each the sum of twelve uniform ones.
fn numbers(device: &Device, shape: &[u64], dtype: DType) -> Result<Tensor> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let n = shape.iter().product::<u64>() as usize;
    let numbers: Vec<f32> = (0..n)
        .map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0)
        .collect();
    let mut bytes = vec![0; n * dtype.block_bytes()];
    ggml::encode(dtype, &numbers, &mut bytes)?;
    device.tensor_from_bytes(dtype, shape, &bytes)
}
