//! What is said in a conversation, from a terminal or line by line.

use std::io::{self, IsTerminal};
use std::path::Path;

use crate::failure::{Failure, Outcome};
use crate::got::Got;
use crate::interrupt::Signals;
use crate::output;
use crate::system;
use crate::terminal::{Editor, History, Typed};

/// The longest message, in bytes: longer than any context.
const LONGEST: usize = 4 << 20;

/// What stands around a text of several lines.
const BLOCK: &str = "\"\"\"";

/// What comes next in a conversation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A command or a message, as it was typed.
    Line(String),
    /// A message, whatever it begins with.
    Block(String),
    /// Ctrl-C.
    Interrupt,
    End,
}

/// Where messages come from.
pub(crate) enum Input {
    /// A person with a line editor.
    Terminal(Box<Editor>),
    /// A file or a pipe.
    Lines(Lines),
}

impl Input {
    pub(crate) fn new() -> Self {
        match Editor::new(LONGEST) {
            Some(editor) => Self::Terminal(Box::new(editor)),
            None => Self::Lines(Lines::default()),
        }
    }

    /// Whether somebody reads what is remarked, and can try again.
    pub(crate) fn is_interactive(&self) -> bool {
        match self {
            Self::Terminal(_) => true,
            Self::Lines(_) => io::stdin().is_terminal(),
        }
    }

    /// Takes up the history that a file holds, and goes on in it.
    pub(crate) fn keep_history(&mut self, file: &Path) {
        if let Self::Terminal(editor) = self {
            match History::open(file) {
                Ok(history) => *editor.history() = history,
                Err(error) => no_history(&format!("{}: {error}", output::shown_path(file))),
            }
        }
    }

    /// The next command or message.
    pub(crate) fn next(&mut self, signals: &Signals) -> Outcome<Entry> {
        let mut block: Option<String> = None;
        loop {
            let prompt = if block.is_some() { "… " } else { "> " };
            let typed = match self {
                Self::Terminal(editor) => typed(editor, prompt, signals)?,
                Self::Lines(lines) => lines.next(signals)?,
            };
            let line = match typed {
                Typed::Text(line) => line,
                Typed::Interrupt => return Ok(Entry::Interrupt),
                Typed::Ending => return Err(Failure::Interrupted),
                Typed::End if block.is_some() => return self.unclosed(),
                Typed::End => return Ok(Entry::End),
            };
            let text = match block.take() {
                Some(before) => before + "\n" + &line,
                None => line,
            };
            let Some(inside) = text.trim().strip_prefix(BLOCK) else {
                self.remember(&text);
                return Ok(Entry::Line(text));
            };
            match inside.strip_suffix(BLOCK) {
                Some(inside) => {
                    self.remember(&text);
                    return Ok(Entry::Block(inside.trim_matches('\n').to_owned()));
                }
                None if text.len() > LONGEST => return Err(too_long()),
                None => block = Some(text),
            }
        }
    }

    fn unclosed(&self) -> Outcome<Entry> {
        let message = "the text behind \"\"\" does not end: close it with \"\"\"";
        if self.is_interactive() {
            output::note(format_args!("walsh: {message}"));
            return Ok(Entry::End);
        }
        Err(Failure::run(message))
    }

    fn remember(&mut self, text: &str) {
        if let Self::Terminal(editor) = self
            && let Err(error) = editor.history().add(text)
        {
            no_history(&error.to_string());
        }
    }
}

/// A conversation goes on without its history.
pub(crate) fn no_history(why: &str) {
    output::note(format_args!(
        "what is typed is not kept for another time: {why}"
    ));
}

/// A text from the editor, with a word on what became of bytes that cannot be kept.
fn typed(editor: &mut Editor, prompt: &str, signals: &Signals) -> Outcome<Typed> {
    let typed = match editor.read(prompt, signals) {
        // The terminal is gone.
        Err(error) if system::is_gone(&error) => Typed::End,
        typed => typed.map_err(cannot_read)?,
    };
    let (invalid, too_long) = editor.take_faults();
    if invalid > 0 {
        note_invalid();
    }
    if too_long {
        output::note(format_args!(
            "walsh: a message holds at most {LONGEST} bytes: what had no room was left out"
        ));
    }
    Ok(typed)
}

fn note_invalid() {
    output::note(format_args!(
        "walsh: bytes that are not UTF-8 became \u{fffd}: /undo takes the message back"
    ));
}

fn cannot_read(error: io::Error) -> Failure {
    Failure::run(format_args!("cannot read from standard input: {error}"))
}

fn too_long() -> Failure {
    Failure::run(format_args!(
        "a message on standard input is longer than {LONGEST} bytes: give a line for each message"
    ))
}

/// Lines of standard input, while no signal comes.
#[derive(Default)]
pub(crate) struct Lines {
    source: system::Input,
    bytes: Vec<u8>,
    at: usize,
    is_begun: bool,
    is_ended: bool,
}

impl Lines {
    fn next(&mut self, signals: &Signals) -> Outcome<Typed> {
        let mut searched = self.at;
        loop {
            let newline = self.bytes[searched..]
                .iter()
                .position(|&byte| byte == b'\n');
            if let Some(length) = newline {
                let (start, end) = (self.at, searched + length);
                self.at = end + 1;
                return self.text(start, end);
            }
            searched = self.bytes.len();
            if self.is_ended {
                let start = std::mem::replace(&mut self.at, searched);
                return match start == searched {
                    true => Ok(Typed::End),
                    false => self.text(start, searched),
                };
            }
            if searched - self.at > LONGEST {
                return Err(too_long());
            }
            match self
                .source
                .wait(signals.wake(), None)
                .map_err(cannot_read)?
            {
                Got::Bytes(bytes) => {
                    searched -= self.at;
                    self.bytes.drain(..std::mem::take(&mut self.at));
                    self.bytes.extend_from_slice(bytes);
                }
                Got::End => self.is_ended = true,
                Got::Signal if signals.is_ending() => return Ok(Typed::Ending),
                Got::Signal if signals.take_interrupt() => return Ok(Typed::Interrupt),
                Got::Signal | Got::Nothing => {}
            }
        }
    }

    /// These bytes as text. A byte order mark is no part of the first line.
    fn text(&mut self, start: usize, end: usize) -> Outcome<Typed> {
        let line = &self.bytes[start..end];
        // As lines of Windows end.
        let mut line = line.strip_suffix(b"\r").unwrap_or(line);
        if !std::mem::replace(&mut self.is_begun, true) {
            if line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") {
                return Err(Failure::run(
                    "standard input is UTF-16 and must be UTF-8: convert it, as 'iconv -f UTF-16 -t UTF-8' does",
                ));
            }
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        let text = String::from_utf8_lossy(line);
        if matches!(text, std::borrow::Cow::Owned(_)) {
            note_invalid();
        }
        Ok(Typed::Text(text.into_owned()))
    }
}
