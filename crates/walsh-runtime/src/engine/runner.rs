//! Runs of the model over rows of several sequences.

mod memory;
mod slots;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use walsh::{DType, Device, Step, Tensor};

use super::budget::{Budget, Part};
use super::caches::{Caches, Plan, Sizes};
use super::folder::{self, Folder};
use super::left::Home;
use super::options::EngineOptions;
use super::prefixes::{Kept, Prefixes, Search};
use super::sequence::{Rows, Sequence};
use super::slots::Held;
use crate::model::Applied;
use crate::model::graph::{Graph, Intermediates};
use crate::model::steps::Steps;
use crate::pages::Group;
use crate::session::LOGIT_BYTES;
use crate::{Model, Result};

/// How many recorded lists are kept.
const KEPT_STEPS: usize = 16;

/// What a recorded list was recorded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// Rows that are decoded, rows that are prefilled, and how many adapters a row has at most.
    Body(usize, usize, usize),
    /// Rows that something is computed of.
    Heads(usize, Head),
}

/// What is computed of rows that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Logits,
    Likeliest,
    /// The residual stream after the output norm.
    Vectors,
}

/// A model, the pages of its caches, and the lists that run over them.
pub(super) struct Runner {
    model: Model,
    device: Device,
    pub(super) caches: Caches,
    /// What texts have left behind; `None` where nothing is kept.
    prefixes: Option<Prefixes>,
    folder: Option<Folder>,
    intermediates: Intermediates,
    /// The model's adapters, if it has any.
    adapters: Option<Applied>,
    /// `i32 [rows]`: each row's slot.
    sequences: Tensor,
    /// `i32 [logit rows]`: the rows whose logits are wanted.
    wanted: Tensor,
    /// `i32 [logit rows]`: their likeliest tokens.
    likeliest: Tensor,
    logit_rows: usize,
    steps: Steps<Key>,
    pub(super) slots: usize,
    /// Of each slot, the text that it had last.
    pub(super) held: Vec<Option<Held>>,
    context: usize,
    /// What keys and values depend on besides the model.
    pub(super) home: Home,
    /// The most rows of prompts in a step.
    pub(super) chunk: usize,
    sizes: Sizes,
    /// What the caches are laid out by.
    plan: Plan,
    /// What they may take: given back when they are gone, and so the last here.
    pub(super) part: Part,
}

impl Runner {
    /// The caches, lists and, if it keeps any, what others have left behind; what goes wrong with the folder of that is
    /// put into `trouble`.
    pub(super) fn new(
        (model, options): (&Model, &EngineOptions),
        (budget, name): (&Budget, &str),
        trouble: &Arc<Mutex<Option<String>>>,
    ) -> Result<Self> {
        let (device, config) = (model.device().clone(), model.config());
        let rows = options.chunk + options.sequences;
        let row_bytes = config.vocabulary * size_of::<f32>();
        let logit_rows = (LOGIT_BYTES / row_bytes).clamp(1, options.sequences);
        let numbers = |count: usize| device.zeros(DType::I32, &[count as u64]);
        let sizes = Sizes::new(model, options)?;
        let part = memory::part((model, options), &sizes, (budget, name))?;
        let plan = sizes.plan(part.held());
        part.give(part.held().saturating_sub(sizes.bytes(&plan)));
        let caches = Caches::new((model, options), &plan)?;
        let home = folder::home(model, &caches, options)?;
        Ok(Self {
            folder: Folder::open((model, &home), options, Arc::clone(trouble))?,
            prefixes: options
                .keep_prefixes
                .then(|| Prefixes::new(caches.copies, budget.clock())),
            caches,
            intermediates: Intermediates::new(&device, config, rows, logit_rows)?,
            adapters: match model.rack() {
                Some(rack) => Some(Applied::new(&device, rack, rows, rack.len())?),
                None => None,
            },
            sequences: numbers(rows)?,
            wanted: numbers(logit_rows)?,
            likeliest: numbers(logit_rows)?,
            logit_rows,
            steps: Steps::new(KEPT_STEPS),
            slots: options.sequences,
            held: (0..options.sequences).map(|_| None).collect(),
            context: options.context,
            home,
            chunk: options.chunk,
            model: model.clone(),
            device,
            sizes,
            plan,
            part,
        })
    }

    /// Whether layers keep states, which a run that fails leaves changed.
    pub(super) fn keeps_states(&self) -> bool {
        self.model.config().recurrent.is_some()
    }

