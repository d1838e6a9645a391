//! A fixed team of workers that runs lists of phases.
//!
//! A *phase* is a number of independent work items. Phases that have no hazard between them share a *group* and run
//! together; a barrier stands between groups. Workers take small chunks of a group's items from one shared ticket, so
//! that a worker which the machine takes away for a while delays nobody but the chunk that it holds: the barrier waits
//! for chunks, not for workers. Between groups and between runs the workers spin for a moment, then give way, then
//! park.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use scratch::Scratch;

mod scratch;

/// Below this estimated time, in nanoseconds, a group runs on the calling thread alone: handing it out would cost more
/// than it saves.
const SHARED_COST: u64 = 3_000;

/// How often a waiting thread looks before it gives way to other threads.
const SPINS: u32 = 200;

/// How long a worker without work gives way before it parks.
const AWAKE: Duration = Duration::from_micros(500);

/// A number of independent work items that the workers of a [`Team`] share.
pub trait Phase: Send + Sync {
    /// The number of work items. It is read once when the phase's group starts.
    fn items(&self) -> usize;

    /// How many items a worker takes at a time; at least 1.
    fn grain(&self) -> usize {
        1
    }

    /// The bytes of scratch memory that [`Phase::run`] may use.
    fn scratch_bytes(&self) -> usize {
        0
    }

    /// The estimated time of the whole phase on one thread, in nanoseconds, to the nearest order of magnitude or so.
    fn cost(&self) -> u64;

    /// What a profile calls the phase: its type.
    fn name(&self) -> &'static str {
        let path = std::any::type_name::<Self>();
        path.rsplit("::").next().unwrap_or(path)
    }

    /// Does the work of `items`, a part of `0..self.items()`.
    ///
    /// # Safety
    /// The memory that the phase was made with is alive, and nothing else reads what this phase writes or writes what
    /// it touches while it runs. Each item runs at most once at a time. `scratch` holds at least
    /// [`Phase::scratch_bytes`] bytes.
    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch);
}

/// Phases without hazards between them: they may run in any order and at the same time.
#[derive(Default)]
pub struct Group {
    phases: Vec<Box<dyn Phase>>,
}

impl Group {
    /// A group of phases.
    pub fn new(phases: Vec<Box<dyn Phase>>) -> Group {
        Group { phases }
    }

    /// The phases of the group.
    pub fn phases(&self) -> &[Box<dyn Phase>] {
        &self.phases
    }

    /// Adds a phase that has no hazard with those already in the group.
    pub fn push(&mut self, phase: Box<dyn Phase>) {
        self.phases.push(phase);
    }
}

/// Why a [`Team`] could not start or finish.
#[derive(Debug, thiserror::Error)]
pub enum TeamError {
    /// A team has at least the calling thread.
    #[error("a worker team needs at least one thread")]
    NoThreads,
    /// The system refused a thread.
    #[error("cannot start worker thread {index}: {source}")]
    Spawn {
        /// Which of the team's threads.
        index: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// Work panicked; what the run should have written is undefined, and the team can be used again.
    #[error("a worker panicked: {0}")]
    Panicked(String),
}

/// The chunks of one phase within its group's numbering.
struct Chunks {
    first: usize,
    items: usize,
    grain: usize,
}

/// What the workers are at. The caller of [`Team::run`] writes it while no chunk is out.
struct Job {
    phases: *const [Box<dyn Phase>],
    chunks: Vec<Chunks>,
}

/// Keeps a value from sharing a cache line (or the pair that the prefetcher fetches) with its neighbours.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    /// The number of chunks of the current group in the upper half, the next free chunk in the lower.
    ticket: Padded<AtomicU64>,
    /// The chunks of the current group that have been done.
    done: Padded<AtomicUsize>,
    job: UnsafeCell<Job>,
    failed: AtomicBool,
    failure: Mutex<Option<String>>,
    shutdown: AtomicBool,
    /// How many workers are parked or about to park.
    parked: AtomicU32,
    gate: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written by the one caller that holds `Team::caller`, and only while every chunk of the previous group
// is done; a thread reads it only between claiming a chunk (acquire) and reporting it (release). The group behind the
// pointer is borrowed by `Team::run` for as long as chunks of it can be claimed, and `Group` is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is not used outside a run.
unsafe impl Send for Shared {}

/// A fixed team of workers: the calling thread and `threads - 1` others.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    caller: Mutex<Scratch>,
}

