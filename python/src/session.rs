//! Sessions, and what they generate.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use self_cell::{MutBorrow, self_cell};
use walsh_runtime::sampling::drawn_seed;
use walsh_runtime::{Figures, Finish, Generation, Session, Watch, log_likelihood};

use crate::arrays::room;
use crate::errors::{Failure, Result};
use crate::options::Knobs;
use crate::slot::{Lease, Lock, Own, Slot};
use crate::wait::wait;

type Dependent<'s> = Generation<'s>;

self_cell!(
    /// A generation with the session that it has to itself.
    struct Running {
        owner: MutBorrow<Session>,
        #[not_covariant]
        dependent: Dependent,
    }
);

/// A text in the making: the KV caches of all layers, and how far they are filled.
#[pyclass(frozen, module = "walsh._walsh", name = "Session")]
pub(crate) struct PySession(pub(crate) Arc<Slot<Session>>);

impl PySession {
    pub(crate) fn new(session: Session) -> Self {
        Self(Slot::new("session", session))
    }

    /// Works with the session in a thread of its own; Ctrl-C ends it.
    fn work<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Session) -> walsh_runtime::Result<T> + Send,
    ) -> Result<T> {
        let mut lease = self.0.lend()?;
        let session = lease.get()?;
        let cancel = Arc::new(AtomicBool::new(false));
        session.set_watch(Watch::cancelled_by(&cancel));
        let done = wait(py, &[&cancel], || {
            let done = work(session);
            session.set_watch(Watch::default());
            done
        })?;
        Ok(done.or_signal()??)
    }
}

#[pymethods]
impl PySession {
    #[getter]
    fn position(&self) -> Result<usize> {
        self.0.look(Session::position)
    }

    #[getter]
    fn tokens(&self) -> Result<Vec<i32>> {
        self.0.look(|session| session.tokens().to_vec())
    }

    #[getter]
    fn context(&self) -> Result<usize> {
        self.0.look(Session::context)
    }

    #[getter]
    fn kv(&self) -> Result<String> {
        self.0.look(|session| session.options().kv.to_string())
    }

    #[getter]
    fn kv_bytes(&self) -> Result<u64> {
        self.0.look(Session::kv_bytes)
    }

    #[getter]
    fn closed(&self) -> Result<bool> {
        self.0.is_closed()
    }

    fn reset(&self) -> Result<()> {
        let mut lease = self.0.lend()?;
        lease.get()?.reset();
        Ok(())
    }

    fn prefill(&self, py: Python<'_>, tokens: Vec<i32>) -> Result<()> {
        self.work(py, |session| session.prefill(&tokens))
    }

    fn decode(&self, py: Python<'_>, token: i32) -> Result<()> {
        let mut lease = self.0.lend()?;
        let session = lease.get()?;
        py.detach(|| session.decode(token))?;
        Ok(py.check_signals()?)
    }

    fn decode_likeliest(&self, py: Python<'_>, token: i32) -> Result<i32> {
        let mut lease = self.0.lend()?;
        let session = lease.get()?;
        let next = py.detach(|| session.decode_likeliest(token))?;
        py.check_signals()?;
        Ok(next)
    }

    fn truncate(&self, py: Python<'_>, position: usize) -> Result<()> {
        self.work(py, |session| session.truncate(position))
    }

    fn logits<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyArray1<f32>>> {
        let logits = self.0.look(|session| session.logits().to_vec())?;
        Ok(logits.into_pyarray(py))
    }

    /// The logits behind each token from number `first` on.
    fn score<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<i32>,
        first: usize,
    ) -> Result<Bound<'py, PyArray2<f32>>> {
        let vocabulary = self.0.look(|session| session.model().config().vocabulary)?;
        let rows = tokens.len().saturating_sub(first);
        let mut logits = room(rows.saturating_mul(vocabulary))?;
        let logits = self.work(py, |session| {
            session.score(&tokens, first, &mut |_, row| {
                logits.extend_from_slice(row);
                Ok(())
            })?;
            Ok(logits)
        })?;
        matrix(py, logits, [rows, vocabulary])
    }

    /// The natural logarithm of the probability that each token but the first `first` (at least one) has behind those
    /// before it, and whether it is the likeliest there.
    fn likelihoods<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<i32>,
        first: usize,
    ) -> Result<(Bound<'py, PyArray1<f64>>, Vec<bool>)> {
        let (first, next) = (first.max(1), tokens.len().saturating_sub(1));
        let read = self.work(py, |session| {
            let mut found = (Vec::new(), Vec::new());
            // Behind the last there is nothing to compare with.
            session.score(&tokens[..next.max(1)], first - 1, &mut |at, logits| {
                if let Some(token) = tokens.get(at + 1) {
                    let (likelihood, is_best) = log_likelihood(logits, *token)?;
                    found.0.push(likelihood);
                    found.1.push(is_best);
                }
                Ok(())
            })?;
            Ok(found)
        })?;
        Ok((read.0.into_pyarray(py), read.1))
    }

    /// The vector behind each token: the residual stream behind the output norm.
    fn states<'py>(&self, py: Python<'py>, tokens: Vec<i32>) -> Result<Bound<'py, PyArray2<f32>>> {
        let width = self.0.look(|session| session.model().config().width)?;
        let rows = tokens.len();
        let mut states = room(rows.saturating_mul(width))?;
        let states = self.work(py, |session| {
            session.read_states(&tokens, &mut |_, row| {
                states.extend_from_slice(row);
                Ok(())
            })?;
            Ok(states)
        })?;
        matrix(py, states, [rows, width])
    }

    fn fork(&self, py: Python<'_>) -> Result<Self> {
        let mut lease = self.0.lend()?;
        let session = lease.get()?;
        Ok(Self::new(py.detach(|| session.fork())?))
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> Result<()> {
        let mut lease = self.0.lend()?;
        let session = lease.get()?;
        Ok(py.detach(|| session.save(path))?)
    }

    /// Reads tokens, and begins to generate what follows them.
    fn generate(&self, py: Python<'_>, tokens: Vec<i32>, knobs: Knobs) -> Result<PyGeneration> {
        let mut lease = self.0.lend()?;
        let cancel = Arc::new(AtomicBool::new(false));
        let session = lease.get()?;
        let options = knobs.generate(session.model(), &cancel)?;
        session.set_seed(knobs.given_seed()?.unwrap_or_else(drawn_seed));
        let session = lease.take()?.into_inner()?;
        let begun = wait(py, &[&cancel], || {
            let running = Running::try_new_or_recover(MutBorrow::new(session), |session| {
                session.borrow_mut().generate_from(&tokens, options)
            });
            running.map_err(Box::new)
        })?;
        let running = match begun.value {
            Ok(running) => running,
            Err(failed) => {
                let (session, error) = *failed;
                lease.put(Own::new(session.into_inner()));
                return Err(begun.signal.map_or(error.into(), Failure::from));
            }
        };
        if let Some(signal) = begun.signal {
            lease.put(Own::new(running.into_owner().into_inner()));
            return Err(signal.into());
        }
        Ok(PyGeneration {
            running: Lock::new(Some((Own::new(running), lease))),
            told: Mutex::new(Told::default()),
            cancel,
        })
    }

    fn close(&self, py: Python<'_>) -> Result<()> {
        let session = self.0.close()?;
        py.detach(|| drop(session));
        Ok(())
    }
}

