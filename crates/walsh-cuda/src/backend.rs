//! The backend: memory, lists as graphs, runs.

use std::cell::RefCell;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use walsh_core::ops::Op;
use walsh_core::{
    Access, Accesses, Activations, Backend, Buffer, Device, DeviceId, Error, HostBytes, KernelTime,
    Memory, Plan, Program, Properties, Recording, Result, Span,
};
use walsh_kernels::{CHECK_PASSED, Dispatch, Fusion, Limits, List, Lowered};

use crate::compile::{Builder, ForArchitecture};
use crate::context::{Context, Event, Gpu, limits};
use crate::disk::Disk;
use crate::driver::Driver;
use crate::graph::{Graph, Replay};
use crate::memory::{CudaMemory, Pinned, Pool, address};
use crate::modules::{Module, Modules};
use crate::nvrtc::Nvrtc;
use crate::transfer::Transfers;

/// How a CUDA device is opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CudaOptions {
    /// Which GPU, counted as the driver does.
    pub ordinal: u32,
    /// How products with block-quantised weights read their input.
    pub activations: Activations,
    /// The folder that compiled kernels are kept in; nowhere when `None`. It is made when it is first needed.
    pub kernel_cache: Option<PathBuf>,
    /// NVRTC's library; looked for where the system keeps libraries when `None`.
    pub nvrtc: Option<PathBuf>,
    /// How the kernels of a list follow each other.
    pub launches: Launches,
    /// Whether every op has kernels of its own. Otherwise neighbours of a list are joined where there is a kernel for that:
    /// products of one row with the norm before them and what is done with them, for one.
    pub separate: bool,
}

/// How the kernels of a list follow each other. Results are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Launches {
    /// One after the other, neighbours of one kernel without a hazard between them as one launch. A GPU of Hopper's kind
    /// or newer launches a kernel before the one in front of it has ended, and has it wait for that end.
    #[default]
    Early,
    /// One after the other, each when the one before has ended.
    Apart,
    /// Kernels without a hazard between them side by side, and else as `Early`.
    Parallel,
}

impl Launches {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Early, Self::Apart, Self::Parallel];

    /// The name in a device's spec.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Apart => "apart",
            Self::Parallel => "parallel",
        }
    }
}

/// What a copy bandwidth is measured over, in bytes: many times what caches hold.
const COPIED: u64 = 2 << 30;

/// How often it is measured; the best counts.
const COPIES: usize = 10;

/// Opens an NVIDIA GPU as a device.
///
/// # Errors
/// When the driver, NVRTC or the GPU is missing or too old; the text says what to do.
pub fn open(options: CudaOptions) -> Result<Device> {
    let spec = format!("cuda:{}", options.ordinal);
    let failure = |message: String| Error::Device {
        device: spec.clone(),
        message,
    };
    let driver = Driver::get().map_err(failure)?;
    let gpu = find(driver, options.ordinal).map_err(failure)?;
    let architecture = architecture(&gpu);
    let nvrtc = Nvrtc::load(options.nvrtc.as_deref()).map_err(failure)?;
    check_compiler(&nvrtc, &gpu).map_err(failure)?;
    let context = Context::open(driver, &gpu, spec.clone())?;
    let compiler = ForArchitecture {
        options: Nvrtc::options(&architecture),
        nvrtc,
    };
    let version = compiler.nvrtc.version();
    let builder = Builder::new(compiler, options.kernel_cache.clone().map(Disk::new));
    Ok(Device::new(Arc::new(Cuda {
        limits: Limits {
            joins: !options.separate,
            ..limits(gpu.capability, gpu.multiprocessors, options.activations)
        },
        properties: Properties {
            backend: "cuda",
            name: gpu.name.clone(),
            architecture: match options.activations {
                Activations::Int8 => architecture,
                Activations::F32 => format!("{architecture}, activations in f32"),
            },
            parallelism: gpu.multiprocessors as usize,
        },
        early: options.launches != Launches::Apart && gpu.capability >= (9, 0),
        parallel: options.launches == Launches::Parallel,
        workspace: DeviceId::unique(),
        pool: Pool::new(&context),
        modules: Modules::new(&context, version, builder),
        stream: Mutex::new(Transfers::new(&context)?),
        submitting: AtomicU64::new(0),
        context,
    })))
}

