use std::fmt;

use crate::backend::{KernelTime, Program, Recording};
use crate::buffer::{Access, DeviceId};
use crate::device::Device;
use crate::hazard::{Accesses, HazardTracker};
use crate::ops::Op;
use crate::plan::Plan;
use crate::{Error, Result};

/// One op of a list, validated and planned.
#[derive(Debug)]
pub struct Command {
    /// The op.
    pub op: Op,
    /// What it has become; what it shares with its neighbours is said of each of them.
    pub plan: Plan,
    /// What it reads and writes.
    pub accesses: Accesses,
    /// Whether all commands since the last barrier must end before it begins.
    pub barrier: bool,
}

/// Ops in order, with the barriers that their hazards ask for.
#[derive(Debug)]
pub struct CommandList {
    commands: Vec<Command>,
}

impl CommandList {
    /// The commands in order.
    #[must_use]
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// How many barriers the list has.
    #[must_use]
    pub fn barriers(&self) -> usize {
        self.commands.iter().filter(|c| c.barrier).count()
    }
}

impl fmt::Display for CommandList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for command in &self.commands {
            if command.barrier {
                writeln!(f, "---")?;
            }
            writeln!(f, "{}  [{}]", command.op, command.plan)?;
        }
        Ok(())
    }
}

/// Records ops into a list. Each op is validated and lowered when it is
/// pushed, and nothing runs until the finished [`Step`] is given to
/// [`Device::run`].
pub struct Recorder {
    recording: Box<dyn Recording>,
    device: Device,
    commands: Vec<Command>,
    hazards: HazardTracker,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("device", &self.device)
            .field("commands", &self.commands)
            .finish_non_exhaustive()
    }
}

impl Recorder {
    pub(crate) fn new(device: Device) -> Self {
        Self {
            recording: device.backend().clone().record(),
            device,
            commands: Vec::new(),
            hazards: HazardTracker::new(),
        }
    }

    /// Adds an op behind those already recorded.
    ///
    /// # Errors
    /// When an argument does not fit, lies on another device or may not be
    /// written, the backend has no kernel for the op, or memory for its workspace
    /// is missing. The list is then as it was before.
    pub fn push(&mut self, op: impl Into<Op>) -> Result<()> {
        let op = op.into();
        op.validate()?;
        let accesses = op.accesses();
        self.check_buffers(&op, &accesses)?;
        let plan = self.recording.push(&op, &accesses)?;
        let barrier = self.hazards.add(&accesses);
        self.commands.push(Command {
            op,
            plan,
            accesses,
            barrier,
        });
        Ok(())
    }

    /// Ends the recording and prepares the list for replay.
    ///
    /// # Errors
    /// When the device fails or memory is missing.
    pub fn finish(self) -> Result<Step> {
        let program = self.recording.finish()?;
        let mut commands = self.commands;
        for (number, plan) in program.joined() {
            if let Some(command) = commands.get_mut(*number) {
                command.plan = plan.clone();
            }
        }
        Ok(Step {
            device: self.device.id(),
            list: CommandList { commands },
            program,
        })
    }

    fn check_buffers(&self, op: &Op, accesses: &Accesses) -> Result<()> {
        for span in accesses.reads.iter().chain(&accesses.writes) {
            if span.buffer.device() != self.device.id() {
                return Err(Error::argument(
                    op.name(),
                    "every tensor",
                    format_args!("on {}", self.device.properties().name),
                    "on another device",
                ));
            }
        }
        for span in &accesses.writes {
            if span.buffer.access() != Access::ReadWrite {
                return Err(Error::argument(
                    op.name(),
                    "output",
                    "writable",
                    "read-only memory",
                ));
            }
        }
        let weights = op.weights();
        for span in &accesses.reads {
            let is_weight = weights.iter().any(|weight| weight.same(span));
            if span.buffer.access() == Access::Packed && !is_weight {
                return Err(Error::argument(
                    op.name(),
                    "every tensor but a product's weight",
                    "of numbers in order",
                    "a packed weight",
                ));
            }
        }
        Ok(())
    }
}

impl Device {
    /// Starts recording a command list.
    #[must_use]
    pub fn record(&self) -> Recorder {
        Recorder::new(self.clone())
    }

    /// Runs a recorded list to its end; as often as wanted.
    ///
    /// # Errors
    /// When the list is another device's, the device fails, or an op meets a
    /// value that it cannot take: nothing behind it is stored into a cache, and
    /// what else the ops behind it write is unspecified. The list stays usable.
    pub fn run(&self, step: &Step) -> Result<()> {
        self.check_step("run", step)?;
        self.backend().run(step.program())
    }

    /// Runs a recorded list to its end, one kernel at a time, and times each. The
    /// times' sum is more than a run takes where kernels may overlap.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`Error::Unsupported`] where the backend cannot time
    /// kernels one by one.
    pub fn profile(&self, step: &Step) -> Result<Vec<KernelTime>> {
        self.check_step("profile", step)?;
        self.backend().profile(step.program())
    }

    fn check_step(&self, op: &'static str, step: &Step) -> Result<()> {
        if step.device() == self.id() {
            return Ok(());
        }
        Err(Error::argument(
            op,
            "step",
            "recorded by this device",
            "recorded by another",
        ))
    }
}

/// A recorded list, compiled for one device; replay it with [`Device::run`].
///
/// What changes between runs (token ids, positions) is read from the tensors
/// that the ops name, so a step is recorded once and run for every token.
/// Printing it shows each op with its plan, and a rule where a barrier is.
pub struct Step {
    device: DeviceId,
    list: CommandList,
    program: Box<dyn Program>,
}

impl Step {
    /// The device that recorded it.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The ops, plans and barriers.
    #[must_use]
    pub fn list(&self) -> &CommandList {
        &self.list
    }

    pub(crate) fn program(&self) -> &dyn Program {
        self.program.as_ref()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.fmt(f)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("device", &self.device)
            .field("commands", &self.list.commands.len())
            .finish_non_exhaustive()
    }
}
