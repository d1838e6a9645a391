//! The memory of a session's caches: how much it can become, and what it shares with its forks.

use super::left::{Part, parts_of_layer, rows_of_layer};
use super::options::ring;
use super::recurrent::States;
use super::{Logits, Session, SessionOptions};
use crate::{Error, Model, Result};

/// Refuses a session, whose options are resolved, that its device could not hold once
/// its context is full; the bytes of its KV caches then.
pub(super) fn check_room(model: &Model, options: &SessionOptions) -> Result<u64> {
    let states = model.config().state_bytes() * States::SLOTS as u64;
    let bytes = model.kv_bytes(options)?;
    let needed = bytes.saturating_add(states);
    match model.device().available_bytes() {
        Some(available) if available < needed => Err(Error::NoRoom {
            context: options.context,
            kv: options.kv.clone(),
            needed,
            available,
            most: most_tokens(model, options, available.saturating_sub(states))?,
        }),
        _ => Ok(bytes),
    }
}

/// The largest context whose caches take no more than so many bytes.
fn most_tokens(model: &Model, options: &SessionOptions, bytes: u64) -> Result<usize> {
    let (mut fits, mut does_not) = (0, options.context);
    while does_not - fits > 1 {
        let context = fits + (does_not - fits) / 2;
        let options = SessionOptions {
            context,
            ..options.clone()
        };
        match model.kv_bytes(&options)? <= bytes {
            true => fits = context,
            false => does_not = context,
        }
    }
    Ok(fits)
}

impl Session {
    /// The parts of all caches that hold what was read, in a fixed order, and what
    /// keys were prepared with. Of layers that keep a state, the state.
    pub(super) fn parts(&self) -> Result<Vec<Part>> {
        self.check_states()?;
        let stored = self.history.stored;
        let (slot, lengths) = (self.place.slot(), (stored, self.reached));
        self.place.with(|pool, text| {
            let layers = self.model.config().layers.iter();
            let mut parts = Vec::new();
            for (index, (layer, memory)) in layers.zip(&text.memory.layers).enumerate() {
                let rows = pool.group_of(index).map(|group| {
                    let pages = (&pool.groups[group].pages, slot);
                    rows_of_layer(pages, lengths, ring(layer, &self.options))
                });
                let rows = rows.unwrap_or_default();
                parts.extend(parts_of_layer(memory, (stored, &rows))?);
            }
            Ok(parts)
        })
    }

    /// An independent session that holds the same text, and goes on exactly as
    /// this one would. The two share the model, and the memory of what they have in common: a
    /// page of 64 tokens is copied when one of them writes to it. Either may be used on another thread.
    ///
    /// # Errors
    /// When memory is missing.
    pub fn fork(&self) -> Result<Self> {
        let kv_bytes = check_room(&self.model, &self.options)?;
        self.check_states()?;
        let place = self.place.fork(self.history.stored)?;
        let mut fork = Self::over(
            (self.model.clone(), self.options.clone()),
            (place, kv_bytes),
        )?;
        fork.history.clone_from(&self.history);
        fork.note_states();
        fork.reached = self.reached;
        if self.newest_logits == Logits::Here {
            fork.logits.clone_from(&self.logits);
            fork.newest_logits = Logits::Here;
        }
        fork.follow(self);
        Ok(fork)
    }
}
