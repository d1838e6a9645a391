//! The backend: memory, lists as dispatches, runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use walsh_core::ops::Op;
use walsh_core::{
    Access, Accesses, Activations, Backend, Buffer, Device, DeviceId, Error, HostBytes, KernelTime,
    Memory, Plan, Program, Properties, Recording, Result, Span,
};
use walsh_kernels::{CHECK_PASSED, Dispatch, Limits, List, Lowered};

use crate::api::{Api, Bound, Failure, Launch, Storage};
use crate::device::{self, MetalOptions, failure, limits};
use crate::memory::{MetalMemory, bound};
use crate::pipelines::Pipelines;

/// What a copy bandwidth is measured over, in bytes: many times what caches hold.
const COPIED: u64 = 512 << 20;

/// How often it is measured; the best counts.
const COPIES: usize = 10;

/// A device over these calls.
///
/// # Errors
/// When the GPU lacks what the kernels need.
pub(crate) fn device<A: Api>(api: A, options: MetalOptions) -> Result<Device> {
    let spec = device::spec(options.ordinal);
    device::check(api.facts()).map_err(|why| failure(&spec, why))?;
    let limits = limits(options.activations);
    Ok(Device::new(Arc::new(Metal {
        properties: Properties {
            backend: "metal",
            name: api.facts().name.clone(),
            architecture: match options.activations {
                Activations::Int8 => "Apple7".into(),
                Activations::F32 => "Apple7, activations in f32".into(),
            },
            parallelism: limits.multiprocessors as usize,
        },
        limits,
        spec,
        workspace: DeviceId::unique(),
        pipelines: Pipelines::new(),
        work: Mutex::new(()),
        lost: OnceLock::new(),
        submitting: AtomicU64::new(0),
        api,
    })))
}

struct Metal<A: Api> {
    properties: Properties,
    limits: Limits,
    /// The name that users know it by: `metal:0`.
    spec: String,
    /// The owner of workspace: buffers of lists that no user sees.
    workspace: DeviceId,
    pipelines: Pipelines<A>,
    /// Held by whoever runs a list or touches memory.
    work: Mutex<()>,
    /// Why the GPU takes no more work.
    lost: OnceLock<String>,
    /// Nanoseconds that the host has spent on encoding.
    submitting: AtomicU64,
    api: A,
}

/// A list as dispatches, with all that they use.
struct MetalProgram<A: Api> {
    lowered: Lowered,
    /// The kernel of each dispatch.
    pipelines: Vec<Arc<A::Pipeline>>,
}

impl<A: Api> Program for MetalProgram<A> {
    fn joined(&self) -> &[(usize, Plan)] {
        &self.lowered.joined
    }
}

/// A list that is being recorded.
struct MetalRecording<A: Api> {
    list: List,
    metal: Arc<Metal<A>>,
}

