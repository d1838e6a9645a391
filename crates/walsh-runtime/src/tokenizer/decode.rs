//! From tokens back to text.

use super::Tokenizer;

/// Turns tokens into text as they come, giving out whole characters only.
///
/// A character can take several tokens: its bytes are held back until it is complete. Bytes that can
/// never become UTF-8 come out as U+FFFD.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
    show_control: bool,
}

impl Decoder {
    /// A decoder that leaves control tokens out of the text.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// A decoder that writes control tokens by their names, such as `<|im_end|>`.
    pub fn showing_control() -> Decoder {
        Decoder {
            show_control: true,
            ..Decoder::default()
        }
    }

    /// A decoder for what follows `tokens`, whose text is known: it begins with the bytes of a character that
    /// they leave incomplete.
    pub fn after(tokenizer: &Tokenizer, tokens: &[i32]) -> Decoder {
        const LONGEST: usize = 4;
        let mut decoder = Decoder::new();
        let mut bytes = 0;
        let first = tokens.iter().rposition(|&token| {
            if !tokenizer.is_control(token) {
                bytes += tokenizer.token_bytes(token).len();
            }
            bytes >= LONGEST
        });
        for &token in &tokens[first.unwrap_or(0)..] {
            decoder.push(tokenizer, token);
        }
        decoder
    }

    /// Whether bytes of an incomplete character are held back.
    pub fn is_within_character(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes one more token; returns what has become readable, which may be nothing.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: i32) -> String {
        if self.show_control || !tokenizer.is_control(token) {
            self.pending
                .extend_from_slice(&tokenizer.token_bytes(token));
        }
        self.take(false)
    }

    /// Ends the text; returns U+FFFD for a character that was left incomplete, else nothing.
    pub fn finish(&mut self) -> String {
        self.take(true)
    }

    fn take(&mut self, end: bool) -> String {
        let mut text = String::new();
        let mut used = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            used += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            if !end && used + invalid.len() == self.pending.len() && is_start(invalid) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            used += invalid.len();
        }
        self.pending.drain(..used);
        text
    }
}

/// Whether more bytes could make a character of these.
fn is_start(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
