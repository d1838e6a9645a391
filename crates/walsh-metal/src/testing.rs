//! A mock of Metal's calls, for tests: it looks at all that it is asked for, and runs it on the kernels' simulator.
//!
//! What it holds the backend to, from the table of kernels alone and not from what the backend was told:
//! - a text is the whole text of a variant, and a dispatch has its arguments, buffers and threads;
//! - a binding lies within a buffer that lives, at an offset that its type allows, and no kernel writes what it may only
//!   read or what lies over the host's memory;
//! - dispatches between two barriers touch nothing that one of them writes, and each barrier keeps some apart;
//! - what a command buffer uses lives until it has ended.
//!
//! The simulator runs what lies between two barriers in any order, and holds kernels to their bindings.

use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walsh_core::{Activations, Buffer, Device, HostBytes, Result, Span, Tensor};
use walsh_formats::DType;
use walsh_kernels::{Binding, Dispatch, Platform, Touch, Variant, kernels};
use walsh_sim::{SimOptions, Simulator};

use crate::api::{Api, Bound, Compiled, Facts, Failure, Launch, Storage};
use crate::device::{LANES, MOST_ARGS, MetalOptions, limits};

/// The page of the hosts that tests run on.
const PAGE: u64 = 4096;

/// A device over the mock, whose simulator draws orders from a seed.
///
/// # Errors
/// As [`walsh_sim::open`].
pub fn device(seed: u64, activations: Activations) -> Result<Device> {
    let options = MetalOptions {
        ordinal: 0,
        activations,
    };
    crate::backend::device(Mock::new(seed)?, options)
}

