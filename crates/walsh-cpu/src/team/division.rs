//! How the items of a group become chunks, and chunks the shares of threads.

use std::ops::Range;

use super::phase::Phase;

/// The most chunks of a phase: a [`Ticket`](super::shares) counts those of a group to 2^20.
const MOST_CHUNKS: usize = 1 << 15;

/// The estimated time, in nanoseconds, for which a thread is called in: handing out less would cost more than it saves.
const SHARE: u64 = 1_500;

/// The chunks of one phase within its group's numbering.
#[derive(Clone, Copy, Debug)]
struct Chunks {
    first: usize,
    items: usize,
    grain: usize,
}

/// How the items of some phases are divided into chunks.
#[derive(Clone, Debug, Default)]
pub(super) struct Division {
    chunks: Vec<Chunks>,
    total: usize,
}

impl Division {
    pub(super) const NOTHING: Division = Division {
        chunks: Vec::new(),
        total: 0,
    };

    pub(super) fn of(phases: &[Box<dyn Phase>]) -> Division {
        let mut division = Division::default();
        for phase in phases {
            division.push(&**phase);
        }
        division
    }

    /// Adds a phase behind the others.
    ///
    /// # Panics
    /// When there are more phases than a ticket can count the chunks of.
    pub(super) fn push(&mut self, phase: &dyn Phase) {
        let items = phase.items();
        let grain = phase.grain().max(items.div_ceil(MOST_CHUNKS)).max(1);
        self.chunks.push(Chunks {
            first: self.total,
            items,
            grain,
        });
        self.total += items.div_ceil(grain);
        assert!(self.total < 1 << 20, "a group has too many phases");
    }

    /// The number of chunks.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Between how many of `threads` threads the chunks are worth dividing when they cost so much.
    pub(super) fn threads(&self, cost: u64, threads: usize) -> usize {
        let worthwhile = usize::try_from(cost / SHARE).unwrap_or(usize::MAX);
        threads.min(worthwhile).min(self.total).max(1)
    }

    /// The phase that a chunk is of, and its items.
    pub(super) fn items(&self, chunk: usize) -> (usize, Range<usize>) {
        let index = self.chunks.partition_point(|chunks| chunks.first <= chunk) - 1;
        let Chunks {
            first,
            items,
            grain,
        } = self.chunks[index];
        let start = (chunk - first) * grain;
        (index, start..(start + grain).min(items))
    }
}

/// What phases cost together, now.
pub(super) fn cost(phases: &[Box<dyn Phase>]) -> u64 {
    let costs = phases.iter().map(|phase| phase.cost());
    costs.fold(0, u64::saturating_add)
}

/// The share of one of several threads: neighbouring chunks, so that it reads on where it has read.
pub(super) fn share(total: usize, thread: usize, threads: usize) -> Range<usize> {
    if thread >= threads {
        return 0..0;
    }
    total * thread / threads..total * (thread + 1) / threads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_all_chunks_evenly() {
        for total in [0, 1, 2, 7, 128, 1000] {
            for threads in [1, 2, 3, 16, 128] {
                let shares: Vec<_> = (0..threads).map(|t| share(total, t, threads)).collect();
                assert_eq!((shares[0].start, shares[threads - 1].end), (0, total));
                assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
                let sizes = shares.iter().map(Range::len);
                assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
                assert!(share(total, threads, threads).is_empty());
            }
        }
    }
}
