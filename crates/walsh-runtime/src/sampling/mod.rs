//! Choosing the next token from the logits.
//!
//! The order of the steps and their meaning are llama.cpp's: repetition penalty, top-k, top-p, min-p,
//! temperature, draw. Top-p and min-p look at probabilities before the temperature is applied.

mod random;
mod recommended;

use std::cmp::Ordering;

use crate::error::{Error, Result};
pub use random::{Random, drawn_seed};
pub use recommended::RecommendedSampling;

/// How to choose the next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by before the draw; 0 takes the most probable token.
    pub temperature: f32,
    /// How many of the most probable tokens stay; 0 keeps all.
    pub top_k: usize,
    /// The fewest most probable tokens whose probabilities reach this sum stay; 1 keeps all.
    pub top_p: f32,
    /// Tokens at least this probable, relative to the most probable one, stay; 0 keeps all.
    pub min_p: f32,
    /// How much less likely recent tokens become: their logits are divided by it when positive and
    /// multiplied by it when not. From 0.01 to 100; 1 changes nothing.
    pub repetition_penalty: f32,
    /// How many of the latest tokens the penalty looks at.
    pub repetition_window: usize,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repetition_penalty: 1.0,
            repetition_window: 64,
        }
    }
}

impl Sampling {
    /// Always the most probable token, the first of equals.
    pub fn greedy() -> Sampling {
        Sampling {
            temperature: 0.0,
            ..Sampling::default()
        }
    }

    /// Whether the choice is always the most probable token by the model's own logits.
    pub(crate) fn takes_likeliest(&self) -> bool {
        self.temperature == 0.0 && self.repetition_penalty == 1.0
    }

    /// How many of the most probable tokens by the model's own logits the choice depends
    /// on, where that is not on all.
    pub(crate) fn considers(&self) -> Option<usize> {
        let ranked = self.temperature > 0.0 && self.repetition_penalty == 1.0 && self.top_k > 0;
        ranked.then_some(self.top_k)
    }

    fn validate(&self) -> Result<()> {
        let check = |ok: bool, name: &'static str, value: f32, range: &'static str| match ok {
            true => Ok(()),
            false => Err(Error::Sampling { name, value, range }),
        };
        let fraction = |value: f32| (0.0..=1.0).contains(&value);
        let Sampling {
            temperature,
            top_p,
            min_p,
            repetition_penalty,
            ..
        } = *self;
        let warm = temperature.is_finite() && temperature >= 0.0;
        check(warm, "temperature", temperature, "0 or above")?;
        check(fraction(top_p), "top_p", top_p, "from 0 to 1")?;
        check(fraction(min_p), "min_p", min_p, "from 0 to 1")?;
        // Beyond, what it makes of a logit may be no number.
        let penalty = (0.01..=100.0).contains(&repetition_penalty);
        let range = "from 0.01 to 100";
        check(penalty, "repetition_penalty", repetition_penalty, range)
    }
}

/// A token that may be chosen.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    token: i32,
}

impl Candidate {
    /// The most probable first; of equals the one with the lower id.
    fn order(&self, other: &Candidate) -> Ordering {
        other
            .logit
            .total_cmp(&self.logit)
            .then(self.token.cmp(&other.token))
    }
}

