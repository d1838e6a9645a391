use std::fmt;
use std::path::Path;
use std::str::FromStr;

use walsh_core::{Activations, Device, Error, Result};

#[cfg(feature = "cpu")]
use walsh_cpu::{CpuOptions, Isa, PackWeights, Threads};
#[cfg(feature = "cuda")]
use walsh_cuda::{CudaOptions, Launches};
#[cfg(feature = "metal")]
use walsh_metal::MetalOptions;

/// A backend that Walsh is designed for, whether or not this build has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendInfo {
    /// Its name in a [`DeviceSpec`].
    pub name: &'static str,
    /// Whether it was compiled in.
    pub in_build: bool,
    /// What to do to get it, where it is missing.
    pub remedy: &'static str,
}

impl BackendInfo {
    /// What this machine has for it, in a line or a few, for people.
    #[must_use]
    pub fn state(&self) -> Vec<String> {
        if !self.in_build {
            return vec![format!("not in this build: {}", self.remedy)];
        }
        match self.name {
            #[cfg(feature = "cuda")]
            "cuda" => walsh_cuda::examine(None).lines(),
            #[cfg(feature = "metal")]
            "metal" => walsh_metal::examine().lines(),
            _ => vec!["in this build".into()],
        }
    }
}

/// Every backend, and whether this build has it.
pub const BACKENDS: &[BackendInfo] = &[
    BackendInfo {
        name: "cpu",
        in_build: cfg!(feature = "cpu"),
        remedy: "build Walsh with its feature `cpu`",
    },
    BackendInfo {
        name: "cuda",
        in_build: cfg!(feature = "cuda"),
        remedy: if cfg!(target_feature = "crt-static") && !cfg!(windows) {
            "a static program cannot load NVIDIA's driver: take the build that is not static"
        } else {
            "build Walsh with its feature `cuda`"
        },
    },
    BackendInfo {
        name: "metal",
        in_build: cfg!(all(feature = "metal", target_vendor = "apple")),
        remedy: "Metal is Apple's: build Walsh with its feature `metal` on a Mac, or use another device",
    },
];

/// Which device to open, and how.
///
/// Its text form is a backend's name with settings behind a colon: `cpu`,
/// `cpu:threads=4`, `cpu:threads=2,isa=avx2`, `cpu:activations=f32` (see
/// [`Activations`](crate::Activations)), `cpu:packing=never` (see
/// [`PackWeights`](crate::PackWeights)), `cuda` for the first NVIDIA GPU,
/// `cuda:1` for the second, `cuda:0,activations=f32`, `cuda:0,launches=apart`,
/// `cuda:0,ops=separate`, `metal` for the first of Apple's GPUs, `metal:0,activations=f32`. A backend that this build does not have is an error when the
/// text is read; it is never replaced by another.
///
/// ```
/// use walsh::DeviceSpec;
///
/// let spec: DeviceSpec = "cpu:threads=2".parse()?;
/// assert_eq!(spec.to_string(), "cpu:threads=2");
/// assert_eq!(spec.open()?.properties().parallelism, 2);
///
/// # if !cfg!(target_vendor = "apple") {
/// let error = "metal".parse::<DeviceSpec>().unwrap_err();
/// assert!(error.to_string().contains("not in this build"));
/// # }
/// # Ok::<(), walsh::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// The processor that this program runs on.
    #[cfg(feature = "cpu")]
    Cpu(CpuOptions),
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(CudaOptions),
    /// A GPU of Apple's. The text of one is an error where this build has no Metal.
    #[cfg(feature = "metal")]
    Metal(MetalOptions),
}

impl DeviceSpec {
    /// Opens the device.
    ///
    /// # Errors
    /// When the machine lacks what the settings ask for, or the device cannot
    /// be opened.
    pub fn open(&self) -> Result<Device> {
        match self {
            #[cfg(feature = "cpu")]
            Self::Cpu(options) => walsh_cpu::open(*options),
            #[cfg(feature = "cuda")]
            Self::Cuda(options) => walsh_cuda::open(options.clone()),
            #[cfg(feature = "metal")]
            Self::Metal(options) => walsh_metal::open(*options),
        }
    }

