//! The kernels of each instruction set.

use std::ops::Range;

use super::activations::{ActivationLayout, Arrangement};
use super::pack::Transposition;
use super::plan::{Job, ProductShape};
use crate::isa::Isa;

/// Computes a work item.
///
/// # Safety
/// The kernel's instruction set is available; the job's operands are good for its shape; scratch is as the plan asks.
pub(super) type Kernel = unsafe fn(&Job<'_>, &mut [u8]);

/// Prepares work items of an input: [`ActivationLayout::prepare`].
///
/// # Safety
/// As there.
pub(super) type Preparation = unsafe fn(&ActivationLayout, Range<usize>, *const f32, *mut u8);

/// The kernels of an instruction set.
#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) isa: Isa,
    /// Up to this many rows of quantised activations the dot kernels take all of them at once; above, tiles are used.
    pub(super) dot_rows: usize,
    /// The same for rows of floats.
    pub(super) float_dot_rows: usize,
    /// The most rows of a tile of quantised activations, in products of a shape.
    pub(super) tile_rows: fn(ProductShape) -> usize,
    /// The most rows of a tile of floats.
    pub(super) float_tile_rows: usize,
    /// How weights are packed, where the kernels of quantised activations take packed weights too, as the shape says.
    pub(super) packs: Option<Transposition>,
    /// The weight rows of a panel.
    pub(super) panel_rows: usize,
    /// Brings activations into their layout.
    pub(super) prepare: Preparation,
    /// The kernel for few rows, quantised.
    pub(super) dot: Choice,
    /// The kernel for many rows, quantised.
    pub(super) tile: Choice,
    /// The kernel for few rows of floats.
    pub(super) float_dot: Choice,
    /// The kernel for many rows of floats.
    pub(super) float_tile: Choice,
}

/// Picks the kernel for a weight's type and the number of rows. Kernels of quantised activations exist for
/// block-quantised weights alone.
pub(super) type Choice = fn(ProductShape) -> Kernel;

impl Kernels {
    /// The kernels of an instruction set; those of plain Rust when the target has none of it.
    pub(super) fn of(isa: Isa) -> &'static Kernels {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &super::avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => super::avx2::vnni(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &super::avx2::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => &super::neon::PLAIN,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => &super::neon::DOTPROD,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => &super::neon::I8MM,
            _ => &super::portable::KERNELS,
        }
    }

    /// The kernels that read activations in a layout.
    pub(super) fn of_layout(&self, layout: &ActivationLayout) -> Choice {
        match layout.arrangement {
            Arrangement::Plain => self.float_dot,
            Arrangement::Rows => self.dot,
            Arrangement::Tiles(_) => self.tile,
            Arrangement::FloatTiles(_) => self.float_tile,
        }
    }
}
