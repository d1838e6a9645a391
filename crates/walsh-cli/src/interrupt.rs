//! Signals that ask the program to end: Ctrl-C, SIGTERM, and SIGHUP when the
//! terminal is gone. The first asks for a clean end.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::{flag, low_level};

use crate::failure::{Failure, Outcome};

/// The latest signal that asked for an end; 0 for none. Signals belong to the
/// process, and so does this.
static LATEST: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// From here on a signal sets the returned flag; with the flag set, it ends the
/// program at once. Clearing the flag makes the next one a first one again.
pub(crate) fn on_interrupt() -> Outcome<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    for signal in heeded([SIGINT, SIGTERM, SIGHUP]) {
        // Handlers run in the order of their registration, so that the first
        // signal finds the flag still clear here.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&cancel))
            .map_err(cannot)?;
        note_in(signal, &cancel)?;
    }
    Ok(cancel)
}

/// The exit status of a command that was asked to end, as shells have it.
pub(crate) fn status() -> u8 {
    let latest = match LATEST.load(Ordering::Relaxed) {
        0 => SIGINT as usize,
        signal => signal,
    };
    u8::try_from(128 + latest).unwrap_or(u8::MAX)
}

/// Signals in a conversation. Ctrl-C ends an answer and never the program, which
/// has a conversation to keep; the second SIGTERM or SIGHUP does.
pub(crate) struct Signals {
    cancel: Arc<AtomicBool>,
    ending: Arc<AtomicBool>,
    interrupted: Arc<AtomicBool>,
    wake: UnixStream,
}

impl Signals {
    pub(crate) fn watch() -> Outcome<Self> {
        let cancel = Arc::new(AtomicBool::new(false));
        let ending = Arc::new(AtomicBool::new(false));
        let interrupted = Arc::new(AtomicBool::new(false));
        let (wake, send) = UnixStream::pair().map_err(cannot)?;
        wake.set_nonblocking(true).map_err(cannot)?;
        send.set_nonblocking(true).map_err(cannot)?;
        for signal in heeded([SIGTERM, SIGHUP]) {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&ending))
                .map_err(cannot)?;
            flag::register(signal, Arc::clone(&ending)).map_err(cannot)?;
            note_in(signal, &cancel)?;
        }
        for signal in heeded([SIGINT]) {
            flag::register(signal, Arc::clone(&interrupted)).map_err(cannot)?;
            note_in(signal, &cancel)?;
        }
        // Behind the flags, so that they are set when whoever waits wakes up.
        for signal in heeded([SIGINT, SIGTERM, SIGHUP, SIGWINCH]) {
            low_level::pipe::register(signal, send.try_clone().map_err(cannot)?).map_err(cannot)?;
        }
        Ok(Self {
            cancel,
            ending,
            interrupted,
            wake,
        })
    }

    /// The flag that a signal sets to end an answer.
    pub(crate) fn cancel(&self) -> &Arc<AtomicBool> {
        &self.cancel
    }

    /// Before an answer: a Ctrl-C that came earlier does not end it.
    pub(crate) fn clear(&self) {
        self.interrupted.store(false, Ordering::Relaxed);
        self.cancel.store(self.is_ending(), Ordering::Relaxed);
    }

    /// Whether the program was asked to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Whether there was a Ctrl-C since this was asked, or cleared, last.
    pub(crate) fn take_interrupt(&self) -> bool {
        self.interrupted.swap(false, Ordering::Relaxed)
    }

    /// Forgets what woke a wait on [`as_fd`](AsFd::as_fd).
    pub(crate) fn woken(&self) {
        while matches!((&self.wake).read(&mut [0; 64]), Ok(1..)) {}
    }
}

/// What becomes readable with each signal, and with each resize of the terminal.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn note_in(signal: i32, cancel: &Arc<AtomicBool>) -> Outcome {
    flag::register_usize(signal, Arc::clone(&LATEST), signal as usize).map_err(cannot)?;
    flag::register(signal, Arc::clone(cancel)).map_err(cannot)?;
    Ok(())
}

/// Those of the signals that whoever started the program did not have it ignore,
/// as `nohup` does with SIGHUP.
fn heeded<const N: usize>(signals: [i32; N]) -> impl Iterator<Item = i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored(&status);
    signals
        .into_iter()
        .filter(move |signal| ignored >> (signal - 1) & 1 == 0)
}

/// The set of ignored signals in the system's description of a process; where
/// there is no such description, none is taken for ignored.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0)
}

fn cannot(error: io::Error) -> Failure {
    Failure::run(format_args!("cannot watch for signals: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_systems_words() {
        assert_eq!(ignored("Name:\twalsh\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(ignored("SigIgn:\tnonsense\n"), 0);
        assert_eq!(ignored(""), 0);
    }
}
