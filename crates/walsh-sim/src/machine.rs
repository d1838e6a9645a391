//! A dispatch while it runs: what it may touch, who touched what, and where its threads wait.

mod collective;

use std::cell::{Cell as Slot, RefCell};
use std::ops::Range;
use std::sync::Arc;

use corosensei::Yielder;

use crate::compiler::Module;
use crate::fault::{Fault, Place, Where};
use crate::shadow::{Cells, Kind, Mark, Moment, Race};

/// How far from a range an address is still said to miss it.
const NEAR: usize = 1 << 16;

/// A range of memory that a dispatch may touch.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) name: &'static str,
    pub(crate) start: usize,
    pub(crate) bytes: usize,
    pub(crate) writable: bool,
    /// The cells of its bytes, where threads could be in a race.
    pub(crate) cells: Option<Cells>,
    /// Which of its bytes were written, where some may not have been.
    pub(crate) written: Written,
}

/// How it is known which bytes of a region were written.
#[derive(Debug)]
pub(crate) enum Written {
    All,
    /// 1 for each that was.
    Bytes(*mut u8),
    /// By this group, which the cells know.
    InGroup,
}

impl Region {
    #[inline]
    fn allows(&self, at: usize, bytes: usize, kind: Kind) -> bool {
        let offset = at.wrapping_sub(self.start);
        offset < self.bytes && bytes <= self.bytes - offset && (kind == Kind::Read || self.writable)
    }

    /// Whether there is nothing to note about its bytes.
    #[inline]
    fn is_plain(&self) -> bool {
        self.cells.is_none() && matches!(self.written, Written::All)
    }

    fn place(&self, at: usize) -> Where {
        Where {
            byte: at.wrapping_sub(self.start) as i64,
            name: self.name,
            bytes: self.bytes,
        }
    }

    /// How many bytes lie between the region and an address.
    fn distance(&self, at: usize) -> usize {
        let end = self.start + self.bytes;
        self.start.saturating_sub(at) + (at + 1).saturating_sub(end)
    }
}

/// Which collective, and on which line.
type Site = (u32, u32);

/// Threads that wait for others at one place.
#[derive(Default)]
struct Gathering {
    arrived: Slot<u32>,
    site: Slot<Site>,
}

/// A simdgroup.
#[derive(Default)]
struct Simd {
    /// How many of its barriers it passed in this phase.
    step: Slot<u32>,
    gathering: Gathering,
    /// Its lanes at the group's barrier.
    at_barrier: Slot<u32>,
    values: [Slot<u32>; 32],
    operands: [Slot<u32>; 32],
}

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Doing {
    Runs,
    Waits(Site),
    Returned,
}

pub(crate) type Suspend = Yielder<(), ()>;

struct Thread {
    doing: Slot<Doing>,
    yielder: Slot<*const Suspend>,
    stack: Slot<(usize, usize)>,
}

/// A dispatch while it runs.
pub(crate) struct Machine {
    pub(crate) module: Arc<Module>,
    regions: Vec<Region>,
    /// First address and size of the last region that was found to be read with nothing to note: what is next read most
    /// often lies in it too.
    plain: Slot<(usize, usize)>,
    /// The regions of the last other load and the last store.
    last: [Slot<usize>; 2],
    now: Slot<Moment>,
    place: Slot<[u32; 3]>,
    /// The first phase of each group so far.
    groups: RefCell<Vec<(u32, [u32; 3])>>,
    threads: Vec<Thread>,
    simds: Vec<Simd>,
    gathering: Gathering,
    pub(crate) runnable: RefCell<Vec<u32>>,
    most_steps: u64,
    /// Below zero once none is left.
    steps_left: Slot<i64>,
    fault: RefCell<Option<(Place, Fault)>>,
}

impl Machine {
    /// A machine for a dispatch whose groups have so many threads, from phase `first` on.
    pub(crate) fn new(
        module: Arc<Module>,
        regions: Vec<Region>,
        threads: u32,
        first: u32,
        most_steps: u64,
    ) -> Self {
        let thread = || Thread {
            doing: Slot::new(Doing::Runs),
            yielder: Slot::new(std::ptr::null()),
            stack: Slot::default(),
        };
        Self {
            module,
            regions,
            plain: Slot::default(),
            last: Default::default(),
            now: Slot::new(Moment {
                dispatch: first,
                group: first,
                phase: first,
                step: 0,
                thread: 0,
            }),
            place: Slot::default(),
            groups: RefCell::default(),
            threads: (0..threads).map(|_| thread()).collect(),
            simds: (0..threads.div_ceil(32)).map(|_| Simd::default()).collect(),
            gathering: Gathering::default(),
            runnable: RefCell::default(),
            most_steps,
            steps_left: Slot::new(most_steps as i64),
            fault: RefCell::default(),
        }
    }

