//! Matrix products with weights of any storage type.

use walsh_core::ops::MatMul;
use walsh_core::{Error, Plan, Result};

use crate::lower::{Lowering, Target};

fn missing<T>() -> Result<T> {
    Err(Error::Unsupported {
        op: "MatMul",
        backend: "cpu",
        why: "not there yet".into(),
    })
}

pub(crate) fn plan(_: &MatMul, _: Target) -> Result<Plan> {
    missing()
}

pub(crate) fn lower(_: &MatMul, _: &mut Lowering) -> Result<()> {
    missing()
}
