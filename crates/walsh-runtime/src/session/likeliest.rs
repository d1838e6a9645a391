//! Decoding where the device chooses the next token.

use walsh::ops::{ArgMax, Operation};

use super::{Chosen, Session};
use crate::{Error, Result};

impl Session {
    /// Appends one token and returns the one that is likeliest to follow, the first of
    /// equals. Only its id comes back from the device: the logits are zeros until the
    /// next call that reads them.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), and when a logit is not a number.
    pub fn decode_likeliest(&mut self, token: i32) -> Result<i32> {
        self.read_held()?;
        self.hold(token);
        let read = self.read_held_likeliest();
        self.or_drop(read)?.ok_or(Error::EmptyPrompt)
    }

    /// Reads the held token and returns the one that is likeliest to follow, `None` when
    /// no token is held. The logits stay on the device until they are
    /// [fetched](Self::fetch_waiting_logits).
    pub(crate) fn read_held_likeliest(&mut self) -> Result<Option<i32>> {
        if self.held().is_none() {
            return Ok(None);
        }
        self.read_one(Chosen::OnDevice).map_err(not_a_number)?;
        if !self.logits_wait {
            self.logits.fill(0.0);
            self.logits_wait = true;
        }
        let mut token = [0];
        let likeliest = &self.activations.likeliest;
        self.device.read_into(likeliest, &mut token)?;
        Ok(Some(token[0]))
    }

    /// Fetches the logits where they were left on the device.
    pub(crate) fn fetch_waiting_logits(&mut self) -> Result<()> {
        if self.logits_wait {
            self.fetch_logits()?;
        }
        Ok(())
    }
}

/// A device that looks for the likeliest token meets what
/// [`Sampler`](crate::sampling::Sampler) does.
fn not_a_number(error: Error) -> Error {
    match error {
        Error::Core(walsh::Error::Value { op, message }) if op == ArgMax::NAME => {
            Error::Logits { what: message }
        }
        other => other,
    }
}
