use std::ops::Range;
use std::sync::Arc;

use walsh_core::ops::{ExpertRoute, ExpertSum, Operation, Scoring};
use walsh_core::{Error, Result};

use super::select::largest_of;
use crate::lowering::{Fault, Lowering};
use crate::memory::View;
use crate::simd::{Token, versions};
use crate::team::{Phase, Scratch};

/// Chooses the experts of tokens.
struct Route {
    experts: usize,
    used: usize,
    scoring: Scoring,
    scale: f32,
    logits: View<f32>,
    bias: Option<View<f32>>,
    ids: View<i32>,
    weights: View<f32>,
    fault: Arc<Fault>,
}

pub(crate) fn lower_route(op: &ExpertRoute, lowering: &mut Lowering) -> Result<()> {
    let phase = Route {
        experts: op.logits.row_len() as usize,
        used: op.ids.row_len() as usize,
        scoring: op.scoring,
        scale: op.scale,
        logits: View::of(&op.logits)?,
        bias: op.bias.as_ref().map(View::of).transpose()?,
        ids: View::of(&op.ids)?,
        weights: View::of(&op.weights)?,
        fault: lowering.fault(),
    };
    lowering.phase(&op.accesses(), phase);
    Ok(())
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl Route {
    /// The weights of chosen experts, before they are scaled.
    fn weigh(&self, logits: &[f32], ids: &[i32], weights: &mut [f32]) {
        let chosen = ids.iter().map(|id| logits[*id as usize]);
        match self.scoring {
            Scoring::Softmax | Scoring::SoftmaxOfChosen => {
                let most = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
                for (weight, logit) in weights.iter_mut().zip(chosen) {
                    *weight = (logit - most).exp();
                }
                let sum: f32 = match self.scoring {
                    Scoring::Softmax => logits.iter().map(|logit| (logit - most).exp()).sum(),
                    _ => weights.iter().sum(),
                };
                weights.iter_mut().for_each(|weight| *weight /= sum);
            }
            Scoring::Sigmoid { normalised } => {
                for (weight, logit) in weights.iter_mut().zip(chosen) {
                    *weight = sigmoid(logit);
                }
                if normalised {
                    let sum = weights.iter().sum::<f32>() + 1e-20;
                    weights.iter_mut().for_each(|weight| *weight /= sum);
                }
            }
        }
    }
}

impl Phase for Route {
    fn items(&self) -> usize {
        self.logits.len() / self.experts
    }

    fn cost(&self) -> u64 {
        2 * self.logits.len() as u64
    }

    fn scratch_bytes(&self) -> usize {
        self.experts * size_of::<f32>()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        for token in items {
            let range = token * self.used..(token + 1) * self.used;
            // SAFETY: the list orders these reads after the writes, and each item writes its own rows.
            let (logits, bias, ids, weights) = unsafe {
                let first = token * self.experts;
                (
                    self.logits.slice(first..first + self.experts),
                    self.bias.as_ref().map(|bias| bias.all()),
                    self.ids.slice_mut(range.clone()),
                    self.weights.slice_mut(range),
                )
            };
            let scores = match bias {
                None => logits,
                Some(bias) => {
                    let scores = scratch.floats(self.experts);
                    for ((score, logit), bias) in scores.iter_mut().zip(logits).zip(bias) {
                        *score = sigmoid(*logit) + bias;
                    }
                    scores
                }
            };
            let finite = |numbers: &[f32]| numbers.iter().all(|number| number.is_finite());
            let found = match finite(logits) && finite(scores) {
                true => largest_of(scores, self.used).ok(),
                false => None,
            };
            let Some(found) = found else {
                return self.fault.report(Error::Value {
                    op: ExpertRoute::NAME,
                    message: format!(
                        "row {token} of the logits or the bias holds a number that is not finite"
                    ),
                });
            };
            for (id, candidate) in ids.iter_mut().zip(found) {
                *id = candidate.index as i32;
            }
            self.weigh(logits, ids, weights);
            weights.iter_mut().for_each(|weight| *weight *= self.scale);
        }
    }
}

/// Adds up what experts give.
struct Sum {
    set: Token,
    slots: usize,
    width: usize,
    input: View<f32>,
    weights: View<f32>,
    onto: Option<View<f32>>,
    output: View<f32>,
}

/// The numbers of one work item.
const PIECE: usize = 512;

pub(crate) fn lower_sum(op: &ExpertSum, lowering: &mut Lowering) -> Result<()> {
    let phase = Sum {
        set: lowering.target().token(),
        slots: op.weights.row_len() as usize,
        width: op.input.row_len() as usize,
        input: View::of(&op.input)?,
        weights: View::of(&op.weights)?,
        onto: op.onto.as_ref().map(View::of).transpose()?,
        output: View::of(&op.output)?,
    };
    lowering.phase(&op.accesses(), phase);
    Ok(())
}

versions! {
    /// Adds a multiple of some numbers to others.
    fn add_multiple(sums: &mut [f32], factor: f32, numbers: &[f32]) {
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += factor * number;
        }
    }
}

impl Phase for Sum {
    fn items(&self) -> usize {
        self.output.len() / self.width * self.width.div_ceil(PIECE)
    }

    fn grain(&self) -> usize {
        (super::GRAIN / (self.slots * PIECE.min(self.width))).max(1)
    }

    fn cost(&self) -> u64 {
        self.input.len() as u64 / 8
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        let pieces = self.width.div_ceil(PIECE);
        for item in items {
            let (token, first) = (item / pieces, item % pieces * PIECE);
            let columns = first..(first + PIECE).min(self.width);
            let of_row =
                |row: usize| row * self.width + columns.start..row * self.width + columns.end;
            // SAFETY: the list orders these reads after the writes, and each item writes its own numbers; what they are added
            // to is those or apart from them.
            unsafe {
                let output = self.output.slice_mut(of_row(token));
                match &self.onto {
                    None => output.fill(0.0),
                    Some(onto) if onto.base() == self.output.base() => {}
                    Some(onto) => output.copy_from_slice(onto.slice(of_row(token))),
                }
                for slot in token * self.slots..(token + 1) * self.slots {
                    let factor = self.weights.slice(slot..slot + 1)[0];
                    add_multiple(self.set, output, factor, self.input.slice(of_row(slot)));
                }
            }
        }
    }
}
