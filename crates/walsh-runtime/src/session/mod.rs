//! A model's state while it reads and writes one text.

mod fields;
mod history;
mod left;
mod likeliest;
mod memory;
mod options;
mod place;
mod profile;
mod recurrent;
mod returns;
mod save;
mod states;

use walsh::{Device, Step};

use crate::model::Applied;
use crate::model::graph::{Graph, Intermediates, Reading, Wanted};
use crate::model::memory::LayerMemory;
use crate::sampling::Random;
use crate::{Error, Model, Result, Watch};
pub(crate) use fields::{Fields, FieldsReader};
use history::{Call, History};
pub(crate) use options::cache_options;
pub use options::{DEFAULT_CONTEXT, SessionOptions};
use place::{Place, StepKey};
use recurrent::States;
pub use save::RestoreOptions;
pub(crate) use save::{KIND, restore_sections};

/// The most bytes of logits that are computed at a time while scoring.
pub(crate) const LOGIT_BYTES: usize = 16 << 20;

/// Where the logits behind the latest token are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logits {
    /// With the session.
    Here,
    /// Gone, or there are none.
    Unknown,
    /// On the device, where they were left.
    OnDevice,
    /// Nowhere yet: what they are products of is on the device, its first row.
    ToCompute,
}

/// A text in the making: the KV caches of all layers, and how far they are
/// filled.
pub struct Session {
    model: Model,
    device: Device,
    /// What layers remember of it.
    place: Place,
    /// What its caches take when the context is full.
    kv_bytes: u64,
    /// Which lengths of the text there are states of.
    states: States,
    intermediates: Intermediates,
    /// The model's adapters, if the text takes any.
    adapters: Option<Applied>,
    /// As asked for, with the defaults filled in.
    options: SessionOptions,
    logit_rows: usize,
    /// What the session holds. One token at most waits between calls, the held
    /// one: it belongs to the text, and was not read yet.
    history: History,
    /// How far the caches have ever been filled since they were empty: a sliding layer has
    /// lost what lies a window and a chunk before that, wherever the text ends now.
    reached: usize,
    logits: Vec<f32>,
    /// How many rows the residual stream on the device has, of the latest call; none
    /// before the first.
    latest_rows: usize,
    /// Where those behind the latest token are. While they are elsewhere, `logits` are
    /// zeros.
    newest_logits: Logits,
    random: Random,
    watch: Watch,
}

impl Model {
    /// Starts a session with caches of its own.
    ///
    /// # Errors
    /// When an option does not fit the model, or the device has not the memory for
    /// its caches once the context is full ([`Error::NoRoom`], where the device can
    /// tell; nothing is allocated then).
    pub fn session(&self, options: SessionOptions) -> Result<Session> {
        Session::new(self.clone(), options)
    }
}

/// The adapters of all rows.
fn adapters(model: &Model, rows: usize) -> Result<Option<Applied>> {
    let chosen = model.selection();
    let (Some(rack), false) = (model.rack(), chosen.is_empty()) else {
        return Ok(None);
    };
    let applied = Applied::new(model.device(), rack, rows, chosen.len())?;
    applied.write(model.device(), &[(rows, chosen)])?;
    Ok(Some(applied))
}

impl Session {
    fn new(model: Model, options: SessionOptions) -> Result<Self> {
        let options = options.resolved(&model)?;
        let kv_bytes = memory::check_room(&model, &options)?;
        let place = Place::new(&model, &options, States::SLOTS)?;
        Self::over((model, options), (place, kv_bytes))
    }