fn find(driver: &Driver, ordinal: u32) -> Result<Gpu, String> {
    match Gpu::count(driver)? {
        0 => Err("the driver sees no GPU: use the device cpu".into()),
        count if ordinal >= count => Err(format!(
            "there is no such GPU: the driver sees {count}, from cuda:0 to cuda:{}",
            count - 1
        )),
        _ => {
            let gpu = Gpu::examine(driver, ordinal)?;
            gpu.check().map(|()| gpu)
        }
    }
}

/// What NVRTC calls the GPU's architecture. Hopper's own instructions need the `a`.
pub(crate) fn architecture(gpu: &Gpu) -> String {
    let (major, minor) = gpu.capability;
    let suffix = if (major, minor) == (9, 0) { "a" } else { "" };
    format!("sm_{major}{minor}{suffix}")
}

fn check_compiler(nvrtc: &Nvrtc, gpu: &Gpu) -> Result<(), String> {
    let (major, minor) = gpu.capability;
    if nvrtc.capabilities().contains(&(10 * major + minor)) {
        return Ok(());
    }
    Err(format!(
        "NVRTC {} does not compile for compute capability {major}.{minor}: install another NVRTC",
        nvrtc.version()
    ))
}

struct Cuda {
    properties: Properties,
    limits: Limits,
    context: Arc<Context>,
    pool: Arc<Pool>,
    modules: Modules,
    /// Whether launches may overlap the end of those before.
    early: bool,
    /// Whether launches without a hazard between them may overlap.
    parallel: bool,
    /// The owner of workspace: buffers of lists that no user sees.
    workspace: DeviceId,
    /// Held by whoever gives the stream work.
    stream: Mutex<Transfers>,
    /// Nanoseconds that the host has spent on starting graphs.
    submitting: AtomicU64,
}

/// A list as a graph, with all that its launches use.
struct CudaProgram {
    replay: Replay,
    lowered: Lowered,
    /// What the graph's launches use.
    _modules: Vec<Arc<Module>>,
    /// Where the graph leaves the first status word; `None` when the list has no check.
    verdict: Option<Pinned>,
}

impl Program for CudaProgram {
    fn joined(&self) -> &[(usize, Plan)] {
        &self.lowered.joined
    }
}

/// Every dispatch as a launch of its own.
fn apart(dispatches: &[Dispatch]) -> Vec<Range<usize>> {
    (0..dispatches.len()).map(|at| at..at + 1).collect()
}

/// A list that is being recorded.
struct CudaRecording {
    list: List,
    cuda: Arc<Cuda>,
}

impl Recording for CudaRecording {
    fn push(&mut self, op: &Op, accesses: &Accesses) -> Result<Plan> {
        self.list.push(op, accesses)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Program>> {
        Ok(Box::new(self.cuda.compile(self.list.finish()?)?))
    }
}

impl Cuda {
    fn lock(&self) -> Result<MutexGuard<'_, Transfers>> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        self.context.enter()?;
        Ok(stream)
    }

    /// Fills memory with a byte behind all work before.
    fn fill(&self, to: u64, value: u8, bytes: u64) -> Result<()> {
        let context = &self.context;
        // SAFETY: the caller's range, and the stream lives.
        let code =
            unsafe { (context.driver.fill_bytes)(to, value, bytes as usize, context.stream) };
        context.check(code, "filling memory")
    }

    fn allocate_zeroed(&self, bytes: u64) -> Result<CudaMemory> {
        let memory = self.pool.allocate(bytes)?;
        let _stream = self.lock()?;
        if bytes > 0 {
            self.fill(memory.address(), 0, bytes)?;
        }
        Ok(memory)
    }

