use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::MmapMut;
use walsh_core::{Buffer, Error, HostBytes, Memory, Result, Span, Tensor};

/// The alignment of allocations: a cache line, and the widest vector.
pub(crate) const ALIGN: usize = 64;

/// Memory from this size on is mapped. Below, a mapping costs more than the bytes that it saves: its calls of the
/// system, and a page at each end.
const MAPPED: u64 = 128 << 10;

/// Memory of the CPU backend: allocated, mapped, or host bytes used in place.
pub(crate) enum CpuMemory {
    Owned(Allocation),
    Imported(Arc<dyn HostBytes>),
    /// From an offset of memory that several share.
    Part(Arc<Pages>, usize),
}

impl Memory for CpuMemory {}

impl CpuMemory {
    /// Memory that is committed as it is touched, if it is not small.
    pub(crate) fn zeroed(bytes: u64) -> Result<Self> {
        if bytes < MAPPED {
            return Ok(Self::Owned(Allocation::zeroed(bytes)?));
        }
        Ok(Self::Part(Arc::new(Pages::sparse(bytes)?), 0))
    }

    /// The first byte. Writing through it is sound for owned memory alone.
    pub(crate) fn base(&self) -> *mut u8 {
        match self {
            Self::Owned(allocation) => allocation.base.as_ptr(),
            Self::Imported(bytes) => bytes.bytes().as_ptr().cast_mut(),
            // SAFETY: parts are made with offsets within the memory.
            Self::Part(pages, offset) => unsafe { pages.base().add(*offset) },
        }
    }
}

/// A zeroed allocation, which is written as a whole: allocators that align cannot tell that their memory is zero.
pub(crate) struct Allocation {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the allocation is plain bytes; who may touch them when is decided by
// the command lists' hazards and the backend's lock.
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

impl Allocation {
    fn zeroed(bytes: u64) -> Result<Self> {
        let out_of_memory = || Error::OutOfMemory {
            device: "cpu".into(),
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

/// Zeroed memory of the system's, whose pages are committed as they are touched.
pub(crate) struct Pages {
    // Keeps the memory; it is reached through `base` alone, and Linux alone is told more of it.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    map: MmapMut,
    base: *mut u8,
}

// SAFETY: as for `Allocation`.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// In pages as large as the system gives: for what is written once and read from end to end. They take fewer faults
    /// to fill and fewer translations to read.
    pub(crate) fn whole(bytes: u64) -> Result<Self> {
        let pages = Self::map(bytes)?;
        // Where the system has no large ones to give, the memory is good all the same.
        #[cfg(target_os = "linux")]
        drop(pages.map.advise(memmap2::Advice::HugePage));
        Ok(pages)
    }

    /// In pages as small as the system has: for what may never be filled. Each head of a cache begins somewhere else, and
    /// with large pages a token in each would commit megabytes.
    pub(crate) fn sparse(bytes: u64) -> Result<Self> {
        let pages = Self::map(bytes)?;
        // A system without large pages refuses, and commits small ones.
        #[cfg(target_os = "linux")]
        drop(pages.map.advise(memmap2::Advice::NoHugePage));
        Ok(pages)
    }

    fn map(bytes: u64) -> Result<Self> {
        let out_of_memory = || Error::OutOfMemory {
            device: "cpu".into(),
            bytes,
        };
        let size = usize::try_from(bytes.max(1)).map_err(|_| out_of_memory())?;
        let mut map = MmapMut::map_anon(size).map_err(|_| out_of_memory())?;
        let base = map.as_mut_ptr();
        Ok(Self { map, base })
    }

    /// The first byte, on a boundary of [`ALIGN`].
    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }
}

/// The address of `offset` within a buffer of this backend.
pub(crate) fn address(buffer: &Buffer, offset: u64) -> Result<*mut u8> {
    let memory = buffer.memory::<CpuMemory>().ok_or_else(|| Error::Device {
        device: "cpu".into(),
        message: "the buffer was not allocated by the CPU backend".into(),
    })?;
    // SAFETY: tensors and spans lie within their buffers.
    Ok(unsafe { memory.base().add(offset as usize) })
}

/// A tensor's memory as numbers of type `T`, kept alive by the view.
///
/// The view hands out slices whose exclusivity the compiler cannot see: kernels
/// of one group of phases never write what another of the group touches, and
/// every other access holds the backend's lock.
pub(crate) struct View<T> {
    base: *mut T,
    len: usize,
    _buffer: Buffer,
    _numbers: PhantomData<T>,
}

// SAFETY: a view is a pointer into memory that its buffer keeps alive; the
// unsafe accessors carry the aliasing rules.
unsafe impl<T: Pod + Send> Send for View<T> {}
// SAFETY: as above.
unsafe impl<T: Pod + Sync> Sync for View<T> {}

impl<T: Pod> View<T> {
    /// The memory of a tensor.
    pub(crate) fn of(tensor: &Tensor) -> Result<Self> {
        Self::range(tensor.buffer(), tensor.offset(), tensor.bytes())
    }

