//! Files that are files.

use std::fs::{self, File};
use std::path::Path;

use crate::{Error, Result};

/// Opens a file to be read, and says how long it is.
///
/// # Errors
/// When it is not there, may not be read, or is a pipe, a device, a socket or a folder.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    check(path)?;
    let failed = |error| Error::file(path, &error);
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    Ok((file, bytes))
}

/// Finds out whether a path leads to a file, before it is opened: to open a pipe is to wait for somebody.
///
/// # Errors
/// As for [`open`].
pub(crate) fn check(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).map_err(|error| Error::file(path, &error))?;
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() {
        "it is a folder"
    } else {
        "it is a pipe or a device"
    };
    Err(Error::File {
        path: path.to_owned(),
        why: format!("{what}, not a file: check the path"),
    })
}
