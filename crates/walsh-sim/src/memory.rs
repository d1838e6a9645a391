//! Memory of the simulator, and what it knows of each byte.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use walsh_core::{Buffer, Error, HostBytes, Memory, Result};

use crate::shadow::{Cell, Cells};

/// The alignment of buffers, as CUDA allocates them.
const ALIGN: usize = 256;

/// A buffer.
pub(crate) struct SimMemory {
    store: Store,
    pub(crate) shadow: Mutex<Shadow>,
}

enum Store {
    Owned(Allocation),
    Imported(Arc<dyn HostBytes>),
}

/// What is known of a buffer's bytes.
#[derive(Default)]
pub(crate) struct Shadow {
    /// Who touched each byte; none until a dispatch may write to the buffer.
    cells: Option<Allocation>,
    /// How many bytes there are cells for.
    bytes: u64,
    /// The era in which the cells were made; see [`Shadow::cells`].
    era: u64,
    /// For workspace: 1 for each byte that was written in this run.
    pub(crate) written: Option<Vec<u8>>,
}

impl Shadow {
    /// The cells of `bytes` from `base` on. Phases are counted anew in each era, so cells of an earlier one are cleared.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn cells(&mut self, base: *mut u8, bytes: u64, era: u64) -> Result<Cells> {
        let cells = match &self.cells {
            Some(cells) if self.era == era && self.bytes == bytes => cells,
            _ => {
                let size = Cells::count(bytes).checked_mul(size_of::<Cell>() as u64);
                (self.era, self.bytes) = (era, bytes);
                self.cells
                    .insert(Allocation::zeroed(size.unwrap_or(u64::MAX))?)
            }
        };
        Ok(Cells::new(cells.base.as_ptr().cast(), bytes, base as usize))
    }
}

impl Memory for SimMemory {}

impl SimMemory {
    pub(crate) fn zeroed(bytes: u64) -> Result<Self> {
        Ok(Self {
            store: Store::Owned(Allocation::zeroed(bytes)?),
            shadow: Mutex::default(),
        })
    }

    /// Memory that must be written before it is read, in each run anew.
    pub(crate) fn workspace(bytes: u64) -> Result<Self> {
        let memory = Self::zeroed(bytes)?;
        lock(&memory.shadow).written = Some(vec![0; bytes as usize]);
        Ok(memory)
    }

    pub(crate) fn imported(bytes: Arc<dyn HostBytes>) -> Self {
        Self {
            store: Store::Imported(bytes),
            shadow: Mutex::default(),
        }
    }

    /// The first byte. Writing through it is sound for memory that is not imported.
    pub(crate) fn base(&self) -> *mut u8 {
        match &self.store {
            Store::Owned(allocation) => allocation.base.as_ptr(),
            Store::Imported(bytes) => bytes.bytes().as_ptr().cast_mut(),
        }
    }
}

/// A lock that a panic elsewhere does not take away.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The simulator's memory behind a buffer.
pub(crate) fn memory(buffer: &Buffer) -> Result<&SimMemory> {
    buffer.memory::<SimMemory>().ok_or_else(|| Error::Device {
        device: "sim".into(),
        message: "the buffer was not allocated by the simulator".into(),
    })
}

/// Zeroed bytes.
pub(crate) struct Allocation {
    pub(crate) base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the allocation is plain bytes, touched under the simulator's lock alone.
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

impl Allocation {
    pub(crate) fn zeroed(bytes: u64) -> Result<Self> {
        let out_of_memory = || Error::OutOfMemory {
            device: "sim".into(),
            bytes,
        };
        let size = usize::try_from(bytes.max(1)).map_err(|_| out_of_memory())?;
        let layout = Layout::from_size_align(size, ALIGN).map_err(|_| out_of_memory())?;
        // SAFETY: the layout's size is at least 1.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or_else(out_of_memory)?;
        Ok(Self { base, layout })
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}
