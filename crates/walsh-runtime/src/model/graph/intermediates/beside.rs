//! Where experts leave what they give beside a feed-forward part.

use walsh::formats::DType;
use walsh::{Device, Tensor};

use super::hybrid::Pairs;
use crate::Result;
use crate::model::config::ModelConfig;

/// What they need beside a mixture's.
#[derive(Debug)]
pub(in super::super) struct BesideExperts {
    /// `[rows, width]`: what the router takes, then what experts do, then what they give.
    pub(in super::super) hidden: Tensor,
    /// `[rows, used, inner]`.
    pub(in super::super) gate: Tensor,
    pub(in super::super) up: Tensor,
    /// Both, where one product has them.
    pub(in super::super) both: Pairs,
    /// `[rows, used, 1]`: experts' weights before each has its scale.
    pub(in super::super) unscaled: Tensor,
}

impl BesideExperts {
    pub(in super::super) fn new(
        device: &Device,
        config: &ModelConfig,
        rows: usize,
    ) -> Result<Option<Self>> {
        let experts = config.experts.and_then(|all| Some((all.used, all.beside?)));
        let Some((used, inner)) = experts else {
            return Ok(None);
        };
        let floats = |shape: &[usize]| {
            let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
            device.zeros(DType::F32, &shape)
        };
        Ok(Some(Self {
            hidden: floats(&[rows, config.width])?,
            gate: floats(&[rows, used, inner])?,
            up: floats(&[rows, used, inner])?,
            both: Pairs::new(device, [rows, used, inner])?,
            unscaled: floats(&[rows, used, 1])?,
        }))
    }

    pub(in super::super) fn rows(&self, rows: usize) -> Result<Self> {
        let first = |tensor: &Tensor| tensor.rows(0..rows as u64);
        Ok(Self {
            hidden: first(&self.hidden)?,
            gate: first(&self.gate)?,
            up: first(&self.up)?,
            both: self.both.rows(rows)?,
            unscaled: first(&self.unscaled)?,
        })
    }
}
