use std::ops::Range;
use std::sync::Arc;

use walsh_core::formats::{DType, ggml};
use walsh_core::ops::EmbeddingRows;
use walsh_core::{Error, Result};

use crate::lower::{Fault, Lowering};
use crate::memory::View;
use crate::team::{Phase, Scratch};

struct Embedding {
    dtype: DType,
    table: View<u8>,
    rows: usize,
    row_bytes: usize,
    ids: View<i32>,
    scale: f32,
    width: usize,
    output: View<f32>,
    fault: Arc<Fault>,
}

pub(crate) fn lower(op: &EmbeddingRows, lowering: &mut Lowering) -> Result<()> {
    let rows = op.table.row_count() as usize;
    let phase = Embedding {
        dtype: op.table.dtype(),
        table: View::of(&op.table)?,
        rows,
        row_bytes: op.table.bytes() as usize / rows,
        ids: View::of(&op.ids)?,
        scale: op.scale,
        width: op.table.row_len() as usize,
        output: View::of(&op.output)?,
        fault: lowering.fault(),
    };
    lowering.phase(&walsh_core::ops::Operation::accesses(op), phase);
    Ok(())
}

impl Phase for Embedding {
    fn items(&self) -> usize {
        self.ids.len()
    }

    fn grain(&self) -> usize {
        (super::GRAIN / self.width).max(1)
    }

    fn cost(&self) -> u64 {
        (self.ids.len() * self.width) as u64
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        for item in items {
            // SAFETY: the list orders this read after the ids' writes.
            let id = unsafe { self.ids.slice(item..item + 1) }[0];
            let Some(row) = usize::try_from(id).ok().filter(|row| *row < self.rows) else {
                self.fault.report(Error::Value {
                    op: "EmbeddingRows",
                    message: format!("id {id} is outside the table of {} rows", self.rows),
                });
                return;
            };
            let start = row * self.row_bytes;
            // SAFETY: no phase of this group writes the table.
            let source = unsafe { self.table.slice(start..start + self.row_bytes) };
            // SAFETY: each item writes its own output row.
            let output = unsafe {
                self.output
                    .slice_mut(item * self.width..(item + 1) * self.width)
            };
            if let Err(error) = ggml::decode(self.dtype, source, output) {
                self.fault.report(error.into());
                return;
            }
            if self.scale != 1.0 {
                for value in output {
                    *value *= self.scale;
                }
            }
        }
    }
}
