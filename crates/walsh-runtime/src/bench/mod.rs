//! Tokens per second of prefill and decode, at chosen depths of the cache.
//!
//! The measurements are those of llama.cpp's `llama-bench`: arbitrary tokens, a
//! warm-up, several repetitions. Behind each token of a decode the device looks for
//! the likeliest next one, as greedy generation does.

mod prefix;
mod profile;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde::Serialize;
use walsh::formats::kv::KvSpec;

use crate::engine::{Decoding, EngineOptions};
use crate::{Error, Model, Result, Session, SessionOptions, Watch};
pub use prefix::{PrefixOptions, PrefixResult, prefix};
pub use profile::{ProfileOptions, ProfileReport, ProfileRow, profile};

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Tokens per repetition of the prefill test; 0 leaves it out.
    pub prompt: usize,
    /// Tokens per repetition of the decode test; 0 leaves it out.
    pub generate: usize,
    /// How many tokens are in the cache when a repetition starts.
    pub depths: Vec<usize>,
    /// The KV codecs.
    pub kv: Vec<KvSpec>,
    /// How many texts are decoded at once, by an engine; empty for one, by a session, which is prefilled too.
    pub sequences: Vec<usize>,
    /// Repetitions of each test. `None`: 5, or 3 where a repetition with what
    /// prepares it takes more than five seconds.
    pub repetitions: Option<usize>,
    /// Setting it ends the run within a chunk of tokens. The tests that are done count.
    pub cancel: Arc<AtomicBool>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// The model's name.
    pub model: String,
    /// The device and what its kernels were chosen for.
    pub device: String,
    /// The device's worker threads.
    pub threads: usize,
    /// The bytes of weights that the device has packed ([`Model::packed_bytes`]).
    pub packed_bytes: u64,
    /// The bytes of the coarse copy with which the likeliest tokens are found
    /// ([`Model::screen_bytes`]).
    pub screen_bytes: u64,
    /// One entry per codec, depth and test.
    pub results: Vec<BenchResult>,
    /// Whether the run was ended before all tests were done.
    pub cancelled: bool,
}

/// The two kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BenchTest {
    /// Many tokens at once.
    Prefill,
    /// One token after the other.
    Decode,
}

/// One test's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchResult {
    /// Which kind of work.
    pub test: BenchTest,
    /// Tokens per repetition.
    pub tokens: usize,
    /// Tokens in the cache at the start of a repetition, of each text.
    pub depth: usize,
    /// How many texts went on at once.
    pub sequences: usize,
    /// The KV codec.
    pub kv: String,
    /// The median over the repetitions.
    pub tokens_per_second: f64,
    /// The slowest repetition.
    pub min: f64,
    /// The fastest repetition.
    pub max: f64,
    /// The host's time to hand a decoded token's work to the device; absent where the
    /// host does the work itself.
    pub submit_microseconds: Option<f64>,
}

/// Runs every test and hands each result out as soon as it is there.
///
/// # Errors
/// When there is nothing to measure, or the model cannot take the context that
/// a depth needs. When it is cancelled before a test was done.
pub fn bench(
    model: &Model,
    options: &BenchOptions,
    each: &mut dyn FnMut(&BenchResult),
) -> Result<BenchReport> {
    let tests = [
        (BenchTest::Prefill, options.prompt),
        (BenchTest::Decode, options.generate),
    ];
    let longest = options.prompt.max(options.generate);
    let Some(deepest) = options.depths.iter().max() else {
        return Err(Error::measure(
            "there is no depth to measure at: give at least one",
        ));
    };
    if longest == 0 || options.kv.is_empty() || options.repetitions == Some(0) {
        return Err(Error::measure(
            "there is nothing to measure: ask for prompt or generated tokens, a KV codec and a repetition",
        ));
    }
    let context = deepest.checked_add(longest).ok_or_else(|| {
        Error::measure("the depth is too large: use one within the model's context")
    })?;
    let watch = Watch::cancelled_by(&options.cancel);
    let mut results = Vec::new();
    let mut cancelled = false;
    if !options.sequences.is_empty() {
        let tokens = arbitrary_tokens(context, model.config().vocabulary);
        match several(model, options, (&tokens, &watch), &mut |result| {
            each(&result);
            results.push(result);
        }) {
            Err(Error::Cancelled) if !results.is_empty() => cancelled = true,
            measured => measured?,
        }
        return Ok(report(model, results, cancelled));
    }
    'tests: for kv in &options.kv {
        let mut session = model.session(SessionOptions {
            context,
            kv: kv.clone(),
            ..SessionOptions::default()
        })?;
        session.set_watch(watch.clone());
        let tokens = arbitrary_tokens(context, model.config().vocabulary);
        for &depth in &options.depths {
            for (test, count) in tests.into_iter().filter(|&(_, count)| count > 0) {
                let case = Case {
                    test,
                    count,
                    depth,
                    tokens: &tokens,
                    watch: &watch,
                };
                let (rates, submit) = match case.measure(&mut session, options.repetitions) {
                    Err(Error::Cancelled) if !results.is_empty() => {
                        cancelled = true;
                        break 'tests;
                    }
                    measured => measured?,
                };
                let submit = submit.filter(|_| test == BenchTest::Decode);
                let result = case.result(kv, 1, &rates, submit);
                each(&result);
                results.push(result);
            }
        }
    }
    Ok(report(model, results, cancelled))
}

fn report(model: &Model, results: Vec<BenchResult>, cancelled: bool) -> BenchReport {
    let properties = model.device().properties();
    BenchReport {
        model: model.name().to_owned(),
        device: properties.to_string(),
        threads: properties.parallelism,
        packed_bytes: model.packed_bytes(),
        screen_bytes: model.screen_bytes(),
        results,
        cancelled,
    }
}