    /// Begins a group in a phase of its own.
    pub(crate) fn begin(&self, place: [u32; 3]) {
        let mut now = self.now.get();
        now.phase += 1;
        now.group = now.phase;
        self.now.set(now);
        self.place.set(place);
        self.groups.borrow_mut().push((now.phase, place));
        self.gathering.arrived.set(0);
        for simd in &self.simds {
            simd.step.set(0);
            simd.gathering.arrived.set(0);
            simd.at_barrier.set(0);
        }
        for thread in &self.threads {
            thread.doing.set(Doing::Runs);
        }
        let mut runnable = self.runnable.borrow_mut();
        runnable.clear();
        runnable.extend(0..self.threads.len() as u32);
    }

    /// The last phase that was begun.
    pub(crate) fn phase(&self) -> u32 {
        self.now.get().phase
    }

    /// What a fiber says when it starts: how it is suspended, and where its stack lies.
    pub(crate) fn started(&self, thread: u32, yielder: &Suspend, stack: Range<usize>) {
        let thread = &self.threads[thread as usize];
        thread.yielder.set(yielder);
        thread.stack.set((stack.start, stack.end));
    }

    /// Makes a thread the one that runs.
    pub(crate) fn enter(&self, thread: u32) {
        let mut now = self.now.get();
        now.thread = thread;
        now.step = self.simds[thread as usize / 32].step.get();
        self.now.set(now);
    }

    pub(crate) fn returned(&self, thread: u32) {
        self.threads[thread as usize].doing.set(Doing::Returned);
    }

    /// What went wrong, where something did.
    pub(crate) fn fault(&self) -> Option<(Place, Fault)> {
        self.fault.borrow().clone()
    }

    pub(crate) fn failed(&self) -> bool {
        self.fault.borrow().is_some()
    }

    fn here(&self) -> Place {
        Place {
            group: self.place.get(),
            thread: self.now.get().thread,
        }
    }

    /// Ends the dispatch: the fiber that runs is not resumed any more.
    #[cold]
    fn fail(&self, fault: Fault) -> ! {
        self.fault
            .borrow_mut()
            .get_or_insert_with(|| (self.here(), fault));
        loop {
            self.suspend();
        }
    }

    fn suspend(&self) {
        let thread = &self.threads[self.now.get().thread as usize];
        // SAFETY: the fiber that runs gave its own yielder in `started`, and lives on its stack.
        unsafe { (*thread.yielder.get()).suspend(()) }
    }

    /// Counts a step; how many are left.
    #[inline(always)]
    fn spend(&self) -> i64 {
        let left = self.steps_left.get() - 1;
        self.steps_left.set(left);
        left
    }

    #[inline]
    fn within_bounds(&self, left: i64) {
        if left < 0 {
            self.fail(Fault::Endless(self.most_steps));
        }
    }

    /// A load, a store or an atomic operation that is about to happen.
    #[inline(always)]
    pub(crate) fn access(&self, at: usize, bytes: usize, kind: Kind, aligned: bool) {
        let left = self.spend();
        let (start, size) = self.plain.get();
        let offset = at.wrapping_sub(start);
        // A size for which alignment is promised is a power of two.
        let lies = offset < size && bytes <= size - offset && at & bytes.wrapping_sub(1) == 0;
        if kind != Kind::Read || !lies || !aligned || left < 0 {
            self.look(at, bytes, kind, aligned);
        }
    }

    /// Allows and notes an access, or fails.
    #[inline(never)]
    fn look(&self, at: usize, bytes: usize, kind: Kind, aligned: bool) {
        self.within_bounds(self.steps_left.get());
        let last = &self.last[usize::from(kind != Kind::Read)];
        let mut region = &self.regions[last.get()];
        if !region.allows(at, bytes, kind) {
            match self.find(at, bytes, kind) {
                Some(found) => region = found,
                None => return,
            }
        }
        if aligned && at & (bytes - 1) != 0 {
            self.misaligned(at, bytes);
        }
        if !region.is_plain() {
            self.follow(region, (at, bytes), kind);
        }
    }

