//! AVX2 kernels.
pub(super) use super::portable::KERNELS;
