use walsh_formats::DType;
use walsh_formats::kv::{KvSpec, RowCodec};

use crate::buffer::Span;
use crate::device::Device;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// How positions map to slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheKind {
    /// Slot = position; a position past the capacity is an error.
    Global,
    /// Slot = position mod capacity: the cache of a sliding-window layer, which
    /// forgets the oldest positions.
    Ring,
}

/// What a [`KvCache`] is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvCacheOptions {
    /// The codecs of keys and values.
    pub spec: KvSpec,
    /// How many KV heads there are.
    pub kv_heads: u64,
    /// Numbers per head.
    pub head_dim: u64,
    /// How many positions are held.
    pub capacity: u64,
    /// How positions map to slots.
    pub kind: CacheKind,
}

/// The stored keys, or the stored values, of one layer.
#[derive(Debug, Clone)]
pub struct KvSide {
    /// The codec, bound to the head size.
    pub codec: RowCodec,
    /// `u8 [kv_heads, capacity, codec.code_bytes()]`.
    pub codes: Tensor,
    /// `[kv_heads, capacity, codec.groups()]` of the codec's scale type; absent
    /// for dense codecs, which hold their scales within their blocks.
    pub scales: Option<Tensor>,
}

impl KvSide {
    fn new(device: &Device, codec: RowCodec, options: &KvCacheOptions) -> Result<Self> {
        let rows = [options.kv_heads, options.capacity];
        let codes = device.zeros(DType::U8, &[rows[0], rows[1], codec.code_bytes() as u64])?;
        let scales = codec
            .scale_dtype()
            .map(|dtype| device.zeros(dtype, &[rows[0], rows[1], codec.groups() as u64]))
            .transpose()?;
        Ok(Self {
            codec,
            codes,
            scales,
        })
    }

    fn spans(&self) -> impl Iterator<Item = Span> {
        std::iter::once(self.codes.span()).chain(self.scales.as_ref().map(Tensor::span))
    }
}

/// One layer's KV cache: rotated, scaled and quantised keys and values.
///
/// The layout and the codecs are those of the [`walsh_formats::kv`] module.
/// Cloning shares the memory.
#[derive(Debug, Clone)]
pub struct KvCache {
    options: KvCacheOptions,
    key: KvSide,
    value: KvSide,
}

impl KvCache {
    /// Allocates an empty cache.
    ///
    /// # Errors
    /// When a codec does not fit the head size, a size is zero, the capacity
    /// does not fit 31 bits, or memory is missing.
    pub fn new(device: &Device, options: KvCacheOptions) -> Result<Self> {
        for (argument, size) in [
            ("kv_heads", options.kv_heads),
            ("head_dim", options.head_dim),
            ("capacity", options.capacity),
        ] {
            if size == 0 || size > i32::MAX as u64 {
                return Err(Error::argument(
                    "KvCache",
                    argument,
                    "between 1 and 2^31 - 1",
                    size,
                ));
            }
        }
        let head_dim = options.head_dim as usize;
        let key = KvSide::new(device, RowCodec::new(options.spec.key, head_dim)?, &options)?;
        let value = KvSide::new(
            device,
            RowCodec::new(options.spec.value, head_dim)?,
            &options,
        )?;
        Ok(Self {
            options,
            key,
            value,
        })
    }

    /// The stored keys.
    #[must_use]
    pub fn key(&self) -> &KvSide {
        &self.key
    }

    /// The stored values.
    #[must_use]
    pub fn value(&self) -> &KvSide {
        &self.value
    }

    /// How many KV heads it holds.
    #[must_use]
    pub fn kv_heads(&self) -> u64 {
        self.options.kv_heads
    }

    /// Numbers per head.
    #[must_use]
    pub fn head_dim(&self) -> u64 {
        self.options.head_dim
    }

    /// How many positions it holds.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.options.capacity
    }

    /// How positions map to slots.
    #[must_use]
    pub fn kind(&self) -> CacheKind {
        self.options.kind
    }

    /// The codecs of keys and values.
    #[must_use]
    pub fn spec(&self) -> KvSpec {
        self.options.spec
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.spans().map(|span| span.bytes).sum()
    }

    /// Every range of its memory.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        self.key.spans().chain(self.value.spans())
    }
}
