//! From a template's source to its syntax tree, by `minijinja`'s lexer and parser.
//!
//! What that reads otherwise than Jinja2 is rewritten or refused before it is parsed, and so is what
//! would take its parser, which calls itself, too deep.

use minijinja::machinery::{Token, Tokenizer, ast};
use minijinja::syntax::SyntaxConfig;

use super::budget::{Fault, Outcome, fail};

/// Templates of known models have up to 30 kB.
const LONGEST_SOURCE: usize = 1 << 20;

/// The lexer counts columns in 16 bits.
const LONGEST_LINE: usize = 60_000;

/// How many words and signs may lie between a pair of delimiters.
const LONGEST_TAG: usize = 4096;

/// How many blocks, and branches of them, may be open at once.
const MOST_OPEN: usize = 512;

/// What `{% generation %}` becomes: a call block that `exec` knows.
pub(super) const GENERATION: &str = "__generation__";

/// A source that `parse` may be given.
pub(super) struct Source(String);

impl Source {
    /// # Errors
    /// When the source is too long or nested too deeply, its blocks do not match, or it cannot be cut
    /// into words.
    pub(super) fn new(text: &str) -> Outcome<Source> {
        if text.len() > LONGEST_SOURCE {
            return fail(format!(
                "it has {} bytes, more than the {LONGEST_SOURCE} that are allowed",
                text.len()
            ));
        }
        if let Some(line) = text
            .split(['\n', '\r'])
            .position(|line| line.len() > LONGEST_LINE)
        {
            let fault = Fault::new(format!("a line has more than {LONGEST_LINE} bytes"));
            return Err(fault.at(line + 1));
        }
        // Jinja2 reads every kind of line end as a line feed.
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut edits = Scan::new(&text)?.run()?;
        edits.sort_by_key(|edit| edit.0);
        let mut out = String::with_capacity(text.len() + 64);
        let mut last = 0;
        for (start, end, new) in edits {
            out.push_str(&text[last..start]);
            out.push_str(&new);
            last = end;
        }
        out.push_str(&text[last..]);
        Ok(Source(out))
    }

    pub(super) fn parse(&self) -> Outcome<ast::Stmt<'_>> {
        minijinja::machinery::parse(&self.0, "template", config()?)
            .map_err(|error| readable(&error))
    }
}

/// Blocks take the line end after them and the spaces before them along.
fn config() -> Outcome<SyntaxConfig> {
    let mut config = SyntaxConfig::builder();
    config.trim_blocks(true).lstrip_blocks(true);
    config.build().map_err(|error| readable(&error))
}

fn readable(error: &minijinja::Error) -> Fault {
    let message = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    Fault {
        message,
        line: error.line(),
    }
}

/// A part of the source, by its bytes, and what is put there.
type Edit = (usize, usize, String);

/// A pass over the words of a source.
struct Scan<'text> {
    text: &'text str,
    tokens: Tokenizer<'text>,
    /// The open blocks, each with how many branches it has so far.
    open: Vec<(&'text str, usize)>,
    /// All blocks and branches that are open.
    depth: usize,
    edits: Vec<Edit>,
}

/// One word, with the bytes of the source that it is.
struct Word<'text> {
    token: Token<'text>,
    start: usize,
    end: usize,
    line: usize,
}

impl<'text> Scan<'text> {
    fn new(text: &'text str) -> Outcome<Scan<'text>> {
        Ok(Scan {
            text,
            tokens: Tokenizer::new(text, "template", false, config()?),
            open: Vec::new(),
            depth: 0,
            edits: Vec::new(),
        })
    }

    fn next(&mut self) -> Outcome<Option<Word<'text>>> {
        let next = self.tokens.next_token().map_err(|error| readable(&error))?;
        Ok(next.map(|(token, span)| Word {
            token,
            start: span.start_offset as usize,
            end: span.end_offset as usize,
            line: span.start_line.into(),
        }))
    }

    fn run(mut self) -> Outcome<Vec<Edit>> {
        while let Some(word) = self.next()? {
            let line = word.line;
            match word.token {
                Token::TemplateData(_) => self.raw(word.start),
                Token::BlockStart => self.tag(true).map_err(|fault| fault.at(line))?,
                _ => self.tag(false).map_err(|fault| fault.at(line))?,
            }
        }
        Ok(self.edits)
    }

    /// Jinja2 keeps the line end after `{% raw %}`, which minijinja drops: one more is put there.
    fn raw(&mut self, start: usize) {
        let before = &self.text[..start];
        let Some(tag) = before
            .strip_suffix("%}")
            .and_then(|before| before.rsplit_once("{%"))
        else {
            return;
        };
        let name = tag.1.trim_start_matches(['-', '+']).trim();
        if name == "raw" && self.text[start..].starts_with('\n') {
            self.edits.push((start, start, "\n".to_string()));
        }
    }

