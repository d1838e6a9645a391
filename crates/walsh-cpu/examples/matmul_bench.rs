//! Times matrix products for each weight type: bytes of weight per second with one row of input, operations per second
//! with many. Every figure stands beside the speed of plainly reading memory, measured just before it.
//!
//! `cargo run --release -p walsh-cpu --example matmul_bench -- [threads=2] [isa=avx512] [activations=int8] [type=q4_0,q8_0] [m=1,64,512] [n=14336] [k=4096] [packed=true] [set=192]`
//!
//! `set` is how many MiB of weights are passed over before any is read again; 0 keeps one copy in the caches.

use std::error::Error;
use std::ops::Range;
use std::time::{Duration, Instant};

use walsh_cpu::Activations;
use walsh_cpu::isa::Isa;
use walsh_cpu::matmul::{InputLayout, Operands, Packing, ProductPlan, ProductShape};
use walsh_cpu::team::{Group, Phase, Scratch, Team};
use walsh_formats::DType;

/// How long a product is repeated between two measurements of the memory.
const ROUND: Duration = Duration::from_millis(600);

struct Options {
    threads: usize,
    isa: Isa,
    activations: Activations,
    types: Vec<DType>,
    rows: Vec<usize>,
    packed: bool,
    n: usize,
    k: usize,
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

/// Brings the input into the kernel's form.
struct Prepare {
    layout: InputLayout,
    input: *const f32,
    prepared: *mut u8,
}

// SAFETY: the pointers are to buffers that outlive the runs, and each run writes disjoint parts.
unsafe impl Send for Prepare {}
// SAFETY: as above.
unsafe impl Sync for Prepare {}

impl Phase for Prepare {
    fn items(&self) -> usize {
        self.layout.items()
    }

    fn cost(&self) -> u64 {
        self.layout.cost()
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        // SAFETY: the buffers have the sizes of the layout.
        unsafe { self.layout.prepare(items, self.input, self.prepared) }
    }
}

struct Product {
    plan: ProductPlan,
    operands: Operands,
}

// SAFETY: as for `Prepare`.
unsafe impl Send for Product {}
// SAFETY: as for `Prepare`.
unsafe impl Sync for Product {}

impl Phase for Product {
    fn items(&self) -> usize {
        self.plan.items()
    }

    fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    fn cost(&self) -> u64 {
        self.plan.cost()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        // SAFETY: the buffers have the sizes of the plan.
        unsafe { self.plan.run(items, self.operands, scratch.bytes()) }
    }
}

/// Adds up some bytes, but for a rest of less than 256.
struct Read(*const u8, usize);

// SAFETY: as for `Prepare`.
unsafe impl Send for Read {}
// SAFETY: as for `Prepare`.
unsafe impl Sync for Read {}

impl Phase for Read {
    fn items(&self) -> usize {
        self.1.div_ceil(1 << 16)
    }

