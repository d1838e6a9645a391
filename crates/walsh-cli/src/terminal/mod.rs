//! A line editor on the terminal.
//!
//! It waits for keys and signals alike, and gives back what was typed with the
//! bytes that came behind it kept for the next time: whatever a terminal sends,
//! and whenever, nothing that was typed is lost.

mod history;
mod keys;
mod line;
mod screen;
mod visible;

use std::io::{self, IsTerminal, Write};

use crate::got::Got;
use crate::interrupt::Signals;
use crate::system::{self, Input, Keys, Terminal};
pub(crate) use history::History;
use keys::{Decoder, Key};
use line::{Line, Step};
use screen::{Screen, Size};
pub(crate) use visible::{push_visible, tab, width};

/// What came of reading a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    Text(String),
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D, or the terminal is gone.
    End,
    /// A signal asks the program to end.
    Ending,
}

/// The columns of a terminal, 80 where it does not say.
pub(crate) fn columns(terminal: impl Terminal) -> usize {
    size(terminal).columns
}

fn size(terminal: impl Terminal) -> Size {
    let (columns, rows) = system::size(terminal).unzip();
    let or = |known: Option<u16>, default| known.filter(|&n| n > 0).map_or(default, usize::from);
    Size {
        // A wide character needs two.
        columns: or(columns, 80).max(2),
        rows: or(rows, 24),
    }
}

/// The output that is a terminal.
#[derive(Debug, Clone, Copy)]
enum Out {
    Stdout,
    Stderr,
}

impl Out {
    fn size(self) -> Size {
        match self {
            Self::Stdout => size(io::stdout()),
            Self::Stderr => size(io::stderr()),
        }
    }

    fn print(self, text: &str) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(text.as_bytes()),
        }
    }
}

/// Reads texts from a terminal that people type on.
pub(crate) struct Editor {
    out: Out,
    input: Input,
    decoder: Decoder,
    history: History,
    limit: usize,
    killed: String,
    invalid: usize,
    too_long: bool,
}

impl Editor {
    /// An editor of texts of at most `limit` bytes, where standard input is a
    /// terminal and one of the outputs is.
    pub(crate) fn new(limit: usize) -> Option<Self> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let out = match (io::stdout().is_terminal(), io::stderr().is_terminal()) {
            (true, _) => Out::Stdout,
            (_, true) => Out::Stderr,
            _ => return None,
        };
        Some(Self {
            out,
            input: Input::default(),
            decoder: Decoder::default(),
            history: History::default(),
            limit,
            killed: String::new(),
            invalid: 0,
            too_long: false,
        })
    }

    /// What was typed before.
    pub(crate) fn history(&mut self) -> &mut History {
        &mut self.history
    }

    /// How many bytes that are not UTF-8 were replaced in the latest text, and
    /// whether some of it was left out as it had no room.
    pub(crate) fn take_faults(&mut self) -> (usize, bool) {
        let too_long = std::mem::take(&mut self.too_long);
        (std::mem::take(&mut self.invalid), too_long)
    }

    /// Lets a text be typed behind a prompt.
    pub(crate) fn read(&mut self, prompt: &str, signals: &Signals) -> io::Result<Typed> {
        let raw = RawMode::enter(self.out)?;
        let mut edit = Edit::new(prompt, &mut self.killed, self.history.texts());
        let mut screen = Screen::default();
        let mut shown = self.out.size();
        self.out.print(&screen.draw(prompt, &edit.line, shown))?;
        loop {
            let mut is_drawn = true;
            while let Some(key) = self.decoder.next() {
                is_drawn = false;
                match key {
                    Key::Invalid => self.invalid += 1,
                    Key::Suspend => {
                        self.out
                            .print(&screen.leave(&edit.prompt(), &edit.line, shown))?;
                        raw.suspend()?;
                        continue;
                    }
                    Key::Redraw => self.out.print("\x1b[H\x1b[2J")?,
                    _ => {}
                }
                let room = self.limit.saturating_sub(edit.line.text().len());
                match edit.take(key, room) {
                    Taken::On => {}
                    Taken::NoRoom => self.too_long = true,
                    Taken::Done(typed) => {
                        self.out.print(&screen.leave(prompt, &edit.line, shown))?;
                        return Ok(match typed {
                            Typed::Text(_) => Typed::Text(edit.line.into_text()),
                            other => other,
                        });
                    }
                }
            }
            let now = self.out.size();
            if now != shown {
                screen.resized(&edit.prompt(), &edit.line, now);
                (shown, is_drawn) = (now, false);
            }
            if !is_drawn {
                self.out
                    .print(&screen.draw(&edit.prompt(), &edit.line, shown))?;
            }
            if self.decoder.waiting().len() > self.limit {
                // A paste without an end.
                self.decoder = Decoder::default();
                self.too_long = true;
            }
            let timeout = self.decoder.is_escape().then_some(ESCAPE_MILLISECONDS);
            match self.input.wait(signals.wake(), timeout)? {
                Got::Bytes(bytes) => self.decoder.push(bytes),
                Got::Nothing => self.decoder.give_up(),
                Got::End => return Ok(Typed::End),
                Got::Signal if signals.is_ending() => return Ok(Typed::Ending),
                Got::Signal if signals.take_interrupt() => {
                    self.out.print(&screen.leave(prompt, &edit.line, shown))?;
                    return Ok(Typed::Interrupt);
                }
                Got::Signal => {}
            }
        }
    }
}

