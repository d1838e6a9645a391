//! How one vector becomes of a text.

use std::fmt;

/// How a text's vectors, one behind each token (the residual stream after the output norm), become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The last.
    Last,
}

impl Pooling {
    /// Every way, with its name in options.
    pub const ALL: [(&'static str, Self); 2] = [("mean", Self::Mean), ("last", Self::Last)];

    /// The one of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|(known, _)| *known == name);
        known.map(|(_, pooling)| pooling)
    }

    /// Its name in options: `mean` or `last`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Last => "last",
        }
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