    /// Gives a slot the pages for what is to be read next; whether there are enough.
    pub(super) fn reserve(&mut self, slot: usize, rows: &Rows) -> Result<bool> {
        let positions = rows.positions();
        let groups = &mut self.caches.pool.groups;
        for index in 0..groups.len() {
            let pages = &mut groups[index].pages;
            pages.leave(slot, positions.start);
            let missing = pages.missing(slot, &positions);
            if let Some(prefixes) = &mut self.prefixes {
                prefixes.make_room(groups, index, missing, u64::MAX);
            }
            // A page that was shared with a prefix may be the slot's alone now.
            let pages = &groups[index].pages;
            if pages.missing(slot, &positions) > pages.free() {
                return Ok(false);
            }
        }
        for index in 0..self.caches.pool.groups.len() {
            let pages = &mut self.caches.pool.groups[index].pages;
            if let Some(copy) = pages.take(slot, &positions) {
                self.caches.pool.copy_page(index, copy)?;
            }
        }
        Ok(true)
    }

    fn search(&self, sequence: &Sequence) -> Search {
        let Some(prefixes) = &self.prefixes else {
            return Search::default();
        };
        // One token at least is read: its logits are nowhere.
        let most = sequence.tokens().len() - 1;
        let fits = |position, reading, tokens: &[i32]| sequence.fits(position, reading, tokens);
        prefixes.find(sequence.kin(), &self.caches.pool.groups, most, &fits)
    }

    /// Lets a text that has a slot go on from what others have left behind, if it begins like them.
    pub(super) fn go_on(&mut self, sequence: &mut Sequence) -> Result<()> {
        if sequence.is_read_whole() {
            return Ok(());
        }
        let (slot, search) = (sequence.slot.unwrap_or_default(), self.search(sequence));
        let Some(prefixes) = &mut self.prefixes else {
            return Ok(());
        };
        let groups = &mut self.caches.pool.groups;
        if let Some(found) = search.found {
            let calls = prefixes.calls(&found);
            let pages = prefixes.pages_of(&found, groups);
            let copy = prefixes.checkpoint(&found);
            for (group, pages) in groups.iter_mut().zip(pages) {
                for (entry, page) in pages {
                    group.pages.share(slot, entry, page);
                }
            }
            let node = prefixes.go_on(&found, groups);
            sequence.go_on(&calls, (node, found.position));
            if let Some(copy) = copy {
                self.caches.load_overlay(&self.device, copy, slot)?;
            }
        } else {
            sequence.kept = Some((prefixes.root(sequence.kin()), 0));
        }
        if let Some(position) = search.parts_at {
            sequence.part(position);
        }
        self.load(sequence)
    }

    /// Gives a text what the folder has of it.
    fn load(&mut self, sequence: &mut Sequence) -> Result<()> {
        let most = sequence.tokens().len() - 1;
        let slot = sequence.slot.unwrap_or_default();
        while self.folder.is_some() {
            let rows = sequence.next_rows();
            let Rows::Prefill(positions) = &rows else {
                break;
            };
            let key = sequence.key(positions.end);
            let has = |folder: &Folder| positions.end <= most && folder.has(&key);
            if !self.folder.as_ref().is_some_and(has) || !self.reserve(slot, &rows)? {
                break;
            }
            let read = |bytes| self.folder.as_ref()?.read(&key, bytes);
            if !self.caches.write(&self.device, (slot, positions), &read)? {
                break;
            }
            sequence.advance();
            self.keep(sequence)?;
        }
        Ok(())
    }

    /// Keeps what a text's latest calls have read, for others and itself.
    pub(super) fn keep(&mut self, sequence: &mut Sequence) -> Result<()> {
        let Some((parent, reading, positions)) = sequence.unkept() else {
            return Ok(());
        };
        let Some(prefixes) = &mut self.prefixes else {
            return Ok(());
        };
        let slot = sequence.slot.unwrap_or_default();
        let checkpoint = prefixes.take_checkpoint();
        if let Some(copy) = checkpoint {
            self.caches.save_overlay(&self.device, slot, copy)?;
        }
        let groups = &mut self.caches.pool.groups;
        let pages_of = |group: &Group| group.pages.pages_of(slot, &positions);
        let kept = Kept {
            reading,
            tokens: sequence.tokens()[positions.clone()].to_vec(),
            pages: groups.iter().map(pages_of).collect(),
            checkpoint,
        };
        let node = prefixes.insert(parent, kept, groups);
        sequence.kept = node.map(|node| (node, positions.end));
        Ok(())
    }

    /// Keeps a call that a text's prompt was read by; in the folder, too.
    pub(super) fn keep_call(
        &mut self,
        sequence: &mut Sequence,
        positions: &Range<usize>,
    ) -> Result<()> {
        self.keep(sequence)?;
        if let Some(folder) = self.folder.as_mut().filter(|folder| folder.is_written()) {
            let slot = sequence.slot.unwrap_or_default();
            let left = self.caches.read(&self.device, slot, positions)?;
            folder.write(sequence.key(positions.end), left);
        }
        Ok(())
    }

