//! The check of positions before anything relies on them.

use std::ops::Range;
use std::sync::Arc;

use walsh_core::{Buffer, CacheKind, Error, KvCache, Result, Tensor};

use crate::lower::{Derived, Fault, Lowering};
use crate::memory::View;
use crate::team::{Phase, Scratch};

/// Adds, unless it is there already, the check that `positions` ascend by one from zero or above and end below the
/// capacity of a global cache. The phases that rely on it read the buffer that comes back, so that they run later.
pub(crate) fn checked(
    op: &'static str,
    positions: &Tensor,
    cache: &KvCache,
    lowering: &mut Lowering,
) -> Result<Buffer> {
    let capacity = match cache.kind() {
        CacheKind::Global => Some(cache.capacity()),
        CacheKind::Ring => None,
    };
    let what = Derived::CheckedPositions { capacity };
    lowering.derived(what, &positions.span(), 4, |_, fault| {
        Ok(Check {
            op,
            positions: View::of(positions)?,
            capacity,
            fault,
        })
    })
}

struct Check {
    op: &'static str,
    positions: View<i32>,
    capacity: Option<u64>,
    fault: Arc<Fault>,
}

impl Phase for Check {
    fn items(&self) -> usize {
        1
    }

    fn cost(&self) -> u64 {
        self.positions.len() as u64
    }

    unsafe fn run(&self, _: Range<usize>, _: &mut Scratch) {
        // SAFETY: the list orders this read after the positions' writes.
        let positions = unsafe { self.positions.all() };
        if let Some(message) = wrong(positions, self.capacity) {
            self.fault.report(Error::Value {
                op: self.op,
                message,
            });
        }
    }
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
}
