//! What a server is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use walsh_runtime::{EngineOptions, Model, Result};

/// A model that a server offers.
pub struct Offer {
    /// What requests call it.
    pub name: String,
    /// Its part of the memory for keys and values, which is nobody else's; if `None`, it shares what others leave.
    pub kv_memory: Option<u64>,
    /// What its [adapters](Model::adapters) are called, in their order: behind the model's name and a colon they are names of
    /// models too, which take that adapter alone.
    pub adapters: Vec<String>,
    /// Opens it, which may take long; called again after it was closed.
    pub open: Box<dyn Fn() -> Result<Model> + Send + Sync>,
}

/// How a server is started.
pub struct ServeOptions {
    /// Where it listens; port 0 takes one that is free.
    pub address: SocketAddr,
    /// The models. Requests without a model's name mean the first.
    pub offers: Vec<Offer>,
    /// What each model's engine is started with. Memory for keys and values, where it is limited, is that of all
    /// models together: models have what they are [offered](Offer::kv_memory) with, and the others share the rest.
    pub engine: EngineOptions,
    /// The keys, of which a request has to have one; none if none are needed.
    pub keys: Vec<String>,
    /// The origins whose pages browsers let use the server; `*` stands for all.
    pub origins: Vec<String>,
    /// What a server allows.
    pub limits: Limits,
    /// How long requests that run may take to end when the server is asked to end.
    pub grace: Duration,
    /// After how long without a request a model is closed; never if `None`. The first one opens it again.
    pub close_after: Option<Duration>,
    /// The folder in which texts of slots are saved, which is made if it is not there; none can be if `None`.
    pub slot_folder: Option<PathBuf>,
    /// Whether the texts of requests and answers are logged, too.
    pub log_texts: bool,
}

/// What a server allows. Beyond it, requests get an error of their own.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Requests that wait, besides those that the engine serves at once.
    pub queue: usize,
    /// Connections at once; others wait to be accepted.
    pub connections: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// From a request's head to the end of its answer, which ends there wherever it is; as long as it takes if `None`.
    pub request_time: Option<Duration>,
    /// For a request's head, and between parts of its body.
    pub read_time: Duration,
    /// For a client to take what is sent.
    pub write_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 32 << 20,
            queue: 256,
            connections: 1024,
            head: 64 << 10,
            request_time: None,
            read_time: Duration::from_secs(20),
            write_time: Duration::from_secs(60),
        }
    }
}
