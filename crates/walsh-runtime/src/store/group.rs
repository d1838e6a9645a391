//! A program that ends together with what it has started.

use std::process::{Child, Command};

/// Has what the command starts be ended by [`end`].
#[cfg(unix)]
pub(super) fn of(command: &mut Command) -> &mut Command {
    std::os::unix::process::CommandExt::process_group(command, 0)
}

/// Ends a program that has not been waited for: until then, its number is nobody else's.
#[cfg(unix)]
pub(super) fn end(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process_group};

    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // It fails only where all have ended already.
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
}

/// Nothing to be done: what Python starts on Windows, which is Python again in a virtual environment, ends with it.
#[cfg(windows)]
pub(super) fn of(command: &mut Command) -> &mut Command {
    command
}

/// Ends a program that has not been waited for.
#[cfg(windows)]
pub(super) fn end(child: &mut Child) {
    // It fails only where it has ended already.
    let _ = child.kill();
}
