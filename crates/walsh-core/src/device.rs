use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytemuck::Pod;
use half::{bf16, f16};
use walsh_formats::DType;

use crate::buffer::{Access, Buffer, DeviceId, HostBytes, Memory, Span};
use crate::hazard::Accesses;
use crate::list::{Recorder, Step};
use crate::ops::Op;
use crate::plan::Plan;
use crate::screen::{ScreenPart, ScreenSample};
use crate::tensor::{Tensor, tensor_bytes};
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

/// What a backend provides. Users call [`Device`].
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

    /// See [`Device::available_bytes`].
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

    /// See [`Device::screens`].
    fn screens(&self, _weight: &Tensor) -> bool {
        false
    }

    /// Makes the parts of what [`Device::screen`] returns.
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

/// A number type of host code that tensors can be filled from and read into.
pub trait Element: Pod {
    /// The tensor type that holds it.
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for f16 {
    const DTYPE: DType = DType::F16;
}
impl Element for bf16 {
    const DTYPE: DType = DType::BF16;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}
impl Element for u8 {
    const DTYPE: DType = DType::U8;
}

/// An opened device. Cloning shares it.
#[derive(Clone)]
pub struct Device {
    id: DeviceId,
    backend: Arc<dyn Backend>,
}

impl Device {
    /// Wraps a backend. The backend crates' `open` functions call it.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            id: DeviceId::unique(),
            backend,
        }
    }

    /// This opened device's identity.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// What the device is and has.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        self.backend.properties()
    }

    /// Allocates a zeroed buffer.
    ///
    /// Its size is its address range, not always memory that is taken: on the CPU the
    /// pages of all but small buffers are committed as they are first written, so that
    /// a buffer for the longest text costs what the text does. A system that promises
    /// more than it has ends processes when it runs out, so ask for
    /// [`available_bytes`](Self::available_bytes) before something large. GPUs commit
    /// at once.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn allocate(&self, bytes: u64) -> Result<Buffer> {
        let memory = self.backend.allocate(bytes)?;
        Ok(Buffer::new(self.id, bytes, Access::ReadWrite, memory))
    }

    /// Makes host memory, such as a mapped file, readable by ops. Nothing is
    /// copied where the device can read host memory.
    ///
    /// # Errors
    /// When the device cannot hold or reach it.
    pub fn import(&self, bytes: Arc<dyn HostBytes>) -> Result<Buffer> {
        let len = bytes.bytes().len() as u64;
        let memory = self.backend.import(bytes)?;
        Ok(Buffer::new(self.id, len, Access::ReadOnly, memory))
    }

    /// A tensor of zeros in a buffer of its own, which takes memory as
    /// [`allocate`](Self::allocate) says.
    ///
    /// # Errors
    /// When the shape does not fit the type, or memory is missing.
    pub fn zeros(&self, dtype: DType, shape: &[u64]) -> Result<Tensor> {
        let buffer = self.allocate(tensor_bytes(dtype, shape)?)?;
        Tensor::new(buffer, 0, dtype, shape)
    }

    /// A tensor that holds `data`.
    ///
    /// # Errors
    /// When `data` does not have as many elements as `shape`, or memory is
    /// missing.
    pub fn tensor<T: Element>(&self, shape: &[u64], data: &[T]) -> Result<Tensor> {
        let tensor = self.zeros(T::DTYPE, shape)?;
        self.write(&tensor, data)?;
        Ok(tensor)
    }

    /// A tensor of any type from its stored bytes, such as GGML blocks.
    ///
    /// # Errors
    /// When the number of bytes is not that of `shape`, or memory is missing.
    pub fn tensor_from_bytes(&self, dtype: DType, shape: &[u64], data: &[u8]) -> Result<Tensor> {
        let tensor = self.zeros(dtype, shape)?;
        self.write_bytes(&tensor, data)?;
        Ok(tensor)
    }

    /// Overwrites a tensor with `data`.
    ///
    /// # Errors
    /// When type or size differ, or the tensor is read-only or another
    /// device's.
    pub fn write<T: Element>(&self, tensor: &Tensor, data: &[T]) -> Result<()> {
        check_dtype::<T>("write", tensor)?;
        self.write_bytes(tensor, bytemuck::cast_slice(data))
    }

    /// Overwrites a tensor with stored bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_bytes(&self, tensor: &Tensor, data: &[u8]) -> Result<()> {
        self.check_transfer("write", tensor, data.len())?;
        check_writable("write", tensor)?;
        self.backend.write(&tensor.span(), data)
    }

    /// Reads a tensor's numbers.
    ///
    /// # Errors
    /// When the type differs, or the tensor is another device's.
    pub fn read<T: Element>(&self, tensor: &Tensor) -> Result<Vec<T>> {
        check_dtype::<T>("read", tensor)?;
        let mut data = vec![T::zeroed(); tensor.elements() as usize];
        self.read_into(tensor, &mut data)?;
        Ok(data)
    }

    /// Reads a tensor's numbers into memory that the caller keeps.
    ///
    /// # Errors
    /// When type or size differ, or the tensor is another device's.
    pub fn read_into<T: Element>(&self, tensor: &Tensor, data: &mut [T]) -> Result<()> {
        check_dtype::<T>("read", tensor)?;
        self.read_bytes(tensor, bytemuck::cast_slice_mut(data))
    }

    /// Reads a tensor's stored bytes.
    ///
    /// # Errors
    /// When the size differs, or the tensor is another device's.
    pub fn read_bytes(&self, tensor: &Tensor, data: &mut [u8]) -> Result<()> {
        self.check_transfer("read", tensor, data.len())?;
        self.backend.read(&tensor.span(), data)
    }

    /// Copies one tensor's stored bytes over another's.
    ///
    /// # Errors
    /// When their sizes differ or they overlap, `to` is read-only, or either is
    /// another device's.
    pub fn copy(&self, from: &Tensor, to: &Tensor) -> Result<()> {
        let op = "copy";
        self.check_transfer(op, from, from.bytes() as usize)?;
        self.check_transfer(op, to, from.bytes() as usize)?;
        check_writable(op, to)?;
        if from.span().overlaps(&to.span()) {
            return Err(Error::argument(op, "to", "apart from the source", to));
        }
        self.backend.copy(&from.span(), &to.span())
    }

    /// Overwrites a tensor with copies of `tile`, one behind the other; the last is
    /// cut off where the tensor ends.
    ///
    /// # Errors
    /// When `tile` is empty, or the tensor is read-only or another device's.
    pub fn fill(&self, tensor: &Tensor, tile: &[u8]) -> Result<()> {
        let op = "fill";
        self.check_transfer(op, tensor, tensor.bytes() as usize)?;
        check_writable(op, tensor)?;
        if tile.is_empty() {
            return Err(Error::argument(op, "tile", "at least one byte", 0));
        }
        let whole = tensor.span();
        let part = |offset: u64, bytes: u64| Span {
            buffer: whole.buffer.clone(),
            offset: whole.offset + offset,
            bytes,
        };
        let mut filled = whole.bytes.min(tile.len() as u64);
        self.backend
            .write(&part(0, filled), &tile[..filled as usize])?;
        while filled < whole.bytes {
            // What is filled is whole tiles until the last copy.
            let bytes = filled.min(whole.bytes - filled);
            self.backend.copy(&part(0, bytes), &part(filled, bytes))?;
            filled += bytes;
        }
        Ok(())
    }

    /// The weights, `[N, K]` or of experts `[E, N, K]` each, as products of this device read them fastest:
    /// copied into another order where that pays and the device's settings and
    /// memory allow it ([`Tensor::is_packed`] says whether), otherwise the very
    /// tensors. Packed weights take as much memory again, are weights of
    /// [`MatMul`](crate::ops::MatMul) and [`ExpertMatMul`](crate::ops::ExpertMatMul) and
    /// nothing else, and do not follow what is written to those that they were made of.
    ///
    /// # Errors
    /// When a weight is another device's, is packed already or has not two or three
    /// dimensions, the device fails, or it was told to pack and memory is missing.
    pub fn pack(&self, weights: &[Tensor]) -> Result<Vec<Tensor>> {
        for weight in weights {
            self.check_transfer("pack", weight, weight.bytes() as usize)?;
            if !matches!(weight.shape().len(), 2 | 3) {
                let expected = "of 2 or 3 dimensions";
                return Err(Error::argument("pack", "weight", expected, weight));
            }
        }
        let packed = self.backend.pack(weights)?;
        let each = weights
            .iter()
            .zip(packed)
            .map(|(weight, memory)| match memory {
                None => Ok(weight.clone()),
                Some(memory) => {
                    let buffer = Buffer::new(self.id, weight.bytes(), Access::Packed, memory);
                    Tensor::packed(buffer, weight.dtype(), weight.shape())
                }
            });
        each.collect()
    }

    /// Whether [`screen`](Self::screen) makes one of a weight, `[N, K]`: where that
    /// pays, and the device's settings and the memory of this moment allow it.
    #[must_use]
    pub fn screens(&self, weight: &Tensor) -> bool {
        weight.shape().len() == 2 && !weight.is_packed() && self.backend.screens(weight)
    }

    /// How many more bytes can be used at this moment, where the backend can tell: on
    /// the CPU what the system gives without swapping and this process's limits leave
    /// it, on a GPU what is free of its own memory. What was allocated and never
    /// touched may still count as free (see [`allocate`](Self::allocate)).
    #[must_use]
    pub fn available_bytes(&self) -> Option<u64> {
        self.backend.available_bytes()
    }

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
        self.backend.run(step.program())
    }

    /// Runs a recorded list to its end, one kernel at a time, and times each. The
    /// times' sum is more than a run takes where kernels may overlap.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`Error::Unsupported`] where the backend cannot time
    /// kernels one by one.
    pub fn profile(&self, step: &Step) -> Result<Vec<KernelTime>> {
        self.check_step("profile", step)?;
        self.backend.profile(step.program())
    }

    /// The seconds of the host that all runs so far have spent on handing their work
    /// to the device, not on waiting for it; `None` where the host does the work.
    #[must_use]
    pub fn submit_seconds(&self) -> Option<f64> {
        self.backend.submit_seconds()
    }

    /// The measured rate of copies within the device's memory, in bytes per second,
    /// read and written bytes both counted. It takes a moment and some memory.
    ///
    /// # Errors
    /// When the device fails or has no room for it; [`Error::Unsupported`] where the
    /// backend does not measure it.
    pub fn memory_bandwidth(&self) -> Result<f64> {
        self.backend.memory_bandwidth()
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    fn check_step(&self, op: &'static str, step: &Step) -> Result<()> {
        if step.device() == self.id {
            return Ok(());
        }
        Err(Error::argument(
            op,
            "step",
            "recorded by this device",
            "recorded by another",
        ))
    }

    pub(crate) fn check_transfer(
        &self,
        op: &'static str,
        tensor: &Tensor,
        bytes: usize,
    ) -> Result<()> {
        if tensor.buffer().device() != self.id {
            return Err(Error::argument(
                op,
                "tensor",
                "on this device",
                "on another",
            ));
        }
        if tensor.is_packed() {
            return Err(Error::argument(
                op,
                "tensor",
                "of numbers in order",
                "a packed weight",
            ));
        }
        if tensor.bytes() != bytes as u64 {
            return Err(Error::argument(
                op,
                "data",
                format_args!("{} bytes for {tensor}", tensor.bytes()),
                format_args!("{bytes} bytes"),
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(self.properties()).finish()
    }
}

fn check_writable(op: &'static str, tensor: &Tensor) -> Result<()> {
    if tensor.buffer().access() == Access::ReadWrite {
        return Ok(());
    }
    Err(Error::argument(
        op,
        "tensor",
        "writable",
        "read-only memory",
    ))
}

fn check_dtype<T: Element>(op: &'static str, tensor: &Tensor) -> Result<()> {
    if tensor.dtype() == T::DTYPE {
        Ok(())
    } else {
        Err(Error::argument(op, "tensor", T::DTYPE, tensor.dtype()))
    }
}
