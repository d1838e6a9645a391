//! Whose a file is, and who may read it before it has another's permissions.

use std::fs::{File, Metadata, OpenOptions};

/// Has a file that is made so be read by its owner alone.
#[cfg(unix)]
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600)
}

/// Gives a file to another's owner and group, where this process may.
#[cfg(unix)]
pub(super) fn keep(file: &File, earlier: &Metadata) {
    use std::os::unix::fs::{MetadataExt, fchown};
    let (owner, group) = (earlier.uid(), earlier.gid());
    let differs = |own: Metadata| (own.uid(), own.gid()) != (owner, group);
    if file.metadata().is_ok_and(differs) {
        // Who may not give files away saves them as their own.
        let _ = fchown(file, Some(owner), Some(group));
    }
}

/// Nothing: who may read a file follows from its folder here.
#[cfg(not(unix))]
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// As [`private`].
#[cfg(not(unix))]
pub(super) fn keep(_: &File, _: &Metadata) {}
