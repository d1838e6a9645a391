#![doc = include_str!("guide.md")]

mod open;

pub use open::{BACKENDS, BackendInfo, DeviceSpec, open};

pub use walsh_core::ops;
pub use walsh_core::{
    Access, Accesses, Activations, Backend, Buffer, BufferId, CacheKind, CacheSide, Command,
    CommandList, Device, DeviceId, Element, Error, HostBytes, KernelTime, KeyPreparation, KvCache,
    KvCacheOptions, KvRows, KvSide, KvSideTensors, KvTensors, Memory, OverlayOptions, PAGE, Plan,
    Program, Properties, Recorder, Recording, Result, Screen, ScreenPart, ScreenSample, Span, Step,
    Tensor, tensor_bytes,
};

pub use walsh_formats as formats;
pub use walsh_formats::kv::{KvCodec, KvCodecs, KvSpec, LayerKv};
pub use walsh_formats::{DType, gguf};

#[cfg(feature = "cpu")]
pub use walsh_cpu as cpu;
#[cfg(feature = "cpu")]
pub use walsh_cpu::{CpuOptions, Isa, PackWeights, Threads};

#[cfg(feature = "cuda")]
pub use walsh_cuda as cuda;
#[cfg(feature = "cuda")]
pub use walsh_cuda::CudaOptions;

#[cfg(feature = "metal")]
pub use walsh_metal as metal;
#[cfg(feature = "metal")]
pub use walsh_metal::MetalOptions;
