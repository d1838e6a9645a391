//! From command lists to dispatches.

use bytemuck::bytes_of;
use walsh_core::ops::Op;
use walsh_core::{
    Activations, Buffer, CommandList, Error, HazardTracker, Plan, Result, Span, Tensor,
};

use crate::args::Args;
use crate::check::{Check, CheckKind};
use crate::dispatch::{Binding, Dispatch, Lowered, unsupported};
use crate::kernel::Variant;
use crate::ops;

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
    /// How products with block-quantised weights read their input.
    pub activations: Activations,
}

/// The words of a list's status buffer.
const STATUS_WORDS: u64 = 4096;

/// The most groups of a grid in its first dimension, and in the others.
const MOST_GROUPS: [u64; 3] = [i32::MAX as u64, u16::MAX as u64, u16::MAX as u64];

/// What a derived buffer is computed from its source for: all that decides its contents beside the source's bytes, whose
/// tensors may have other shapes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Derived {
    /// A product's input, as its kernel reads it.
    Activations(ops::matmul::Activations),
    /// The cosines and sines of RoPE at the source's positions.
    RopeTable(walsh_core::ops::RopeConfig),
    /// Where the tokens at the source's positions go, checked.
    Places(ops::kv::Geometry),
}

struct DerivedBuffer {
    what: Derived,
    source: Span,
    buffer: Buffer,
}

/// Allocates workspace of a list: zeroed, and kept for as long as the list.
pub type Allocate<'a> = &'a mut dyn FnMut(u64) -> Result<Buffer>;

/// Turns ops into dispatches.
pub(crate) struct Lowering<'a> {
    limits: Limits,
    allocate: Allocate<'a>,
    hazards: HazardTracker,
    dispatches: Vec<Dispatch>,
    derived: Vec<DerivedBuffer>,
    free: Vec<Buffer>,
    status: Buffer,
    checks: Vec<Check>,
    op: &'static str,
    command: usize,
}

/// How a device carries out an op: the kernels, their groups and the workspace.
///
/// # Errors
/// [`Error::Unsupported`] when no kernel takes the op.
pub fn plan(op: &Op, limits: &Limits) -> Result<Plan> {
    let (dispatches, workspace) = imagine(op, limits)?;
    let names: Vec<String> = dispatches.iter().map(|d| d.variant.symbol()).collect();
    let pieces = dispatches
        .iter()
        .map(|d| d.groups.iter().map(|g| u64::from(*g)).product::<u64>());
    Ok(Plan {
        kernel: names.join(" + "),
        pieces: pieces.max().unwrap_or(0),
        workspace,
    })
}

/// The variants that an op runs, in order.
///
/// # Errors
/// As [`plan`].
pub fn variants_of(op: &Op, limits: &Limits) -> Result<Vec<Variant>> {
    let (dispatches, _) = imagine(op, limits)?;
    Ok(dispatches
        .into_iter()
        .map(|dispatch| dispatch.variant)
        .collect())
}

/// The dispatches of an op alone, and the bytes of workspace that they take.
fn imagine(op: &Op, limits: &Limits) -> Result<(Vec<Dispatch>, u64)> {
    let mut workspace = 0;
    let device = walsh_core::DeviceId::unique();
    let mut allocate = |bytes: u64| {
        workspace += bytes;
        Ok(Buffer::new(
            device,
            bytes,
            walsh_core::Access::ReadWrite,
            Box::new(Imagined),
        ))
    };
    let mut lowering = Lowering::new(*limits, &mut allocate)?;
    lowering.op(op, 0)?;
    let dispatches = lowering.dispatches;
    Ok((dispatches, workspace - 4 * STATUS_WORDS))
}

/// Memory of a plan, which nothing runs on.
struct Imagined;

impl walsh_core::Memory for Imagined {}

/// Lowers a list whose ops were validated and planned.
///
/// # Errors
/// [`Error::Unsupported`] when no kernel takes an op; what `allocate` says.
pub fn lower(list: &CommandList, limits: &Limits, allocate: Allocate<'_>) -> Result<Lowered> {
    let mut lowering = Lowering::new(*limits, allocate)?;
    for (index, command) in list.commands().iter().enumerate() {
        lowering.op(&command.op, index)?;
    }
    Ok(Lowered {
        dispatches: lowering.dispatches,
        status: lowering.status,
        checks: lowering.checks,
    })
}

impl<'a> Lowering<'a> {
    fn new(limits: Limits, allocate: Allocate<'a>) -> Result<Self> {
        Ok(Self {
            status: allocate(4 * STATUS_WORDS)?,
            limits,
            allocate,
            hazards: HazardTracker::new(),
            dispatches: Vec::new(),
            derived: Vec::new(),
            free: Vec::new(),
            checks: Vec::new(),
            op: "",
            command: 0,
        })
    }

