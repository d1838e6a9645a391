use std::any::Any;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use walsh_core::ops::Op;
use walsh_core::{
    Access, Accesses, Activations, Backend, Buffer, Device, DeviceId, Error, HostBytes, Memory,
    Plan, Program, Properties, Recording, Result, Span,
};
use walsh_formats::random::SplitMix64;
use walsh_kernels::{Binding, CHECK_PASSED, Dispatch, Limits, List, Lowered, Touch};

use crate::compiler::{Compiler, Module, failure};
use crate::group::{Given, Stacks};
use crate::hooks;
use crate::machine::{Machine, Region, Written};
use crate::memory::{Allocation, Shadow, SimMemory, lock, memory};
use crate::random::{Permutation, shuffle};
use crate::shadow::{Cells, MOST_THREADS};

/// How a simulator is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimOptions {
    /// What orders are drawn from. The first run uses it as it is, each run after it the next number; errors name it.
    pub seed: u64,
    /// The properties that kernels are chosen by. A kernel that needs more threadgroup memory is an error.
    pub limits: Limits,
    /// The most loads, stores and collectives of a dispatch, below 2³¹.
    pub most_steps: u64,
    /// Where compiled kernels are kept. The default lies in the target folder of the build.
    pub cache: PathBuf,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            limits: Limits {
                backend: "sim",
                multiprocessors: 8,
                // What every Apple GPU has, the least of all.
                threadgroup_bytes: 32 << 10,
                bfloat_matrices: true,
                fragment_bytes: 0,
                warpgroup_matrices: false,
                cluster_groups: 1,
                joins: true,
                activations: Activations::Int8,
            },
            most_steps: 1 << 30,
            cache: concat!(env!("OUT_DIR"), "/kernels").into(),
        }
    }
}

/// Opens a simulator as a device.
///
/// # Errors
/// When the machine has no C++ compiler, or the cache folder cannot be made.
pub fn open(options: SimOptions) -> Result<Device> {
    Simulator::new(options).map(|simulator| simulator.device())
}

/// A simulator that runs dispatches of its user's making besides command lists.
#[derive(Clone)]
pub struct Simulator(Arc<Sim>);

impl Simulator {
    /// A simulator.
    ///
    /// # Errors
    /// As [`open`].
    pub fn new(options: SimOptions) -> Result<Self> {
        Ok(Self(Arc::new(Sim {
            properties: Properties {
                backend: "sim",
                name: "sim".into(),
                architecture: "32 lanes".into(),
                parallelism: options.limits.multiprocessors as usize,
            },
            compiler: Compiler::new(options.cache)?,
            limits: options.limits,
            most_steps: options.most_steps.min((1 << 31) - 1),
            state: Mutex::new(State {
                seed: options.seed,
                stacks: Stacks::default(),
                shared: None,
                shadow: Shadow::default(),
                phase: 1,
                era: 1,
            }),
        })))
    }

    /// The simulator as a device. Its buffers serve dispatches too.
    #[must_use]
    pub fn device(&self) -> Device {
        Device::new(self.0.clone())
    }

    /// Memory that a dispatch must write before one reads it, in each run anew.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn workspace(&self, bytes: u64) -> Result<Buffer> {
        workspace(bytes)
    }

    /// Runs dispatches: those between two barriers in any order.
    ///
    /// # Errors
    /// When a kernel does not compile or does something wrong.
    pub fn run(&self, dispatches: &[Dispatch]) -> Result<()> {
        let launches = self.0.launches(dispatches.to_vec())?;
        self.0.run_launches(&launches)
    }
}

fn workspace(bytes: u64) -> Result<Buffer> {
    let memory = SimMemory::workspace(bytes)?;
    Ok(Buffer::new(
        DeviceId::unique(),
        bytes,
        Access::ReadWrite,
        Box::new(memory),
    ))
}

struct Sim {
    properties: Properties,
    compiler: Compiler,
    limits: Limits,
    most_steps: u64,
    /// Held by whoever touches memory: a run, a write or a read.
    state: Mutex<State>,
}

/// What runs pass on to the next.
struct State {
    seed: u64,
    stacks: Stacks,
    /// Threadgroup memory, as large as any kernel so far needed it.
    shared: Option<(Allocation, usize)>,
    shadow: Shadow,
    /// The last phase that was used.
    phase: u32,
    /// Counts how often phases began anew.
    era: u64,
}

/// A dispatch and its code.
struct Launch {
    dispatch: Dispatch,
    module: Arc<Module>,
}

struct SimProgram {
    launches: Vec<Launch>,
    /// Dispatches are in the launches.
    lowered: Lowered,
}

impl Program for SimProgram {}

/// A list that is being recorded.
struct SimRecording {
    list: List,
    sim: Arc<Sim>,
}

