//! The states of layers that keep one: they cannot be cut back, so copies of them are.

use super::Session;
use super::history::Call;
use crate::model::memory::LayerMemory;
use crate::{Error, Result, Watch};

/// Which lengths of the text there are states of, slot by slot. The first slot has those that runs go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct States {
    /// `None` where nothing is known of a slot, as of the first while a run is on its way or when it has failed.
    lengths: [Option<usize>; States::SLOTS],
    /// The slot that the next copy goes to.
    next: usize,
}

impl States {
    /// The states at work, and copies: where the latest prompt begins, where its last chunk does, and where it ends.
    pub(super) const SLOTS: usize = 4;

    /// Notes that a run is about to change them.
    pub(super) fn leave(&mut self) {
        self.lengths[0] = None;
    }

    /// The slot that has those of a length.
    fn find(&self, length: usize) -> Option<usize> {
        let known = |known: &Option<usize>| *known == Some(length);
        self.lengths.iter().position(known)
    }
}

impl Default for States {
    fn default() -> Self {
        let mut lengths = [None; States::SLOTS];
        // Whoever begins needs none.
        lengths[0] = Some(0);
        Self { lengths, next: 1 }
    }
}

impl Session {
    /// Whether there are any states.
    fn keeps_states(&self) -> bool {
        self.model.config().recurrent.is_some()
    }

    /// Takes tokens back; the calls that are to be run again for it.
    pub(super) fn cut_back(&mut self, position: usize) -> Vec<Call> {
        let (earliest, has_states) = (self.earliest_return(), self.keeps_states());
        let states = &self.states;
        let returns = |length| length >= earliest && (!has_states || states.find(length).is_some());
        let again = self.history.cut(position, &returns);
        self.place.cut(self.history.stored);
        again
    }

    /// Gives layers the states behind what was read, to which the text was cut back.
    pub(super) fn return_states(&mut self) -> Result<()> {
        let length = self.history.stored;
        if self.keeps_states()
            && let Some(slot) = self.states.find(length)
        {
            self.copy_states(slot, 0)?;
        }
        self.states.lengths[0] =
            (length == 0 || self.states.find(length).is_some()).then_some(length);
        // What comes behind is another text from here on.
        for known in &mut self.states.lengths[1..] {
            *known = known.filter(|known| *known <= length);
        }
        Ok(())
    }

    /// Sees to it that the states are those behind what was read: a run that has failed may have changed them. Nobody ends
    /// that early: the text would be cut short.
    pub(super) fn settle(&mut self) -> Result<()> {
        let stored = self.history.stored;
        if !self.keeps_states() || self.states.lengths[0] == Some(stored) {
            return Ok(());
        }
        let tokens = self.history.tokens.clone();
        let again = self.cut_back(stored);
        self.history.tokens = tokens;
        let read = self.read_again(&again, &Watch::default());
        if read.is_err() {
            self.history.drop_waiting();
        }
        read
    }

    /// Notes a call that has read waiting tokens.
    pub(super) fn note(&mut self, call: Call) {
        self.history.note(call);
        self.states.lengths[0] = Some(self.history.stored);
    }

    /// Keeps a copy of the states as they are, in place of an older one.
    pub(super) fn keep_states(&mut self) -> Result<()> {
        let length = self.history.stored;
        let known = self.states.lengths[1..].contains(&Some(length));
        if !self.keeps_states() || length == 0 || known || self.states.lengths[0] != Some(length) {
            return Ok(());
        }
        let slot = self.states.next;
        self.states.lengths[slot] = None;
        self.copy_states(0, slot)?;
        self.states.lengths[slot] = Some(length);
        self.states.next = slot % (States::SLOTS - 1) + 1;
        Ok(())
    }

    fn copy_states(&self, from: usize, to: usize) -> Result<()> {
        if from == to {
            return Ok(());
        }
        self.place.with(|_, text| {
            for state in text.memory.layers.iter().filter_map(LayerMemory::state) {
                for (from, to) in state.slot(from)?.iter().zip(&state.slot(to)?) {
                    self.device.copy(from, to)?;
                }
            }
            Ok(())
        })
    }

    /// Takes the first slot for what a copied history has left.
    pub(super) fn note_states(&mut self) {
        self.states.lengths[0] = Some(self.history.stored);
    }

    /// Whether the states are those behind what was read, which whoever copies the session takes for granted.
    pub(super) fn check_states(&self) -> Result<()> {
        match !self.keeps_states() || self.states.lengths[0] == Some(self.history.stored) {
            true => Ok(()),
            false => Err(Error::measure(
                "the session's latest call has failed, and what its layers keep is not known: cut it back first",
            )),
        }
    }
}
