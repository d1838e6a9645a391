//! Decoding where the device looks for the likeliest next tokens.

use walsh::ops::{ArgMax, MatMulTopK, Operation};

use super::{Logits, Session};
use crate::model::graph::{TopTokens, Wanted};
use crate::{Error, Result};

/// Behind how many tokens whose likeliest successors were asked for a screen is made: what it
/// saves on 15 to 40 makes up for the time of making it.
const TOKENS: usize = 16;

/// Behind how many it can be made.
const SCREENED_TOKENS: usize = 8;

/// The first tokens of a text, which are unlike all others.
const FIRST: usize = 4;

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
    /// no token is held. The logits stay on the device, or are not computed, until they are
    /// [fetched](Self::fetch_waiting_logits).
    pub(crate) fn read_held_likeliest(&mut self) -> Result<Option<i32>> {
        if let Some(top) = self.read_held_top(1)? {
            return Ok(top.first().map(|(_, token)| *token));
        }
        if self.held().is_none() {
            return Ok(None);
        }
        self.read_one(Wanted::Likeliest).map_err(not_a_number)?;
        let mut token = [0];
        let likeliest = &self.intermediates.likeliest;
        self.device.read_into(likeliest, &mut token)?;
        self.leave_logits(Logits::OnDevice);
        Ok(Some(token[0]))
    }

    /// What list finds the likeliest token.
    pub(super) fn how_to_find_likeliest(&self) -> Wanted {
        match self.model.screen() {
            Some(_) => Wanted::TopK(1),
            None => Wanted::Likeliest,
        }
    }

    /// Reads the held token and returns the `count` that are likeliest to follow, each
    /// with its logit, the likeliest first; of equals the one with the lower id. `None`
    /// when no token is held, or when the device finds them through all logits alone.
    /// These are not computed until they are [fetched](Self::fetch_waiting_logits).
    pub(crate) fn read_held_top(&mut self, count: usize) -> Result<Option<Vec<(f32, i32)>>> {
        let possible = (1..=TopTokens::MOST).contains(&count) && count < self.logits.len();
        if !possible || self.held().is_none() {
            return Ok(None);
        }
        self.gather_for_screen(TOKENS, count)?;
        if self.model.screen().is_none() {
            return Ok(None);
        }
        self.read_one(Wanted::TopK(count)).map_err(not_a_number)?;
        let (mut logits, mut tokens) = (vec![0.0; count], vec![0; count]);
        let top = &self.intermediates.top;
        let first = 0..count as u64;
        self.device
            .read_into(&top.logits.rows(first.clone())?, &mut logits)?;
        self.device
            .read_into(&top.tokens.rows(first)?, &mut tokens)?;
        self.leave_logits(Logits::ToCompute);
        Ok(Some(logits.into_iter().zip(tokens).collect()))
    }

    /// Makes what finds the likeliest token without all logits, where the device has a way and
    /// a few tokens were asked for, for one who is going to ask for many.
    pub(crate) fn make_screen(&self) -> Result<()> {
        self.gather_for_screen(SCREENED_TOKENS, 1)
    }

    /// Notes what the latest token's logits are products of and which of them is the
    /// `count`-th largest; when so many `tokens` are noted the screen is made of them.
    fn gather_for_screen(&self, tokens: usize, count: usize) -> Result<()> {
        self.model.gather_for_screen(tokens, |sample| {
            // Behind a call with several tokens other rows hold theirs.
            if self.latest_rows != 1 || self.history.stored <= FIRST {
                return Ok(());
            }
            let recorded = self.place.with(|_, text| {
                let layers = &text.memory.layers;
                self.graph(layers).search(count)
            });
            let (step, inputs) = recorded?;
            match self.device.run(&step) {
                // Logits that are not numbers are no example, and nobody asked for these.
                Err(walsh::Error::Value { .. }) => return Ok(()),
                ran => ran?,
            }
            let mut input = vec![0.0; inputs.shape()[1] as usize];
            self.device.read_into(&inputs, &mut input)?;
            let mut found = vec![0; count];
            let tokens = self.intermediates.top.tokens.rows(0..count as u64)?;
            self.device.read_into(&tokens, &mut found)?;
            sample.inputs.extend(input);
            sample.last.push(found[count - 1] as u32);
            Ok(())
        })
    }

    /// Notes that the logits behind the latest token are not here.
    fn leave_logits(&mut self, place: Logits) {
        if self.newest_logits == Logits::Here {
            self.forget_logits();
        }
        self.newest_logits = place;
    }

    /// Fetches the logits where they were left on the device, or were not computed.
    pub(crate) fn fetch_waiting_logits(&mut self) -> Result<()> {
        match self.newest_logits {
            Logits::Here | Logits::Unknown => Ok(()),
            Logits::OnDevice => self.fetch_logits(),
            Logits::ToCompute => self.read_logits(0),
        }
    }
}

/// A device that looks for the likeliest token meets what
/// [`Sampler`](crate::sampling::Sampler) does.
fn not_a_number(error: Error) -> Error {
    match error {
        Error::Core(walsh::Error::Value { op, message })
            if [ArgMax::NAME, MatMulTopK::NAME].contains(&op) =>
        {
            Error::Logits { what: message }
        }
        other => other,
    }
}
