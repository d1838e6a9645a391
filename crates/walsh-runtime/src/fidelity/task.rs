//! What models are asked to do.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::Error;

/// A kind of question whose answers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FidelityTask {
    /// A request in words, answered at length: how far two answers are the same, token by token.
    Greedy,
    /// A number that stands somewhere in a long text, asked for at its end.
    Recall,
    /// A sum of several steps in words.
    Sums,
    /// A request for which one of some tools has to be called, in JSON.
    Tools,
}

impl FidelityTask {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Greedy, Self::Recall, Self::Sums, Self::Tools];

    /// The tokens that a question of [`Recall`](Self::Recall) and its answer take.
    pub const LENGTHS: [usize; 3] = [2048, 8192, 16384];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Recall => "recall",
            Self::Sums => "sums",
            Self::Tools => "tools",
        }
    }

    /// How many questions are asked when nothing is said: of [`Recall`](Self::Recall) of each length.
    #[must_use]
    pub const fn default_count(self) -> usize {
        match self {
            Self::Greedy => 50,
            Self::Recall => 10,
            Self::Sums | Self::Tools => 200,
        }
    }

    /// Whether an answer is right or wrong, and not only the same or another.
    #[must_use]
    pub const fn is_judged(self) -> bool {
        !matches!(self, Self::Greedy)
    }
}

impl fmt::Display for FidelityTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FidelityTask {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let named = Self::ALL.into_iter().find(|task| task.name() == text);
        named.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::option("task", format_args!("one of {names}"), text)
        })
    }
}
