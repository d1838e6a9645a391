//! Attention over the codes of a KV cache.

use walsh_core::ops::{AttentionDecode, AttentionPrefill};
use walsh_core::{Error, Plan, Result};

use crate::lower::{Lowering, Target};

fn missing<T>(op: &'static str) -> Result<T> {
    Err(Error::Unsupported {
        op,
        backend: "cpu",
        why: "not there yet".into(),
    })
}

pub(crate) fn plan_decode(_: &AttentionDecode, _: Target) -> Result<Plan> {
    missing("AttentionDecode")
}

pub(crate) fn plan_prefill(_: &AttentionPrefill, _: Target) -> Result<Plan> {
    missing("AttentionPrefill")
}

pub(crate) fn lower_decode(_: &AttentionDecode, _: &mut Lowering) -> Result<()> {
    missing("AttentionDecode")
}

pub(crate) fn lower_prefill(_: &AttentionPrefill, _: &mut Lowering) -> Result<()> {
    missing("AttentionPrefill")
}
