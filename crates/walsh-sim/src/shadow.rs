//! Who touched a byte last, and whether anything orders them and the one who touches it now.

/// A thread at a moment of a dispatch.
///
/// Moments are counted in phases: a group begins one, and each of its threadgroup barriers begins another. Groups run
/// one after another, so a phase belongs to one group. Steps are a simdgroup's own barriers within a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The dispatch's first phase.
    pub(crate) dispatch: u32,
    /// The group's first phase.
    pub(crate) group: u32,
    pub(crate) phase: u32,
    pub(crate) step: u32,
    /// The thread's index in its group.
    pub(crate) thread: u32,
}

/// The most threads of a group, and the most barriers of a simdgroup between two of its group.
pub(crate) const MOST_THREADS: u32 = 1 << THREAD_BITS;
pub(crate) const MOST_STEPS: u32 = 1 << STEP_BITS;

const THREAD_BITS: u32 = 10;
const STEP_BITS: u32 = 19;

/// The last thread that touched a byte in some way, and whether others did that nothing orders against it.
///
/// Phase, company, atomic, step and thread from the highest bit down. Zero: nobody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark(u64);

const ATOMIC: u64 = 1 << (THREAD_BITS + STEP_BITS);
const COMPANY: u32 = THREAD_BITS + STEP_BITS + 1;

/// Who else touched the byte: nobody, lanes of the simdgroup, simdgroups of the group, other groups.
const ALONE: u64 = 0;
const LANES: u64 = 1;
const SIMDS: u64 = 2;
const GROUPS: u64 = 3;

impl Mark {
    fn new(now: &Moment, company: u64, atomic: bool) -> Self {
        let atomic = if atomic { ATOMIC } else { 0 };
        let (step, thread) = (u64::from(now.step), u64::from(now.thread));
        Self(
            u64::from(now.phase) << 32 | company << COMPANY | atomic | step << THREAD_BITS | thread,
        )
    }

    pub(crate) fn phase(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn thread(self) -> u32 {
        self.0 as u32 & (MOST_THREADS - 1)
    }

    fn step(self) -> u32 {
        (self.0 >> THREAD_BITS) as u32 & (MOST_STEPS - 1)
    }

    fn company(self) -> u64 {
        self.0 >> COMPANY & 3
    }

    fn is_atomic(self) -> bool {
        self.0 & ATOMIC != 0
    }

    /// Who touched the byte, unordered against this moment, once the moment's thread is among them.
    #[inline(always)]
    fn company_at(self, now: &Moment) -> u64 {
        let other_simd = self.thread() / 32 != now.thread / 32;
        if self.phase() < now.dispatch {
            ALONE
        } else if self.phase() < now.group || self.company() == GROUPS {
            GROUPS
        } else if self.phase() < now.phase {
            ALONE
        } else if other_simd || self.company() == SIMDS {
            SIMDS
        } else if self.step() < now.step {
            ALONE
        } else if self.thread() != now.thread || self.company() == LANES {
            LANES
        } else {
            ALONE
        }
    }
}

/// What is known of a byte: who wrote it and who read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(crate) struct Cell {
    pub(crate) written: Mark,
    pub(crate) read: Mark,
}

/// How a byte is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Atomic,
}

/// Two threads at one byte that nothing orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Race {
    /// The other one, as far as it is known.
    pub(crate) other: Mark,
    pub(crate) other_wrote: bool,
}

impl Cell {
    /// The cell once the moment's thread has touched the byte.
    ///
    /// # Errors
    /// When another thread's touch and this one are in a race.
    #[inline(always)]
    pub(crate) fn touched(self, now: &Moment, kind: Kind) -> Result<Self, Race> {
        let writers = self.written.company_at(now);
        let allowed = kind == Kind::Atomic && self.written.is_atomic();
        if writers != ALONE && !allowed {
            return Err(Race {
                other: self.written,
                other_wrote: true,
            });
        }
        if kind == Kind::Read {
            let read = Mark::new(now, self.read.company_at(now), false);
            return Ok(Self { read, ..self });
        }
        if self.read.company_at(now) != ALONE {
            return Err(Race {
                other: self.read,
                other_wrote: false,
            });
        }
        let written = Mark::new(now, writers, kind == Kind::Atomic);
        // Whatever a write is ordered behind, those are that are ordered behind the write. Atomics order nothing.
        let read = match kind {
            Kind::Atomic => self.read,
            _ => Mark::default(),
        };
        Ok(Self { written, read })
    }
}

