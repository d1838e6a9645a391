use walsh::{BACKENDS, Device, DeviceSpec, Result};

/// A device to run the cases on.
#[derive(Debug, Clone)]
pub struct Target {
    /// How it was opened.
    pub name: String,
    /// The device.
    pub device: Device,
}

impl Target {
    /// Opens the device that a spec names.
    ///
    /// # Errors
    /// What opening says.
    pub fn open(name: &str) -> Result<Self> {
        Ok(Self {
            name: name.into(),
            device: name.parse::<DeviceSpec>()?.open()?,
        })
    }
}

/// Every device of this build, in every form: for the CPU, each instruction set
/// that the machine has with teams of one, two and three.
///
/// # Errors
/// When a device that should be there cannot be opened.
pub fn targets() -> Result<Vec<Target>> {
    let mut names = Vec::new();
    for isa in walsh::Isa::available() {
        for threads in 1..=3 {
            names.push(format!("cpu:threads={threads},isa={isa}"));
        }
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
