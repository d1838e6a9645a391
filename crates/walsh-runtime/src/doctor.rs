//! What Walsh finds on a machine.

use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use serde::Serialize;
use walsh::{BACKENDS, Device};

/// A machine's description.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// Walsh's version.
    pub version: &'static str,
    /// The processor.
    pub cpu: Cpu,
    /// What all threads together read from memory, in 10⁹ bytes per second.
    pub memory_gigabytes_per_second: f64,
    /// The interpreter that fetches models.
    pub python: Tool,
    /// Its package installer.
    pub pip: Tool,
    /// Every backend that Walsh is designed for.
    pub backends: Vec<BackendState>,
}

/// A processor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cpu {
    /// Its name, where the system tells it.
    pub name: Option<String>,
    /// The threads that a device takes unless told otherwise.
    pub threads: usize,
    /// The features that kernels ask for and that are there.
    pub features: Vec<&'static str>,
    /// The instruction set that is chosen.
    pub instruction_set: String,
    /// All that would run here.
    pub available: Vec<String>,
}

/// A program that is needed to fetch models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tool {
    /// Whether it answers.
    pub found: bool,
    /// Its version, or what to do.
    pub detail: String,
}

/// A backend, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendState {
    /// Its name.
    pub name: &'static str,
    /// Whether this build has it.
    pub in_build: bool,
    /// What to do where it is missing.
    pub remedy: &'static str,
    /// What this machine has for it, in a line or a few.
    pub state: Vec<String>,
}

/// Looks at the machine; takes about half a second.
#[must_use]
pub fn diagnose(device: &Device) -> Diagnosis {
    let properties = device.properties();
    let python = tool(
        &["--version"],
        "install Python 3: it fetches the named models",
    );
    let pip = if python.found {
        tool(
            &["-m", "pip", "--version"],
            "install pip for Python 3: it fetches the named models",
        )
    } else {
        Tool {
            found: false,
            detail: "needs Python 3".to_owned(),
        }
    };
    Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        cpu: Cpu {
            name: cpu_name(),
            threads: properties.parallelism,
            features: features(),
            instruction_set: properties.architecture.clone(),
            available: walsh::Isa::available()
                .iter()
                .map(ToString::to_string)
                .collect(),
        },
        memory_gigabytes_per_second: read_bandwidth(properties.parallelism),
        python,
        pip,
        backends: BACKENDS
            .iter()
            .map(|backend| BackendState {
                name: backend.name,
                in_build: backend.in_build,
                remedy: if backend.in_build { "" } else { backend.remedy },
                state: backend.state(),
            })
            .collect(),
    }
}

fn cpu_name() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    macro_rules! present {
        ($($name:tt),*) => {
            [$(($name, is_x86_feature_detected!($name))),*]
        };
    }
    let all = present!(
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512vnni",
        "avx512vbmi",
        "avx512bf16",
        "avxvnni"
    );
    all.into_iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    macro_rules! present {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_aarch64_feature_detected!($name))),*]
        };
    }
    let all = present!("neon", "dotprod", "i8mm", "fp16", "bf16", "sve", "sve2");
    all.into_iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

/// The first line that `python3` prints when called with `arguments`.
fn tool(arguments: &[&str], remedy: &str) -> Tool {
    let output = Command::new("python3").args(arguments).output();
    let text = match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines().next().map(|line| line.trim().to_owned())
        }
        _ => None,
    };
    match text {
        Some(detail) => Tool {
            found: true,
            detail,
        },
        None => Tool {
            found: false,
            detail: remedy.to_owned(),
        },
    }
}

/// What so many threads together read from memory, in 10⁹ bytes per second: the best
/// of a few passes over memory that no cache holds.
#[must_use]
pub fn read_bandwidth(threads: usize) -> f64 {
    const BYTES: usize = 256 << 20;
    const PASSES: usize = 4;
    let memory = vec![1u64; BYTES / size_of::<u64>()];
    let share = memory.len().div_ceil(threads.max(1));
    let mut best = 0.0f64;
    for _ in 0..PASSES {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in memory.chunks(share) {
                scope.spawn(move || black_box(sum(part)));
            }
        });
        best = best.max(BYTES as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// Many sums side by side, so that reading is all that takes time.
fn sum(part: &[u64]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in part.chunks_exact(32) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*value);
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}