/// How long an Escape waits for what may belong to it.
const ESCAPE_MILLISECONDS: u32 = 50;

/// A terminal that hands over each key, until this is dropped.
struct RawMode {
    keys: Keys,
    out: Out,
}

impl RawMode {
    fn enter(out: Out) -> io::Result<Self> {
        let mode = Self {
            keys: Keys::of_terminal()?,
            out,
        };
        mode.start()?;
        Ok(mode)
    }

    fn start(&self) -> io::Result<()> {
        self.keys.each()?;
        // Pasted texts come between marks from here on.
        self.out.print("\x1b[?2004h")
    }

    fn stop(&self) -> io::Result<()> {
        let printed = self.out.print("\x1b[?2004l");
        self.keys.put_back()?;
        printed
    }

    fn suspend(&self) -> io::Result<()> {
        self.stop()?;
        system::suspend()?;
        self.start()
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to be put back.
        let _ = self.stop();
    }
}

/// What a key led to.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    On,
    /// The text is as long as it may be.
    NoRoom,
    Done(Typed),
}

/// A text being typed.
struct Edit<'e> {
    prompt: &'e str,
    line: Line,
    killed: &'e mut String,
    texts: &'e [String],
    /// Which of the texts is shown; their number for the one that is new.
    at: usize,
    /// The new one, while another is shown.
    new: Line,
    search: Option<Search>,
}

/// A search for a text that was typed before.
#[derive(Debug, Default)]
struct Search {
    wanted: String,
    /// What was there when it began.
    before: Line,
    at: usize,
}

impl<'e> Edit<'e> {
    fn new(prompt: &'e str, killed: &'e mut String, texts: &'e [String]) -> Self {
        Self {
            prompt,
            line: Line::default(),
            killed,
            texts,
            at: texts.len(),
            new: Line::default(),
            search: None,
        }
    }

    fn prompt(&self) -> String {
        match &self.search {
            Some(search) => format!("(search '{}') ", search.wanted),
            None => self.prompt.to_owned(),
        }
    }

    fn take(&mut self, key: Key, room: usize) -> Taken {
        let key = match self.search.take() {
            Some(search) => match self.search_on(search, key) {
                Some(key) => key,
                None => return Taken::On,
            },
            None => key,
        };
        match key {
            Key::Char(character) => return self.insert(character.encode_utf8(&mut [0; 4]), room),
            Key::Paste(text) => return self.insert(&text, room),
            Key::Invalid => return self.insert("\u{fffd}", room),
            Key::Break => return self.insert("\n", room),
            Key::Yank => {
                let text = self.killed.clone();
                return self.insert(&text, room);
            }
            Key::Enter => return Taken::Done(Typed::Text(String::new())),
            Key::Interrupt => return Taken::Done(Typed::Interrupt),
            Key::End if self.line.text().is_empty() => return Taken::Done(Typed::End),
            Key::End => drop(self.line.delete(Step::Forward)),
            Key::Move(step) => self.line.step(step),
            Key::Delete(step @ (Step::Back | Step::Forward)) => drop(self.line.delete(step)),
            Key::Delete(step) => *self.killed = self.line.delete(step),
            Key::Up if self.line.up() => {}
            Key::Up => self.show(self.at.checked_sub(1)),
            Key::Down if self.line.down() => {}
            Key::Down => self.show(Some(self.at + 1)),
            Key::Search => {
                self.search = Some(Search {
                    wanted: String::new(),
                    before: self.line.clone(),
                    at: self.at,
                });
            }
            Key::Redraw | Key::Suspend | Key::Other => {}
        }
        Taken::On
    }

