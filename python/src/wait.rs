//! Calls that take long: Python's other threads go on meanwhile, and Ctrl-C ends them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{Builder, scope};
use std::time::Duration;

use pyo3::prelude::*;

use crate::errors::{Failure, Result};

/// How often Python is asked whether a signal has come.
pub(crate) const GLANCE: Duration = Duration::from_millis(50);

/// What came of a call, and the exception of a signal that has ended it.
pub(crate) struct Waited<T> {
    pub(crate) value: T,
    pub(crate) signal: Option<PyErr>,
}

impl<T> Waited<T> {
    /// The value, unless a signal came.
    pub(crate) fn or_signal(self) -> Result<T> {
        match self.signal {
            Some(signal) => Err(signal.into()),
            None => Ok(self.value),
        }
    }
}

/// Does work in a thread of its own, while this one looks for signals, which Python tells its main thread alone. One that
/// raises an exception sets `cancels`, upon which the work is to end soon.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    cancels: &[&AtomicBool],
    work: impl FnOnce() -> T + Send,
) -> Result<Waited<T>> {
    let mut signal = None;
    let value = scope(|scope| {
        let (alive, mut ended) = channel::<()>();
        let thread = Builder::new().name("walsh-call".into());
        let thread = thread.spawn_scoped(scope, move || {
            let _alive = alive;
            work()
        });
        let thread = thread
            .map_err(|error| Failure::internal(format!("a thread cannot be started: {error}")))?;
        loop {
            let ended = &mut ended;
            let wait = py.detach(move || ended.recv_timeout(GLANCE));
            let waited = wait == Err(RecvTimeoutError::Timeout);
            if !waited {
                break;
            }
            if signal.is_none()
                && let Err(raised) = py.check_signals()
            {
                for cancel in cancels {
                    cancel.store(true, Ordering::Relaxed);
                }
                signal = Some(raised);
            }
        }
        let joined = py.detach(|| thread.join());
        joined.map_err(|panic| Failure::internal(format!("a fault of Walsh: {}", text_of(&*panic))))
    })?;
    Ok(Waited { value, signal })
}

/// What a panic says.
fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it says no more")
}
