//! What a device's backend provides to [`Device`](crate::Device).

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::buffer::{HostBytes, Memory, Span};
use crate::hazard::Accesses;
use crate::ops::Op;
use crate::plan::Plan;
use crate::screen::{ScreenPart, ScreenSample};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What a device is and has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// The backend: `cpu`, `cuda`, `metal`.
    pub backend: &'static str,
    /// The hardware's name, for people.
    pub name: String,
    /// What the kernels were chosen for: an instruction set or an architecture,
    /// and a precision that is not the backend's default.
    pub architecture: String,
    /// How many workers or multiprocessors share an op.
    pub parallelism: usize,
}

impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.backend, self.architecture)
    }
}

/// A compiled command list, known only to the backend that made it.
pub trait Program: Any + Send + Sync {
    /// Commands that became something else together with their neighbours than they were
    /// pushed as, by their numbers in the list.
    fn joined(&self) -> &[(usize, Plan)] {
        &[]
    }
}

/// A command list that is being recorded, known only to the backend that began it.
pub trait Recording: Send {
    /// Lowers a validated op behind those already there, and says what it has become.
    /// `accesses` are the op's.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when there is no kernel for it, and when memory for its
    /// workspace is missing. The list is then as it was before.
    fn push(&mut self, op: &Op, accesses: &Accesses) -> Result<Plan>;

    /// Ends the list and prepares it for replay.
    ///
    /// # Errors
    /// When the device fails or memory is missing.
    fn finish(self: Box<Self>) -> Result<Box<dyn Program>>;
}

/// What a backend provides. Users call [`Device`](crate::Device).
///
/// `Device` has checked every argument before it calls a backend: spans lie
/// within buffers of this device, and byte counts match.
pub trait Backend: Send + Sync {
    /// What the device is.
    fn properties(&self) -> &Properties;

    /// Allocates `bytes` of zeroed memory: where the system can, such that what is
    /// never touched takes none.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn allocate(&self, bytes: u64) -> Result<Box<dyn Memory>>;

    /// Makes host memory readable by ops, in place where the device can.
    ///
    /// # Errors
    /// When the device cannot hold or reach it.
    fn import(&self, bytes: Arc<dyn HostBytes>) -> Result<Box<dyn Memory>>;

    /// Copies host bytes into a range, after all work submitted before.
    ///
    /// # Errors
    /// When the device fails.
    fn write(&self, to: &Span, data: &[u8]) -> Result<()>;

    /// Copies a range to the host, after all work submitted before.
    ///
    /// # Errors
    /// When the device fails.
    fn read(&self, from: &Span, data: &mut [u8]) -> Result<()>;

    /// Starts a list.
    fn record(self: Arc<Self>) -> Box<dyn Recording>;

    /// Runs a compiled list to its end.
    ///
    /// # Errors
    /// [`Error::Value`] when an op meets a value that it cannot take. No op
    /// behind it stores into a cache; what it and they leave in their other
    /// outputs is unspecified where their documentation does not say.
    fn run(&self, program: &dyn Program) -> Result<()>;

    /// Copies a range to another that does not overlap it, after all work submitted
    /// before. Through the host, unless the backend has a shorter way.
    ///
    /// # Errors
    /// When the device fails.
    fn copy(&self, from: &Span, to: &Span) -> Result<()> {
        const PIECE: u64 = 4 << 20;
        let mut piece = Vec::new();
        let mut done = 0;
        while done < from.bytes {
            let bytes = PIECE.min(from.bytes - done);
            let part = |span: &Span| Span {
                buffer: span.buffer.clone(),
                offset: span.offset + done,
                bytes,
            };
            piece.resize(bytes as usize, 0);
            self.read(&part(from), &mut piece)?;
            self.write(&part(to), &piece)?;
            done += bytes;
        }
        Ok(())
    }

    /// See [`Device::available_bytes`](crate::Device::available_bytes).
    fn available_bytes(&self) -> Option<u64> {
        None
    }

    /// Copies weights of products, `[N, K]` each, into the order that products read
    /// fastest. `None` for one where that would not pay, or, if the device was not
    /// told to, where memory is short.
    ///
    /// # Errors
    /// When the device fails, or was told to pack and memory is missing.
    fn pack(&self, weights: &[Tensor]) -> Result<Vec<Option<Box<dyn Memory>>>> {
        Ok(weights.iter().map(|_| None).collect())
    }

    /// See [`Device::screens`](crate::Device::screens).
    fn screens(&self, _weight: &Tensor) -> bool {
        false
    }

    /// Makes the parts of what [`Device::screen`](crate::Device::screen) returns.
    ///
    /// # Errors
    /// When the device fails.
    fn screen(&self, _weight: &Tensor, _sample: &ScreenSample) -> Result<Option<Vec<ScreenPart>>> {
        Ok(None)
    }

    /// Runs a compiled list to its end, one kernel at a time, and times each.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`Error::Unsupported`] where kernels cannot be timed
    /// one by one.
    fn profile(&self, _program: &dyn Program) -> Result<Vec<KernelTime>> {
        Err(Error::Unsupported {
            op: "profile",
            backend: self.properties().backend,
            why: "it does not time kernels one by one".into(),
        })
    }

    /// The seconds of the host that all runs so far have spent on handing their work
    /// to the device, not on waiting for it; `None` where the host does the work.
    fn submit_seconds(&self) -> Option<f64> {
        None
    }

    /// The most bytes per second between the device and its memory, measured: by
    /// copies, read and written bytes both counted, or by reads where that is more.
    ///
    /// # Errors
    /// When the device fails or has no room for it; [`Error::Unsupported`] where the
    /// backend does not measure it.
    fn memory_bandwidth(&self) -> Result<f64> {
        Err(Error::Unsupported {
            op: "memory_bandwidth",
            backend: self.properties().backend,
            why: "it does not measure copies".into(),
        })
    }
}

/// What one kernel of a profiled run took.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTime {
    /// The command that it belongs to, as a number within the list.
    pub command: usize,
    /// The kernel's name.
    pub kernel: String,
    /// How long it ran on the device.
    pub seconds: f64,
}