impl Team {
    /// Starts a team of `threads` threads, the calling one included.
    ///
    /// # Errors
    /// When `threads` is zero, or the system refuses a thread.
    pub fn new(threads: usize) -> Result<Team, TeamError> {
        if threads == 0 {
            return Err(TeamError::NoThreads);
        }
        let shared = Arc::new(Shared {
            ticket: Padded(AtomicU64::new(0)),
            done: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job {
                phases: &[],
                chunks: Vec::new(),
            }),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            shutdown: AtomicBool::new(false),
            parked: AtomicU32::new(0),
            gate: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut team = Team {
            shared,
            workers: Vec::with_capacity(threads - 1),
            caller: Mutex::new(Scratch::new()),
        };
        for index in 1..threads {
            let shared = Arc::clone(&team.shared);
            let worker = std::thread::Builder::new()
                .name(format!("walsh-cpu-{index}"))
                .spawn(move || shared.serve())
                .map_err(|source| TeamError::Spawn { index, source })?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    /// The number of threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs the groups one after the other. Calls from several threads take turns.
    ///
    /// # Errors
    /// When a phase panics. What the groups write is then undefined; later runs work as usual.
    ///
    /// # Safety
    /// What [`Phase::run`] asks for holds for every phase, except that this team runs each item once and puts a barrier
    /// between groups. No phase calls back into this team.
    pub unsafe fn run(&self, groups: &[Group]) -> Result<(), TeamError> {
        let mut scratch = lock(&self.caller);
        self.shared.failed.store(false, Ordering::Relaxed);
        for group in groups {
            // SAFETY: passed on from the caller; the lock on `caller` makes this the only run of the team.
            unsafe { self.run_together(&group.phases, &mut scratch)? };
        }
        Ok(())
    }

    /// Runs groups as [`Team::run`] does, but their phases one by one, and hands out what each took.
    ///
    /// # Errors
    /// As for [`Team::run`].
    ///
    /// # Safety
    /// As for [`Team::run`].
    pub unsafe fn profile(
        &self,
        groups: &[Group],
        each: &mut dyn FnMut(&dyn Phase, Duration),
    ) -> Result<(), TeamError> {
        let mut scratch = lock(&self.caller);
        self.shared.failed.store(false, Ordering::Relaxed);
        for phase in groups.iter().flat_map(|group| &group.phases) {
            let start = Instant::now();
            // SAFETY: as in `run`.
            unsafe { self.run_together(std::slice::from_ref(phase), &mut scratch)? };
            each(&**phase, start.elapsed());
        }
        Ok(())
    }

    /// # Safety
    /// As for [`Team::run`], and `self.caller` is locked.
    unsafe fn run_together(
        &self,
        phases: &[Box<dyn Phase>],
        scratch: &mut Scratch,
    ) -> Result<(), TeamError> {
        // SAFETY: the caller's.
        unsafe { self.share(phases, scratch) };
        if self.shared.failed.load(Ordering::Relaxed) {
            let message = lock(&self.shared.failure).take();
            return Err(TeamError::Panicked(message.unwrap_or_default()));
        }
        Ok(())
    }

    /// # Safety
    /// As for [`Team::run`], and `self.caller` is locked.
    unsafe fn share(&self, phases: &[Box<dyn Phase>], scratch: &mut Scratch) {
        let shared = &*self.shared;
        // SAFETY: no chunk is out, so no worker reads the job.
        let job = unsafe { &mut *shared.job.get() };
        // The lifetime goes: no chunk is out when this function returns, so none sees the pointer after it.
        job.phases = std::ptr::from_ref(phases) as *const [Box<dyn Phase>];
        let (total, cost) = job.divide(phases);
        if total == 0 {
            return;
        }
        if self.workers.is_empty() || total == 1 || cost < SHARED_COST {
            for chunk in 0..total {
                // SAFETY: passed on from the caller; no worker has a ticket.
                unsafe { shared.run_chunk(chunk, scratch) };
            }
            return;
        }
        shared.done.0.store(0, Ordering::Relaxed);
        // Sequentially consistent, as is the count of parked workers: either a parking worker sees the ticket or this
        // thread sees the worker.
        shared
            .ticket
            .0
            .store((total as u64) << 32, Ordering::SeqCst);
        if shared.parked.load(Ordering::SeqCst) > 0 {
            let _gate = lock(&shared.gate);
            shared.wake.notify_all();
        }
        // SAFETY: passed on from the caller.
        unsafe { shared.work(scratch) };
        let mut looks = 0;
        while shared.done.0.load(Ordering::Acquire) != total {
            looks += 1;
            pause(looks);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        {
            let _gate = lock(&self.shared.gate);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches what its work panics with, so there is nothing to learn from the result.
            let _ = worker.join();
        }
    }
}

impl Job {
    /// Divides a group into chunks; returns their number and the group's estimated time in nanoseconds.
    fn divide(&mut self, phases: &[Box<dyn Phase>]) -> (usize, u64) {
        self.chunks.clear();
        let (mut total, mut cost) = (0, 0u64);
        for phase in phases {
            let items = phase.items();
            // A ticket counts to 2^32.
            let grain = phase.grain().max(1).max(items >> 24);
            self.chunks.push(Chunks {
                first: total,
                items,
                grain,
            });
            total += items.div_ceil(grain);
            cost = cost.saturating_add(phase.cost());
        }
        (total, cost)
    }
}

impl Shared {
    /// The life of a worker.
    fn serve(&self) {
        let mut scratch = Scratch::new();
        while !self.shutdown.load(Ordering::Acquire) {
            // SAFETY: a chunk can only be claimed while `Team::run` offers it, under the promises of its caller.
            unsafe { self.work(&mut scratch) };
            self.wait_for_work();
        }
    }

    /// Whether there is a chunk to claim, or the team ends.
    fn wanted(&self) -> bool {
        let ticket = self.ticket.0.load(Ordering::SeqCst);
        (ticket as u32) < (ticket >> 32) as u32 || self.shutdown.load(Ordering::SeqCst)
    }

    fn wait_for_work(&self) {
        let mut looks = 0;
        let mut since = None;
        while !self.wanted() {
            looks += 1;
            pause(looks);
            if looks < SPINS {
                continue;
            }
            let since = *since.get_or_insert_with(Instant::now);
            if since.elapsed() < AWAKE {
                continue;
            }
            let mut gate = lock(&self.gate);
            self.parked.fetch_add(1, Ordering::SeqCst);
            while !self.wanted() {
                gate = self.wake.wait(gate).unwrap_or_else(PoisonError::into_inner);
            }
            self.parked.fetch_sub(1, Ordering::SeqCst);
            return;
        }
    }

    /// Claims and does chunks until none is left.
    ///
    /// # Safety
    /// As for [`Team::run`], for the group that the ticket stands for.
    unsafe fn work(&self, scratch: &mut Scratch) {
        let mut finished = 0;
        let mut ticket = self.ticket.0.load(Ordering::Acquire);
        while (ticket as u32) < (ticket >> 32) as u32 {
            // The ticket says all that a claim depends on: when it has the same value for a later group, the claim is
            // a good one for that group.
            match self.ticket.0.compare_exchange_weak(
                ticket,
                ticket + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    // SAFETY: the chunk is claimed and its group is not done before it is reported.
                    unsafe { self.run_chunk(ticket as u32 as usize, scratch) };
                    finished += 1;
                    ticket = self.ticket.0.load(Ordering::Acquire);
                }
                Err(now) => ticket = now,
            }
        }
        if finished > 0 {
            self.done.0.fetch_add(finished, Ordering::Release);
        }
    }

    /// # Safety
    /// The chunk is of the current job and is this thread's to run, and what [`Phase::run`] asks for holds.
    unsafe fn run_chunk(&self, chunk: usize, scratch: &mut Scratch) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: the job does not change while a chunk is out.
        let job = unsafe { &*self.job.get() };
        let index = job.chunks.partition_point(|chunks| chunks.first <= chunk) - 1;
        let Chunks {
            first,
            items,
            grain,
        } = job.chunks[index];
        // SAFETY: `Team::run` borrows the group while chunks of it are out.
        let phase = unsafe { &(&*job.phases)[index] };
        let start = (chunk - first) * grain;
        let range = start..(start + grain).min(items);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            scratch.reserve(phase.scratch_bytes());
            // SAFETY: passed on from the caller; the scratch has just been sized.
            unsafe { phase.run(range, scratch) };
        }));
        if let Err(panic) = outcome {
            lock(&self.failure).get_or_insert_with(|| panic_message(&*panic));
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}

/// Locks a mutex whose data a panic cannot leave half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the `looks`th time: a short while at first, then by giving way.
fn pause(looks: u32) {
    if looks < SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests;
