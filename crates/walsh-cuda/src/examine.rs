//! What a machine has for CUDA, for people who ask why it does not work.

use std::path::Path;

use crate::backend::architecture;
use crate::context::Gpu;
use crate::driver::{Driver, version_text};
use crate::nvrtc::Nvrtc;

/// What is there, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// The version of CUDA that the driver is for, or why there is none.
    pub driver: Result<String, String>,
    /// NVRTC's version, or why there is none.
    pub nvrtc: Result<String, String>,
    /// The GPUs that the driver sees.
    pub gpus: Vec<FoundGpu>,
}

/// A GPU that the driver sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundGpu {
    /// Its number: it is the device `cuda:ORDINAL`.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// The size of its memory in bytes.
    pub memory: u64,
    /// What its kernels are compiled for.
    pub architecture: String,
    /// Why Walsh does not use it, where that is so.
    pub problem: Option<String>,
}

impl Examination {
    /// The same for people, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let part = |name: &str, version: &Result<String, String>| match version {
            Ok(version) => format!("{name} {version}"),
            Err(problem) => problem.clone(),
        };
        let mut lines = vec![
            part("driver for CUDA", &self.driver),
            part("NVRTC", &self.nvrtc),
        ];
        if self.driver.is_ok() && self.gpus.is_empty() {
            lines.push("the driver sees no GPU".into());
        }
        for gpu in &self.gpus {
            let problem = gpu.problem.as_ref().map(|problem| format!(": {problem}"));
            lines.push(format!(
                "cuda:{} is {}, {:.1} GiB, {}{}",
                gpu.ordinal,
                gpu.name,
                gpu.memory as f64 / f64::from(1u32 << 30),
                gpu.architecture,
                problem.unwrap_or_default()
            ));
        }
        lines
    }
}

/// Looks at the machine; opens no device.
#[must_use]
pub fn examine(nvrtc: Option<&Path>) -> Examination {
    let driver = Driver::get();
    let gpus = match &driver {
        Ok(driver) => (0..Gpu::count(driver).unwrap_or(0))
            .map(|ordinal| found(driver, ordinal))
            .collect(),
        Err(_) => Vec::new(),
    };
    Examination {
        driver: driver.map(|driver| version_text(driver.version)),
        nvrtc: Nvrtc::load(nvrtc).map(|nvrtc| nvrtc.version()),
        gpus,
    }
}

fn found(driver: &Driver, ordinal: u32) -> FoundGpu {
    match Gpu::examine(driver, ordinal) {
        Ok(gpu) => FoundGpu {
            ordinal,
            architecture: architecture(&gpu),
            problem: gpu.check().err(),
            name: gpu.name,
            memory: gpu.memory,
        },
        Err(problem) => FoundGpu {
            ordinal,
            name: "unknown".into(),
            memory: 0,
            architecture: "unknown".into(),
            problem: Some(problem),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_and_what_is_missing_are_told_apart() {
        let mut found = Examination {
            driver: Ok("13.0".into()),
            nvrtc: Err("there is no NVRTC: install it".into()),
            gpus: Vec::new(),
        };
        assert_eq!(
            found.lines(),
            [
                "driver for CUDA 13.0",
                "there is no NVRTC: install it",
                "the driver sees no GPU"
            ]
        );
        found.nvrtc = Ok("13.0".into());
        found.gpus.push(FoundGpu {
            ordinal: 0,
            name: "NVIDIA H200".into(),
            memory: 140 << 30,
            architecture: "sm_90a".into(),
            problem: None,
        });
        let line = "cuda:0 is NVIDIA H200, 140.0 GiB, sm_90a";
        assert_eq!(found.lines()[1..], ["NVRTC 13.0", line]);
        found.gpus[0].problem = Some("too old".into());
        assert_eq!(found.lines()[2], format!("{line}: too old"));
    }

    #[test]
    fn looking_at_any_machine_gives_lines_without_breaks() {
        let lines = examine(None).lines();
        assert!(lines.len() >= 2);
        assert!(
            lines
                .iter()
                .all(|line| !line.is_empty() && !line.contains('\n'))
        );
    }
}
