//! Recorded lists that are kept to be run again.

use std::collections::VecDeque;

use walsh::Step;

/// The most recently used lists, each with what it was recorded for.
pub(crate) struct Steps<K> {
    most: usize,
    /// The latest last.
    kept: VecDeque<(K, Step)>,
}

impl<K: PartialEq> Steps<K> {
    /// Keeps so many.
    pub(crate) fn new(most: usize) -> Self {
        let kept = VecDeque::with_capacity(most);
        Self { most, kept }
    }

    /// Takes the list for a key out, if it is there.
    pub(crate) fn take(&mut self, key: &K) -> Option<Step> {
        let found = self.kept.iter().position(|(known, _)| known == key)?;
        self.kept.remove(found).map(|(_, step)| step)
    }

    /// Puts a list in, as the latest.
    pub(crate) fn keep(&mut self, key: K, step: Step) {
        if self.kept.len() == self.most {
            self.kept.pop_front();
        }
        self.kept.push_back((key, step));
    }
}
