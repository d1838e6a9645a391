//! The time to the first token behind a beginning that was read before.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use walsh::KvSpec;

use super::{arbitrary_tokens, median};
use crate::engine::{Engine, EngineOptions, Request};
use crate::{Error, Figures, Model, Result, Sampling, Watch};

/// What to measure.
#[derive(Debug, Clone)]
pub struct PrefixOptions {
    /// How many tokens the texts have in common.
    pub shared: usize,
    /// How many each has of its own behind them.
    pub own: usize,
    /// The KV codecs.
    pub kv: Vec<KvSpec>,
    /// How often it is measured, with other tokens each time.
    pub repetitions: usize,
    /// Where what was read is kept for another engine; it is measured then too.
    pub folder: Option<PathBuf>,
    /// Setting it ends the run.
    pub cancel: Arc<AtomicBool>,
}

/// The times with one KV codec, each the median over the repetitions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrefixResult {
    /// The KV codec.
    pub kv: String,
    /// Tokens that the texts have in common.
    pub shared: usize,
    /// Tokens of the second text that were not read.
    pub reused: usize,
    /// From the request to its first token, of a text that nobody has read before.
    pub first_seconds: f64,
    /// The same of the next one, which begins like it.
    pub again_seconds: f64,
    /// The same of one that another engine is asked, which has found it in the folder.
    pub restarted_seconds: Option<f64>,
}

/// Asks an engine for a token behind a long text, and then behind another that begins like it.
///
/// # Errors
/// As [`Engine::new`] and [`Engine::submit`]; when there is nothing to measure, or it is cancelled.
pub fn prefix(model: &Model, options: &PrefixOptions) -> Result<Vec<PrefixResult>> {
    if options.shared == 0 || options.own == 0 || options.repetitions == 0 {
        return Err(Error::measure(
            "there is nothing to measure: ask for tokens in common, tokens behind them and a repetition",
        ));
    }
    let watch = Watch::cancelled_by(&options.cancel);
    let prompt = options.shared + options.own;
    let vocabulary = model.config().vocabulary;
    let mut results = Vec::new();
    for kv in &options.kv {
        let start = || {
            let options = EngineOptions {
                sequences: 2,
                context: prompt + 1,
                kv: kv.clone(),
                prefix_folder: options.folder.clone(),
                ..EngineOptions::default()
            };
            Engine::new(model.clone(), options)
        };
        let engine = start()?;
        let tokens = arbitrary_tokens((options.repetitions + 1) * prompt + options.own, vocabulary);
        let (mut first, mut again, mut reused) = (Vec::new(), Vec::new(), 0);
        // The first time warms up.
        for repetition in 0..=options.repetitions {
            let text = &tokens[repetition * prompt..][..prompt + options.own];
            let shared = &text[..options.shared];
            for (own, times) in [(0, &mut first), (options.own, &mut again)] {
                watch.check()?;
                let own = &text[options.shared + own..][..options.own];
                let figures = ask(&engine, [shared, own].concat(), options.shared)?;
                reused = figures.reused_tokens;
                if repetition > 0 {
                    times.push(figures.first_token_time.as_secs_f64());
                }
            }
        }
        drop(engine);
        let mut restarted = Vec::new();
        let repetitions = options.folder.iter().flat_map(|_| 1..=options.repetitions);
        for repetition in repetitions {
            watch.check()?;
            let shared = &tokens[repetition * prompt..][..options.shared];
            // Behind it, what no text had there.
            let own = &tokens[..options.own];
            let figures = ask(&start()?, [shared, own].concat(), options.shared)?;
            restarted.push(figures.first_token_time.as_secs_f64());
        }
        results.push(PrefixResult {
            kv: kv.to_string(),
            shared: options.shared,
            reused,
            first_seconds: median(&first),
            again_seconds: median(&again),
            restarted_seconds: (!restarted.is_empty()).then(|| median(&restarted)),
        });
    }
    Ok(results)
}

/// One token behind a prompt.
fn ask(engine: &Engine, prompt: Vec<i32>, shared: usize) -> Result<Figures> {
    let mut stream = engine.submit(Request {
        max_tokens: Some(1),
        sampling: Sampling::greedy(),
        checkpoints: vec![shared],
        ..Request::new(prompt)
    })?;
    stream.text()?;
    let figures = stream.figures().copied();
    Ok(figures.unwrap_or_default())
}
