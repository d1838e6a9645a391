//! Who does which chunks of a group: a share for each thread, from whose end threads that are done take chunks over.
//!
//! A thread takes chunks from the front of its share, so that it reads weights as one stream; another that has none left
//! takes from the back. No one waits for a thread that the machine has taken away: its chunks go to others, even those of
//! a share that it has not begun.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::division::share;

/// How many other shares a worker looks into: with a hundred threads, looking into all costs more than it finds. The
/// calling thread, which waits for the end anyway, looks into all.
const NEIGHBOURS: usize = 8;

/// How many threads count what they have done in one place.
const COUNTED_TOGETHER: usize = 8;

const EPOCH_BITS: u32 = 24;
const CHUNK_BITS: u32 = 20;

/// Keeps a value from sharing a cache line (or the pair that the prefetcher fetches) with its neighbours.
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

/// What is offered to the team: which group, in the order of groups, how many chunks, and for how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    epoch: u32,
    pub(super) total: usize,
    pub(super) threads: usize,
}

impl Offer {
    fn pack(self) -> u64 {
        u64::from(self.epoch) << 40 | (self.total as u64) << CHUNK_BITS | self.threads as u64
    }

    fn unpack(bits: u64) -> Offer {
        let chunks = |bits: u64| (bits & ((1 << CHUNK_BITS) - 1)) as usize;
        Offer {
            epoch: (bits >> 40) as u32,
            total: chunks(bits >> CHUNK_BITS),
            threads: chunks(bits),
        }
    }
}

/// What is left of a thread's share of the group of an epoch.
#[derive(Clone, Copy)]
struct Ticket {
    epoch: u32,
    start: usize,
    end: usize,
}

impl Ticket {
    fn pack(self) -> u64 {
        u64::from(self.epoch) << 40 | (self.start as u64) << CHUNK_BITS | self.end as u64
    }

    fn unpack(bits: u64) -> Ticket {
        let Offer {
            epoch,
            total,
            threads,
        } = Offer::unpack(bits);
        Ticket {
            epoch,
            start: total,
            end: threads,
        }
    }
}

/// Which end of a share to take from.
#[derive(Clone, Copy)]
enum End {
    Front,
    Back,
}

/// The shares of a team's threads.
pub(super) struct Shares {
    offer: Padded<AtomicU64>,
    tickets: Box<[Padded<AtomicU64>]>,
    done: Box<[Padded<AtomicUsize>]>,
    /// How often epochs have begun anew.
    rounds: AtomicU64,
}

impl Shares {
    pub(super) fn new(threads: usize) -> Shares {
        Shares {
            offer: Padded(AtomicU64::new(0)),
            tickets: (0..threads).map(|_| Padded(AtomicU64::new(0))).collect(),
            done: (0..threads.div_ceil(COUNTED_TOGETHER))
                .map(|_| Padded(AtomicUsize::new(0)))
                .collect(),
            rounds: AtomicU64::new(0),
        }
    }

    /// What is offered now.
    pub(super) fn offer(&self) -> Offer {
        // Sequentially consistent: see `Shared::wake`.
        Offer::unpack(self.offer.0.load(Ordering::SeqCst))
    }

    /// Offers the next group. To be called by one thread, when every chunk of the last is done.
    pub(super) fn open(&self, total: usize, threads: usize) -> Offer {
        let mut epoch = self.offer().epoch + 1;
        if epoch == 1 << EPOCH_BITS {
            // Epochs begin anew. A thread that has slept through all of them must not find its ticket as it was: what
            // tickets say meanwhile differs from round to round.
            let round = self.rounds.fetch_add(1, Ordering::Relaxed) + 1;
            let round = (round % (1 << CHUNK_BITS)) as usize;
            let spent = Ticket {
                epoch: 0,
                start: round,
                end: round,
            };
            for ticket in &self.tickets {
                ticket.0.store(spent.pack(), Ordering::SeqCst);
            }
            epoch = 1;
        }
        for done in &self.done {
            done.0.store(0, Ordering::Relaxed);
        }
        let offer = Offer {
            epoch,
            total,
            threads,
        };
        self.offer.0.store(offer.pack(), Ordering::SeqCst);
        offer
    }

