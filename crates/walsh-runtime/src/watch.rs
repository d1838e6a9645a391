//! How a call that takes long is watched, and ended early.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// How far a call is: tokens of a prompt, or what else its options count in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is done.
    pub done: usize,
    /// What there is to do, as far as is known.
    pub total: usize,
}

/// Who is told how far a call is.
pub type ProgressListener = dyn Fn(Progress) + Send + Sync;

/// Who may end a call early, and who is told how far it is.
///
/// A call that reads tokens looks at it between chunks of them.
#[derive(Clone, Default)]
pub struct Watch {
    /// Setting it ends the call soon, with [`Error::Cancelled`] where it has nothing
    /// to show. It stays set until it is cleared.
    pub cancel: Arc<AtomicBool>,
    /// Is told before the first piece of the work and after each.
    pub progress: Option<Arc<ProgressListener>>,
}

impl Watch {
    /// A watch that a flag ends, and that tells nobody.
    #[must_use]
    pub fn cancelled_by(flag: &Arc<AtomicBool>) -> Self {
        Self {
            cancel: Arc::clone(flag),
            progress: None,
        }
    }

    /// The same end, with nobody told: for parts of a call that tells of itself.
    pub(crate) fn quiet(&self) -> Self {
        Self::cancelled_by(&self.cancel)
    }

    /// Whether the call is to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// The error of a call that is to end.
    pub(crate) fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    /// Tells how far the call is.
    pub(crate) fn tell(&self, done: usize, total: usize) {
        if let Some(listener) = &self.progress {
            listener(Progress { done, total });
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("cancel", &self.cancel)
            .finish_non_exhaustive()
    }
}