    /// Notes an access to memory that may be unwritten or in a race.
    #[inline]
    fn follow(&self, region: &Region, (at, bytes): (usize, usize), kind: Kind) {
        if let Written::Bytes(written) = region.written {
            let offset = at - region.start;
            // SAFETY: one byte for each of the region's, and `allows` has seen that these lie in it.
            let written = unsafe { std::slice::from_raw_parts_mut(written.add(offset), bytes) };
            if kind == Kind::Write {
                written.fill(1);
            } else if written.contains(&0) {
                self.fail(Fault::Unwritten(bytes, region.place(at)));
            }
        }
        let Some(cells) = &region.cells else {
            return;
        };
        let touched = match region.written {
            Written::InGroup => self.touch_shared(cells, at, bytes, kind),
            _ => {
                let now = self.now.get();
                // SAFETY: `allows` has seen that the range lies in the region, which is the cells'.
                let touched = unsafe { cells.touch(at, bytes, |cell| cell.touched(&now, kind)) };
                touched.map_err(Some)
            }
        };
        if let Err(race) = touched {
            self.conflict(race, (region, at, bytes), kind);
        }
    }

    /// Touches threadgroup memory.
    ///
    /// # Errors
    /// The race, or none when nothing wrote what is read.
    #[inline]
    fn touch_shared(
        &self,
        cells: &Cells,
        at: usize,
        bytes: usize,
        kind: Kind,
    ) -> Result<(), Option<Race>> {
        let mut now = self.now.get();
        // Each group has threadgroup memory of its own.
        now.dispatch = now.group;
        let reads = kind != Kind::Write;
        // SAFETY: as in `access`.
        unsafe {
            cells.touch(at, bytes, |cell| {
                if reads && cell.written.phase() < now.group {
                    return Err(None);
                }
                cell.touched(&now, kind).map_err(Some)
            })
        }
    }

    #[cold]
    fn conflict(
        &self,
        race: Option<Race>,
        (region, at, bytes): (&Region, usize, usize),
        kind: Kind,
    ) -> ! {
        let at = region.place(at);
        self.fail(match race {
            None => Fault::Unwritten(bytes, at),
            Some(race) => Fault::Race {
                kind,
                bytes,
                at,
                other: self.other(race),
                other_wrote: race.other_wrote,
            },
        })
    }

    /// The thread that a race is with, where the mark tells.
    fn other(&self, race: Race) -> Option<Place> {
        let mark: Mark = race.other;
        let groups = self.groups.borrow();
        let index = groups.partition_point(|(first, _)| *first <= mark.phase());
        let (first, group) = groups.get(index.checked_sub(1)?)?;
        let now = self.now.get();
        // The last of several: the one that it is in a race with came before.
        let itself = *first == now.group && mark.thread() == now.thread;
        (!itself).then_some(Place {
            group: *group,
            thread: mark.thread(),
        })
    }

    /// The region of an access that is not in the last one's; none when it is the thread's own or a table's.
    #[inline(never)]
    fn find(&self, at: usize, bytes: usize, kind: Kind) -> Option<&Region> {
        let (start, end) = self.threads[self.now.get().thread as usize].stack.get();
        let within = |start: usize, end: usize| at >= start && at < end && bytes <= end - at;
        if within(start, end) {
            return None;
        }
        let allows = |region: &Region| region.allows(at, bytes, kind);
        if let Some(index) = self.regions.iter().position(allows) {
            let region = &self.regions[index];
            if region.is_plain() {
                self.plain.set((region.start, region.bytes));
            } else {
                self.last[usize::from(kind != Kind::Read)].set(index);
            }
            return Some(region);
        }
        let tables = &self.module.tables;
        if kind == Kind::Read && within(tables.start, tables.end) {
            return None;
        }
        let readable = |region: &&Region| region.allows(at, bytes, Kind::Read);
        if let Some(region) = self.regions.iter().find(readable) {
            self.fail(Fault::ReadOnly(bytes, region.place(at)));
        }
        self.fail(Fault::Outside(kind, bytes, self.nearest(at)))
    }

    /// A pointer that is no multiple of its type's alignment, which a load or store is about to follow.
    #[cold]
    pub(crate) fn misaligned(&self, at: usize, alignment: usize) {
        let place = self.nearest(at);
        self.fail(Fault::Misaligned(alignment, place));
    }

    /// The range of a dispatch's that an address lies in or misses by little.
    fn nearest(&self, at: usize) -> Option<Where> {
        let nearest = self.regions.iter().min_by_key(|r| r.distance(at))?;
        (nearest.distance(at) < NEAR).then(|| nearest.place(at))
    }

    /// An operation that the instrumentation found wrong.
    pub(crate) fn slip(&self, what: u32) {
        self.fail(match what {
            0 => Fault::Index,
            1 => Fault::Division,
            _ => Fault::Shift,
        })
    }
}
