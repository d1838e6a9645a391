//! From ops to dispatches. What an op becomes is the business of its module.

use bytemuck::bytes_of;
use walsh_core::ops::Op;
use walsh_core::{Activations, Buffer, Error, Purpose, Result, Span, Tensor, Workspace};

use crate::args::Args;
use crate::check::{Check, CheckKind};
use crate::dispatch::{Binding, Dispatch, Part, unsupported};
use crate::kernel::Variant;

/// What a device is, as far as the choice of kernels depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The backend whose device it is, which errors name.
    pub backend: &'static str,
    /// How many groups run side by side at least.
    pub multiprocessors: u32,
    /// The threadgroup memory of a group, in bytes.
    pub threadgroup_bytes: u32,
    /// Whether it has instructions that multiply matrices of bfloat16.
    pub bfloat_matrices: bool,
    /// The memory of a group of CUDA's own kernels of matrix fragments, in bytes; 0 where there are none.
    pub fragment_bytes: u32,
    /// Whether warpgroups multiply matrices together, the second out of a group's memory.
    pub warpgroup_matrices: bool,
    /// The most groups that can see each other's memory, 1 where none can.
    pub cluster_groups: u32,
    /// Whether neighbours of a list become one launch of such a kernel, where there is one for them.
    pub joins: bool,
    /// How products with block-quantised weights read their input.
    pub activations: Activations,
}

/// The words of a list's status buffer.
pub(crate) const STATUS_WORDS: u64 = 4096;

/// The most groups of a grid in its first dimension, and in the others.
const MOST_GROUPS: [u64; 3] = [i32::MAX as u64, u16::MAX as u64, u16::MAX as u64];

/// Allocates workspace of a list: zeroed, and kept for as long as the list.
pub type Allocate = Box<dyn FnMut(u64) -> Result<Buffer> + Send>;

/// What makes counters one buffer: how many there are.
#[derive(PartialEq)]
struct Counts(u64);

/// The dispatches that one op becomes. They are the list's once all of them are there: an op that cannot be lowered
/// leaves the list as it was.
pub(crate) struct Lowering<'a> {
    pub(crate) limits: Limits,
    pub(crate) allocate: &'a mut Allocate,
    pub(crate) workspace: Workspace,
    /// The bytes of workspace that the op asked for.
    pub(crate) taken: u64,
    /// In order, without barriers.
    pub(crate) dispatches: Vec<Dispatch>,
    pub(crate) status: Buffer,
    /// The op's, behind those of the list.
    pub(crate) checks: Vec<Check>,
    pub(crate) earlier_checks: usize,
    pub(crate) op: &'static str,
    pub(crate) command: usize,
}

