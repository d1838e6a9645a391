//! Changing a conversation under way.

use super::{Conversation, Start};
use crate::chat::Message;
use crate::{GenerateOptions, Reply, Result, SessionOptions};

impl Conversation {
    /// The system message, if there is one.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.system.first().map(|message| message.content.as_str())
    }

    /// Changes the system message, or takes it away. The next turn reads the whole
    /// conversation anew.
    pub fn set_system(&mut self, text: Option<&str>) {
        let system: Vec<Message> = text.map(Message::system).into_iter().collect();
        let before = self.system.len();
        self.messages.splice(..before, system.iter().cloned());
        for turn in &mut self.turns {
            turn.messages = turn.messages - before + system.len();
        }
        self.system = system;
        self.start_anew();
        self.session.reset();
    }

    /// Answers the latest message again, in the place of its answer; `None` when
    /// nothing was said.
    ///
    /// # Errors
    /// As [`say`](Self::say). What was said, and its answer, are then as they were.
    pub fn regenerate(&mut self, options: GenerateOptions) -> Result<Option<Reply<'_>>> {
        let said = self.turns.last().map(|turn| turn.messages);
        let Some(said) = said.and_then(|index| self.messages.get(index)).cloned() else {
            return Ok(None);
        };
        let kept = self.messages.clone();
        if let Err(error) = self.undo() {
            self.put_back(kept);
            return Err(error);
        }
        self.say_or_put_back(&said.content, options, Some(kept))
            .map(Some)
    }

    /// Goes on in another session over the same model, such as one with a larger
    /// context or another cache, which reads what this one holds.
    ///
    /// # Errors
    /// When there can be no such session, or what was said does not fit into it.
    /// The conversation is then as it was.
    pub fn reopen(&mut self, options: SessionOptions) -> Result<()> {
        let mut session = self.session.model().session(options)?;
        session.follow(&self.session);
        let held = self.session.held();
        let stored = self.session.position() - usize::from(held.is_some());
        if stored > 0 {
            session.prefill(&self.session.tokens()[..stored])?;
        }
        if let Some(token) = held {
            session.hold(token);
        }
        self.session = session;
        Ok(())
    }

    /// The messages are these again, the latest two being one exchange; the next
    /// turn reads them anew.
    pub(super) fn put_back(&mut self, messages: Vec<Message>) {
        self.start_anew();
        self.turns.push(Start::unread(self.messages.len()));
        self.messages = messages;
    }
}