    fn op(&mut self, op: &Op, command: usize) -> Result<()> {
        self.op = op.name();
        self.command = command;
        ops::lower(op, self)?;
        for write in &op.accesses().writes {
            self.invalidate(write);
        }
        Ok(())
    }

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
        let mut dispatch = Dispatch {
            variant,
            groups: groups.map(|count| count as u32),
            args: bytes_of(args).to_vec(),
            buffers,
            command: self.command,
            barrier: false,
        };
        dispatch.barrier = self.hazards.add(&dispatch.accesses());
        self.dispatches.push(dispatch);
        Ok(())
    }

    /// What stands for a buffer that a variant does not touch.
    pub(crate) fn nothing(&self) -> Span {
        Span {
            buffer: self.status.clone(),
            offset: 0,
            bytes: 0,
        }
    }

    /// Workspace of at least `bytes`. Its contents are unspecified; give it back with [`release`](Self::release) once
    /// the dispatches that use it are added.
    pub(crate) fn workspace(&mut self, bytes: u64) -> Result<Buffer> {
        let fits = |buffer: &Buffer| (bytes..=bytes.saturating_mul(2)).contains(&buffer.bytes());
        if let Some(index) = self.free.iter().position(fits) {
            return Ok(self.free.swap_remove(index));
        }
        (self.allocate)(bytes)
    }

    /// Gives workspace back for later dispatches.
    pub(crate) fn release(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    /// The buffer derived from `source` for `what`, if it is there already.
    pub(crate) fn known(&self, what: &Derived, source: &Span) -> Option<Buffer> {
        let known = |d: &&DerivedBuffer| d.source.same(source) && d.what == *what;
        self.derived.iter().find(known).map(|d| d.buffer.clone())
    }

    /// Keeps a buffer that was computed from `source`, until the source is overwritten.
    pub(crate) fn keep(&mut self, what: Derived, source: Span, buffer: Buffer) {
        self.derived.push(DerivedBuffer {
            what,
            source,
            buffer,
        });
    }

    /// Adds a check; its number.
    pub(crate) fn check(&mut self, kind: CheckKind) -> Result<u32> {
        let number = self.checks.len();
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
        whole(&self.status)
    }

    /// The first status word, for kernels that only look at it.
    pub(crate) fn verdict(&self) -> Span {
        Span {
            bytes: 4,
            ..whole(&self.status)
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

    /// Forgets what was derived from a range that is overwritten.
    fn invalidate(&mut self, written: &Span) {
        let stale = |d: &mut DerivedBuffer| d.source.overlaps(written);
        let old: Vec<Buffer> = self
            .derived
            .extract_if(.., stale)
            .map(|d| d.buffer)
            .collect();
        self.free.extend(old);
    }
}

/// The span of a whole buffer.
pub(crate) fn whole(buffer: &Buffer) -> Span {
    Span {
        buffer: buffer.clone(),
        offset: 0,
        bytes: buffer.bytes(),
    }
}

/// Shorthand for a table entry's layout.
pub(crate) const fn layout<A: Args>() -> crate::args::ArgsLayout {
    A::LAYOUT
}

#[cfg(test)]
mod tests {
    use walsh_core::formats::DType;
    use walsh_core::ops::{ArgMax, GatedActivation, Scale};
    use walsh_core::{Access, DeviceId, tensor_bytes};

    use super::*;
    use crate::kernels;

    const LIMITS: Limits = Limits {
        backend: "paper",
        multiprocessors: 8,
        threadgroup_bytes: 32 << 10,
        bfloat_matrices: true,
        activations: Activations::Int8,
    };

    /// A tensor that no memory stands behind.
    fn imagined(dtype: DType, shape: &[u64]) -> Tensor {
        let bytes = tensor_bytes(dtype, shape).unwrap();
        let buffer = Buffer::new(
            DeviceId::unique(),
            bytes,
            Access::ReadWrite,
            Box::new(Imagined),
        );
        Tensor::new(buffer, 0, dtype, shape).unwrap()
    }

    #[test]
    fn every_table_entry_is_sound() {
        for kernel in kernels() {
            assert!(
                kernel.buffers.len() <= 8,
                "{} has too many buffers",
                kernel.name
            );
            assert!(
                kernel.constants.contains(&"THREADS"),
                "{} has no THREADS",
                kernel.name
            );
            assert!(
                kernel
                    .text
                    .contains(&format!("inline void {}(", kernel.name))
            );
        }
    }

    #[test]
    fn more_numbers_than_kernels_count_are_refused() {
        let half = imagined(DType::F32, &[1 << 15, 1 << 15]);
        let scale = |input: &Tensor| -> Op {
            let (input, output) = (input.clone(), input.clone());
            Scale {
                input,
                factor: 2.0,
                output,
            }
            .into()
        };
        assert!(plan(&scale(&half), &LIMITS).is_ok());
        let large = imagined(DType::F32, &[1 << 15, 1 << 16]);
        let ops: [Op; 3] = [
            scale(&large),
            GatedActivation {
                gate: large.clone(),
                up: large.clone(),
                activation: walsh_core::ops::Activation::Silu,
                output: large.clone(),
            }
            .into(),
            ArgMax {
                input: large.clone(),
                output: imagined(DType::I32, &[1 << 15]),
            }
            .into(),
        ];
        for op in ops {
            op.validate().unwrap();
            let error = plan(&op, &LIMITS).unwrap_err().to_string();
            assert!(
                error.contains("2^31") && error.contains(op.name()),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_derived_from_a_tensor_lasts_until_the_tensor_is_written() {
        let mut allocate = |bytes: u64| {
            Ok(Buffer::new(
                DeviceId::unique(),
                bytes,
                Access::ReadWrite,
                Box::new(Imagined),
            ))
        };
        let mut lowering = Lowering::new(LIMITS, &mut allocate).unwrap();
        let positions = imagined(DType::I32, &[3]);
        let what = Derived::RopeTable(walsh_core::ops::RopeConfig::new(
            64,
            10_000.0,
            walsh_core::ops::Pairing::HalfSplit,
        ));
        let buffer = lowering.workspace(64).unwrap();
        lowering.keep(what.clone(), positions.span(), buffer.clone());
        let known = lowering.known(&what, &positions.span());
        assert_eq!(known.map(|known| known.id()), Some(buffer.id()));
        lowering.invalidate(&positions.rows(2..3).unwrap().span());
        assert!(lowering.known(&what, &positions.span()).is_none());
        // Its memory serves again.
        assert_eq!(lowering.workspace(64).unwrap().id(), buffer.id());
    }
}
