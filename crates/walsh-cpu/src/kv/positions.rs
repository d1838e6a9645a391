//! The check of positions, sequences and pages before anything relies on them.

use std::ops::Range;
use std::sync::Arc;

use walsh_core::{Buffer, Error, Result, Tensor, TokenLimits};

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
    /// What they keep to.
    pub(crate) limits: TokenLimits,
}

/// Adds, unless it is there already, the check that tokens keep to their limits, and the page table with them where the
/// cache has one. The phases that rely on it read the
/// buffer that comes back, so that they run later.
pub(crate) fn checked(
    tokens: &Tokens<'_>,
    table: Option<&Tensor>,
    lowering: &mut Lowering,
) -> Result<Buffer> {
    let sources = [Some(tokens.positions), tokens.sequences, table];
    let sources: Vec<_> = sources.into_iter().flatten().map(Tensor::span).collect();
    let checked = Checked {
        limits: tokens.limits,
        has_sequences: tokens.sequences.is_some(),
    };
    lowering.derived(checked, &sources, 4, |_, fault| {
        Ok(Check {
            op: tokens.op,
            positions: View::of(tokens.positions)?,
            sequences: tokens.sequences.map(View::of).transpose()?,
            table: table.map(View::of).transpose()?,
            limits: tokens.limits,
            fault,
        })
    })
}

/// Proof that tokens keep to these limits.
#[derive(PartialEq)]
struct Checked {
    limits: TokenLimits,
    /// Whether the second source is the tokens' sequences.
    has_sequences: bool,
}

struct Check {
    op: &'static str,
    positions: View<i32>,
    sequences: Option<View<i32>>,
    table: Option<View<i32>>,
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
        // SAFETY: the list orders these reads after the writes of what is read.
        let (positions, sequences, table) = unsafe {
            (
                self.positions.all(),
                self.sequences.as_ref().map(|sequences| sequences.all()),
                self.table.as_ref().map(|table| table.all()),
            )
        };
        if let Some(message) = self.limits.complaint(positions, sequences, table) {
            self.fault.report(Error::Value {
                op: self.op,
                message,
            });
        }
    }
}
