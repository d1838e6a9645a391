//! Lowering: from validated ops to phases for the worker team.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use walsh_core::ops::Op;
use walsh_core::{
    Access, Accesses, Activations, Buffer, Command, DeviceId, Error, HazardTracker, Result, Span,
};

use crate::isa::Isa;
use crate::memory::CpuMemory;
use crate::team::{Group, Phase, Scratch, Stream, look_ahead};
use crate::{attention, matmul, ops, store};

/// What kernels are chosen by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) isa: Isa,
    pub(crate) threads: usize,
    pub(crate) activations: Activations,
}

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

/// What a derived buffer is computed from its source for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Derived {
    /// A product's input, quantised to 8 bits or rearranged for its kernel.
    Activations(matmul::ActivationLayout),
    /// The cosines and sines of RoPE at the source's positions.
    RopeTable(walsh_core::ops::RopeConfig),
    /// Proof that the source's positions ascend by one and, for a global
    /// cache, end below this capacity.
    CheckedPositions { capacity: Option<u64> },
}

struct DerivedBuffer {
    what: Derived,
    source: Span,
    buffer: Buffer,
}

/// Turns ops into groups of phases.
///
/// Work that several ops share, such as the quantised form of an input of
/// three products, is a *derived buffer*: it is computed once and dropped when
/// its source is overwritten. Workspace is reused along the list, and hazards
/// are tracked over it as over the ops' own tensors.
pub(crate) struct Lowering {
    target: Target,
    /// Workspace belongs to no opened device: users cannot name it.
    workspace: DeviceId,
    fault: Arc<Fault>,
    hazards: HazardTracker,
    groups: Vec<Group>,
    /// The commands lowered so far, and the one that each phase belongs to.
    commands: usize,
    origins: Vec<usize>,
    derived: Vec<DerivedBuffer>,
    free: Vec<Buffer>,
}

impl Lowering {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            workspace: DeviceId::unique(),
            fault: Arc::default(),
            hazards: HazardTracker::new(),
            groups: Vec::new(),
            commands: 0,
            origins: Vec::new(),
            derived: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// Where phases report run-time errors.
    pub(crate) fn fault(&self) -> Arc<Fault> {
        self.fault.clone()
    }

    /// Adds a phase behind those already there, after a barrier if its
    /// accesses ask for one.
    pub(crate) fn phase(&mut self, accesses: &Accesses, phase: impl Phase + 'static) {
        let barrier = self.hazards.add(accesses);
        let guarded = Box::new(Guarded {
            fault: self.fault.clone(),
            phase,
        });
        self.origins.push(self.commands);
        match self.groups.last_mut() {
            Some(group) if !barrier => group.push(guarded),
            _ => self.groups.push(Group::new(vec![guarded])),
        }
    }

    /// A workspace buffer of at least `bytes`. Its contents are unspecified;
    /// give it back with [`release`](Self::release) once the phases that use it
    /// are added.
    pub(crate) fn workspace(&mut self, bytes: u64) -> Result<Buffer> {
        let fits = |buffer: &Buffer| (bytes..=bytes.saturating_mul(2)).contains(&buffer.bytes());
        if let Some(index) = self.free.iter().position(fits) {
            return Ok(self.free.swap_remove(index));
        }
        let memory = Box::new(CpuMemory::zeroed(bytes)?);
        Ok(Buffer::new(
            self.workspace,
            bytes,
            Access::ReadWrite,
            memory,
        ))
    }

    /// Gives workspace back for later phases. Hazards keep those that use it
    /// now apart from them.
    pub(crate) fn release(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    /// The buffer derived from `source` for `what`, computed by the phase that
    /// `make` returns when it is not there yet.
    pub(crate) fn derived<P: Phase + 'static>(
        &mut self,
        what: Derived,
        source: &Span,
        bytes: u64,
        make: impl FnOnce(&Buffer, Arc<Fault>) -> Result<P>,
    ) -> Result<Buffer> {
        let known = |d: &&DerivedBuffer| d.source.same(source) && d.what == what;
        if let Some(found) = self.derived.iter().find(known) {
            return Ok(found.buffer.clone());
        }
        let buffer = self.workspace(bytes)?;
        let phase = make(&buffer, self.fault.clone())?;
        let accesses = Accesses {
            reads: vec![source.clone()],
            writes: vec![whole(&buffer)],
        };
        self.phase(&accesses, phase);
        self.derived.push(DerivedBuffer {
            what,
            source: source.clone(),
            buffer: buffer.clone(),
        });
        Ok(buffer)
    }

    /// Lowers one command.
    pub(crate) fn command(&mut self, command: &Command) -> Result<()> {
        match &command.op {
            Op::EmbeddingRows(op) => ops::embedding::lower(op, self),
            Op::RmsNorm(op) => ops::norm::lower(op, self),
            Op::Rope(op) => ops::rope::lower(op, self),
            Op::MatMul(op) => matmul::lower(op, self),
            Op::MatMulTopK(op) => matmul::lower_top_k(op, self),
            Op::KvStore(op) => store::lower(op, self),
            Op::Attention(op) => attention::lower(op, self),
            Op::GatedActivation(op) => ops::elementwise::lower_gated(op, self),
            Op::Add(op) => ops::elementwise::lower_add(op, self),
            Op::Scale(op) => ops::elementwise::lower_scale(op, self),
            Op::SoftCap(op) => ops::elementwise::lower_softcap(op, self),
            Op::ArgMax(op) => ops::select::lower_argmax(op, self),
            Op::TopK(op) => ops::select::lower_topk(op, self),
        }?;
        for write in &command.accesses.writes {
            self.invalidate(write);
        }
        self.commands += 1;
        Ok(())
    }

    /// Forgets what was derived from a range that is overwritten.
    fn invalidate(&mut self, written: &Span) {
        let stale = |d: &mut DerivedBuffer| d.source.overlaps(written);
        for old in self.derived.extract_if(.., stale) {
            self.free.push(old.buffer);
        }
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

/// A lowered list.
pub(crate) struct Lowered {
    /// The phases in order.
    pub(crate) groups: Vec<Group>,
    /// The command that each phase belongs to, as a number within the list.
    pub(crate) origins: Vec<usize>,
    /// Where phases report errors.
    pub(crate) fault: Arc<Fault>,
}

/// The span of a whole buffer.
pub(crate) fn whole(buffer: &Buffer) -> Span {
    Span {
        buffer: buffer.clone(),
        offset: 0,
        bytes: buffer.bytes(),
    }
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
            // SAFETY: the caller's.
            unsafe { self.phase.run(items, scratch) }
        }
    }
}