/// The cells of a range of memory: one for each aligned word of four bytes, and one for each byte of words that were
/// touched in part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cells {
    words: *mut Cell,
    bytes: *mut Cell,
    /// The address that the first cells are for, a multiple of four.
    origin: usize,
}

/// In place of a word's writer: its bytes have cells of their own.
const SPLIT: Mark = Mark(u64::MAX);

impl Cells {
    /// How many cells a range of so many bytes takes.
    pub(crate) fn count(bytes: u64) -> u64 {
        bytes.div_ceil(4) * 5
    }

    /// The cells of the `bytes` from `origin` on, a multiple of four, in as many zeroed cells as [`Cells::count`] says.
    pub(crate) fn new(cells: *mut Cell, bytes: u64, origin: usize) -> Self {
        Self {
            words: cells,
            bytes: cells.wrapping_add(bytes.div_ceil(4) as usize),
            origin,
        }
    }

    /// Passes every cell of a range through `change`, which says what becomes of it.
    ///
    /// # Safety
    /// The range lies within that of the cells, and nothing else refers to them meanwhile.
    #[inline]
    pub(crate) unsafe fn touch<E>(
        &self,
        at: usize,
        bytes: usize,
        change: impl Fn(Cell) -> Result<Cell, E>,
    ) -> Result<(), E> {
        let offset = at - self.origin;
        if (offset | bytes) & 3 != 0 {
            // SAFETY: as this function's.
            return unsafe { self.touch_bytes(offset, bytes, change) };
        }
        for word in offset / 4..(offset + bytes) / 4 {
            // SAFETY: the word lies in the range.
            let cell = unsafe { &mut *self.words.add(word) };
            if cell.written != SPLIT {
                *cell = change(*cell)?;
                continue;
            }
            // SAFETY: as above; there are cells for all bytes of every word.
            let parts = unsafe { std::slice::from_raw_parts_mut(self.bytes.add(4 * word), 4) };
            for part in parts.iter_mut() {
                *part = change(*part)?;
            }
            if parts.iter().all(|part| *part == parts[0]) {
                *cell = parts[0];
            }
        }
        Ok(())
    }

