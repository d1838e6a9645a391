//! Conversations: a session that goes through a model's chat template.

mod change;
mod prompt;
mod save;

use crate::chat::{Message, Template};
use crate::tokenizer::Special;
use crate::{
    Error, Figures, Finish, GenerateOptions, Generation, Model, Result, Session, SessionOptions,
    Watch,
};

pub(crate) use prompt::Prompt;

/// A conversation with a model.
///
/// Each turn, the whole conversation is put through the chat template, and only
/// what the session has not read yet is prefilled. Where the template changes
/// what was said before (some leave out a model's reasoning), the session is
/// read anew.
pub struct Conversation {
    session: Session,
    template: Template,
    system: Vec<Message>,
    messages: Vec<Message>,
    /// The text that the session holds, up to the latest answer.
    read: String,
    /// The latest answer, which it holds too.
    answer: String,
    /// Where each exchange began.
    turns: Vec<Start>,
}

/// What a conversation was before an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start {
    /// How many messages there were.
    messages: usize,
    /// How many tokens the session had read of what it still holds; 0 where it was
    /// read anew since.
    position: usize,
    /// Whether it held one more, to be read before the next.
    held: bool,
    /// The length of the text that it held, without the answer; 0 for none.
    read: usize,
}

impl Start {
    /// The exchange behind so many messages, which the session does not hold.
    fn unread(messages: usize) -> Self {
        Self {
            messages,
            position: 0,
            held: false,
            read: 0,
        }
    }

    /// The session holds the exchange somewhere else by now, or not at all.
    fn lose(&mut self) {
        (self.position, self.held, self.read) = (0, false, 0);
    }
}

impl Conversation {
    /// Starts a conversation, with a system message if there is one.
    ///
    /// # Errors
    /// When the model has no chat template, or the session cannot be started.
    pub fn new(model: &Model, options: SessionOptions, system: Option<&str>) -> Result<Self> {
        Self::with_template(model, model.chat_template()?, options, system)
    }

    /// As [`new`](Self::new), with another template than the model's.
    ///
    /// # Errors
    /// When the session cannot be started.
    pub fn with_template(
        model: &Model,
        template: Template,
        options: SessionOptions,
        system: Option<&str>,
    ) -> Result<Self> {
        let system: Vec<Message> = system.map(Message::system).into_iter().collect();
        Ok(Self {
            template,
            session: model.session(options)?,
            messages: system.clone(),
            system,
            read: String::new(),
            answer: String::new(),
            turns: Vec::new(),
        })
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Starts the stream of random numbers that answers are chosen with, which goes on
    /// from one to the next: see [`Session::set_seed`].
    pub fn set_seed(&mut self, seed: u64) {
        self.session.set_seed(seed);
    }

    /// What can end [`undo`](Self::undo) early, where it reads again: see
    /// [`Session::set_watch`].
    pub fn set_watch(&mut self, watch: Watch) {
        self.session.set_watch(watch);
    }

    /// What was said, the system message included.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Forgets all but the system message.
    pub fn reset(&mut self) {
        self.session.reset();
        self.read.clear();
        self.answer.clear();
        self.turns.clear();
        self.messages.clone_from(&self.system);
    }

    /// Takes the latest message and its answer back. What is said next is answered
    /// as if they had never been. Returns whether there was one.
    ///
    /// # Errors
    /// When the session has to read again and fails; the next turn reads the
    /// conversation anew then.
    pub fn undo(&mut self) -> Result<bool> {
        let Some(start) = self.turns.pop() else {
            return Ok(false);
        };
        self.messages.truncate(start.messages);
        let held = match start.held {
            true => self.session.tokens().get(start.position).copied(),
            false => None,
        };
        let (read, turns) = self.start_anew();
        self.session.truncate(start.position)?;
        self.turns = turns;
        if let Some(token) = held {
            self.session.hold(token);
        }
        if let Some(text) = read.get(..start.read).filter(|text| !text.is_empty()) {
            self.read = text.to_owned();
            let answer = self.messages.last().map(|message| message.content.as_str());
            self.answer = answer.unwrap_or_default().to_owned();
        }
        Ok(true)
    }

    /// Makes the next turn read everything anew, unless what this returns is put
    /// back: the text that the session holds, and where exchanges began in it.
    fn start_anew(&mut self) -> (String, Vec<Start>) {
        self.answer.clear();
        let turns = self.turns.clone();
        self.turns.iter_mut().for_each(Start::lose);
        (std::mem::take(&mut self.read), turns)
    }

    /// What the conversation is now, to come back to.
    fn start(&self) -> Start {
        let held = self.session.held().is_some();
        Start {
            messages: self.messages.len(),
            position: self.session.position() - usize::from(held),
            held,
            read: self.read.len(),
        }
    }

    /// Says something to the model and generates its answer.
    ///
    /// The template's names of special tokens always stand for them. Those of control
    /// tokens in messages, of whomever, stay text, unless `options.special` is
    /// [`Special::Parse`]; user-defined tokens are found in any text.
    ///
    /// # Errors
    /// When the template refuses the conversation, it does not fit into the
    /// context, or an option is out of range. The conversation is then as it was.
    pub fn say(&mut self, message: &str, options: GenerateOptions) -> Result<Reply<'_>> {
        self.say_or_put_back(message, options, None)
    }

