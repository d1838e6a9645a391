//! Files that are cut short while they are open.
//!
//! A model's weights are read where they lie in the mapped file. Where another program shortens the file, or its disk
//! fails, such a read has no data, and the system ends the process with a signal that says nothing. Checks before reads
//! would be too late for a file that is cut after the check, so the signal itself is answered. That is a matter of the
//! whole process, and so of the command: the library leaves signals to the program that it is part of.

use std::io;

/// From here on, a read of a mapped file that has no data ends the program with a message and status 1.
pub(crate) fn report_cut_files() -> io::Result<()> {
    use signal_hook::consts::SIGBUS;

    const MESSAGE: &[u8] =
        b"walsh: the model's file was cut short or could no longer be read while it was in use: \
        restore it, leave it unchanged while walsh runs, and start again\n";
    let answer = || {
        // SAFETY: `write` may be called by a signal's handler, and the message lives as long as the program. If it
        // cannot be written, the status still tells.
        unsafe { libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
        signal_hook::low_level::exit(1);
    };
    // SAFETY: the handler calls nothing but `write` and `_exit`, which handlers of signals may call, and does not return
    // to the read that failed.
    let registered = unsafe { signal_hook::low_level::register(SIGBUS, answer) };
    registered.map(drop)
}
