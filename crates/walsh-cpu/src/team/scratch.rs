//! A worker's scratch memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Where scratch memory starts: a cache line, which is also the widest vector.
const ALIGN: usize = 64;

/// Growable bytes that start on a 64-byte boundary and keep whatever the last user left in them.
pub(crate) struct Scratch {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is owned and has no ties to a thread.
unsafe impl Send for Scratch {}

impl Scratch {
    /// No bytes yet.
    pub(crate) fn new() -> Scratch {
        Scratch {
            start: NonNull::dangling(),
            len: 0,
        }
    }

    /// Grows to at least `bytes`; what was in it is lost when it grows.
    ///
    /// # Panics
    /// When `bytes` is more than an allocation can have.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        if bytes <= self.len {
            return;
        }
        self.release();
        let bytes = bytes.next_multiple_of(4096);
        let layout =
            Layout::from_size_align(bytes, ALIGN).expect("scratch memory fits the address space");
        // SAFETY: the layout has a size.
        let start = unsafe { alloc_zeroed(layout) };
        self.start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        self.len = bytes;
    }

    /// All bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: `start` owns `len` initialised bytes, borrowed as this value is.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The first `len` numbers, in whatever state the last user left them.
    ///
    /// # Panics
    /// When the phase did not ask for as many bytes.
    pub(crate) fn floats(&mut self, len: usize) -> &mut [f32] {
        let bytes = &mut self.bytes()[..len * size_of::<f32>()];
        // The memory starts on a cache line.
        bytemuck::cast_slice_mut(bytes)
    }

    fn release(&mut self) {
        if self.len > 0 {
            // SAFETY: `reserve` allocated it with this layout, which was valid then.
            unsafe {
                dealloc(
                    self.start.as_ptr(),
                    Layout::from_size_align_unchecked(self.len, ALIGN),
                )
            };
            self.len = 0;
            self.start = NonNull::dangling();
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.release();
    }
}