    fn program<'a>(&self, program: &'a dyn Program) -> Result<&'a CudaProgram> {
        let program: &dyn std::any::Any = program;
        let program = program.downcast_ref::<CudaProgram>();
        program.ok_or_else(|| {
            self.context
                .failure("the list was compiled by another backend")
        })
    }

    /// A lowered list as a graph.
    fn compile(&self, lowered: Lowered) -> Result<CudaProgram> {
        let launches = match self.parallel {
            true => apart(&lowered.dispatches),
            false => Fusion::launches(&lowered.dispatches),
        };
        let modules = self.modules_of(&lowered.dispatches, &launches)?;
        let verdict = (!lowered.checks.is_empty()).then(|| Pinned::new(&self.context, 4));
        let verdict = verdict.transpose()?;
        let _stream = self.lock()?;
        self.forget(&lowered)?;
        let mut graph = Graph::new(&self.context, self.early)?;
        for (launch, module) in launches.iter().zip(&modules) {
            let dispatches = &lowered.dispatches[launch.clone()];
            if !self.parallel || dispatches.iter().any(|dispatch| dispatch.barrier) {
                graph.barrier()?;
            }
            graph.kernel(module, dispatches)?;
        }
        if let Some(verdict) = &verdict {
            graph.barrier()?;
            graph.copy_to_host(address(&self.context, &lowered.status.span())?, verdict)?;
        }
        Ok(CudaProgram {
            replay: graph.finish()?,
            lowered,
            _modules: modules,
            verdict,
        })
    }

    /// The kernels of launches.
    fn modules_of(
        &self,
        dispatches: &[Dispatch],
        launches: &[Range<usize>],
    ) -> Result<Vec<Arc<Module>>> {
        let fusions = launches
            .iter()
            .map(|launch| Fusion::of(&dispatches[launch.clone()]));
        self.modules.get(&fusions.collect::<Vec<_>>())
    }

    /// Sets all status words of a list to "passed".
    fn forget(&self, lowered: &Lowered) -> Result<()> {
        const { assert!(CHECK_PASSED == u32::MAX) };
        let status = lowered.status.span();
        self.fill(address(&self.context, &status)?, 0xff, status.bytes)
    }

    /// What the checks of a run that has ended say.
    fn outcome(&self, program: &CudaProgram, stream: &mut Transfers) -> Result<()> {
        let Some(verdict) = &program.verdict else {
            return Ok(());
        };
        // SAFETY: the run has ended, and the next one needs the lock.
        let word = unsafe { verdict.slice(0, 4) };
        if word == CHECK_PASSED.to_ne_bytes() {
            return Ok(());
        }
        let stream = RefCell::new(stream);
        let outcome = program.lowered.outcome(&|span, data| {
            let mut stream = stream.borrow_mut();
            stream.read(address(&self.context, span)?, data)
        });
        self.forget(&program.lowered)?;
        outcome
    }
}