    /// Gives a slot's pages back.
    pub(super) fn clear(&mut self, slot: usize) {
        for group in &mut self.caches.pool.groups {
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
        let mut runs = Vec::with_capacity(batch.len());
        for index in order {
            let sequence = batch[index];
            let rows = sequence.next_rows();
            let range = rows.positions();
            match rows {
                Rows::Decode(_) => decoded += range.len(),
                Rows::Prefill(_) => prefilled += range.len(),
            }
            ids.extend(range.clone().map(|position| sequence.token_at(position)));
            runs.push((range.len(), &sequence.kin().adapters));
            let slot = sequence.slot.unwrap_or_default() as i32;
            sequences.extend(range.clone().map(|_| slot));
            positions.extend(range.map(|position| position as i32));
            last[index] = ids.len() as i32 - 1;
        }
        self.caches.write_tables()?;
        let rows = 0..ids.len() as u64;
        let a = &self.intermediates;
        for (tensor, numbers) in [
            (&a.ids, &ids),
            (&a.positions, &positions),
            (&self.sequences, &sequences),
        ] {
            self.device.write(&tensor.rows(rows.clone())?, numbers)?;
        }
        let passes = runs.iter().map(|(_, chosen)| chosen.len()).max();
        if let Some(adapters) = &self.adapters {
            adapters.write(&self.device, &runs)?;
        }
        self.run(Key::Body(decoded, prefilled, passes.unwrap_or(0)))?;
        Ok(last)
    }

    /// Tells a text what it asked of its prompt, of which the latest run has read these positions, the last in row `last`.
    pub(super) fn tell(
        &mut self,
        sequence: &mut Sequence,
        positions: &Range<usize>,
        last: i32,
    ) -> Result<()> {
        let row = |position: usize| last - (positions.end - 1 - position) as i32;
        let told = sequence.told_logits(positions);
        let rows: Vec<i32> = told.clone().map(row).collect();
        self.logits(&rows, &mut |place, logits| {
            sequence.tell_logits(told.start + place, logits);
        })?;
        let rows: Vec<i32> = sequence.told_vectors(positions).map(row).collect();
        self.vectors(&rows, &mut |_, vector| sequence.tell_vector(vector))
    }

    /// The likeliest tokens behind rows of the latest run.
    pub(super) fn likeliest(&mut self, rows: &[i32]) -> Result<Vec<i32>> {
        let mut tokens = Vec::with_capacity(rows.len());
        for rows in rows.chunks(self.logit_rows) {
            self.heads(rows, Head::Likeliest)?;
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
        self.each(rows, Head::Logits, each)
    }

    /// The same with the rows' vectors.
    pub(super) fn vectors(
        &mut self,
        rows: &[i32],
        each: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        self.each(rows, Head::Vectors, each)
    }

    fn each(
        &mut self,
        rows: &[i32],
        head: Head,
        each: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        let mut place = 0;
        for rows in rows.chunks(self.logit_rows) {
            self.heads(rows, head)?;
            let a = &self.intermediates;
            let found = match head {
                Head::Vectors => &a.hidden,
                Head::Logits | Head::Likeliest => &a.logits,
            };
            let found = found.rows(0..rows.len() as u64)?;
            let mut numbers = self.device.read::<f32>(&found)?;
            let width = numbers.len() / rows.len();
            for row in numbers.chunks_exact_mut(width.max(1)) {
                each(place, row);
                place += 1;
            }
        }
        Ok(())
    }

    fn heads(&mut self, rows: &[i32], head: Head) -> Result<()> {
        let wanted = self.wanted.rows(0..rows.len() as u64)?;
        self.device.write(&wanted, rows)?;
        self.run(Key::Heads(rows.len(), head))
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
        let adapters = match (&self.adapters, key) {
            (Some(all), Key::Body(decoded, prefilled, passes)) => {
                all.part(decoded + prefilled, passes)?
            }
            _ => None,
        };
        let graph = Graph {
            device: &self.device,
            config: self.model.config(),
            weights: self.model.weights(),
            screen: None,
            memory: &self.caches.texts.layers,
            intermediates: &self.intermediates,
            adapters: adapters.as_ref(),
        };
        match key {
            Key::Body(decoded, prefilled, _) => graph.batch(decoded, prefilled, &self.sequences),
            Key::Heads(count, head) => {
                let rows = self.wanted.rows(0..count as u64)?;
                match head {
                    Head::Logits => graph.heads(&rows, None),
                    Head::Likeliest => {
                        let found = self.likeliest.rows(0..count as u64)?;
                        graph.heads(&rows, Some(&found))
                    }
                    Head::Vectors => graph.vectors(&rows),
                }
            }
        }
    }
}
