use crate::hazard::Accesses;
use crate::tensor::Tensor;

/// What an op cannot do with less of: the yardstick of its speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// The bytes that pass between memory and processor when every input is read
    /// once and every output written once.
    pub bytes: u64,
    /// The multiplications and additions of matrix products and attention; 0 for ops
    /// that have none.
    pub operations: u64,
}

impl Cost {
    /// All that an op reads and writes, and no matrix product.
    pub(super) fn of_bytes(accesses: &Accesses) -> Self {
        let spans = accesses.reads.iter().chain(&accesses.writes);
        Self {
            bytes: spans.map(|span| span.bytes).sum(),
            operations: 0,
        }
    }
}

pub(super) fn bytes<'t>(tensors: impl IntoIterator<Item = &'t Tensor>) -> u64 {
    tensors.into_iter().map(Tensor::bytes).sum()
}
