//! Where a report goes: whole or not at all.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use walsh_runtime::{Error, Replacement, Result, check_writable};

/// A file that will hold a report.
///
/// What was there stays until the report is whole: it is written beside it and
/// put in its place by a rename.
#[derive(Debug)]
pub struct ReportFile {
    path: PathBuf,
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
        let is_device = is_device(path);
        if !is_device {
            check_writable(path)?;
        }
        Ok(Self {
            path: path.to_owned(),
            is_device,
        })
    }

    /// Writes the report.
    ///
    /// # Errors
    /// When the disk is full, or the folder has gone since.
    pub fn write(&self, text: &str) -> Result<()> {
        let failed = |error| Error::file(&self.path, &error);
        if self.is_device {
            let device = OpenOptions::new().write(true).open(&self.path);
            return device
                .and_then(|mut device| device.write_all(text.as_bytes()))
                .map_err(failed);
        }
        let mut file = Replacement::create(&self.path)?;
        file.file().write_all(text.as_bytes()).map_err(failed)?;
        file.commit()
    }
}

#[cfg(unix)]
fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_char_device())
}

/// These names are devices in every folder.
#[cfg(windows)]
fn is_device(path: &Path) -> bool {
    let is = |device| path.as_os_str().eq_ignore_ascii_case(device);
    ["NUL", "CON", "CONOUT$"].into_iter().any(is)
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

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
            (folder.path().to_owned(), "no file"),
            (folder.path().join("none/out.html"), "there is no folder"),
            (file.join("out.html"), "not a folder"),
            (PathBuf::from("/"), "no file"),
            (PathBuf::new(), "no file"),
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