/// Rows of a matrix as an array, which takes them over.
pub(crate) fn matrix<'py, T: numpy::Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: [usize; 2],
) -> Result<Bound<'py, PyArray2<T>>> {
    Ok(values.into_pyarray(py).reshape(shape)?)
}

/// What a generation took, times in seconds.
pub(crate) fn figures_dict<'py>(py: Python<'py>, figures: &Figures) -> Result<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("prompt_tokens", figures.prompt_tokens)?;
    dict.set_item("reused_tokens", figures.reused_tokens)?;
    dict.set_item("prompt_seconds", figures.prompt_time.as_secs_f64())?;
    dict.set_item("generated_tokens", figures.generated_tokens)?;
    dict.set_item("generated_seconds", figures.generated_time.as_secs_f64())?;
    dict.set_item(
        "first_token_seconds",
        figures.first_token_time.as_secs_f64(),
    )?;
    Ok(dict)
}

/// Of two threads that read one text.
pub(crate) fn two_readers() -> Failure {
    let what = "two threads want the next piece of a text: let one of them read it";
    Failure::Named("BusyError", what.into())
}

/// What is known of a generation, also when it has ended.
#[derive(Default)]
struct Told {
    finish: Option<Finish>,
    figures: Figures,
    tokens: Vec<i32>,
}

/// What a session generates, piece by piece; the session is its own until it ends.
#[pyclass(frozen, module = "walsh._walsh", name = "Generation")]
pub(crate) struct PyGeneration {
    /// There until it ends.
    running: Lock<Option<(Own<Running>, Lease<Session>)>>,
    told: Mutex<Told>,
    cancel: Arc<AtomicBool>,
}

impl PyGeneration {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the session back.
    fn end(running: &mut Option<(Own<Running>, Lease<Session>)>) -> Result<()> {
        if let Some((running, mut lease)) = running.take() {
            let session = running.into_inner()?.into_owner().into_inner();
            lease.put(Own::new(session));
        }
        Ok(())
    }
}

#[pymethods]
impl PyGeneration {
    /// The next piece; nothing once it has ended.
    fn next(&self, py: Python<'_>) -> Result<Option<String>> {
        let mut guard = self.running.try_lock()?.ok_or_else(two_readers)?;
        let Some((running, _)) = &mut *guard else {
            return Ok(None);
        };
        let running = running.get()?;
        let next = py.detach(|| running.with_dependent_mut(|_, generation| generation.next()));
        let has_ended = running.with_dependent(|_, generation| {
            let mut told = self.told();
            told.finish = generation.finish();
            told.figures = *generation.figures();
            let known = told.tokens.len();
            told.tokens.extend_from_slice(&generation.tokens()[known..]);
            told.finish.is_some()
        });
        let signal = py.check_signals().err();
        if has_ended || next.is_none() || signal.is_some() {
            let running = &mut *guard;
            py.detach(move || Self::end(running))?;
        }
        if let Some(signal) = signal {
            return Err(signal.into());
        }
        Ok(next.transpose()?)
    }

    #[getter]
    fn finish(&self) -> Option<&'static str> {
        self.told().finish.map(Finish::name)
    }

    #[getter]
    fn tokens(&self) -> Vec<i32> {
        self.told().tokens.clone()
    }

    #[getter]
    fn figures<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let figures = self.told().figures;
        figures_dict(py, &figures)
    }

    /// Ends it before the next token; what was held back of the text still comes.
    fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// Ends it, and gives the session back. A piece that another thread is about to get is waited for.
    fn close(&self, py: Python<'_>) -> Result<()> {
        self.cancel();
        py.detach(|| Self::end(&mut *self.running.lock()?))
    }
}

impl Drop for PyGeneration {
    fn drop(&mut self) {
        // In a forked process there is nothing to give back.
        let _ = Self::end(self.running.get_mut());
    }
}