    fn insert(&mut self, text: &str, room: usize) -> Taken {
        if text.len() > room {
            return Taken::NoRoom;
        }
        self.line.insert(text);
        Taken::On
    }

    /// Shows one of the texts, if there is one of that number.
    fn show(&mut self, at: Option<usize>) {
        let Some(at) = at.filter(|&at| at <= self.texts.len()) else {
            return;
        };
        if self.at == self.texts.len() {
            self.new = self.line.clone();
        }
        self.line = match self.texts.get(at) {
            Some(text) => Line::new(text),
            None => std::mem::take(&mut self.new),
        };
        self.at = at;
    }

    /// Goes on with a search; a key that ends it is given back.
    fn search_on(&mut self, mut search: Search, key: Key) -> Option<Key> {
        let older = match key {
            Key::Char(character) => {
                search.wanted.push(character);
                self.at.saturating_add(1)
            }
            Key::Delete(Step::Back) => {
                search.wanted.pop();
                self.texts.len()
            }
            Key::Search => self.at,
            Key::Interrupt => {
                (self.line, self.at) = (search.before, search.at);
                return None;
            }
            other => return Some(other),
        };
        let before = &self.texts[..older.min(self.texts.len())];
        if let Some(at) = before
            .iter()
            .rposition(|text| text.contains(&search.wanted))
        {
            self.show(Some(at));
        }
        self.search = Some(search);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is typed with these bytes, over these earlier texts.
    fn typed(bytes: &[u8], texts: &[&str]) -> (String, Taken) {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let mut killed = String::new();
        let mut edit = Edit::new("> ", &mut killed, &texts);
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        let mut taken = Taken::On;
        while let Some(key) = decoder.next() {
            let room = 64 - edit.line.text().len();
            taken = edit.take(key, room);
        }
        (edit.line.into_text(), taken)
    }

    #[test]
    fn keys_edit() {
        assert_eq!(typed(b"ab\x1b[Dc\x01d\x05e\x7f", &[]).0, "dacb");
        assert_eq!(typed(b"one two\x17\x01\x19", &[]).0, "twoone ");
        assert_eq!(typed(b"a\xffb", &[]).0, "a\u{fffd}b");
        assert_eq!(
            typed(b"a\x1b\nb\x1b\rc\x1b[200~d\re\x1b[201~", &[]).0,
            "a\nb\ncd\ne"
        );
        assert_eq!(typed(b"a\x04", &[]), ("a".to_owned(), Taken::On));
        assert_eq!(typed(b"\x04", &[]).1, Taken::Done(Typed::End));
        assert_eq!(typed(b"a\x03", &[]).1, Taken::Done(Typed::Interrupt));
        let (text, taken) = typed(&[b'x'; 70], &[]);
        assert_eq!((text.len(), taken), (64, Taken::NoRoom));
    }

    #[test]
    fn earlier_texts_come_back() {
        let texts = ["first one", "second"];
        assert_eq!(typed(b"\x1b[A", &texts).0, "second");
        assert_eq!(typed(b"\x1b[A\x1b[A\x1b[A", &texts).0, "first one");
        assert_eq!(typed(b"new\x1b[A\x1b[B", &texts).0, "new");
        assert_eq!(typed(b"new\x1b[B", &texts).0, "new");
        assert_eq!(typed(b"\x12o", &texts).0, "second");
        assert_eq!(typed(b"\x12o\x12", &texts).0, "first one");
        assert_eq!(typed(b"\x12one\x05!", &texts).0, "first one!");
        assert_eq!(typed(b"new\x12o\x03", &texts).0, "new");
    }
}