    /// An empty one whose caches are there.
    fn over(
        (model, options): (Model, SessionOptions),
        (place, kv_bytes): (Place, u64),
    ) -> Result<Self> {
        let (device, config) = (model.device().clone(), model.config());
        let row_bytes = config.vocabulary * size_of::<f32>();
        let logit_rows = (LOGIT_BYTES / row_bytes).clamp(1, options.chunk);
        let intermediates = Intermediates::new(&device, config, options.chunk, logit_rows)?;
        let logits = vec![0.0; config.vocabulary];
        let adapters = adapters(&model, options.chunk)?;
        Ok(Self {
            device,
            place,
            kv_bytes,
            states: States::default(),
            intermediates,
            adapters,
            options,
            logit_rows,
            history: History::default(),
            reached: 0,
            logits,
            latest_rows: 0,
            newest_logits: Logits::Unknown,
            random: Random::default(),
            watch: Watch::default(),
            model,
        })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How many tokens it holds.
    #[must_use]
    pub fn position(&self) -> usize {
        self.history.tokens.len()
    }

    /// The tokens it holds, the latest last.
    #[must_use]
    pub fn tokens(&self) -> &[i32] {
        &self.history.tokens
    }

    /// How it was started, with the defaults filled in and a budget spelled out.
    #[must_use]
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// How many tokens it can hold.
    #[must_use]
    pub fn context(&self) -> usize {
        self.options.context
    }

    /// The bytes that its KV caches take when the context is full, beside what is left over in pages of 64 tokens. On
    /// the CPU they take only what was read until then, and what forks have in common once.
    #[must_use]
    pub fn kv_bytes(&self) -> u64 {
        self.kv_bytes
    }

    /// The logits behind the latest token that was read, one per entry of the
    /// vocabulary; zeros before the first, after a [`truncate`](Self::truncate)
    /// that takes back what was read, and after
    /// [`decode_likeliest`](Self::decode_likeliest) or [`score`](Self::score).
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Starts the stream of random numbers that tokens are chosen with, which goes on
    /// from one generation to the next; that of a new session is the one of seed 0.
    ///
    /// It is no part of the text: [`truncate`](Self::truncate) and
    /// [`reset`](Self::reset) leave it where it is, so that another try is another
    /// text. [`fork`](Self::fork) copies it, and files keep it.
    pub fn set_seed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// What the stream of random numbers started from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.random.seed()
    }

    pub(crate) fn random(&self) -> Random {
        self.random
    }

    pub(crate) fn set_random(&mut self, random: Random) {
        self.random = random;
    }

    /// From here on, calls that read tokens without options of their own
    /// ([`prefill`](Self::prefill), [`score`](Self::score),
    /// [`truncate`](Self::truncate)) end early when this says so, and tell it how far
    /// they are.
    pub fn set_watch(&mut self, watch: Watch) {
        self.watch = watch;
    }

    /// Takes over what is no part of another session's text: its random numbers, and
    /// who watches.
    pub(crate) fn follow(&mut self, other: &Session) {
        self.random = other.random;
        self.watch = other.watch.clone();
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        self.history.clear();
        self.place.cut(0);
        self.reached = 0;
        self.states = States::default();
        self.forget_logits();
    }

    fn forget_logits(&mut self) {
        self.logits.fill(0.0);
        self.newest_logits = Logits::Unknown;
    }

    /// How many more tokens can be read, a held one included.
    pub(crate) fn room(&self) -> usize {
        self.options.context - self.history.stored
    }

    /// The token that belongs to the text but was not read yet.
    pub(crate) fn held(&self) -> Option<i32> {
        self.history.waiting().first().copied()
    }

    /// Makes a token part of the text, to be read before the next one.
    pub(crate) fn hold(&mut self, token: i32) {
        self.history.drop_waiting();
        self.history.tokens.push(token);
    }

    /// Reads the held token, if there is one.
    pub(crate) fn read_held(&mut self) -> Result<()> {
        if self.held().is_some() {
            self.read_one(Wanted::Logits)?;
            self.fetch_logits()?;
        }
        Ok(())
    }

    /// Runs the held token through the blocks and the head, in one list.
    fn read_one(&mut self, wanted: Wanted) -> Result<()> {
        self.read_one_with(StepKey::Token(wanted), Device::run)
    }

