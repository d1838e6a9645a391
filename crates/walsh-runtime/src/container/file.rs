//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A file being written beside the one whose place it takes. Dropped before
/// [`commit`](Self::commit), it vanishes and the other stays as it was.
pub(super) struct Replacement {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    folder: PathBuf,
}

impl Replacement {
    /// Creates the file that is to be at `path`.
    pub(super) fn create(path: &Path) -> Result<Self> {
        // A link stays one: what it points at is replaced.
        let target = match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(Error::saved(
                    path,
                    "it is there and no file: give another path",
                ));
            }
            Ok(metadata) if metadata.permissions().readonly() => {
                return Err(Error::saved(
                    path,
                    "it is there and read-only: change that or give another path",
                ));
            }
            Ok(_) => fs::canonicalize(path).map_err(|error| Error::file(path, &error))?,
            Err(_) => path.to_owned(),
        };
        let Some(name) = target.file_name() else {
            return Err(Error::saved(path, "it names no file: add a file name"));
        };
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        // Two threads or processes that save to one path do not meet.
        for attempt in 0..1000 {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{attempt}.tmp", std::process::id()));
            let temporary = folder.join(hidden);
            match File::options()
                .write(true)
                .create_new(true)
                .open(&temporary)
            {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        temporary,
                        target,
                        folder,
                    });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let folder = folder.display();
                    return Err(Error::saved(
                        path,
                        format!("there is no folder {folder}: make it or give another path"),
                    ));
                }
                Err(error) => return Err(Error::file(path, &error)),
            }
        }
        Err(Error::saved(
            path,
            "too many unfinished files lie beside it: remove those that end in .tmp",
        ))
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts the file in its place once it is on the disk.
    pub(super) fn commit(self) -> Result<()> {
        let failed = |error| Error::file(&self.target, &error);
        self.file.sync_all().map_err(failed)?;
        fs::rename(&self.temporary, &self.target).map_err(failed)?;
        // The rename itself is on the disk when its folder is. Not every system
        // lets a folder be opened; the file is whole either way.
        if let Ok(folder) = File::open(&self.folder) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Finds out whether something can be saved at a path, so that a long run does not
/// end in the answer. Nothing is left behind, and a file that is there stays.
///
/// # Errors
/// When the folder is missing or may not be written, or the path is not that of
/// a file.
pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
    Replacement::create(path.as_ref()).map(drop)
}
