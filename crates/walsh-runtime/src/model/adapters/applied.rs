//! What lists read of the adapters of their rows.

use std::sync::Arc;

use walsh::formats::DType;
use walsh::ops::{ExpertMatMul, ExpertSum};
use walsh::{Device, Recorder, Tensor};

use super::rack::Stack;
use super::{Rack, Selection};
use crate::Result;
use crate::model::weights::Linear;

/// The adapters of each row, in tensors that lists read: one of them a pass.
///
/// Rows stand as slots of one token do in products with experts, each with an input of its own. So a row's products are those
/// of a single row, to the bit, whatever adapters the other rows have and however many they are.
#[derive(Clone)]
pub(crate) struct Applied {
    rack: Arc<Rack>,
    passes: Vec<Pass>,
    rows: u64,
    /// `f32 [rows · rank]`: A x, of the largest rank.
    low: Tensor,
    /// `f32 [rows · width]`: B (A x), of the most rows.
    delta: Tensor,
}

/// One adapter of each row.
#[derive(Clone)]
struct Pass {
    /// `i32 [rows]`: its number behind 0, which is for none.
    ids: Tensor,
    /// `f32 [rows]`: its scale.
    scales: Tensor,
}

impl Applied {
    /// For so many rows, and as many adapters of each as `passes`.
    pub(crate) fn new(
        device: &Device,
        rack: &Arc<Rack>,
        rows: usize,
        passes: usize,
    ) -> Result<Self> {
        let rows = rows as u64;
        let pass = || -> Result<Pass> {
            Ok(Pass {
                ids: device.zeros(DType::I32, &[rows])?,
                scales: device.zeros(DType::F32, &[rows])?,
            })
        };
        let [rank, width] = rack.largest;
        Ok(Self {
            passes: (0..passes).map(|_| pass()).collect::<Result<_>>()?,
            rows,
            low: device.zeros(DType::F32, &[rows * rank])?,
            delta: device.zeros(DType::F32, &[rows * width])?,
            rack: Arc::clone(rack),
        })
    }

    /// The first rows, with so many adapters of each; `None` where that is none.
    pub(crate) fn part(&self, rows: usize, passes: usize) -> Result<Option<Self>> {
        let rows = rows as u64;
        let pass = |pass: &Pass| -> Result<Pass> {
            Ok(Pass {
                ids: pass.ids.rows(0..rows)?,
                scales: pass.scales.rows(0..rows)?,
            })
        };
        let passes: Vec<Pass> = self
            .passes
            .iter()
            .take(passes)
            .map(pass)
            .collect::<Result<_>>()?;
        Ok((!passes.is_empty()).then(|| Self {
            passes,
            rows,
            ..self.clone()
        }))
    }

    /// The same with as many adapters of each row.
    pub(crate) fn of_rows(&self, rows: usize) -> Result<Option<Self>> {
        self.part(rows, self.passes.len())
    }

    /// Says which adapters the first rows have: runs of rows with what they take. The passes that any takes, at least, are
    /// written.
    pub(crate) fn write(&self, device: &Device, runs: &[(usize, &Selection)]) -> Result<()> {
        let most = runs.iter().map(|(_, chosen)| chosen.len()).max();
        for (index, pass) in self.passes.iter().enumerate().take(most.unwrap_or(0)) {
            let (mut ids, mut scales) = (Vec::new(), Vec::new());
            for (rows, chosen) in runs {
                let (id, scale) = match chosen.chosen().nth(index) {
                    Some((adapter, scale)) => (adapter as i32 + 1, scale),
                    None => (0, 0.0),
                };
                ids.extend(std::iter::repeat_n(id, *rows));
                scales.extend(std::iter::repeat_n(scale, *rows));
            }
            let rows = 0..ids.len() as u64;
            device.write(&pass.ids.rows(rows.clone())?, &ids)?;
            device.write(&pass.scales.rows(rows)?, &scales)?;
        }
        Ok(())
    }

    /// Adds to the product of rows, which is in `output`, what their adapters have for it.
    pub(crate) fn record(
        &self,
        list: &mut Recorder,
        linear: &Linear,
        [input, output]: [&Tensor; 2],
    ) -> Result<()> {
        let Some(Stack { a, b }) = self.rack.stack(linear) else {
            return Ok(());
        };
        let rows = self.rows;
        let [rank, columns, width] = [a.shape()[1], a.shape()[2], b.shape()[1]];
        let low = self.low.rows(0..rows * rank)?.reshape(&[1, rows, rank])?;
        let delta = self.delta.rows(0..rows * width)?;
        for Pass { ids, scales } in &self.passes {
            let ids = ids.reshape(&[1, rows])?;
            list.push(ExpertMatMul {
                weight: a.clone(),
                ids: ids.clone(),
                input: input.reshape(&[1, rows, columns])?,
                bias: None,
                output: low.clone(),
            })?;
            list.push(ExpertMatMul {
                weight: b.clone(),
                ids,
                input: low.clone(),
                bias: None,
                output: delta.reshape(&[1, rows, width])?,
            })?;
            let output = output.reshape(&[rows, width])?;
            list.push(ExpertSum {
                input: delta.reshape(&[rows, 1, width])?,
                weights: scales.reshape(&[rows, 1])?,
                onto: Some(output.clone()),
                output,
            })?;
        }
        Ok(())
    }
}
