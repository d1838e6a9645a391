//! Tokens that are read before they are chosen.

use super::Sequence;

impl Sequence {
    /// Looks up what may follow the token that is read next, if that is the last: at most so many tokens. How many there are.
    pub(in crate::engine) fn draft(&mut self, most: usize) -> usize {
        self.drafts.clear();
        let generated = self.tokens.len() - self.request.prompt.len();
        if !self.request.look_up || self.read + 1 != self.tokens.len() || generated == 0 {
            return 0;
        }
        let wanted = self
            .request
            .max_tokens
            .map_or(usize::MAX, |most| most - generated);
        let room = (self.context - self.tokens.len()).min(wanted) - 1;
        self.drafts = self.look_up.find(&self.tokens, room.min(most));
        self.looked_up = self.drafts.len();
        self.looked_up
    }

    /// Whether it is read by itself.
    pub(in crate::engine) fn is_alone(&self) -> bool {
        self.read < self.alone_until
    }

    /// Has what it was about to read, and all before it, read by itself.
    pub(in crate::engine) fn read_alone(&mut self) {
        self.alone_until = self.next_rows().positions().end;
    }

    /// How many tokens are looked up.
    pub(in crate::engine) fn drafts(&self) -> usize {
        self.drafts.len()
    }

    /// Forgets what was looked up; whether there was anything.
    pub(in crate::engine) fn drop_drafts(&mut self) -> bool {
        self.looked_up = 0;
        !std::mem::take(&mut self.drafts).is_empty()
    }

    /// The token at a position, of those that were looked up too.
    pub(in crate::engine) fn token_at(&self, position: usize) -> i32 {
        match self.tokens.get(position) {
            Some(token) => *token,
            None => self.drafts[position - self.tokens.len()],
        }
    }

    /// Whether the next of the tokens that were looked up is the one that was chosen last: it was read then, and what is to
    /// follow it is known. If not, they are forgotten.
    pub(in crate::engine) fn confirm(&mut self) -> bool {
        if self.drafts.is_empty() {
            return false;
        }
        let is_next = self.tokens.last() == self.drafts.first();
        match is_next {
            true => {
                self.drafts.remove(0);
                self.advance();
            }
            false => self.drafts.clear(),
        }
        is_next
    }

    /// Notes how many of the tokens that were looked up were chosen; how many were looked up, and chosen.
    pub(in crate::engine) fn note_found(&mut self, found: usize) -> (u64, u64) {
        self.drafts.clear();
        let looked_up = std::mem::take(&mut self.looked_up);
        if looked_up > 0 {
            self.look_up.note(looked_up, found);
        }
        (looked_up as u64, found as u64)
    }
}
