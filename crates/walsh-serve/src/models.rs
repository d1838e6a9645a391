//! The models of a server: opened when they are first asked for, closed when they are idle for long or their memory is
//! needed. Models without a part of their own share one [`Budget`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};
use walsh_runtime::chat::Template;
use walsh_runtime::{Budget, Engine, EngineOptions, Error, Model, Sampling, size_text};

use crate::error::{ApiError, Result};
use crate::metrics::{Metrics, Of};
use crate::options::Offer;

/// A model that is open.
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) engine: Engine,
    /// Its chat template, or why it has none.
    template: std::result::Result<Template, ApiError>,
    /// What requests are sampled by that say nothing else.
    pub(crate) sampling: Sampling,
    pub(crate) of: Of,
    is_trouble_told: AtomicBool,
}

impl Served {
    fn open(
        offer: &Offer,
        options: &EngineOptions,
        budget: &Budget,
    ) -> walsh_runtime::Result<Self> {
        let model = (offer.open)()?;
        let sampling = model.recommended_sampling().or_usual();
        let template = model.chat_template().map_err(ApiError::from);
        let options = EngineOptions {
            context: context(&model, options)?,
            ..options.clone()
        };
        Ok(Self {
            name: offer.name.clone(),
            engine: Engine::within(model, options, (budget, &offer.name))?,
            template,
            sampling,
            of: Of {
                model: offer.name.clone(),
            },
            is_trouble_told: AtomicBool::new(false),
        })
    }

    /// Logs what goes wrong with the folder of prefixes, once: answers stay what they are.
    pub(crate) fn tell_trouble(&self) {
        if let Some(trouble) = self.engine.folder_trouble()
            && !self.is_trouble_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(model = self.name, trouble, "beginnings of prompts");
        }
    }

    /// What a request takes of an adapter that it names as a model: what others take of it, or all where that is nothing.
    fn scale_of(&self, adapter: usize) -> f32 {
        let adapters = self.engine.model().adapters();
        let scale = adapters.get(adapter).map(|adapter| adapter.scale);
        scale.filter(|scale| *scale != 0.0).unwrap_or(1.0)
    }

    /// Its chat template.
    pub(crate) fn template(&self) -> Result<&Template> {
        self.template.as_ref().map_err(Clone::clone)
    }
}

/// A model that a request uses. One that has no others may be closed.
pub(crate) struct Lent {
    served: Arc<Served>,
    /// What it was asked for by.
    pub(crate) name: String,
    /// What requests take of its adapters that say nothing themselves, if that is not what it was opened with.
    pub(crate) adapters: Option<Vec<(usize, f32)>>,
    /// Says that it is used no longer, and so behind it.
    _then: Then,
}

impl std::ops::Deref for Lent {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.served
    }
}

/// Tells of models that may be closed, when somebody lacks memory.
struct Then {
    budget: Budget,
    lacking: Arc<Notify>,
}

impl Drop for Then {
    fn drop(&mut self) {
        if self.budget.is_lacking() {
            self.lacking.notify_one();
        }
    }
}

/// The most tokens of a text: as asked for, or else as many as the model was made for and memory holds of one text.
fn context(model: &Model, options: &EngineOptions) -> walsh_runtime::Result<usize> {
    if options.context > 0 {
        return Ok(options.context);
    }
    let budget = match options.kv_memory {
        0 => model
            .device()
            .available_bytes()
            .map_or(u64::MAX, |free| free / 2),
        memory => memory,
    };
    // What is kept besides keys and values has its part.
    let most = budget / 4 * 3 / model.kv_bytes_per_token(&options.kv)?.max(1);
    let made_for = model.config().context;
    let context = made_for
        .min(usize::try_from(most).unwrap_or(usize::MAX))
        .max(1);
    if context < made_for {
        tracing::warn!(context, made_for, "memory holds no longer text");
    }
    Ok(context)
}

/// A model of the server.
struct Entry {
    offer: Offer,
    /// What it can count on for keys and values beside the others: what the length of its texts follows from. 0 for as
    /// much as it can use.
    kv_memory: u64,
    /// Its own, or that of all models without one.
    budget: Budget,
    open: Mutex<Option<Arc<Served>>>,
    /// What requests take of its adapters, once that was set.
    scales: SyncMutex<Option<Vec<(usize, f32)>>>,
    /// When it was last asked for.
    asked: SyncMutex<Instant>,
}

impl Offer {
    /// Its name, and those of its adapters.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let adapters = self.adapters.iter();
        let adapters = adapters.map(|adapter| format!("{}:{adapter}", self.name));
        std::iter::once(self.name.clone()).chain(adapters)
    }
}

