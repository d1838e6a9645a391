//! Dispatches: what a backend runs.

use std::fmt;

use walsh_core::ops::Op;
use walsh_core::{Accesses, Buffer, Error, Plan, Result, Span};

use crate::check::Check;
use crate::kernel::{Touch, Variant};

/// A range that a dispatch is given as a buffer.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The range; its first byte is what the kernel's pointer points to.
    pub span: Span,
    /// What is done with it.
    pub touch: Touch,
}

/// What a dispatch is of its op.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// One of the steps that it takes.
    Step,
    /// A form of its input, in workspace, that other ops may share: needed by whoever reads it.
    Form,
    /// All of this op, but forms of its input.
    Whole(Box<Op>),
}

/// One launch of a kernel.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// What runs.
    pub variant: Variant,
    /// How many threadgroups in each dimension; none is zero.
    pub groups: [u32; 3],
    /// The bytes of the argument struct.
    pub args: Vec<u8>,
    /// One binding per buffer of the kernel, in order.
    pub buffers: Vec<Binding>,
    /// The command of the list that it belongs to.
    pub command: usize,
    /// Whether everything since the last barrier must end before it begins.
    pub barrier: bool,
    /// What it is of its op.
    pub(crate) part: Part,
}

impl Dispatch {
    /// A dispatch that is all of a list's first command, and no op that others could join.
    #[must_use]
    pub fn alone(variant: Variant, groups: [u32; 3], args: Vec<u8>, buffers: Vec<Binding>) -> Self {
        Self {
            variant,
            groups,
            args,
            buffers,
            command: 0,
            barrier: false,
            part: Part::Step,
        }
    }

    /// What it reads and writes.
    #[must_use]
    pub fn accesses(&self) -> Accesses {
        let mut accesses = Accesses::default();
        for binding in &self.buffers {
            match binding.touch {
                Touch::Reads => accesses.read(binding.span.clone()),
                Touch::Writes => accesses.write(binding.span.clone()),
            };
        }
        accesses
    }
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.groups;
        write!(f, "{} x [{x}, {y}, {z}]", self.variant)
    }
}

/// A lowered command list.
pub struct Lowered {
    /// The launches in order.
    pub dispatches: Vec<Dispatch>,
    /// `u32` words that checks write into; all [`CHECK_PASSED`](crate::CHECK_PASSED) before a run, which the backend
    /// sees to. Word 0 is the first check that failed, word 1 + i says where check i did.
    pub status: Buffer,
    /// What the words of `status` behind the first are about.
    pub checks: Vec<Check>,
    /// Commands that became something else together with their neighbours than they were pushed as.
    pub joined: Vec<(usize, Plan)>,
    /// The backend that runs it, as errors name it.
    pub(crate) backend: &'static str,
}

impl Lowered {
    /// The error that a run ended with, if any.
    ///
    /// # Errors
    /// [`Error::Value`]; what `read` says when the device fails.
    pub fn outcome(&self, read: &dyn Fn(&Span, &mut [u8]) -> Result<()>) -> Result<()> {
        let status = Span {
            bytes: 4 * (1 + self.checks.len() as u64),
            ..self.status.span()
        };
        let mut bytes = vec![0; status.bytes as usize];
        read(&status, &mut bytes)?;
        let words = bytes.as_chunks::<4>().0.iter();
        let words: Vec<u32> = words.map(|word| u32::from_ne_bytes(*word)).collect();
        crate::check::outcome(self.backend, &self.checks, &words, read)
    }
}

impl fmt::Display for Lowered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for dispatch in &self.dispatches {
            if dispatch.barrier {
                writeln!(f, "---")?;
            }
            writeln!(f, "{dispatch}")?;
        }
        Ok(())
    }
}

/// An error of this crate's own making, on a backend's device.
pub(crate) fn unsupported(
    backend: &'static str,
    op: &'static str,
    why: impl fmt::Display,
) -> Error {
    Error::Unsupported {
        op,
        backend,
        why: why.to_string(),
    }
}
