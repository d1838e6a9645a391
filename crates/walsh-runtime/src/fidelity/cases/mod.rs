//! Questions, made from a seed: the same ones on every machine, and the first of many those of few.

mod case;
mod greedy;
mod recall;
mod sums;
mod tools;
mod words;

use std::fmt;

use walsh::formats::random::SplitMix64;

pub(super) use self::case::{Case, Measure};
use super::task::FidelityTask;
use crate::Result;

/// Questions that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// Answers of so many tokens.
    Greedy {
        tokens: usize,
    },
    /// Questions and answers of so many tokens.
    Recall {
        length: usize,
    },
    Sums,
    Tools,
}

impl Group {
    /// Those of a task; `tokens` are those of a greedy answer.
    pub(super) fn of(task: FidelityTask, tokens: usize) -> Vec<Self> {
        match task {
            FidelityTask::Greedy => vec![Self::Greedy { tokens }],
            FidelityTask::Recall => FidelityTask::LENGTHS
                .map(|length| Self::Recall { length })
                .to_vec(),
            FidelityTask::Sums => vec![Self::Sums],
            FidelityTask::Tools => vec![Self::Tools],
        }
    }

    pub(super) fn task(self) -> FidelityTask {
        match self {
            Self::Greedy { .. } => FidelityTask::Greedy,
            Self::Recall { .. } => FidelityTask::Recall,
            Self::Sums => FidelityTask::Sums,
            Self::Tools => FidelityTask::Tools,
        }
    }

    /// The tokens that a question and its answer fill, where that is what the group is about.
    pub(super) fn length(self) -> Option<usize> {
        match self {
            Self::Recall { length } => Some(length),
            _ => None,
        }
    }

    /// Question number `index`.
    ///
    /// # Errors
    /// What `measure` returns.
    pub(super) fn case(self, seed: u64, index: usize, measure: &Measure<'_>) -> Result<Case> {
        let task = SplitMix64(seed).bits() ^ (self.task() as u64) << 56;
        // Neighbouring states give unrelated numbers, which become states of their own.
        let mut random = SplitMix64(SplitMix64(task ^ index as u64).bits());
        match self {
            Self::Greedy { tokens } => Ok(greedy::greedy(&mut random, index, tokens)),
            Self::Recall { length } => recall::recall(&mut random, index, length, measure),
            Self::Sums => Ok(sums::sum(&mut random)),
            Self::Tools => Ok(tools::call(&mut random)),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length() {
            Some(length) => write!(f, "{} at {length} tokens", self.task()),
            None => self.task().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_follow_from_the_seed_and_differ_from_each_other() {
        let words = |case: &Case| Ok(case.question.split(' ').count());
        for group in FidelityTask::ALL
            .into_iter()
            .flat_map(|task| Group::of(task, 8))
            .filter(|group| group.length() != Some(16384))
        {
            let case = |seed, index| group.case(seed, index, &words).expect("a question");
            let cases: Vec<Case> = (0..12).map(|index| case(1, index)).collect();
            for (index, first) in cases.iter().enumerate() {
                assert_eq!(*first, case(1, index), "{group}");
                assert_ne!(*first, case(2, index), "{group}");
                assert!(!cases[..index].contains(first), "{group} {index}");
            }
        }
    }
}
