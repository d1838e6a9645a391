//! What answers come to, counted.

use serde::Serialize;

use super::answer::Verdict;
use super::task::FidelityTask;

/// The normal distribution's quantile behind intervals of 95%.
const Z: f64 = 1.959_963_985;

/// What was found about several caches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FidelityReport {
    /// The model's name.
    pub model: String,
    /// The device, and what its kernels were chosen for.
    pub device: String,
    /// What the questions were made from.
    pub seed: u64,
    /// Whether questions went through the model's chat template, or were texts to go on with.
    pub chat: bool,
    /// The SPECs in the order given, the one that others are compared with first.
    pub specs: Vec<FidelitySpec>,
    /// What was asked: an entry for a task, of `recall` one for each length.
    pub tasks: Vec<TaskFidelity>,
    /// What was asked for and cannot be had of this model, a line each.
    pub left_out: Vec<String>,
    /// What to know before the figures are believed, a line each.
    pub warnings: Vec<String>,
    /// Whether the run was ended before all questions were answered with all SPECs.
    pub cancelled: bool,
}

/// A SPEC.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FidelitySpec {
    /// As it was given.
    pub kv: String,
    /// What it was fitted to the model as, of a budget where there is a fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What the cache holds for a token, over all layers, in bytes.
    pub kv_bytes_per_token: u64,
    /// Bits for a number of a key or a value, scales included, over keys and values together.
    pub bits_per_value: f64,
    /// Over all tasks with right and wrong answers: the questions that are answered rightly or not as with the first
    /// SPEC. None where no such task was asked for.
    pub same_verdict: Option<Proportion>,
    /// Over all tasks: the questions whose result is the first SPEC's.
    pub same_result: Proportion,
}

/// A task, or one length of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskFidelity {
    /// The task.
    pub task: FidelityTask,
    /// The tokens that a question and its answer fill, of `recall`.
    pub length: Option<usize>,
    /// Questions that were answered with all SPECs.
    pub cases: usize,
    /// Questions that were to be.
    pub planned: usize,
    /// One entry per SPEC, in the order given.
    pub results: Vec<SpecFidelity>,
}

/// What a SPEC does in a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpecFidelity {
    /// The SPEC as it was given.
    pub kv: String,
    /// Questions that were answered rightly. This and the next three are none for `greedy`, which knows no right and wrong.
    pub right: Option<Proportion>,
    /// Questions that were answered rightly or not as with the first SPEC.
    pub same_verdict: Option<Proportion>,
    /// Questions that only the first SPEC answers rightly.
    pub lost: Option<usize>,
    /// Questions that only this SPEC answers rightly.
    pub gained: Option<usize>,
    /// Questions whose result is the first SPEC's: the number or the call that is found in the answer, or that there is
    /// none, and for `greedy` all tokens.
    pub same_result: Proportion,
    /// How far answers are the first SPEC's, of `greedy`.
    pub equal_tokens: Option<EqualTokens>,
}

/// How often something was the case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Proportion {
    /// How often.
    pub count: usize,
    /// Of how many times.
    pub of: usize,
    /// The one by the other; 0 of nothing.
    pub share: f64,
    /// The lower end of the 95% confidence interval (Wilson's).
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The tokens of answers before the first that differs from the first SPEC's answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EqualTokens {
    /// Mean over the answers; all of an answer's tokens where none differs.
    pub mean: f64,
    /// The lower end of the mean's 95% confidence interval (normal distribution, answers taken as independent).
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Those of all answers together, of the tokens of the first SPEC's answers.
    pub share: f64,
}

/// An answer, as far as it counts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) tokens: Vec<i32>,
    pub(super) verdict: Option<Verdict>,
}

impl Proportion {
    /// `count` of `of` times, with Wilson's interval (1927).
    #[must_use]
    pub fn new(count: usize, of: usize) -> Self {
        let (n, z2) = (of as f64, Z * Z);
        let share = count as f64 / n.max(1.0);
        let centre = (n * share + z2 / 2.0) / (n + z2);
        let half = Z / (n + z2) * (n * share * (1.0 - share) + z2 / 4.0).sqrt();
        Self {
            count,
            of,
            share,
            low: (centre - half).max(0.0),
            high: (centre + half).min(1.0),
        }
    }

    fn of<T>(items: &[T], is: impl Fn(&T) -> bool) -> Self {
        Self::new(items.iter().filter(|item| is(item)).count(), items.len())
    }

    /// The proportion over what several count.
    fn together<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let sums = parts.into_iter().fold((0, 0), |(count, of), part| {
            (count + part.count, of + part.of)
        });
        Self::new(sums.0, sums.1)
    }
}

impl EqualTokens {
    /// Of pairs of the equal tokens and the reference's tokens.
    fn new(pairs: &[(usize, usize)]) -> Self {
        let n = pairs.len().max(1) as f64;
        let sum = |of: fn(&(usize, usize)) -> usize| pairs.iter().map(of).sum::<usize>() as f64;
        let (equal, all) = (sum(|pair| pair.0), sum(|pair| pair.1));
        let mean = equal / n;
        let squares = pairs.iter().map(|pair| (pair.0 as f64 - mean).powi(2));
        let error = (squares.sum::<f64>() / n / (n - 1.0).max(1.0)).sqrt();
        Self {
            mean,
            low: (mean - Z * error).max(0.0),
            high: mean + Z * error,
            share: equal / all.max(1.0),
        }
    }
}

impl Answer {
    fn is_right(&self) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.right)
    }

    /// Whether what was found in it, or all of it, is what another has.
    fn has_result_of(&self, other: &Self) -> bool {
        match (&self.verdict, &other.verdict) {
            (Some(own), Some(other)) => own.found == other.found,
            _ => self.tokens == other.tokens,
        }
    }

    /// Its tokens before the first that differs from another's.
    fn equal_tokens(&self, other: &Self) -> usize {
        let pairs = self.tokens.iter().zip(&other.tokens);
        pairs.take_while(|(own, other)| own == other).count()
    }
}

