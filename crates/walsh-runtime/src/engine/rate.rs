//! How fast an engine decodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::options::EngineOptions;
use super::request::{Request, Stream};
use super::runner::Runner;
use super::sequence::Sequence;
use crate::{Model, Result, Sampling, Watch};

/// Texts of equal length that are all written at once.
pub(crate) struct Decoding {
    runner: Runner,
    sequences: Vec<Sequence>,
    /// Their length at the start.
    depth: usize,
    watch: Watch,
}

impl Decoding {
    /// Reads `depth` tokens, one at least, of each of so many texts.
    ///
    /// # Errors
    /// As [`Engine::new`](super::Engine::new), or when it is cancelled.
    pub(crate) fn new(
        model: &Model,
        options: &EngineOptions,
        prompts: Vec<Vec<i32>>,
        watch: &Watch,
    ) -> Result<Self> {
        let options = EngineOptions {
            keep_prefixes: false,
            prefix_folder: None,
            ..options.resolved(model)?
        };
        let depth = prompts.first().map_or(0, Vec::len);
        let mut sequences = Vec::new();
        for (slot, prompt) in prompts.into_iter().enumerate() {
            let request = Request {
                sampling: Sampling::greedy(),
                ..Request::new(prompt)
            };
            let (outlet, _) = Stream::new();
            let mut sequence = Sequence::new(model, &options, request, outlet)?;
            sequence.begin(slot);
            sequences.push(sequence);
        }
        let budget = Budget::new(options.kv_memory);
        let mut decoding = Self {
            runner: Runner::new((model, &options), (&budget, ""), &Arc::default())?,
            sequences,
            depth,
            watch: watch.clone(),
        };
        for place in 0..decoding.sequences.len() {
            while !decoding.step(place..place + 1)? {}
        }
        Ok(decoding)
    }

    /// The time of `count` more tokens of each text.
    ///
    /// # Errors
    /// When the device fails, or it is cancelled.
    pub(crate) fn repetition(&mut self, count: usize) -> Result<Duration> {
        for sequence in &mut self.sequences {
            sequence.rewind(self.depth);
        }
        let start = Instant::now();
        for _ in 0..count {
            self.step(0..self.sequences.len())?;
        }
        Ok(start.elapsed())
    }

    /// Reads the next rows of some texts; whether a token was chosen behind each.
    fn step(&mut self, places: std::ops::Range<usize>) -> Result<bool> {
        self.watch.check()?;
        let batch = &mut self.sequences[places];
        for sequence in &mut *batch {
            let slot = sequence.slot.unwrap_or_default();
            self.runner.reserve(slot, &sequence.next_rows())?;
        }
        let rows = self.runner.read(&batch.iter().collect::<Vec<_>>())?;
        let mut whole = 0;
        for sequence in &mut *batch {
            whole += usize::from(sequence.advance());
        }
        if whole < rows.len() {
            return Ok(false);
        }
        let tokens = self.runner.likeliest(&rows)?;
        for (sequence, token) in batch.iter_mut().zip(tokens) {
            sequence.append(token);
        }
        Ok(true)
    }
}
