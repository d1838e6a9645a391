//! A fixed team of workers that runs lists of phases.
//!
//! A *phase* is a number of independent work items. Phases that have no hazard between them share a *group* and run
//! together; a barrier stands between groups. A group's items are divided into small chunks, and chunks into a share for
//! each worker; a worker that is done takes chunks of others, so that one which the machine takes away for a while delays
//! nobody but the chunk that it holds: the barrier waits for chunks, not for workers. A small group is shared by few
//! workers, or run by the calling thread alone. Between groups and between runs the workers fetch what they will read
//! next, spin for a moment, then give way, then park.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use ahead::fetch;
use ahead::{Ahead, Fetch};
use division::Division;
pub(crate) use group::{Group, look_ahead};
pub(crate) use phase::{Phase, Stream};
pub(crate) use scratch::Scratch;
use shares::{Offer, Padded, Shares};

mod ahead;
mod division;
mod group;
mod phase;
mod scratch;
mod shares;

/// How often a waiting thread looks before it gives way to other threads.
const SPINS: u32 = 200;

/// How long a worker without work gives way before it parks.
const AWAKE: Duration = Duration::from_micros(500);

/// Why a [`Team`] could not start or finish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TeamError {
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

/// Phases that run together.
#[derive(Clone, Copy)]
struct Work<'a> {
    phases: &'a [Box<dyn Phase>],
    division: &'a Division,
    ahead: Option<&'a Ahead>,
}

struct Shared {
    shares: Shares,
    /// What the workers are at. The caller of [`Team::run`] writes it while no chunk is out; its lifetimes end when the
    /// last of its chunks is done.
    work: UnsafeCell<Work<'static>>,
    /// Which workers are parked or about to park.
    parked: Box<[Padded<AtomicBool>]>,
    /// How many they are.
    parked_count: AtomicUsize,
    failed: AtomicBool,
    failure: Mutex<Option<String>>,
    shutdown: AtomicBool,
}

// SAFETY: `work` is written by the one caller that holds `Team::caller`, and only while every chunk of the previous group
// is done; a thread reads it only between claiming a chunk (acquire) and reporting it (release). What it borrows is
// borrowed by `Team::run` for as long as chunks of it can be claimed, and phases are `Sync`. The addresses in an `Ahead`
// are only fetched from.
unsafe impl Sync for Shared {}
// SAFETY: as above; what `work` borrows is not used outside a run.
unsafe impl Send for Shared {}

// SAFETY: a stream's address is only fetched from, which no thread can notice.
unsafe impl Send for Ahead {}
// SAFETY: as above.
unsafe impl Sync for Ahead {}

/// A fixed team of workers: the calling thread and `threads - 1` others.
pub(crate) struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    caller: Mutex<Scratch>,
}

