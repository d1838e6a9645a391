//! `walsh chat`.

use std::io::{self, BufRead, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use walsh_runtime::{Conversation, GenerateOptions, Sampling};

use crate::args::Chat;
use crate::failure::{Failure, Outcome};
use crate::output::Notes;
use crate::stream::{Ended, print_pieces};
use crate::{interrupt, models, output};

const HELP: &str = "\
/help       this list
/undo       take back the latest message and its answer
/save FILE  keep the conversation, for 'walsh chat --load FILE'
/reset      forget the conversation
/quit       leave (so does Ctrl-D)
Ctrl-C ends an answer. Anything else is a message to the model.";

pub(crate) fn run(args: &Chat) -> Outcome {
    models::check_files(&args.session)?;
    let model = models::open(&args.model, &Notes::for_figures(false))?;
    let mut chat = Chatting {
        conversation: models::conversation(&model, &args.session, &args.answer)?,
        input: Input::new()?,
        cancel: interrupt::on_interrupt()?,
        args,
        sampling: models::sampling(&args.sampling),
    };
    let session = chat.conversation.session();
    if chat.input.is_interactive() {
        output::note(format_args!(
            "{}, {} tokens of context, KV cache {}; /help lists the commands",
            model.name(),
            session.context(),
            session.options().kv
        ));
        if session.position() > 0 {
            output::note(format_args!("{} tokens were said", session.position()));
        }
    }
    let ended = chat.hold();
    if let Some(path) = &args.session.save {
        chat.conversation.save(path)?;
    }
    ended
}

/// A conversation under way.
struct Chatting<'a> {
    conversation: Conversation,
    input: Input,
    cancel: Arc<AtomicBool>,
    args: &'a Chat,
    sampling: Sampling,
}

impl Chatting<'_> {
    /// Takes lines until they end, or something ends the conversation.
    fn hold(&mut self) -> Outcome {
        while let Some(line) = self.input.line()? {
            let trouble = match line.trim() {
                "" => None,
                "/quit" | "/exit" => break,
                message => self.line(message)?,
            };
            match trouble {
                Some(message) if self.input.is_interactive() => {
                    output::note(format_args!("walsh: {message}"));
                }
                Some(message) => return Err(Failure::Run(message)),
                None if self.stopped() => break,
                None => {}
            }
        }
        match self.stopped() {
            true => Err(Failure::Interrupted),
            false => Ok(()),
        }
    }

    /// Ctrl-C ends an answer, and with it a conversation that nobody types.
    fn stopped(&self) -> bool {
        !self.input.is_interactive() && self.cancel.load(Ordering::Relaxed)
    }

    /// Does what a line asks for. A message when that cannot be done: with nobody
    /// there to read it, it ends the conversation.
    fn line(&mut self, line: &str) -> Outcome<Option<String>> {
        let done = match line.split_once(char::is_whitespace) {
            Some(("/save", path)) => self.conversation.save(path.trim()),
            None if line == "/save" => {
                return Ok(Some("/save needs a file: /save FILE".to_owned()));
            }
            None if line == "/undo" => self.conversation.undo().map(|undone| {
                if !undone {
                    output::note(format_args!("nothing was said"));
                }
            }),
            None if line == "/reset" => {
                self.conversation.reset();
                Ok(())
            }
            None if line == "/help" => {
                output::note(format_args!("{HELP}"));
                Ok(())
            }
            None if line.starts_with('/') => {
                output::note(format_args!(
                    "walsh: there is no {line}; /help lists the commands"
                ));
                Ok(())
            }
            _ => return self.answer(line),
        };
        Ok(done.err().map(|error| error.to_string()))
    }

    /// Prints the answer to a message; a message when the model cannot give one.
    fn answer(&mut self, message: &str) -> Outcome<Option<String>> {
        self.cancel.store(false, Ordering::Relaxed);
        let options = GenerateOptions {
            max_tokens: self.args.max_tokens.0,
            sampling: self.sampling,
            cancel: Arc::clone(&self.cancel),
            ..GenerateOptions::default()
        };
        let mut reply = match self.conversation.say(message, options) {
            Ok(reply) => reply,
            Err(error) => return Ok(Some(explain(error))),
        };
        match print_pieces(&mut reply) {
            Ok(()) => {}
            Err(Failure::Run(message)) => return Ok(Some(message)),
            Err(other) => return Err(other),
        }
        let ended = Ended {
            figures: *reply.figures(),
            finish: reply.finish(),
        };
        output::note(format_args!("[{}]", ended.summary()));
        Ok(None)
    }
}

fn explain(error: walsh_runtime::Error) -> String {
    match error {
        walsh_runtime::Error::ContextFull { needed, context } => format!(
            "the conversation would have {needed} tokens and the context holds {context}: /reset starts anew, --context makes it larger"
        ),
        other => other.to_string(),
    }
}

/// Where messages come from.
enum Input {
    /// A person with a line editor.
    Terminal(Box<DefaultEditor>),
    /// A file or a pipe.
    Lines,
}

impl Input {
    fn new() -> Outcome<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Lines);
        }
        let editor = DefaultEditor::new()
            .map_err(|error| Failure::run(format_args!("cannot use the terminal: {error}")))?;
        Ok(Self::Terminal(Box::new(editor)))
    }

    fn is_interactive(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line, or nothing at the end.
    fn line(&mut self) -> Outcome<Option<String>> {
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::run(format_args!("cannot read from standard input: {error}"))
        };
        match self {
            Self::Terminal(editor) => match editor.readline("> ") {
                Ok(line) => {
                    // A line that the history refuses, such as a repetition, is still a line.
                    let _ = editor.add_history_entry(line.as_str());
                    Ok(Some(line))
                }
                Err(ReadlineError::Eof) => Ok(None),
                Err(ReadlineError::Interrupted) => Err(Failure::Interrupted),
                Err(error) => Err(cannot(&error)),
            },
            Self::Lines => {
                let mut bytes = Vec::new();
                let read = io::stdin().lock().read_until(b'\n', &mut bytes);
                match read {
                    Ok(0) => Ok(None),
                    Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
                    Err(error) => Err(cannot(&error)),
                }
            }
        }
    }
}
