//! Lowering: from validated ops to phases for the worker team.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use walsh_core::ops::Op;
use walsh_core::{
    Access, Accesses, Buffer, DeviceId, Error, HazardTracker, Plan, Purpose, Result, Span,
    Workspace,
};

use crate::memory::CpuMemory;
use crate::target::Target;
use crate::team::{Group, Phase, Scratch, Stream, look_ahead};

/// The first error that a phase met in a run; later phases then do nothing.
#[derive(Default)]
pub(crate) struct Fault {
    set: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Fault {
    /// Records an error, unless an earlier one is recorded already.
    pub(crate) fn report(&self, error: Error) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        self.set.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Takes the error out, so that the next run starts clean.
    pub(crate) fn take(&self) -> Option<Error> {
        if !self.set.swap(false, Ordering::AcqRel) {
            return None;
        }
        self.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Turns ops into groups of phases, one op after the other. What an op becomes is the
/// business of its module.
///
/// Work that several ops share, such as the quantised form of an input of
/// three products, is a *derived buffer*: it is computed once and dropped when
/// its source is overwritten. Workspace is reused along the list, and hazards
/// are tracked over it as over the ops' own tensors.
pub(crate) struct Lowering {
    target: Target,
    /// Workspace belongs to no opened device: users cannot name it.
    device: DeviceId,
    fault: Arc<Fault>,
    hazards: HazardTracker,
    groups: Vec<Group>,
    /// The commands lowered so far, and the one that each phase belongs to.
    commands: usize,
    origins: Vec<usize>,
    workspace: Workspace,
    current: Current,
}

/// The op that is being lowered. Its phases are the list's once all of them are there.
#[derive(Default)]
struct Current {
    phases: Vec<(Accesses, Box<dyn Phase>)>,
    /// What runs, where the op's name does not say it.
    kernel: Option<String>,
    /// The bytes of workspace that it asked for.
    taken: u64,
}

impl Lowering {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            device: DeviceId::unique(),
            fault: Arc::default(),
            hazards: HazardTracker::new(),
            groups: Vec::new(),
            commands: 0,
            origins: Vec::new(),
            workspace: Workspace::default(),
            current: Current::default(),
        }
    }

    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// Where phases report run-time errors.
    pub(crate) fn fault(&self) -> Arc<Fault> {
        self.fault.clone()
    }

    /// Says what runs for the op, for people.
    pub(crate) fn kernel(&mut self, name: String) {
        self.current.kernel = Some(name);
    }

    /// Adds a phase behind those already there.
    pub(crate) fn phase(&mut self, accesses: &Accesses, phase: impl Phase + 'static) {
        let guarded = Box::new(Guarded {
            fault: self.fault.clone(),
            phase,
        });
        self.current.phases.push((accesses.clone(), guarded));
    }

    /// A workspace buffer of at least `bytes`. Its contents are unspecified;
    /// give it back with [`release`](Self::release) once the phases that use it
    /// are added.
    pub(crate) fn workspace(&mut self, bytes: u64) -> Result<Buffer> {
        self.current.taken += bytes;
        let device = self.device;
        self.workspace.take(bytes, |bytes| {
            let memory = Box::new(CpuMemory::zeroed(bytes)?);
            Ok(Buffer::new(device, bytes, Access::ReadWrite, memory))
        })
    }

    /// Gives workspace back for later phases. Hazards keep those that use it
    /// now apart from them.
    pub(crate) fn release(&mut self, buffer: Buffer) {
        self.workspace.release(buffer);
    }

    /// The buffer derived from `sources` for `purpose`, computed by the phase that
    /// `make` returns when it is not there yet.
    pub(crate) fn derived<P: Phase + 'static>(
        &mut self,
        purpose: impl Purpose,
        sources: &[Span],
        bytes: u64,
        make: impl FnOnce(&Buffer, Arc<Fault>) -> Result<P>,
    ) -> Result<Buffer> {
        if let Some(known) = self.workspace.known(&purpose, sources) {
            return Ok(known);
        }
        let buffer = self.workspace(bytes)?;
        let phase = make(&buffer, self.fault.clone())?;
        let accesses = Accesses {
            reads: sources.to_vec(),
            writes: vec![buffer.span()],
        };
        self.phase(&accesses, phase);
        self.workspace
            .keep(purpose, sources.to_vec(), buffer.clone());
        Ok(buffer)
    }

    /// Lowers an op behind those already there, by what `lower` adds; what it has become.
    /// Where that fails, the list is as it was before.
    pub(crate) fn command(
        &mut self,
        op: &Op,
        accesses: &Accesses,
        lower: impl FnOnce(&Op, &mut Self) -> Result<()>,
    ) -> Result<Plan> {
        let before = self.workspace.clone();
        let lowered = lower(op, self);
        let current = std::mem::take(&mut self.current);
        if let Err(error) = lowered {
            self.workspace = before;
            return Err(error);
        }
        let pieces = current.phases.iter().map(|(_, phase)| phase.items() as u64);
        let plan = Plan {
            pieces: pieces.max().unwrap_or(0),
            workspace: current.taken,
            kernel: current
                .kernel
                .unwrap_or_else(|| format!("{}.{}", snake_case(op.name()), self.target.isa)),
        };
        for (accesses, phase) in current.phases {
            let barrier = self.hazards.add(&accesses);
            self.origins.push(self.commands);
            match self.groups.last_mut() {
                Some(group) if !barrier => group.push(phase),
                _ => self.groups.push(Group::new(vec![phase])),
            }
        }
        for written in &accesses.writes {
            self.workspace.invalidate(written);
        }
        self.commands += 1;
        Ok(plan)
    }

    /// What the list has become.
    pub(crate) fn finish(mut self) -> Lowered {
        look_ahead(&mut self.groups);
        Lowered {
            groups: self.groups,
            origins: self.origins,
            fault: self.fault,
        }
    }
}

/// `RmsNorm` as `rms_norm`.
fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (index, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && index > 0 {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// A lowered list.
pub(crate) struct Lowered {
    /// The phases in order.
    pub(crate) groups: Vec<Group>,
    /// The command that each phase belongs to, as a number within the list.
    pub(crate) origins: Vec<usize>,
    /// Where phases report errors.
    pub(crate) fault: Arc<Fault>,
}

/// A phase that does nothing once an earlier one has failed.
struct Guarded<P> {
    fault: Arc<Fault>,
    phase: P,
}

impl<P: Phase> Phase for Guarded<P> {
    fn items(&self) -> usize {
        self.phase.items()
    }

    fn grain(&self) -> usize {
        self.phase.grain()
    }

    fn cost(&self) -> u64 {
        self.phase.cost()
    }

    fn scratch_bytes(&self) -> usize {
        self.phase.scratch_bytes()
    }

    fn stream(&self) -> Option<Stream> {
        self.phase.stream()
    }

    fn name(&self) -> &'static str {
        self.phase.name()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        if !self.fault.is_set() {
            // SAFETY: the phase is run as this one is.
            unsafe { self.phase.run(items, scratch) }
        }
    }
}
