//! Matrix products with weights of any storage type, read as they are stored.
//!
//! `output[m, n] = Σ_k input[m, k] · weight[n, k]`. For block-quantised weights the input is first quantised to 8 bits
//! ([`InputLayout`]), once for all products that share it; then the products run on integers. Where activations are
//! to stay as they are ([`Activations`](crate::Activations)), blocks are decoded to floats instead, exactly. With few
//! rows of input *dot* kernels stream the weight at the speed of memory; with many rows *tiled* kernels decode a panel
//! of the weight, into scratch or (with AVX-512) into registers, and sweep it with tiles of rows. A [`ProductPlan`] chooses between them and divides the
//! work.

mod blocks;
mod coarse;
mod contract;
mod experts;
mod float;
mod input;
mod kernel;
mod layout;
mod op;
mod pack;
mod plan;
mod portable;
mod registry;
mod rows;
mod sweep;
mod tile;
mod top_k;

#[cfg(target_arch = "x86_64")]
mod fill;
#[cfg(target_arch = "x86_64")]
mod panels;
#[cfg(target_arch = "x86_64")]
mod stream;
#[cfg(target_arch = "x86_64")]
mod wide;

#[cfg(test)]
mod testing;

pub(crate) use coarse::{coarse_copy, coarsens};
pub(crate) use experts::lower_experts;
pub(crate) use op::lower;
pub use pack::{PackWeights, UnknownPacking};
pub(crate) use pack::{Repacking, pack};
pub(crate) use top_k::lower_top_k;
