//! Buffers of a device.

use std::ptr::NonNull;
use std::sync::Arc;

use walsh_core::{Error, HostBytes, Memory, Result, Span};

use crate::api::{Api, Bound, Storage};
use crate::device::failure;

/// A buffer.
pub(crate) struct MetalMemory<A: Api> {
    /// Dropped before what it may lie over.
    memory: A::Memory,
    /// The host's memory that it lies over.
    _host: Option<Arc<dyn HostBytes>>,
}

impl<A: Api> Memory for MetalMemory<A> {}

impl<A: Api> MetalMemory<A> {
    /// A buffer of a size.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], and when the GPU has no buffers of the size.
    pub(crate) fn new(api: &A, spec: &str, bytes: u64, storage: Storage) -> Result<Self> {
        fits(api, spec, bytes)?;
        let memory = api
            .allocate(bytes.max(1), storage)
            .ok_or_else(|| Error::OutOfMemory {
                device: spec.into(),
                bytes,
            })?;
        Ok(Self {
            memory,
            _host: None,
        })
    }

    /// A buffer over the host's memory where that begins a page, as a mapped file does, or else with a copy of it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn import(api: &A, spec: &str, host: Arc<dyn HostBytes>) -> Result<Self> {
        let bytes = host.bytes();
        let page = api.facts().page;
        let begins_a_page = (bytes.as_ptr() as u64).is_multiple_of(page);
        if begins_a_page && !bytes.is_empty() {
            let whole = (bytes.len() as u64).next_multiple_of(page);
            fits(api, spec, whole)?;
            let base = NonNull::from(bytes).cast();
            // SAFETY: a page that holds one byte of a mapping is there whole. `HostBytes` promises that they stay, and
            // it is kept until the buffer is gone.
            if let Some(memory) = unsafe { api.wrap(base, whole) } {
                return Ok(Self {
                    memory,
                    _host: Some(host),
                });
            }
        }
        let copy = Self::new(api, spec, bytes.len() as u64, Storage::Shared)?;
        // SAFETY: the buffer is as long, and nobody else has it yet.
        unsafe { api.write(&copy.memory, 0, bytes) };
        Ok(copy)
    }
}

fn fits<A: Api>(api: &A, spec: &str, bytes: u64) -> Result<()> {
    let most = api.facts().buffer_bytes;
    if bytes <= most {
        return Ok(());
    }
    Err(failure(
        spec,
        format_args!(
            "a buffer of {bytes} bytes is asked for, but this GPU has none above {most}: use a smaller model or context"
        ),
    ))
}

/// The device's memory behind a range.
///
/// # Errors
/// When it is another backend's.
pub(crate) fn bound<'a, A: Api>(spec: &str, span: &'a Span) -> Result<Bound<'a, A::Memory>> {
    let memory = span.buffer.memory::<MetalMemory<A>>();
    let memory = memory.ok_or_else(|| failure(spec, "a buffer is another backend's"))?;
    Ok(Bound {
        memory: &memory.memory,
        // What stands for nothing may stand at a buffer's end, where Metal takes no offset.
        offset: if span.bytes == 0 { 0 } else { span.offset },
        bytes: span.bytes,
    })
}
