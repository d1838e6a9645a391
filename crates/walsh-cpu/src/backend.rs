use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use walsh_core::ops::Op;
use walsh_core::{
    Accesses, Activations, Backend, Device, Error, HostBytes, KernelTime, Memory, Plan, Program,
    Properties, Recording, Result, ScreenPart, ScreenSample, Span, Tensor,
};

use crate::isa::Isa;
use crate::lowering::{Lowered, Lowering};
use crate::matmul::{PackWeights, Repacking};
use crate::memory::{CpuMemory, address};
use crate::target::Target;
use crate::team::{Phase, Team, TeamError};
use crate::{bandwidth, dispatch, free, matmul};

/// How many threads a CPU device uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Threads {
    /// One per processor that this process may run on.
    #[default]
    Auto,
    /// This many, the calling thread included.
    Count(usize),
}

/// How a CPU device is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuOptions {
    /// The size of the worker team.
    pub threads: Threads,
    /// The instruction set that kernels use; the best available when `None`.
    pub isa: Option<Isa>,
    /// How products with block-quantised weights read their input.
    pub activations: Activations,
    /// Whether weights are packed when a caller offers to.
    pub packing: PackWeights,
}

/// The most threads that a device may have.
const MOST_THREADS: usize = 1024;

/// Opens the CPU as a device.
///
/// ```
/// use walsh_cpu::{CpuOptions, Threads};
///
/// let device = walsh_cpu::open(CpuOptions { threads: Threads::Count(2), ..Default::default() })?;
/// let x = device.tensor(&[3], &[1.0f32, 2.0, 3.0])?;
/// assert_eq!(device.read::<f32>(&x)?, [1.0, 2.0, 3.0]);
/// # Ok::<(), walsh_core::Error>(())
/// ```
///
/// # Errors
/// When the machine lacks the instruction set, the number of threads is 0 or
/// above 1,024, or the system starts no more threads.
pub fn open(options: CpuOptions) -> Result<Device> {
    let isa = options.isa.unwrap_or_else(Isa::detect);
    if !isa.is_available() {
        return Err(failure(format!(
            "this machine does not have the instruction set {isa}"
        )));
    }
    let threads = match options.threads {
        Threads::Auto => std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(MOST_THREADS),
        Threads::Count(count) => count,
    };
    if !(1..=MOST_THREADS).contains(&threads) {
        return Err(Error::argument(
            "cpu",
            "threads",
            format_args!("from 1 to {MOST_THREADS}"),
            threads,
        ));
    }
    let team = Team::new(threads).map_err(|error| failure(error.to_string()))?;
    Ok(Device::new(Arc::new(Cpu {
        properties: Properties {
            backend: "cpu",
            name: "cpu".into(),
            architecture: architecture(isa, options.activations),
            parallelism: threads,
        },
        target: Target {
            isa,
            threads,
            activations: options.activations,
        },
        packing: match options.activations {
            Activations::Int8 => options.packing,
            // Kernels of packed weights multiply bytes.
            Activations::F32 => PackWeights::Never,
        },
        team: Mutex::new(team),
    })))
}

/// The instruction set, and the precision of products where it is not the default.
fn architecture(isa: Isa, activations: Activations) -> String {
    match activations {
        Activations::Int8 => isa.to_string(),
        Activations::F32 => format!("{isa}, activations in f32"),
    }
}

fn failure(message: String) -> Error {
    Error::Device {
        device: "cpu".into(),
        message,
    }
}

struct Cpu {
    properties: Properties,
    target: Target,
    packing: PackWeights,
    /// Held by whoever touches tensor memory: a run, a write or a read.
    team: Mutex<Team>,
}

