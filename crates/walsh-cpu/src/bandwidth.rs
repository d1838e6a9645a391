//! What the team's threads together read from memory: what products of one row are held against.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::simd::{Simd, Token, entries};
use crate::team::{Group, Phase, Scratch, Team, TeamError};

/// More than caches hold.
const BYTES: usize = 256 << 20;

/// The bytes of a work item.
const PIECE: usize = 64 << 10;

/// Machines that others use too are at their best now and then.
const PASSES: usize = 8;

/// A cache line.
const LINE: usize = 64;

/// How far ahead is fetched.
const AHEAD: usize = 4096;

/// Reads memory and keeps nothing of it.
struct Read {
    set: Token,
    memory: Arc<Vec<f32>>,
}

impl Phase for Read {
    fn items(&self) -> usize {
        size_of_val(&**self.memory) / PIECE
    }

    fn cost(&self) -> u64 {
        u64::MAX
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        for item in items {
            let numbers = PIECE / size_of::<f32>();
            let piece = &self.memory[item * numbers..(item + 1) * numbers];
            black_box(fold(self.set, piece));
        }
    }
}

entries! {
    /// Something that depends on every number of a piece of whole lines.
    fn fold(piece: &[f32]) -> f32 = fold_lanes
}

/// See [`fold`].
#[inline(always)]
fn fold_lanes<S: Simd>(s: S, piece: &[f32]) -> f32 {
    const AT_ONCE: usize = 4;
    let mut largest = [s.splat(0.0); AT_ONCE];
    for lines in piece.chunks_exact(AT_ONCE * LINE / size_of::<f32>()) {
        let start = lines.as_ptr();
        let vectors = lines.as_chunks().0;
        for i in 0..AT_ONCE {
            crate::team::fetch(start.cast::<u8>().wrapping_add(AHEAD + i * LINE));
        }
        for i in 0..AT_ONCE {
            largest[i] = s.max(largest[i], s.read(&vectors[i]));
        }
    }
    let [a, b, c, d] = largest;
    s.reduce_max(s.max(s.max(a, b), s.max(c, d)))
}

/// Bytes per second that a team reads: the best of a few passes over memory that no cache holds.
pub(crate) fn measure(set: Token, team: &Team) -> Result<f64, TeamError> {
    let memory = Arc::new(vec![1.0f32; BYTES / size_of::<f32>()]);
    let groups = [Group::new(vec![Box::new(Read { set, memory })])];
    let mut best = 0.0f64;
    for _ in 0..PASSES {
        let start = Instant::now();
        // SAFETY: the phase owns what it reads and writes nothing.
        unsafe { team.run(&groups)? };
        best = best.max(BYTES as f64 / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn every_number_counts() {
        for isa in Isa::available() {
            for at in [0, 17, 63, 8191, 16_383] {
                let mut piece = vec![1.0f32; PIECE / 4];
                piece[at] = 2.0;
                assert_eq!(fold(Token::of(isa), &piece), 2.0, "{isa} {at}");
            }
        }
    }
}