    /// Reads a tag to its end.
    fn tag(&mut self, block: bool) -> Outcome<()> {
        let mut name = None;
        let mut words = 0;
        let mut brackets = 0i64;
        let mut assigns = false;
        let mut tuple = false;
        let (mut first, mut last) = (None, 0);
        while let Some(word) = self.next()? {
            words += 1;
            if words > LONGEST_TAG {
                return fail(format!("a tag has more than {LONGEST_TAG} words and signs"));
            }
            if matches!(word.token, Token::VariableEnd | Token::BlockEnd) {
                break;
            }
            first.get_or_insert(word.start);
            last = word.end;
            match word.token {
                Token::Ident(ident) if words == 1 && block => {
                    name = Some((ident, word.start, word.end));
                }
                Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => brackets += 1,
                Token::ParenClose | Token::BracketClose | Token::BraceClose => brackets -= 1,
                Token::Assign if brackets == 0 => assigns = true,
                Token::Comma if brackets == 0 => tuple = true,
                Token::Str(_) | Token::String(_) => self.literal(&word)?,
                Token::Int(value) if value > 0 && self.padded(&word) => {
                    return fail("a number begins with 0");
                }
                _ => {}
            }
        }
        if let (true, false, Some(first)) = (tuple, block, first) {
            // A tuple needs no brackets in Jinja2.
            self.edits.push((first, first, "(".to_string()));
            self.edits.push((last, last, ")".to_string()));
        }
        let Some((name, start, end)) = name else {
            return Ok(());
        };
        match name {
            "do" => return fail("unknown tag 'do'"),
            "generation" => self
                .edits
                .push((start, end, format!("call {GENERATION}()"))),
            "endgeneration" => self.edits.push((start, end, "endcall".to_string())),
            _ => {}
        }
        match name {
            "for" | "if" | "with" | "autoescape" | "filter" | "block" | "macro" | "call"
            | "generation" => self.begin(name),
            "set" if !assigns => self.begin(name),
            "else" | "elif" => {
                if let Some(open) = self.open.last_mut() {
                    open.1 += 1;
                    self.depth += 1;
                }
                self.bounded()
            }
            _ => match name.strip_prefix("end") {
                Some(begun) => self.end(begun),
                None => Ok(()),
            },
        }
    }

    /// Whether a number has a zero before its digits, which Python does not read.
    fn padded(&self, word: &Word<'_>) -> bool {
        let digits = &self.text.as_bytes()[word.start..word.end];
        matches!(digits, [b'0', second, ..] if second.is_ascii_digit())
    }

    fn begin(&mut self, name: &'text str) -> Outcome<()> {
        self.open.push((name, 1));
        self.depth += 1;
        self.bounded()
    }

    fn bounded(&self) -> Outcome<()> {
        if self.depth > MOST_OPEN {
            return fail(format!(
                "more than {MOST_OPEN} blocks and branches are open at once"
            ));
        }
        Ok(())
    }

    fn end(&mut self, begun: &str) -> Outcome<()> {
        match self.open.pop() {
            Some((name, branches)) if name == begun => {
                self.depth -= branches;
                Ok(())
            }
            Some((name, _)) => fail(format!("'end{begun}' stands where 'end{name}' is expected")),
            None => fail(format!("'end{begun}' ends nothing")),
        }
    }

    /// Puts a string with escapes there as Python reads it, where minijinja reads others.
    fn literal(&mut self, word: &Word<'text>) -> Outcome<()> {
        let text = &self.text[word.start..word.end];
        if !text.contains('\\') {
            return Ok(());
        }
        let value = unescape(&text[1..text.len() - 1])?;
        let mut new = String::from("\"");
        for c in value.chars() {
            match c {
                '"' => new.push_str("\\\""),
                '\\' => new.push_str("\\\\"),
                // As they are, they would move the lines of what follows, or end the tag's line.
                '\n' => new.push_str("\\n"),
                _ => new.push(c),
            }
        }
        new.push('"');
        // A line that is left out by a backslash at its end still counts.
        let lines = text.matches('\n').count();
        new.push_str(&"\n".repeat(lines));
        self.edits.push((word.start, word.end, new));
        Ok(())
    }
}

/// The text of a string literal, as Python's codec `unicode-escape` reads it.
fn unescape(text: &str) -> Outcome<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(escape) = chars.next() else {
            return fail("a string ends in a backslash");
        };
        let mut digits = |most: usize, radix: u32| {
            let rest = chars.as_str();
            let end = rest
                .char_indices()
                .take(most)
                .find(|(_, c)| !c.is_digit(radix))
                .map_or(rest.len().min(most), |(at, _)| at);
            let (digits, after) = rest.split_at_checked(end)?;
            chars = after.chars();
            Some((digits.len(), u32::from_str_radix(digits, radix).ok()?))
        };
        let code = match escape {
            '\n' => continue,
            '\\' | '\'' | '"' => {
                out.push(escape);
                continue;
            }
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(10),
            'r' => Some(13),
            't' => Some(9),
            'v' => Some(11),
            'x' | 'u' | 'U' => {
                let len = match escape {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                match digits(len, 16) {
                    Some((found, code)) if found == len => Some(code),
                    _ => {
                        return fail(format!(
                            "\\{escape} in a string needs {len} hexadecimal digits"
                        ));
                    }
                }
            }
            '0'..='7' => {
                let first = escape.to_digit(8).unwrap_or(0);
                match digits(2, 8) {
                    Some((1, next)) => Some(first * 8 + next),
                    Some((2, next)) => Some(first * 64 + next),
                    _ => Some(first),
                }
            }
            'N' => return fail("characters by their names are not supported in strings"),
            other => {
                out.push('\\');
                out.push(other);
                continue;
            }
        };
        match code.and_then(char::from_u32) {
            Some(c) => out.push(c),
            None => return fail("a string has a code that is no character"),
        }
    }
    Ok(out)
}
