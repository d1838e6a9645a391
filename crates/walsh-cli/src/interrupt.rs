//! Signals that ask the program to end: Ctrl-C, and what systems have beside it. The first asks for a clean end.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use crate::asked::Asked;
use crate::failure::{Failure, Outcome};
use crate::system::{self, Wake};

/// The exit status for the latest signal that asked for an end; 0 for none. Signals belong to the process, and so does
/// this.
static STATUS: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// The status of a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// From here on a signal sets the returned flag; with the flag set, it ends the
/// program at once. Clearing the flag makes the next one a first one again.
pub(crate) fn on_interrupt() -> Outcome<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    system::end_on_signals(&cancel, &STATUS).map_err(cannot)?;
    Ok(cancel)
}

/// The exit status of a command that was asked to end, as shells have it.
pub(crate) fn status() -> u8 {
    match STATUS.load(Ordering::Relaxed) {
        0 => INTERRUPTED,
        status => u8::try_from(status).unwrap_or(u8::MAX),
    }
}

/// Signals in a conversation. Ctrl-C ends an answer and never the program, which
/// has a conversation to keep; the second of another kind does.
pub(crate) struct Signals {
    asked: Asked,
    wake: Wake,
}

impl Signals {
    pub(crate) fn watch() -> Outcome<Self> {
        let asked = Asked::default();
        let wake = system::watch_signals(&asked, &STATUS).map_err(cannot)?;
        Ok(Self { asked, wake })
    }

    /// The flag that a signal sets to end an answer.
    pub(crate) fn cancel(&self) -> &Arc<AtomicBool> {
        &self.asked.cancel
    }

    /// Before an answer: a Ctrl-C that came earlier does not end it.
    pub(crate) fn clear(&self) {
        self.asked.interrupted.store(false, Ordering::Relaxed);
        self.asked.cancel.store(self.is_ending(), Ordering::Relaxed);
    }

    /// Whether the program was asked to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.asked.ending.load(Ordering::Relaxed)
    }

    /// Whether there was a Ctrl-C since this was asked, or cleared, last.
    pub(crate) fn take_interrupt(&self) -> bool {
        self.asked.interrupted.swap(false, Ordering::Relaxed)
    }

    /// What wakes who waits for standard input.
    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }
}

fn cannot(error: io::Error) -> Failure {
    Failure::run(format_args!("cannot watch for signals: {error}"))
}
