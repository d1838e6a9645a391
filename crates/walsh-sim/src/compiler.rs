//! From a variant to code in this process: the host's C++ compiler, a folder of what it made, and the loader.

use std::collections::HashMap;
use std::ffi::c_void;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use twox_hash::XxHash3_128;
use walsh_core::{Error, Result};
use walsh_kernels::{Platform, Variant};

use crate::hooks::{HOOKS, Hooks};
use crate::memory::lock;

/// A kernel's entry point: arguments, buffers, threadgroup memory, and the thread's place.
pub(crate) type Entry =
    unsafe extern "C" fn(*const c_void, *const *mut c_void, *mut c_void, Position);

/// Where a thread is, as `position.h` lays it out.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Position {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) z: u32,
    pub(crate) index: u32,
    pub(crate) lane: u32,
    pub(crate) simd: u32,
}

/// A compiled variant.
pub(crate) struct Module {
    pub(crate) entry: Entry,
    pub(crate) shared_bytes: usize,
    /// The addresses of its tables.
    pub(crate) tables: Range<usize>,
    source: String,
    /// Keeps the code in memory.
    _library: Library,
}

impl Module {
    /// A line of the compiled text, counted from 1.
    pub(crate) fn line(&self, number: u32) -> &str {
        let line = self.source.lines().nth((number as usize).wrapping_sub(1));
        line.unwrap_or_default().trim()
    }
}

/// What the instrumentation calls.
const INSTRUMENTATION: &str = include_str!("instrumentation.cpp");

/// `-O1` leaves loads and stores as the text has them; higher levels merge them. A Metal kernel has no `double`.
const FLAGS: &[&str] = &[
    "-std=c++14",
    "-O1",
    "-fPIC",
    "-shared",
    "-nostdlib",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-strict-aliasing",
    "-fno-math-errno",
    "-ffp-contract=off",
    "-fno-tree-loop-distribute-patterns",
    "-ftrivial-auto-var-init=pattern",
    "-fsanitize=thread",
    "-fsanitize=bounds-strict,alignment,shift-exponent,integer-divide-by-zero",
    "-Wall",
    "-Wextra",
    "-Wno-unused",
    "-Werror=double-promotion",
    "-Werror=return-type",
    "-Werror=uninitialized",
    "-Wl,-z,now",
];

/// A C++ compiler and the folder that keeps what it made.
pub(crate) struct Compiler {
    program: PathBuf,
    /// What its output depends on besides the text.
    identity: String,
    folder: PathBuf,
}

type Slot = Arc<OnceLock<Result<Arc<Module>, String>>>;

/// Code that is in this process: the loader gives one copy of a file, however many devices ask for it.
static LOADED: LazyLock<Mutex<HashMap<PathBuf, Slot>>> = LazyLock::new(Mutex::default);

impl Compiler {
    /// The host's compiler.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        let target = env!("SIM_TARGET");
        let tool = cc::Build::new()
            .cpp(true)
            .target(target)
            .host(target)
            .opt_level(1)
            .cargo_metadata(false)
            .try_get_compiler()
            .map_err(|error| failure(format!("no C++ compiler: {error}")))?;
        let program = tool.path().to_owned();
        let version = Command::new(&program)
            .arg("--version")
            .output()
            .map_err(|error| failure(format!("{}: {error}", program.display())))?;
        let version = String::from_utf8_lossy(&version.stdout);
        let identity = format!("{}\n{version}\n{FLAGS:?} {:?}", program.display(), fused());
        fs::create_dir_all(&folder)
            .map_err(|error| failure(format!("{}: {error}", folder.display())))?;
        Ok(Self {
            program,
            identity,
            folder,
        })
    }

    /// The compiled variant: as it is in this process, else from the folder, else from the compiler.
    ///
    /// # Errors
    /// What the compiler or the loader says.
    pub(crate) fn module(&self, variant: &Variant) -> Result<Arc<Module>> {
        let source = variant.source(Platform::Host) + INSTRUMENTATION;
        let key = XxHash3_128::oneshot(format!("{}\n{source}", self.identity).as_bytes());
        let mut name = variant.symbol();
        name.truncate(80);
        let path = self.folder.join(format!("{name}-{key:032x}.so"));
        let slot = lock(&LOADED).entry(path.clone()).or_default().clone();
        slot.get_or_init(|| self.load_or_make(variant, source, &path).map(Arc::new))
            .clone()
            .map_err(failure)
    }

    fn load_or_make(
        &self,
        variant: &Variant,
        source: String,
        path: &Path,
    ) -> Result<Module, String> {
        // A file that is there but does not load is made anew, as one that is not there.
        if path.is_file()
            && let Ok(module) = load(variant, source.clone(), path)
        {
            return Ok(module);
        }
        self.make(variant, &source, path)?;
        load(variant, source, path)
    }

    /// Compiles beside the file and renames: another process may do the same.
    fn make(&self, variant: &Variant, source: &str, path: &Path) -> Result<(), String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let own = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let text = path.with_extension(format!("{own}.cpp"));
        let made = path.with_extension(format!("{own}.so"));
        fs::write(&text, source).map_err(|error| format!("{}: {error}", text.display()))?;
        let output = Command::new(&self.program)
            .args(FLAGS)
            .args(fused())
            .arg(&text)
            .arg("-o")
            .arg(&made)
            .args(["-lm", "-lc"])
            .output();
        let _ = fs::remove_file(&text);
        let output = output.map_err(|error| format!("{}: {error}", self.program.display()))?;
        if !output.status.success() {
            let _ = fs::remove_file(&made);
            let log = String::from_utf8_lossy(&output.stderr);
            let first: Vec<&str> = log.lines().take(12).collect();
            return Err(format!("{variant} does not compile:\n{}", first.join("\n")));
        }
        fs::rename(&made, path).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// The flag for fused multiply-add as an instruction, where the processor has it: the same numbers, sooner.
fn fused() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        return Some("-mfma");
    }
    None
}

fn load(variant: &Variant, source: String, path: &Path) -> Result<Module, String> {
    let symbol = variant.symbol();
    let explain = |error: libloading::Error| format!("{}: {error}", path.display());
    // SAFETY: the file was made by `make` from a kernel's text, whose one initialiser calls the empty `__tsan_init`.
    unsafe {
        let library = Library::open(Some(path), RTLD_NOW | RTLD_LOCAL).map_err(explain)?;
        let entry: Entry = *library.get(symbol.as_bytes()).map_err(explain)?;
        let shared: *const u64 = *library
            .get(format!("{symbol}_shared_bytes").as_bytes())
            .map_err(explain)?;
        let tables: *const [usize; 2] = *library.get(b"walsh_tables").map_err(explain)?;
        let hooks: *mut Hooks = *library.get(b"walsh_hooks").map_err(explain)?;
        hooks.write(HOOKS);
        let [start, end] = *tables;
        Ok(Module {
            entry,
            shared_bytes: *shared as usize,
            tables: start..end,
            source,
            _library: library,
        })
    }
}

pub(crate) fn failure(message: String) -> Error {
    Error::Device {
        device: "sim".into(),
        message,
    }
}