    fn read_one_with(
        &mut self,
        key: StepKey,
        run: impl FnOnce(&Device, &Step) -> walsh::Result<()>,
    ) -> Result<()> {
        let call = Call {
            reading: Reading::Codes,
            rows: 1,
        };
        self.check_tokens(self.history.stored, &self.history.waiting()[..1])?;
        self.settle()?;
        if self.newest_logits != Logits::Here {
            // The run overwrites what they could be fetched from.
            self.newest_logits = Logits::Unknown;
        }
        self.feed(call)?;
        self.run_with(key, run)?;
        self.latest_rows = 1;
        self.note(call);
        Ok(())
    }

    /// Appends tokens, in chunks. Within a chunk, tokens attend over the
    /// unquantised keys and values of the chunk.
    ///
    /// # Errors
    /// When they do not fit into the context or the vocabulary; nothing is
    /// appended then. When the model computes a number that is not finite, or the
    /// [watch](Self::set_watch) ends it: the chunks that were read stay then, and
    /// nothing else. To read on with what is missing is the same as to read all at
    /// once, and [`truncate`](Self::truncate) takes them back.
    pub fn prefill(&mut self, tokens: &[i32]) -> Result<()> {
        self.read(tokens, &self.watch.clone())
    }

    /// As [`prefill`](Self::prefill), with another watch.
    pub(crate) fn read(&mut self, tokens: &[i32], watch: &Watch) -> Result<()> {
        let before = self.position();
        self.check_tokens(before, tokens)?;
        self.history.tokens.extend_from_slice(tokens);
        let read = self.read_waiting(watch);
        if read.is_err() {
            let kept = self.history.stored.max(before);
            self.history.tokens.truncate(kept);
        }
        read
    }

    fn read_waiting(&mut self, watch: &Watch) -> Result<()> {
        self.keep_states()?;
        let total = self.history.waiting().len();
        let mut rows = 0;
        while !self.history.waiting().is_empty() {
            let waiting = self.history.waiting().len();
            watch.tell(total - waiting, total);
            watch.check()?;
            rows = waiting.min(self.options.chunk);
            if rows == waiting {
                // What comes of the last chunk alone can be asked for again.
                self.keep_states()?;
            }
            self.advance(Call {
                reading: Reading::CodesAndFresh,
                rows,
            })?;
        }
        watch.tell(total, total);
        self.keep_states()?;
        self.read_logits(rows - 1)
    }

