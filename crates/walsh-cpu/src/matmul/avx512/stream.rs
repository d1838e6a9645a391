//! The streaming kernels.

use super::tile::Avx512;
use super::vectors::Stored;
use crate::matmul::columns::Columns;
use crate::matmul::contract::Job;
pub(super) use crate::matmul::stream::ROWS;
use crate::matmul::stream::{self, Packed};

/// # Safety
/// As for [`Kernel`](crate::matmul::contract::Kernel).
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn product<B: Columns>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { stream::product::<Avx512, Stored, B>(job, scratch) }
}

/// # Safety
/// As for [`Kernel`](crate::matmul::contract::Kernel).
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn packed_product<B: Columns>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { stream::product::<Avx512, Packed, B>(job, scratch) }
}

/// # Safety
/// As for [`Kernel`](crate::matmul::contract::Kernel).
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn packed_row<B: Columns>(job: &Job, _: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { stream::packed_row::<Avx512, B>(job) }
}
