//! Kernels loaded onto the device.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_uint};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{CUfunction, CUfunction_attribute as Attribute, CUmodule};
use walsh_core::{Error, Result};
use walsh_kernels::Fusion;

use crate::compile::{Builder, Code, ForArchitecture, Text};
use crate::context::Context;
use crate::driver::version_text;

/// A loaded kernel. What launches it keeps it.
pub(crate) struct Module {
    pub(crate) function: CUfunction,
    handle: CUmodule,
    context: Arc<Context>,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    fn load(context: &Arc<Context>, code: &[u8], text: &Text) -> Result<Self> {
        let symbol = &text.symbol;
        let driver = context.driver;
        context.enter()?;
        let mut module = Self {
            function: ptr::null_mut(),
            handle: ptr::null_mut(),
            context: context.clone(),
        };
        // SAFETY: the context is current; the code is a whole file in the format that NVRTC gives.
        let status = unsafe { (driver.load_module)(&raw mut module.handle, code.as_ptr().cast()) };
        context.check(status, || format!("loading {symbol}"))?;
        let name =
            CString::new(symbol.as_str()).map_err(|_| context.failure("a name holds a zero"))?;
        // SAFETY: the module is loaded and the name ends with a zero byte.
        let status = unsafe {
            (driver.module_function)(&raw mut module.function, module.handle, name.as_ptr())
        };
        context.check(status, || format!("finding {symbol} in its code"))?;
        if text.dynamic_bytes > 0 {
            module.ask_for(text.dynamic_bytes)?;
        }
        Ok(module)
    }

    /// Has its launches take threadgroup memory beyond what kernels may declare, and caches give way to it.
    fn ask_for(&self, bytes: u32) -> Result<()> {
        let context = &self.context;
        for (attribute, value) in [
            (
                Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                bytes as c_int,
            ),
            (
                Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
                100,
            ),
        ] {
            // SAFETY: the function is of a loaded module of the current context.
            let status = unsafe {
                (context.driver.set_function_attribute)(self.function, attribute as c_uint, value)
            };
            context.check(status, || {
                format!("asking for {bytes} bytes of a group's memory")
            })?;
        }
        Ok(())
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: loaded by `load`, and nothing launches it any more.
            unsafe {
                (self.context.driver.set_context)(self.context.handle);
                (self.context.driver.unload_module)(self.handle);
            }
        }
    }
}

/// The kernels of one device: each is compiled and loaded when it is first needed.
pub(crate) struct Modules {
    context: Arc<Context>,
    builder: Builder<ForArchitecture>,
    nvrtc_version: String,
    /// Held while kernels are compiled: what two lists need is compiled once.
    loaded: Mutex<HashMap<Fusion, Arc<Module>>>,
}

impl Modules {
    pub(crate) fn new(
        context: &Arc<Context>,
        nvrtc_version: String,
        builder: Builder<ForArchitecture>,
    ) -> Self {
        Self {
            context: context.clone(),
            builder,
            nvrtc_version,
            loaded: Mutex::default(),
        }
    }

    /// The kernel of each launch, in order.
    ///
    /// # Errors
    /// When one does not compile, or the device does not take it.
    pub(crate) fn get(&self, launches: &[Fusion]) -> Result<Vec<Arc<Module>>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<&Fusion> = Vec::new();
        for launch in launches {
            if !loaded.contains_key(launch) && !missing.contains(&launch) {
                missing.push(launch);
            }
        }
        let texts: Vec<Text> = missing.iter().map(|launch| Text::of(launch)).collect();
        let codes = self.builder.all(&texts);
        let codes = codes.map_err(|message| self.context.failure(message))?;
        for ((launch, text), code) in missing.iter().zip(&texts).zip(&codes) {
            let module = self.load(text, code)?;
            loaded.insert((*launch).clone(), Arc::new(module));
        }
        let found = |launch: &Fusion| {
            let module = loaded.get(launch).cloned();
            module.ok_or_else(|| self.context.failure("a kernel is missing"))
        };
        launches.iter().map(found).collect()
    }

    fn load(&self, text: &Text, code: &Code) -> Result<Module> {
        let context = &self.context;
        let load = |code: &Code| Module::load(context, &code.bytes, text);
        let loaded = match load(code) {
            // What is kept may be whole and yet not for this driver.
            Err(_) if code.kept && context.enter().is_ok() => {
                let anew = self.builder.anew(text);
                load(&anew.map_err(|message| context.failure(message))?)
            }
            loaded => loaded,
        };
        loaded.map_err(|error| match error {
            Error::Device { device, message } => Error::Device {
                device,
                message: format!(
                    "{message}; NVRTC is {}, the driver is for CUDA {}",
                    self.nvrtc_version,
                    version_text(context.driver.version)
                ),
            },
            other => other,
        })
    }
}
