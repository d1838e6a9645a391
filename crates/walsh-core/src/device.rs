use std::fmt;
use std::sync::Arc;

use bytemuck::Pod;
use half::{bf16, f16};
use walsh_formats::DType;

use crate::backend::{Backend, Properties};
use crate::buffer::{Access, Buffer, DeviceId, HostBytes, Span};
use crate::tensor::{Tensor, tensor_bytes};
use crate::{Error, Result};

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