impl Entry {
    fn scales(&self) -> Option<Vec<(usize, f32)>> {
        let scales = self.scales.lock();
        scales.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the model if nobody uses it and it was idle for so long.
    fn close(&self, idle: Duration, metrics: &Metrics) -> bool {
        // Who holds the lock opens it.
        let Ok(mut open) = self.open.try_lock() else {
            return false;
        };
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = open
            .as_ref()
            .is_some_and(|served| Arc::strong_count(served) == 1 && asked.elapsed() >= idle);
        if let Some(served) = open.take_if(|_| is_idle) {
            metrics.note_end(&served.of, served.engine.end());
            tracing::info!(model = self.offer.name, "closed");
        }
        is_idle
    }
}

/// What the models without a part of their own share of the memory for keys and values: what others leave.
fn shared(offers: &[Offer], memory: u64) -> u64 {
    let own = offers.iter().filter_map(|offer| offer.kv_memory);
    memory.saturating_sub(own.fold(0, u64::saturating_add))
}

/// What each of them can count on: equal parts of it.
fn rest(offers: &[Offer], memory: u64) -> u64 {
    let others = offers.iter().filter(|offer| offer.kv_memory.is_none());
    shared(offers, memory) / others.count().max(1) as u64
}

/// Whether all models have a part of the memory for keys and values.
pub(crate) fn check_memory(offers: &[Offer], memory: u64) -> std::result::Result<(), String> {
    let own = offers.iter().filter_map(|offer| offer.kv_memory);
    let own = own.fold(0, u64::saturating_add);
    let others = offers.iter().any(|offer| offer.kv_memory.is_none());
    match memory {
        0 => Ok(()),
        memory if own < memory || (own == memory && !others) => Ok(()),
        memory => Err(format!(
            "the models' parts of the memory for keys and values are {} together, which leaves nothing of {} for others: give smaller parts, or more memory",
            size_text(own),
            size_text(memory)
        )),
    }
}

/// All models of a server.
pub(crate) struct Models {
    entries: Vec<Entry>,
    metrics: Arc<Metrics>,
    options: EngineOptions,
    /// That of all models without a part of their own.
    budget: Budget,
    /// Told when models lack memory that others, which nobody uses, may have.
    lacking: Arc<Notify>,
    /// When the server was started, in seconds since 1970.
    pub(crate) started: u64,
    /// Requests that are being served or wait.
    active: Arc<AtomicUsize>,
    most: usize,
}

/// A place among the requests that are served or wait.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Models {
    pub(crate) fn new(
        offers: Vec<Offer>,
        options: EngineOptions,
        queue: usize,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let rest = rest(&offers, options.kv_memory);
        let budget = Budget::new(shared(&offers, options.kv_memory));
        let lacking = Arc::new(Notify::new());
        let told = Arc::clone(&lacking);
        budget.on_lack(move || told.notify_one());
        metrics.note_budget(options.kv_memory);
        let entry = |offer: Offer| Entry {
            kv_memory: offer.kv_memory.unwrap_or(rest),
            budget: offer.kv_memory.map_or_else(|| budget.clone(), Budget::new),
            offer,
            open: Mutex::new(None),
            scales: SyncMutex::default(),
            asked: SyncMutex::new(Instant::now()),
        };
        Self {
            metrics: Arc::clone(metrics),
            most: options.sequences + queue,
            entries: offers.into_iter().map(entry).collect(),
            options,
            budget,
            lacking,
            started: crate::now(),
            active: Arc::default(),
        }
    }

