//! Runs of the model over rows of several sequences.

use walsh::{DType, Device, Step, Tensor};

use super::EngineOptions;
use super::caches::{Caches, Group};
use super::sequence::{Rows, Sequence};
use crate::model::graph::{Graph, Intermediates};
use crate::model::steps::Steps;
use crate::session::LOGIT_BYTES;
use crate::{Model, Result};

/// How many recorded lists are kept.
const KEPT_STEPS: usize = 16;

/// What a recorded list was recorded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// Rows that are decoded, and rows that are prefilled.
    Body(usize, usize),
    /// Rows that logits are computed of, and whether the likeliest tokens are looked for.
    Heads(usize, bool),
}

/// A model, the pages of its caches, and the lists that run over them.
pub(super) struct Runner {
    model: Model,
    device: Device,
    pub(super) caches: Caches,
    intermediates: Intermediates,
    /// `i32 [rows]`: each row's slot.
    sequences: Tensor,
    /// `i32 [logit rows]`: the rows whose logits are wanted.
    wanted: Tensor,
    /// `i32 [logit rows]`: their likeliest tokens.
    likeliest: Tensor,
    logit_rows: usize,
    steps: Steps<Key>,
    pub(super) slots: usize,
    /// The most rows of prompts in a step.
    pub(super) chunk: usize,
}

impl Runner {
    pub(super) fn new(model: &Model, options: &EngineOptions) -> Result<Self> {
        let (device, config) = (model.device().clone(), model.config());
        let rows = options.chunk + options.sequences;
        let row_bytes = config.vocabulary * size_of::<f32>();
        let logit_rows = (LOGIT_BYTES / row_bytes).clamp(1, options.sequences);
        let numbers = |count: usize| device.zeros(DType::I32, &[count as u64]);
        Ok(Self {
            caches: Caches::new(model, options)?,
            intermediates: Intermediates::new(&device, config, rows, logit_rows)?,
            sequences: numbers(rows)?,
            wanted: numbers(logit_rows)?,
            likeliest: numbers(logit_rows)?,
            logit_rows,
            steps: Steps::new(KEPT_STEPS),
            slots: options.sequences,
            chunk: options.chunk,
            model: model.clone(),
            device,
        })
    }

    /// Gives a slot the pages for what is to be read next; whether there are enough.
    pub(super) fn reserve(&mut self, slot: usize, rows: &Rows) -> bool {
        let positions = rows.positions();
        let groups = &mut self.caches.groups;
        for group in &mut *groups {
            group.pages.leave(slot, positions.start);
        }
        let enough = groups
            .iter()
            .all(|group| group.pages.missing(slot, &positions) <= group.pages.free());
        if enough {
            for group in groups {
                group.pages.take(slot, &positions);
            }
        }
        enough
    }

    /// Whether a text of so many tokens may begin beside so many others: each may need another page soon. Alone, any may.
    pub(super) fn has_room(&self, tokens: usize, others: usize) -> bool {
        let last_chunk = tokens.saturating_sub(self.chunk)..tokens + 1;
        let has_room =
            |group: &Group| group.pages.needed(&last_chunk) + others <= group.pages.free();
        others == 0 || self.caches.groups.iter().all(has_room)
    }

    /// Gives a slot's pages back.
    pub(super) fn clear(&mut self, slot: usize) {
        for group in &mut self.caches.groups {
            group.pages.clear(slot);
        }
    }

    /// Reads the next rows of sequences, each of which has a slot and its pages; the row of each one's last token.
    pub(super) fn read(&mut self, batch: &[&Sequence]) -> Result<Vec<i32>> {
        let (mut ids, mut positions, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        let (mut decoded, mut prefilled) = (0, 0);
        // Those that decode come first.
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(|index| matches!(batch[*index].next_rows(), Rows::Prefill(_)));
        let mut last = vec![0; batch.len()];
        for index in order {
            let sequence = batch[index];
            let rows = sequence.next_rows();
            let range = rows.positions();
            match rows {
                Rows::Decode(_) => decoded += 1,
                Rows::Prefill(_) => prefilled += range.len(),
            }
            ids.extend_from_slice(&sequence.tokens()[range.clone()]);
            let slot = sequence.slot.unwrap_or_default() as i32;
            sequences.extend(range.clone().map(|_| slot));
            positions.extend(range.map(|position| position as i32));
            last[index] = ids.len() as i32 - 1;
        }
        self.caches.write_tables(&self.device)?;
        let rows = 0..ids.len() as u64;
        let a = &self.intermediates;
        for (tensor, numbers) in [
            (&a.ids, &ids),
            (&a.positions, &positions),
            (&self.sequences, &sequences),
        ] {
            self.device.write(&tensor.rows(rows.clone())?, numbers)?;
        }
        self.run(Key::Body(decoded, prefilled))?;
        Ok(last)
    }

    /// The likeliest tokens behind rows of the latest run.
    pub(super) fn likeliest(&mut self, rows: &[i32]) -> Result<Vec<i32>> {
        let mut tokens = Vec::with_capacity(rows.len());
        for rows in rows.chunks(self.logit_rows) {
            self.heads(rows, true)?;
            let found = self.likeliest.rows(0..rows.len() as u64)?;
            tokens.extend(self.device.read::<i32>(&found)?);
        }
        Ok(tokens)
    }

    /// Hands out the logits behind rows of the latest run, with the place of the row among those asked for.
    pub(super) fn logits(
        &mut self,
        rows: &[i32],
        each: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        let vocabulary = self.model.config().vocabulary;
        let mut place = 0;
        for rows in rows.chunks(self.logit_rows) {
            self.heads(rows, false)?;
            let found = self.intermediates.logits.rows(0..rows.len() as u64)?;
            let mut logits = self.device.read::<f32>(&found)?;
            for logits in logits.chunks_exact_mut(vocabulary) {
                each(place, logits);
                place += 1;
            }
        }
        Ok(())
    }

    fn heads(&mut self, rows: &[i32], likeliest: bool) -> Result<()> {
        let wanted = self.wanted.rows(0..rows.len() as u64)?;
        self.device.write(&wanted, rows)?;
        self.run(Key::Heads(rows.len(), likeliest))
    }

    /// Runs the list for `key`, recording it when it is not at hand.
    fn run(&mut self, key: Key) -> Result<()> {
        let step = match self.steps.take(&key) {
            Some(step) => step,
            None => self.record(key)?,
        };
        let ended = self.device.run(&step);
        self.steps.keep(key, step);
        Ok(ended?)
    }

    fn record(&self, key: Key) -> Result<Step> {
        let graph = Graph {
            device: &self.device,
            config: self.model.config(),
            weights: self.model.weights(),
            screen: None,
            caches: &self.caches.layers,
            intermediates: &self.intermediates,
        };
        match key {
            Key::Body(decoded, prefilled) => graph.batch(decoded, prefilled, &self.sequences),
            Key::Heads(count, likeliest) => {
                let first = 0..count as u64;
                let found = likeliest.then(|| self.likeliest.rows(first.clone()));
                graph.heads(&self.wanted.rows(first)?, found.transpose()?.as_ref())
            }
        }
    }
}
