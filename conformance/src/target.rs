use walsh::ops::{AttentionDecode, AttentionPrefill, MatMul, Operation};
use walsh::{Activations, BACKENDS, BackendInfo, Device, DeviceSpec, Result};

/// A device to run the cases on.
#[derive(Debug, Clone)]
pub struct Target {
    /// How it was opened.
    pub name: String,
    /// The device.
    pub device: Device,
    /// Whether it has leave to approximate: [`Expected::Close`] says what for.
    ///
    /// [`Expected::Close`]: crate::Expected::Close
    pub approximates: bool,
}

impl Target {
    /// Opens the device that a spec names.
    ///
    /// # Errors
    /// What opening says.
    pub fn open(name: &str) -> Result<Self> {
        let spec: DeviceSpec = name.parse()?;
        Ok(Self {
            name: name.into(),
            device: spec.clone().open()?,
            approximates: match spec {
                DeviceSpec::Cpu(options) => options.activations == Activations::Int8,
                DeviceSpec::Cuda(options) => options.activations == Activations::Int8,
                _ => true,
            },
        })
    }

    /// Whether it runs an op as no other target does.
    ///
    /// A device whose products take activations as they are differs from one
    /// with the same instruction set in these and in attention over codes.
    #[must_use]
    pub fn is_for(&self, op: &str) -> bool {
        let differs = [MatMul::NAME, AttentionDecode::NAME, AttentionPrefill::NAME];
        self.approximates || differs.contains(&op)
    }

    /// Whether it has leave to approximate a case, whose name begins with its op's: products, and attention over codes
    /// on instruction sets that do it in integers.
    #[must_use]
    pub fn has_leave(&self, case: &str) -> bool {
        let integers = self.device.properties().architecture.starts_with("avx512");
        self.approximates && (integers || !case.starts_with("Attention"))
    }
}

/// Every device of this build, in every form: for the CPU, each instruction set
/// that the machine has with teams of one, two and three, and with activations
/// as they are; the first GPU, where there is one.
///
/// # Errors
/// When a device that should be there cannot be opened.
pub fn targets() -> Result<Vec<Target>> {
    let mut names = Vec::new();
    for isa in walsh::Isa::available() {
        for threads in 1..=3 {
            names.push(format!("cpu:threads={threads},isa={isa}"));
        }
        names.push(format!("cpu:threads=2,isa={isa},activations=f32"));
    }
    let mut targets = names
        .iter()
        .map(|name| Target::open(name))
        .collect::<Result<Vec<_>>>()?;
    for name in [GPU.to_owned(), format!("{GPU},activations=f32")] {
        targets.extend(Target::open(&name));
    }
    Ok(targets)
}

/// The GPU that cases run on.
const GPU: &str = "cuda:0";

/// The backends that did not run, each with the reason.
#[must_use]
pub fn missing_backends() -> Vec<String> {
    let reason = |backend: &&BackendInfo| match Target::open(GPU) {
        _ if !backend.in_build => Some("not in this build".to_owned()),
        Err(error) if backend.name == "cuda" => Some(error.to_string()),
        _ => None,
    };
    let missing = BACKENDS.iter().filter_map(|b| Some((b.name, reason(&b)?)));
    missing
        .map(|(name, reason)| format!("{name} ({reason})"))
        .collect()
}
