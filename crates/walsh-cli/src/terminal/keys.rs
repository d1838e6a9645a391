//! From a terminal's bytes to keys.

use super::line::Step;

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    /// A text that was pasted, with `\n` at the ends of its lines.
    Paste(String),
    /// Bytes that are not UTF-8, as many as one replacement character stands for.
    Invalid,
    Enter,
    /// A line break within the text.
    Break,
    Move(Step),
    Delete(Step),
    Up,
    Down,
    Yank,
    Redraw,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    End,
    Suspend,
    /// Looks for a text in the history.
    Search,
    /// A key that means nothing here.
    Other,
}

/// Takes bytes, gives keys.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
    at: usize,
}

const PASTE_END: &[u8] = b"\x1b[201~";

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that no key was made of yet.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Whether all that waits is an Escape, which is a key of its own when nothing
    /// follows it soon.
    pub(crate) fn is_escape(&self) -> bool {
        self.waiting() == b"\x1b"
    }

    /// Takes a lone Escape for that key.
    pub(crate) fn give_up(&mut self) {
        if self.is_escape() {
            self.at += 1;
        }
    }

    /// The next key; `None` until more bytes are there.
    pub(crate) fn next(&mut self) -> Option<Key> {
        let (key, length) = key(self.waiting())?;
        self.at += length;
        Some(key)
    }
}

/// The key that these bytes begin with, and how many of them it is.
fn key(bytes: &[u8]) -> Option<(Key, usize)> {
    let &first = bytes.first()?;
    let key = match first {
        0x1b => return escape(bytes),
        // A terminal that is not raw yet makes the one of the other.
        b'\r' | b'\n' => Key::Enter,
        0x01 => Key::Move(Step::LineStart),
        0x02 => Key::Move(Step::Back),
        0x03 => Key::Interrupt,
        0x04 => Key::End,
        0x05 => Key::Move(Step::LineEnd),
        0x06 => Key::Move(Step::Forward),
        0x08 | 0x7f => Key::Delete(Step::Back),
        b'\t' => Key::Char('\t'),
        0x0b => Key::Delete(Step::LineEnd),
        0x0c => Key::Redraw,
        0x0e => Key::Down,
        0x10 => Key::Up,
        0x12 => Key::Search,
        0x15 => Key::Delete(Step::LineStart),
        0x17 => Key::Delete(Step::WordBack),
        0x19 => Key::Yank,
        0x1a => Key::Suspend,
        0x00..=0x1f => Key::Other,
        _ => return character(bytes),
    };
    Some((key, 1))
}