/// What a SPEC's answers come to beside the first SPEC's answers to the same questions.
pub(super) fn compare(task: FidelityTask, kv: &str, pairs: &[(&Answer, &Answer)]) -> SpecFidelity {
    let count = |is: fn(bool, bool) -> bool| {
        Proportion::of(pairs, |(own, first)| is(own.is_right(), first.is_right()))
    };
    let judged = |is| task.is_judged().then(|| count(is));
    let equal = |(own, first): &(&Answer, &Answer)| (own.equal_tokens(first), first.tokens.len());
    SpecFidelity {
        kv: kv.to_owned(),
        right: judged(|own, _| own),
        same_verdict: judged(|own, first| own == first),
        lost: judged(|own, first| first && !own).map(|lost| lost.count),
        gained: judged(|own, first| own && !first).map(|gained| gained.count),
        same_result: Proportion::of(pairs, |(own, first)| own.has_result_of(first)),
        equal_tokens: (!task.is_judged())
            .then(|| EqualTokens::new(&pairs.iter().map(equal).collect::<Vec<_>>())),
    }
}

/// What SPEC number `index` does over all tasks: the verdicts and the results that are the first SPEC's.
pub(super) fn over_all(tasks: &[TaskFidelity], index: usize) -> (Option<Proportion>, Proportion) {
    let results = tasks.iter().filter_map(|task| task.results.get(index));
    let verdicts: Vec<&Proportion> = results
        .clone()
        .filter_map(|result| result.same_verdict.as_ref())
        .collect();
    let same_verdict = (!verdicts.is_empty()).then(|| Proportion::together(verdicts));
    let same_result = Proportion::together(results.map(|result| &result.same_result));
    (same_verdict, same_result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_wilsons() {
        for (count, of, low, high) in [
            // R: prop.test(count, of, correct = FALSE)
            (0, 10, 0.0, 0.27753),
            (10, 10, 0.72247, 1.0),
            (196, 200, 0.94972, 0.99219),
            (1, 2, 0.09453, 0.90547),
        ] {
            let found = Proportion::new(count, of);
            assert!((found.low - low).abs() < 1e-5, "{found:?}");
            assert!((found.high - high).abs() < 1e-5, "{found:?}");
            assert_eq!(found.share, count as f64 / of as f64);
        }
        let nothing = Proportion::new(0, 0);
        assert_eq!((nothing.share, nothing.high), (0.0, 1.0));
        assert!(nothing.low < 1e-12);
    }

    fn judged(right: bool, found: &str) -> Answer {
        let found = (!found.is_empty()).then(|| found.to_owned());
        Answer {
            tokens: Vec::new(),
            verdict: Some(Verdict { right, found }),
        }
    }

    #[test]
    fn answers_are_compared_by_verdict_and_by_result() {
        let own = [
            (true, "7"),
            (false, "8"),
            (false, "9"),
            (true, "3"),
            (false, ""),
        ];
        let first = [
            (true, "7"),
            (true, "7"),
            (false, "6"),
            (false, "4"),
            (false, ""),
        ];
        let answers = |of: &[(bool, &str)]| -> Vec<Answer> {
            of.iter()
                .map(|(right, found)| judged(*right, found))
                .collect()
        };
        let (own, first) = (answers(&own), answers(&first));
        let pairs: Vec<_> = own.iter().zip(&first).collect();
        let found = compare(FidelityTask::Sums, "tq4", &pairs);
        assert_eq!(found.right, Some(Proportion::new(2, 5)));
        assert_eq!(found.same_verdict, Some(Proportion::new(3, 5)));
        assert_eq!((found.lost, found.gained), (Some(1), Some(1)));
        assert_eq!(found.same_result, Proportion::new(2, 5));
        assert_eq!(found.equal_tokens, None);
        let task = TaskFidelity {
            task: FidelityTask::Sums,
            length: None,
            cases: 5,
            planned: 5,
            results: vec![found],
        };
        let twice = over_all(&[task.clone(), task], 0);
        assert_eq!(
            twice,
            (Some(Proportion::new(6, 10)), Proportion::new(4, 10))
        );
        assert_eq!(over_all(&[], 0), (None, Proportion::new(0, 0)));
    }

    #[test]
    fn greedy_answers_are_compared_token_by_token() {
        let answer = |tokens: &[i32]| Answer {
            tokens: tokens.to_vec(),
            verdict: None,
        };
        let own = [&[1, 2, 3, 4][..], &[1, 2, 9, 4], &[1, 2], &[5]].map(answer);
        let first = [
            &[1, 2, 3, 4][..],
            &[1, 2, 3, 4],
            &[1, 2, 3, 4],
            &[6, 7, 8, 9],
        ]
        .map(answer);
        let pairs: Vec<_> = own.iter().zip(&first).collect();
        let found = compare(FidelityTask::Greedy, "tq4", &pairs);
        assert_eq!(found.same_result, Proportion::new(1, 4));
        assert_eq!(
            (found.right, found.same_verdict, found.lost),
            (None, None, None)
        );
        let equal = found.equal_tokens.expect("counted");
        assert_eq!((equal.mean, equal.share), (2.0, 0.5));
        // The variance of 4, 2, 2, 0 is 8/3.
        let error = (8.0f64 / 3.0 / 4.0).sqrt();
        assert!((equal.high - (2.0 + Z * error)).abs() < 1e-12, "{equal:?}");
        assert!((equal.low - (2.0 - Z * error)).abs() < 1e-12, "{equal:?}");
    }
}
