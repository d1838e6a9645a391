//! An opened GPU: its context, its stream, and whether it still answers.

use std::ffi::{c_int, c_uint};
use std::ptr;
use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::{
    CUcontext, CUdevice, CUdevice_attribute as Attribute, CUevent, CUstream,
};
use walsh_core::{Activations, Error, Result};
use walsh_kernels::Limits;

use crate::driver::{Driver, OUT_OF_MEMORY, SUCCESS, is_fatal};

/// The compute capability below which the kernels' instructions are missing.
const LEAST_CAPABILITY: (c_int, c_int) = (7, 5);

/// The compute capability from which on tensor cores multiply matrices of bfloat16.
const BFLOAT_MATRICES: (c_int, c_int) = (8, 0);

/// The first compute capability with clusters of groups.
const CLUSTERS: (i32, i32) = (9, 0);

/// The one whose warpgroups multiply matrices together.
const WARPGROUPS: (i32, i32) = (9, 0);

/// The threadgroup memory that a kernel may declare without asking for more at its launch.
const THREADGROUP_BYTES: u32 = 48 << 10;

/// What kernels are chosen by on a GPU of a compute capability, such as (9, 0).
#[must_use]
pub fn limits(capability: (i32, i32), multiprocessors: u32, activations: Activations) -> Limits {
    Limits {
        backend: "cuda",
        multiprocessors,
        threadgroup_bytes: THREADGROUP_BYTES,
        bfloat_matrices: capability >= BFLOAT_MATRICES,
        fragment_bytes: fragment_bytes(capability),
        warpgroup_matrices: capability == WARPGROUPS,
        cluster_groups: if capability >= CLUSTERS { 8 } else { 1 },
        joins: true,
        activations,
    }
}

/// What a group may ask for at its launch, by the programming guide's table of compute capabilities; the least of all where it
/// is not known.
fn fragment_bytes(capability: (i32, i32)) -> u32 {
    match capability {
        (..8, _) => 0,
        (8, 0 | 7) => 163 << 10,
        (9 | 10, _) => 227 << 10,
        _ => 99 << 10,
    }
}

/// A stream that does not wait for the work of others on the device.
const NON_BLOCKING: c_uint = 1;

/// What the driver says of a GPU before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpu {
    pub(crate) device: CUdevice,
    pub(crate) name: String,
    pub(crate) memory: u64,
    pub(crate) capability: (c_int, c_int),
    pub(crate) multiprocessors: u32,
}

impl Gpu {
    /// The GPUs that this process may use.
    pub(crate) fn count(driver: &Driver) -> Result<u32, String> {
        let mut count = 0;
        // SAFETY: the driver writes one `int`.
        let code = unsafe { (driver.device_count)(&raw mut count) };
        driver.expect(code, "counting the GPUs")?;
        Ok(count.max(0) as u32)
    }

    /// Looks at one of them.
    pub(crate) fn examine(driver: &Driver, ordinal: u32) -> Result<Self, String> {
        let mut device = 0;
        // SAFETY: the driver writes one handle.
        let code = unsafe { (driver.device)(&raw mut device, ordinal as c_int) };
        driver.expect(code, "finding the GPU")?;
        let mut name = [0u8; 256];
        // SAFETY: the driver writes at most so many bytes, a zero among them.
        let code =
            unsafe { (driver.device_name)(name.as_mut_ptr().cast(), name.len() as c_int, device) };
        driver.expect(code, "asking for the GPU's name")?;
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(0);
        let mut memory = 0;
        // SAFETY: the driver writes one size.
        let code = unsafe { (driver.device_memory)(&raw mut memory, device) };
        driver.expect(code, "asking for the GPU's memory")?;
        let attribute = |attribute: Attribute| {
            let mut value = 0;
            // SAFETY: the driver writes one `int`.
            let code =
                unsafe { (driver.device_attribute)(&raw mut value, attribute as c_uint, device) };
            driver.expect(code, "asking what the GPU is")?;
            Ok::<c_int, String>(value)
        };
        Ok(Self {
            device,
            name: String::from_utf8_lossy(&name[..length]).into_owned(),
            memory: memory as u64,
            capability: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1)
                as u32,
        })
    }

    /// Whether the kernels run on it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let ((major, minor), (least, least_minor)) = (self.capability, LEAST_CAPABILITY);
        if self.capability >= LEAST_CAPABILITY {
            return Ok(());
        }
        Err(format!(
            "{} has compute capability {major}.{minor}, but the kernels need {least}.{least_minor}: use another device",
            self.name
        ))
    }
}

