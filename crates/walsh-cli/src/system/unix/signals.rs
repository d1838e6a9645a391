//! Signals that ask the program to end: Ctrl-C, SIGTERM, and SIGHUP when the terminal is gone.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::{flag, low_level};

use crate::asked::Asked;

/// From here on a signal sets the flag and `status`; with the flag set, it ends the program at once.
///
/// # Errors
/// When the system takes no handler.
pub(crate) fn end_on_signals(
    cancel: &Arc<AtomicBool>,
    status: &Arc<AtomicUsize>,
) -> io::Result<()> {
    for signal in heeded([SIGINT, SIGTERM, SIGHUP]) {
        // Handlers run in the order of their registration, so that the first
        // signal finds the flag still clear here.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(cancel))?;
        note_in(signal, cancel, status)?;
    }
    Ok(())
}

/// From here on Ctrl-C sets `cancel` and `interrupted` and never ends the program; other signals set `cancel` and `ending`,
/// the second of which ends the program at once.
///
/// # Errors
/// As for [`end_on_signals`].
pub(crate) fn watch_signals(asked: &Asked, status: &Arc<AtomicUsize>) -> io::Result<Wake> {
    let (wake, send) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    send.set_nonblocking(true)?;
    for signal in heeded([SIGTERM, SIGHUP]) {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked.ending))?;
        flag::register(signal, Arc::clone(&asked.ending))?;
        note_in(signal, &asked.cancel, status)?;
    }
    for signal in heeded([SIGINT]) {
        flag::register(signal, Arc::clone(&asked.interrupted))?;
        note_in(signal, &asked.cancel, status)?;
    }
    // Behind the flags, so that they are set when whoever waits wakes up.
    for signal in heeded([SIGINT, SIGTERM, SIGHUP, SIGWINCH]) {
        low_level::pipe::register(signal, send.try_clone()?)?;
    }
    Ok(Wake(wake))
}

/// What becomes readable with each signal, and with each resize of the terminal.
#[derive(Debug)]
pub(crate) struct Wake(UnixStream);

impl Wake {
    /// Forgets what woke a wait.
    pub(super) fn woken(&self) {
        while matches!((&self.0).read(&mut [0; 64]), Ok(1..)) {}
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn note_in(signal: i32, cancel: &Arc<AtomicBool>, status: &Arc<AtomicUsize>) -> io::Result<()> {
    flag::register_usize(signal, Arc::clone(status), 128 + signal as usize)?;
    flag::register(signal, Arc::clone(cancel))?;
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
