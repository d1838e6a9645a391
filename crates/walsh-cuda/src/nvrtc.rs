//! NVRTC, NVIDIA's run-time compiler of CUDA C++.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::Library;

/// Where the library may be, best first: as the system finds it, then where the toolkit installs it.
const NAMES: &[&str] = if cfg!(windows) {
    &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"]
} else {
    &[
        "libnvrtc.so.13",
        "libnvrtc.so.12",
        "libnvrtc.so",
        "/usr/local/cuda/lib64/libnvrtc.so",
    ]
};

/// What it is called.
const LIBRARY: &str = if cfg!(windows) {
    "nvrtc64_130_0.dll"
} else {
    "libnvrtc"
};

/// What the names of the libraries begin with that NVRTC asks the system for.
const BUILTINS: &str = if cfg!(windows) {
    "nvrtc-builtins64"
} else {
    "libnvrtc-builtins.so"
};

/// What gives a missing library.
const REMEDY: &str = "install the CUDA toolkit's NVRTC, 12 or 13 (pip: nvidia-cuda-nvrtc), where the system's loader finds it";

/// The options for every kernel. Walsh fuses a multiplication with an addition where the text says so, and nowhere
/// else: a kernel gives the same bits on every platform.
const OPTIONS: &[&str] = &[
    "--device-as-default-execution-space",
    "-fmad=false",
    "-std=c++17",
];

macro_rules! functions {
    ($($name:ident = $symbol:ident($($parameter:ty),*);)*) => {
        struct Functions {
            $($name: unsafe extern "C" fn($($parameter),*) -> c_int,)*
        }

        impl Functions {
            fn find(library: &Library) -> Result<Self, String> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the type is the one that NVRTC's interface gives the symbol.
                        let found = unsafe { library.get(stringify!($symbol)) };
                        *found.map_err(|_| concat!("NVRTC lacks ", stringify!($symbol)).to_owned())?
                    },)*
                })
            }
        }
    };
}

/// A program of NVRTC's.
type Handle = *mut std::ffi::c_void;

functions! {
    version = nvrtcVersion(*mut c_int, *mut c_int);
    architecture_count = nvrtcGetNumSupportedArchs(*mut c_int);
    architectures = nvrtcGetSupportedArchs(*mut c_int);
    create = nvrtcCreateProgram(
        *mut Handle, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char);
    destroy = nvrtcDestroyProgram(*mut Handle);
    compile = nvrtcCompileProgram(Handle, c_int, *const *const c_char);
    log_size = nvrtcGetProgramLogSize(Handle, *mut usize);
    log = nvrtcGetProgramLog(Handle, *mut c_char);
    code_size = nvrtcGetCUBINSize(Handle, *mut usize);
    code = nvrtcGetCUBIN(Handle, *mut c_char);
}

/// The compiler. It may compile on several threads at once.
pub struct Nvrtc {
    functions: Functions,
    version: (c_int, c_int),
    path: PathBuf,
    /// Unloaded last.
    _library: Library,
    /// What the library loads by name, and finds only where it is loaded already.
    _builtins: Vec<Library>,
}

/// What a compiler made of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Machine code for one architecture.
    pub code: Vec<u8>,
    /// What the compiler remarked.
    pub log: String,
}

impl Nvrtc {
    /// Loads the library from a file, or from where the system finds it.
    ///
    /// # Errors
    /// When it is not there, or is not NVRTC; the text says what to do.
    pub fn load(file: Option<&Path>) -> Result<Self, String> {
        let names: Vec<PathBuf> = match file {
            Some(file) => vec![file.to_owned()],
            None => NAMES.iter().map(PathBuf::from).collect(),
        };
        let builtins = file.map_or_else(Vec::new, builtins);
        let found = names.iter().find_map(|name| {
            // SAFETY: loading NVRTC runs its initialisers alone.
            let library = unsafe { Library::new(name) };
            Some((library.ok()?, name.clone()))
        });
        let (library, path) = found.ok_or_else(|| match file {
            Some(file) => format!("there is no NVRTC at {}: {REMEDY}", file.display()),
            None => format!("there is no NVRTC ({LIBRARY}): {REMEDY}"),
        })?;
        let functions = Functions::find(&library)?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the function writes two `int`s.
        if unsafe { (functions.version)(&raw mut major, &raw mut minor) } != 0 {
            return Err(format!("{} does not say its version", path.display()));
        }
        Ok(Self {
            functions,
            version: (major, minor),
            path,
            _library: library,
            _builtins: builtins,
        })
    }

