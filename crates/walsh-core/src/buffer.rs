use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies an opened device within this process.
///
/// Opening the same hardware twice gives two identities: their buffers do not
/// mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceId(u64);

impl DeviceId {
    /// An identity that no other device of this process has.
    #[must_use]
    pub fn unique() -> Self {
        Self(next_id())
    }
}

/// Identifies a buffer within this process; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(u64);

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Host memory that a device may read where it lies, such as a mapped file.
///
/// # Safety
/// `bytes` must return the same address and length on every call for as long
/// as the value lives, and nothing may change the bytes meanwhile.
pub unsafe trait HostBytes: Send + Sync + 'static {
    /// The memory.
    fn bytes(&self) -> &[u8];
}

// SAFETY: an `Arc<[u8]>`'s allocation never moves and is shared immutably.
unsafe impl HostBytes for Arc<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A backend's own handle to memory. Backends downcast it through
/// [`Buffer::memory`].
pub trait Memory: Any + Send + Sync {}

/// Whether ops may write a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Imported host memory, such as the weights of a mapped file.
    ReadOnly,
    /// Memory that the device allocated.
    ReadWrite,
    /// A weight in the order that a device's products read fastest, of which
    /// [`Device::pack`](crate::Device::pack) made the one tensor: products alone
    /// read it.
    Packed,
}

struct Inner {
    id: BufferId,
    device: DeviceId,
    bytes: u64,
    access: Access,
    memory: Box<dyn Memory>,
}

/// A range of device memory. Cloning shares it; the memory is released with
/// the last clone.
#[derive(Clone)]
pub struct Buffer(Arc<Inner>);

impl Buffer {
    /// Wraps a backend's memory. [`Device`](crate::Device) calls it for users; backends call
    /// it for workspace of their own, under a [`DeviceId`] of their own.
    #[must_use]
    pub fn new(device: DeviceId, bytes: u64, access: Access, memory: Box<dyn Memory>) -> Self {
        Self(Arc::new(Inner {
            id: BufferId(next_id()),
            device,
            bytes,
            access,
            memory,
        }))
    }

    /// This buffer's identity.
    #[must_use]
    pub fn id(&self) -> BufferId {
        self.0.id
    }

    /// The device it belongs to.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.0.device
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Whether ops may write it.
    #[must_use]
    pub fn access(&self) -> Access {
        self.0.access
    }

    /// All of it.
    #[must_use]
    pub fn span(&self) -> Span {
        Span {
            buffer: self.clone(),
            offset: 0,
            bytes: self.bytes(),
        }
    }

    /// The backend's memory, when it is of type `M`.
    #[must_use]
    pub fn memory<M: Memory>(&self) -> Option<&M> {
        let memory: &dyn Any = self.0.memory.as_ref();
        memory.downcast_ref()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("id", &self.0.id.0)
            .field("bytes", &self.0.bytes)
            .field("access", &self.0.access)
            .finish_non_exhaustive()
    }
}

/// A byte range of a buffer: what hazards are worked out over.
#[derive(Debug, Clone)]
pub struct Span {
    /// The buffer.
    pub buffer: Buffer,
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Span {
    /// Whether the two ranges share a byte.
    #[must_use]
    pub fn overlaps(&self, other: &Span) -> bool {
        self.buffer.id() == other.buffer.id()
            && self.bytes > 0
            && other.bytes > 0
            && self.offset < other.offset + other.bytes
            && other.offset < self.offset + self.bytes
    }

    /// Whether the two are the same range of the same buffer.
    #[must_use]
    pub fn same(&self, other: &Span) -> bool {
        self.buffer.id() == other.buffer.id()
            && self.offset == other.offset
            && self.bytes == other.bytes
    }
}
