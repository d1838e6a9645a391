//! Models that were fetched by a name of elsewhere: where they lie, and what is known of them.
//!
//! A repository or an address has a folder, and in it the files under their own names, a lock, and a
//! listing of what the source has. Names are looked up in the listing first, so that they mean the same
//! files without a network as with it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::choice::{Remote, Variant, choose, parts, variants};
use super::fetch::{self, Fetch, Known};
use super::http::{Access, Client};
use super::hub::Hub;
use super::reference::{Address, Reference, Repository, check_part};
use super::token::Token;
use super::{Listed, Progress, Removed, State, Store, own, unpack, wait_for};
use crate::error::{Error, Result};
use crate::watch::Watch;

/// The file that says what a source has.
const LISTING: &str = ".listing.json";

/// How deep folders of addresses are looked through.
const DEPTH: usize = 64;

/// What a source has, as far as it is known: all models of a repository, or the files of an address that
/// are here.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Listing {
    files: Vec<Remote>,
}

impl Listing {
    fn find(&self, name: &str) -> Option<&Remote> {
        self.files.iter().find(|file| file.name == name)
    }

    fn put(&mut self, file: Remote) {
        self.files.retain(|other| other.name != file.name);
        self.files.push(file);
    }
}

/// A repository or an address, and its folder.
pub(super) struct Source<'a> {
    store: &'a Store,
    reference: Reference,
    folder: PathBuf,
}

/// What fetches from it.
struct Line {
    client: Client,
    hub: Address,
}

