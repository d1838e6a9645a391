//! When a model's screen is made, and of what.

use std::sync::{Mutex, OnceLock, PoisonError};

use walsh::{Screen, ScreenSample};

use super::Model;
use crate::Result;

/// What becomes a model's [`Screen`].
#[derive(Default)]
pub(super) struct Screening {
    made: OnceLock<Option<Screen>>,
    /// The searches that it would have done.
    seen: Mutex<ScreenSample>,
}

impl Model {
    /// The bytes of the coarse copy with which the device finds the likeliest tokens,
    /// in memory beside the file: made when they were asked for behind a few tokens, 0
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

    /// Notes a search that a screen would have done, as `search` adds it, and makes the
    /// screen when there are so many.
    ///
    /// # Errors
    /// When the device fails, or `search`.
    pub(crate) fn gather_for_screen(
        &self,
        count: usize,
        search: impl FnOnce(&mut ScreenSample) -> Result<()>,
    ) -> Result<()> {
        let Screening { made, seen } = &self.0.screening;
        if !self.0.weights.screened || made.get().is_some() {
            return Ok(());
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        search(&mut seen)?;
        // Another session may have made it while this one waited.
        if seen.last.len() < count || made.get().is_some() {
            return Ok(());
        }
        let weight = &self.0.weights.output.weight;
        let screen = self.0.device.screen(weight, &std::mem::take(&mut seen))?;
        made.get_or_init(|| screen);
        Ok(())
    }
}
