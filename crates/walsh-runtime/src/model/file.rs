//! A model's files, mapped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use walsh::HostBytes;
use walsh::formats::gguf::{self, Gguf};

use crate::{Error, Result, regular};

/// A file's bytes, mapped into memory and never copied.
struct MappedFile {
    map: Mmap,
}

// SAFETY: a map keeps its address and length. That nothing changes the file
// meanwhile is what every mapped model file relies on; `ModelFiles::open`
// documents it.
unsafe impl HostBytes for MappedFile {
    fn bytes(&self) -> &[u8] {
        &self.map
    }
}

/// The one file of a model, or all parts of a split one, in order; or bytes in the form of a file.
pub(super) struct ModelFiles {
    pub(super) path: PathBuf,
    pub(super) parts: Vec<Arc<dyn HostBytes>>,
    maps: Vec<Arc<MappedFile>>,
}

impl ModelFiles {
    /// A file that was never written. `path` stands for it in messages.
    pub(super) fn in_memory(path: PathBuf, bytes: Vec<u8>) -> Self {
        let bytes: Arc<[u8]> = bytes.into();
        Self {
            path,
            parts: vec![Arc::new(bytes)],
            maps: Vec::new(),
        }
    }

    /// Maps a model's file; for one part of a split model
    /// (`…-00001-of-00003.gguf`), all its parts.
    ///
    /// The files must not be changed while the model is open.
    ///
    /// # Errors
    /// When a file is missing, empty or unreadable.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let first = map(path)?;
        let split = gguf::split_info(Gguf::parse(first.bytes())?.metadata())?;
        let mut maps = Vec::new();
        match split {
            None => maps.push(first),
            Some(split) => {
                for number in 0..split.count {
                    let part = gguf::split_path(path, number, split.count).ok_or_else(|| {
                        Error::Model {
                            path: path.to_owned(),
                            what: format!(
                                "it is one of {count} parts, but its name does not end in -00001-of-{count:05}.gguf: give the parts their original names",
                                count = split.count
                            ),
                        }
                    })?;
                    maps.push(map(&part)?);
                }
            }
        }
        Ok(Self {
            path: path.to_owned(),
            parts: maps
                .iter()
                .map(|map| map.clone() as Arc<dyn HostBytes>)
                .collect(),
            maps,
        })
    }

    /// Every part's header, checked to belong together.
    ///
    /// # Errors
    /// When a part is damaged or of another model.
    pub(super) fn parse(&self) -> Result<Vec<Gguf<'_>>> {
        let parsed: Result<Vec<_>, _> = self
            .parts
            .iter()
            .map(|part| Gguf::parse(part.bytes()))
            .collect();
        let parsed = parsed?;
        if parsed.len() > 1 {
            gguf::check_split(&parsed)?;
        }
        Ok(parsed)
    }

    /// Tells the system that most of the files will not be read again soon, so that they do not count as this process's
    /// memory. What is read nevertheless comes back from the file, or from the system's cache of it.
    pub(super) fn release(&self) {
        for file in &self.maps {
            release(&file.map);
        }
    }

    /// The size of all parts in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.parts
            .iter()
            .map(|part| part.bytes().len() as u64)
            .sum()
    }
}

#[cfg(unix)]
fn release(map: &Mmap) {
    // SAFETY: a shared map of a file has no contents of its own that could be lost.
    let advised = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    // A system that does not take the advice keeps the pages, and nothing else changes.
    drop(advised);
}

/// Windows takes no such advice, and takes pages of files back when it needs them.
#[cfg(not(unix))]
fn release(_: &Mmap) {}

fn map(path: &Path) -> Result<Arc<MappedFile>> {
    let (file, bytes) = regular::open(path)?;
    if bytes == 0 {
        return Err(Error::model(path, "it is empty: download it again"));
    }
    // SAFETY: the map is read-only, and the contract of `open` forbids changing
    // the file meanwhile.
    let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::file(path, &error))?;
    Ok(Arc::new(MappedFile { map }))
}