    /// Its version: `13.0`.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// The file or name that it was loaded by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The compute capabilities that it compiles for, as `10 · major + minor`.
    #[must_use]
    pub fn capabilities(&self) -> Vec<i32> {
        let mut count = 0;
        // SAFETY: the function writes one `int`.
        let code = unsafe { (self.functions.architecture_count)(&raw mut count) };
        let count = if code == 0 { count.max(0) as usize } else { 0 };
        let mut all = vec![0; count];
        // SAFETY: the function writes as many as it has just counted.
        unsafe { (self.functions.architectures)(all.as_mut_ptr()) };
        all
    }

    /// What every kernel is compiled with, for an architecture such as `sm_90a`.
    #[must_use]
    pub fn options(architecture: &str) -> Vec<String> {
        let mut options: Vec<String> = OPTIONS.iter().map(|option| (*option).into()).collect();
        options.push(format!("--gpu-architecture={architecture}"));
        options
    }

    /// Compiles a text.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, source: &str, options: &[String]) -> Result<Compiled, String> {
        let text = |text: &str| CString::new(text).map_err(|_| "the text holds a zero byte");
        let source = text(source)?;
        let options: Vec<CString> = options.iter().map(|o| text(o)).collect::<Result<_, _>>()?;
        let options: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let functions = &self.functions;
        let mut program = Program {
            handle: ptr::null_mut(),
            functions,
        };
        // SAFETY: both texts outlive the program, which includes no headers.
        let code = unsafe {
            (functions.create)(
                &raw mut program.handle,
                source.as_ptr(),
                c"kernel.cu".as_ptr(),
                0,
                ptr::null(),
                ptr::null(),
            )
        };
        if code != 0 {
            return Err(format!("NVRTC did not take the text (error {code})"));
        }
        // SAFETY: so many options, each ended by a zero byte.
        let code = unsafe {
            (functions.compile)(program.handle, options.len() as c_int, options.as_ptr())
        };
        let log = program.log();
        if code != 0 {
            return Err(if log.is_empty() {
                format!("NVRTC failed (error {code})")
            } else {
                log
            });
        }
        let code = program.bytes(functions.code_size, functions.code);
        if code.is_empty() {
            return Err("NVRTC gave no machine code".into());
        }
        Ok(Compiled { code, log })
    }
}

/// The libraries beside a file that NVRTC asks the system for by name, where the system may not find them.
fn builtins(file: &Path) -> Vec<Library> {
    let folder = file.parent().map(std::fs::read_dir);
    let entries = folder.into_iter().flatten().flatten().flatten();
    let named = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with(BUILTINS)
    });
    // SAFETY: the libraries hold data for NVRTC alone.
    let load = |entry: std::fs::DirEntry| unsafe { Library::new(entry.path()) }.ok();
    named.filter_map(load).collect()
}

/// Destroyed at the end, however that comes.
struct Program<'a> {
    handle: Handle,
    functions: &'a Functions,
}

impl Program<'_> {
    fn bytes(
        &self,
        size: unsafe extern "C" fn(Handle, *mut usize) -> c_int,
        get: unsafe extern "C" fn(Handle, *mut c_char) -> c_int,
    ) -> Vec<u8> {
        let mut bytes = 0;
        // SAFETY: the function writes one size.
        if unsafe { size(self.handle, &raw mut bytes) } != 0 {
            return Vec::new();
        }
        let mut data = vec![0u8; bytes];
        // SAFETY: the function writes as many bytes as the other said.
        match unsafe { get(self.handle, data.as_mut_ptr().cast()) } {
            0 => data,
            _ => Vec::new(),
        }
    }

    fn log(&self) -> String {
        let bytes = self.bytes(self.functions.log_size, self.functions.log);
        let text = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
        text.to_string_lossy().trim().to_owned()
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: created by NVRTC and not destroyed yet.
            unsafe { (self.functions.destroy)(&raw mut self.handle) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_named_with_a_remedy() {
        let error = Nvrtc::load(Some(Path::new("/nowhere/libnvrtc.so"))).err();
        let error = error.expect("nothing is there");
        assert!(error.contains("/nowhere/libnvrtc.so") && error.contains("install"));
        assert!(!error.contains('\n'));
    }

    #[test]
    fn a_library_that_is_not_nvrtc_is_refused() {
        if cfg!(target_os = "linux") {
            let error = Nvrtc::load(Some(Path::new("libc.so.6"))).err();
            assert!(error.is_some_and(|error| error.contains("lacks nvrtc")));
        }
    }

    #[test]
    fn products_and_sums_are_fused_only_where_the_text_says_so() {
        let options = Nvrtc::options("sm_90a");
        assert!(options.iter().any(|option| option == "-fmad=false"));
        assert!(
            options
                .iter()
                .any(|option| option == "--gpu-architecture=sm_90a")
        );
    }
}
