//! A server for engines: OpenAI's and Anthropic's interfaces, what llama-server's clients ask for besides, and a page for
//! people.
//!
//! Requests become [`Request`](walsh_runtime::Request)s of an [`Engine`](walsh_runtime::Engine) and their answers streams of
//! events. A client that goes away drops its stream, which ends the text within a step.

mod answer;
mod anthropic;
mod api;
mod ask;
mod body;
mod end;
mod error;
mod events;
mod guard;
mod knobs;
mod llama;
mod log;
mod metrics;
mod models;
mod openai;
mod options;
mod page;
mod routes;
mod server;

pub use log::{LogKind, log};
pub use options::{Limits, Offer, ServeOptions};
pub use server::{Notice, ServeError, serve};

use metrics::Metrics;
use models::Models;
use openai::responses::Kept;

/// What all requests share.
struct App {
    models: std::sync::Arc<Models>,
    metrics: std::sync::Arc<Metrics>,
    kept: Kept,
    guard: guard::Guard,
    /// Where the texts of slots are saved, if they are.
    slot_folder: Option<std::path::PathBuf>,
    /// The longest that a request may take.
    request_time: Option<std::time::Duration>,
    log_texts: bool,
}

impl App {
    /// Logs a text, if those are logged.
    fn log_text(&self, what: &str, text: &str) {
        if self.log_texts {
            tracing::info!(what, text);
        }
    }
}

/// What is known of a request beside its body.
#[derive(Debug, Clone)]
struct Asked {
    id: String,
    /// Who asks: an address, or the number of a key.
    client: Option<String>,
    /// When it is over, whatever has come of it.
    deadline: Option<std::time::Instant>,
}

/// A name that nothing else has.
fn new_id(prefix: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = || RandomState::new().hash_one(prefix);
    format!("{prefix}{:016x}{:016x}", random(), random())
}

/// Seconds since 1970.
fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}