    /// The next chunk for a thread: of its own share, or of another's.
    pub(super) fn claim(&self, offer: Offer, thread: usize) -> Option<usize> {
        let own = self.take(offer, thread, End::Front);
        if own.is_some() {
            return own;
        }
        let others = match thread {
            0 => offer.threads - 1,
            _ => NEIGHBOURS.min(offer.threads - 1),
        };
        (1..=others)
            .find_map(|distance| self.take(offer, (thread + distance) % offer.threads, End::Back))
    }

    /// Takes a chunk of a share.
    fn take(&self, offer: Offer, of: usize, end: End) -> Option<usize> {
        let ticket = &self.tickets[of].0;
        let mut bits = ticket.load(Ordering::Acquire);
        loop {
            if self.offer() != offer {
                return None;
            }
            // The ticket is not from a later epoch, because the offer was still this one after it was read. If it is from
            // an earlier one the share is whole, and as soon as it is not the ticket has changed: the exchange fails.
            let found = Ticket::unpack(bits);
            let Range { start, end: last } = match found.epoch == offer.epoch {
                true => found.start..found.end,
                false => share(offer.total, of, offer.threads),
            };
            if start >= last {
                return None;
            }
            let (chunk, left) = match end {
                End::Front => (start, start + 1..last),
                End::Back => (last - 1, start..last - 1),
            };
            let left = Ticket {
                epoch: offer.epoch,
                start: left.start,
                end: left.end,
            };
            match ticket.compare_exchange_weak(
                bits,
                left.pack(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(chunk),
                Err(now) => bits = now,
            }
        }
    }

    /// Reports chunks that a thread has done.
    pub(super) fn report(&self, thread: usize, chunks: usize) {
        self.done[thread / COUNTED_TOGETHER]
            .0
            .fetch_add(chunks, Ordering::Release);
    }

    /// Whether every chunk of the group is done.
    pub(super) fn all_done(&self, offer: Offer) -> bool {
        let places = offer.threads.div_ceil(COUNTED_TOGETHER);
        let done = self.done[..places].iter();
        done.map(|done| done.0.load(Ordering::Acquire))
            .sum::<usize>()
            == offer.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(shares: &Shares, offer: Offer, thread: usize) -> Vec<usize> {
        std::iter::from_fn(|| shares.claim(offer, thread)).collect()
    }

    #[test]
    fn a_thread_takes_its_share_then_others_from_behind() {
        let shares = Shares::new(3);
        let offer = shares.open(9, 3);
        assert_eq!(shares.claim(offer, 2), Some(6));
        assert_eq!(drain(&shares, offer, 1), [3, 4, 5, 8, 7, 2, 1, 0]);
        assert!(drain(&shares, offer, 0).is_empty());
    }

    #[test]
    fn an_old_offer_gives_nothing() {
        let shares = Shares::new(2);
        let old = shares.open(4, 2);
        assert_eq!(drain(&shares, old, 0).len(), 4);
        let new = shares.open(2, 2);
        assert_eq!(shares.claim(old, 1), None);
        assert_eq!(drain(&shares, new, 1), [1, 0]);
    }

    #[test]
    fn epochs_begin_anew() {
        let shares = Shares::new(2);
        let last = Offer {
            epoch: (1 << EPOCH_BITS) - 2,
            total: 0,
            threads: 1,
        };
        shares.offer.0.store(last.pack(), Ordering::SeqCst);
        for _ in 0..4 {
            let offer = shares.open(5, 2);
            assert!(offer.epoch > 0);
            assert_eq!(drain(&shares, offer, 0), [0, 1, 4, 3, 2]);
            shares.report(0, 5);
            assert!(shares.all_done(offer));
        }
    }

    #[test]
    fn a_hundred_threads_share_what_one_has_left() {
        let shares = Shares::new(128);
        let offer = shares.open(1000, 128);
        let mut all = drain(&shares, offer, 77);
        // Its own and its neighbours'.
        assert!((63..=72).contains(&all.len()), "{}", all.len());
        all.extend(drain(&shares, offer, 0));
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..1000));
    }
}
