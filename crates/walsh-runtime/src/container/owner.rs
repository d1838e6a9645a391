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

/// Whether a file that was opened by a name is of one's own, by no link and no other name, as another is.
#[cfg(unix)]
pub(super) fn is_alike(file: &File, path: &Path, own: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let [Ok(found), Ok(own), Ok(named)] =
        [file.metadata(), own.metadata(), fs::symlink_metadata(path)]
    else {
        return false;
    };
    let place = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    found.is_file()
        && found.uid() == own.uid()
        && found.nlink() == 1
        && place(&found) == place(&named)
}

/// Nothing: who may read a file follows from its folder here.
#[cfg(not(unix))]
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// As [`private`].
#[cfg(not(unix))]
pub(super) fn keep(_: &File, _: &Metadata) {}

/// As [`is_alike`], as far as is known here.
#[cfg(not(unix))]
pub(super) fn is_alike(file: &File, path: &Path, _: &File) -> bool {
    let found = [file.metadata(), fs::symlink_metadata(path)];
    found
        .iter()
        .flatten()
        .filter(|metadata| metadata.is_file())
        .count()
        == 2
}

/// Gives a file another's permissions; whether that is done.
pub(super) fn take_permissions(file: &File, other: &File) -> bool {
    let permissions = other.metadata().map(|metadata| metadata.permissions());
    permissions.is_ok_and(|permissions| file.set_permissions(permissions).is_ok())
}

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