fn character(bytes: &[u8]) -> Option<(Key, usize)> {
    let few = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(few) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(&few[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => return error.error_len().map(|length| (Key::Invalid, length)),
    };
    let character = valid.chars().next()?;
    Some((Key::Char(character), character.len_utf8()))
}

/// Keys that a terminal sends as an Escape and more.
fn escape(bytes: &[u8]) -> Option<(Key, usize)> {
    let &second = bytes.get(1)?;
    let (key, length) = match second {
        b'[' => return control_sequence(bytes),
        b'O' => (letter(*bytes.get(2)?, false), 3),
        b'\r' | b'\n' => (Key::Break, 2),
        b'b' => (Key::Move(Step::WordBack), 2),
        b'f' => (Key::Move(Step::WordForward), 2),
        b'd' => (Key::Delete(Step::WordForward), 2),
        0x08 | 0x7f => (Key::Delete(Step::WordBack), 2),
        0x1b => (Key::Other, 1),
        // A letter with Alt.
        _ => (Key::Other, 1 + character(&bytes[1..])?.1),
    };
    Some((key, length))
}

/// `ESC [`, numbers, and a letter that ends it.
fn control_sequence(bytes: &[u8]) -> Option<(Key, usize)> {
    let body = &bytes[2..];
    let end = body.iter().position(|byte| !(0x20..=0x3f).contains(byte))?;
    let length = 2 + end + 1;
    let parameters = &body[..end];
    if body[end] == b'~' && parameters == b"200" {
        return paste(bytes, length);
    }
    let with_modifier = parameters.contains(&b';');
    let key = match (body[end], parameters) {
        (b'~', [b'1' | b'7', ..]) => Key::Move(Step::LineStart),
        (b'~', [b'4' | b'8', ..]) => Key::Move(Step::LineEnd),
        (b'~', [b'3', ..]) => Key::Delete(Step::Forward),
        (b'~', _) => Key::Other,
        (last, _) => letter(last, with_modifier),
    };
    // What is no end of a sequence stays, to be a key of its own.
    let is_end = (0x40..=0x7e).contains(&body[end]);
    Some((key, if is_end { length } else { length - 1 }))
}

fn letter(letter: u8, with_modifier: bool) -> Key {
    match (letter, with_modifier) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', false) => Key::Move(Step::Forward),
        (b'C', true) => Key::Move(Step::WordForward),
        (b'D', false) => Key::Move(Step::Back),
        (b'D', true) => Key::Move(Step::WordBack),
        (b'H', _) => Key::Move(Step::LineStart),
        (b'F', _) => Key::Move(Step::LineEnd),
        _ => Key::Other,
    }
}

/// A pasted text, which starts at `start`.
fn paste(bytes: &[u8], start: usize) -> Option<(Key, usize)> {
    let body = &bytes[start..];
    let end = body
        .windows(PASTE_END.len())
        .position(|window| window == PASTE_END)?;
    let text = String::from_utf8_lossy(&body[..end])
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    Some((Key::Paste(text), start + end + PASTE_END.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.next()).collect()
    }

    #[test]
    fn keys_are_the_same_however_their_bytes_come() {
        let bytes =
            "aé漢🙂\x1b[A\x1bOB\x1b[1;5C\x1b[3~\x1b[200~x\r\ny\x1b[201~\x1bb\x7f\r".as_bytes();
        let expected = [
            Key::Char('a'),
            Key::Char('é'),
            Key::Char('漢'),
            Key::Char('🙂'),
            Key::Up,
            Key::Down,
            Key::Move(Step::WordForward),
            Key::Delete(Step::Forward),
            Key::Paste("x\ny".to_owned()),
            Key::Move(Step::WordBack),
            Key::Delete(Step::Back),
            Key::Enter,
        ];
        assert_eq!(keys(bytes), expected);
        let mut decoder = Decoder::default();
        let mut one_by_one = Vec::new();
        for byte in bytes {
            decoder.push(&[*byte]);
            one_by_one.extend(std::iter::from_fn(|| decoder.next()));
        }
        assert_eq!(one_by_one, expected);
        assert!(decoder.waiting().is_empty());
    }

    #[test]
    fn bytes_that_are_not_utf_8_take_nothing_with_them() {
        let expected = [Key::Char('f'), Key::Invalid, Key::Char('x'), Key::Enter];
        assert_eq!(keys(b"f\xe9x\r"), expected);
        assert_eq!(keys(b"f\xffx\r"), expected);
        assert_eq!(keys(b"\xe9\r"), [Key::Invalid, Key::Enter]);
        assert_eq!(keys(b"\xc3"), []);
    }

    #[test]
    fn an_escape_alone_waits_and_is_given_up() {
        let mut decoder = Decoder::default();
        decoder.push(b"\x1b");
        assert_eq!(decoder.next(), None);
        assert!(decoder.is_escape());
        decoder.give_up();
        decoder.push(b"h");
        assert_eq!(decoder.next(), Some(Key::Char('h')));
        assert_eq!(keys(b"\x1b[\x03"), [Key::Other, Key::Interrupt]);
        assert_eq!(keys("\x1bé".as_bytes()), [Key::Other]);
    }
}