/// What a call was for: a text, or what makes one when it is needed.
pub(crate) trait Doing {
    fn text(self) -> String;
}

impl Doing for &str {
    fn text(self) -> String {
        self.into()
    }
}

impl<F: Fn() -> String> Doing for F {
    fn text(self) -> String {
        self()
    }
}

/// A GPU's primary context and a stream of its own. All work goes through the stream, in order.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) driver: &'static Driver,
    pub(crate) stream: CUstream,
    /// The spec that users know it by: `cuda:0`.
    pub(crate) spec: String,
    pub(crate) handle: CUcontext,
    device: CUdevice,
    /// Why it answers no more.
    lost: OnceLock<String>,
}

// SAFETY: the driver's handles may be used from any thread; the context is made current on each before.
unsafe impl Send for Context {}
// SAFETY: as above; the driver takes calls from several threads at once.
unsafe impl Sync for Context {}

impl Context {
    pub(crate) fn open(driver: &'static Driver, gpu: &Gpu, spec: String) -> Result<Arc<Self>> {
        let mut context = Self {
            driver,
            stream: ptr::null_mut(),
            spec,
            handle: ptr::null_mut(),
            device: gpu.device,
            lost: OnceLock::new(),
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the driver writes one handle. The context's drop gives it back.
        let code = unsafe { (driver.retain_context)(&raw mut handle, gpu.device) };
        context.check(code, "opening the GPU")?;
        context.handle = handle;
        context.enter()?;
        let mut stream = ptr::null_mut();
        // SAFETY: the driver writes one handle.
        let code = unsafe { (driver.create_stream)(&raw mut stream, NON_BLOCKING) };
        context.check(code, "creating a stream")?;
        context.stream = stream;
        Ok(Arc::new(context))
    }

    /// Makes the context this thread's; every call to the driver comes behind it.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn enter(&self) -> Result<()> {
        if let Some(why) = self.lost.get() {
            return Err(self.lost_because(why));
        }
        // SAFETY: the context is retained for as long as `self` lives.
        self.check(
            unsafe { (self.driver.set_context)(self.handle) },
            "entering its context",
        )
    }

    /// What a driver's code means. A fatal one loses the device for good.
    ///
    /// # Errors
    /// When it is not success.
    pub(crate) fn check<D: Doing>(&self, code: u32, doing: D) -> Result<()> {
        if code == SUCCESS {
            return Ok(());
        }
        let doing = doing.text();
        match code {
            code if is_fatal(code) => {
                let why = format!("{doing} failed: {}", self.driver.text(code));
                Err(self.lost_because(self.lost.get_or_init(|| why)))
            }
            code => Err(self.failure(format_args!("{doing} failed: {}", self.driver.text(code)))),
        }
    }

    /// As [`check`](Self::check) for calls that take `bytes` of memory.
    ///
    /// # Errors
    /// When it is not success.
    pub(crate) fn check_memory(&self, code: u32, bytes: u64, doing: &'static str) -> Result<()> {
        if code == OUT_OF_MEMORY {
            return Err(self.out_of_memory(bytes));
        }
        self.check(code, doing)
    }

    /// Waits for all that the stream was given.
    ///
    /// # Errors
    /// When some of it failed.
    pub(crate) fn synchronize(&self, doing: &'static str) -> Result<()> {
        // SAFETY: the stream lives as long as `self`.
        self.check(unsafe { (self.driver.synchronize)(self.stream) }, doing)
    }