impl Recording for SimRecording {
    fn push(&mut self, op: &Op, accesses: &Accesses) -> Result<Plan> {
        self.list.push(op, accesses)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Program>> {
        let mut lowered = self.list.finish()?;
        let launches = self.sim.launches(std::mem::take(&mut lowered.dispatches))?;
        Ok(Box::new(SimProgram { launches, lowered }))
    }
}

impl Backend for Sim {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: u64) -> Result<Box<dyn Memory>> {
        Ok(Box::new(SimMemory::zeroed(bytes)?))
    }

    fn import(&self, bytes: Arc<dyn HostBytes>) -> Result<Box<dyn Memory>> {
        Ok(Box::new(SimMemory::imported(bytes)))
    }

    fn write(&self, to: &Span, data: &[u8]) -> Result<()> {
        let _state = lock(&self.state);
        let base = address(to)?;
        // SAFETY: `Device` has checked that the span lies within a writable buffer and has `data`'s size; the lock keeps
        // all else away.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), base, data.len()) };
        Ok(())
    }

    fn read(&self, from: &Span, data: &mut [u8]) -> Result<()> {
        let _state = lock(&self.state);
        let base = address(from)?;
        // SAFETY: as for `write`.
        unsafe { std::ptr::copy_nonoverlapping(base, data.as_mut_ptr(), data.len()) };
        Ok(())
    }

    fn record(self: Arc<Self>) -> Box<dyn Recording> {
        // The first allocation is the status, which is written before each run; all others are workspace.
        let mut status = true;
        let allocate = move |bytes| {
            if std::mem::take(&mut status) {
                let memory = Box::new(SimMemory::zeroed(bytes)?);
                let id = DeviceId::unique();
                return Ok(Buffer::new(id, bytes, Access::ReadWrite, memory));
            }
            workspace(bytes)
        };
        Box::new(SimRecording {
            list: List::new(self.limits, Box::new(allocate)),
            sim: self,
        })
    }

    fn run(&self, program: &dyn Program) -> Result<()> {
        let program: &dyn Any = program;
        let program = program
            .downcast_ref::<SimProgram>()
            .ok_or_else(|| failure("the step was compiled by another backend".into()))?;
        let status = program.lowered.status.span();
        let words = vec![CHECK_PASSED; status.bytes as usize / 4];
        self.write(&status, bytemuck::cast_slice(&words))?;
        self.run_launches(&program.launches)?;
        let read = |span: &Span, data: &mut [u8]| self.read(span, data);
        program.lowered.outcome(&read)
    }
}

impl Sim {
    fn launches(&self, dispatches: Vec<Dispatch>) -> Result<Vec<Launch>> {
        let launch = |dispatch: Dispatch| {
            let variant = &dispatch.variant;
            let threads = variant.threads();
            if threads == 0 || threads > MOST_THREADS || !threads.is_multiple_of(32) {
                return Err(failure(format!(
                    "{variant} wants {threads} threads; whole simdgroups up to {MOST_THREADS} are possible"
                )));
            }
            let module = self.compiler.module(variant)?;
            let most = self.limits.threadgroup_bytes as usize;
            if module.shared_bytes > most {
                return Err(failure(format!(
                    "{variant} wants {} bytes of threadgroup memory, but there are {most}",
                    module.shared_bytes
                )));
            }
            Ok(Launch { dispatch, module })
        };
        dispatches.into_iter().map(launch).collect()
    }

    fn run_launches(&self, launches: &[Launch]) -> Result<()> {
        let state = &mut *lock(&self.state);
        let seed = state.seed;
        state.seed = seed.wrapping_add(1);
        let mut random = SplitMix64(seed);
        for binding in launches.iter().flat_map(|launch| &launch.dispatch.buffers) {
            poison(&binding.span)?;
        }
        let mut rest = launches;
        while !rest.is_empty() {
            let begins = |launch: &Launch| launch.dispatch.barrier;
            let together = 1 + rest[1..].iter().take_while(|l| !begins(l)).count();
            let (now, later) = rest.split_at(together);
            let mut order: Vec<&Launch> = now.iter().collect();
            shuffle(&mut order, &mut random);
            for launch in order {
                self.launch(state, launch, &mut random)
                    .map_err(|error| name_seed(error, seed))?;
            }
            rest = later;
        }
        Ok(())
    }