    /// `bytes` of a buffer from `offset` on.
    pub(crate) fn range(buffer: &Buffer, offset: u64, bytes: u64) -> Result<Self> {
        let base = address(buffer, offset)?.cast::<T>();
        if !base.is_aligned() {
            return Err(Error::Device {
                device: "cpu".into(),
                message: format!(
                    "a tensor lies at an address that is not a multiple of {}",
                    align_of::<T>()
                ),
            });
        }
        Ok(Self {
            base,
            len: (bytes / size_of::<T>().max(1) as u64) as usize,
            _buffer: buffer.clone(),
            _numbers: PhantomData,
        })
    }

    /// All numbers, of which several items write some each.
    pub(crate) fn parts(&self) -> Parts<'_, T> {
        Parts {
            base: self.base,
            len: self.len,
            numbers: PhantomData,
        }
    }

    /// The memory of a span.
    pub(crate) fn of_span(span: &Span) -> Result<Self> {
        Self::range(&span.buffer, span.offset, span.bytes)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn base(&self) -> *mut T {
        self.base
    }

    /// Numbers `range`, to read.
    ///
    /// # Safety
    /// Nothing writes them while the slice lives.
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &[T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the view by the assertion; not written by contract.
        unsafe { std::slice::from_raw_parts(self.base.add(range.start), range.len()) }
    }

    /// All numbers, to read.
    ///
    /// # Safety
    /// As [`slice`](Self::slice).
    pub(crate) unsafe fn all(&self) -> &[T] {
        // SAFETY: nothing writes them, as this method asks.
        unsafe { self.slice(0..self.len) }
    }

    /// Numbers `range` of tensors that may be the same memory, to read and to write.
    ///
    /// # Safety
    /// While the slice lives no other thread writes them, nor touches those that are written.
    pub(crate) unsafe fn cells(&self, range: Range<usize>) -> &[Cell<T>] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the view by the assertion; this thread's own, as this method asks.
        unsafe { std::slice::from_raw_parts(self.base.add(range.start).cast(), range.len()) }
    }

    /// Numbers `range`, to write.
    ///
    /// # Safety
    /// The memory is writable, and nothing else reads or writes the numbers
    /// while the slice lives.
    #[allow(clippy::mut_from_ref)] // exclusivity is the caller's promise
    pub(crate) unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the view by the assertion; exclusive by contract.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(range.start), range.len()) }
    }
}

/// Numbers that several items write, each its own: a view's, or all of a slice's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a, T> {
    base: *mut T,
    len: usize,
    numbers: PhantomData<&'a T>,
}

impl<'a, T: Pod> Parts<'a, T> {
    /// Those of a slice.
    pub(crate) fn of(numbers: &'a mut [T]) -> Self {
        Self {
            base: numbers.as_mut_ptr(),
            len: numbers.len(),
            numbers: PhantomData,
        }
    }

    /// Numbers `range` and on.
    pub(crate) fn range(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len);
        Self {
            // SAFETY: within the numbers by the assertion.
            base: unsafe { self.base.add(range.start) },
            len: range.len(),
            ..self
        }
    }

    pub(crate) fn len(self) -> usize {
        self.len
    }

    pub(crate) fn base(self) -> *mut T {
        self.base
    }

    /// Numbers `range`, to write.
    ///
    /// # Safety
    /// Nothing else touches them while the slice lives.
    #[inline(always)]
    pub(crate) unsafe fn part(self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the numbers by the assertion; nothing else touches them, as this method asks.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_pages_are_zero_and_aligned() {
        let pages = Arc::new(Pages::whole(3 << 20).unwrap());
        let part = CpuMemory::Part(pages.clone(), 1 << 20);
        assert_eq!(part.base().align_offset(ALIGN), 0);
        assert_eq!(part.base() as usize - pages.base() as usize, 1 << 20);
        // SAFETY: within the pages.
        assert_eq!(unsafe { part.base().add((2 << 20) - 1).read() }, 0);
    }
}
