//! Connections, and how a server begins and ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tower_http::add_extension::AddExtension;

use crate::App;
use crate::end::Signals;
use crate::guard::{Guard, Peer};
use crate::metrics::Metrics;
use crate::models::{self, Models};
use crate::openai::responses::Kept;
use crate::options::{Limits, Offer, ServeOptions};
use crate::routes::routes;

/// Why a server cannot begin, or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no model to serve.
    #[error("there is no model to serve: name at least one")]
    NoModel,
    /// Two models, or adapters of one, have the same name.
    #[error("two models are called {0:?}: requests could not tell them apart")]
    SameName(String),
    /// An origin is no value of a header.
    #[error("the origin {0:?} is none: give it as in https://example.org")]
    Origin(String),
    /// What models are offered with is more memory than there is.
    #[error("{0}")]
    Memory(String),
    /// Texts of slots cannot be saved.
    #[error("{0}")]
    Folder(String),
    /// The first model cannot be opened.
    #[error("{0}")]
    Model(String),
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The system lacks something.
    #[error("the server cannot be started: {0}")]
    System(#[from] io::Error),
}

/// What a server tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// It listens.
    Listening(SocketAddr),
    /// It was asked to end, and lets requests that run do so.
    Ending,
    /// What still runs when it has waited for long enough is broken off.
    BrokenOff,
}

/// Serves until SIGTERM or SIGINT, or what Windows has for them, asks for an end. The first model is opened before anything
/// is listened to.
///
/// # Errors
/// When it cannot begin.
pub fn serve(options: ServeOptions, notice: &mut dyn FnMut(Notice)) -> Result<(), ServeError> {
    check(&options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("walsh-serve")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(options, notice));
    // What was broken off does not hold the end up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

fn check(options: &ServeOptions) -> Result<(), ServeError> {
    let names: Vec<String> = options.offers.iter().flat_map(Offer::names).collect();
    if names.is_empty() {
        return Err(ServeError::NoModel);
    }
    let twice = names
        .iter()
        .enumerate()
        .find(|(at, name)| names[..*at].contains(name));
    if let Some((_, name)) = twice {
        return Err(ServeError::SameName(name.clone()));
    }
    models::check_memory(&options.offers, options.engine.kv_memory).map_err(ServeError::Memory)?;
    if let Some(folder) = &options.slot_folder {
        let made = std::fs::create_dir_all(folder)
            .map_err(|error| format!("{}: {error}", folder.display()));
        let written = walsh_runtime::check_writable(folder.join("new"));
        made.and_then(|()| written.map_err(|error| error.to_string()))
            .map_err(ServeError::Folder)?;
    }
    let wrong = |origin: &&String| axum::http::HeaderValue::from_str(origin).is_err();
    match options.origins.iter().find(wrong) {
        Some(origin) => Err(ServeError::Origin(origin.clone())),
        None => Ok(()),
    }
}

/// Connections that wait to be accepted, at most, where the system allows it: those beyond come a second later.
const WAITING: u32 = 4096;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A server that was just ended has its port still. On Windows it does not, and the option would let two share one.
    socket.set_reuseaddr(cfg!(unix))?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

async fn run(options: ServeOptions, notice: &mut dyn FnMut(Notice)) -> Result<(), ServeError> {
    let mut signals = Signals::new()?;
    let address = options.address;
    // Before a model is opened for nothing.
    let listener = listen(address).map_err(|error| ServeError::Listen { address, error })?;
    let limits = options.limits;
    let metrics = Arc::new(Metrics::new());
    let app = Arc::new(App {
        models: Arc::new(Models::new(
            options.offers,
            options.engine,
            limits.queue,
            &metrics,
        )),
        metrics,
        kept: Kept::default(),
        guard: Guard::new(&options.keys, address),
        slot_folder: options.slot_folder,
        request_time: limits.request_time,
        log_texts: options.log_texts,
    });
    tokio::spawn(Arc::clone(&app.models).close_for_others());
    tokio::select! {
        opened = app.models.get(None) => {
            opened.map_err(|error| ServeError::Model(error.message))?;
        }
        () = signals.ask_for_an_end() => return Ok(()),
    }
    if let Some(idle) = options.close_after {
        tokio::spawn(close_idle(Arc::clone(&app.models), idle));
    }
    let router = routes(&app, &limits, &options.origins);
    notice(Notice::Listening(listener.local_addr()?));
    let connections = Connections {
        graceful: GracefulShutdown::new(),
        free: Arc::new(Semaphore::new(limits.connections)),
        limits,
    };
    tokio::select! {
        () = connections.accept(&listener, &router) => {}
        () = signals.ask_for_an_end() => {}
    }
    drop(listener);
    notice(Notice::Ending);
    tokio::select! {
        () = connections.graceful.shutdown() => {}
        () = tokio::time::sleep(options.grace) => notice(Notice::BrokenOff),
    }
    Ok(())
}

/// Closes models that nobody asks for.
async fn close_idle(models: Arc<Models>, idle: Duration) {
    let pause = (idle / 4).clamp(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        tokio::time::sleep(pause).await;
        let models = Arc::clone(&models);
        // An engine's thread is waited for.
        let _ = tokio::task::spawn_blocking(move || models.close_idle(idle)).await;
    }
}

struct Connections {
    graceful: GracefulShutdown,
    free: Arc<Semaphore>,
    limits: Limits,
}

impl Connections {
    /// Takes connections until it is dropped.
    async fn accept(&self, listener: &TcpListener, router: &axum::Router) {
        loop {
            let Ok(permit) = Arc::clone(&self.free).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Often there are too many open files: some may be closed soon.
                    tracing::warn!(%error, "a connection cannot be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // A layer of the router's would be one of each of its routes.
            let service = AddExtension::new(router.clone(), Peer(peer));
            let connection = self.connection(stream, service);
            tokio::spawn(async move {
                connection.await;
                drop(permit);
            });
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        service: AddExtension<axum::Router, Peer>,
    ) -> impl Future<Output = ()> + use<> {
        // Tokens go out as they come.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.limits.write_time));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.read_time)
            .max_buf_size(self.limits.head)
            .serve_connection(
                TokioIo::new(Box::pin(stream)),
                TowerToHyperService::new(service),
            );
        let connection = self.graceful.watch(connection);
        async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        }
    }
}