/// Something that is done wrong between the backend and the mock, at the dispatch of this number, counted from the mock's
/// beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))] // the crate's own tests plant them
pub(crate) enum Mistake {
    /// The barrier in front of it is left out.
    NoBarrier(usize),
    /// There is a barrier in front of it.
    Barrier(usize),
    /// A buffer of it begins so many bytes further on.
    Offset(usize, usize, u64),
    /// Two buffers of it change places.
    Swapped(usize, usize, usize),
    /// The last buffer of it is left out.
    Unbound(usize),
    /// A buffer of it is given back before it is encoded.
    Freed(usize, usize),
    /// A buffer of it is given back before it has run.
    FreedEarly(usize, usize),
    /// It has fewer threads.
    Threads(usize),
    /// It has one byte of arguments less.
    Args(usize),
    /// The GPU breaks at every dispatch of this kernel.
    Broken(&'static str),
    /// The GPU has no memory for it.
    Memory(usize),
    /// The GPU is lost at it.
    Lost(usize),
}

/// What the mock knows of its buffers, and has seen.
#[derive(Default)]
struct Seen {
    /// How many there were, which numbers them.
    buffers: u64,
    live: HashSet<u64>,
    dispatches: usize,
    barriers: usize,
    wrapped: usize,
}

/// The mock.
pub(crate) struct Mock {
    facts: Facts,
    simulator: Simulator,
    /// The simulator as the owner of buffers.
    memory: Device,
    seen: Arc<Mutex<Seen>>,
    pub(crate) mistake: Option<Mistake>,
    /// What compiled kernels are said to be.
    pub(crate) compiled: Compiled,
    /// Whether what kernels alone touch is forgotten from run to run.
    pub(crate) forgets: bool,
}

/// A buffer of the mock.
pub(crate) struct MockMemory {
    id: u64,
    buffer: Buffer,
    storage: Storage,
    over_host: bool,
    seen: Arc<Mutex<Seen>>,
}

impl Drop for MockMemory {
    fn drop(&mut self) {
        lock(&self.seen).live.remove(&self.id);
    }
}

/// A range that a dispatch is given.
struct Used {
    id: u64,
    buffer: Buffer,
    offset: u64,
    bytes: u64,
    over_host: bool,
}

/// A range that a dispatch since the last barrier touches.
struct Touched {
    id: u64,
    start: u64,
    end: u64,
    writes: bool,
    symbol: String,
}

/// A command buffer of the mock.
#[derive(Default)]
pub(crate) struct MockCommands {
    dispatches: Vec<Dispatch>,
    used: Vec<u64>,
    touched: Vec<Touched>,
    barrier: bool,
    /// What was wrong first.
    wrong: Option<Failure>,
    /// The dispatch at which the GPU fails, behind all before it, and how.
    fails: Option<(usize, Failure)>,
}

impl MockCommands {
    fn complain(&mut self, what: String) {
        self.wrong.get_or_insert(Failure::Other(what));
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mock {
    pub(crate) fn new(seed: u64) -> Result<Self> {
        let limits = limits(Activations::default());
        let simulator = Simulator::new(SimOptions {
            seed,
            limits,
            ..SimOptions::default()
        })?;
        Ok(Self {
            memory: simulator.device(),
            simulator,
            facts: Facts {
                name: "a mock".into(),
                apple7: true,
                unified: true,
                threadgroup_bytes: u64::from(limits.threadgroup_bytes),
                buffer_bytes: 1 << 32,
                working_set: 1 << 33,
                page: PAGE,
            },
            seen: Arc::default(),
            mistake: None,
            compiled: Compiled {
                width: LANES,
                most_threads: 1024,
                threadgroup_bytes: 0,
            },
            forgets: true,
        })
    }

    /// How many dispatches, barriers and buffers over the host's memory it has seen.
    #[cfg(test)]
    pub(crate) fn counter(&self) -> impl Fn() -> (usize, usize, usize) + use<> {
        let seen = self.seen.clone();
        move || {
            let seen = lock(&seen);
            (seen.dispatches, seen.barriers, seen.wrapped)
        }
    }

    fn remember(&self, buffer: Buffer, storage: Storage, over_host: bool) -> MockMemory {
        let mut seen = lock(&self.seen);
        let id = seen.buffers;
        seen.buffers += 1;
        seen.live.insert(id);
        MockMemory {
            id,
            buffer,
            storage,
            over_host,
            seen: self.seen.clone(),
        }
    }

    /// The ranges of a launch, with the mistakes that are planted.
    fn used(&self, number: usize, launch: &Launch<'_, Self>) -> Vec<Used> {
        let buffers = launch.buffers.iter();
        let mut used: Vec<Used> = buffers
            .map(|bound| Used {
                id: bound.memory.id,
                buffer: bound.memory.buffer.clone(),
                offset: bound.offset,
                bytes: bound.bytes,
                over_host: bound.memory.over_host,
            })
            .collect();
        match self.mistake {
            Some(Mistake::Offset(at, buffer, by)) if at == number => used[buffer].offset += by,
            Some(Mistake::Swapped(at, one, other)) if at == number => used.swap(one, other),
            Some(Mistake::Unbound(at)) if at == number => drop(used.pop()),
            Some(Mistake::Freed(at, buffer)) if at == number => {
                lock(&self.seen).live.remove(&used[buffer].id);
            }
            _ => {}
        }
        used
    }

    /// What is wrong with a dispatch's ranges, by the table of kernels.
    fn misbound(&self, variant: &Variant, used: &[Used]) -> Option<String> {
        let kernel = variant.kernel();
        if used.len() != kernel.buffers.len() {
            let count = kernel.buffers.len();
            return Some(format!("has {} buffers of {count}", used.len()));
        }
        for (used, parameter) in used.iter().zip(kernel.buffers) {
            let name = parameter.name;
            if !lock(&self.seen).live.contains(&used.id) {
                return Some(format!("is given `{name}`, which was given back"));
            }
            let step = alignment(parameter.kind);
            if !used.offset.is_multiple_of(step) {
                return Some(format!(
                    "is given `{name}` at {}, which is no multiple of {step}",
                    used.offset
                ));
            }
            let end = used.offset.checked_add(used.bytes);
            if end.is_none_or(|end| end > used.buffer.bytes()) {
                return Some(format!("is given more of `{name}` than there is"));
            }
            if parameter.touch == Touch::Writes && used.over_host && used.bytes > 0 {
                return Some(format!(
                    "writes `{name}`, which lies over the host's memory"
                ));
            }
        }
        None
    }
}

/// Where a type of the dialect may begin.
fn alignment(kind: &str) -> u64 {
    match kind {
        "uchar" | "char" => 1,
        "ushort" | "short" => 2,
        "uint" | "int" | "float" => 4,
        "ulong" | "long" => 8,
        _ => 16,
    }
}

/// The variant whose compiled name this is.
fn variant_of(symbol: &str) -> Option<Variant> {
    let named = symbol.strip_prefix("walsh_")?;
    kernels().into_iter().find_map(|kernel| {
        let values = named.strip_prefix(kernel.name)?.strip_prefix('_')?;
        let number = |text: &str| match text.strip_prefix('m') {
            Some(digits) => digits.parse::<i64>().ok().map(|number| -number),
            None => text.parse().ok(),
        };
        let values: Vec<i64> = values.split('_').map(number).collect::<Option<_>>()?;
        let names = kernel.constants.iter().copied();
        let constants: Vec<_> = names.zip(values.iter().copied()).collect();
        (values.len() == kernel.constants.len()).then(|| Variant::new(kernel, &constants))
    })
}

/// What dispatches since the last barrier and one more do to each other.
fn conflict<'a>(touched: &'a [Touched], variant: &Variant, used: &[Used]) -> Option<&'a Touched> {
    let with = |(used, writes): (&Used, bool)| {
        touched.iter().find(|before| {
            before.id == used.id
                && (before.writes || writes)
                && before.start < used.offset + used.bytes
                && used.offset < before.end
        })
    };
    let writes = variant.kernel().buffers.iter();
    let writes = writes.map(|parameter| parameter.touch == Touch::Writes);
    used.iter().zip(writes).find_map(with)
}

/// The host's memory as the simulator takes it.
struct Host {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: whoever wraps memory promises that it stays and that nothing changes it.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}
// SAFETY: as above.
unsafe impl HostBytes for Host {
    fn bytes(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.bytes) }
    }
}