impl Line {
    fn hub(&self) -> Hub<'_> {
        Hub {
            endpoint: &self.hub,
            client: &self.client,
        }
    }

    /// Where a file of a source lies.
    fn address(&self, reference: &Reference, file: &str) -> Result<Address> {
        match reference {
            Reference::Hub { repository, .. } => self.hub().address(repository, file),
            Reference::File(address) => address.join(file),
        }
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(store: &'a Store, reference: Reference) -> Source<'a> {
        Source {
            store,
            folder: store.folder.join(reference.folder()),
            reference,
        }
    }

    /// Makes sure that the model is here; returns the path of its first file. Where it is, nobody is asked.
    ///
    /// # Errors
    /// When the name means no model or several, or it cannot be fetched, checked or written.
    pub(super) fn pull(
        &self,
        watch: &Watch,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf> {
        if let Some(path) = self.ready()? {
            return Ok(path);
        }
        let line = self.line()?;
        // A name that means nothing leaves nothing.
        let listed = match &self.reference {
            Reference::Hub { repository, quant } => {
                let listed = line.hub().list(repository, watch)?;
                chosen(&listed, repository, quant.as_deref())?;
                listed
            }
            Reference::File(_) => Vec::new(),
        };
        own::make_folders(&self.store.folder, &self.reference.folder())?;
        let lock = own::lock_file(&self.lock_path())?;
        wait_for(&lock, &self.folder, watch, progress)?;
        // Another process may have fetched it meanwhile.
        if let Some(path) = self.ready()? {
            return Ok(path);
        }
        let variant = match &self.reference {
            Reference::Hub { repository, quant } => {
                self.save(&self.renewed(listed))?;
                let files = self.listing().unwrap_or_default().files;
                chosen(&files, repository, quant.as_deref())?
            }
            Reference::File(address) => {
                self.variant_at(address, &self.listing().unwrap_or_default())
            }
        };
        self.fetch(&line, &variant, watch, progress)?;
        Ok(self.path(&variant))
    }

    /// Fetches the files that are not here yet, and notes each in the listing.
    fn fetch(
        &self,
        line: &Line,
        variant: &Variant,
        watch: &Watch,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let mut listing = self.listing().unwrap_or_default();
        let whole = variant.bytes();
        let left = whole.saturating_sub(self.bytes_here(variant)?);
        fetch::has_room(&self.lock_path(), left)?;
        let mut before = 0;
        for file in &variant.files {
            let to = self.folder.join(&file.name);
            if !self.has(file)? {
                if let Some(folder) = Path::new(&file.name).parent() {
                    own::make_folders(&self.folder, folder)?;
                }
                let fetch = Fetch {
                    client: &line.client,
                    from: &line.address(&self.reference, &file.name)?,
                    to: &to,
                    known: match &self.reference {
                        Reference::Hub { .. } => Known {
                            bytes: Some(file.bytes),
                            sha256: file.sha256.clone(),
                        },
                        // What was known is no longer here, and may have changed.
                        Reference::File(_) => Known::default(),
                    },
                    pause: self.store.options.pause,
                };
                let fetched = fetch.run(watch, &mut |of_file| {
                    progress(of_file.behind(before, whole));
                })?;
                listing.put(Remote {
                    name: file.name.clone(),
                    ..fetched
                });
                self.save(&listing)?;
            }
            before += own::length(&to)?.unwrap_or(0);
        }
        Ok(())
    }

    /// Whether a file is here whole. Of one that nothing is known of, nobody could tell.
    fn has(&self, file: &Remote) -> Result<bool> {
        let length = own::length(&self.folder.join(&file.name))?;
        Ok(file.bytes > 0 && length == Some(file.bytes))
    }

    /// The bytes of a model that are here, whole files or parts of them.
    fn bytes_here(&self, variant: &Variant) -> Result<u64> {
        let mut here = 0;
        for file in &variant.files {
            let partial = fetch::partial_path(&self.folder.join(&file.name));
            here += match self.has(file)? {
                true => file.bytes,
                false => own::length(&partial)?.unwrap_or(0),
            };
        }
        Ok(here)
    }

    /// Who to ask. The token is read only where the hub itself is asked.
    fn line(&self) -> Result<Line> {
        let options = &self.store.options;
        let hub = Address::parse(&options.hub)?;
        let asks_hub = match &self.reference {
            Reference::Hub { .. } => true,
            Reference::File(address) => address.has_origin_of(&hub),
        };
        let token_file = self.store.token_file()?;
        let access = Access {
            hub: hub.clone(),
            token: match asks_hub {
                true => Token::read(&token_file)?,
                false => None,
            },
            token_file,
        };
        Ok(Line {
            client: Client::new(access, options.silence),
            hub,
        })
    }

    /// The model's first file, if all of its files are here.
    fn ready(&self) -> Result<Option<PathBuf>> {
        let Some(variant) = self.variant() else {
            return Ok(None);
        };
        for file in &variant.files {
            if !self.has(file)? {
                return Ok(None);
            }
        }
        Ok(Some(self.path(&variant)))
    }

    /// The model that the name means by what is known here.
    fn variant(&self) -> Option<Variant> {
        let quant = match &self.reference {
            Reference::Hub { quant, .. } => quant.as_deref(),
            Reference::File(_) => None,
        };
        match &self.reference {
            Reference::File(address) => {
                Some(self.variant_at(address, &self.listing().unwrap_or_default()))
            }
            Reference::Hub { .. } => choose(&self.variants(), quant).ok().cloned(),
        }
    }

    /// The models that the source is known to have.
    fn variants(&self) -> Vec<Variant> {
        let listing = self.listing().unwrap_or_default();
        match &self.reference {
            Reference::Hub { .. } => variants(&listing.files).unwrap_or_default(),
            Reference::File(address) => vec![self.variant_at(address, &listing)],
        }
    }

    /// The one model of an address. What is not known of its files yet is said by partial ones.
    fn variant_at(&self, address: &Address, listing: &Listing) -> Variant {
        let name = address.file_name();
        let names = parts(name).unwrap_or_else(|| vec![name.to_owned()]);
        let files = names.into_iter().map(|name| {
            listing.find(&name).cloned().unwrap_or_else(|| Remote {
                bytes: fetch::record(&self.folder.join(&name)).map_or(0, |record| record.bytes),
                name,
                sha256: None,
            })
        });
        Variant {
            files: files.collect(),
        }
    }

    /// What the source has now, but of what is here whole, what it was when it was fetched: that stays
    /// what it is until it is removed.
    fn renewed(&self, files: Vec<Remote>) -> Listing {
        let mut listing = Listing { files };
        for file in self.listing().unwrap_or_default().files {
            if self.has(&file).is_ok_and(|here| here) {
                listing.put(file);
            }
        }
        listing
    }

    /// What the source is known to have. A listing that cannot be read is none: the next pull writes it.
    fn listing(&self) -> Option<Listing> {
        let path = self.folder.join(LISTING);
        own::length(&path).ok()??;
        let listing: Listing = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        // Whoever wrote it: no name leads out of the folder.
        let mut parts = listing.files.iter().flat_map(|file| file.name.split('/'));
        parts
            .all(|part| check_part(part).is_ok())
            .then_some(listing)
    }

    fn save(&self, listing: &Listing) -> Result<()> {
        let path = self.folder.join(LISTING);
        own::length(&path)?;
        let text = serde_json::to_vec(listing).map_err(|error| Error::store(error.to_string()))?;
        // A listing that a broken-off pull has cut short is none, and is written anew.
        std::fs::write(&path, text).map_err(|e| Error::file(&path, &e))
    }

    fn path(&self, variant: &Variant) -> PathBuf {
        let first = variant.files.first();
        first.map_or_else(|| self.folder.clone(), |file| self.folder.join(&file.name))
    }

    fn lock_path(&self) -> PathBuf {
        self.folder.join(".lock")
    }

    /// How much of a model is here.
    fn state(&self, variant: &Variant) -> Result<State> {
        let (mut whole, mut is_odd) = (0, false);
        for file in &variant.files {
            match self.has(file)? {
                true => whole += 1,
                false => is_odd |= own::length(&self.folder.join(&file.name))?.is_some(),
            }
        }
        let done = self.bytes_here(variant)?;
        Ok(match (whole == variant.files.len(), is_odd, done) {
            (true, ..) => State::Ready,
            (_, true, _) => State::Damaged,
            (_, _, 0) => State::Missing,
            _ => State::Partial { done },
        })
    }

    /// The models of this source that are here, whole or in part.
    fn list(&self) -> Vec<Listed<'a>> {
        let variants = self.variants();
        let listed = variants.iter().map(|variant| Listed {
            name: self.name(variant, &variants),
            entry: None,
            bytes: variant.bytes(),
            path: self.path(variant),
            state: self.state(variant).unwrap_or(State::Damaged),
        });
        listed
            .filter(|listed| listed.state != State::Missing)
            .collect()
    }

    /// What people type for a model of this source.
    fn name(&self, variant: &Variant, among: &[Variant]) -> String {
        match &self.reference {
            Reference::Hub { repository, .. } => format!("{repository}:{}", variant.quant(among)),
            address => address.to_string(),
        }
    }

    /// Removes a model, or what is here of it.
    ///
    /// # Errors
    /// When nothing of it is here, another process is fetching from the same source, or a file cannot be
    /// removed.
    pub(super) fn remove(&self) -> Result<Removed> {
        let here = self.list();
        let variant = self.variant().filter(|variant| {
            let path = self.path(variant);
            here.iter().any(|listed| listed.path == path)
        });
        let Some(variant) = variant else {
            let here: Vec<&str> = here.iter().map(|listed| listed.name.as_str()).collect();
            let here = match here.is_empty() {
                true => "there is nothing to remove".to_owned(),
                false => format!("what is here is {}", here.join(", ")),
            };
            return Err(Error::store(format!(
                "{} is not in {}: {here}",
                self.reference,
                self.store.folder.display()
            )));
        };
        let lock = own::lock_file(&self.lock_path())?;
        if lock.try_lock().is_err() {
            return Err(being_fetched(&self.reference.to_string()));
        }
        let mut bytes = 0;
        for file in &variant.files {
            let path = self.folder.join(&file.name);
            bytes += fetch::remove(&path)?.unwrap_or(0);
            bytes += own::remove(&path)?.unwrap_or(0);
        }
        // Without models, what the source has is no longer of interest.
        if self.list().is_empty() {
            own::remove(&self.folder.join(LISTING))?;
        }
        Ok(Removed {
            path: self.path(&variant),
            bytes,
        })
    }

    /// Reads the model's files and checks their SHA-256.
    ///
    /// # Errors
    /// When the model is not here, its bytes are not those that came, or the caller ends it.
    pub(super) fn verify(&self, watch: &Watch, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let name = self.reference.to_string();
        let (Some(variant), Some(_)) = (self.variant(), self.ready()?) else {
            return Err(Error::store(format!(
                "{name} is not in {}: pull it first",
                self.store.folder.display()
            )));
        };
        let total = variant.bytes();
        let mut before = 0;
        for file in &variant.files {
            let path = self.folder.join(&file.name);
            let wanted = file.sha256.as_deref().ok_or_else(|| {
                Error::store(format!(
                    "no SHA-256 is known of {}: pull it again",
                    path.display()
                ))
            })?;
            unpack::check(&path, wanted, &name, &mut |done| {
                progress(Progress::Checking {
                    done: before + done,
                    total,
                });
                watch.check()
            })?;
            before += file.bytes;
        }
        Ok(())
    }
}

/// All models that were fetched by names of elsewhere, whole or in part.
///
/// # Errors
/// When a folder cannot be read.
pub(super) fn list(store: &Store) -> Result<Vec<Listed<'_>>> {
    let mut listed = Vec::new();
    for kind in ["hf", "https", "http"] {
        walk(store, Path::new(kind), DEPTH, &mut listed)?;
    }
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}

fn walk<'a>(
    store: &'a Store,
    below: &Path,
    depth: usize,
    listed: &mut Vec<Listed<'a>>,
) -> Result<()> {
    if let Some(reference) = Reference::of_folder(below) {
        let is_repository = matches!(reference, Reference::Hub { .. });
        listed.extend(Source::new(store, reference).list());
        if is_repository {
            return Ok(());
        }
    }
    let folder = store.folder.join(below);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(Error::file(&folder, &error)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::file(&folder, &e))?;
        // Links are not followed.
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(store, &below.join(entry.file_name()), depth - 1, listed)?;
        }
    }
    Ok(())
}

pub(super) fn being_fetched(name: &str) -> Error {
    Error::store(format!(
        "{name} is being fetched by another process: try again when it is done"
    ))
}

/// The model of a repository that is meant.
fn chosen(files: &[Remote], repository: &Repository, quant: Option<&str>) -> Result<Variant> {
    let all = variants(files);
    let chosen = all.and_then(|all| choose(&all, quant).cloned());
    chosen.map_err(|error| Error::store(format!("{repository}: {error}")))
}
