//! Files that appear whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::owner;
use crate::{Error, Result};

/// What the names of unfinished files end in, which begin with a dot.
const UNFINISHED: &str = ".walsh-tmp";

/// A file being written beside the one whose place it takes. Dropped before
/// [`commit`](Self::commit), it vanishes and the other stays as it was.
///
/// It is locked while it is written. What a process that was killed leaves behind is
/// locked by nobody, and goes when the next file is written into the folder.
#[derive(Debug)]
pub struct Replacement {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    folder: PathBuf,
    /// Whether it has taken its place: its name may be another's by now.
    is_placed: bool,
}

impl Replacement {
    /// Creates the file that is to be at `path`. One that is there already gives it
    /// its permissions; where there is none, they are those of any new file.
    ///
    /// # Errors
    /// When the folder is missing or may not be written, or the path is not that of
    /// a file.
    pub fn create(path: &Path) -> Result<Self> {
        let new = Self::begun(path)?;
        // What others have left; this one is locked.
        remove_unfinished(&new.folder);
        Ok(new)
    }

    /// As [`create`](Self::create), and what processes that were killed have left stays.
    fn begun(path: &Path) -> Result<Self> {
        let (target, earlier) = resolve(path)?;
        let Some(name) = target.file_name() else {
            return Err(Error::saved(path, "it names no file: add a file name"));
        };
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        // Two threads or processes that save to one path do not meet, and no name comes again: who removes what is left
        // over has looked at a name some time before.
        for attempt in 0..1000 {
            let mut hidden = OsString::from(".");
            hidden.push(shortened(name));
            let number = RandomState::new().hash_one(attempt);
            hidden.push(format!(".{}-{number}{UNFINISHED}", std::process::id()));
            let temporary = folder.join(hidden);
            match begin(&temporary, earlier.as_ref()) {
                Ok(Some(file)) => {
                    return Ok(Self {
                        file,
                        temporary,
                        target,
                        folder,
                        is_placed: false,
                    });
                }
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                // What Windows says of a folder that is a file.
                Err(error) if error.kind() == ErrorKind::NotFound && folder.is_file() => {
                    return Err(Error::file(path, &ErrorKind::NotADirectory.into()));
                }
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
            format!(
                "too many unfinished files lie beside it: remove those that end in {UNFINISHED}"
            ),
        ))
    }

    /// As [`create`](Self::create), or what a process that was killed has left of the file that it had created by the same
    /// key, from its beginning. A key is of all that the file is made of.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn take_up(path: &Path, key: u64) -> Result<Self> {
        let mut new = Self::begun(path)?;
        let name = new.target.file_name().map(shortened).unwrap_or_default();
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{key}-0{UNFINISHED}"));
        let kept = new.folder.join(hidden);
        let left = OpenOptions::new().read(true).write(true).open(&kept);
        match left {
            // Another may be writing it, and anybody may have put a file or a link there.
            Ok(file)
                if file.try_lock().is_ok()
                    && owner::is_alike(&file, &kept, &new.file)
                    && owner::take_permissions(&file, &new.file) =>
            {
                let _ = fs::remove_file(&new.temporary);
                (new.file, new.temporary) = (file, kept);
            }
            // Where files have no second names, there is nothing to be taken up.
            Err(_) if fs::hard_link(&new.temporary, &kept).is_ok() => {
                let _ = fs::remove_file(&new.temporary);
                new.temporary = kept;
            }
            _ => {}
        }
        // What others have left; this one is locked.
        remove_unfinished(&new.folder);
        Ok(new)
    }

    /// The file as it is so far.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts the file in its place once it is on the disk.
    ///
    /// # Errors
    /// When the disk is full, or the folder has gone since.
    pub fn commit(mut self) -> Result<()> {
        let placed = self.file.sync_all();
        let placed = placed.and_then(|()| owner::rename(&self.temporary, &self.target));
        placed.map_err(|error| Error::file(&self.target, &error))?;
        self.is_placed = true;
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
        if !self.is_placed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// The file that a path names, and what is known of it where it is there. A link
/// stays one: what it points at is replaced, or made.
fn resolve(path: &Path) -> Result<(PathBuf, Option<Metadata>)> {
    let failed = |error: io::Error| Error::file(path, &error);
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(Error::saved(
            path,
            "it is there and no file: give another path",
        )),
        Ok(metadata) if metadata.permissions().readonly() => Err(Error::saved(
            path,
            "it is there and read-only: change that or give another path",
        )),
        Ok(metadata) => Ok((fs::canonicalize(path).map_err(failed)?, Some(metadata))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut target = path.to_owned();
            // As many links in a row as systems follow.
            for _ in 0..40 {
                match fs::read_link(&target) {
                    Ok(link) => target = target.parent().unwrap_or(Path::new("")).join(link),
                    Err(_) => break,
                }
            }
            Ok((target, None))
        }
        Err(error) => Err(failed(error)),
    }
}