    /// Says something. Should that fail, the messages `kept` are put back, where
    /// they are given.
    fn say_or_put_back(
        &mut self,
        message: &str,
        options: GenerateOptions,
        kept: Option<Vec<Message>>,
    ) -> Result<Reply<'_>> {
        self.messages.push(Message::user(message));
        let turn = self.next_turn(options.special);
        // Taken back here, and put where it belongs once the session has read it.
        let said = self.messages.pop();
        let turn = match turn {
            Ok(turn) => turn,
            Err(error) => {
                if let Some(kept) = kept {
                    self.put_back(kept);
                }
                return Err(error);
            }
        };
        let mut start = self.start();
        // Should reading fail half-way, the next turn starts anew.
        let (_, mut turns) = self.start_anew();
        if turn.anew {
            self.session.reset();
            turns.clone_from(&self.turns);
            start.lose();
        }
        let options = GenerateOptions {
            special: Special::Parse,
            ..options
        };
        let generation = match self.session.generate_from(&turn.tokens, options) {
            Ok(generation) => generation,
            Err(error) => {
                if let Some(kept) = kept {
                    self.turns.push(Start::unread(self.messages.len()));
                    self.messages = kept;
                }
                return Err(error);
            }
        };
        turns.push(start);
        self.turns = turns;
        self.messages.extend(said);
        self.read = turn.text;
        Ok(Reply {
            generation,
            messages: &mut self.messages,
            answer: &mut self.answer,
        })
    }

    /// What has to be read for the messages so far.
    fn next_turn(&self, special: Special) -> Result<Turn> {
        let tokenizer = self.session.model().tokenizer();
        let prompt = Prompt::render(&self.template, &self.messages, tokenizer, special)?;
        let unread = self.unread(&prompt.text);
        let anew = unread.is_none();
        let from = prompt.text.len() - unread.unwrap_or(&prompt.text).len();
        let previous = self.session.tokens().last().copied();
        let tokens = match anew {
            true => prompt.first_tokens(tokenizer)?,
            false => prompt.tokens(from, tokenizer, previous)?,
        };
        let before = if anew { 0 } else { self.session.position() };
        let (needed, context) = (before + tokens.len(), self.session.context());
        if needed > context {
            return Err(Error::ContextFull { needed, context });
        }
        Ok(Turn {
            text: prompt.text,
            tokens,
            anew,
        })
    }

    /// What follows the text that the session holds; `None` when it holds none,
    /// or another.
    fn unread<'t>(&self, text: &'t str) -> Option<&'t str> {
        if self.read.is_empty() {
            return None;
        }
        let rest = text.strip_prefix(self.read.as_str())?;
        // Many templates trim what was said.
        [
            self.answer.as_str(),
            self.answer.trim_end(),
            self.answer.trim(),
        ]
        .into_iter()
        .find_map(|answer| rest.strip_prefix(answer))
    }
}

/// What a turn adds to a session.
struct Turn {
    /// The whole conversation.
    text: String,
    /// What is to be read of it.
    tokens: Vec<i32>,
    /// Whether that is all of it.
    anew: bool,
}

/// An answer being generated: an iterator over its pieces. When it is dropped,
/// what was generated is part of the conversation.
pub struct Reply<'c> {
    generation: Generation<'c>,
    messages: &'c mut Vec<Message>,
    answer: &'c mut String,
}

impl Reply<'_> {
    /// Why the answer ended; `None` while it goes on.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.generation.finish()
    }

    /// What it took so far.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        self.generation.figures()
    }
}

impl Iterator for Reply<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.generation.next()?;
        if let Ok(piece) = &piece {
            self.answer.push_str(piece);
        }
        Some(piece)
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        self.messages.push(Message::assistant(self.answer.as_str()));
    }
}
