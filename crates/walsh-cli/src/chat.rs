//! `walsh chat`.

use std::io::{self, BufRead, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use walsh_runtime::{Conversation, GenerateOptions};

use crate::args::Chat;
use crate::failure::{Failure, Outcome};
use crate::stream::{Ended, print_pieces};
use crate::{interrupt, models, output};

const HELP: &str = "\
/help   this list
/reset  forget the conversation
/quit   leave (so does Ctrl-D)
Ctrl-C ends an answer. Anything else is a message to the model.";

pub(crate) fn run(args: &Chat) -> Outcome {
    let model = models::open(&args.model)?;
    let options = models::session_options(&args.session);
    let mut conversation = Conversation::new(&model, options, args.system.as_deref())?;
    let cancel = interrupt::on_interrupt()?;
    let mut input = Input::new()?;
    if input.is_interactive() {
        output::note(format_args!(
            "{}, {} tokens of context, KV cache {}; /help lists the commands",
            model.name(),
            conversation.session().context(),
            args.session.kv
        ));
    }
    let sampling = models::sampling(&args.sampling);
    let mut failed = None;
    while let Some(line) = input.line()? {
        match line.trim() {
            "" => continue,
            "/help" => output::note(format_args!("{HELP}")),
            "/reset" => {
                conversation.reset();
                failed = None;
            }
            "/quit" | "/exit" => break,
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                output::note(format_args!(
                    "walsh: there is no {command}; /help lists the commands"
                ));
            }
            message => {
                cancel.store(false, Ordering::Relaxed);
                let options = GenerateOptions {
                    max_tokens: Some(args.max_tokens.get()),
                    sampling,
                    cancel: Arc::clone(&cancel),
                    ..GenerateOptions::default()
                };
                failed = answer(&mut conversation, message, options)?;
                if let Some(message) = failed.as_ref().filter(|_| input.is_interactive()) {
                    output::note(format_args!("walsh: {message}"));
                } else if failed.is_some() || stop(&cancel, &input) {
                    break;
                }
            }
        }
    }
    match failed {
        Some(message) if !input.is_interactive() => Err(Failure::Run(message)),
        _ if stop(&cancel, &input) => Err(Failure::Interrupted),
        _ => Ok(()),
    }
}

/// Ctrl-C ends an answer, and with it a conversation that nobody types.
fn stop(cancel: &AtomicBool, input: &Input) -> bool {
    !input.is_interactive() && cancel.load(Ordering::Relaxed)
}

/// Prints the answer to a message; a message when the model cannot give one.
fn answer(
    conversation: &mut Conversation,
    message: &str,
    options: GenerateOptions,
) -> Outcome<Option<String>> {
    let reply = conversation.say(message, options);
    let mut reply = match reply {
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
