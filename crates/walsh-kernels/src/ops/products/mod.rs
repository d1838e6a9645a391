//! Products of a few rows of input with what stands before and behind them, as launches of CUDA's own.

mod before;
mod few;
mod joined;
mod packed;
mod row;
mod wgmma;

use walsh_core::ops::MatMul;
use walsh_core::{Result, Tensor};

pub(crate) use self::before::together;
pub(crate) use self::joined::{MOST_PARTS, Products, Then, is_readable, most_types};
use crate::kernel::Kernel;
use crate::lower::{Limits, Lowering};

pub(crate) const KERNELS: &[&Kernel] = &[
    &row::MATMUL_ROW,
    &few::ROUND_ROWS,
    &few::MATMUL_FEW,
    &wgmma::SLAB_ROWS,
    &wgmma::MATMUL_WGMMA,
];

/// How a launch is cut.
pub(crate) enum Shape {
    /// Of one row of input.
    Row(row::Shape),
    /// Of a few.
    Few(few::Shape),
    /// Of many.
    Wgmma(wgmma::Shape),
}

impl Products {
    /// Whether a product, alone or with others, is what a device's kernel for joined neighbours takes.
    pub(crate) fn join(op: &MatMul, limits: &Limits) -> bool {
        let alone = Self {
            norm: None,
            products: vec![op.clone()],
            then: Then::Nothing,
        };
        limits.joins && alone.shape(limits).is_some()
    }

    /// Whether a device's kernel takes it: how its launch is cut then.
    pub(crate) fn shape(&self, limits: &Limits) -> Option<Shape> {
        let aligned = |tensor: &Tensor| tensor.offset().is_multiple_of(16);
        let norms = self.norm.iter();
        let mut aligned_norms =
            norms.map(|norm| norm.weight.as_ref().is_some_and(aligned) && aligned(&norm.output));
        let fits = limits.fragment_bytes > 0
            && limits.activations == walsh_core::Activations::Int8
            && (1..=MOST_PARTS).contains(&self.products.len())
            && self.types().len() <= most_types(self.input())
            && self.products.iter().all(|p| is_readable(&p.weight))
            && aligned(self.input())
            && aligned_norms.all(|aligned| aligned);
        match (fits, self.input().row_count()) {
            (false, _) => None,
            (true, 1) => row::shape(self, limits).map(Shape::Row),
            (true, _) => {
                let many = wgmma::shape(self, limits).map(Shape::Wgmma);
                many.or_else(|| few::shape(self, limits).map(Shape::Few))
            }
        }
    }

    /// Adds the launch.
    pub(crate) fn lower(&self, shape: &Shape, lowering: &mut Lowering<'_>) -> Result<()> {
        match shape {
            Shape::Row(shape) => row::lower(self, shape, lowering),
            Shape::Few(shape) => few::lower(self, shape, lowering),
            Shape::Wgmma(shape) => wgmma::lower(self, shape, lowering),
        }
    }
}
