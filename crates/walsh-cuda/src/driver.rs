//! The CUDA driver: its functions, and what their codes mean.
//!
//! `cudarc` finds and loads the library and declares its types. The functions are looked up here: the wrappers of
//! `cudarc` panic where a driver lacks one, and read its codes as an enumeration, which a newer driver may exceed.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr;
use std::sync::OnceLock;

use cudarc::driver::sys::{
    CUDA_KERNEL_NODE_PARAMS, CUDA_MEMCPY3D, CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction,
    CUgraph, CUgraphEdgeData, CUgraphExec, CUgraphNode, CUmodule, CUstream, culib,
    is_culib_present,
};

/// The oldest driver that has every function below, by the version of CUDA that it is for.
const OLDEST: c_int = 12030;

/// What the driver's library is called.
const LIBRARY: &str = if cfg!(windows) {
    "nvcuda.dll"
} else {
    "libcuda"
};

macro_rules! functions {
    ($($name:ident = $symbol:ident($($parameter:ty),*);)*) => {
        /// The functions of the driver that Walsh calls.
        #[derive(Debug)]
        pub(crate) struct Driver {
            /// The version of CUDA that the driver is for, as `1000 · major + 10 · minor`.
            pub(crate) version: c_int,
            $(pub(crate) $name: unsafe extern "C" fn($($parameter),*) -> u32,)*
        }

        impl Driver {
            fn functions(library: &libloading::Library, version: c_int) -> Result<Self, String> {
                Ok(Self {
                    version,
                    $($name: function(library, stringify!($symbol))?,)*
                })
            }
        }
    };
}

functions! {
    init = cuInit(c_uint);
    error_string = cuGetErrorString(u32, *mut *const c_char);
    device_count = cuDeviceGetCount(*mut c_int);
    device = cuDeviceGet(*mut CUdevice, c_int);
    device_name = cuDeviceGetName(*mut c_char, c_int, CUdevice);
    device_memory = cuDeviceTotalMem_v2(*mut usize, CUdevice);
    device_attribute = cuDeviceGetAttribute(*mut c_int, c_uint, CUdevice);
    retain_context = cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
    release_context = cuDevicePrimaryCtxRelease_v2(CUdevice);
    set_context = cuCtxSetCurrent(CUcontext);
    memory_info = cuMemGetInfo_v2(*mut usize, *mut usize);
    allocate = cuMemAlloc_v2(*mut CUdeviceptr, usize);
    free = cuMemFree_v2(CUdeviceptr);
    allocate_host = cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
    free_host = cuMemFreeHost(*mut c_void);
    fill_bytes = cuMemsetD8Async(CUdeviceptr, u8, usize, CUstream);
    copy_to_device = cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
    copy_to_host = cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream);
    copy = cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, usize, CUstream);
    create_stream = cuStreamCreate(*mut CUstream, c_uint);
    destroy_stream = cuStreamDestroy_v2(CUstream);
    synchronize = cuStreamSynchronize(CUstream);
    create_event = cuEventCreate(*mut CUevent, c_uint);
    destroy_event = cuEventDestroy_v2(CUevent);
    record_event = cuEventRecord(CUevent, CUstream);
    wait_for_event = cuEventSynchronize(CUevent);
    elapsed = cuEventElapsedTime(*mut f32, CUevent, CUevent);
    load_module = cuModuleLoadData(*mut CUmodule, *const c_void);
    unload_module = cuModuleUnload(CUmodule);
    module_function = cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
    set_function_attribute = cuFuncSetAttribute(CUfunction, c_uint, c_int);
    create_graph = cuGraphCreate(*mut CUgraph, c_uint);
    destroy_graph = cuGraphDestroy(CUgraph);
    add_kernel = cuGraphAddKernelNode_v2(
        *mut CUgraphNode, CUgraph, *const CUgraphNode, usize, *const CUDA_KERNEL_NODE_PARAMS);
    add_copy = cuGraphAddMemcpyNode(
        *mut CUgraphNode, CUgraph, *const CUgraphNode, usize, *const CUDA_MEMCPY3D, CUcontext);
    add_empty = cuGraphAddEmptyNode(*mut CUgraphNode, CUgraph, *const CUgraphNode, usize);
    add_event = cuGraphAddEventRecordNode(
        *mut CUgraphNode, CUgraph, *const CUgraphNode, usize, CUevent);
    add_edges = cuGraphAddDependencies_v2(
        CUgraph, *const CUgraphNode, *const CUgraphNode, *const CUgraphEdgeData, usize);
    instantiate = cuGraphInstantiateWithFlags(*mut CUgraphExec, CUgraph, c_ulonglong);
    destroy_program = cuGraphExecDestroy(CUgraphExec);
    upload = cuGraphUpload(CUgraphExec, CUstream);
    launch = cuGraphLaunch(CUgraphExec, CUstream);
}

