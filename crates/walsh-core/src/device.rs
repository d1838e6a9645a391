use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytemuck::Pod;
use half::{bf16, f16};
use walsh_formats::DType;

use crate::buffer::{Access, Buffer, DeviceId, HostBytes, Memory, Span};
use crate::list::{CommandList, Recorder, Step};
use crate::ops::Op;
use crate::plan::Plan;
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
pub trait Program: Any + Send + Sync {}

/// What a backend provides. Users call [`Device`].
///
/// `Device` has checked every argument before it calls a backend: spans lie
/// within buffers of this device, and byte counts match.
pub trait Backend: Send + Sync {
    /// What the device is.
    fn properties(&self) -> &Properties;

    /// Allocates `bytes` of zeroed memory.
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

    /// Chooses how to carry out a validated op.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when there is no kernel for it.
    fn plan(&self, op: &Op) -> Result<Plan>;

    /// Prepares a list for replay.
    ///
    /// # Errors
    /// When memory for its workspace is missing.
    fn compile(&self, list: &CommandList) -> Result<Box<dyn Program>>;

    /// Runs a compiled list to its end.
    ///
    /// # Errors
    /// [`Error::Value`] when an op meets a value that it cannot take. Ops behind
    /// it do not run; what it leaves in its outputs is unspecified where its
    /// documentation does not say.
    fn run(&self, program: &dyn Program) -> Result<()>;
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

    /// A tensor of zeros in a buffer of its own.
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
        if tensor.buffer().access() == Access::ReadOnly {
            return Err(Error::argument(
                "write",
                "tensor",
                "writable",
                "read-only memory",
            ));
        }
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

    /// Starts recording a command list.
    #[must_use]
    pub fn record(&self) -> Recorder {
        Recorder::new(self.clone())
    }

    /// Runs a recorded list to its end; as often as wanted.
    ///
    /// # Errors
    /// When the list is another device's, the device fails, or an op meets a
    /// value that it cannot take.
    pub fn run(&self, step: &Step) -> Result<()> {
        if step.device() != self.id {
            return Err(Error::argument(
                "run",
                "step",
                "recorded by this device",
                "recorded by another",
            ));
        }
        self.backend.run(step.program())
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        self.backend.as_ref()
    }

    fn check_transfer(&self, op: &'static str, tensor: &Tensor, bytes: usize) -> Result<()> {
        if tensor.buffer().device() != self.id {
            return Err(Error::argument(
                op,
                "tensor",
                "on this device",
                "on another",
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

fn check_dtype<T: Element>(op: &'static str, tensor: &Tensor) -> Result<()> {
    if tensor.dtype() == T::DTYPE {
        Ok(())
    } else {
        Err(Error::argument(op, "tensor", T::DTYPE, tensor.dtype()))
    }
}