/// A new file that is locked; none where somebody took it for a dead one first.
fn begin(temporary: &Path, earlier: Option<&Metadata>) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    if earlier.is_some() {
        // Nobody may read it before it has the permissions of the other.
        owner::private(&mut options);
    }
    let file = options.open(temporary)?;
    let is_ours = match file.try_lock() {
        Ok(()) => temporary.exists(),
        Err(fs::TryLockError::WouldBlock) => false,
        // Where there are no locks, nothing is taken for dead either.
        Err(fs::TryLockError::Error(_)) => true,
    };
    if !is_ours {
        return Ok(None);
    }
    let put = || {
        let Some(earlier) = earlier else {
            return Ok(());
        };
        owner::keep(&file, earlier);
        file.set_permissions(earlier.permissions())
    };
    if let Err(error) = put() {
        let _ = fs::remove_file(temporary);
        return Err(error);
    }
    Ok(Some(file))
}

/// Removes what processes that were killed left in a folder. What cannot be removed
/// stays, and is in nobody's way.
fn remove_unfinished(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_unfinished(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        if let Ok(file) = File::options().write(true).open(&path)
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether a file has a name that [`Replacement::create`] gives.
fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let Some(rest) = name.strip_prefix(b".") else {
        return false;
    };
    let Some(rest) = rest.strip_suffix(UNFINISHED.as_bytes()) else {
        return false;
    };
    // A name, a dot, and two numbers with a hyphen between them.
    let Some(dot) = rest.iter().rposition(|byte| *byte == b'.') else {
        return false;
    };
    let mut numbers = rest[dot + 1..].split(|byte| *byte == b'-');
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    numbers
        .by_ref()
        .take(2)
        .filter(|part| is_number(part))
        .count()
        == 2
        && numbers.next().is_none()
}

/// The start of a file's name that leaves room for more: names have 255 bytes at most.
fn shortened(name: &OsStr) -> OsString {
    const MOST: usize = 200;
    match name.to_str() {
        Some(name) => name[..name.floor_char_boundary(MOST)].into(),
        None => "unnamed".into(),
    }
}

/// Finds out whether something can be saved at a path, so that a long run does not
/// end in the answer. Nothing is left behind, and a file that is there stays; so does what may be taken up.
///
/// # Errors
/// When the folder is missing or may not be written, or the path is not that of
/// a file.
pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
    Replacement::begun(path.as_ref()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<OsString> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    }

    fn save(path: &Path, text: &str) {
        let mut file = Replacement::create(path).unwrap();
        file.file().write_all(text.as_bytes()).unwrap();
        file.commit().unwrap();
    }

    #[test]
    fn who_saves_to_one_path_at_once_does_not_take_the_others_file_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.walsh");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..40 {
                        save(path, &number.to_string());
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), ["a.walsh"]);
        assert_eq!(fs::read_to_string(path).unwrap().len(), 1);
    }

    #[test]
    fn what_the_dead_left_behind_is_taken_up_by_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        let left = || fs::write(folder.path().join(".a.gguf.7-0.walsh-tmp"), "half").unwrap();
        let length = |file: &mut Replacement| file.file().metadata().unwrap().len();
        left();
        check_writable(&path).unwrap();
        let mut mine = Replacement::take_up(&path, 7).unwrap();
        assert_eq!(length(&mut mine), 4);
        // Another run of the same begins anew.
        let mut other = Replacement::take_up(&path, 7).unwrap();
        assert_eq!(length(&mut other), 0);
        drop(other);
        mine.file().write_all(b"whole").unwrap();
        mine.commit().unwrap();
        assert_eq!(names(folder.path()), ["a.gguf"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        left();
        let mut other = Replacement::take_up(&path, 8).unwrap();
        assert_eq!(length(&mut other), 0);
        drop(other);
        // What is no more than in the way has gone.
        assert_eq!(names(folder.path()), ["a.gguf"]);
    }

    #[test]
    fn what_the_dead_left_behind_goes_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.walsh");
        let others = [
            ".a.walsh.12-0.tmp",
            ".a.walsh.x-0.walsh-tmp",
            ".a.walsh.1-2-3.walsh-tmp",
            "a.walsh.12-0.walsh-tmp",
        ];
        for name in [".a.walsh.12-0.walsh-tmp", ".b.c.4294967295-17.walsh-tmp"] {
            fs::write(folder.path().join(name), "left").unwrap();
        }
        for name in others {
            fs::write(folder.path().join(name), "somebody's").unwrap();
        }
        let writing = Replacement::create(&folder.path().join("c.walsh")).unwrap();
        save(&path, "one");
        assert!(writing.temporary.exists(), "it is being written");
        drop(writing);
        let mut expected: Vec<OsString> = others.map(OsString::from).to_vec();
        expected.push("a.walsh".into());
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn long_names_can_be_saved_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ü".repeat(127));
        save(&path, "one");
        save(&path, "two");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(names(folder.path()).len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_stay_as_they_are() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let (path, plain) = (folder.path().join("a"), folder.path().join("plain"));
        save(&path, "one");
        fs::write(&plain, "").unwrap();
        assert_eq!(mode(&path), mode(&plain), "as any new file");
        for kept in [0o600, 0o640, 0o666, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(kept)).unwrap();
            save(&path, "two");
            assert_eq!(mode(&path), kept);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_stays_and_what_it_names_is_made() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        symlink("target", &link).unwrap();
        save(&link, "one");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "one");
        let loops = folder.path().join("loop");
        symlink("loop", &loops).unwrap();
        assert!(Replacement::create(&loops).is_err());
    }
}