impl Lowering<'_> {
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Adds a launch behind those already there, after a barrier if its accesses ask for one. `spans` are the kernel's
    /// buffers in order; one that a variant does not read is [`nothing`](Self::nothing).
    pub(crate) fn dispatch<A: Args>(
        &mut self,
        variant: Variant,
        groups: [u64; 3],
        args: &A,
        spans: Vec<Span>,
    ) -> Result<()> {
        let kernel = variant.kernel();
        assert_eq!(A::LAYOUT, kernel.args, "the arguments of {}", kernel.name);
        assert_eq!(
            spans.len(),
            kernel.buffers.len(),
            "the buffers of {}",
            kernel.name
        );
        for (count, most) in groups.iter().zip(MOST_GROUPS) {
            if *count == 0 || *count > most {
                return Err(unsupported(
                    self.limits.backend,
                    self.op,
                    format_args!("{} would take a grid of {groups:?} groups", kernel.name),
                ));
            }
        }
        let buffers: Vec<Binding> = spans
            .into_iter()
            .zip(kernel.buffers)
            .map(|(span, parameter)| Binding {
                span,
                touch: parameter.touch,
            })
            .collect();
        self.dispatches.push(Dispatch {
            variant,
            groups: groups.map(|count| count as u32),
            args: bytes_of(args).to_vec(),
            buffers,
            command: self.command,
            barrier: false,
            part: Part::Step,
        });
        Ok(())
    }

    /// Says that the last dispatch is all of an op but the forms of its input.
    pub(crate) fn computes(&mut self, op: impl Into<Op>) {
        if let Some(last) = self.dispatches.last_mut() {
            last.part = Part::Whole(Box::new(op.into()));
        }
    }

    /// Says that the last dispatch makes a form of its input, in workspace, and does nothing else.
    pub(crate) fn derives(&mut self) {
        if let Some(last) = self.dispatches.last_mut() {
            last.part = Part::Form;
        }
    }

    /// What stands for a buffer that a variant does not touch.
    pub(crate) fn nothing(&self) -> Span {
        Span {
            buffer: self.status.clone(),
            offset: 0,
            bytes: 0,
        }
    }

    /// A tensor's range, or what stands for one that is not there.
    pub(crate) fn span(&self, tensor: Option<&Tensor>) -> Span {
        tensor.map_or_else(|| self.nothing(), Tensor::span)
    }

    /// Workspace of at least `bytes`. Its contents are unspecified; give it back with [`release`](Self::release) once
    /// the dispatches that use it are added.
    pub(crate) fn workspace(&mut self, bytes: u64) -> Result<Buffer> {
        self.taken += bytes;
        self.workspace.take(bytes, &mut *self.allocate)
    }

    /// Counters that are zero when a dispatch begins and that it leaves at zero: all dispatches of a list may share them.
    pub(crate) fn counts(&mut self, count: u64) -> Result<Buffer> {
        let what = Counts(count);
        if let Some(known) = self.known(&what, &[]) {
            return Ok(known);
        }
        let buffer = (self.allocate)(count * 4)?;
        self.taken += buffer.bytes();
        self.keep(what, Vec::new(), buffer.clone());
        Ok(buffer)
    }

    /// Gives workspace back for later dispatches.
    pub(crate) fn release(&mut self, buffer: Buffer) {
        self.workspace.release(buffer);
    }

    /// The buffer derived from `sources` for `purpose`, if it is there already.
    pub(crate) fn known(&self, purpose: &impl Purpose, sources: &[Span]) -> Option<Buffer> {
        self.workspace.known(purpose, sources)
    }

    /// Keeps a buffer that was computed from `sources`, until one of them is overwritten.
    pub(crate) fn keep(&mut self, purpose: impl Purpose, sources: Vec<Span>, buffer: Buffer) {
        self.workspace.keep(purpose, sources, buffer);
    }

    /// Adds a check; its number.
    pub(crate) fn check(&mut self, kind: CheckKind) -> Result<u32> {
        let number = self.earlier_checks + self.checks.len();
        if number as u64 + 1 >= STATUS_WORDS {
            return Err(unsupported(
                self.limits.backend,
                self.op,
                format_args!("a list has at most {} checks of values", STATUS_WORDS - 1),
            ));
        }
        self.checks.push(Check { op: self.op, kind });
        Ok(number as u32)
    }

    /// The status words: checks lower them, and kernels that depend on checks read the first.
    pub(crate) fn status(&self) -> Span {
        self.status.span()
    }

    /// The first status word, for kernels that only look at it.
    pub(crate) fn verdict(&self) -> Span {
        Span {
            bytes: 4,
            ..self.status.span()
        }
    }

    /// Fails when a tensor has 2³¹ numbers or more: kernels count them in 32 bits.
    pub(crate) fn countable(&self, tensors: &[&Tensor]) -> Result<()> {
        match tensors
            .iter()
            .find(|tensor| tensor.elements() > i32::MAX as u64)
        {
            Some(tensor) => Err(unsupported(
                self.limits.backend,
                self.op,
                format_args!("{tensor} has 2^31 elements or more"),
            )),
            None => Ok(()),
        }
    }

    /// An error of the op that is being lowered.
    pub(crate) fn unsupported(&self, why: impl std::fmt::Display) -> Error {
        unsupported(self.limits.backend, self.op, why)
    }
}

/// Shorthand for a table entry's layout.
pub(crate) const fn layout<A: Args>() -> crate::args::ArgsLayout {
    A::LAYOUT
}
