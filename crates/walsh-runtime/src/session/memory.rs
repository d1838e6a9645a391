//! The memory of a session's caches: how much it can become, and what it holds,
//! piece by piece.

use walsh::{Device, KeyPreparation, Tensor};

use super::recurrent::States;
use super::{Logits, Session, SessionOptions};
use crate::model::memory::LayerMemory;
use crate::{Error, Model, Result};

/// The most bytes that pass through the host at a time, whole rows at least.
const PIECE_BYTES: u64 = 1 << 20;

/// Refuses a session, whose options are resolved, that its device could not hold once
/// its context is full.
pub(super) fn check_room(model: &Model, options: &SessionOptions) -> Result<()> {
    let states = model.config().state_bytes() * States::SLOTS as u64;
    let needed = model.kv_bytes(options)?.saturating_add(states);
    match model.device().available_bytes() {
        Some(available) if available < needed => Err(Error::NoRoom {
            context: options.context,
            kv: options.kv.clone(),
            needed,
            available,
            most: most_tokens(model, options, available.saturating_sub(states))?,
        }),
        _ => Ok(()),
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
    /// keys were prepared with: it belongs to the codes. Of layers that keep a state, the state.
    pub(super) fn parts(&self) -> Result<Vec<Tensor>> {
        let mut parts = Vec::new();
        self.check_states()?;
        for memory in &self.memory {
            match memory {
                LayerMemory::Cache(cache) => {
                    parts.extend(cache.parts(self.history.stored as u64)?);
                    let KeyPreparation { equaliser, center } = cache.preparation();
                    parts.extend(equaliser.iter().chain(center).cloned());
                }
                // Nothing has a state of its own.
                LayerMemory::State(_) if self.history.stored == 0 => {}
                LayerMemory::State(state) => parts.extend(state.slot(0)?),
                LayerMemory::Shared => {}
            }
        }
        Ok(parts)
    }

    /// An independent session that holds the same text, and goes on exactly as
    /// this one would. The two share the model.
    ///
    /// # Errors
    /// When memory is missing.
    pub fn fork(&self) -> Result<Self> {
        let mut fork = Self::new(self.model.clone(), self.options.clone())?;
        fork.history.clone_from(&self.history);
        fork.note_states();
        fork.reached = self.reached;
        if self.newest_logits == Logits::Here {
            fork.logits.clone_from(&self.logits);
            fork.newest_logits = Logits::Here;
        }
        fork.follow(self);
        let mut buffer = Vec::new();
        for (from, to) in self.parts()?.iter().zip(&fork.parts()?) {
            for (from, to) in pieces(from)?.iter().zip(&pieces(to)?) {
                read_piece(&self.device, from, &mut buffer)?;
                self.device.write_bytes(to, &buffer)?;
            }
        }
        Ok(fork)
    }
}

/// A part in pieces of whole rows.
pub(super) fn pieces(part: &Tensor) -> Result<Vec<Tensor>> {
    let rows = part.shape()[0];
    let row_bytes = part.bytes().checked_div(rows).unwrap_or(0);
    let step = PIECE_BYTES.checked_div(row_bytes).unwrap_or(1).max(1);
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < rows {
        let end = rows.min(start + step);
        pieces.push(part.rows(start..end)?);
        start = end;
    }
    Ok(pieces)
}

/// Reads a piece into a buffer that takes its size.
pub(super) fn read_piece(device: &Device, piece: &Tensor, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.resize(piece.bytes() as usize, 0);
    device.read_bytes(piece, buffer)?;
    Ok(())
}