    pub(crate) fn out_of_memory(&self, bytes: u64) -> Error {
        Error::OutOfMemory {
            device: self.spec.clone(),
            bytes,
        }
    }

    pub(crate) fn failure(&self, message: impl std::fmt::Display) -> Error {
        Error::Device {
            device: self.spec.clone(),
            message: message.to_string(),
        }
    }

    fn lost_because(&self, why: &str) -> Error {
        self.failure(format_args!(
            "the device is lost, with all that it held ({why}): end the program"
        ))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.handle.is_null() {
            return;
        }
        // SAFETY: both were obtained in `open`, and what was made in the context keeps it alive. What the driver says
        // of a device that is lost changes nothing.
        unsafe {
            (self.driver.set_context)(self.handle);
            if !self.stream.is_null() {
                (self.driver.destroy_stream)(self.stream);
            }
            (self.driver.release_context)(self.device);
        }
    }
}

/// A point in the stream's work.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) handle: CUevent,
    context: Arc<Context>,
}

// SAFETY: as `Context`'s.
unsafe impl Send for Event {}

impl Event {
    /// A new event; `flags` are the driver's: 0 takes the time, 2 does not.
    pub(crate) fn new(context: &Arc<Context>, flags: c_uint) -> Result<Self> {
        let mut handle = ptr::null_mut();
        // SAFETY: the context is current, and the driver writes one handle.
        let code = unsafe { (context.driver.create_event)(&raw mut handle, flags) };
        context.check(code, "creating an event")?;
        Ok(Self {
            handle,
            context: context.clone(),
        })
    }

    /// Puts it behind all that the stream was given.
    pub(crate) fn record(&self) -> Result<()> {
        let context = &self.context;
        // SAFETY: both handles live.
        let code = unsafe { (context.driver.record_event)(self.handle, context.stream) };
        context.check(code, "recording an event")
    }

    /// Waits until the stream has come to it.
    pub(crate) fn wait(&self) -> Result<()> {
        // SAFETY: the handle lives.
        let code = unsafe { (self.context.driver.wait_for_event)(self.handle) };
        self.context.check(code, "waiting for a copy")
    }

    /// Seconds from another event, both behind.
    pub(crate) fn since(&self, start: &Event) -> Result<f64> {
        let mut milliseconds = 0.0f32;
        // SAFETY: both handles live, and the driver writes one `float`.
        let code = unsafe {
            (self.context.driver.elapsed)(&raw mut milliseconds, start.handle, self.handle)
        };
        self.context.check(code, "reading the device's clock")?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: obtained in `new`; a failure changes nothing.
        unsafe {
            (self.context.driver.set_context)(self.context.handle);
            (self.context.driver.destroy_event)(self.handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(capability: (c_int, c_int)) -> Gpu {
        Gpu {
            device: 0,
            name: "a GPU".into(),
            memory: 16 << 30,
            capability,
            multiprocessors: 40,
        }
    }

    #[test]
    fn kernels_are_chosen_by_what_a_capability_has() {
        for (capability, bfloat_matrices, fragment_kilobytes) in [
            ((7, 5), false, 0),
            ((8, 0), true, 163),
            ((8, 6), true, 99),
            ((9, 0), true, 227),
            ((12, 0), true, 99),
        ] {
            assert!(gpu(capability).check().is_ok(), "{capability:?}");
            let limits = limits(capability, 40, Activations::Int8);
            assert_eq!(limits.bfloat_matrices, bfloat_matrices, "{capability:?}");
            let bytes = fragment_kilobytes << 10;
            assert_eq!(limits.fragment_bytes, bytes, "{capability:?}");
        }
        let error = gpu((7, 0)).check().unwrap_err();
        assert!(
            error.contains("7.0") && error.contains("need 7.5"),
            "{error}"
        );
    }
}
