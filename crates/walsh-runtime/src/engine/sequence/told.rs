//! What is told of a prompt itself: log-probabilities of its tokens, and a vector of it.

use std::ops::Range;

use super::Sequence;
use crate::engine::logprobs::LogSoftmax;
use crate::engine::request::{Event, Logprobs};
use crate::pooling::Pooling;
use crate::{Error, Result};

impl Sequence {
    /// Whether something is told of each of the prompt's tokens, so that it is read from its beginning.
    pub(in crate::engine) fn is_read_whole(&self) -> bool {
        self.request.prompt_logprobs.is_some() || self.request.pooling == Some(Pooling::Mean)
    }

    /// The rows of the prompt, of those that were just read, whose logits are wanted for what is told of the prompt.
    pub(in crate::engine) fn told_logits(&self, positions: &Range<usize>) -> Range<usize> {
        let end = positions.end.min(self.request.prompt.len() - 1);
        match self.request.prompt_logprobs {
            Some(_) => positions.start..end.max(positions.start),
            None => positions.start..positions.start,
        }
    }

    /// The same of rows whose vectors are wanted.
    pub(in crate::engine) fn told_vectors(&self, positions: &Range<usize>) -> Range<usize> {
        match self.request.pooling {
            Some(Pooling::Mean) => positions.clone(),
            Some(Pooling::Last) if positions.end == self.request.prompt.len() => {
                positions.end - 1..positions.end
            }
            _ => positions.start..positions.start,
        }
    }

    /// Takes the logits behind a token of the prompt.
    pub(in crate::engine) fn tell_logits(&mut self, position: usize, logits: &[f32]) {
        let known = LogSoftmax::of(logits, self.request.prompt_logprobs.unwrap_or(0));
        let token = self.tokens[position + 1];
        let token = logits[token as usize] - known.log_sum;
        let top = known.top;
        self.prompt_logprobs.push(Logprobs { token, top });
    }

    /// Takes the vector behind a token of the prompt.
    pub(in crate::engine) fn tell_vector(&mut self, vector: &[f32]) {
        self.pooled.resize(vector.len(), 0.0);
        for (sum, x) in self.pooled.iter_mut().zip(vector) {
            *sum += f64::from(*x);
        }
    }

    /// Says what was asked of the prompt, which was read to its end, if it was not said.
    ///
    /// # Errors
    /// When there are numbers among it that are none.
    pub(in crate::engine) fn say_prompt(&mut self) -> Result<()> {
        let wanted = self.request.prompt_logprobs.is_some() || self.request.pooling.is_some();
        if !wanted || std::mem::replace(&mut self.is_told, true) {
            return Ok(());
        }
        let count = match self.request.pooling {
            Some(Pooling::Mean) => self.request.prompt.len(),
            _ => 1,
        };
        let mean = |sum: &f64| (sum / count as f64) as f32;
        let embedding: Vec<f32> = self.pooled.iter().map(mean).collect();
        let logprobs = self.prompt_logprobs.iter().map(|known| known.token);
        if embedding.iter().copied().chain(logprobs).any(f32::is_nan) {
            let what = "what it makes of the prompt is not a number".into();
            return Err(Error::Logits { what });
        }
        self.outlet.say(Event::Prompt {
            logprobs: (self.request.prompt_logprobs)
                .map(|_| std::mem::take(&mut self.prompt_logprobs)),
            embedding: self.request.pooling.map(|_| embedding),
        });
        Ok(())
    }
}