impl Backend for Cuda {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: u64) -> Result<Box<dyn Memory>> {
        Ok(Box::new(self.allocate_zeroed(bytes)?))
    }

    fn import(&self, bytes: Arc<dyn HostBytes>) -> Result<Box<dyn Memory>> {
        let bytes = bytes.bytes();
        let memory = self.pool.allocate(bytes.len() as u64)?;
        self.lock()?.write(memory.address(), bytes)?;
        Ok(Box::new(memory))
    }

    fn write(&self, to: &Span, data: &[u8]) -> Result<()> {
        self.lock()?.write(address(&self.context, to)?, data)
    }

    fn read(&self, from: &Span, data: &mut [u8]) -> Result<()> {
        self.lock()?.read(address(&self.context, from)?, data)
    }

    fn copy(&self, from: &Span, to: &Span) -> Result<()> {
        let context = &self.context;
        let _stream = self.lock()?;
        let (to, bytes) = (address(context, to)?, from.bytes as usize);
        let from = address(context, from)?;
        // SAFETY: `Device` has checked both ranges, and the stream lives.
        let code = unsafe { (context.driver.copy)(to, from, bytes, context.stream) };
        context.check(code, "copying on the device")
    }

    fn available_bytes(&self) -> Option<u64> {
        self.pool.available()
    }

    fn record(self: Arc<Self>) -> Box<dyn Recording> {
        let cuda = self.clone();
        let allocate = move |bytes| {
            let memory = Box::new(cuda.allocate_zeroed(bytes)?);
            Ok(Buffer::new(
                cuda.workspace,
                bytes,
                Access::ReadWrite,
                memory,
            ))
        };
        Box::new(CudaRecording {
            list: List::new(self.limits, Box::new(allocate)),
            cuda: self,
        })
    }

    fn run(&self, program: &dyn Program) -> Result<()> {
        let program = self.program(program)?;
        let mut stream = self.lock()?;
        let begun = Instant::now();
        let launched = program.replay.launch();
        let nanoseconds = begun.elapsed().as_nanos() as u64;
        self.submitting.fetch_add(nanoseconds, Ordering::Relaxed);
        launched?;
        stream.synchronize("running a list")?;
        self.outcome(program, &mut stream)
    }

    fn profile(&self, program: &dyn Program) -> Result<Vec<KernelTime>> {
        let program = self.program(program)?;
        let dispatches = &program.lowered.dispatches;
        // Each by itself, whatever the graph of the list has side by side.
        let modules = self.modules_of(dispatches, &apart(dispatches))?;
        let mut stream = self.lock()?;
        let new_event = |_| Event::new(&self.context, 0);
        let events: Vec<Event> = (0..=dispatches.len())
            .map(new_event)
            .collect::<Result<_>>()?;
        // The clock is read by the device between two kernels that it was handed together: the host's own pace is
        // not part of what is measured.
        let mut graph = Graph::new(&self.context, false)?;
        graph.event(&events[0])?;
        for ((dispatch, module), event) in dispatches.iter().zip(&modules).zip(&events[1..]) {
            graph.barrier()?;
            graph.kernel(module, std::slice::from_ref(dispatch))?;
            graph.barrier()?;
            graph.event(event)?;
        }
        if let Some(verdict) = &program.verdict {
            graph.barrier()?;
            let status = program.lowered.status.span();
            graph.copy_to_host(address(&self.context, &status)?, verdict)?;
        }
        let replay = graph.finish()?;
        replay.launch()?;
        stream.synchronize("running a list")?;
        self.outcome(program, &mut stream)?;
        let time = |(dispatch, pair): (&walsh_kernels::Dispatch, &[Event])| {
            Ok(KernelTime {
                command: dispatch.command,
                kernel: dispatch.variant.symbol(),
                seconds: pair[1].since(&pair[0])?,
            })
        };
        dispatches.iter().zip(events.windows(2)).map(time).collect()
    }

    fn submit_seconds(&self) -> Option<f64> {
        Some(self.submitting.load(Ordering::Relaxed) as f64 / 1e9)
    }

    fn memory_bandwidth(&self) -> Result<f64> {
        let from = self.allocate_zeroed(COPIED)?;
        let to = self.allocate_zeroed(COPIED)?;
        let context = &self.context;
        let mut stream = self.lock()?;
        let (start, end) = (Event::new(context, 0)?, Event::new(context, 0)?);
        let mut best = f64::INFINITY;
        for _ in 0..COPIES {
            start.record()?;
            // SAFETY: both ranges are so long, and nobody else has them.
            let code = unsafe {
                (context.driver.copy)(
                    to.address(),
                    from.address(),
                    COPIED as usize,
                    context.stream,
                )
            };
            context.check(code, "copying on the device")?;
            end.record()?;
            stream.synchronize("copying on the device")?;
            best = best.min(end.since(&start)?);
        }
        Ok(2.0 * COPIED as f64 / best)
    }
}
