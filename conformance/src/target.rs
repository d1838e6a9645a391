use walsh::ops::{MatMul, Operation};
use walsh::{Activations, BACKENDS, Device, DeviceSpec, Result};

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
            device: spec.open()?,
            approximates: match spec {
                DeviceSpec::Cpu(options) => options.activations == Activations::Int8,
                _ => true,
            },
        })
    }

    /// Whether it runs an op as no other target does.
    ///
    /// A device whose products take activations as they are differs from one
    /// with the same instruction set in nothing else.
    #[must_use]
    pub fn is_for(&self, op: &str) -> bool {
        self.approximates || op == MatMul::NAME
    }
}

/// Every device of this build, in every form: for the CPU, each instruction set
/// that the machine has with teams of one, two and three, and with activations
/// as they are.
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
    names.iter().map(|name| Target::open(name)).collect()
}

/// The backends that did not run, each with the reason.
#[must_use]
pub fn missing_backends() -> Vec<String> {
    BACKENDS
        .iter()
        .filter(|backend| !backend.in_build)
        .map(|backend| format!("{} (not in this build)", backend.name))
        .collect()
}
