//! Collectives and barriers: where threads wait for each other.

use std::ops::Range;

use super::{Doing, Machine, Simd, Site};
use crate::fault::{Fault, Meeting, Place};
use crate::shadow::MOST_STEPS;

/// What lanes do together, as `host.h` numbers it.
const WORDS: [&str; 7] = [
    "simd_shuffle",
    "simd_shuffle_xor",
    "simd_sum",
    "simd_sum",
    "simd_max",
    "simdgroup_barrier",
    "threadgroup_barrier",
];
const SHUFFLE: u32 = 0;
const SHUFFLE_XOR: u32 = 1;
const SUM_FLOAT: u32 = 2;
const SUM_INT: u32 = 3;
const MAX_FLOAT: u32 = 4;
const SIMDGROUP_BARRIER: u32 = 5;
const THREADGROUP_BARRIER: u32 = 6;

impl Machine {
    /// A collective or barrier: the thread waits for the others, and is given its result.
    pub(crate) fn collective(&self, what: u32, bits: u32, operand: u32, line: u32) -> u32 {
        self.within_bounds(self.spend());
        let thread = self.now.get().thread;
        let (simd, lane) = (&self.simds[thread as usize / 32], thread as usize % 32);
        let site = (what, line);
        let gathering = match what {
            THREADGROUP_BARRIER => {
                simd.at_barrier.set(simd.at_barrier.get() + 1);
                &self.gathering
            }
            _ => {
                simd.values[lane].set(bits);
                simd.operands[lane].set(operand);
                &simd.gathering
            }
        };
        // Other simdgroups may still be on their way through collectives of their own; lanes of this one may not.
        let split = simd.at_barrier.get() > 0 && simd.gathering.arrived.get() > 0;
        let elsewhere = gathering.arrived.get() > 0 && gathering.site.get() != site;
        if split || elsewhere || (simd.at_barrier.get() > 0 && what != THREADGROUP_BARRIER) {
            self.part(site);
        }
        self.threads[thread as usize].doing.set(Doing::Waits(site));
        gathering.site.set(site);
        gathering.arrived.set(gathering.arrived.get() + 1);
        let first = thread - thread % 32;
        let party = match what {
            THREADGROUP_BARRIER => 0..self.threads.len() as u32,
            _ => first..first + 32,
        };
        if gathering.arrived.get() == party.len() as u32 {
            gathering.arrived.set(0);
            self.pass(site, party);
        }
        self.suspend();
        simd.values[lane].get()
    }

    /// Fails because another thread waits where it can never meet this one, which has come to `site`.
    #[cold]
    fn part(&self, site: Site) -> ! {
        let simd = self.now.get().thread as usize / 32;
        let doing = |thread: usize| self.threads[thread].doing.get();
        let never_comes = |thread: usize, other: Site| {
            other != site && (other.0 == THREADGROUP_BARRIER || thread / 32 == simd)
        };
        let elsewhere = (0..self.threads.len()).find_map(|thread| match doing(thread) {
            Doing::Waits(other) if never_comes(thread, other) => Some((thread as u32, other)),
            _ => None,
        });
        let (other, there) = elsewhere.unwrap_or((self.now.get().thread, site));
        self.fail(Fault::Apart {
            here: self.meeting(site),
            other,
            there: self.meeting(there),
        })
    }

    /// Lets threads that have all arrived go on.
    fn pass(&self, site: Site, party: Range<u32>) {
        if site.0 == THREADGROUP_BARRIER {
            let mut now = self.now.get();
            now.phase += 1;
            self.now.set(now);
            for simd in &self.simds {
                simd.step.set(0);
                simd.at_barrier.set(0);
            }
        } else {
            self.exchange(&self.simds[party.start as usize / 32], site);
        }
        for thread in party.clone() {
            self.threads[thread as usize].doing.set(Doing::Runs);
        }
        self.runnable.borrow_mut().extend(party);
    }

    /// Gives each lane of a simdgroup, all of which have arrived, its result.
    fn exchange(&self, simd: &Simd, (what, line): Site) {
        let values: [u32; 32] = std::array::from_fn(|lane| simd.values[lane].get());
        let operands: [u32; 32] = std::array::from_fn(|lane| simd.operands[lane].get());
        let floats = || values.map(f32::from_bits);
        if what <= SHUFFLE_XOR {
            if let Some(operand) = operands.iter().find(|operand| **operand >= 32) {
                self.fail(Fault::Lane {
                    word: WORDS[what as usize],
                    operand: *operand,
                    line: self.module.line(line).to_owned(),
                });
            }
            if what == SHUFFLE_XOR && operands.iter().any(|mask| *mask != operands[0]) {
                self.fail(Fault::Masks(self.module.line(line).to_owned()));
            }
        }
        let result: [u32; 32] = match what {
            SHUFFLE => operands.map(|lane| values[lane as usize]),
            SHUFFLE_XOR => std::array::from_fn(|lane| values[lane ^ operands[lane] as usize]),
            SUM_FLOAT => [butterfly(floats(), |a, b| a + b).to_bits(); 32],
            SUM_INT => [values.into_iter().fold(0, u32::wrapping_add); 32],
            MAX_FLOAT => [butterfly(floats(), f32::max).to_bits(); 32],
            SIMDGROUP_BARRIER => {
                simd.step.set(simd.step.get() + 1);
                if simd.step.get() == MOST_STEPS {
                    self.fail(Fault::Steps(MOST_STEPS));
                }
                values
            }
            _ => values,
        };
        for (value, result) in simd.values.iter().zip(result) {
            value.set(result);
        }
    }

    fn meeting(&self, (what, line): Site) -> Meeting {
        Meeting {
            word: WORDS[what as usize],
            line: self.module.line(line).to_owned(),
        }
    }

    /// Says why no thread can go on although some have not returned.
    pub(crate) fn stuck(&self) {
        let doing = |thread: &usize| self.threads[*thread].doing.get();
        let threads = 0..self.threads.len();
        let waits = |thread: usize| match doing(&thread) {
            Doing::Waits(site) => Some((thread, site)),
            _ => None,
        };
        let Some((waiting, site)) = threads.clone().find_map(waits) else {
            return;
        };
        let party = match site.0 {
            THREADGROUP_BARRIER => threads,
            _ => waiting / 32 * 32..waiting / 32 * 32 + 32,
        };
        let absent = |thread: &usize| doing(thread) != Doing::Waits(site);
        let Some(other) = party.clone().find(absent) else {
            return;
        };
        let there = match doing(&other) {
            Doing::Waits(there) => Some(self.meeting(there)),
            _ => None,
        };
        let place = Place {
            group: self.place.get(),
            thread: waiting as u32,
        };
        let here = self.meeting(site);
        let other = other as u32;
        *self.fault.borrow_mut() = Some((place, Fault::Missed { here, other, there }));
    }
}

/// A reduction in the order of the dialect's CUDA form: the partner 16 lanes away first. All lanes get the same bits,
/// since both operations commute.
fn butterfly(mut values: [f32; 32], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = 16;
    while half > 0 {
        for lane in 0..half {
            values[lane] = combine(values[lane], values[lane + half]);
        }
        half /= 2;
    }
    values[0]
}