    /// The same device, which keeps the kernels that it compiles in a folder. A
    /// device that compiles none has no use for it.
    #[must_use]
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))]
    pub fn with_kernel_cache(self, folder: &Path) -> Self {
        match self {
            #[cfg(feature = "cpu")]
            Self::Cpu(options) => Self::Cpu(options),
            #[cfg(feature = "cuda")]
            Self::Cuda(options) => Self::Cuda(CudaOptions {
                kernel_cache: Some(folder.to_owned()),
                ..options
            }),
            // Metal keeps what it compiles itself.
            #[cfg(feature = "metal")]
            Self::Metal(options) => Self::Metal(options),
        }
    }

    /// The same device with a team of `threads` threads.
    ///
    /// # Errors
    /// When the device has no threads to set, or `threads` is 0.
    pub fn with_threads(self, threads: usize) -> Result<Self> {
        if threads == 0 {
            return Err(Error::argument("device", "threads", "at least 1", 0));
        }
        match self {
            #[cfg(feature = "cpu")]
            Self::Cpu(options) => Ok(Self::Cpu(CpuOptions {
                threads: Threads::Count(threads),
                ..options
            })),
            #[cfg(any(feature = "cuda", feature = "metal"))]
            _ => Err(Error::argument(
                "device",
                "threads",
                "left out for a GPU",
                threads,
            )),
        }
    }
}

/// Opens the device that `spec` names; see [`DeviceSpec`] for its form.
///
/// ```
/// let device = walsh::open("cpu")?;
/// assert_eq!(device.properties().backend, "cpu");
/// # Ok::<(), walsh::Error>(())
/// ```
///
/// # Errors
/// When the text is malformed, this build lacks the backend, or the device
/// cannot be opened.
pub fn open(spec: &str) -> Result<Device> {
    spec.parse::<DeviceSpec>()?.open()
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name = text.split(':').next().unwrap_or_default();
        let Some(backend) = BACKENDS.iter().find(|backend| backend.name == name) else {
            return Err(Error::argument(
                "device",
                "spec",
                format_args!("one of {}", names()),
                format_args!("{text:?}"),
            ));
        };
        if !backend.in_build {
            return Err(unavailable(text, backend.remedy));
        }
        match name {
            #[cfg(feature = "cpu")]
            "cpu" => cpu_options(text).map(Self::Cpu),
            #[cfg(feature = "cuda")]
            "cuda" => cuda_options(text).map(Self::Cuda),
            #[cfg(feature = "metal")]
            "metal" => metal_options(text).map(Self::Metal),
            _ => Err(unavailable(text, backend.remedy)),
        }
    }
}

