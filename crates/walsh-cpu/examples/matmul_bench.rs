//! Times matrix products for each weight type: bytes of weight per second with one row of input, operations per second
//! with many. Every figure stands beside the speed of plainly reading as many bytes, in turns with it.
//!
//! `cargo run --release -p walsh-cpu --example matmul_bench -- [threads=2] [isa=avx512] [activations=int8] [type=q4_0,q8_0] [m=1,64,512] [n=14336] [k=4096] [packed=true] [set=192]`
//!
//! `set` is how many MiB of weights are passed over before any is read again; 0 keeps one copy in the caches.

use std::error::Error;
use std::time::{Duration, Instant};

use walsh_core::ops::MatMul;
use walsh_core::{Device, Step, Tensor};
use walsh_cpu::{Activations, CpuOptions, Isa, PackWeights, Threads};
use walsh_formats::random::SplitMix64;
use walsh_formats::{DType, ggml};

/// How long a product is repeated, in turns with reading.
const ROUND: Duration = Duration::from_millis(600);

/// How many bytes are read between two looks at the clock: starting threads is then of no account.
const PASS: usize = 64 << 20;

struct Options {
    threads: usize,
    isa: Isa,
    activations: Activations,
    types: Vec<DType>,
    rows: Vec<u64>,
    packed: bool,
    n: u64,
    k: u64,
    /// The weight bytes that are passed over before any is read again: more than the caches hold, unless they are to.
    working_set: usize,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        threads: std::thread::available_parallelism()?.get(),
        isa: Isa::detect(),
        activations: Activations::default(),
        types: DType::ALL
            .iter()
            .copied()
            .filter(|dtype| dtype.is_real())
            .collect(),
        rows: vec![1, 64, 512],
        packed: false,
        n: 14336,
        k: 4096,
        working_set: 192 << 20,
    };
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("threads", value)) => options.threads = value.parse()?,
            Some(("packed", value)) => options.packed = value.parse()?,
            Some(("n", value)) => options.n = value.parse()?,
            Some(("k", value)) => options.k = value.parse()?,
            Some(("set", value)) => options.working_set = value.parse::<usize>()? << 20,
            Some(("isa", value)) => options.isa = value.parse()?,
            Some(("activations", value)) => options.activations = value.parse()?,
            Some(("type", value)) => {
                options.types = value.split(',').map(str::parse).collect::<Result<_, _>>()?
            }
            Some(("m", value)) => {
                options.rows = value.split(',').map(str::parse).collect::<Result<_, _>>()?
            }
            _ => return Err(format!("unknown argument '{argument}'").into()),
        }
    }
    Ok(options)
}

/// A weight as it is stored, and products with copies of it.
struct Bench {
    bytes: Vec<u8>,
    lists: Vec<Step>,
    /// How often a pass goes over all copies.
    repeats: usize,
}

impl Bench {
    fn new(
        device: &Device,
        options: &Options,
        dtype: DType,
        m: u64,
    ) -> Result<Self, Box<dyn Error>> {
        let (n, k) = (options.n, options.k);
        let row_bytes = dtype.row_bytes(k).ok_or("rows are not whole blocks")?;
        let mut bytes = vec![0; usize::try_from(n * row_bytes)?];
        ggml::random(dtype, 0.02, &mut SplitMix64(1), &mut bytes)?;
        let copies = options.working_set.div_ceil(bytes.len()).max(1);
        let input: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
        let input = device.tensor(&[m, k], &input)?;
        let output = device.zeros(DType::F32, &[m, n])?;
        let list = |weight: Tensor| -> Result<Step, Box<dyn Error>> {
            let mut list = device.record();
            list.push(MatMul {
                weight,
                input: input.clone(),
                bias: None,
                output: output.clone(),
            })?;
            Ok(list.finish()?)
        };
        let weights = (0..copies).map(|_| {
            let weight = device.tensor_from_bytes(dtype, &[n, k], &bytes)?;
            if !options.packed {
                return list(weight);
            }
            let packed = device.pack(&[weight])?.remove(0);
            match packed.is_packed() {
                true => list(packed),
                false => Err("this instruction set has no kernels for such packed weights".into()),
            }
        });
        Ok(Self {
            lists: weights.collect::<Result<_, _>>()?,
            repeats: PASS.div_ceil(copies * bytes.len()).max(1),
            bytes,
        })
    }

    /// The seconds of a product, on the mean of a pass.
    fn run(&self, device: &Device) -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        for list in (0..self.repeats).flat_map(|_| &self.lists) {
            device.run(list)?;
        }
        Ok(start.elapsed().as_secs_f64() / (self.repeats * self.lists.len()) as f64)
    }

    /// The seconds that reading the bytes of a weight takes some threads, on the mean of a pass over copies.
    fn read(&self, copies: &[Vec<u8>], threads: usize) -> f64 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    for copy in (0..self.repeats).flat_map(|_| copies) {
                        let share = copy.len().div_ceil(threads);
                        let from = (thread * share).min(copy.len());
                        sum(&copy[from..(from + share).min(copy.len())]);
                    }
                });
            }
        });
        start.elapsed().as_secs_f64() / (self.repeats * copies.len()) as f64
    }
}

/// Adds up some bytes, but for a rest of less than 256.
fn sum(bytes: &[u8]) {
    let mut sums = [0u64; 32];
    for chunk in bytes.chunks_exact(256) {
        for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    std::hint::black_box(sums);
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let device = walsh_cpu::open(CpuOptions {
        threads: Threads::Count(options.threads),
        isa: Some(options.isa),
        activations: options.activations,
        packing: PackWeights::Always,
    })?;
    println!(
        "{} threads, {}, activations in {}, medians",
        options.threads, options.isa, options.activations
    );
    println!(
        "{:>7} {:>5} {:>12} {:>12} {:>14}",
        "type", "m", "GB/s", "TFLOP/s", "share of read"
    );
    for &dtype in &options.types {
        for &m in &options.rows {
            let bench = Bench::new(&device, &options, dtype, m)?;
            let copies = vec![bench.bytes.clone(); bench.lists.len()];
            // In turns: how fast memory is changes from minute to minute.
            let (mut times, mut shares) = (Vec::new(), Vec::new());
            let start = Instant::now();
            while start.elapsed() < ROUND {
                let (read, run) = (bench.read(&copies, options.threads), bench.run(&device)?);
                times.push(run);
                shares.push(read / run);
            }
            let seconds = median(&mut times);
            println!(
                "{:>7} {m:>5} {:>12.1} {:>12.3} {:>14.2}",
                dtype.name(),
                bench.bytes.len() as f64 / seconds / 1e9,
                2.0 * (m * options.n * options.k) as f64 / seconds / 1e12,
                median(&mut shares),
            );
        }
    }
    Ok(())
}