    /// The same for parts of words.
    ///
    /// # Safety
    /// As for [`Cells::touch`].
    unsafe fn touch_bytes<E>(
        &self,
        offset: usize,
        bytes: usize,
        change: impl Fn(Cell) -> Result<Cell, E>,
    ) -> Result<(), E> {
        for byte in offset..offset + bytes {
            // SAFETY: the byte lies in the range.
            let word = unsafe { &mut *self.words.add(byte / 4) };
            if word.written != SPLIT {
                // SAFETY: there are cells for all bytes of every word.
                unsafe { std::slice::from_raw_parts_mut(self.bytes.add(byte / 4 * 4), 4) }
                    .fill(*word);
                word.written = SPLIT;
            }
            // SAFETY: as above.
            let cell = unsafe { &mut *self.bytes.add(byte) };
            *cell = change(*cell)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment {
        dispatch: 10,
        group: 10,
        phase: 10,
        step: 0,
        thread: 0,
    };

    /// Touches of one byte, in order; whether the last of them is in a race, and none before.
    fn races(touches: &[(Moment, Kind)]) -> bool {
        let mut cell = Cell::default();
        let (last, before) = touches.split_last().unwrap();
        for (now, kind) in before {
            cell = cell.touched(now, *kind).unwrap();
        }
        cell.touched(&last.0, last.1).is_err()
    }

    #[test]
    fn barriers_order_what_they_cover() {
        let lane = Moment { thread: 5, ..START };
        let simd = Moment {
            thread: 40,
            ..START
        };
        let group = Moment {
            group: 12,
            phase: 12,
            ..START
        };
        let dispatch = Moment {
            dispatch: 13,
            group: 13,
            phase: 13,
            ..lane
        };
        let stepped = |moment: Moment| Moment { step: 1, ..moment };
        let passed = |moment: Moment| Moment {
            phase: 11,
            ..moment
        };
        use Kind::{Atomic, Read, Write};
        for (first, second) in [(Write, Read), (Read, Write), (Write, Write), (Atomic, Read)] {
            let races = |moment| races(&[(START, first), (moment, second)]);
            assert!(!races(START));
            assert!(races(lane));
            assert!(!races(stepped(lane)));
            assert!(races(simd));
            assert!(races(stepped(simd)));
            assert!(!races(passed(lane)));
            assert!(!races(passed(simd)));
            assert!(races(group));
            assert!(!races(dispatch));
        }
        for moment in [lane, simd, group] {
            assert!(!races(&[(START, Read), (moment, Read)]));
            assert!(!races(&[(START, Atomic), (moment, Atomic)]));
        }
    }

    #[test]
    fn readers_before_the_last_are_not_forgotten() {
        use Kind::{Read, Write};
        let thread = |thread| Moment { thread, ..START };
        // Lane 0 reads, lane 1 reads, lane 1 writes.
        assert!(races(&[
            (thread(0), Read),
            (thread(1), Read),
            (thread(1), Write)
        ]));
        assert!(races(&[
            (thread(0), Read),
            (thread(33), Read),
            (thread(33), Write)
        ]));
        let next = |thread| Moment {
            group: 12,
            phase: 12,
            thread,
            ..START
        };
        assert!(races(&[
            (thread(0), Read),
            (next(0), Read),
            (next(0), Write)
        ]));
        let later = Moment {
            phase: 13,
            ..next(0)
        };
        assert!(races(&[(thread(0), Read), (next(0), Read), (later, Write)]));
        let (step, apart) = (
            Moment {
                step: 1,
                ..thread(1)
            },
            thread(32),
        );
        assert!(!races(&[(thread(0), Read), (step, Read), (step, Write)]));
        assert!(races(&[(apart, Read), (step, Read), (step, Write)]));
    }

    #[test]
    fn words_are_as_good_as_their_bytes() {
        let mut memory = vec![Cell::default(); Cells::count(10) as usize];
        let cells = Cells::new(memory.as_mut_ptr(), 10, 1000);
        let touch = |at, bytes, thread, kind| {
            let now = Moment { thread, ..START };
            // SAFETY: `at` and `bytes` stay below 1010.
            unsafe { cells.touch(at, bytes, |cell| cell.touched(&now, kind)) }.is_ok()
        };
        use Kind::{Read, Write};
        // Neighbouring bytes of a word may be written by two threads, the word may not be read by either.
        assert!(touch(1000, 1, 0, Write));
        assert!(touch(1001, 1, 1, Write));
        assert!(touch(1002, 2, 2, Write));
        assert!(!touch(1000, 4, 0, Read));
        assert!(!touch(1002, 1, 1, Read));
        assert!(touch(1001, 1, 1, Read));
        // A word that one thread wrote whole, before another reads a part.
        assert!(touch(1004, 4, 3, Write));
        assert!(touch(1004, 4, 3, Read));
        assert!(!touch(1006, 1, 4, Read));
        assert!(touch(1006, 1, 3, Write));
        assert!(!touch(1004, 4, 4, Write));
        // The last bytes, which are no whole word.
        assert!(touch(1008, 2, 5, Write));
        assert!(!touch(1009, 1, 6, Write));
        // A split word becomes whole again once one thread has written all of it.
        assert!(touch(1004, 4, 3, Write));
        assert_ne!(memory[1].written, SPLIT);
        assert_eq!(memory[0].written, SPLIT);
    }
}
