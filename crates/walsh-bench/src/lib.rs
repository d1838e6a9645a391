//! What single ops take, at the sizes that models have.
//!
//! A list holds many copies of an op, each with inputs of its own, more of them than caches hold, and all
//! with one output, so that each waits for the one before: what is timed is what the op takes within a
//! model. The time is the median over replays of the list.

mod maker;
mod workloads;

use std::fs;
use std::time::{Duration, Instant};

use serde::Serialize;
use walsh::ops::{Cost, Op};
use walsh::{Device, Result, Step};

pub use maker::Maker;
pub use workloads::{Sizes, Workload, workloads};

/// How thoroughly to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// The least time that replays of a list are measured for.
    pub time: Duration,
    /// The least time that one replay should take: the host's part in it is then small.
    pub replay: Duration,
    /// How large the tensors are.
    pub sizes: Sizes,
    /// Over how many inputs a list rotates at most.
    pub sets: usize,
}

impl Effort {
    /// Figures to be reported.
    pub const FULL: Self = Self {
        time: Duration::from_millis(250),
        replay: Duration::from_millis(2),
        sizes: Sizes::MODEL,
        sets: MOST_SETS,
    };

    /// To see that everything runs.
    pub const QUICK: Self = Self {
        time: Duration::from_millis(1),
        replay: Duration::ZERO,
        sizes: Sizes::SMALL,
        sets: 2,
    };
}

/// What a device can do at best, measured in the same run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ceilings {
    /// Bytes per second between memory and processor.
    pub bytes_per_second: f64,
    /// Multiplications and additions per second of a large product with a weight in f16.
    pub operations_per_second: f64,
}

/// One op's figures, or why there are none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// The op.
    pub op: &'static str,
    /// What is particular about the workload.
    pub name: String,
    /// The median time of one op.
    pub microseconds: Option<f64>,
    /// The bytes that it must move at least, per second.
    pub gigabytes_per_second: Option<f64>,
    /// The multiplications and additions of products and attention, per second.
    pub teraflops: Option<f64>,
    /// The share of the ceiling that is nearer: of memory, or of products.
    pub share: Option<f64>,
    /// Which ceiling is nearer: `memory` or `product`.
    pub bound: Option<&'static str>,
    /// Over how many inputs the ops of a list rotate.
    pub rotation: usize,
    /// Why nothing was measured.
    pub error: Option<String>,
}

/// The most ops of a list.
const MOST_OPS: usize = 512;

/// The most inputs that a list rotates over.
const MOST_SETS: usize = 64;

/// Measures a workload. What goes wrong is part of the result: other workloads may do.
#[must_use]
pub fn measure(
    device: &Device,
    workload: &Workload,
    effort: Effort,
    ceilings: Option<Ceilings>,
) -> Measurement {
    let mut measurement = Measurement {
        op: workload.op,
        name: workload.name.clone(),
        microseconds: None,
        gigabytes_per_second: None,
        teraflops: None,
        share: None,
        bound: None,
        rotation: 0,
        error: None,
    };
    match timed(device, workload, effort) {
        Ok(timed) => measurement.set(timed, ceilings),
        Err(error) => measurement.error = Some(error.to_string()),
    }
    measurement
}

/// What one op of a workload takes.
struct Timed {
    seconds: f64,
    cost: Cost,
    sets: usize,
}

impl Measurement {
    fn set(&mut self, timed: Timed, ceilings: Option<Ceilings>) {
        let Timed {
            seconds,
            cost,
            sets,
        } = timed;
        let bytes = cost.bytes as f64 / seconds;
        let operations = cost.operations as f64 / seconds;
        self.rotation = sets;
        self.microseconds = Some(seconds * 1e6);
        self.gigabytes_per_second = Some(bytes / 1e9);
        self.teraflops = (cost.operations > 0).then_some(operations / 1e12);
        if let Some(ceilings) = ceilings {
            let memory = bytes / ceilings.bytes_per_second;
            let product = operations / ceilings.operations_per_second;
            let (share, bound) = match memory >= product {
                true => (memory, "memory"),
                false => (product, "product"),
            };
            (self.share, self.bound) = (Some(share), Some(bound));
        }
    }
}

fn timed(device: &Device, workload: &Workload, effort: Effort) -> Result<Timed> {
    let mut maker = Maker::new(device);
    let mut ops = vec![workload.op(&mut maker, 0)?];
    let cost = ops[0].cost(workload.stored);
    // Several times what the last cache holds, so that next to nothing of a set is left when its turn comes again.
    let sets = (6 * cache_bytes(device)).div_ceil(cost.bytes.max(1));
    let sets = (sets as usize).clamp(1, effort.sets);
    for index in 1..sets {
        ops.push(workload.op(&mut maker, index)?);
    }
    let once = record(device, &ops, 1)?;
    // Kernels are compiled and memory is touched on the first run.
    device.run(&once)?;
    let took = run(device, &once)?;
    let wanted = effort.replay.as_secs_f64() / took.as_secs_f64().max(1e-9);
    let repeats = (wanted.ceil() as usize).clamp(1, (MOST_OPS / sets).max(1));
    let step = match repeats {
        1 => once,
        repeats => record(device, &ops, repeats)?,
    };
    let list = median(device, &step, effort.time)?;
    Ok(Timed {
        seconds: list.as_secs_f64() / (sets * repeats) as f64,
        cost,
        sets,
    })
}