impl fmt::Display for DeviceSpec {
    #[cfg_attr(not(any(feature = "cpu", feature = "cuda")), allow(unused_variables))]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "cpu")]
            Self::Cpu(CpuOptions {
                threads,
                isa,
                activations,
                packing,
            }) => {
                let (threads, isa, activations) = (*threads, *isa, *activations);
                f.write_str("cpu")?;
                let mut separator = ':';
                if let Threads::Count(threads) = threads {
                    write!(f, "{separator}threads={threads}")?;
                    separator = ',';
                }
                if let Some(isa) = isa {
                    write!(f, "{separator}isa={isa}")?;
                    separator = ',';
                }
                if activations != Activations::default() {
                    write!(f, "{separator}activations={activations}")?;
                    separator = ',';
                }
                if *packing != PackWeights::default() {
                    write!(f, "{separator}packing={packing}")?;
                }
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(options) => {
                write!(f, "cuda:{}", options.ordinal)?;
                if options.activations != Activations::default() {
                    write!(f, ",activations={}", options.activations)?;
                }
                if options.launches != Launches::default() {
                    write!(f, ",launches={}", options.launches.name())?;
                }
                if options.separate {
                    f.write_str(",ops=separate")?;
                }
                Ok(())
            }
            #[cfg(feature = "metal")]
            Self::Metal(options) => {
                write!(f, "metal:{}", options.ordinal)?;
                if options.activations != Activations::default() {
                    write!(f, ",activations={}", options.activations)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(feature = "cpu")]
fn cpu_options(text: &str) -> Result<CpuOptions> {
    let wrong =
        |expected: &str| Error::argument("device", "spec", expected, format_args!("{text:?}"));
    let mut options = CpuOptions::default();
    let settings = text.split_once(':').map(|(_, settings)| settings);
    for setting in settings.iter().flat_map(|settings| settings.split(',')) {
        match setting.split_once('=') {
            Some(("threads", count)) => {
                let count = count
                    .parse()
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or_else(|| wrong("cpu:threads=N with N from 1"))?;
                options.threads = Threads::Count(count);
            }
            Some(("isa", name)) => {
                let isa: Isa = name
                    .parse()
                    .map_err(|_| wrong(&format!("cpu:isa={}", Isa::names())))?;
                options.isa = Some(isa);
            }
            Some(("activations", name)) => {
                options.activations = name
                    .parse()
                    .map_err(|_| wrong("cpu:activations=int8 or f32"))?;
            }
            Some(("packing", name)) => {
                options.packing = name
                    .parse()
                    .map_err(|_| wrong("cpu:packing=auto, always or never"))?;
            }
            _ => {
                return Err(wrong(
                    "cpu or cpu:threads=N,isa=NAME,activations=NAME,packing=NAME",
                ));
            }
        }
    }
    Ok(options)
}

#[cfg(feature = "cuda")]
fn cuda_options(text: &str) -> Result<CudaOptions> {
    let wrong = || {
        let expected = "cuda or cuda:N,activations=NAME,launches=NAME,ops=NAME with the GPU's number from 0, int8 or f32, early, apart or parallel, and joined or separate";
        Error::argument("device", "spec", expected, format_args!("{text:?}"))
    };
    let mut options = CudaOptions::default();
    let Some((_, settings)) = text.split_once(':') else {
        return Ok(options);
    };
    let mut settings = settings.split(',');
    options.ordinal = ordinal(settings.next()).ok_or_else(wrong)?;
    for setting in settings {
        match setting.split_once('=') {
            Some(("activations", name)) => {
                options.activations = name.parse().map_err(|_| wrong())?;
            }
            Some(("launches", name)) => {
                let found = Launches::ALL.into_iter().find(|how| how.name() == name);
                options.launches = found.ok_or_else(wrong)?;
            }
            Some(("ops", name)) => {
                options.separate = match name {
                    "joined" => false,
                    "separate" => true,
                    _ => return Err(wrong()),
                };
            }
            _ => return Err(wrong()),
        }
    }
    Ok(options)
}

#[cfg(feature = "metal")]
fn metal_options(text: &str) -> Result<MetalOptions> {
    let wrong = || {
        let expected =
            "metal or metal:N,activations=NAME with the GPU's number from 0, and int8 or f32";
        Error::argument("device", "spec", expected, format_args!("{text:?}"))
    };
    let mut options = MetalOptions::default();
    let Some((_, settings)) = text.split_once(':') else {
        return Ok(options);
    };
    let mut settings = settings.split(',');
    options.ordinal = ordinal(settings.next()).ok_or_else(wrong)?;
    for setting in settings {
        let activations = setting.strip_prefix("activations=").ok_or_else(wrong)?;
        options.activations = activations.parse().map_err(|_| wrong())?;
    }
    Ok(options)
}

/// A GPU's number.
#[cfg(any(feature = "cuda", feature = "metal"))]
fn ordinal(text: Option<&str>) -> Option<u32> {
    // `parse` alone takes a plus sign.
    let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

fn unavailable(device: &str, remedy: &str) -> Error {
    Error::Device {
        device: device.into(),
        message: format!("not in this build: {remedy}"),
    }
}

fn names() -> String {
    let names: Vec<_> = BACKENDS.iter().map(|backend| backend.name).collect();
    names.join(", ")
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;

    #[test]
    fn specs_read_back() {
        for text in [
            "cpu",
            "cpu:threads=3",
            "cpu:isa=portable",
            "cpu:threads=1,isa=avx2",
            "cpu:activations=f32",
            "cpu:threads=2,isa=portable,activations=f32",
            "cpu:packing=never",
            "cpu:threads=2,packing=always",
        ] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
        let spec: DeviceSpec = "cpu:activations=int8".parse().unwrap();
        assert_eq!(spec.to_string(), "cpu");
        let spec: DeviceSpec = "cpu:isa=portable".parse().unwrap();
        let spec = spec.with_threads(2).unwrap();
        assert_eq!(spec.to_string(), "cpu:threads=2,isa=portable");
    }

    #[test]
    fn wrong_specs_say_what_is_right() {
        for (text, hint) in [
            ("", "one of cpu, cuda, metal"),
            ("gpu", "one of cpu, cuda, metal"),
            ("cpu:", "cpu:threads=N"),
            ("cpu:0", "cpu:threads=N"),
            ("cpu:threads=0", "from 1"),
            ("cpu:threads=-1", "from 1"),
            ("cpu:isa=sse9", "avx512"),
            ("cpu:activations=f16", "int8 or f32"),
            ("cpu:activations", "cpu:threads=N"),
            ("cpu:packing=yes", "auto, always or never"),
            ("cpu:threads=1,", "cpu:threads=N"),
        ] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let spec: DeviceSpec = "cpu".parse().unwrap();
        assert!(spec.with_threads(0).is_err());
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_gpu_is_named_by_its_number() {
        for (text, number) in [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:63", 63)] {
            let spec: DeviceSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), format!("cuda:{number}"));
            assert!(spec.with_threads(2).is_err());
        }
        for text in [
            "cuda:2,launches=apart",
            "cuda:0,launches=parallel",
            "cuda:0,ops=separate",
            "cuda:0,activations=f32,launches=apart",
        ] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
        for text in [
            "cuda:",
            "cuda:x",
            "cuda:-1",
            "cuda:+1",
            "cuda:0,1",
            "cuda:0,launches=side",
            "cuda:,launches=apart",
            "cuda:99999999999",
        ] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains("cuda:N"), "{text}: {error}");
        }
    }

    #[cfg(feature = "metal")]
    #[test]
    fn a_gpu_of_apples_is_named_by_its_number() {
        for (text, whole) in [
            ("metal", "metal:0"),
            ("metal:1", "metal:1"),
            ("metal:0,activations=f32", "metal:0,activations=f32"),
            ("metal:0,activations=int8", "metal:0"),
        ] {
            let spec = DeviceSpec::Metal(metal_options(text).unwrap());
            assert_eq!(spec.to_string(), whole);
            assert!(spec.with_threads(2).is_err());
        }
        for text in [
            "metal:",
            "metal:x",
            "metal:+1",
            "metal:0,launches=apart",
            "metal:0,",
        ] {
            let error = metal_options(text).unwrap_err().to_string();
            assert!(error.contains("metal:N"), "{text}: {error}");
        }
    }

    #[cfg(not(all(feature = "metal", target_vendor = "apple")))]
    #[test]
    fn a_build_without_metal_says_so() {
        for text in ["metal", "metal:0", "metal:x"] {
            let error = open(text).unwrap_err().to_string();
            assert!(error.contains("not in this build: "), "{error}");
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_gpu_that_is_not_there_is_one_line_with_something_to_do() {
        let error = open("cuda:4095").unwrap_err().to_string();
        assert!(error.starts_with("cuda:4095: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
        let advice = ["install", "update", "use the device cpu", "from cuda:0"];
        assert!(advice.iter().any(|word| error.contains(word)), "{error}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn compiled_kernels_are_kept_where_the_caller_says() {
        let folder = Path::new("/kernels");
        let spec: DeviceSpec = "cuda:1".parse().unwrap();
        let DeviceSpec::Cuda(options) = spec.with_kernel_cache(folder) else {
            panic!("a GPU stays one");
        };
        assert_eq!(options.kernel_cache.as_deref(), Some(folder));
        let cpu: DeviceSpec = "cpu".parse().unwrap();
        assert_eq!(cpu.clone().with_kernel_cache(folder), cpu);
    }

    #[test]
    fn a_device_says_in_which_precision_its_products_are() {
        let architecture = |spec| open(spec).unwrap().properties().architecture.clone();
        assert_eq!(architecture("cpu:threads=1,isa=portable"), "portable");
        assert_eq!(
            architecture("cpu:threads=1,isa=portable,activations=f32"),
            "portable, activations in f32"
        );
    }

    #[test]
    fn an_instruction_set_of_another_machine_is_refused() {
        for isa in Isa::ALL {
            let opened = open(&format!("cpu:threads=1,isa={isa}"));
            assert_eq!(opened.is_ok(), isa.is_available(), "{isa}");
        }
    }
}
