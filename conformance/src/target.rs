use crate::Approximation;
use walsh::ops::{Attention, MatMul, MatMulTopK, Operation};
use walsh::{
    Activations, BACKENDS, BackendInfo, CpuOptions, DType, Device, DeviceSpec, Isa, PackWeights,
    Result,
};

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
    /// Whether it differs from another target in products alone: its instruction
    /// set adds to another's ([`Isa::base`]), or it packs weights.
    pub extends: bool,
    /// Whether the weights of products are packed.
    pub packs: bool,
    /// Where targets differ in the size of their team alone: which of [`TEAMS`] it has.
    pub team: Option<usize>,
}

/// The sizes of teams that an instruction set is tested with.
pub const TEAMS: &[usize] = &[1, 2, 3];

impl Target {
    /// Opens the device that a spec names.
    ///
    /// # Errors
    /// What opening says.
    pub fn open(name: &str) -> Result<Self> {
        let spec: DeviceSpec = name.parse()?;
        let approximates = match &spec {
            DeviceSpec::Cpu(options) => options.activations == Activations::Int8,
            DeviceSpec::Cuda(options) => options.activations == Activations::Int8,
            DeviceSpec::Metal(options) => options.activations == Activations::Int8,
            _ => true,
        };
        let packs = match &spec {
            DeviceSpec::Cpu(options) => options.packing == PackWeights::Always,
            _ => false,
        };
        let extends = match &spec {
            DeviceSpec::Cpu(CpuOptions { isa: Some(isa), .. }) => isa.base() != *isa || packs,
            _ => false,
        };
        Ok(Self {
            name: name.into(),
            device: spec.open()?,
            approximates,
            extends,
            packs,
            team: None,
        })
    }

    /// Whether it is its turn where each case has a turn and runs with one size of team: targets that do not differ in
    /// that run every case.
    #[must_use]
    pub fn has_turn(&self, turn: usize) -> bool {
        self.team.is_none_or(|team| turn % TEAMS.len() == team)
    }

    /// Whether its products gain by packed weights: otherwise it is another target.
    fn gains(&self) -> Result<bool> {
        let weight = self.device.zeros(DType::Q4_0, &[16, 32])?;
        Ok(self.device.pack(&[weight])?[0].is_packed())
    }

    /// Whether it runs an op as no other target does.
    ///
    /// A device whose products take activations as they are differs from one
    /// with the same instruction set in products, and in attention over codes
    /// where that is done in integers; one whose set extends another's or that
    /// packs weights, in products alone.
    #[must_use]
    pub fn is_for(&self, op: &str) -> bool {
        let attends = op == Attention::NAME;
        let products = [MatMul::NAME, MatMulTopK::NAME].contains(&op);
        let differs = self.approximates
            || attends
                && (self.attends_in_integers() || self.device.properties().backend == "cuda");
        products || !self.extends && differs
    }

    /// How it may approximate a case, whose name begins with its op's: products, by 16 bits on GPUs, and attention over
    /// codes on instruction sets that do it in integers, or on GPUs whose kernels for it multiply halves.
    #[must_use]
    pub fn approximation(&self, case: &str) -> Approximation {
        let attends = case.starts_with(Attention::NAME);
        let backend = self.device.properties().backend;
        match () {
            () if !self.approximates => Approximation::None,
            () if !attends && backend != "cpu" => Approximation::Halves,
            () if !attends || self.attends_in_integers() => Approximation::Integers,
            () if backend == "cuda" => Approximation::Halves,
            () => Approximation::None,
        }
    }

    /// Whether its instruction set has attention over codes in integers.
    fn attends_in_integers(&self) -> bool {
        self.device.properties().architecture.starts_with("avx")
    }
}

/// Every device of this build, in every form: for the CPU, each instruction set
/// that the machine has with teams of one, two and three, with packed weights
/// where they gain by it, and with activations as they are (but for sets that add 8-bit products alone to another's); the
/// first GPU, where there is one.
///
/// # Errors
/// When a device that should be there cannot be opened.
pub fn targets() -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for isa in Isa::available() {
        for (team, threads) in TEAMS.iter().enumerate() {
            let team = Some(team);
            let target = Target::open(&format!("cpu:threads={threads},isa={isa}"))?;
            targets.push(Target { team, ..target });
        }
        let packing = Target::open(&format!("cpu:threads=2,isa={isa},packing=always"))?;
        if packing.gains()? {
            targets.push(packing);
        }
        if isa.base() == isa {
            targets.push(Target::open(&format!(
                "cpu:threads=2,isa={isa},activations=f32"
            ))?);
        }
    }
    for (_, name) in GPUS {
        for name in [name.to_owned(), format!("{name},activations=f32")] {
            targets.extend(Target::open(&name));
        }
    }
    Ok(targets)
}

/// The GPUs that cases run on, where they are there, by their backends.
const GPUS: [(&str, &str); 2] = [("cuda", "cuda:0"), ("metal", "metal:0")];

/// The instruction sets and backends that did not run, each with the reason.
#[must_use]
pub fn missing() -> Vec<String> {
    let sets = Isa::ALL.iter().filter(|isa| !isa.is_available());
    let sets = sets.map(|isa| format!("isa={isa} (not on this machine)"));
    let reason = |backend: &&BackendInfo| {
        if !backend.in_build {
            return Some("not in this build".to_owned());
        }
        let (_, gpu) = GPUS.iter().find(|(name, _)| *name == backend.name)?;
        Target::open(gpu).err().map(|error| error.to_string())
    };
    let backends = BACKENDS.iter().filter_map(|b| Some((b.name, reason(&b)?)));
    sets.chain(backends.map(|(name, reason)| format!("{name} ({reason})")))
        .collect()
}
