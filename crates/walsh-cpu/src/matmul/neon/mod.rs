//! NEON kernels.
pub(super) use super::portable::KERNELS;
