//! Engines: many requests at once.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use walsh_runtime::{Engine, EngineOptions, Finish, Logprobs, Piece, Stream};

use crate::errors::{Failure, Result};
use crate::model::PyModel;
use crate::options::{Knobs, spec};
use crate::session::{figures_dict, two_readers};
use crate::slot::{Lock, Own, Shared};
use crate::wait::GLANCE;

/// How an engine is started; what is absent is as the library has it.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
struct Starting {
    sequences: Option<usize>,
    #[pyo3(default)]
    context: Option<usize>,
    #[pyo3(default)]
    kv: Option<String>,
    #[pyo3(default)]
    kv_memory: Option<u64>,
    #[pyo3(default)]
    chunk: Option<usize>,
    #[pyo3(default)]
    keep_prefixes: Option<bool>,
    #[pyo3(default)]
    prefix_folder: Option<PathBuf>,
    #[pyo3(default)]
    look_up: Option<usize>,
    #[pyo3(default)]
    deterministic: Option<bool>,
}

impl Starting {
    fn options(self) -> Result<EngineOptions> {
        let usual = EngineOptions::default();
        Ok(EngineOptions {
            sequences: self.sequences.unwrap_or(usual.sequences),
            context: self.context.unwrap_or(usual.context),
            kv: spec(self.kv.as_deref())?,
            kv_memory: self.kv_memory.unwrap_or(usual.kv_memory),
            chunk: self.chunk.unwrap_or(usual.chunk),
            keep_prefixes: self.keep_prefixes.unwrap_or(usual.keep_prefixes),
            prefix_folder: self.prefix_folder,
            look_up: self.look_up.unwrap_or(usual.look_up),
            deterministic: self.deterministic.unwrap_or(usual.deterministic),
            ..usual
        })
    }
}

/// Serves many requests at once with one model.
#[pyclass(frozen, module = "walsh._walsh", name = "Engine")]
pub(crate) struct PyEngine(Shared<Engine>);

#[pymethods]
impl PyEngine {
    #[new]
    fn start(py: Python<'_>, model: &PyModel, starting: Starting) -> Result<Self> {
        let (opened, options) = (model.get()?, starting.options()?);
        let engine = model.wait(py, None, || Engine::new(opened, options))?;
        Ok(Self(Shared::new("engine", engine.or_signal()??)))
    }

    #[getter]
    fn context(&self) -> Result<usize> {
        Ok(self.0.get()?.options().context)
    }

    #[getter]
    fn kv(&self) -> Result<String> {
        Ok(self.0.get()?.options().kv.to_string())
    }

    /// Hands it a request.
    fn submit(&self, py: Python<'_>, prompt: Vec<i32>, knobs: Knobs) -> Result<PyStream> {
        let engine = self.0.get()?;
        let request = knobs.request(engine.model(), prompt)?;
        // Large schemas take their time.
        let stream = py.detach(|| engine.submit(request))?;
        Ok(PyStream {
            stream: Lock::new(Own::new(stream)),
            is_cancelled: AtomicBool::new(false),
        })
    }

    fn status<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let status = self.0.get()?.status();
        let dict = PyDict::new(py);
        dict.set_item("waiting", status.waiting)?;
        dict.set_item("running", status.running)?;
        dict.set_item("pages_used", status.pages_used)?;
        dict.set_item("pages_kept", status.pages_kept)?;
        dict.set_item("pages", status.pages)?;
        dict.set_item("steps", status.steps)?;
        dict.set_item("read", status.read)?;
        dict.set_item("reused", status.reused)?;
        dict.set_item("generated", status.generated)?;
        dict.set_item("looked_up", status.looked_up)?;
        dict.set_item("found", status.found)?;
        dict.set_item("put_off", status.put_off)?;
        Ok(dict)
    }

    /// Of each slot the number of the request that has it, and how many tokens of a text it has.
    fn slots(&self) -> Result<Vec<(Option<u64>, usize)>> {
        let slots = self.0.get()?.slots();
        Ok(slots
            .iter()
            .map(|slot| (slot.request, slot.tokens))
            .collect())
    }

    /// Writes what a slot's text has left behind to a file: how many tokens, and bytes.
    fn save_slot(&self, py: Python<'_>, slot: usize, path: PathBuf) -> Result<(usize, u64)> {
        let engine = self.0.get()?;
        let file = py.detach(|| engine.save_slot(slot, path))?;
        Ok((file.tokens, file.bytes))
    }

    /// Puts what was written among the texts that are kept: how many tokens, and bytes.
    fn restore_slot(&self, py: Python<'_>, slot: usize, path: PathBuf) -> Result<(usize, u64)> {
        let engine = self.0.get()?;
        let file = py.detach(|| engine.restore_slot(slot, path))?;
        Ok((file.tokens, file.bytes))
    }

    /// Forgets a slot's text: how many tokens that nobody else has in common.
    fn erase_slot(&self, py: Python<'_>, slot: usize) -> Result<usize> {
        let engine = self.0.get()?;
        Ok(py.detach(|| engine.erase_slot(slot))?)
    }

    #[getter]
    fn closed(&self) -> Result<bool> {
        self.0.is_closed()
    }

    /// Ends it and all its requests.
    fn close(&self, py: Python<'_>) -> Result<()> {
        let engine = self.0.close()?;
        py.detach(|| drop(engine));
        Ok(())
    }
}