fn record(device: &Device, ops: &[Op], repeats: usize) -> Result<Step> {
    let mut list = device.record();
    for op in std::iter::repeat_n(ops, repeats).flatten() {
        list.push(op.clone())?;
    }
    list.finish()
}

fn run(device: &Device, step: &Step) -> Result<Duration> {
    let start = Instant::now();
    device.run(step)?;
    Ok(start.elapsed())
}

fn median(device: &Device, step: &Step, least: Duration) -> Result<Duration> {
    const FEWEST: usize = 5;
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < least || times.len() < FEWEST {
        times.push(run(device, step)?);
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// The rate of a product of many rows with a weight in f16, which is what other products are held against.
///
/// # Errors
/// When the device fails, or has no such kernel.
pub fn product_rate(device: &Device, effort: Effort) -> Result<f64> {
    let timed = timed(device, &effort.sizes.product(), effort)?;
    Ok(timed.cost.operations as f64 / timed.seconds)
}

/// What the device's last cache holds, as far as that is known.
fn cache_bytes(device: &Device) -> u64 {
    /// At least the second-level cache of any GPU that this was written for.
    const LARGE: u64 = 64 << 20;
    match device.properties().backend {
        "cpu" => processor_cache_bytes().unwrap_or(LARGE),
        _ => LARGE,
    }
}

/// The largest cache that the system tells of.
fn processor_cache_bytes() -> Option<u64> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let sizes = caches.filter_map(|cache| {
        let text = fs::read_to_string(cache.ok()?.path().join("size")).ok()?;
        let kilobytes: u64 = text.trim().strip_suffix('K')?.parse().ok()?;
        Some(kilobytes << 10)
    });
    sizes.max()
}

/// The names of the ops that are measured.
#[must_use]
pub fn ops() -> Vec<&'static str> {
    let mut names: Vec<_> = workloads(&Sizes::SMALL)
        .iter()
        .map(|workload| workload.op)
        .collect();
    // Those of an op stand together, but where one runs at several numbers of rows.
    let mut seen = Vec::new();
    names.retain(|name| {
        let new = !seen.contains(name);
        seen.extend(new.then_some(*name));
        new
    });
    names
}

/// The op with this name, in either case.
#[must_use]
pub fn op_named(name: &str) -> Option<&'static str> {
    ops().into_iter().find(|op| op.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_runs() {
        let device = walsh::open("cpu:threads=2").expect("the processor");
        let effort = Effort {
            time: Duration::ZERO,
            ..Effort::QUICK
        };
        for workload in workloads(&effort.sizes) {
            let measured = measure(&device, &workload, effort, None);
            assert_eq!(measured.error, None, "{}", workload.name);
            assert!(measured.microseconds.is_some_and(|time| time > 0.0));
            assert!(measured.gigabytes_per_second.is_some_and(|rate| rate > 0.0));
        }
    }

    #[test]
    fn figures_follow_from_times_and_ceilings() {
        let device = walsh::open("cpu:threads=1").expect("the processor");
        let workload = Effort::QUICK.sizes.product();
        let mut measured = measure(&device, &workload, Effort::QUICK, None);
        let timed = |bytes, operations| Timed {
            seconds: 1e-6,
            cost: Cost { bytes, operations },
            sets: 3,
        };
        let ceilings = Some(Ceilings {
            bytes_per_second: 1e9,
            operations_per_second: 1e12,
        });
        measured.set(timed(500, 0), ceilings);
        assert_eq!(measured.microseconds, Some(1.0));
        assert!(
            measured
                .share
                .is_some_and(|share| (share - 0.5).abs() < 1e-9)
        );
        assert_eq!((measured.bound, measured.teraflops), (Some("memory"), None));
        measured.set(timed(500, 900_000), ceilings);
        assert!(
            measured
                .share
                .is_some_and(|share| (share - 0.9).abs() < 1e-9)
        );
        assert_eq!(measured.bound, Some("product"));
    }

    #[test]
    fn every_op_is_measured() {
        let ops = ops();
        for name in walsh::ops::Op::NAMES {
            assert!(ops.contains(name), "{name}");
        }
    }

    #[test]
    fn ops_are_found_by_name() {
        assert_eq!(op_named("kvstore"), Some("KvStore"));
        assert_eq!(op_named("Conv"), None);
    }
}
