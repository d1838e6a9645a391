//! Where the time of a decoded token goes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;
use walsh::formats::kv::KvSpec;
use walsh::ops::{MatMul, MatMulTopK, Op};
use walsh::{CommandList, KernelTime};

use super::{arbitrary_tokens, median};
use crate::{Error, Model, Result, SessionOptions, Watch};

/// What to look at.
#[derive(Debug, Clone)]
pub struct ProfileOptions {
    /// How many tokens are in the cache.
    pub depth: usize,
    /// How keys and values are cached.
    pub kv: KvSpec,
    /// Over how many tokens times are averaged.
    pub tokens: usize,
    /// Setting it ends the run within a chunk of tokens.
    pub cancel: Arc<AtomicBool>,
}

/// The time of a decoded token, by op and by kernel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProfileReport {
    /// The model's name.
    pub model: String,
    /// The device and what its kernels were chosen for.
    pub device: String,
    /// How keys and values were cached.
    pub kv: String,
    /// How many tokens were in the cache.
    pub depth: usize,
    /// From the call to the next token's id, when the list is replayed as a whole.
    pub replay_microseconds: f64,
    /// The host's part of it: handing the list to the device. Absent where the host
    /// does the work itself.
    pub submit_microseconds: Option<f64>,
    /// The sum of all kernels' times, one by one.
    pub kernel_microseconds: f64,
    /// By what an op is and how large, the longest first.
    pub ops: Vec<ProfileRow>,
    /// By kernel, the longest first.
    pub kernels: Vec<ProfileRow>,
}

/// Equal ops, or launches of one kernel, of one token together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProfileRow {
    /// What they are.
    pub name: String,
    /// How many there are.
    pub calls: usize,
    /// How long they take together.
    pub microseconds: f64,
    /// That time's share of all kernels'.
    pub share: f64,
    /// The bytes that they must move at least; absent for kernels, several of which may
    /// carry out one op.
    pub bytes: Option<u64>,
    /// Those bytes per second.
    pub gigabytes_per_second: Option<f64>,
}

/// Profiles the decode of tokens.
///
/// # Errors
/// When the model cannot take the context, or the device does not time kernels one by
/// one. When it is cancelled.
pub fn profile(model: &Model, options: &ProfileOptions) -> Result<ProfileReport> {
    const WARM_UP: usize = 16;
    let tokens = options.tokens;
    let context = options.depth.checked_add(2 * tokens + 2 * WARM_UP);
    let context = context.filter(|_| tokens > 0).ok_or_else(|| {
        Error::measure(
            "there is nothing to profile: ask for a token, at a depth within the context",
        )
    })?;
    let mut session = model.session(SessionOptions {
        context,
        kv: options.kv.clone(),
        ..SessionOptions::default()
    })?;
    let watch = Watch::cancelled_by(&options.cancel);
    session.set_watch(watch.clone());
    let text = arbitrary_tokens(context, model.config().vocabulary);
    let (before, text) = text.split_at(options.depth);
    if !before.is_empty() {
        session.prefill(before)?;
    }
    let (replayed, profiled) = text.split_at(tokens + WARM_UP);
    let mut replays = Vec::with_capacity(tokens);
    let mut submitted = None;
    for (index, &token) in replayed.iter().enumerate() {
        if index == WARM_UP {
            session.make_screen()?;
            submitted = model.device().submit_seconds();
        }
        watch.check()?;
        let start = Instant::now();
        session.decode_likeliest(token)?;
        if index >= WARM_UP {
            replays.push(start.elapsed().as_secs_f64());
        }
    }
    let submit = submitted.zip(model.device().submit_seconds());
    let mut sums = Sums::default();
    for (index, &token) in profiled.iter().enumerate() {
        watch.check()?;
        let stored = session.position() as u64 + 1;
        let mut ignored = Sums::default();
        let sums = if index < WARM_UP {
            &mut ignored
        } else {
            &mut sums
        };
        session.profile(token, &mut |list, times| sums.add(list, times, stored))?;
    }
    let properties = model.device().properties();
    let kernel_microseconds = sums.total / tokens as f64;
    Ok(ProfileReport {
        model: model.name().to_owned(),
        device: properties.to_string(),
        kv: options.kv.to_string(),
        depth: options.depth,
        replay_microseconds: 1e6 * median(&replays),
        submit_microseconds: submit.map(|(from, to)| 1e6 * (to - from) / tokens as f64),
        kernel_microseconds,
        ops: sums.rows(sums.ops.clone(), tokens),
        kernels: sums.rows(sums.kernels.clone(), tokens),
    })
}

/// What is known of several tokens together.
#[derive(Debug, Default)]
struct Sums {
    /// Microseconds.
    total: f64,
    ops: Vec<Sum>,
    kernels: Vec<Sum>,
}

#[derive(Debug, Clone)]
struct Sum {
    name: String,
    calls: usize,
    microseconds: f64,
    bytes: Option<u64>,
}

