//! A request and its slot.

use super::Sequence;
use crate::engine::slots::Held;

impl Sequence {
    /// The slot that it asks for.
    pub(in crate::engine) fn wanted_slot(&self) -> Option<usize> {
        self.request.slot
    }

    /// How much of its text was read.
    pub(in crate::engine) fn read(&self) -> usize {
        self.read
    }

    /// Its text as far as it is kept behind it.
    pub(in crate::engine) fn held(&self) -> Option<Held> {
        let (_, end) = self.kept?;
        (end > 0).then(|| Held {
            kin: self.kin.clone(),
            tokens: self.tokens[..end].to_vec(),
            prompt: self.request.prompt.len().min(end),
        })
    }

    /// Whether its prompt goes on from another text's prompt: it is the same conversation, or asks the same again.
    pub(in crate::engine) fn goes_on_from(&self, held: &Held) -> bool {
        self.kin == held.kin && self.request.prompt.starts_with(&held.tokens[..held.prompt])
    }
}
