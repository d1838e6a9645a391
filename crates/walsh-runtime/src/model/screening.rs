//! When a model's screen is made, and of what.

use std::sync::{Mutex, OnceLock, PoisonError};

use walsh::Screen;

use super::Model;
use crate::Result;

/// How many rows of the output's input a screen is made of, at most.
const SAMPLE: usize = 64;

/// What becomes a model's [`Screen`].
#[derive(Default)]
pub(super) struct Screening {
    made: OnceLock<Option<Screen>>,
    seen: Mutex<Seen>,
}

/// What came before the screen.
#[derive(Default)]
struct Seen {
    /// The tokens that it would have found.
    tokens: usize,
    /// Rows of what logits are products of.
    inputs: Vec<f32>,
}

impl Model {
    /// The bytes of the coarse copy with which the device finds the likeliest tokens,
    /// in memory beside the file: made when a few dozen of them were asked for, 0
    /// before, and 0 where the device computes all logits for that. See
    /// [`Device::screen`](walsh::Device::screen).
    #[must_use]
    pub fn screen_bytes(&self) -> u64 {
        self.screen().map_or(0, Screen::bytes)
    }

    /// What finds the likeliest tokens, if the device has it by now.
    pub(crate) fn screen(&self) -> Option<&Screen> {
        self.0.screening.made.get().and_then(Option::as_ref)
    }

    /// Notes that a screen would find the next token, and makes it for the token with
    /// this number. `inputs` returns rows of what logits are products of, at most so many.
    ///
    /// # Errors
    /// When the device fails, or `inputs`.
    pub(crate) fn count_for_screen(
        &self,
        number: usize,
        inputs: impl FnOnce(usize) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let Screening { made, seen } = &self.0.screening;
        if !self.0.weights.screened || made.get().is_some() {
            return Ok(());
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let weight = &self.0.weights.output.weight;
        let width = weight.shape()[1] as usize;
        let missing = SAMPLE.saturating_sub(seen.inputs.len() / width);
        if missing > 0 {
            seen.inputs.extend(inputs(missing)?);
        }
        seen.tokens += 1;
        let rows = seen.inputs.len() / width;
        // Another session may have made it while this one waited.
        if seen.tokens < number || rows == 0 || made.get().is_some() {
            return Ok(());
        }
        let device = &self.0.device;
        let sample = device.tensor(&[rows as u64, width as u64], &seen.inputs)?;
        let screen = device.screen(weight, &sample)?;
        seen.inputs = Vec::new();
        made.get_or_init(|| screen);
        Ok(())
    }
}
