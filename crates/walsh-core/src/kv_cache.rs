use walsh_formats::DType;
use walsh_formats::kv::{KvCodec, KvSpec, RowCodec};

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

/// Memory for the keys, or the values, of a [`KvCache`].
#[derive(Debug, Clone)]
pub struct KvTensors {
    /// `u8 [kv_heads, capacity, code bytes]`, from a multiple of 16 bytes on.
    pub codes: Tensor,
    /// `[kv_heads, capacity, groups]` of the codec's scale type; `None` for
    /// dense codecs.
    pub scales: Option<Tensor>,
}

/// The shapes of one side's tensors.
struct Layout {
    codec: RowCodec,
    codes: [u64; 3],
    scales: Option<(DType, [u64; 3])>,
}

impl Layout {
    fn new(codec: KvCodec, options: &KvCacheOptions) -> Result<Self> {
        let codec = RowCodec::new(codec, options.head_dim as usize)?;
        let shape = |last: usize| [options.kv_heads, options.capacity, last as u64];
        let scales = codec.scale_dtype();
        Ok(Self {
            codes: shape(codec.code_bytes()),
            scales: scales.map(|dtype| (dtype, shape(codec.groups()))),
            codec,
        })
    }

    fn allocate(&self, device: &Device) -> Result<KvTensors> {
        let scales = self.scales.as_ref();
        Ok(KvTensors {
            codes: device.zeros(DType::U8, &self.codes)?,
            scales: scales
                .map(|(dtype, shape)| device.zeros(*dtype, shape))
                .transpose()?,
        })
    }

    /// Joins the codec with tensors of its shapes.
    fn side(self, tensors: KvTensors) -> Result<KvSide> {
        let KvTensors { codes, scales } = tensors;
        fit("codes", Some((DType::U8, self.codes)), Some(&codes))?;
        fit("scales", self.scales, scales.as_ref())?;
        if !codes.offset().is_multiple_of(16) {
            return Err(Error::argument(
                "KvCache",
                "codes",
                "at a multiple of 16 bytes",
                codes.offset(),
            ));
        }
        Ok(KvSide {
            codec: self.codec,
            codes,
            scales,
        })
    }
}

fn fit(
    argument: &'static str,
    expected: Option<(DType, [u64; 3])>,
    given: Option<&Tensor>,
) -> Result<()> {
    match (&expected, given) {
        (None, None) => return Ok(()),
        (Some((dtype, shape)), Some(tensor))
            if tensor.dtype() == *dtype && tensor.shape() == shape =>
        {
            return Ok(());
        }
        _ => {}
    }
    let expected = expected.map_or("absent".into(), |(dtype, shape)| {
        format!("{dtype}{shape:?}")
    });
    let given = given.map_or("absent".into(), Tensor::to_string);
    Err(Error::argument("KvCache", argument, expected, given))
}

impl KvSide {
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.codes).chain(&self.scales)
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
        let [key, value] = Self::layouts(&options)?;
        let tensors = [key.allocate(device)?, value.allocate(device)?];
        Self::from_tensors(options, tensors)
    }

    /// A cache over memory of the caller's, which may hold stored positions:
    /// the tensors of the keys, then of the values.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when a tensor's type, shape or alignment is
    /// not what its codec asks for, or tensors overlap.
    pub fn from_tensors(options: KvCacheOptions, tensors: [KvTensors; 2]) -> Result<Self> {
        let [key_layout, value_layout] = Self::layouts(&options)?;
        let [key, value] = tensors;
        let cache = Self {
            options,
            key: key_layout.side(key)?,
            value: value_layout.side(value)?,
        };
        let spans: Vec<Span> = cache.spans().collect();
        for (index, span) in spans.iter().enumerate() {
            if spans[index + 1..].iter().any(|other| span.overlaps(other)) {
                return Err(Error::argument(
                    "KvCache",
                    "tensors",
                    "apart from each other",
                    "overlapping",
                ));
            }
        }
        Ok(cache)
    }

    /// The layouts of keys and values, when the options are sound.
    fn layouts(options: &KvCacheOptions) -> Result<[Layout; 2]> {
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
        Ok([
            Layout::new(options.spec.key, options)?,
            Layout::new(options.spec.value, options)?,
        ])
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

    /// All of its memory, in an order that does not change: codes and scales of
    /// the keys, then of the values.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.key.tensors().chain(self.value.tensors())
    }

    /// Every range of its memory.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        self.tensors().map(Tensor::span)
    }

    /// The memory that holds the first `stored` positions, or of a ring what is
    /// left of them: matrices whose rows follow one another, in an order that
    /// does not change. Copying them into a cache of the same codecs, whose
    /// capacity is this one's or at least `stored`, copies the positions.
    ///
    /// # Errors
    /// Never for a cache that was made by this module's functions.
    pub fn parts(&self, stored: u64) -> Result<Vec<Tensor>> {
        let slots = stored.min(self.options.capacity);
        let mut parts = Vec::new();
        for tensor in self.tensors() {
            let [heads, capacity, width] = [0, 1, 2].map(|dim| tensor.shape()[dim]);
            for head in 0..heads {
                let rows = tensor.rows(head..head + 1)?.reshape(&[capacity, width])?;
                parts.push(rows.rows(0..slots)?);
            }
        }
        Ok(parts)
    }

    /// The least length that a text can be cut back to and continued from, when
    /// positions up to `reached` were stored and queries see `window` positions,
    /// their own included: a ring has lost the oldest ones.
    #[must_use]
    pub fn earliest_return(&self, reached: u64, window: u64) -> u64 {
        match self.options.kind {
            CacheKind::Global => 0,
            CacheKind::Ring => match reached.saturating_sub(self.options.capacity) {
                0 => 0,
                lost => lost + window.saturating_sub(1),
            },
        }
    }
}