impl Team {
    /// Starts a team of `threads` threads, the calling one included.
    ///
    /// # Errors
    /// When `threads` is zero, or the system refuses a thread.
    pub(crate) fn new(threads: usize) -> Result<Team, TeamError> {
        if threads == 0 {
            return Err(TeamError::NoThreads);
        }
        static NO_CHUNKS: Division = Division::NOTHING;
        let shared = Arc::new(Shared {
            shares: Shares::new(threads),
            work: UnsafeCell::new(Work {
                phases: &[],
                division: &NO_CHUNKS,
                ahead: None,
            }),
            parked: (0..threads)
                .map(|_| Padded(AtomicBool::new(false)))
                .collect(),
            parked_count: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            shutdown: AtomicBool::new(false),
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
                .spawn(move || shared.serve(index))
                .map_err(|source| TeamError::Spawn { index, source })?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    /// The number of threads, the calling one included.
    pub(crate) fn threads(&self) -> usize {
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
    pub(crate) unsafe fn run(&self, groups: &[Group]) -> Result<(), TeamError> {
        let mut scratch = lock(&self.caller);
        self.shared.failed.store(false, Ordering::Relaxed);
        for group in groups {
            // SAFETY: passed on from the caller; the lock on `caller` makes this the only run of the team.
            unsafe {
                let work = Work {
                    phases: &group.phases,
                    division: &group.division,
                    ahead: group.ahead.as_deref(),
                };
                self.run_together(work, &mut scratch)?;
            }
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
    pub(crate) unsafe fn profile(
        &self,
        groups: &[Group],
        each: &mut dyn FnMut(&dyn Phase, Duration),
    ) -> Result<(), TeamError> {
        let mut scratch = lock(&self.caller);
        self.shared.failed.store(false, Ordering::Relaxed);
        for phase in groups.iter().flat_map(|group| &group.phases) {
            let phases = std::slice::from_ref(phase);
            let work = Work {
                phases,
                division: &Division::of(phases),
                ahead: None,
            };
            let start = Instant::now();
            // SAFETY: as in `run`.
            unsafe { self.run_together(work, &mut scratch)? };
            each(&**phase, start.elapsed());
        }
        Ok(())
    }

    /// # Safety
    /// As for [`Team::run`], and `self.caller` is locked.
    unsafe fn run_together(&self, work: Work<'_>, scratch: &mut Scratch) -> Result<(), TeamError> {
        // SAFETY: the caller's.
        unsafe { self.share(work, scratch) };
        if self.shared.failed.load(Ordering::Relaxed) {
            let message = lock(&self.shared.failure).take();
            return Err(TeamError::Panicked(message.unwrap_or_default()));
        }
        Ok(())
    }

    /// # Safety
    /// As for [`Team::run`], and `self.caller` is locked.
    unsafe fn share(&self, work: Work<'_>, scratch: &mut Scratch) {
        let shared = &*self.shared;
        let total = work.division.total();
        if total == 0 {
            return;
        }
        // SAFETY: no chunk is out, so no worker reads the work. All chunks are done when this function returns, so none
        // reads what it borrows after that.
        unsafe { *shared.work.get() = std::mem::transmute::<Work<'_>, Work<'static>>(work) };
        let cost = division::cost(work.phases);
        let threads = work.division.threads(cost, self.threads());
        if threads == 1 {
            for chunk in 0..total {
                // SAFETY: passed on from the caller; nothing is offered to workers.
                unsafe { shared.run_chunk(chunk, scratch) };
            }
            return;
        }
        let offer = shared.shares.open(total, threads);
        self.wake(threads);
        // SAFETY: passed on from the caller.
        let mut fetch = unsafe { shared.work(offer, 0, scratch) };
        let mut looks = 0;
        while !shared.shares.all_done(offer) {
            if !fetch.some() {
                looks += 1;
                pause(looks);
            }
        }
    }

    /// Wakes those of the first `threads` threads that are parked.
    fn wake(&self, threads: usize) {
        // Sequentially consistent, as is the offer: either a parking worker sees the offer or this thread sees the worker.
        if self.shared.parked_count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for (worker, parked) in self.workers.iter().zip(&self.shared.parked[1..threads]) {
            if parked.0.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        for worker in self.workers.drain(..) {
            // A worker catches what its work panics with, so there is nothing to learn from the result.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a worker.
    fn serve(&self, thread: usize) {
        let mut scratch = Scratch::new();
        // A group may be on offer already: this thread has seen none.
        let mut seen = Offer::NOTHING;
        let mut fetch = Fetch::NOTHING;
        while let Some(offer) = self.wait_for_work(thread, seen, fetch) {
            // SAFETY: a chunk can only be claimed while `Team::run` offers it, under the promises of its caller.
            fetch = unsafe { self.work(offer, thread, &mut scratch) };
            seen = offer;
        }
    }

    /// The next offer to a thread, or `None` when the team ends. What is there to `fetch` is fetched meanwhile.
    fn wait_for_work(&self, thread: usize, seen: Offer, mut fetch: Fetch) -> Option<Offer> {
        let wanted = || {
            let offer = self.shares.offer();
            (offer != seen && thread < offer.threads).then_some(offer)
        };
        let ended = || self.shutdown.load(Ordering::SeqCst);
        let mut looks = 0;
        let mut since = None;
        loop {
            if let Some(offer) = wanted() {
                return Some(offer);
            }
            if ended() {
                return None;
            }
            if fetch.some() {
                continue;
            }
            looks += 1;
            pause(looks);
            if looks < SPINS {
                continue;
            }
            let since = *since.get_or_insert_with(Instant::now);
            if since.elapsed() < AWAKE {
                continue;
            }
            self.parked[thread].0.store(true, Ordering::SeqCst);
            self.parked_count.fetch_add(1, Ordering::SeqCst);
            while wanted().is_none() && !ended() {
                std::thread::park();
            }
            self.parked_count.fetch_sub(1, Ordering::SeqCst);
            self.parked[thread].0.store(false, Ordering::SeqCst);
        }
    }

    /// Claims and does chunks until none is left; returns what the thread may fetch for the next group.
    ///
    /// # Safety
    /// As for [`Team::run`], for the group that the offer stands for.
    unsafe fn work(&self, offer: Offer, thread: usize, scratch: &mut Scratch) -> Fetch {
        let (mut finished, mut fetch) = (0, Fetch::NOTHING);
        while let Some(chunk) = self.shares.claim(offer, thread) {
            if finished == 0 {
                // SAFETY: the work does not change while a chunk is out.
                let ahead = unsafe { (*self.work.get()).ahead };
                let of_thread = |ahead: &Ahead| ahead.of_thread(thread, self.parked.len());
                fetch = ahead.map_or(Fetch::NOTHING, of_thread);
            }
            // SAFETY: the chunk is claimed and its group is not done before it is reported.
            unsafe { self.run_chunk(chunk, scratch) };
            finished += 1;
        }
        if finished > 0 {
            self.shares.report(thread, finished);
        }
        fetch
    }

    /// # Safety
    /// The chunk is of the current work and is this thread's to run, and what [`Phase::run`] asks for holds.
    unsafe fn run_chunk(&self, chunk: usize, scratch: &mut Scratch) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: the work does not change while a chunk is out.
        let work = unsafe { *self.work.get() };
        let (index, range) = work.division.items(chunk);
        let phase = &work.phases[index];
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
