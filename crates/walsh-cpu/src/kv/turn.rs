//! Rotating vectors, there and back.

use std::ops::Range;

use walsh_core::Result;
use walsh_core::ops::{Direction, Operation, Rotate};
use walsh_formats::rotation::Rotation;

use crate::kv::rotate;
use crate::kv::vectors::Vectors;
use crate::lowering::Lowering;
use crate::simd::{Token, entries};
use crate::team::{Phase, Scratch};

struct Turn {
    set: Token,
    rotation: Rotation,
    direction: Direction,
    vectors: usize,
    input: Vectors,
    output: Vectors,
}

entries! {
    /// `r = H·(s∘x)/√D`.
    fn forward(rotation: &Rotation, values: &mut [f32]) = rotate::forward
}

pub(crate) fn lower(op: &Rotate, lowering: &mut Lowering) -> Result<()> {
    let turn = Turn {
        set: lowering.target().token(),
        rotation: op.rotation()?,
        direction: op.direction,
        vectors: (op.input.elements() / op.input.row_len()) as usize,
        input: Vectors::of(&op.input)?,
        output: Vectors::of(&op.output)?,
    };
    lowering.phase(&op.accesses(), turn);
    Ok(())
}

impl Phase for Turn {
    fn items(&self) -> usize {
        self.vectors
    }

    fn grain(&self) -> usize {
        16
    }

    fn cost(&self) -> u64 {
        (self.vectors * (self.rotation.head_dim() + 50)) as u64 / 2
    }

    fn scratch_bytes(&self) -> usize {
        self.rotation.head_dim() * size_of::<f32>()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let row = scratch.floats(self.rotation.head_dim());
        for item in items {
            // SAFETY: each item touches its own vectors alone, of tensors that were found to be the same memory or apart, and
            // the list orders the accesses.
            unsafe {
                self.input.get(item, row);
                match self.direction {
                    Direction::Forward => forward(self.set, &self.rotation, row),
                    Direction::Inverse => rotate::inverse_with(self.set, &self.rotation, row),
                }
                self.output.put(item, row);
            }
        }
    }
}