impl<A: Api> Recording for MetalRecording<A> {
    fn push(&mut self, op: &Op, accesses: &Accesses) -> Result<Plan> {
        self.list.push(op, accesses)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Program>> {
        Ok(Box::new(self.metal.compile(self.list.finish()?)?))
    }
}

impl<A: Api> Metal<A> {
    fn lock(&self) -> Result<MutexGuard<'_, ()>> {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        match self.lost.get() {
            None => Ok(work),
            Some(why) => Err(self.lost_because(why)),
        }
    }

    fn failure(&self, message: impl std::fmt::Display) -> Error {
        failure(&self.spec, message)
    }

    fn lost_because(&self, why: &str) -> Error {
        self.failure(format_args!(
            "the GPU is lost, with all that it held ({why}): end the program"
        ))
    }

    /// What Metal's failure means, of work on so many bytes. One that loses the GPU loses it for good.
    fn error(&self, failed: Failure, doing: &str, bytes: u64) -> Error {
        match failed {
            Failure::OutOfMemory => Error::OutOfMemory {
                device: self.spec.clone(),
                bytes,
            },
            Failure::Lost(why) => {
                let why = format!("{doing} failed: {why}");
                self.lost_because(self.lost.get_or_init(|| why))
            }
            Failure::Other(why) => self.failure(format_args!("{doing} failed: {why}")),
        }
    }

    fn bound<'a>(&self, span: &'a Span) -> Result<Bound<'a, A::Memory>> {
        bound::<A>(&self.spec, span)
    }

    /// Writes behind the lock.
    fn put(&self, to: &Span, data: &[u8]) -> Result<()> {
        let Bound { memory, offset, .. } = self.bound(to)?;
        // SAFETY: the caller's range has the data's size, and the lock keeps all else away.
        unsafe { self.api.write(memory, offset, data) };
        Ok(())
    }

    /// Reads behind the lock.
    fn get(&self, from: &Span, data: &mut [u8]) -> Result<()> {
        let Bound { memory, offset, .. } = self.bound(from)?;
        // SAFETY: as in `put`.
        unsafe { self.api.read(memory, offset, data) };
        Ok(())
    }

    fn program<'a>(&self, program: &'a dyn Program) -> Result<&'a MetalProgram<A>> {
        let program: &dyn std::any::Any = program;
        let program = program.downcast_ref::<MetalProgram<A>>();
        program.ok_or_else(|| self.failure("the list was compiled by another backend"))
    }

    fn compile(&self, lowered: Lowered) -> Result<MetalProgram<A>> {
        let pipelines = self.pipelines.get(&self.api, &lowered.dispatches);
        let pipelines = pipelines.map_err(|message| self.failure(message))?;
        let _work = self.lock()?;
        self.forget(&lowered)?;
        Ok(MetalProgram { lowered, pipelines })
    }

    /// Sets all status words of a list to "passed".
    fn forget(&self, lowered: &Lowered) -> Result<()> {
        const { assert!(CHECK_PASSED == u32::MAX) };
        let status = lowered.status.span();
        self.put(&status, &vec![0xff; status.bytes as usize])
    }

    /// Encodes dispatches and runs them to their end; the seconds that the GPU took.
    fn execute(
        &self,
        dispatches: &[Dispatch],
        pipelines: &[Arc<A::Pipeline>],
    ) -> Result<Result<f64, Failure>> {
        let begun = Instant::now();
        let mut commands = match self.api.begin() {
            Ok(commands) => commands,
            Err(failed) => return Ok(Err(failed)),
        };
        let mut buffers = Vec::new();
        for (at, (dispatch, pipeline)) in dispatches.iter().zip(pipelines).enumerate() {
            if dispatch.barrier && at > 0 {
                self.api.barrier(&mut commands);
            }
            buffers.clear();
            for binding in &dispatch.buffers {
                buffers.push(self.bound(&binding.span)?);
            }
            let launch = Launch {
                pipeline: pipeline.as_ref(),
                args: &dispatch.args,
                buffers: &buffers,
                groups: dispatch.groups,
                threads: dispatch.variant.threads(),
            };
            // SAFETY: the entry point is written from the table that dispatches were checked against, spans lie within
            // their buffers, and the program holds buffers and pipelines beyond the end of the run.
            unsafe { self.api.dispatch(&mut commands, &launch) };
        }
        let nanoseconds = begun.elapsed().as_nanos() as u64;
        self.submitting.fetch_add(nanoseconds, Ordering::Relaxed);
        Ok(self.api.finish(commands))
    }

    /// The error of a run that failed. Metal says of a command buffer alone that it failed: the dispatches run again one
    /// by one, until one of them fails, to name its kernel.
    fn blame(&self, program: &MetalProgram<A>, failed: Failure) -> Error {
        if !matches!(failed, Failure::Other(_)) {
            return self.error(failed, "running a list", used(&program.lowered.dispatches));
        }
        let dispatches = program.lowered.dispatches.chunks(1);
        for (dispatch, pipeline) in dispatches.zip(program.pipelines.chunks(1)) {
            match self.execute(dispatch, pipeline) {
                Ok(Ok(_)) => {}
                Ok(Err(failed)) => {
                    let symbol = dispatch.first().map(|dispatch| dispatch.variant.symbol());
                    let doing = format!("running {}", symbol.unwrap_or_default());
                    return self.error(failed, &doing, used(dispatch));
                }
                Err(error) => return error,
            }
        }
        let count = program.lowered.dispatches.len();
        let doing = format!("running a list of {count} kernels, none of which fails by itself,");
        self.error(failed, &doing, used(&program.lowered.dispatches))
    }

    /// What the checks of a run that has ended say.
    fn outcome(&self, lowered: &Lowered) -> Result<()> {
        if lowered.checks.is_empty() {
            return Ok(());
        }
        let outcome = lowered.outcome(&|span, data| self.get(span, data));
        if outcome.is_err() {
            self.forget(lowered)?;
        }
        outcome
    }

    /// A buffer that no user sees.
    fn own_buffer(&self, bytes: u64, storage: Storage) -> Result<Buffer> {
        let memory = MetalMemory::new(&self.api, &self.spec, bytes, storage)?;
        let memory = Box::new(memory);
        Ok(Buffer::new(
            self.workspace,
            bytes,
            Access::ReadWrite,
            memory,
        ))
    }
}

