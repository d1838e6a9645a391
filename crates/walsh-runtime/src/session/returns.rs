//! Back to an earlier length of the text.

use super::history::Call;
use super::options::ring;
use super::{Logits, Session};
use crate::model::memory::LayerMemory;
use crate::{Error, LayerConfig, Result, Watch};

impl Session {
    /// Takes the tokens from number `position` on back. What is read next gives
    /// the same logits, to the bit, as in a session that never read them and was
    /// otherwise given the same calls; a call that `position` cuts in two counts
    /// as its first half.
    ///
    /// That costs nothing where a call ended at `position` and no sliding-window
    /// layer has overwritten what the tokens before it attend to. Where layers keep a
    /// state, it must have been kept there, as it is at the beginning and the end of
    /// the latest [`prefill`](Self::prefill) (and with a session's file where it ends);
    /// what follows the latest such place is read again. Else the cut
    /// call, or all tokens up to `position`, are read again, which takes as long
    /// as it did the first time.
    ///
    /// When a token that was read is taken back, the logits are zeros until the
    /// next one.
    ///
    /// # Errors
    /// When it holds fewer, or reading again fails or is cancelled; it holds then what
    /// could be read.
    pub fn truncate(&mut self, position: usize) -> Result<()> {
        if position > self.position() {
            return Err(Error::option(
                "position",
                format_args!("at most {}", self.position()),
                position,
            ));
        }
        if position >= self.history.stored {
            self.history.tokens.truncate(position);
            return Ok(());
        }
        self.forget_logits();
        let again = self.cut_back(position);
        let read = self.read_again(&again, &self.watch.clone());
        self.history.drop_waiting();
        read
    }

    /// Reads waiting tokens by calls that were cut off the history.
    pub(super) fn read_again(&mut self, calls: &[Call], watch: &Watch) -> Result<()> {
        if self.history.stored == 0 {
            self.reached = 0;
        }
        self.return_states()?;
        let total = calls.iter().map(|call| call.rows).sum();
        let mut done = 0;
        for call in calls {
            watch.tell(done, total);
            watch.check()?;
            self.advance(*call)?;
            done += call.rows;
        }
        watch.tell(done, total);
        Ok(())
    }

    /// Sees to it that what follows the latest token can be chosen: it is held, or the
    /// logits are known. Where they are not, the call that read it is run again.
    ///
    /// # Errors
    /// When nothing was read, or as [`truncate`](Self::truncate).
    pub(crate) fn recall_logits(&mut self, watch: &Watch) -> Result<()> {
        let Some(&last) = self.history.calls.last() else {
            return self.held().map(drop).ok_or(Error::EmptyPrompt);
        };
        if self.held().is_some() || self.newest_logits != Logits::Unknown {
            return self.fetch_waiting_logits();
        }
        watch.check()?;
        let start = self.history.stored - last.rows;
        let tokens = self.history.tokens.clone();
        let mut again = self.cut_back(start);
        again.push(last);
        self.history.tokens = tokens;
        let read = self.read_again(&again, watch);
        self.history.drop_waiting();
        read?;
        self.read_logits(last.rows - 1)
    }

    /// The least length above zero that all caches can be cut back to: sliding layers have lost the oldest positions, and
    /// so have overlays of those that were recent.
    pub(super) fn earliest_return(&self) -> usize {
        let reached = self.reached;
        let of_layer = |layer: &LayerConfig| match ring(layer, &self.options) {
            Some(ring) if reached > ring => {
                reached - ring + layer.window.map_or(0, |seen| seen - 1)
            }
            _ => 0,
        };
        let layers = self.model.config().layers.iter();
        let sliding = layers.filter(|layer| layer.is_cached()).map(of_layer);
        let overlay = self.place.with(|_, text| {
            let caches = text.memory.layers.iter().filter_map(LayerMemory::cache);
            let earliest = caches.map(|cache| cache.earliest_return(reached as u64, u64::MAX));
            earliest.max().unwrap_or(0)
        });
        // A length that does not fit is one that cannot be reached.
        let overlay = usize::try_from(overlay).unwrap_or(usize::MAX);
        sliding.max().unwrap_or(0).max(overlay)
    }
}