/// Decodes several texts at once, at each depth and with each codec.
fn several(
    model: &Model,
    options: &BenchOptions,
    (tokens, watch): (&[i32], &Watch),
    each: &mut dyn FnMut(BenchResult),
) -> Result<()> {
    if options.generate == 0 || options.sequences.contains(&0) {
        return Err(Error::measure(
            "there is nothing to measure: ask for generated tokens and one sequence at least",
        ));
    }
    for kv in &options.kv {
        for &depth in &options.depths {
            for &sequences in &options.sequences {
                let case = Case {
                    test: BenchTest::Decode,
                    count: options.generate,
                    depth,
                    tokens,
                    watch,
                };
                let rates = case.measure_several(model, (kv, sequences), options.repetitions)?;
                each(case.result(kv, sequences, &rates, None));
            }
        }
    }
    Ok(())
}

/// One test at one depth.
struct Case<'a> {
    test: BenchTest,
    count: usize,
    depth: usize,
    tokens: &'a [i32],
    watch: &'a Watch,
}

impl Case<'_> {
    fn result(
        &self,
        kv: &KvSpec,
        sequences: usize,
        rates: &[f64],
        submit_microseconds: Option<f64>,
    ) -> BenchResult {
        BenchResult {
            test: self.test,
            tokens: self.count,
            depth: self.depth,
            sequences,
            kv: kv.to_string(),
            tokens_per_second: median(rates),
            min: rates.iter().copied().fold(f64::INFINITY, f64::min),
            max: rates.iter().copied().fold(0.0, f64::max),
            submit_microseconds,
        }
    }

    /// Tokens per second, of all texts together, of each repetition of a decode of several.
    fn measure_several(
        &self,
        model: &Model,
        (kv, sequences): (&KvSpec, usize),
        repetitions: Option<usize>,
    ) -> Result<Vec<f64>> {
        // Nothing can be decoded behind nothing.
        let depth = self.depth.max(1);
        let options = EngineOptions {
            sequences,
            context: depth + self.count + 1,
            kv: kv.clone(),
            ..EngineOptions::default()
        };
        // Texts that differ, so that no two are read alike.
        let prompt = |turn: usize| {
            let tokens = self.tokens.iter().cycle();
            tokens
                .skip(turn % self.tokens.len())
                .take(depth)
                .copied()
                .collect()
        };
        let prompts = (0..sequences).map(prompt).collect();
        let mut decoding = Decoding::new(model, &options, prompts, self.watch)?;
        decoding.repetition(self.count)?;
        let mut rates = Vec::new();
        for _ in 0..repetitions.unwrap_or(3) {
            let took = decoding.repetition(self.count)?;
            rates.push((sequences * self.count) as f64 / took.as_secs_f64());
        }
        Ok(rates)
    }

    /// Tokens per second of each repetition, and the microseconds per token that went
    /// into handing over their work.
    fn measure(
        &self,
        session: &mut Session,
        repetitions: Option<usize>,
    ) -> Result<(Vec<f64>, Option<f64>)> {
        const LONG: Duration = Duration::from_secs(5);
        let start = Instant::now();
        // Warms the caches and the worker team up; not counted.
        self.repetition(session)?;
        if self.test == BenchTest::Decode {
            session.make_screen()?;
        }
        let wanted = repetitions.unwrap_or(if start.elapsed() > LONG { 3 } else { 5 });
        let mut rates = Vec::with_capacity(wanted);
        let mut submitted = 0.0;
        for _ in 0..wanted {
            let (took, submit) = self.repetition(session)?;
            rates.push(self.count as f64 / took.as_secs_f64());
            submitted += submit.unwrap_or(f64::NAN);
        }
        let submit = 1e6 * submitted / (wanted * self.count) as f64;
        Ok((rates, submit.is_finite().then_some(submit)))
    }

    /// The time of `count` tokens on top of `depth` others, and the host's seconds of it
    /// that went into handing over their work.
    fn repetition(&self, session: &mut Session) -> Result<(Duration, Option<f64>)> {
        let (before, rest) = self.tokens.split_at(self.depth);
        // What is in the cache stays from one repetition to the next.
        if session.position() < self.depth {
            session.reset();
            session.prefill(before)?;
        } else {
            session.truncate(self.depth)?;
        }
        let tokens = &rest[..self.count];
        let device = session.model().device().clone();
        let before = device.submit_seconds();
        let start = Instant::now();
        match self.test {
            BenchTest::Prefill => session.prefill(tokens)?,
            BenchTest::Decode => {
                for &token in tokens {
                    self.watch.check()?;
                    session.decode_likeliest(token)?;
                }
            }
        }
        let took = start.elapsed();
        let submitted = before.zip(device.submit_seconds());
        Ok((took, submitted.map(|(from, to)| to - from)))
    }
}

/// Ids spread over the vocabulary, the same on every machine.
fn arbitrary_tokens(count: usize, vocabulary: usize) -> Vec<i32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocabulary.max(1) as u64) as i32
        })
        .collect()
}

/// The middle value, or the mean of the two middle ones.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
    }

    #[test]
    fn tokens_are_within_the_vocabulary_and_differ() {
        let tokens = arbitrary_tokens(1000, 100);
        assert!(tokens.iter().all(|&t| (0..100).contains(&t)));
        assert!((0..100).all(|id| tokens.contains(&id)));
        assert_eq!(tokens, arbitrary_tokens(1000, 100));
    }
}
