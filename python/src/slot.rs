//! What Python objects hold: at most one uses it at a time, it can be closed, and a forked process has none of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

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
        check(self.process)?;
        self.value.as_mut().ok_or_else(gone)
    }

    pub(crate) fn look(&self) -> Result<&T> {
        check(self.process)?;
        self.value.as_ref().ok_or_else(gone)
    }

    pub(crate) fn into_inner(mut self) -> Result<T> {
        check(self.process)?;
        self.value.take().ok_or_else(gone)
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            std::mem::forget(self.value.take());
        }
    }
}

/// Whether this is the process that made something.
fn check(process: u32) -> Result<()> {
    match process == std::process::id() {
        true => Ok(()),
        false => Err(forked()),
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

/// A lock of the process that made it: one that another thread held when the process was forked is never taken.
pub(crate) struct Lock<T> {
    value: Mutex<T>,
    process: u32,
}

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            process: std::process::id(),
        }
    }

    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, T>> {
        check(self.process)?;
        Ok(self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value, unless somebody has it.
    pub(crate) fn try_lock(&self) -> Result<Option<MutexGuard<'_, T>>> {
        check(self.process)?;
        match self.value.try_lock() {
            Ok(guard) => Ok(Some(guard)),
            Err(TryLockError::Poisoned(poisoned)) => Ok(Some(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => Ok(None),
        }
    }

    /// The value, which nobody else can have, in any process.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
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
    state: Lock<State<T>>,
    /// What it is, in messages.
    what: &'static str,
}

impl<T> Slot<T> {
    pub(crate) fn new(what: &'static str, value: T) -> Arc<Self> {
        Arc::new(Self {
            state: Lock::new(State::Here(Own::new(value))),
            what,
        })
    }

    /// Takes the value for as long as the lease lives.
    pub(crate) fn lend(self: &Arc<Self>) -> Result<Lease<T>> {
        let mut state = self.state.lock()?;
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
        match &*self.state.lock()? {
            State::Here(value) => Ok(look(value.look()?)),
            State::Lent => Err(busy(self.what)),
            State::Closed => Err(closed(self.what)),
        }
    }

    /// Closes it: the value is handed out to be dropped, or is dropped when it comes back.
    pub(crate) fn close(&self) -> Result<Option<Own<T>>> {
        match std::mem::replace(&mut *self.state.lock()?, State::Closed) {
            State::Here(value) => Ok(Some(value)),
            State::Lent | State::Closed => Ok(None),
        }
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> Result<bool> {
        Ok(matches!(*self.state.lock()?, State::Closed))
    }

    /// Takes the value back; one that was lost closes it.
    fn take_back(&self, value: Option<Own<T>>) {
        if let Ok(mut state) = self.state.lock()
            && matches!(*state, State::Lent)
        {
            *state = value.map_or(State::Closed, State::Here);
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
        self.slot.take_back(self.value.take());
    }
}

/// A value that all may use at once, until it is closed.
pub(crate) struct Shared<T> {
    value: Lock<Option<Own<T>>>,
    what: &'static str,
}

impl<T: Clone> Shared<T> {
    pub(crate) fn new(what: &'static str, value: T) -> Self {
        Self {
            value: Lock::new(Some(Own::new(value))),
            what,
        }
    }

    /// A handle of it.
    pub(crate) fn get(&self) -> Result<T> {
        match &*self.value.lock()? {
            Some(value) => Ok(value.look()?.clone()),
            None => Err(closed(self.what)),
        }
    }

    pub(crate) fn close(&self) -> Result<Option<Own<T>>> {
        Ok(self.value.lock()?.take())
    }

    pub(crate) fn is_closed(&self) -> Result<bool> {
        Ok(self.value.lock()?.is_none())
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