    fn cost(&self) -> u64 {
        u64::MAX
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        // SAFETY: the buffer has these bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.0, self.1) };
        let bytes = &bytes[items.start << 16..(items.end << 16).min(self.1)];
        let mut sums = [0u64; 32];
        for chunk in bytes.chunks_exact(256) {
            for (sum, word) in sums.iter_mut().zip(chunk.chunks_exact(8)) {
                *sum = sum.wrapping_add(u64::from_le_bytes(word.try_into().unwrap_or_default()));
            }
        }
        std::hint::black_box(sums);
    }
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The time of one run.
fn time(team: &Team, groups: &[Group]) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    // SAFETY: the phases' buffers are alive, and phases of one group touch different ones.
    unsafe { team.run(groups)? };
    Ok(start.elapsed())
}

/// Weights of moderate size: random bytes would hold infinities and numbers too small for full speed.
fn weights(dtype: DType, shape: [usize; 2]) -> Result<Vec<u8>, Box<dyn Error>> {
    let [n, k] = shape;
    let row_bytes = dtype
        .row_bytes(k as u64)
        .ok_or("rows are not whole blocks")?;
    let mut bytes = vec![0; n * usize::try_from(row_bytes)?];
    let mut state = 1u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u32
    };
    if dtype.is_quantised() {
        // With these bits the halves among the bytes are finite.
        bytes
            .iter_mut()
            .for_each(|byte| *byte = random() as u8 & 0x3b);
    } else {
        let values: Vec<f32> = (0..n * k)
            .map(|_| random() as f32 / (1u32 << 30) as f32 - 1.0)
            .collect();
        walsh_formats::ggml::encode(dtype, &values, &mut bytes)?;
    }
    Ok(bytes)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let team = Team::new(options.threads)?;
    println!(
        "{} threads, {}, activations in {}, medians",
        options.threads, options.isa, options.activations
    );
    println!(
        "{:>7} {:>5} {:>12} {:>12} {:>14}",
        "type", "m", "GB/s", "TFLOP/s", "share of read"
    );
    let (n, k) = (options.n, options.k);
    for &dtype in &options.types {
        for &m in &options.rows {
            let mut weights = weights(dtype, [n, k])?;
            if options.packed {
                let packing = Packing::new(options.isa, dtype, n, k)
                    .ok_or("this instruction set has no kernels for such packed weights")?;
                let mut packed = vec![0; packing.bytes()];
                for (index, panel) in packed.chunks_exact_mut(packing.panel_bytes()).enumerate() {
                    // SAFETY: the weight and the panel have the sizes of the packing.
                    unsafe { packing.pack(index, weights.as_ptr(), panel.as_mut_ptr()) };
                }
                weights = packed;
            }
            let copies = options.working_set.div_ceil(weights.len()).max(1);
            let all: Vec<Vec<u8>> = (0..copies).map(|_| weights.clone()).collect();
            let plan = ProductPlan::new(
                options.isa,
                options.threads,
                options.activations,
                ProductShape {
                    weight: dtype,
                    m,
                    n,
                    k,
                    packed: options.packed,
                },
            )?;
            let layout = *plan.layout();
            let input: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
            let mut prepared = Scratch::new();
            prepared.reserve(layout.bytes());
            let prepared = prepared.bytes().as_mut_ptr();
            let mut output = vec![0.0f32; m * n];
            let operands = |weights: &[u8]| Operands {
                weight: weights.as_ptr(),
                input: if layout.is_plain() {
                    input.as_ptr().cast()
                } else {
                    prepared
                },
                bias: None,
                output: output.as_mut_ptr(),
            };
            let mut operands = operands;
            let runs: Vec<[Group; 2]> = all
                .iter()
                .map(|weights| {
                    let prepare = Prepare {
                        layout,
                        input: input.as_ptr(),
                        prepared,
                    };
                    let product = Product {
                        plan: plan.clone(),
                        operands: operands(weights),
                    };
                    [
                        Group::new(vec![Box::new(prepare)]),
                        Group::new(vec![Box::new(product)]),
                    ]
                })
                .collect();
            let reads: Vec<[Group; 1]> = all
                .iter()
                .map(|weights| {
                    [Group::new(vec![Box::new(Read(
                        weights.as_ptr(),
                        weights.len(),
                    ))])]
                })
                .collect();
            // In turns, and each beside its neighbour: how fast memory is changes from minute to minute.
            let (mut times, mut shares) = (Vec::new(), Vec::new());
            let start = Instant::now();
            for (reads, runs) in reads.iter().zip(runs.iter().rev()).cycle() {
                let (read, run) = (time(&team, reads)?, time(&team, runs)?);
                times.push(run.as_secs_f64());
                shares.push(read.as_secs_f64() / run.as_secs_f64());
                if start.elapsed() > ROUND {
                    break;
                }
            }
            let bytes = weights.len() as f64;
            let seconds = median(&mut times);
            println!(
                "{:>7} {m:>5} {:>12.1} {:>12.3} {:>14.2}",
                dtype.name(),
                bytes / seconds / 1e9,
                2.0 * (m * n * k) as f64 / seconds / 1e12,
                median(&mut shares),
            );
        }
    }
    Ok(())
}
