//! Reasoning before an answer, between marks.

/// What reasoning lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) begin: &'static str,
    pub(super) end: &'static str,
}

/// Those that are known.
pub(super) const MARKS: [Marks; 3] = [
    Marks {
        begin: "<think>",
        end: "</think>",
    },
    Marks {
        begin: "[THINK]",
        end: "[/THINK]",
    },
    // A channel of Gemma 4's, and its name.
    Marks {
        begin: "<|channel>thought",
        end: "<channel|>",
    },
];

/// Where an answer is when a prompt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// Nothing is said of reasoning.
    No,
    /// The prompt has begun it.
    Open(Marks),
    /// The prompt has ended it.
    Closed,
}

impl Begun {
    /// By the end of a prompt.
    pub(super) fn of(prompt: &str) -> Self {
        let end = prompt.trim_end();
        for marks in MARKS {
            if end.ends_with(marks.begin) {
                return Self::Open(marks);
            }
            if end.ends_with(marks.end) {
                return Self::Closed;
            }
        }
        Self::No
    }
}

/// What a character of the output is.
pub(super) enum Said {
    Reasoning(String),
    /// Part of the answer.
    Answer(String),
}

/// Tells reasoning from the answer.
#[derive(Debug)]
pub(super) struct Reasoning {
    state: State,
    /// What is not yet decided.
    held: String,
    /// The marks that are looked for.
    known: Vec<Marks>,
}

#[derive(Debug)]
enum State {
    /// Where reasoning may begin, or begin again.
    Before {
        again: bool,
    },
    /// Between marks; `begun` once something but white space was said.
    Inside {
        marks: Marks,
        begun: bool,
    },
    Answer,
}

impl Reasoning {
    pub(super) fn new(prompt: &str, known: &[Marks]) -> Self {
        let mut known = known.to_vec();
        if known.is_empty() {
            // Models that reason are run with templates that say nothing of it.
            known.push(MARKS[0]);
        }
        let state = match Begun::of(prompt) {
            Begun::Open(marks) => State::Inside {
                marks,
                begun: false,
            },
            Begun::No | Begun::Closed => State::Before { again: false },
        };
        Self {
            state,
            held: String::new(),
            known,
        }
    }

    pub(super) fn push(&mut self, c: char, out: &mut Vec<Said>) {
        self.held.push(c);
        match &mut self.state {
            State::Answer => out.push(Said::Answer(std::mem::take(&mut self.held))),
            State::Before { again } => {
                let start = self.held.trim_start();
                if start.is_empty() {
                    return;
                }
                if let Some(marks) = self.known.iter().find(|marks| marks.begin == start) {
                    self.state = State::Inside {
                        marks: *marks,
                        begun: false,
                    };
                    self.held.clear();
                } else if !self
                    .known
                    .iter()
                    .any(|marks| marks.begin.starts_with(start))
                {
                    // The space behind reasoning is part of its mark.
                    let said = if *again { start } else { &self.held };
                    out.push(Said::Answer(said.to_owned()));
                    self.held.clear();
                    self.state = State::Answer;
                }
            }
            State::Inside { marks, begun } => {
                let end = marks.end;
                while !self.held.is_empty() {
                    let inner = self.held.trim_start();
                    if inner == end {
                        self.held.clear();
                        self.state = State::Before { again: true };
                        return;
                    }
                    if end.starts_with(inner) {
                        return;
                    }
                    // Space and one character can be no part of the mark.
                    let space = self.held.len() - inner.len();
                    let first = inner.chars().next().map_or(0, char::len_utf8);
                    let said: String = self.held.drain(..space + first).collect();
                    let said = if *begun {
                        said.as_str()
                    } else {
                        said.trim_start()
                    };
                    *begun = true;
                    out.push(Said::Reasoning(said.to_owned()));
                }
            }
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<Said>) {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Inside { begun, .. } => {
                let said = if begun { held.trim_end() } else { held.trim() };
                if !said.is_empty() {
                    out.push(Said::Reasoning(said.to_owned()));
                }
            }
            State::Before { again: true } if held.trim().is_empty() => {}
            _ if held.is_empty() => {}
            _ => out.push(Said::Answer(held)),
        }
    }
}
