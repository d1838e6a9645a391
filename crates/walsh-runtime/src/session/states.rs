//! What a model makes of each token of a text.

use super::Session;
use super::history::Call;
use super::place::StepKey;
use crate::Result;
use crate::model::graph::Reading;

impl Session {
    /// Appends tokens as [`prefill`](Self::prefill) does, and hands out for each, by its number and in order, the vector
    /// that its logits are products of: the residual stream behind the output norm, of
    /// [`width`](crate::ModelConfig::width) numbers.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), and what `each` returns: what was not read then is no part of the text.
    pub fn read_states(
        &mut self,
        tokens: &[i32],
        each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.read_held()?;
        self.check_tokens(self.position(), tokens)?;
        self.history.tokens.extend_from_slice(tokens);
        let read = self.read_waiting_states(each);
        self.or_drop(read)
    }

    fn read_waiting_states(
        &mut self,
        each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let width = self.model.config().width;
        let (watch, total) = (self.watch.clone(), self.history.waiting().len());
        let (mut vectors, mut rows) = (Vec::new(), 0);
        while !self.history.waiting().is_empty() {
            let waiting = self.history.waiting().len();
            watch.tell(total - waiting, total);
            watch.check()?;
            rows = waiting.min(self.options.chunk);
            self.advance(Call {
                reading: Reading::CodesAndFresh,
                rows,
            })?;
            self.run(StepKey::Vectors(rows))?;
            vectors.resize(rows * width, 0.0);
            let hidden = self.intermediates.hidden.rows(0..rows as u64)?;
            self.device.read_into(&hidden, &mut vectors)?;
            for (row, vector) in vectors.chunks_exact(width).enumerate() {
                each(total - waiting + row, vector)?;
            }
        }
        watch.tell(total, total);
        self.read_logits(rows - 1)
    }
}