impl Api for Mock {
    type Memory = MockMemory;
    type Pipeline = Variant;
    type Commands = MockCommands;

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn allocated(&self) -> u64 {
        0
    }

    fn allocate(&self, bytes: u64, storage: Storage) -> Option<MockMemory> {
        let buffer = match storage {
            Storage::Private if self.forgets => self.simulator.workspace(bytes),
            _ => self.memory.allocate(bytes),
        };
        Some(self.remember(buffer.ok()?, storage, false))
    }

    unsafe fn wrap(&self, base: NonNull<u8>, bytes: u64) -> Option<MockMemory> {
        let whole = (base.as_ptr() as u64).is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE);
        if !whole || bytes == 0 {
            return None;
        }
        let bytes = bytes as usize;
        let host = Arc::new(Host { base, bytes });
        let buffer = self.memory.import(host).ok()?;
        lock(&self.seen).wrapped += 1;
        Some(self.remember(buffer, Storage::Shared, true))
    }

    unsafe fn write(&self, memory: &MockMemory, at: u64, data: &[u8]) {
        assert_eq!(
            memory.storage,
            Storage::Shared,
            "the host writes kernels' own"
        );
        let bytes = data.len() as u64;
        let tensor = Tensor::new(memory.buffer.clone(), at, DType::U8, &[bytes]);
        let written = tensor.and_then(|to| self.memory.write_bytes(&to, data));
        written.expect("the range lies within a buffer that is written");
    }

    unsafe fn read(&self, memory: &MockMemory, at: u64, data: &mut [u8]) {
        assert_eq!(
            memory.storage,
            Storage::Shared,
            "the host reads kernels' own"
        );
        let bytes = data.len() as u64;
        let tensor = Tensor::new(memory.buffer.clone(), at, DType::U8, &[bytes]);
        let read = tensor.and_then(|from| self.memory.read_bytes(&from, data));
        read.expect("the range lies within a buffer");
    }

    unsafe fn copy(
        &self,
        from: &Bound<'_, MockMemory>,
        to: &Bound<'_, MockMemory>,
    ) -> std::result::Result<f64, Failure> {
        if to.memory.over_host {
            return Err(Failure::Other("a copy writes the host's memory".into()));
        }
        let ranges = [from.offset, to.offset, from.bytes];
        if !ranges.iter().all(|bytes| bytes.is_multiple_of(4)) {
            return Err(Failure::Other("a copy is not of whole words".into()));
        }
        let mut bytes = vec![0; from.bytes as usize];
        // SAFETY: the caller's ranges.
        unsafe {
            self.read(from.memory, from.offset, &mut bytes);
            self.write(to.memory, to.offset, &bytes);
        }
        Ok(1e-6)
    }

    fn compile(
        &self,
        source: &str,
        symbol: &str,
    ) -> std::result::Result<(Variant, Compiled), String> {
        let variant = variant_of(symbol).ok_or("there is no such kernel")?;
        if variant.source(Platform::Metal) != source {
            return Err("its text is another".into());
        }
        Ok((variant, self.compiled))
    }

    fn begin(&self) -> std::result::Result<MockCommands, Failure> {
        Ok(MockCommands::default())
    }

    unsafe fn dispatch(&self, commands: &mut MockCommands, launch: &Launch<'_, Self>) {
        let number = lock(&self.seen).dispatches;
        lock(&self.seen).dispatches += 1;
        match self.mistake {
            Some(Mistake::NoBarrier(at)) if at == number => commands.barrier = false,
            Some(Mistake::Barrier(at)) if at == number => commands.barrier = true,
            _ => {}
        }
        let variant = launch.pipeline;
        let symbol = variant.symbol();
        let mut args = launch.args.to_vec();
        if self.mistake == Some(Mistake::Args(number)) {
            args.pop();
        }
        let less = u32::from(self.mistake == Some(Mistake::Threads(number)));
        let threads = launch.threads - less;
        let used = self.used(number, launch);
        if args.len() != variant.kernel().args.bytes || args.len() > MOST_ARGS {
            commands.complain(format!("{symbol} has {} bytes of arguments", args.len()));
        }
        if threads != variant.threads() || launch.groups.contains(&0) {
            let groups = launch.groups;
            commands.complain(format!(
                "{symbol} has {groups:?} groups of {threads} threads"
            ));
        }
        if let Some(what) = self.misbound(variant, &used) {
            commands.complain(format!("{symbol} {what}"));
            return;
        }
        let before = conflict(&commands.touched, variant, &used).map(|t| t.symbol.clone());
        let barrier = std::mem::take(&mut commands.barrier);
        match (barrier, before) {
            (true, None) => commands.complain(format!("a barrier before {symbol} is for nothing")),
            (false, Some(before)) => {
                commands.complain(format!("no barrier keeps {symbol} behind {before}"));
            }
            (true, Some(_)) => commands.touched.clear(),
            (false, None) => {}
        }
        let mut bindings = Vec::new();
        for (used, parameter) in used.into_iter().zip(variant.kernel().buffers) {
            commands.used.push(used.id);
            if used.bytes > 0 {
                commands.touched.push(Touched {
                    id: used.id,
                    start: used.offset,
                    end: used.offset + used.bytes,
                    writes: parameter.touch == Touch::Writes,
                    symbol: symbol.clone(),
                });
            }
            bindings.push(Binding {
                span: Span {
                    buffer: used.buffer,
                    offset: used.offset,
                    bytes: used.bytes,
                },
                touch: parameter.touch,
            });
        }
        let failed = match self.mistake {
            Some(Mistake::Broken(name)) if name == variant.kernel().name => {
                Some(Failure::Other("it broke".into()))
            }
            Some(Mistake::Memory(at)) if at == number => Some(Failure::OutOfMemory),
            Some(Mistake::Lost(at)) if at == number => Some(Failure::Lost("it is gone".into())),
            _ => None,
        };
        if let Some(failed) = failed {
            let at = commands.dispatches.len();
            commands.fails.get_or_insert((at, failed));
        }
        if let Some(Mistake::FreedEarly(at, buffer)) = self.mistake
            && at == number
        {
            lock(&self.seen)
                .live
                .remove(&launch.buffers[buffer].memory.id);
        }
        let mut dispatch = Dispatch::alone(variant.clone(), launch.groups, args, bindings);
        dispatch.barrier = barrier;
        commands.dispatches.push(dispatch);
    }

    fn barrier(&self, commands: &mut MockCommands) {
        lock(&self.seen).barriers += 1;
        if std::mem::replace(&mut commands.barrier, true) {
            commands.complain("two barriers stand behind each other".into());
        }
    }

    fn finish(&self, commands: MockCommands) -> std::result::Result<f64, Failure> {
        let MockCommands {
            dispatches,
            used,
            wrong,
            fails,
            barrier,
            ..
        } = commands;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        if barrier {
            return Err(Failure::Other("a barrier stands behind all".into()));
        }
        let live = |seen: &Seen| used.iter().all(|id| seen.live.contains(id));
        if !live(&lock(&self.seen)) {
            return Err(Failure::Other("a buffer was given back too early".into()));
        }
        if let Some((at, failed)) = fails {
            let ran = self.simulator.run(&dispatches[..at]);
            return Err(ran.map_or_else(|error| Failure::Other(error.to_string()), |_| failed));
        }
        let ran = self.simulator.run(&dispatches);
        ran.map_err(|error| Failure::Other(error.to_string()))?;
        Ok(1e-6 * dispatches.len() as f64)
    }
}