impl Sums {
    /// Adds what the kernels of one token took.
    fn add(&mut self, list: &CommandList, times: &[KernelTime], stored: u64) {
        for command in list.commands() {
            let bytes = command.op.cost(stored).bytes;
            put(&mut self.ops, &label(&command.op), 0.0, Some(bytes));
        }
        for time in times {
            let microseconds = 1e6 * time.seconds;
            self.total += microseconds;
            put(&mut self.kernels, &time.kernel, microseconds, None);
            let command = list.commands().get(time.command);
            let name = command.map(|command| label(&command.op));
            if let Some(sum) = self
                .ops
                .iter_mut()
                .find(|sum| Some(&sum.name) == name.as_ref())
            {
                sum.microseconds += microseconds;
            }
        }
    }

    /// The averages of so many tokens, the longest first.
    fn rows(&self, mut sums: Vec<Sum>, tokens: usize) -> Vec<ProfileRow> {
        sums.sort_by(|a, b| b.microseconds.total_cmp(&a.microseconds));
        let row = |sum: Sum| {
            let bytes = sum.bytes.map(|bytes| bytes / tokens as u64);
            let microseconds = sum.microseconds / tokens as f64;
            let rate =
                |bytes: u64| (microseconds > 0.0).then_some(bytes as f64 / microseconds / 1e3);
            ProfileRow {
                name: sum.name,
                calls: sum.calls / tokens,
                microseconds,
                share: sum.microseconds / self.total.max(f64::MIN_POSITIVE),
                bytes,
                gigabytes_per_second: bytes.and_then(rate),
            }
        };
        sums.into_iter().map(row).collect()
    }
}

/// One more call of this name.
fn put(sums: &mut Vec<Sum>, name: &str, microseconds: f64, bytes: Option<u64>) {
    let index = sums.iter().position(|sum| sum.name == name);
    let index = index.unwrap_or_else(|| {
        sums.push(Sum {
            name: name.to_owned(),
            calls: 0,
            microseconds: 0.0,
            bytes: bytes.map(|_| 0),
        });
        sums.len() - 1
    });
    let sum = &mut sums[index];
    sum.calls += 1;
    sum.microseconds += microseconds;
    sum.bytes = sum.bytes.zip(bytes).map(|(all, more)| all + more);
}

/// What an op is and how large: the same for the same part of every layer.
fn label(op: &Op) -> String {
    let name = op.name();
    match op {
        Op::MatMul(MatMul { weight, .. }) | Op::MatMulTopK(MatMulTopK { weight, .. }) => {
            format!("{name} {} {:?}", weight.dtype(), weight.shape())
        }
        Op::Attention(op) => match op.mask.window {
            Some(window) => format!("{name} {} within {window}", op.cache.codecs()),
            None => format!("{name} {}", op.cache.codecs()),
        },
        Op::RmsNorm(op) => format!("{name} {:?}", op.input.shape()),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use walsh::ops::{ArgMax, SoftCap};
    use walsh::{DType, Step};

    use super::*;

    fn step() -> Step {
        let device = walsh::open("cpu:threads=1").expect("the processor");
        let zeros = |dtype, shape: &[u64]| device.zeros(dtype, shape).expect("memory");
        let (input, output) = (zeros(DType::F32, &[1, 32]), zeros(DType::F32, &[1, 8]));
        let mut list = device.record();
        for _ in 0..2 {
            let product = MatMul {
                weight: zeros(DType::Q8_0, &[8, 32]),
                input: input.clone(),
                bias: None,
                output: output.clone(),
            };
            list.push(product).expect("a product");
        }
        let cap = SoftCap {
            input: output.clone(),
            cap: 1.0,
            output: output.clone(),
        };
        list.push(cap).expect("a cap");
        let largest = ArgMax {
            input: output,
            output: zeros(DType::I32, &[1]),
        };
        list.push(largest).expect("a choice");
        list.finish().expect("a list")
    }

    #[test]
    fn kernels_are_summed_by_op_and_by_name() {
        let step = step();
        let time = |command, kernel: &str, microseconds: f64| KernelTime {
            command,
            kernel: kernel.to_owned(),
            seconds: 1e-6 * microseconds,
        };
        let times = [
            time(0, "quantise", 1.0),
            time(0, "product", 4.0),
            time(1, "product", 5.0),
            time(3, "arg_max", 2.0),
        ];
        let mut sums = Sums::default();
        for _ in 0..3 {
            sums.add(step.list(), &times, 0);
        }
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(sums.total, 36.0);
        let rows = sums.rows(sums.ops.clone(), 3);
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["MatMul q8_0 [8, 32]", "ArgMax", "SoftCap"]);
        assert_eq!(rows[0].calls, 2);
        near(rows[0].microseconds, 10.0);
        near(rows[0].share, 10.0 / 12.0);
        assert_eq!(rows[0].bytes, Some(2 * (8 * 34 + 128 + 32)));
        near(
            rows[0].gigabytes_per_second.expect("a rate"),
            864.0 / 10.0 / 1e3,
        );
        assert_eq!(
            (rows[2].microseconds, rows[2].gigabytes_per_second),
            (0.0, None)
        );
        let rows = sums.rows(sums.kernels.clone(), 3);
        assert_eq!((rows[0].name.as_str(), rows[0].calls), ("product", 2));
        near(rows[0].microseconds, 9.0);
        assert_eq!(rows[0].bytes, None);
    }
}