type Told = (f32, Vec<(i32, f32)>);
type PyPiece = (Option<i32>, String, Option<Told>);

fn told(logprobs: &Logprobs) -> Told {
    (logprobs.token, logprobs.top.clone())
}

fn piece(piece: Piece) -> PyPiece {
    let logprobs = piece.logprobs.as_ref().map(told);
    (piece.token, piece.text, logprobs)
}

/// The answer to a request, piece by piece.
#[pyclass(frozen, module = "walsh._walsh", name = "Stream")]
pub(crate) struct PyStream {
    stream: Lock<Own<Stream>>,
    /// Set to end it while a thread waits for its next piece.
    is_cancelled: AtomicBool,
}

impl PyStream {
    fn lock(&self) -> Result<MutexGuard<'_, Own<Stream>>> {
        self.stream.try_lock()?.ok_or_else(two_readers)
    }

    fn with<T>(&self, read: impl FnOnce(&mut Stream) -> T) -> Result<T> {
        Ok(read(self.lock()?.get()?))
    }
}

#[pymethods]
impl PyStream {
    /// The next piece; nothing once it has ended.
    fn next(&self, py: Python<'_>) -> Result<Option<PyPiece>> {
        let mut guard = self.lock()?;
        let stream = guard.get()?;
        loop {
            if self.is_cancelled.load(Ordering::Relaxed) {
                stream.cancel();
            }
            match py.detach(|| stream.poll(GLANCE)) {
                Poll::Ready(next) => return Ok(next.transpose()?.map(piece)),
                Poll::Pending => {
                    if let Err(signal) = py.check_signals() {
                        stream.cancel();
                        return Err(signal.into());
                    }
                }
            }
        }
    }

    /// Whether the next piece is there, and it, nothing at the end; where it is not, the bell rings when it comes.
    fn try_next(&self, bell: &PyBell, tag: u64) -> Result<(bool, Option<PyPiece>)> {
        let waker = Waker::from(Arc::new(Ring {
            bell: Arc::clone(&bell.0),
            tag,
        }));
        self.with(
            |stream| match stream.poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(next) => Ok((true, next.transpose()?.map(piece))),
                Poll::Pending => Ok((false, None)),
            },
        )?
    }

    /// Ends the text soon, also while another thread waits for its next piece.
    fn cancel(&self) -> Result<()> {
        self.is_cancelled.store(true, Ordering::Relaxed);
        // Who waits looks at the flag.
        if let Some(mut stream) = self.stream.try_lock()? {
            stream.get()?.cancel();
        }
        Ok(())
    }

    #[getter]
    fn finish(&self) -> Result<Option<&'static str>> {
        self.with(|stream| stream.finish().map(Finish::name))
    }

    #[getter]
    fn stopped_by(&self) -> Result<Option<String>> {
        self.with(|stream| stream.stopped_by().map(str::to_owned))
    }

    #[getter]
    fn figures<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, PyDict>>> {
        let figures = self.with(|stream| stream.figures().copied())?;
        figures
            .map(|figures| figures_dict(py, &figures))
            .transpose()
    }

    #[getter]
    fn prompt_logprobs(&self) -> Result<Option<Vec<Told>>> {
        self.with(|stream| {
            let logprobs = stream.prompt_logprobs()?;
            Some(logprobs.iter().map(told).collect())
        })
    }

    #[getter]
    fn embedding(&self) -> Result<Option<Vec<f32>>> {
        self.with(|stream| stream.embedding().map(<[f32]>::to_vec))
    }
}

/// What rings when pieces come: a byte in a socket that an event loop watches. The engine's thread never waits for Python.
struct Chime {
    hears: UnixStream,
    rings: UnixStream,
    /// Who is rung for.
    tags: Lock<Vec<u64>>,
}

struct Ring {
    bell: Arc<Chime>,
    tag: u64,
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        // In a forked process no engine rings.
        let Ok(mut tags) = self.bell.tags.lock() else {
            return;
        };
        tags.push(self.tag);
        // A socket that is full rings already, and one whose loop has gone is heard by nobody.
        let _ = (&self.bell.rings).write(&[0]);
    }
}

/// A bell for an event loop.
#[pyclass(frozen, module = "walsh._walsh", name = "Bell")]
pub(crate) struct PyBell(Arc<Chime>);

#[pymethods]
impl PyBell {
    #[new]
    fn new() -> Result<Self> {
        let pair = || {
            let (hears, rings) = UnixStream::pair()?;
            hears.set_nonblocking(true)?;
            rings.set_nonblocking(true)?;
            Ok::<_, std::io::Error>((hears, rings))
        };
        let (hears, rings) = pair().map_err(|error| {
            Failure::internal(format!("an event loop cannot be told of pieces: {error}"))
        })?;
        Ok(Self(Arc::new(Chime {
            hears,
            rings,
            tags: Lock::new(Vec::new()),
        })))
    }

    fn fileno(&self) -> i32 {
        self.0.hears.as_raw_fd()
    }

    /// Who was rung for since the last call.
    fn heard(&self) -> Result<Vec<u64>> {
        // First: in a forked process the bytes are its parent's.
        let mut tags = self.0.tags.lock()?;
        let mut buffer = [0; 256];
        loop {
            match (&self.0.hears).read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        Ok(std::mem::take(&mut *tags))
    }
}
