#![doc = include_str!("guide.md")]

mod open;

pub use open::{BACKENDS, BackendInfo, DeviceSpec, open};

pub use walsh_core::ops;
pub use walsh_core::{
    Access, Accesses, Backend, Buffer, BufferId, CacheKind, Command, CommandList, Device, DeviceId,
    Element, Error, HostBytes, KvCache, KvCacheOptions, KvSide, KvTensors, Memory, Plan, Program,
    Properties, Recorder, Result, Span, Step, Tensor, tensor_bytes,
};

pub use walsh_formats as formats;
pub use walsh_formats::kv::{KvCodec, KvSpec};
pub use walsh_formats::{DType, gguf};

#[cfg(feature = "cpu")]
pub use walsh_cpu as cpu;
#[cfg(feature = "cpu")]
pub use walsh_cpu::{Activations, CpuOptions, Isa, Threads};
