use std::fmt;

use walsh_formats::DType;

use super::check::Check;
use super::cost::{Cost, bytes};
use super::operation::Operation;
use crate::Result;
use crate::hazard::Accesses;
use crate::tensor::Tensor;

/// `output[i] = scale · table[ids[i]]`, decoded to `f32`.
///
/// An id outside the table is an [`Error::Value`](crate::Error::Value) when the
/// list runs, before anything is written.
#[derive(Debug, Clone)]
pub struct EmbeddingRows {
    /// `[vocabulary, width]` of any storage type.
    pub table: Tensor,
    /// `i32 [n]`: the rows to fetch.
    pub ids: Tensor,
    /// What each number is multiplied by.
    pub scale: f32,
    /// `f32 [n, width]`.
    pub output: Tensor,
}

impl Operation for EmbeddingRows {
    const NAME: &'static str = "EmbeddingRows";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check.rank("table", &self.table, 2)?;
        check.size("table", &self.table)?;
        if !self.table.dtype().is_real() {
            return check.fail("table", "of a floating-point or block type", &self.table);
        }
        check.dtype("ids", &self.ids, DType::I32)?;
        check.rank("ids", &self.ids, 1)?;
        check.size("ids", &self.ids)?;
        check.finite("scale", self.scale)?;
        let shape = [self.ids.elements(), self.table.row_len()];
        check.f32("output", &self.output, &shape)?;
        check.disjoint("output", &self.output, &[&self.table, &self.ids])
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: vec![self.table.span(), self.ids.span()],
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.table, self.output)
    }

    /// Of the table, the rows that are fetched.
    fn cost(&self, _: u64) -> Cost {
        let row = self.table.bytes().checked_div(self.table.row_count());
        Cost {
            bytes: bytes([&self.ids, &self.output]) + self.ids.elements() * row.unwrap_or(0),
            operations: 0,
        }
    }
}
