//! Numbers in JSON that end: a schema lets them have any number of digits, and small models go on with them for ever.

use llguidance::toktrie::SimpleVob;

use crate::tokenizer::Tokenizer;

/// The most digits behind each other: more than any number of 64 bits has.
const MOST: usize = 20;

/// The tokens that begin with a digit.
pub(super) fn digits(tokenizer: &Tokenizer) -> SimpleVob {
    let mut digits = SimpleVob::alloc(tokenizer.vocab_size());
    for token in 0..tokenizer.vocab_size() as u32 {
        let bytes = tokenizer.token_bytes(token as i32);
        if bytes.first().is_some_and(u8::is_ascii_digit) {
            digits.allow_token(token);
        }
    }
    digits
}

/// Where a text of JSON is.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    in_string: bool,
    is_escaped: bool,
    /// Digits behind each other, outside of strings.
    run: usize,
}

impl Numbers {
    /// The text goes on.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = self.in_string,
                b'"' => self.in_string = !self.in_string,
                _ => {}
            }
            self.run = match byte.is_ascii_digit() && !self.in_string {
                true => self.run + 1,
                false => 0,
            };
        }
    }

    /// Whether no digit is to follow, if something else may.
    pub(super) fn is_long(&self) -> bool {
        self.run >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_strings_are_none() {
        let is_long = |text: &str| {
            let mut numbers = Numbers::default();
            numbers.push(text.as_bytes());
            numbers.is_long()
        };
        let long = "1".repeat(MOST);
        assert!(is_long(&long) && is_long(&format!("{{\"a\\\"\": [0.{long}")));
        for text in [
            &long[1..],
            &format!("\"{long}"),
            &format!("\"\\\"{long}"),
            &format!("{long},"),
            &format!("{long}e"),
        ] {
            assert!(!is_long(text), "{text}");
        }
    }
}