impl Cpu {
    fn lock(&self) -> MutexGuard<'_, Team> {
        self.team.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cpu {
    /// How weights are copied at this moment.
    fn repacking(&self) -> Repacking {
        Repacking {
            isa: self.target.isa,
            packing: self.packing,
            available: free::available_bytes(),
        }
    }
}

impl Program for Lowered {}

/// A list that is being recorded.
struct CpuRecording(Lowering);

impl Recording for CpuRecording {
    fn push(&mut self, op: &Op, accesses: &Accesses) -> Result<Plan> {
        self.0.command(op, accesses, dispatch::lower)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Program>> {
        Ok(Box::new(self.0.finish()))
    }
}

impl Cpu {
    /// Does something with the phases of a program, and returns what they report.
    fn with_phases(
        &self,
        program: &dyn Program,
        work: impl FnOnce(&Team, &Lowered) -> std::result::Result<(), TeamError>,
    ) -> Result<()> {
        let program: &dyn std::any::Any = program;
        let program = program
            .downcast_ref::<Lowered>()
            .ok_or_else(|| failure("the step was compiled by another backend".into()))?;
        let team = self.lock();
        let ended = work(&team, program);
        let fault = program.fault.take();
        drop(team);
        ended.map_err(|error| failure(error.to_string()))?;
        fault.map_or(Ok(()), Err)
    }
}

impl Backend for Cpu {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: u64) -> Result<Box<dyn Memory>> {
        Ok(Box::new(CpuMemory::zeroed(bytes)?))
    }

    fn import(&self, bytes: Arc<dyn HostBytes>) -> Result<Box<dyn Memory>> {
        Ok(Box::new(CpuMemory::Imported(bytes)))
    }

    fn write(&self, to: &Span, data: &[u8]) -> Result<()> {
        let _team = self.lock();
        let base = address(&to.buffer, to.offset)?;
        // SAFETY: `Device` has checked that the span lies within a writable
        // buffer and has `data`'s size; the lock keeps all else away. User
        // memory never overlaps an allocation of this backend.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), base, data.len()) };
        Ok(())
    }

    fn read(&self, from: &Span, data: &mut [u8]) -> Result<()> {
        let _team = self.lock();
        let base = address(&from.buffer, from.offset)?;
        // SAFETY: as for `write`.
        unsafe { std::ptr::copy_nonoverlapping(base, data.as_mut_ptr(), data.len()) };
        Ok(())
    }

    fn copy(&self, from: &Span, to: &Span) -> Result<()> {
        let _team = self.lock();
        let source = address(&from.buffer, from.offset)?;
        let target = address(&to.buffer, to.offset)?;
        // SAFETY: `Device` has checked that both spans lie within their buffers, are
        // of one size and do not overlap, and that the target is writable; the lock
        // keeps all else away.
        unsafe { std::ptr::copy_nonoverlapping(source, target, from.bytes as usize) };
        Ok(())
    }

    fn memory_bandwidth(&self) -> Result<f64> {
        bandwidth::measure(self.target.token(), &self.lock())
            .map_err(|error| failure(error.to_string()))
    }

    fn available_bytes(&self) -> Option<u64> {
        free::available_bytes()
    }

    fn pack(&self, weights: &[Tensor]) -> Result<Vec<Option<Box<dyn Memory>>>> {
        let packed = matmul::pack(weights, self.repacking(), &self.lock())?;
        let boxed = |memory| Box::new(memory) as Box<dyn Memory>;
        Ok(packed.into_iter().map(|memory| memory.map(boxed)).collect())
    }

    fn screens(&self, weight: &Tensor) -> bool {
        matmul::coarsens(weight, &self.repacking())
    }

    fn screen(&self, weight: &Tensor, sample: &ScreenSample) -> Result<Option<Vec<ScreenPart>>> {
        matmul::coarse_copy(weight, sample, &self.repacking(), &self.lock())
    }

    fn record(self: Arc<Self>) -> Box<dyn Recording> {
        Box::new(CpuRecording(Lowering::new(self.target)))
    }

    fn run(&self, program: &dyn Program) -> Result<()> {
        // SAFETY: the views of the phases keep their memory alive, the hazards
        // of the list put conflicting phases into different groups, and the
        // lock keeps every other access to tensor memory away.
        self.with_phases(program, |team, program| unsafe {
            team.run(&program.groups)
        })
    }

    fn profile(&self, program: &dyn Program) -> Result<Vec<KernelTime>> {
        let mut times = Vec::new();
        self.with_phases(program, |team, program| {
            let mut origins = program.origins.iter();
            let mut each = |phase: &dyn Phase, took: Duration| {
                times.push(KernelTime {
                    command: origins.next().copied().unwrap_or_default(),
                    kernel: phase.name().to_owned(),
                    seconds: took.as_secs_f64(),
                });
            };
            // SAFETY: as in `run`; phases that may overlap may also come one by one.
            unsafe { team.profile(&program.groups, &mut each) }
        })?;
        Ok(times)
    }
}