/// What a call gave when it ended well.
pub(crate) const SUCCESS: u32 = 0;

/// The device's memory is used up.
pub(crate) const OUT_OF_MEMORY: u32 = 2;

/// The codes after which a context answers nothing else: the device, its driver or a kernel is broken. Illegal and
/// misaligned addresses and instructions, launches that failed or hung, failed assertions, uncorrectable errors of
/// memory and links, a context or a driver that is gone, and what the driver itself cannot name.
const FATAL: &[u32] = &[
    4, 46, 201, 202, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999,
];

/// Whether the device is lost once a call gave `code`.
pub(crate) fn is_fatal(code: u32) -> bool {
    FATAL.contains(&code)
}

impl Driver {
    /// The driver of this machine, started.
    pub(crate) fn get() -> Result<&'static Driver, String> {
        static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
        let driver = DRIVER.get_or_init(Driver::load);
        driver.as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self, String> {
        // SAFETY: loading a driver runs its initialisers, which NVIDIA's is made for.
        if !unsafe { is_culib_present() } {
            return Err(format!(
                "there is no CUDA driver ({LIBRARY}): install NVIDIA's, or use the device cpu"
            ));
        }
        // SAFETY: as above; it is there.
        let library = unsafe { culib() };
        let mut version = 0;
        let get_version: unsafe extern "C" fn(*mut c_int) -> u32 =
            function(library, "cuDriverGetVersion")?;
        // SAFETY: the function writes one `int`.
        unsafe { get_version(&raw mut version) };
        if version < OLDEST {
            return Err(format!(
                "the driver is for CUDA {}, but Walsh needs CUDA {} or newer: update the NVIDIA driver",
                version_text(version),
                version_text(OLDEST)
            ));
        }
        let driver = Self::functions(library, version)?;
        // SAFETY: the only flag is 0.
        match unsafe { (driver.init)(0) } {
            SUCCESS => Ok(driver),
            code => Err(format!(
                "the CUDA driver does not start: {}",
                driver.text(code)
            )),
        }
    }

    /// The driver's words for a code.
    pub(crate) fn text(&self, code: u32) -> String {
        let mut text = ptr::null();
        // SAFETY: the driver writes a pointer to a text that it keeps, or null.
        unsafe { (self.error_string)(code, &raw mut text) };
        if text.is_null() {
            return format!("error {code}");
        }
        // SAFETY: not null, and ended by a zero byte.
        let text = unsafe { CStr::from_ptr(text) };
        format!("{} (error {code})", text.to_string_lossy())
    }

    /// A failure of a call that has no context yet.
    pub(crate) fn expect(&self, code: u32, doing: &str) -> Result<(), String> {
        match code {
            SUCCESS => Ok(()),
            code => Err(format!("{doing} failed: {}", self.text(code))),
        }
    }
}

/// A version in the form that people know.
pub(crate) fn version_text(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn function<F: Copy>(library: &libloading::Library, symbol: &str) -> Result<F, String> {
    // SAFETY: `F` is the type that the driver's interface gives this symbol, here and in `functions!`.
    let found = unsafe { library.get::<F>(symbol) };
    found
        .map(|function| *function)
        .map_err(|_| format!("the CUDA driver lacks {symbol}: update the NVIDIA driver"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(version_text(13000), "13.0");
        assert_eq!(version_text(12080), "12.8");
    }

    #[test]
    fn running_out_of_memory_does_not_lose_the_device() {
        assert!(!is_fatal(SUCCESS) && !is_fatal(OUT_OF_MEMORY));
        assert!(is_fatal(700) && is_fatal(719));
    }
}
