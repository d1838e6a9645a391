//! Fetching into the caches what the next products read, while a thread has nothing else to do.
//!
//! One row of a product is bound by memory, and between products memory would idle: in the small ops that one thread does
//! alone, and at the end of a group. A thread that waits there fetches the first part of its share of the next weights.

use super::division::{self, Division, share};
use super::phase::{Phase, Stream};

/// The most bytes that a thread fetches: a part of its second-level cache.
const MOST_BYTES: usize = 256 << 10;

/// A cache line.
const LINE: usize = 64;

/// The lines between two looks for work.
const AT_ONCE: usize = 8;

/// What the next group that reads streams will read.
pub(super) struct Ahead {
    division: Division,
    cost: u64,
    streams: Vec<Option<Stream>>,
}

impl Ahead {
    pub(super) fn of(phases: &[Box<dyn Phase>]) -> Option<Ahead> {
        let streams: Vec<_> = phases.iter().map(|phase| phase.stream()).collect();
        streams.iter().any(Option::is_some).then(|| Ahead {
            division: Division::of(phases),
            cost: division::cost(phases),
            streams,
        })
    }

    /// Where one of a team's threads will begin to read.
    pub(super) fn of_thread(&self, thread: usize, team: usize) -> Fetch {
        let threads = self.division.threads(self.cost, team);
        let chunks = share(self.division.total(), thread, threads);
        if chunks.is_empty() {
            return Fetch::NOTHING;
        }
        let (phase, items) = self.division.items(chunks.start);
        let Some(stream) = self.streams[phase] else {
            return Fetch::NOTHING;
        };
        let first = (items.start * stream.item_bytes).min(stream.bytes);
        let (last, end) = self.division.items(chunks.end - 1);
        let end = match last == phase {
            true => (end.end * stream.item_bytes).min(stream.bytes),
            false => stream.bytes,
        };
        Fetch {
            next: stream.start.wrapping_add(first),
            left: (end - first).min(MOST_BYTES),
        }
    }
}

/// Addresses to fetch. Fetching reads nothing that a program could see and cannot fail, whatever has become of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    next: *const u8,
    left: usize,
}

impl Fetch {
    pub(super) const NOTHING: Fetch = Fetch {
        next: std::ptr::null(),
        left: 0,
    };

    /// Fetches a few lines; false when there are none left.
    pub(super) fn some(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        let bytes = self.left.min(AT_ONCE * LINE);
        for offset in (0..bytes).step_by(LINE) {
            fetch(self.next.wrapping_add(offset));
        }
        self.next = self.next.wrapping_add(bytes);
        self.left -= bytes;
        true
    }
}

/// Asks for a line to be brought to the second-level cache.
#[inline(always)]
pub(crate) fn fetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch of any address is harmless.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::super::group::{Group, look_ahead};
    use super::*;
    use crate::team::Scratch;

    /// Items of 100 bytes each, from an address on that nothing reads; with none, no stream.
    struct Reads(usize);

    const START: *const u8 = std::ptr::without_provenance(1 << 20);

    impl Phase for Reads {
        fn items(&self) -> usize {
            self.0.max(1)
        }
        fn cost(&self) -> u64 {
            1_000_000
        }
        fn stream(&self) -> Option<Stream> {
            (self.0 > 0).then(|| Stream {
                start: START,
                item_bytes: 100,
                bytes: 100 * self.0,
            })
        }
        unsafe fn run(&self, _: Range<usize>, _: &mut Scratch) {}
    }

    #[test]
    fn each_group_knows_the_next_that_reads_and_each_thread_its_share() {
        let group = |items| Group::new(vec![Box::new(Reads(items)) as Box<dyn Phase>]);
        let mut groups = [group(9), group(0), group(4), group(0)];
        look_ahead(&mut groups);
        let found = groups.each_ref().map(|group| {
            let ahead = group.ahead.as_ref()?;
            Some([0, 1].map(|thread| ahead.of_thread(thread, 2)))
        });
        let fetch = |first: usize, left| Fetch {
            next: START.wrapping_add(first),
            left,
        };
        let halves = Some([fetch(0, 200), fetch(200, 200)]);
        assert_eq!(found, [halves, halves, None, None]);
    }
}
