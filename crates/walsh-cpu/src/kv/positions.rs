//! The check of positions before anything relies on them.

use std::ops::Range;
use std::sync::Arc;

use walsh_core::{Accesses, Buffer, CacheKind, Error, KvCache, Result, Tensor, TokenLimits};

use crate::lowering::{Fault, Lowering};
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
            limits: TokenLimits {
                capacity,
                sequences: cache.sequences(),
                most: tokens.most,
            },
            fault,
        })
    };
    let Some(sequences) = tokens.sequences else {
        // Validation has seen to the number of tokens of a single sequence.
        let purpose = Checked { capacity };
        return lowering.derived(purpose, &tokens.positions.span(), 4, |_, fault| {
            check(fault)
        });
    };
    let buffer = lowering.workspace(4)?;
    let accesses = Accesses {
        reads: vec![tokens.positions.span(), sequences.span()],
        writes: vec![buffer.span()],
    };
    let check = check(lowering.fault())?;
    lowering.phase(&accesses, check);
    lowering.release(buffer.clone());
    Ok(buffer)
}

/// Proof that the source's positions ascend by one and, for a global cache, end below its capacity.
#[derive(PartialEq)]
struct Checked {
    capacity: Option<u64>,
}

struct Check {
    op: &'static str,
    positions: View<i32>,
    sequences: Option<View<i32>>,
    limits: TokenLimits,
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
        // SAFETY: the list orders these reads after the positions' writes.
        let (positions, sequences) = unsafe {
            let sequences = self.sequences.as_ref().map(|sequences| sequences.all());
            (self.positions.all(), sequences)
        };
        if let Some(message) = self.limits.complaint(positions, sequences) {
            self.fault.report(Error::Value {
                op: self.op,
                message,
            });
        }
    }
}
