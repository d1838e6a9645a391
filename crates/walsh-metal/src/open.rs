//! Opening a GPU, and looking at what there is.

use walsh_core::{Device, Result};
use walsh_kernels::Variant;

use crate::api::Facts;
use crate::device::{MetalOptions, check, failure, spec};

/// A GPU that Metal sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundGpu {
    /// Its number: it is the device `metal:ORDINAL`.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// The bytes that it works on without moving memory.
    pub memory: u64,
    /// Why Walsh does not use it, where that is so.
    pub problem: Option<String>,
}

/// What a machine has for Metal, for people who ask why it does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// The GPUs that Metal sees.
    pub gpus: Vec<FoundGpu>,
}

impl Examination {
    /// The same for people, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if self.gpus.is_empty() {
            return vec!["Metal sees no GPU".into()];
        }
        let line = |gpu: &FoundGpu| {
            let problem = gpu.problem.as_ref().map(|problem| format!(": {problem}"));
            format!(
                "metal:{} is {}, {:.1} GiB{}",
                gpu.ordinal,
                gpu.name,
                gpu.memory as f64 / f64::from(1u32 << 30),
                problem.unwrap_or_default()
            )
        };
        self.gpus.iter().map(line).collect()
    }
}

/// Looks at the machine; opens no device.
#[must_use]
pub fn examine() -> Examination {
    #[cfg(target_vendor = "apple")]
    let facts = crate::apple::gpus();
    #[cfg(not(target_vendor = "apple"))]
    let facts = Vec::new();
    let found = |(ordinal, facts): (u32, Facts)| FoundGpu {
        ordinal,
        problem: check(&facts).err(),
        name: facts.name,
        memory: facts.working_set,
    };
    Examination {
        gpus: (0..).zip(facts).map(found).collect(),
    }
}

/// Opens an Apple GPU as a device.
///
/// Host memory that it imports is read where it lies if it begins a page, as a mapped file does; other memory is copied.
///
/// # Errors
/// When there is no such GPU, it lacks what the kernels need, or this system has no Metal; the text says what to do.
pub fn open(options: MetalOptions) -> Result<Device> {
    let spec = spec(options.ordinal);
    #[cfg(target_vendor = "apple")]
    {
        let api = crate::apple::Apple::open(options.ordinal);
        crate::backend::device(api.map_err(|why| failure(&spec, why))?, options)
    }
    #[cfg(not(target_vendor = "apple"))]
    {
        Err(failure(&spec, NO_METAL))
    }
}

/// Has a GPU's compiler make a pipeline of each variant, as a list would; what it does not take, each with the kernel's
/// name and the compiler's words.
///
/// # Errors
/// As [`open`].
pub fn refused(ordinal: u32, variants: &[&Variant]) -> Result<Vec<String>> {
    #[cfg(target_vendor = "apple")]
    {
        let api = crate::apple::Apple::open(ordinal).map_err(|why| failure(&spec(ordinal), why))?;
        Ok(crate::pipelines::refused(&api, variants))
    }
    #[cfg(not(target_vendor = "apple"))]
    {
        let _ = variants;
        Err(failure(&spec(ordinal), NO_METAL))
    }
}

/// Why there is no device elsewhere.
#[cfg(not(target_vendor = "apple"))]
const NO_METAL: &str = "this system has no Metal, which is Apple's: use another device";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_in_lines() {
        let gpu = |ordinal, problem: Option<&str>| FoundGpu {
            ordinal,
            name: "Apple M2".into(),
            memory: 16 << 30,
            problem: problem.map(Into::into),
        };
        let none = Examination { gpus: Vec::new() };
        assert_eq!(none.lines(), ["Metal sees no GPU"]);
        let gpus = vec![gpu(0, None), gpu(1, Some("too old"))];
        let line = "is Apple M2, 16.0 GiB";
        assert_eq!(
            Examination { gpus }.lines(),
            [
                format!("metal:0 {line}"),
                format!("metal:1 {line}: too old")
            ]
        );
    }

    #[cfg(not(target_vendor = "apple"))]
    #[test]
    fn elsewhere_opening_says_that_there_is_no_metal() {
        let error = open(MetalOptions::default()).unwrap_err().to_string();
        assert!(
            error.starts_with("metal:0: ") && error.contains("no Metal"),
            "{error}"
        );
    }
}
