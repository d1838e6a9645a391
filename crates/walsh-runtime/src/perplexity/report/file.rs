//! Where a report goes: whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A file that will hold a report.
///
/// What was there stays until the report is whole: it is written beside it and
/// put in its place by a rename.
#[derive(Debug)]
pub struct ReportFile {
    /// What the user calls it.
    given: PathBuf,
    /// The file itself, behind symbolic links.
    target: PathBuf,
    /// Whether it is a device, such as a terminal: nothing of it is kept or renamed.
    is_device: bool,
}

impl ReportFile {
    /// Finds out whether `path` can be written, which a run of minutes should
    /// not end with. Leaves nothing behind.
    ///
    /// # Errors
    /// When it is a folder, a pipe or a socket, or its folder takes no new file.
    pub fn prepare(path: &Path) -> Result<Self> {
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(Error::file(path, &error)),
        };
        let wrong = |why: &str| Error::File {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        if path.file_name().is_none() || target.is_dir() {
            return Err(wrong("a folder, give a file"));
        }
        let is_device = is_device(&target);
        if target.exists() && !target.is_file() && !is_device {
            return Err(wrong("not a regular file, give another path"));
        }
        let file = Self {
            given: path.to_owned(),
            target,
            is_device,
        };
        if is_device {
            return Ok(file);
        }
        file.beside(b"")
            .and_then(fs::remove_file)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => wrong("its folder does not exist, make it first"),
                _ => Error::file(path, &error),
            })?;
        Ok(file)
    }

    /// Writes the report.
    ///
    /// # Errors
    /// When the disk is full, or the folder has gone since.
    pub fn write(&self, text: &str) -> Result<()> {
        let put = || {
            if self.is_device {
                let mut device = OpenOptions::new().write(true).open(&self.target)?;
                return device.write_all(text.as_bytes());
            }
            let part = self.beside(text.as_bytes())?;
            fs::rename(&part, &self.target).inspect_err(|_| {
                // The rename's error is what counts.
                let _ = fs::remove_file(&part);
            })
        };
        put().map_err(|error: io::Error| Error::file(&self.given, &error))
    }

    /// A new file with these bytes in the target's folder.
    fn beside(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.target.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        let part = self.target.with_file_name(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&part)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        match written {
            Ok(()) => Ok(part),
            Err(error) => {
                let _ = fs::remove_file(&part);
                Err(error)
            }
        }
    }
}

#[cfg(unix)]
fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_char_device())
}

#[cfg(not(unix))]
fn is_device(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        entries
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn preparing_leaves_nothing_and_writing_leaves_the_report_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.html");
        let file = ReportFile::prepare(&path).expect("writable");
        assert!(names(folder.path()).is_empty());
        file.write("one").expect("written");
        ReportFile::prepare(&path).expect("again");
        assert_eq!(fs::read_to_string(&path).expect("kept"), "one");
        file.write("two").expect("written over");
        assert_eq!(fs::read_to_string(&path).expect("new"), "two");
        assert_eq!(names(folder.path()), ["out.html"]);
    }

    #[test]
    fn what_cannot_be_written_is_known_beforehand() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        for (path, part) in [
            (folder.path().to_owned(), "a folder"),
            (folder.path().join("none/out.html"), "does not exist"),
            (file.join("out.html"), "not a folder"),
            (PathBuf::from("/"), "a folder"),
            (PathBuf::new(), "a folder"),
        ] {
            let why = ReportFile::prepare(&path).expect_err("refused").to_string();
            assert!(why.contains(part), "{part:?} is not in {why:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_is_written_as_it_is() {
        let write = |path: &str| {
            ReportFile::prepare(Path::new(path))
                .expect("known")
                .write("x")
        };
        write("/dev/null").expect("written");
        let why = write("/dev/full").expect_err("full").to_string();
        assert!(why.contains("the disk is full"), "{why}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_what_it_names_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "old").expect("written");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        let file = ReportFile::prepare(&link).expect("writable");
        file.write("new").expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read_to_string(&target).expect("there"), "new");
    }
}
