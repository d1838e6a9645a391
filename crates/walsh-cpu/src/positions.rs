//! The check of positions before anything relies on them.

use std::ops::Range;
use std::sync::Arc;

use walsh_core::{Accesses, Buffer, CacheKind, Error, KvCache, Result, Tensor};

use crate::lower::{Derived, Fault, Lowering, whole};
use crate::memory::View;
use crate::team::{Phase, Scratch};

/// Which tokens an op is about.
pub(crate) struct Tokens<'a> {
    /// The op's name, for errors.
    pub(crate) op: &'static str,
    /// `i32 [n]`.
    pub(crate) positions: &'a Tensor,
    /// `i32 [n]`; absent when all are of the first sequence.
    pub(crate) sequences: Option<&'a Tensor>,
    /// The most tokens of a sequence, where there is a bound.
    pub(crate) most: Option<u64>,
}

/// Adds, unless it is there already, the check that the positions of each sequence ascend by one from zero or above and
/// end below the capacity of a global cache. The phases that rely on it read the buffer that comes back, so that they
/// run later.
pub(crate) fn checked(
    tokens: &Tokens<'_>,
    cache: &KvCache,
    lowering: &mut Lowering,
) -> Result<Buffer> {
    let capacity = match cache.kind() {
        CacheKind::Global => Some(cache.capacity()),
        CacheKind::Ring => None,
    };
    let check = |fault| -> Result<Check> {
        Ok(Check {
            op: tokens.op,
            positions: View::of(tokens.positions)?,
            sequences: tokens.sequences.map(View::of).transpose()?,
            limits: Limits {
                capacity,
                sequences: cache.sequences(),
                most: tokens.most,
            },
            fault,
        })
    };
    let Some(sequences) = tokens.sequences else {
        // Validation has seen to the number of tokens of a single sequence.
        let what = Derived::CheckedPositions { capacity };
        return lowering.derived(what, &tokens.positions.span(), 4, |_, fault| check(fault));
    };
    let buffer = lowering.workspace(4)?;
    let accesses = Accesses {
        reads: vec![tokens.positions.span(), sequences.span()],
        writes: vec![whole(&buffer)],
    };
    let check = check(lowering.fault())?;
    lowering.phase(&accesses, check);
    lowering.release(buffer.clone());
    Ok(buffer)
}

struct Check {
    op: &'static str,
    positions: View<i32>,
    sequences: Option<View<i32>>,
    limits: Limits,
    fault: Arc<Fault>,
}

/// What positions and sequences stay within.
#[derive(Clone, Copy)]
struct Limits {
    /// Of positions, in a global cache.
    capacity: Option<u64>,
    /// Of sequences.
    sequences: u64,
    /// Of the tokens of a sequence.
    most: Option<u64>,
}

impl Phase for Check {
    fn items(&self) -> usize {
        1
    }

    fn cost(&self) -> u64 {
        self.positions.len() as u64
    }

    unsafe fn run(&self, _: Range<usize>, _: &mut Scratch) {
        // SAFETY: the list orders these reads after the positions' writes.
        let (positions, sequences) = unsafe {
            let sequences = self.sequences.as_ref().map(|sequences| sequences.all());
            (self.positions.all(), sequences)
        };
        let found = match sequences {
            None => wrong(positions, self.limits.capacity),
            Some(sequences) => wrong_sequences(positions, sequences, self.limits),
        };
        if let Some(message) = found {
            self.fault.report(Error::Value {
                op: self.op,
                message,
            });
        }
    }
}

/// What is wrong with the tokens of several sequences, if anything is.
fn wrong_sequences(positions: &[i32], sequences: &[i32], limits: Limits) -> Option<String> {
    let mut seen = vec![false; limits.sequences as usize];
    let mut start = 0;
    while start < sequences.len() {
        let sequence = sequences[start];
        let Some(seen) = usize::try_from(sequence).ok().and_then(|s| seen.get_mut(s)) else {
            return Some(format!(
                "sequence {sequence} is not one of the cache's {}",
                limits.sequences
            ));
        };
        if std::mem::replace(seen, true) {
            return Some(format!(
                "the tokens of sequence {sequence} do not follow each other"
            ));
        }
        let count = sequences[start..]
            .iter()
            .take_while(|s| **s == sequence)
            .count();
        if limits.most.is_some_and(|most| count as u64 > most) {
            return Some(format!(
                "sequence {sequence} has {count} tokens, more than the {} that the cache's overlay allows",
                limits.most.unwrap_or_default()
            ));
        }
        if let Some(found) = wrong(&positions[start..start + count], limits.capacity) {
            return Some(format!("sequence {sequence}: {found}"));
        }
        start += count;
    }
    None
}

/// What is wrong with positions, if anything is.
fn wrong(positions: &[i32], capacity: Option<u64>) -> Option<String> {
    let (first, last) = (*positions.first()?, *positions.last()?);
    if first < 0 {
        return Some(format!("position {first} is negative"));
    }
    let step = |pair: &&[i32]| i64::from(pair[1]) != i64::from(pair[0]) + 1;
    if let Some(pair) = positions.windows(2).find(step) {
        return Some(format!(
            "positions must ascend by one, but {} follows {}",
            pair[1], pair[0]
        ));
    }
    let capacity = capacity.filter(|capacity| last as u64 >= *capacity)?;
    Some(format!(
        "position {last} does not fit the cache, which holds {capacity} positions"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_must_ascend_and_fit() {
        assert_eq!(wrong(&[3, 4, 5], Some(6)), None);
        assert_eq!(wrong(&[i32::MAX - 1, i32::MAX], None), None);
        for (positions, capacity, part) in [
            (
                &[3, 4, 5][..],
                Some(5),
                "position 5 does not fit the cache, which holds 5",
            ),
            (&[-1, 0], None, "position -1 is negative"),
            (&[3, 5], None, "5 follows 3"),
            (&[i32::MAX, i32::MIN], None, "ascend by one"),
        ] {
            assert!(wrong(positions, capacity).unwrap().contains(part));
        }
    }

    #[test]
    fn sequences_must_be_known_and_together() {
        let limits = Limits {
            capacity: Some(9),
            sequences: 3,
            most: Some(2),
        };
        let wrong =
            |positions: &[i32], sequences: &[i32]| wrong_sequences(positions, sequences, limits);
        assert_eq!(wrong(&[3, 4, 0, 8], &[2, 2, 0, 1]), None);
        for (positions, sequences, part) in [
            (
                &[0, 1][..],
                &[0, 3][..],
                "sequence 3 is not one of the cache's 3",
            ),
            (&[0, 1], &[-1, 0], "sequence -1 is not"),
            (&[0, 1, 1], &[0, 1, 0], "sequence 0 do not follow"),
            (&[0, 5, 7], &[0, 1, 1], "sequence 1: positions must ascend"),
            (&[0, 9], &[0, 1], "sequence 1: position 9 does not fit"),
            (&[0, 1, 2], &[1, 1, 1], "has 3 tokens, more than the 2"),
        ] {
            let found = wrong(positions, sequences).expect("a complaint");
            assert!(found.contains(part), "{found}");
        }
    }
}
