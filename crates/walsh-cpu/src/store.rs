//! Encoding keys and values into a KV cache.

use walsh_core::ops::KvStore;
use walsh_core::{Error, Plan, Result};

use crate::lower::{Lowering, Target};

fn missing<T>() -> Result<T> {
    Err(Error::Unsupported {
        op: "KvStore",
        backend: "cpu",
        why: "not there yet".into(),
    })
}

pub(crate) fn plan(_: &KvStore, _: Target) -> Result<Plan> {
    missing()
}

pub(crate) fn lower(_: &KvStore, _: &mut Lowering) -> Result<()> {
    missing()
}
