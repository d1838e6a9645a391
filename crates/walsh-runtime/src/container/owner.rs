//! Whose a file is, who may read it before it has another's permissions, and how it takes another's place.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

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

/// Renames a file, over another where one is there.
#[cfg(not(windows))]
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Renames a file, over another where one is there. Windows refuses for as long as somebody has the other open, or puts a
/// third in its place: it is tried again for a second.
#[cfg(windows)]
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
    for _ in 0..100 {
        match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            ended => return ended,
        }
        std::thread::sleep(PAUSE);
    }
    fs::rename(from, to)
}