/// Chooses tokens one after the other. It keeps room to work in, and no state: what a choice depends on is passed.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: Sampling,
    penalised: Vec<f32>,
    /// The largest logit of each block of the vocabulary.
    peaks: Vec<f32>,
    /// Room to sort them in.
    sorted_peaks: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler.
    ///
    /// # Errors
    /// [`Error::Sampling`] when an option is out of its range.
    pub fn new(options: &Sampling) -> Result<Sampler> {
        options.validate()?;
        Ok(Sampler {
            options: *options,
            penalised: Vec::new(),
            peaks: Vec::new(),
            sorted_peaks: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// The next token by `logits`, one per token of the vocabulary, after `history`, the latest last. The same logits,
    /// history and state of `random` give the same token on every machine.
    ///
    /// # Errors
    /// [`Error::Logits`] when a logit is not a number or infinitely likely, or when no token is possible.
    pub fn sample(&mut self, logits: &[f32], history: &[i32], random: &mut Random) -> Result<i32> {
        let mut penalised = std::mem::take(&mut self.penalised);
        let logits = match self.options.repetition_penalty {
            1.0 => logits,
            penalty => {
                let window = self.options.repetition_window.min(history.len());
                penalised.clear();
                penalised.extend_from_slice(logits);
                penalise(&mut penalised, &history[history.len() - window..], penalty);
                &penalised
            }
        };
        let chosen = self.choose(logits, random);
        self.penalised = penalised;
        chosen
    }

    fn choose(&mut self, logits: &[f32], random: &mut Random) -> Result<i32> {
        let best = most_probable(logits, &mut self.peaks)?;
        if self.options.temperature == 0.0 {
            return Ok(best.token);
        }
        self.take_top_k(logits);
        Ok(self.choose_among(best, random))
    }

    /// The next token where those that [`Sampling::considers`] says are at hand, each with
    /// its logit, none of them NaN, the most probable first and of equals the one with the
    /// lower id.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub(crate) fn sample_top_k(&mut self, top: &[(f32, i32)], random: &mut Random) -> Result<i32> {
        self.candidates.clear();
        let candidate = |&(logit, token): &(f32, i32)| Candidate { logit, token };
        self.candidates.extend(top.iter().map(candidate));
        let best = *self.candidates.first().ok_or_else(nothing_possible)?;
        if best.logit == f32::INFINITY {
            return Err(impossible(best));
        }
        if best.logit == f32::NEG_INFINITY {
            return Err(nothing_possible());
        }
        Ok(self.choose_among(best, random))
    }

    /// Draws from the candidates.
    fn choose_among(&mut self, best: Candidate, random: &mut Random) -> i32 {
        self.keep_top_p(best.logit);
        if self.options.min_p > 0.0 {
            let least = best.logit + libm::logf(self.options.min_p);
            self.candidates.retain(|c| c.logit >= least);
        }
        self.draw(best, random)
    }

    /// Fills the candidates with the most probable tokens. The peaks are those of these logits.
    fn take_top_k(&mut self, logits: &[f32]) {
        self.candidates.clear();
        let k = self.options.top_k;
        // What cannot be is no candidate: under a constraint nearly nothing can.
        let can_be = |c: &Candidate| c.logit > f32::NEG_INFINITY;
        if k == 0 || k >= logits.len() {
            self.candidates.extend(candidates(logits, 0).filter(can_be));
            return;
        }
        // So many blocks hold a logit at least as large as their k-th largest peak: the k most probable tokens are among
        // those, and few blocks have any.
        self.sorted_peaks.clone_from(&self.peaks);
        let least = match k <= self.peaks.len() {
            true => {
                let descending = |a: &f32, b: &f32| b.total_cmp(a);
                *self
                    .sorted_peaks
                    .select_nth_unstable_by(k - 1, descending)
                    .1
            }
            false => f32::NEG_INFINITY,
        };
        for (block, (logits, peak)) in logits.chunks(BLOCK).zip(&self.peaks).enumerate() {
            if *peak >= least {
                let of_block = candidates(logits, block * BLOCK);
                self.candidates
                    .extend(of_block.filter(|c| c.logit >= least && can_be(c)));
            }
        }
        self.candidates.sort_unstable_by(Candidate::order);
        self.candidates.truncate(k);
    }

    /// Keeps the fewest candidates, the most probable first, that together reach top-p.
    fn keep_top_p(&mut self, best: f32) {
        let top_p = f64::from(self.options.top_p);
        if top_p >= 1.0 {
            return;
        }
        let weight = |c: &Candidate| f64::from(libm::expf(c.logit - best));
        let enough = top_p * self.candidates.iter().map(weight).sum::<f64>();
        let mut sum = 0.0;
        let mut sorted = 0;
        // Most of the sum lies in few tokens: sort no more than is needed.
        while sorted < self.candidates.len() {
            let rest = &mut self.candidates[sorted..];
            let count = (sorted * 3).max(64).min(rest.len());
            if count < rest.len() {
                rest.select_nth_unstable_by(count, Candidate::order);
            }
            rest[..count].sort_unstable_by(Candidate::order);
            for at in sorted..sorted + count {
                sum += weight(&self.candidates[at]);
                if sum >= enough {
                    self.candidates.truncate(at + 1);
                    return;
                }
            }
            sorted += count;
        }
    }

    fn draw(&self, best: Candidate, random: &mut Random) -> i32 {
        let temperature = self.options.temperature;
        let weight = |c: &Candidate| f64::from(libm::expf((c.logit - best.logit) / temperature));
        let sum: f64 = self.candidates.iter().map(weight).sum();
        let mut left = random.uniform() * sum;
        for candidate in &self.candidates {
            left -= weight(candidate);
            if left < 0.0 {
                return candidate.token;
            }
        }
        best.token
    }
}

/// Makes each of the `recent` tokens less likely, once.
fn penalise(logits: &mut [f32], recent: &[i32], penalty: f32) {
    for (at, token) in recent.iter().enumerate() {
        if recent[..at].contains(token) {
            continue;
        }
        if let Some(logit) = usize::try_from(*token)
            .ok()
            .and_then(|at| logits.get_mut(at))
        {
            *logit = if *logit > 0.0 {
                *logit / penalty
            } else {
                *logit * penalty
            };
        }
    }
}

/// The tokens of a piece of the logits that starts at token `first`.
fn candidates(logits: &[f32], first: usize) -> impl Iterator<Item = Candidate> {
    let tokens = first as i32..;
    let pairs = logits.iter().zip(tokens);
    pairs.map(|(&logit, token)| Candidate { logit, token })
}

/// How many logits have one peak.
const BLOCK: usize = 64;

/// The largest number, and whether one is NaN or positive infinity.
fn peak(logits: &[f32]) -> (f32, bool) {
    // Several at a time, which the compiler makes vectors of.
    const LANES: usize = 16;
    let (mut peaks, mut bad) = ([f32::NEG_INFINITY; LANES], [0u32; LANES]);
    let (whole, rest) = logits.as_chunks::<LANES>();
    let mut see = |lane: usize, x: f32| {
        peaks[lane] = if x > peaks[lane] { x } else { peaks[lane] };
        bad[lane] |= u32::from(x.is_nan() | (x == f32::INFINITY));
    };
    for chunk in whole {
        for lane in 0..LANES {
            see(lane, chunk[lane]);
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        see(lane, x);
    }
    let largest = peaks.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (largest, bad.into_iter().any(|bad| bad > 0))
}

/// The most probable token, the first of equals; `peaks` becomes the largest logit of each block.
fn most_probable(logits: &[f32], peaks: &mut Vec<f32>) -> Result<Candidate> {
    peaks.clear();
    let (mut best, mut best_block, mut any_bad) = (f32::NEG_INFINITY, 0, false);
    for (block, logits) in logits.chunks(BLOCK).enumerate() {
        let (largest, bad) = peak(logits);
        any_bad |= bad;
        peaks.push(largest);
        if largest > best {
            (best, best_block) = (largest, block);
        }
    }
    if any_bad {
        let bad = |c: &Candidate| c.logit.is_nan() || c.logit == f32::INFINITY;
        if let Some(found) = candidates(logits, 0).find(bad) {
            return Err(impossible(found));
        }
    }
    let first = best_block * BLOCK;
    candidates(&logits[first.min(logits.len())..], first)
        .find(|c| c.logit == best && best > f32::NEG_INFINITY)
        .ok_or_else(nothing_possible)
}

/// A logit that no model means.
fn impossible(Candidate { logit, token }: Candidate) -> Error {
    Error::Logits {
        what: format!("the logit of token {token} is {logit}"),
    }
}

fn nothing_possible() -> Error {
    Error::Logits {
        what: "no token is possible".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(options: Sampling) -> Sampler {
        Sampler::new(&options).unwrap()
    }

    /// The identity: all steps off.
    fn plain() -> Sampling {
        Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            ..Sampling::default()
        }
    }

    /// How often each token is drawn.
    fn counts<const N: usize>(options: Sampling, logits: [f32; N]) -> [usize; N] {
        let mut sampler = sampler(options);
        let mut random = Random::new(0);
        let mut counts = [0; N];
        for _ in 0..10_000 {
            counts[sampler.sample(&logits, &[], &mut random).unwrap() as usize] += 1;
        }
        counts
    }

    fn logits_of<const N: usize>(probabilities: [f32; N]) -> [f32; N] {
        probabilities.map(f32::ln)
    }

    #[test]
    fn greedy_takes_the_first_best() {
        let mut sampler = sampler(Sampling::greedy());
        let mut sample = |logits: &[f32]| sampler.sample(logits, &[], &mut Random::new(0)).unwrap();
        assert_eq!(sample(&[1.0, 3.0, 3.0, -2.0]), 1);
        assert_eq!(sample(&[f32::NEG_INFINITY, -9.0]), 1);
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_temperature() {
        let logits = logits_of([0.6, 0.3, 0.1]);
        let close = |count: usize, p: f64| (count as f64 / 10_000.0 - p).abs() < 0.02;
        let warm = counts(plain(), logits);
        assert!(close(warm[0], 0.6) && close(warm[1], 0.3), "{warm:?}");
        let cold = counts(
            Sampling {
                temperature: 0.5,
                ..plain()
            },
            logits,
        );
        assert!(
            close(cold[0], 0.36 / 0.46) && close(cold[1], 0.09 / 0.46),
            "{cold:?}"
        );
    }

    #[test]
    fn each_filter_keeps_what_it_says() {
        let logits = logits_of([0.1, 0.4, 0.05, 0.3, 0.15]);
        let kept = |options| counts(options, logits).map(|count| count > 0);
        assert_eq!(kept(plain()), [true; 5]);
        let top_k = kept(Sampling {
            top_k: 2,
            ..plain()
        });
        assert_eq!(top_k, [false, true, false, true, false]);
        let top_p = kept(Sampling {
            top_p: 0.71,
            ..plain()
        });
        assert_eq!(top_p, [false, true, false, true, true]);
        let one = kept(Sampling {
            top_p: 0.0,
            ..plain()
        });
        assert_eq!(one, [false, true, false, false, false]);
        let min_p = kept(Sampling {
            min_p: 0.3,
            ..plain()
        });
        assert_eq!(min_p, [false, true, false, true, true]);
        // Top-p counts only what top-k has left: 0.4 of 0.7.
        let both = kept(Sampling {
            top_k: 2,
            top_p: 0.55,
            ..plain()
        });
        assert_eq!(both, [false, true, false, false, false]);
    }

    #[test]
    fn recent_tokens_become_less_likely() {
        let options = Sampling {
            repetition_penalty: 2.0,
            repetition_window: 2,
            ..Sampling::greedy()
        };
        let mut sampler = sampler(options);
        let mut sample = |logits: &[f32], history: &[i32]| {
            sampler
                .sample(logits, history, &mut Random::new(0))
                .unwrap()
        };
        let logits = [3.0, 2.0, -1.0, -1.5];
        assert_eq!(sample(&logits, &[]), 0);
        assert_eq!(sample(&logits, &[0, 0]), 1); // once only: 1.5, not 0.75
        assert_eq!(sample(&logits, &[0, 0, 1]), 0);
        assert_eq!(sample(&logits, &[0, 2, 3]), 0);
        assert_eq!(sample(&[-1.0, -1.5], &[0, -7, 99]), 0); // out of the window
        assert_eq!(sample(&[-1.0, -1.5], &[99, 0]), 1);
    }

    #[test]
    fn large_vocabularies_agree_with_a_full_sort() {
        let mut random = Random::new(0);
        let logits: Vec<f32> = (0..50_000)
            .map(|_| (random.uniform() * 20.0) as f32)
            .collect();
        let mut sorted: Vec<Candidate> = logits
            .iter()
            .zip(0..)
            .map(|(&logit, token)| Candidate { logit, token })
            .collect();
        sorted.sort_by(Candidate::order);
        for top_k in [1, 40, 1000, 49_999, 0] {
            let mut sampler = sampler(Sampling { top_k, ..plain() });
            let best = most_probable(&logits, &mut sampler.peaks).unwrap();
            assert_eq!(best.token, sorted[0].token);
            sampler.take_top_k(&logits);
            let kept = if top_k == 0 { logits.len() } else { top_k };
            assert_eq!(sampler.candidates.len(), kept);
            sampler.options.top_p = 0.9;
            let weights: Vec<f64> = sorted[..kept]
                .iter()
                .map(|c| f64::from((c.logit - sorted[0].logit).exp()))
                .collect();
            let total: f64 = weights.iter().sum();
            let mut sum = 0.0;
            let enough = weights.iter().position(|w| {
                sum += w;
                sum >= 0.9 * total
            });
            sampler.keep_top_p(sorted[0].logit);
            let expected = enough.unwrap() + 1;
            assert!(
                sampler.candidates.len().abs_diff(expected) <= 1,
                "top-k {top_k}"
            );
            for (ours, theirs) in sampler.candidates.iter().zip(&sorted) {
                assert_eq!(ours.token, theirs.token);
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let run = |seed| -> Vec<i32> {
            let (mut sampler, mut random) = (sampler(plain()), Random::new(seed));
            (0..12)
                .map(|_| sampler.sample(&[0.0; 100], &[], &mut random).unwrap())
                .collect()
        };
        assert_eq!(run(1), [56, 74, 97, 44, 44, 76, 87, 52, 28, 79, 40, 60]);
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn bad_options_and_logits_are_errors() {
        for options in [
            Sampling {
                temperature: -0.1,
                ..plain()
            },
            Sampling {
                temperature: f32::NAN,
                ..plain()
            },
            Sampling {
                temperature: f32::INFINITY,
                ..plain()
            },
            Sampling {
                top_p: 1.5,
                ..plain()
            },
            Sampling {
                top_p: f32::NAN,
                ..plain()
            },
            Sampling {
                min_p: -0.5,
                ..plain()
            },
            Sampling {
                repetition_penalty: 0.0,
                ..plain()
            },
            Sampling {
                repetition_penalty: 1e-45,
                ..plain()
            },
            Sampling {
                repetition_penalty: 1e38,
                ..plain()
            },
            Sampling {
                repetition_penalty: f32::NAN,
                ..plain()
            },
        ] {
            let error = Sampler::new(&options).unwrap_err();
            assert!(matches!(error, Error::Sampling { .. }), "{options:?}");
        }
        let mut sampler = sampler(Sampling::greedy());
        for logits in [
            &[0.0, f32::NAN][..],
            &[f32::INFINITY],
            &[f32::NEG_INFINITY],
            &[],
        ] {
            let error = sampler
                .sample(logits, &[], &mut Random::new(0))
                .unwrap_err();
            assert!(matches!(error, Error::Logits { .. }), "{logits:?}");
        }
    }
}
