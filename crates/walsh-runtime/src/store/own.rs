//! The store's own files: plain ones, or nothing. A link in the place of one would lead out of the folder,
//! and who opens a pipe waits for somebody.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};

/// The length of a file; None where there is none.
///
/// # Errors
/// When something else is in its place, or it cannot be looked at.
pub(super) fn length(path: &Path) -> Result<Option<u64>> {
    let Some(metadata) = look(path)? else {
        return Ok(None);
    };
    match metadata.is_file() {
        true => Ok(Some(metadata.len())),
        false => Err(in_the_way(path, &metadata, "a file")),
    }
}

/// Finds out whether a folder is there.
///
/// # Errors
/// As for [`length`].
pub(super) fn is_folder(path: &Path) -> Result<bool> {
    let Some(metadata) = look(path)? else {
        return Ok(false);
    };
    match metadata.is_dir() {
        true => Ok(true),
        false => Err(in_the_way(path, &metadata, "a folder")),
    }
}

/// Makes the folders of `below` in `folder`, where they are not there yet.
///
/// # Errors
/// As for [`is_folder`], and when one cannot be made.
pub(super) fn make_folders(folder: &Path, below: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| Error::file(folder, &e))?;
    let mut path = folder.to_owned();
    for part in below {
        path.push(part);
        if !is_folder(&path)? {
            match fs::create_dir(&path) {
                // Another process may have been quicker.
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::file(&path, &error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Opens a lock's file.
///
/// # Errors
/// As for [`length`], and when it cannot be written.
pub(super) fn lock_file(path: &Path) -> Result<File> {
    length(path)?;
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| Error::file(path, &e))
}

/// Removes a file; returns its length, None where there was none.
///
/// # Errors
/// As for [`length`], and when it cannot be removed.
pub(super) fn remove(path: &Path) -> Result<Option<u64>> {
    let bytes = length(path)?;
    if bytes.is_some() {
        fs::remove_file(path).map_err(|e| Error::file(path, &e))?;
    }
    Ok(bytes)
}

fn look(path: &Path) -> Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path, &error)),
    }
}

fn in_the_way(path: &Path, found: &fs::Metadata, expected: &str) -> Error {
    let what = if found.is_symlink() {
        "a link"
    } else if found.is_dir() {
        "a folder"
    } else if found.is_file() {
        "a file"
    } else {
        "a pipe or a device"
    };
    Error::File {
        path: path.to_owned(),
        why: format!(
            "{what} is where {expected} of the store belongs: remove it, or give another cache folder"
        ),
    }
}
