use std::ops::Range;
use std::sync::Arc;

use walsh_core::formats::{DType, ggml};
use walsh_core::ops::{EmbeddingRows, Operation};
use walsh_core::{Error, Result};

use crate::lowering::{Fault, Lowering};
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
    lowering.phase(&op.accesses(), phase);
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
        // SAFETY: the list orders this read after the ids' writes.
        let ids = unsafe { self.ids.all() };
        // Every worker looks at all ids, so that none writes when one is wrong.
        let outside = |id: &&i32| usize::try_from(**id).map_or(true, |row| row >= self.rows);
        if let Some(id) = ids.iter().find(outside) {
            self.fault.report(Error::Value {
                op: EmbeddingRows::NAME,
                message: format!("id {id} is outside the table of {} rows", self.rows),
            });
            return;
        }
        for item in items {
            let row = ids[item] as usize;
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
