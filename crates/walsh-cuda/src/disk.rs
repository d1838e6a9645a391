//! Compiled kernels on disk.
//!
//! A file is named after the hash of its key and holds: a magic, the length and text of the key, the length and hash of
//! the machine code, and the machine code. The key is all that the code depends on: architecture, compiler, options and
//! source. A file that is cut off, damaged or another's is taken for none, and replaced.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use twox_hash::XxHash3_128;

/// What a file begins with.
const MAGIC: &[u8; 8] = b"WALSHGPU";

/// The end of a file's name.
const EXTENSION: &str = "cubin";

/// A folder of compiled kernels.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the code of a key is, or would be.
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        let hash = XxHash3_128::oneshot(key.as_bytes());
        self.folder.join(format!("{hash:032x}.{EXTENSION}"))
    }

    /// The code that is kept for a key, if a whole file of it is there.
    pub(crate) fn load(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key);
        // To read a pipe would be to wait for somebody.
        let file = path.is_file().then(|| fs::read(path))?.ok()?;
        parse(&file, key).map(<[u8]>::to_vec)
    }

    /// Keeps code. The file is written beside its place and renamed: nobody sees half of it.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn store(&self, key: &str, code: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.folder)?;
        let path = self.path(key);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let beside = path.with_extension(format!("{}-{number}.part", std::process::id()));
        // A file that a crash cuts off is known by its hash: nothing waits for the disk.
        let written =
            fs::write(&beside, frame(key, code)).and_then(|()| fs::rename(&beside, &path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

fn frame(key: &str, code: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend((key.len() as u64).to_le_bytes());
    file.extend(key.as_bytes());
    file.extend((code.len() as u64).to_le_bytes());
    file.extend(XxHash3_128::oneshot(code).to_le_bytes());
    file.extend(code);
    file
}

/// The code in a file, if the file is whole and of this key.
fn parse<'a>(file: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let rest = file.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*length) != key.len() as u64 {
        return None;
    }
    let rest = rest.strip_prefix(key.as_bytes())?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (hash, code) = rest.split_first_chunk::<16>()?;
    let whole = u64::from_le_bytes(*length) == code.len() as u64
        && u128::from_le_bytes(*hash) == XxHash3_128::oneshot(code);
    (whole && !code.is_empty()).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_under_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path().join("made").join("on demand"));
        assert_eq!(disk.load("a"), None);
        disk.store("a", b"code of a").unwrap();
        disk.store("b", b"code of b").unwrap();
        assert_eq!(disk.load("a").unwrap(), b"code of a");
        assert_eq!(disk.load("b").unwrap(), b"code of b");
        disk.store("a", b"other code of a").unwrap();
        assert_eq!(disk.load("a").unwrap(), b"other code of a");
        let names: Vec<_> = fs::read_dir(&disk.folder).unwrap().collect();
        assert_eq!(names.len(), 2, "nothing is left beside: {names:?}");
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_noticed() {
        let (key, code) = ("key", b"machine code");
        let file = frame(key, code);
        assert_eq!(parse(&file, key).unwrap(), code);
        for length in 0..file.len() {
            assert_eq!(parse(&file[..length], key), None, "cut to {length}");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            assert_eq!(parse(&damaged, key), None, "byte {at}");
        }
        let mut longer = file.clone();
        longer.push(0);
        assert_eq!(parse(&longer, key), None);
        assert_eq!(parse(&frame(key, b""), key), None);
    }

    #[test]
    fn a_file_of_another_key_under_this_name_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path().to_owned());
        fs::write(disk.path("mine"), frame("other", b"code")).unwrap();
        assert_eq!(disk.load("mine"), None);
        fs::write(disk.path("mine"), b"").unwrap();
        assert_eq!(disk.load("mine"), None);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_of_storing_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let disk = Disk::new(file.join("below"));
        assert_eq!(disk.load("a"), None);
        assert!(disk.store("a", b"code").is_err());
    }
}
