//! What is counted of a server, in Prometheus' form.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use walsh_runtime::EngineStatus;

/// What figures are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Of {
    pub(crate) model: String,
}

/// What a figure of an engine is, and how it is read.
type Reading = (&'static str, &'static str, fn(&EngineStatus) -> u64);

/// Those that only grow.
const COUNTED: [Reading; 7] = [
    ("prompt_tokens", "Tokens of prompts that were read", |s| {
        s.read
    }),
    (
        "prompt_tokens_reused",
        "Tokens of prompts that were not read, because they were kept of another text",
        |s| s.reused,
    ),
    ("generated_tokens", "Tokens that were chosen", |s| {
        s.generated
    }),
    (
        "tokens_looked_up",
        "Tokens that were read before they were chosen",
        |s| s.looked_up,
    ),
    ("tokens_found", "Those of them that were chosen", |s| {
        s.found
    }),
    ("steps", "Runs of the model", |s| s.steps),
    ("put_off", "Texts that gave way to others", |s| s.put_off),
];

/// Those that come and go.
const MEASURED: [Reading; 6] = [
    ("requests_waiting", "Requests that have not begun", |s| {
        s.waiting as u64
    }),
    ("requests_running", "Requests that are being served", |s| {
        s.running as u64
    }),
    ("kv_pages_used", "Pages of texts in work", |s| {
        s.pages_used as u64
    }),
    (
        "kv_pages_shared",
        "Those of them that several of the texts have",
        |s| s.pages_shared as u64,
    ),
    ("kv_pages_kept", "Pages kept of other texts", |s| {
        s.pages_kept as u64
    }),
    ("kv_pages", "Pages in all", |s| s.pages as u64),
];

/// The figures of a server.
pub(crate) struct Metrics {
    registry: Registry,
    counted: Vec<Family<Of, Counter>>,
    /// What an engine has said of itself last.
    latest: Mutex<HashMap<Of, EngineStatus>>,
    measured: Vec<Family<Of, Gauge<i64>>>,
    held: Family<Of, Gauge<i64>>,
    budget: Gauge<i64>,
    pub(crate) requests: Family<Of, Counter>,
    pub(crate) failed: Family<Of, Counter>,
    pub(crate) cancelled: Family<Of, Counter>,
    first_token: Family<Of, Histogram>,
    between_tokens: Family<Of, Histogram>,
}

fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("walsh");
        let counted = COUNTED.map(|(name, help, _)| {
            let family = Family::<Of, Counter>::default();
            registry.register(name, help, family.clone());
            family
        });
        let measured = MEASURED.map(|(name, help, _)| {
            let family = Family::<Of, Gauge<i64>>::default();
            registry.register(name, help, family.clone());
            family
        });
        let held = Family::<Of, Gauge<i64>>::default();
        registry.register("kv_bytes", "Bytes of keys and values", held.clone());
        let budget = Gauge::default();
        let help = "Those that all models may have together, 0 for no bound";
        registry.register("kv_budget_bytes", help, budget.clone());
        let mut counter = |name: &str, help: &str| {
            let family = Family::<Of, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let requests = counter("requests", "Requests for a text or a vector");
        let failed = counter("requests_failed", "Requests that ended with an error");
        let cancelled = counter("requests_cancelled", "Requests whose client had gone");
        let mut histogram = |name: &str, help: &str| {
            let family = Family::<Of, Histogram>::new_with_constructor(times as fn() -> Histogram);
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
            family
        };
        Self {
            first_token: histogram("time_to_first_token", "From the request to its first token"),
            between_tokens: histogram("time_between_tokens", "From a token to the next"),
            counted: counted.into(),
            latest: Mutex::default(),
            measured: measured.into(),
            held,
            budget,
            requests,
            failed,
            cancelled,
            registry,
        }
    }

    pub(crate) fn first_token(&self, of: &Of, time: Duration) {
        self.first_token
            .get_or_create(of)
            .observe(time.as_secs_f64());
    }

    pub(crate) fn next_token(&self, of: &Of, time: Duration) {
        self.between_tokens
            .get_or_create(of)
            .observe(time.as_secs_f64());
    }

    /// Notes how many bytes models have together for keys and values; 0 for no bound.
    pub(crate) fn note_budget(&self, bytes: u64) {
        self.budget.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Notes how many of them a model has.
    pub(crate) fn note_held(&self, of: &Of, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.held.get_or_create(of).set(bytes);
    }

    /// Takes over what an engine says of itself, which is read here: what is noted last is of last.
    pub(crate) fn note(&self, of: &Of, status: impl FnOnce() -> EngineStatus) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let status = status();
        let before = latest.insert(of.clone(), status).unwrap_or_default();
        for ((_, _, read), family) in COUNTED.iter().zip(&self.counted) {
            let more = read(&status).saturating_sub(read(&before));
            family.get_or_create(of).inc_by(more);
        }
        for family in [&self.requests, &self.failed, &self.cancelled] {
            drop(family.get_or_create(of));
        }
        for ((_, _, read), family) in MEASURED.iter().zip(&self.measured) {
            let number = i64::try_from(read(&status)).unwrap_or(i64::MAX);
            family.get_or_create(of).set(number);
        }
    }

    /// Takes over what an engine that has ended has done in all. The next one begins at nothing, and its counters do not.
    pub(crate) fn note_end(&self, of: &Of, status: EngineStatus) {
        self.note(of, || status);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.remove(of);
    }

    /// All of it as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
