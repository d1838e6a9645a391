//! What asks the program to end: Ctrl-C, Ctrl-Break, the console's window when it is closed, and the end of the system.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use tokio::runtime;
use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};

use crate::asked::Asked;

/// The statuses that shells know from other systems: of Ctrl-C, and of a request to end.
const INTERRUPTED: usize = 130;
const TERMINATED: usize = 143;

/// From here on a signal sets the flag and `status`; with the flag set, it ends the program at once.
///
/// # Errors
/// When the system takes no handler.
pub(crate) fn end_on_signals(
    cancel: &Arc<AtomicBool>,
    status: &Arc<AtomicUsize>,
) -> io::Result<()> {
    let (cancel, status) = (Arc::clone(cancel), Arc::clone(status));
    on_signal(move |signal| {
        status.store(signal, Ordering::Relaxed);
        end_if(cancel.swap(true, Ordering::Relaxed), signal);
    })
}

/// From here on Ctrl-C sets `cancel` and `interrupted` and never ends the program; other signals set `cancel` and `ending`,
/// the second of which ends the program at once.
///
/// # Errors
/// As for [`end_on_signals`].
pub(crate) fn watch_signals(asked: &Asked, status: &Arc<AtomicUsize>) -> io::Result<Wake> {
    let (send, events) = mpsc::channel();
    let (cancel, ending, interrupted) = (
        Arc::clone(&asked.cancel),
        Arc::clone(&asked.ending),
        Arc::clone(&asked.interrupted),
    );
    let (status, wake) = (Arc::clone(status), send.clone());
    on_signal(move |signal| {
        status.store(signal, Ordering::Relaxed);
        match signal {
            INTERRUPTED => interrupted.store(true, Ordering::Relaxed),
            _ => end_if(ending.swap(true, Ordering::Relaxed), signal),
        }
        cancel.store(true, Ordering::Relaxed);
        // Nobody may be left to be woken.
        drop(wake.send(Event::Signal));
    })?;
    Ok(Wake { send, events })
}

/// What somebody waits for.
#[derive(Debug)]
pub(super) enum Event {
    Signal,
    /// What standard input had.
    Read(io::Result<Vec<u8>>),
}

/// Where signals are told of, and what standard input has.
#[derive(Debug)]
pub(crate) struct Wake {
    pub(super) send: Sender<Event>,
    pub(super) events: Receiver<Event>,
}

/// Ends the program at once, where it was asked before.
fn end_if(again: bool, status: usize) {
    if again {
        std::process::exit(status as i32);
    }
}

/// Has a thread tell of each signal by the status that it is to end with.
fn on_signal(mut tell: impl FnMut(usize) + Send + 'static) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().build()?;
    let (mut interrupt, mut stop, mut close, mut shutdown) =
        (ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_shutdown()?);
    let wait = async move {
        loop {
            tell(tokio::select! {
                _ = interrupt.recv() => INTERRUPTED,
                _ = stop.recv() => TERMINATED,
                _ = close.recv() => TERMINATED,
                _ = shutdown.recv() => TERMINATED,
            });
        }
    };
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(move || runtime.block_on(wait)).map(drop)
}