    fn launch(&self, state: &mut State, launch: &Launch, random: &mut SplitMix64) -> Result<()> {
        if state.phase > 1 << 31 {
            state.phase = 1;
            state.era += 1;
        }
        let Launch { dispatch, module } = launch;
        // Kernels may read their arguments in wide pieces, as the struct's own alignment is.
        let mut args = vec![0u128; dispatch.args.len().div_ceil(16)];
        bytemuck::cast_slice_mut(&mut args)[..dispatch.args.len()].copy_from_slice(&dispatch.args);
        let mut buffers = Vec::with_capacity(dispatch.buffers.len());
        for binding in &dispatch.buffers {
            buffers.push(address(&binding.span)?.cast::<c_void>());
        }
        let shared = state.shared(module.shared_bytes)?;
        let fixed = |name, start: usize, bytes: usize| Region {
            name,
            start,
            bytes,
            writable: false,
            cells: None,
            written: Written::All,
        };
        let mut regions = vec![
            fixed("arguments", args.as_ptr() as usize, dispatch.args.len()),
            fixed("buffers", buffers.as_ptr() as usize, 8 * buffers.len()),
        ];
        if let Some((base, cells)) = shared {
            regions.push(Region {
                name: "threadgroup memory",
                start: base as usize,
                bytes: module.shared_bytes,
                writable: true,
                cells: Some(cells),
                written: Written::InGroup,
            });
        }
        for (index, binding) in dispatch.buffers.iter().enumerate() {
            let name = dispatch.variant.kernel().buffers[index].name;
            regions.push(region(name, binding, &dispatch.buffers, state.era)?);
        }
        let threads = dispatch.variant.threads();
        let given = Given {
            args: args.as_ptr().cast(),
            buffers: buffers.as_ptr(),
            shared: shared.map_or(std::ptr::null_mut(), |(base, _)| base.cast()),
            threads,
        };
        let machine = Machine::new(
            module.clone(),
            regions,
            threads,
            state.phase + 1,
            self.most_steps,
        );
        let [x, y, z] = dispatch.groups.map(u64::from);
        let ended = hooks::with(&machine, || {
            for group in Permutation::new(x * y * z, random) {
                let group = [group % x, group / x % y, group / (x * y)].map(|at| at as u32);
                if let Some((base, _)) = shared {
                    // SAFETY: threadgroup memory of at least so many bytes, which no fiber uses now.
                    unsafe { base.write_bytes(0xff, module.shared_bytes) };
                }
                state.stacks.run(&machine, given, group, random)?;
                if let Some((place, fault)) = machine.fault() {
                    let message = format!("{}: {place}: {fault}", dispatch.variant);
                    return Err(failure(message));
                }
            }
            Ok(())
        });
        state.phase = machine.phase();
        ended
    }
}

impl State {
    /// Threadgroup memory of so many bytes, and its cells; none for none.
    fn shared(&mut self, bytes: usize) -> Result<Option<(*mut u8, Cells)>> {
        if bytes == 0 {
            return Ok(None);
        }
        let (base, size) = match &self.shared {
            Some((allocation, size)) if *size >= bytes => (allocation.base, *size),
            _ => {
                let allocation = Allocation::zeroed(bytes as u64)?;
                let base = allocation.base;
                self.shared = Some((allocation, bytes));
                (base, bytes)
            }
        };
        let cells = self.shadow.cells(base.as_ptr(), size as u64, self.era)?;
        Ok(Some((base.as_ptr(), cells)))
    }
}

/// What a binding lets a kernel touch.
fn region(name: &'static str, binding: &Binding, all: &[Binding], era: u64) -> Result<Region> {
    let Binding { span, touch } = binding;
    let memory = memory(&span.buffer)?;
    let mut shadow = lock(&memory.shadow);
    let offset = span.offset as usize;
    let writes = |other: &Binding| other.touch == Touch::Writes && other.span.overlaps(span);
    // A range that nothing writes has no races.
    let cells = match all.iter().any(writes) {
        true => Some(shadow.cells(memory.base(), span.buffer.bytes(), era)?),
        false => None,
    };
    let written = match &mut shadow.written {
        // SAFETY: spans lie within their buffers.
        Some(bytes) => Written::Bytes(unsafe { bytes.as_mut_ptr().add(offset) }),
        None => Written::All,
    };
    Ok(Region {
        name,
        start: memory.base() as usize + offset,
        bytes: span.bytes as usize,
        writable: *touch == Touch::Writes,
        cells,
        written,
    })
}

/// Forgets what workspace holds.
fn poison(span: &Span) -> Result<()> {
    let memory = memory(&span.buffer)?;
    if let Some(written) = &mut lock(&memory.shadow).written {
        written.fill(0);
        // SAFETY: workspace is owned memory of as many bytes, touched under the simulator's lock alone.
        unsafe { memory.base().write_bytes(0xff, written.len()) };
    }
    Ok(())
}

/// The address of a span's first byte.
fn address(span: &Span) -> Result<*mut u8> {
    // SAFETY: spans lie within their buffers.
    Ok(unsafe { memory(&span.buffer)?.base().add(span.offset as usize) })
}

fn name_seed(error: Error, seed: u64) -> Error {
    match error {
        Error::Device { device, message } => Error::Device {
            device: format!("{device} (seed {seed:#x})"),
            message,
        },
        other => other,
    }
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Simulator")
            .field(&self.0.properties)
            .finish()
    }
}
