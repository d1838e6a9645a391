//! Conversations in files: a session's, with one section more, `CHAT`.
//!
//! Its fields, as [session/save.rs](crate::session) has them: a number n of
//! messages, and for each two texts, its role and its content; a number, 1 when
//! the first is the system message that the conversation began with; two texts:
//! what the session holds before the latest answer, and that answer; a number n of
//! exchanges, and for each four numbers that say what was before it: messages,
//! tokens that were read, whether one more was held, the length of the text.

use std::path::Path;

use super::{Conversation, Start};
use crate::chat::{Message, Template};
use crate::container::{self, Section, Tag};
use crate::session::{Fields, FieldsReader, KIND, restore_sections};
use crate::{Error, Model, RestoreOptions, Result};

const CHAT: Tag = *b"CHAT";

impl Conversation {
    /// Writes the conversation to a file, from which
    /// [`restore`](Self::restore) takes it up again. The file is a session's too:
    /// [`Model::restore`] reads what the session holds.
    ///
    /// # Errors
    /// When the file cannot be written; an earlier one is then as it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut sections = self.session.sections()?;
        sections.push(Section::of(CHAT, self.fields()));
        let origin = self.session.model().origin()?;
        container::write(path.as_ref(), KIND, origin, sections)
    }

    /// Takes up a conversation that [`save`](Self::save) wrote. On a device of the
    /// same kind it goes on exactly as the saved one would have.
    ///
    /// # Errors
    /// As [`Model::restore`], and when the file holds a session without a
    /// conversation.
    pub fn restore(model: &Model, path: impl AsRef<Path>, options: RestoreOptions) -> Result<Self> {
        Self::restore_with_template(model, model.chat_template()?, path, options)
    }

    /// As [`restore`](Self::restore), with another template than the model's. Where it
    /// is not the one that the conversation was saved with, the next turn reads
    /// everything anew.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub fn restore_with_template(
        model: &Model,
        template: Template,
        path: impl AsRef<Path>,
        options: RestoreOptions,
    ) -> Result<Self> {
        let path = path.as_ref();
        let mut sections = container::read(path, KIND, model.origin()?)?;
        if !sections.has(CHAT) {
            return Err(Error::saved(
                path,
                "it holds a text and no conversation: continue it as a text",
            ));
        }
        let session = restore_sections(model, &mut sections, &options)?;
        let fields = sections.bytes(CHAT)?;
        let damaged = sections.damaged("its section CHAT");
        sections.finish()?;
        let mut conversation = Self {
            template,
            session,
            system: Vec::new(),
            messages: Vec::new(),
            read: String::new(),
            answer: String::new(),
            turns: Vec::new(),
        };
        conversation.fill(&fields).ok_or(damaged)?;
        Ok(conversation)
    }

    fn fields(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        fields.u64(self.messages.len() as u64);
        for message in &self.messages {
            fields.text(&message.role);
            fields.text(&message.content);
        }
        fields.u64(self.system.len() as u64);
        fields.text(&self.read);
        fields.text(&self.answer);
        fields.u64(self.turns.len() as u64);
        for turn in &self.turns {
            fields.u64(turn.messages as u64);
            fields.u64(turn.position as u64);
            fields.u64(u64::from(turn.held));
            fields.u64(turn.read as u64);
        }
        fields.finish()
    }

    /// Takes the fields of the section; `None` when they are not those of a
    /// conversation.
    fn fill(&mut self, fields: &[u8]) -> Option<()> {
        let mut fields = FieldsReader::new(fields);
        for _ in 0..fields.count(2 * size_of::<u64>())? {
            self.messages.push(Message {
                role: fields.text()?.to_owned(),
                content: fields.text()?.to_owned(),
            });
        }
        let system = fields.size()?;
        self.system = self.messages.get(..system)?.to_vec();
        self.read = fields.text()?.to_owned();
        self.answer = fields.text()?.to_owned();
        for _ in 0..fields.count(4 * size_of::<u64>())? {
            let turn = Start {
                messages: fields.size()?,
                position: fields.size()?,
                held: fields.u64()? != 0,
                read: fields.size()?,
            };
            if !self.holds(&turn) {
                return None;
            }
            self.turns.push(turn);
        }
        fields.end()
    }

    /// Whether an exchange can have begun there.
    fn holds(&self, turn: &Start) -> bool {
        turn.messages >= self.system.len()
            && turn.messages <= self.messages.len()
            && turn.position <= self.session.position()
            && self.read.is_char_boundary(turn.read)
    }
}