    /// Their names, the first being the one that is meant where none is named, each with those of its adapters behind it.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.entries.iter().flat_map(|entry| entry.offer.names())
    }

    /// Takes a place in line, if there is one.
    pub(crate) fn place(&self) -> Result<Place> {
        let place = Place(Arc::clone(&self.active));
        match self.active.fetch_add(1, Ordering::Relaxed) {
            waiting if waiting >= self.most => Err(ApiError::overloaded(waiting)),
            _ => Ok(place),
        }
    }

    /// The model of a name, and the adapter if it is that of one.
    fn entry(&self, name: Option<&str>) -> Result<(&Entry, Option<usize>)> {
        let found = match name.filter(|name| !name.is_empty()) {
            None => self.entries.first().map(|entry| (entry, None)),
            Some(name) => self.entries.iter().find_map(|entry| {
                let place = entry.offer.names().position(|own| own == name)?;
                Some((entry, place.checked_sub(1)))
            }),
        };
        found.ok_or_else(|| {
            let names: Vec<String> = self.names().collect();
            let name = name.unwrap_or_default();
            let message = format!("there is no model {name:?} here, but {}", names.join(", "));
            ApiError::not_found("model_not_found", message).by("model")
        })
    }

    /// Whether a name is that of a model.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        self.entry(Some(name)).map(|_| ())
    }

    /// A model, opened first if need be. Where memory is missing for it, those that nobody uses are closed.
    pub(crate) async fn get(self: &Arc<Self>, name: Option<&str>) -> Result<Arc<Lent>> {
        let (entry, adapter) = self.entry(name)?;
        *entry.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let mut open = entry.open.lock().await;
        let lend = |served: &Arc<Served>| {
            let then = Then {
                budget: self.budget.clone(),
                lacking: Arc::clone(&self.lacking),
            };
            Arc::new(Lent {
                name: name
                    .filter(|name| !name.is_empty())
                    .unwrap_or(&entry.offer.name)
                    .to_owned(),
                adapters: match adapter {
                    Some(adapter) => Some(vec![(adapter, served.scale_of(adapter))]),
                    None => entry.scales(),
                },
                served: Arc::clone(served),
                _then: then,
            })
        };
        // An engine that has broken down is of no use to anybody.
        if let Some(served) = open.take_if(|served| served.engine.has_ended()) {
            self.metrics.note_end(&served.of, served.engine.end());
        }
        if let Some(served) = &*open {
            return Ok(lend(served));
        }
        let (models, name) = (Arc::clone(self), entry.offer.name.clone());
        let opened = tokio::task::spawn_blocking(move || models.open(&name)).await??;
        Ok(lend(open.insert(Arc::new(opened))))
    }

    fn open(&self, name: &str) -> Result<Served> {
        let (entry, _) = self.entry(Some(name))?;
        let started = Instant::now();
        let options = EngineOptions {
            kv_memory: entry.kv_memory,
            ..self.options.clone()
        };
        loop {
            match Served::open(&entry.offer, &options, &entry.budget) {
                Ok(served) => {
                    let seconds = started.elapsed().as_secs_f64();
                    tracing::info!(model = name, seconds, "opened");
                    return Ok(served);
                }
                Err(error) if is_out_of_memory(&error) && self.close_one(|_| true) => {}
                Err(error) => {
                    tracing::error!(model = name, %error, "cannot be opened");
                    // It is none of the request's doing.
                    return Err(match ApiError::from(error) {
                        error if error.status.is_client_error() => {
                            ApiError::internal(error.message)
                        }
                        error => error,
                    });
                }
            }
        }
    }

    /// Closes models that nobody uses whenever another lacks their memory.
    pub(crate) async fn close_for_others(self: Arc<Self>) {
        loop {
            self.lacking.notified().await;
            let models = Arc::clone(&self);
            let shares = |entry: &Entry| entry.offer.kv_memory.is_none();
            let close = move || models.budget.is_lacking() && models.close_one(shares);
            // An engine's thread is waited for.
            let _ = tokio::task::spawn_blocking(close).await;
        }
    }

    /// Closes the model that was not asked for the longest, of those of a kind that nobody uses.
    fn close_one(&self, of: impl Fn(&Entry) -> bool) -> bool {
        let asked = |entry: &&Entry| *entry.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<&Entry> = self.entries.iter().filter(|entry| of(entry)).collect();
        entries.sort_by_key(asked);
        entries
            .into_iter()
            .any(|entry| entry.close(Duration::ZERO, &self.metrics))
    }

    /// Closes the models that were idle for so long.
    pub(crate) fn close_idle(&self, idle: Duration) {
        for entry in &self.entries {
            entry.close(idle, &self.metrics);
        }
    }

    /// Sets what requests take of a model's adapters that say nothing themselves.
    pub(crate) fn set_scales(&self, name: Option<&str>, scales: Vec<(usize, f32)>) -> Result<()> {
        let (entry, _) = self.entry(name)?;
        *entry.scales.lock().unwrap_or_else(PoisonError::into_inner) = Some(scales);
        Ok(())
    }

    /// Looks at those that are open now.
    pub(crate) fn look(&self, mut look: impl FnMut(&Served)) {
        for entry in &self.entries {
            // Who holds the lock opens or closes it.
            if let Ok(open) = entry.open.try_lock()
                && let Some(served) = &*open
            {
                look(served);
            }
        }
        // None was closed meanwhile for others.
        if self.budget.is_lacking() {
            self.lacking.notify_one();
        }
    }

    /// Notes what the engines say of themselves.
    pub(crate) fn note(&self) {
        self.look(|served| self.metrics.note(&served.of, || served.engine.status()));
        // At one moment: what one has given another has not had before.
        let shared = self.budget.held();
        for entry in &self.entries {
            let name = &entry.offer.name;
            let held = match entry.offer.kv_memory {
                None => shared.clone(),
                Some(_) => entry.budget.held(),
            };
            let held = held.iter().find(|(held_by, _)| held_by == name);
            let of = Of {
                model: name.clone(),
            };
            self.metrics
                .note_held(&of, held.map_or(0, |(_, bytes)| *bytes));
        }
    }
}

/// Whether closing another model may help.
fn is_out_of_memory(error: &Error) -> bool {
    match error {
        Error::NoRoom { .. } | Error::Core(walsh_runtime::CoreError::OutOfMemory { .. }) => true,
        // What an engine says when less is free than its pages take, and not when all of the budget is too little.
        Error::Option {
            option: "kv_memory",
            expected,
            ..
        } => expected.starts_with("at most"),
        _ => false,
    }
}
