//! JSON as it comes, a character at a time.

/// How deep values may nest: what reads them has a bound too.
const DEEPEST: usize = 100;

/// What a character was to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// A part of it.
    Part,
    /// Its last part.
    Last,
    /// What follows it: the value ended before.
    Behind,
    /// Nothing that can be there.
    Wrong,
}

/// Follows one value of JSON. In its strings, control characters may stand as they are, as models write them so.
#[derive(Clone, Debug, Default)]
pub(super) struct Follower {
    /// Of each value that is open, whether it is an object.
    open: Vec<bool>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Value,
    /// A value or the end of a list.
    Item,
    /// A name or the end of an object.
    NameOrEnd,
    Name,
    Colon,
    /// A comma or an end.
    Behind,
    Text(Text, bool),
    Literal(&'static str),
    Number(Number),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Plain,
    Escape,
    /// So many digits, their value, and whether the first half of a pair was before it.
    Digits(u8, u16, bool),
    /// After the first half of a pair, and its backslash.
    Half(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

impl Follower {
    /// Whether a character that came last is inside of a string.
    pub(super) fn is_in_text(&self) -> bool {
        matches!(self.state, State::Text(..))
    }

    pub(super) fn push(&mut self, c: char) -> Fed {
        if self.state == State::Over {
            return Fed::Behind;
        }
        match self.next(c) {
            Some(State::Over) => {
                self.state = State::Over;
                Fed::Last
            }
            Some(state) => {
                self.state = state;
                Fed::Part
            }
            // A number ends where something else begins.
            None => match self.state {
                State::Number(Number::Zero | Number::Whole | Number::Fraction | Number::Power) => {
                    self.state = self.ended();
                    match self.state {
                        State::Over => Fed::Behind,
                        _ => self.push(c),
                    }
                }
                _ => Fed::Wrong,
            },
        }
    }

    /// Where a value's end leads.
    fn ended(&self) -> State {
        match self.open.is_empty() {
            true => State::Over,
            false => State::Behind,
        }
    }

    fn close(&mut self, object: bool) -> Option<State> {
        (self.open.pop()? == object).then(|| self.ended())
    }

    fn next(&mut self, c: char) -> Option<State> {
        let space = matches!(c, ' ' | '\t' | '\n' | '\r');
        match self.state {
            State::Text(text, name) => self.text(text, name, c),
            State::Literal(rest) => {
                let rest = rest.strip_prefix(c)?;
                Some(match rest.is_empty() {
                    true => self.ended(),
                    false => State::Literal(rest),
                })
            }
            State::Number(number) => number.next(c).map(State::Number),
            state if space => Some(state),
            State::Item if c == ']' => self.close(false),
            State::Value | State::Item => self.value(c),
            State::NameOrEnd if c == '}' => self.close(true),
            State::NameOrEnd | State::Name => (c == '"').then_some(State::Text(Text::Plain, true)),
            State::Colon => (c == ':').then_some(State::Value),
            State::Behind => match (c, *self.open.last()?) {
                (',', true) => Some(State::Name),
                (',', false) => Some(State::Value),
                ('}', true) => self.close(true),
                (']', false) => self.close(false),
                _ => None,
            },
            State::Over => None,
        }
    }

    fn value(&mut self, c: char) -> Option<State> {
        match c {
            '{' | '[' => {
                self.open.push(c == '{');
                (self.open.len() <= DEEPEST).then_some(match c {
                    '{' => State::NameOrEnd,
                    _ => State::Item,
                })
            }
            '"' => Some(State::Text(Text::Plain, false)),
            't' => Some(State::Literal("rue")),
            'f' => Some(State::Literal("alse")),
            'n' => Some(State::Literal("ull")),
            '-' => Some(State::Number(Number::Minus)),
            '0' => Some(State::Number(Number::Zero)),
            '1'..='9' => Some(State::Number(Number::Whole)),
            _ => None,
        }
    }

    fn text(&self, text: Text, name: bool, c: char) -> Option<State> {
        let next = match (text, c) {
            (Text::Plain, '"') => {
                return Some(match name {
                    true => State::Colon,
                    false => self.ended(),
                });
            }
            (Text::Plain, '\\') => Text::Escape,
            (Text::Plain, _) => Text::Plain,
            (Text::Escape, 'u') => Text::Digits(0, 0, false),
            (Text::Escape, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => Text::Plain,
            (Text::Half(false), '\\') => Text::Half(true),
            (Text::Half(true), 'u') => Text::Digits(0, 0, true),
            (Text::Digits(count, value, paired), _) => {
                let value = value << 4 | c.to_digit(16)? as u16;
                let (high, low) = (0xd800..0xdc00, 0xdc00..0xe000);
                match count {
                    0..3 => Text::Digits(count + 1, value, paired),
                    _ if paired != low.contains(&value) => return None,
                    _ if high.contains(&value) => Text::Half(false),
                    _ => Text::Plain,
                }
            }
            _ => return None,
        };
        Some(State::Text(next, name))
    }
}

impl Number {
    fn next(self, c: char) -> Option<Self> {
        Some(match (self, c) {
            (Self::Minus, '0') => Self::Zero,
            (Self::Minus, '1'..='9') | (Self::Whole, '0'..='9') => Self::Whole,
            (Self::Zero | Self::Whole, '.') => Self::Point,
            (Self::Point | Self::Fraction, '0'..='9') => Self::Fraction,
            (Self::Zero | Self::Whole | Self::Fraction, 'e' | 'E') => Self::Exponent,
            (Self::Exponent, '+' | '-') => Self::Sign,
            (Self::Exponent | Self::Sign | Self::Power, '0'..='9') => Self::Power,
            _ => return None,
        })
    }
}

/// Appends a character of JSON, or of a string in it that may have control characters as they are.
pub(super) fn write(out: &mut String, c: char, in_text: bool) {
    match c {
        '\n' if in_text => out.push_str("\\n"),
        '\r' if in_text => out.push_str("\\r"),
        '\t' if in_text => out.push_str("\\t"),
        '\0'..='\x1f' if in_text => out.push_str(&format!("\\u{:04x}", c as u32)),
        _ => out.push(c),
    }
}

/// Appends a character of a string's text to the inside of a string of JSON.
pub(super) fn escape(out: &mut String, c: char) {
    if matches!(c, '"' | '\\') {
        out.push('\\');
    }
    write(out, c, true);
}
