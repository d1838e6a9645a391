//! The CPU backend: a worker team and kernels for AVX2, AVX-512, NEON and portable Rust.

pub mod isa;
pub mod matmul;
pub mod team;
