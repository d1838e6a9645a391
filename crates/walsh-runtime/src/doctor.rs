//! What Walsh finds on a machine.

use std::process::Command;

use serde::Serialize;
use walsh::{BACKENDS, Device};

use crate::Result;

/// A machine's description.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// Walsh's version.
    pub version: &'static str,
    /// The processor.
    pub cpu: Cpu,
    /// What all threads of the device together read from memory, in 10⁹ bytes per second.
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
///
/// # Errors
/// When the device fails while its memory is measured.
pub fn diagnose(device: &Device) -> Result<Diagnosis> {
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
    Ok(Diagnosis {
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
        memory_gigabytes_per_second: device.memory_bandwidth()? / 1e9,
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
    })
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

/// What Python 3 is called on this system.
pub(crate) const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };

/// The first line that Python prints when called with `arguments`.
fn tool(arguments: &[&str], remedy: &str) -> Tool {
    let output = Command::new(PYTHON).args(arguments).output();
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
