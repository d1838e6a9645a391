//! Memory of the device, and of the host where the device copies from and to.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::CUdeviceptr;
use walsh_core::{Buffer, Memory, Result, Span};

use crate::arena::{Arena, Block, Slabs};
use crate::context::Context;
use crate::driver::OUT_OF_MEMORY;

/// Slabs from the driver.
struct DriverSlabs(Arc<Context>);

impl Slabs for DriverSlabs {
    fn allocate(&mut self, bytes: u64) -> Result<Option<u64>> {
        let Ok(size) = usize::try_from(bytes) else {
            return Ok(None);
        };
        self.0.enter()?;
        let mut address: CUdeviceptr = 0;
        // SAFETY: the context is current, and the driver writes one address.
        match unsafe { (self.0.driver.allocate)(&raw mut address, size) } {
            OUT_OF_MEMORY => Ok(None),
            code => {
                self.0.check(code, "allocating memory")?;
                Ok(Some(address))
            }
        }
    }

    fn release(&mut self, address: u64) {
        // SAFETY: the address is a slab's, and nothing in it is used any more: the driver waits for work that does.
        // A device that is lost has lost its memory, too.
        unsafe {
            (self.0.driver.set_context)(self.0.handle);
            (self.0.driver.free)(address);
        }
    }
}

/// A device's memory.
pub(crate) struct Pool {
    context: Arc<Context>,
    arena: Mutex<Arena<DriverSlabs>>,
}

impl Pool {
    pub(crate) fn new(context: &Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            context: context.clone(),
            arena: Mutex::new(Arena::new(DriverSlabs(context.clone()))),
        })
    }

    /// Memory that holds whatever was there before.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](walsh_core::Error::OutOfMemory), or when the device fails.
    pub(crate) fn allocate(self: &Arc<Self>, bytes: u64) -> Result<CudaMemory> {
        self.context.enter()?;
        let block = self.arena().allocate(bytes)?;
        let block = block.ok_or_else(|| self.context.out_of_memory(bytes))?;
        Ok(CudaMemory {
            block: Some(block),
            pool: self.clone(),
        })
    }

    /// Bytes that the device could still give, in one piece or in many.
    pub(crate) fn available(&self) -> Option<u64> {
        self.context.enter().ok()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current, and the driver writes two sizes.
        let code = unsafe { (self.context.driver.memory_info)(&raw mut free, &raw mut total) };
        self.context.check(code, "asking for free memory").ok()?;
        Some(free as u64 + self.arena().free_bytes())
    }

    fn arena(&self) -> std::sync::MutexGuard<'_, Arena<DriverSlabs>> {
        self.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer's memory. Work that uses it is on the one stream, so that whoever is given the same bytes next comes after.
pub(crate) struct CudaMemory {
    /// Taken when it is dropped.
    block: Option<Block>,
    pool: Arc<Pool>,
}

impl Memory for CudaMemory {}

impl CudaMemory {
    /// The address of the first byte.
    pub(crate) fn address(&self) -> CUdeviceptr {
        self.block.as_ref().map_or(0, |block| block.address)
    }
}

impl Drop for CudaMemory {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.arena().free(block);
        }
    }
}

/// The address of a span of this context.
///
/// # Errors
/// When its buffer is another device's.
pub(crate) fn address(context: &Context, span: &Span) -> Result<CUdeviceptr> {
    let address = |buffer: &Buffer| {
        let memory = buffer.memory::<CudaMemory>()?;
        (memory.pool.context.handle == context.handle).then(|| memory.address())
    };
    match address(&span.buffer) {
        Some(base) => Ok(base + span.offset),
        None => Err(context.failure("a buffer is not of this device")),
    }
}

/// Host memory that the device copies from and to without the driver's help.
pub(crate) struct Pinned {
    base: NonNull<u8>,
    bytes: usize,
    context: Arc<Context>,
}

// SAFETY: plain memory; who may touch it when is its owner's affair.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl Pinned {
    pub(crate) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        let mut base: *mut c_void = ptr::null_mut();
        context.enter()?;
        // SAFETY: the context is current, and the driver writes one address.
        let code = unsafe { (context.driver.allocate_host)(&raw mut base, bytes, 0) };
        context.check(code, "pinning memory of the host")?;
        let base = NonNull::new(base.cast::<u8>());
        let base = base.ok_or_else(|| context.failure("pinning memory of the host failed"))?;
        // SAFETY: so many bytes were allocated. Zeroing them makes them readable.
        unsafe { base.write_bytes(0, bytes) };
        Ok(Self {
            base,
            bytes,
            context: context.clone(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes from `offset` on, to read.
    ///
    /// # Safety
    /// The device writes none of them while the slice lives.
    pub(crate) unsafe fn slice(&self, offset: usize, bytes: usize) -> &[u8] {
        assert!(offset <= self.bytes && bytes <= self.bytes - offset);
        // SAFETY: within the memory by the assertion, not written by contract.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), bytes) }
    }

    /// Bytes from `offset` on, to write.
    ///
    /// # Safety
    /// The device neither reads nor writes them while the slice lives.
    pub(crate) unsafe fn slice_mut(&mut self, offset: usize, bytes: usize) -> &mut [u8] {
        assert!(offset <= self.bytes && bytes <= self.bytes - offset);
        // SAFETY: within the memory by the assertion, exclusive by contract and by the borrow.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, and nothing copies from or to it any more.
        unsafe {
            (self.context.driver.set_context)(self.context.handle);
            (self.context.driver.free_host)(self.base.as_ptr().cast());
        }
    }
}
