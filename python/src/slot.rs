//! What Python objects hold: at most one uses it at a time, it can be closed, and a forked process has none of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::errors::{Failure, Result};

/// A value that belongs to the process that made it: its threads do not exist in another, so that it is not even dropped
/// there, which would wait for them.
pub(crate) struct Own<T> {
    /// There until this is dropped or taken apart.
    value: Option<T>,
    process: u32,
}

impl<T> Own<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: Some(value),
            process: std::process::id(),
        }
    }

    /// The value, in the process that made it.
    pub(crate) fn get(&mut self) -> Result<&mut T> {
        self.check()?;
        self.value.as_mut().ok_or_else(gone)
    }

    pub(crate) fn look(&self) -> Result<&T> {
        self.check()?;
        self.value.as_ref().ok_or_else(gone)
    }

    pub(crate) fn into_inner(mut self) -> Result<T> {
        self.check()?;
        self.value.take().ok_or_else(gone)
    }

    fn check(&self) -> Result<()> {
        match self.process == std::process::id() {
            true => Ok(()),
            false => Err(forked()),
        }
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            std::mem::forget(self.value.take());
        }
    }
}

fn gone() -> Failure {
    Failure::internal("a value is used that was taken")
}

fn forked() -> Failure {
    Failure::Named(
        "ForkError",
        "this was made before the process was forked: open the model in the new process, or start that by spawning"
            .into(),
    )
}

/// Where a value is.
enum State<T> {
    Here(Own<T>),
    /// With somebody who uses it, and gives it back.
    Lent,
    Closed,
}

/// A value that is lent to one user after the other.
pub(crate) struct Slot<T> {
    state: Mutex<State<T>>,
    process: u32,
    /// What it is, in messages.
    what: &'static str,
}

impl<T> Slot<T> {
    pub(crate) fn new(what: &'static str, value: T) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::Here(Own::new(value))),
            process: std::process::id(),
            what,
        })
    }

    /// The state; a lock that another thread held when the process was forked is never taken.
    fn state(&self) -> Result<MutexGuard<'_, State<T>>> {
        if self.process != std::process::id() {
            return Err(forked());
        }
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the value for as long as the lease lives.
    pub(crate) fn lend(self: &Arc<Self>) -> Result<Lease<T>> {
        let mut state = self.state()?;
        match std::mem::replace(&mut *state, State::Lent) {
            State::Here(value) => Ok(Lease {
                value: Some(value),
                slot: Arc::clone(self),
            }),
            State::Lent => Err(busy(self.what)),
            State::Closed => {
                *state = State::Closed;
                Err(closed(self.what))
            }
        }
    }

    /// Looks at the value while nobody uses it.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> Result<R> {
        match &*self.state()? {
            State::Here(value) => Ok(look(value.look()?)),
            State::Lent => Err(busy(self.what)),
            State::Closed => Err(closed(self.what)),
        }
    }

    /// Closes it: the value is handed out to be dropped, or is dropped when it comes back.
    pub(crate) fn close(&self) -> Result<Option<Own<T>>> {
        match std::mem::replace(&mut *self.state()?, State::Closed) {
            State::Here(value) => Ok(Some(value)),
            State::Lent | State::Closed => Ok(None),
        }
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> Result<bool> {
        Ok(matches!(*self.state()?, State::Closed))
    }

    fn take_back(&self, value: Own<T>) {
        if let Ok(mut state) = self.state()
            && matches!(*state, State::Lent)
        {
            *state = State::Here(value);
        }
    }
}

/// A value in use.
pub(crate) struct Lease<T> {
    /// There until this is dropped, but while somebody has taken it.
    value: Option<Own<T>>,
    slot: Arc<Slot<T>>,
}

impl<T> Lease<T> {
    /// The value.
    pub(crate) fn get(&mut self) -> Result<&mut T> {
        self.value.as_mut().ok_or_else(gone)?.get()
    }

    /// Takes the value out, to be [put back](Self::put).
    pub(crate) fn take(&mut self) -> Result<Own<T>> {
        self.value.take().ok_or_else(gone)
    }

    pub(crate) fn put(&mut self, value: Own<T>) {
        self.value = Some(value);
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.slot.take_back(value);
        }
    }
}

/// A value that all may use at once, until it is closed.
pub(crate) struct Shared<T> {
    value: Mutex<Option<Own<T>>>,
    process: u32,
    what: &'static str,
}

impl<T: Clone> Shared<T> {
    pub(crate) fn new(what: &'static str, value: T) -> Self {
        Self {
            value: Mutex::new(Some(Own::new(value))),
            process: std::process::id(),
            what,
        }
    }

    fn lock(&self) -> Result<MutexGuard<'_, Option<Own<T>>>> {
        if self.process != std::process::id() {
            return Err(forked());
        }
        Ok(self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A handle of it.
    pub(crate) fn get(&self) -> Result<T> {
        match &*self.lock()? {
            Some(value) => Ok(value.look()?.clone()),
            None => Err(closed(self.what)),
        }
    }

    pub(crate) fn close(&self) -> Result<Option<Own<T>>> {
        Ok(self.lock()?.take())
    }

    pub(crate) fn is_closed(&self) -> Result<bool> {
        Ok(self.lock()?.is_none())
    }
}

fn busy(what: &str) -> Failure {
    Failure::Named(
        "BusyError",
        format!(
            "the {what} is in use: let what it generates end, or close that, before another call"
        ),
    )
}

fn closed(what: &str) -> Failure {
    Failure::Named(
        "ClosedError",
        format!("the {what} was closed: open it again"),
    )
}
