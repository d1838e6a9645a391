//! Ctrl-C: the first one asks for a clean end, the second one ends the program.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGINT;

use crate::failure::{Failure, Outcome};

/// From here on Ctrl-C sets the returned flag; with the flag set, it exits with
/// status 130. Clearing the flag makes the next Ctrl-C a first one again.
pub(crate) fn on_interrupt() -> Outcome<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let cannot = |error| Failure::run(format_args!("cannot watch for Ctrl-C: {error}"));
    // Handlers run in the order of their registration, so the first Ctrl-C
    // finds the flag still clear here.
    signal_hook::flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&flag))
        .map_err(cannot)?;
    signal_hook::flag::register(SIGINT, Arc::clone(&flag)).map_err(cannot)?;
    Ok(flag)
}