    /// Appends one token.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn decode(&mut self, token: i32) -> Result<()> {
        self.read_held()?;
        self.hold(token);
        let read = self.read_held();
        self.or_drop(read)
    }

    /// Tokens that a failure left unread are no part of the text.
    fn or_drop<T>(&mut self, read: Result<T>) -> Result<T> {
        if read.is_err() {
            self.history.drop_waiting();
        }
        read
    }

    /// Appends tokens as [`decode`](Self::decode) one after the other would, so
    /// that each attends over stored codes alone, and hands out the logits behind
    /// each token from number `from` on, in order.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), and what `each` returns.
    pub fn score(
        &mut self,
        tokens: &[i32],
        from: usize,
        each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.read_held()?;
        self.check_tokens(self.position(), tokens)?;
        self.history.tokens.extend_from_slice(tokens);
        let scored = self.score_waiting(from, each);
        self.or_drop(scored)
    }

    fn score_waiting(
        &mut self,
        from: usize,
        each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let vocabulary = self.logits.len();
        let mut logits = vec![0.0; self.logit_rows * vocabulary];
        let first = self.history.stored;
        let (watch, total) = (self.watch.clone(), self.history.waiting().len());
        while !self.history.waiting().is_empty() {
            let start = self.history.stored - first;
            watch.tell(start, total);
            watch.check()?;
            let rows = self.history.waiting().len().min(self.options.scored);
            self.advance(Call {
                reading: Reading::Codes,
                rows,
            })?;
            let mut row = from.saturating_sub(start).min(rows);
            while row < rows {
                let count = self.logit_rows.min(rows - row);
                self.run(StepKey::Head(row, count))?;
                let rows = self.intermediates.logits.rows(0..count as u64)?;
                let logits = &mut logits[..count * vocabulary];
                self.device.read_into(&rows, logits)?;
                for (offset, logits) in logits.chunks_exact(vocabulary).enumerate() {
                    each(start + row + offset, logits)?;
                }
                row += count;
            }
        }
        watch.tell(total, total);
        Ok(())
    }

    /// Whether these tokens can be read behind `before` others.
    fn check_tokens(&self, before: usize, tokens: &[i32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let (needed, context) = (before + tokens.len(), self.options.context);
        if needed > context {
            return Err(Error::ContextFull { needed, context });
        }
        let vocabulary = self.logits.len();
        let unknown = |id: &&i32| usize::try_from(**id).map_or(true, |id| id >= vocabulary);
        match tokens.iter().find(unknown) {
            Some(id) => Err(Error::option(
                "token",
                format_args!("below the vocabulary's {vocabulary}"),
                id,
            )),
            None => Ok(()),
        }
    }

    /// Runs waiting tokens through the blocks.
    fn advance(&mut self, call: Call) -> Result<()> {
        self.forget_logits();
        self.settle()?;
        self.feed(call)?;
        self.run(StepKey::Body(call.rows, call.reading))?;
        self.latest_rows = call.rows;
        self.note(call);
        Ok(())
    }

    /// Puts waiting tokens and their positions where lists read them.
    fn feed(&mut self, call: Call) -> Result<()> {
        let rows = call.rows;
        let stored = self.history.stored;
        let positions: Vec<i32> = (stored..stored + rows)
            .map(|position| position as i32)
            .collect();
        let a = &self.intermediates;
        let ids = &self.history.waiting()[..rows];
        self.device.write(&a.ids.rows(0..rows as u64)?, ids)?;
        self.device
            .write(&a.positions.rows(0..rows as u64)?, &positions)?;
        self.place
            .reserve(&(stored..stored + rows), self.options.chunk)?;
        // Whether or not the run ends well, it may have written so far.
        self.reached = self.reached.max(stored + rows);
        self.states.leave();
        Ok(())
    }

    /// Computes the logits behind a row of the latest chunk.
    fn read_logits(&mut self, row: usize) -> Result<()> {
        self.run(StepKey::Head(row, 1))?;
        self.fetch_logits()
    }

    fn fetch_logits(&mut self) -> Result<()> {
        self.newest_logits = Logits::Here;
        let rows = self.intermediates.logits.rows(0..1)?;
        self.device.read_into(&rows, &mut self.logits)?;
        Ok(())
    }

    fn run(&self, key: StepKey) -> Result<()> {
        self.run_with(key, Device::run)
    }

    /// Runs the list for `key`, recording it when it is not at hand.
    fn run_with(
        &self,
        key: StepKey,
        run: impl FnOnce(&Device, &Step) -> walsh::Result<()>,
    ) -> Result<()> {
        self.place.with(|_, text| {
            let step = match text.steps.take(&key) {
                Some(step) => step,
                None => self.record(&text.memory.layers, key)?,
            };
            let ended = run(&self.device, &step);
            text.steps.keep(key, step);
            Ok(ended?)
        })
    }

    /// What lists are recorded from.
    fn graph<'a>(&'a self, memory: &'a [LayerMemory]) -> Graph<'a> {
        Graph {
            device: &self.device,
            config: self.model.config(),
            weights: self.model.weights(),
            screen: self.model.screen(),
            memory,
            intermediates: &self.intermediates,
            adapters: self.adapters.as_ref(),
        }
    }

    fn record(&self, memory: &[LayerMemory], key: StepKey) -> Result<Step> {
        let graph = self.graph(memory);
        match key {
            StepKey::Body(rows, reading) => graph.body(rows, reading),
            StepKey::Head(first, count) => graph.head(first, count),
            StepKey::Vectors(rows) => graph.states(rows),
            StepKey::Token(wanted) => graph.token(wanted),
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("model", &self.model)
            .field("position", &self.position())
            .field("context", &self.context())
            .finish_non_exhaustive()
    }
}
