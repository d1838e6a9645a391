//! gpt-oss's messages: `<|channel|>commentary to=functions.name <|constrain|>json<|message|>{…}<|call|>`, with reasoning in
//! the channel `analysis` and the answer in `final`.

use super::family::{Family, Lookout, Out};
use super::json::{Fed, Follower};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const END: &str = "<|end|>";
const CALL: &str = "<|call|>";
const RETURN: &str = "<|return|>";
const CONSTRAIN: &str = "<|constrain|>";

pub(super) const MARKERS: [&str; 7] = [START, CHANNEL, MESSAGE, END, CALL, RETURN, CONSTRAIN];

/// What begins a head, where one need not be there.
const HEADS: [&str; 4] = [START, CHANNEL, MESSAGE, " to="];

/// What ends a message: without an end of its own, the head of the next.
const ENDS: [&str; 5] = [END, CALL, RETURN, START, CHANNEL];

/// The longest head, in bytes.
const LONGEST_HEAD: usize = 512;

#[derive(Debug)]
pub(super) struct Harmony {
    state: State,
    marks: Lookout,
}

#[derive(Debug)]
enum State {
    /// Where an answer begins: a head, or text.
    Begin(String),
    /// Within a head, of which this has come.
    Head(String),
    Text,
    Reasoning,
    /// The head of a call, the tool's name, and its arguments once they have begun.
    Call {
        head: String,
        name: String,
        arguments: Option<Follower>,
    },
    /// Behind a message.
    Between,
}

impl Harmony {
    /// After a prompt, which may have begun a message.
    pub(super) fn new(prompt: &str) -> Self {
        let open = prompt.rfind(MESSAGE).is_some_and(|at| {
            let rest = &prompt[at..];
            ![START, END, CALL, RETURN]
                .iter()
                .any(|mark| rest.contains(mark))
        });
        let head = || {
            prompt
                .rfind(START)
                .map(|at| &prompt[at..])
                .unwrap_or_default()
        };
        let state = match open {
            true if channel(head()) == "analysis" => State::Reasoning,
            true => State::Text,
            false => State::Begin(String::new()),
        };
        Self {
            state,
            marks: Lookout::default(),
        }
    }

    /// A head is complete.
    fn message(&mut self, head: String, out: &Out) {
        self.state = match recipient(&head) {
            Some(name) if out.knows(name) => State::Call {
                name: name.to_owned(),
                head,
                arguments: None,
            },
            // Nobody is there by this name: what is said to it is shown as it is.
            Some(_) => State::Call {
                name: String::new(),
                head,
                arguments: None,
            },
            None if channel(&head) == "analysis" => State::Reasoning,
            None => State::Text,
        };
    }

    /// A mark ends a message, and may begin the next.
    fn ended(&mut self, mark: &str) {
        self.state = match mark {
            START | CHANNEL => State::Head(mark.to_owned()),
            _ => State::Between,
        };
    }

    fn call(&mut self, c: char, out: &mut Out) {
        let State::Call {
            head,
            name,
            arguments,
        } = &mut self.state
        else {
            return;
        };
        if let Some(follower) = arguments {
            let in_text = follower.is_in_text();
            match follower.push(c) {
                Fed::Part => return out.argument(c, in_text),
                Fed::Last => {
                    out.argument(c, in_text);
                    return self.state = State::Between;
                }
                Fed::Behind | Fed::Wrong => self.state = State::Text,
            }
            return self.body(c, out);
        }
        let held = !self.marks.is_clear();
        if c.is_whitespace() && !held {
            return head.push(c);
        }
        if c == '{' && !held && !name.is_empty() {
            out.call(name);
            *arguments = Some(Follower::default());
            return self.call(c, out);
        }
        let mut other = String::new();
        let mark = self.marks.push(c, &ENDS, &mut |c| other.push(c));
        if let Some(mark) = mark {
            match name.is_empty() {
                // No arguments are an empty object.
                false if matches!(mark, CALL | END | RETURN) => {
                    out.call(name);
                    out.arguments("{}");
                }
                _ => out.text(head),
            }
            self.ended(mark);
        } else if !other.is_empty() {
            out.text(head);
            out.text(&other);
            self.state = State::Text;
        }
    }

    /// A character of a message.
    fn body(&mut self, c: char, out: &mut Out) {
        let reasoning = matches!(self.state, State::Reasoning);
        let mark = self.marks.push(c, &ENDS, &mut |c| match reasoning {
            true => out.reasoning(c.encode_utf8(&mut [0; 4])),
            false => out.char(c),
        });
        if let Some(mark) = mark {
            self.ended(mark);
        }
    }
}

/// The channel that a head names.
fn channel(head: &str) -> &str {
    let (_, rest) = head.rsplit_once(CHANNEL).unwrap_or_default();
    let end = rest.find(|c: char| !c.is_ascii_alphabetic());
    &rest[..end.unwrap_or(rest.len())]
}

/// To whom a head says that its message goes.
fn recipient(head: &str) -> Option<&str> {
    let (_, rest) = head.split_once("to=")?;
    let end = rest.find(|c: char| c.is_whitespace() || c == '<');
    let name = &rest[..end.unwrap_or(rest.len())];
    Some(name.strip_prefix("functions.").unwrap_or(name))
}

impl Family for Harmony {
    fn push(&mut self, c: char, out: &mut Out) {
        match &mut self.state {
            State::Begin(held) => {
                held.push(c);
                if HEADS.contains(&held.as_str()) {
                    let head = std::mem::take(held);
                    match head.as_str() {
                        MESSAGE => self.message(head, out),
                        _ => self.state = State::Head(head),
                    }
                } else if !HEADS.iter().any(|head| head.starts_with(held.as_str())) {
                    let held = std::mem::take(held);
                    self.state = State::Text;
                    held.chars().for_each(|c| self.body(c, out));
                }
            }
            State::Head(head) => {
                head.push(c);
                if head.ends_with(MESSAGE) {
                    let head = std::mem::take(head);
                    self.message(head, out);
                } else if head.len() > LONGEST_HEAD || c == '\n' {
                    out.text(head);
                    self.state = State::Text;
                }
            }
            State::Call { .. } => self.call(c, out),
            State::Text | State::Reasoning => self.body(c, out),
            State::Between if c.is_whitespace() && self.marks.is_clear() => out.char(c),
            State::Between => {
                let mut other = String::new();
                let mark = self.marks.push(c, &ENDS, &mut |c| other.push(c));
                if let Some(mark) = mark {
                    self.ended(mark);
                } else if !other.is_empty() {
                    out.text(&other);
                    self.state = State::Text;
                }
            }
        }
    }

    fn finish(&mut self, out: &mut Out) {
        let held = self.marks.finish();
        match &mut self.state {
            State::Begin(head) | State::Head(head) => {
                // A head that is cut off says nothing yet.
                let begun = head.starts_with(CHANNEL) || head.starts_with(START);
                if !begun {
                    out.text(head);
                }
            }
            State::Call {
                head,
                arguments: None,
                name,
            } if name.is_empty() => {
                out.text(head);
                out.text(&held);
            }
            // The end token itself is not always part of the text.
            State::Call {
                head,
                name,
                arguments: None,
            } => {
                if held.is_empty() && head.contains(MESSAGE) {
                    out.call(name);
                    out.arguments("{}");
                }
            }
            State::Reasoning => out.reasoning(&held),
            State::Text => out.text(&held),
            State::Call { .. } | State::Between => {}
        }
    }
}