/// The bytes of all buffers that dispatches use.
fn used(dispatches: &[Dispatch]) -> u64 {
    let bindings = dispatches.iter().flat_map(|dispatch| &dispatch.buffers);
    let buffers: HashMap<_, _> = bindings
        .map(|binding| (binding.span.buffer.id(), binding.span.buffer.bytes()))
        .collect();
    buffers.values().sum()
}

impl<A: Api> Backend for Metal<A> {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: u64) -> Result<Box<dyn Memory>> {
        let memory = MetalMemory::new(&self.api, &self.spec, bytes, Storage::Shared)?;
        Ok(Box::new(memory))
    }

    fn import(&self, bytes: Arc<dyn HostBytes>) -> Result<Box<dyn Memory>> {
        let memory = MetalMemory::import(&self.api, &self.spec, bytes)?;
        Ok(Box::new(memory))
    }

    fn write(&self, to: &Span, data: &[u8]) -> Result<()> {
        let _work = self.lock()?;
        self.put(to, data)
    }

    fn read(&self, from: &Span, data: &mut [u8]) -> Result<()> {
        let _work = self.lock()?;
        self.get(from, data)
    }

    fn copy(&self, from: &Span, to: &Span) -> Result<()> {
        let _work = self.lock()?;
        if from.bytes == 0 {
            return Ok(());
        }
        // Metal copies words.
        if [from.offset, to.offset, from.bytes]
            .iter()
            .any(|bytes| !bytes.is_multiple_of(4))
        {
            let mut data = vec![0; from.bytes as usize];
            self.get(from, &mut data)?;
            return self.put(to, &data);
        }
        // SAFETY: `Device` has checked both ranges, and the lock keeps all else away.
        let copied = unsafe { self.api.copy(&self.bound(from)?, &self.bound(to)?) };
        copied.map_err(|failed| self.error(failed, "copying", from.bytes))?;
        Ok(())
    }

    fn available_bytes(&self) -> Option<u64> {
        let all = self.api.facts().working_set;
        Some(all.saturating_sub(self.api.allocated()))
    }

    fn record(self: Arc<Self>) -> Box<dyn Recording> {
        // The first allocation is the status, which the host reads; all others are kernels' alone.
        let mut storage = Storage::Shared;
        let metal = self.clone();
        let allocate = move |bytes| {
            let storage = std::mem::replace(&mut storage, Storage::Private);
            metal.own_buffer(bytes, storage)
        };
        Box::new(MetalRecording {
            list: List::new(self.limits, Box::new(allocate)),
            metal: self,
        })
    }

    fn run(&self, program: &dyn Program) -> Result<()> {
        let program = self.program(program)?;
        let _work = self.lock()?;
        match self.execute(&program.lowered.dispatches, &program.pipelines)? {
            Ok(_) => self.outcome(&program.lowered),
            Err(failed) => {
                let error = self.blame(program, failed);
                // What checks of a broken run said is nothing to the next.
                self.forget(&program.lowered)?;
                Err(error)
            }
        }
    }

    fn profile(&self, program: &dyn Program) -> Result<Vec<KernelTime>> {
        let program = self.program(program)?;
        let _work = self.lock()?;
        let mut times = Vec::with_capacity(program.lowered.dispatches.len());
        let dispatches = program.lowered.dispatches.chunks(1);
        for (alone, pipeline) in dispatches.zip(program.pipelines.chunks(1)) {
            for dispatch in alone {
                let symbol = dispatch.variant.symbol();
                let seconds = match self.execute(alone, pipeline)? {
                    Ok(seconds) => seconds,
                    Err(failed) => {
                        self.forget(&program.lowered)?;
                        return Err(self.error(failed, &format!("running {symbol}"), used(alone)));
                    }
                };
                times.push(KernelTime {
                    command: dispatch.command,
                    kernel: symbol,
                    seconds,
                });
            }
        }
        self.outcome(&program.lowered)?;
        Ok(times)
    }

    fn submit_seconds(&self) -> Option<f64> {
        Some(self.submitting.load(Ordering::Relaxed) as f64 / 1e9)
    }

    fn memory_bandwidth(&self) -> Result<f64> {
        let from = self.own_buffer(COPIED, Storage::Shared)?.span();
        let to = self.own_buffer(COPIED, Storage::Shared)?.span();
        let _work = self.lock()?;
        let mut best = f64::INFINITY;
        for _ in 0..COPIES {
            // SAFETY: both ranges are whole buffers, which nobody else has.
            let copied = unsafe { self.api.copy(&self.bound(&from)?, &self.bound(&to)?) };
            let seconds = copied.map_err(|failed| self.error(failed, "copying", COPIED))?;
            best = best.min(seconds);
        }
        Ok(2.0 * COPIED as f64 / best)
    }
}
