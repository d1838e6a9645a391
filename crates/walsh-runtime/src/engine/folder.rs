//! What calls have left behind, in files of a folder: found again after a restart.
//!
//! A file holds what one call has read: its name is a hash of all calls of the text up to it. The frame is that of
//! [`container`](crate::container), the kind `PRFX`, with the sections `PKEY` (the whole hash), `PAGE` (of each layer's
//! keys, then values, the codes and then the scales of each KV head at the call's positions) and `OVER` (of each
//! overlay, what it holds behind them). Nothing that is not whole is used, and a folder is only one model's, with one SPEC,
//! calibration, device and version of Walsh.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::caches::Caches;
use super::left::{Home, Key, Left};
use super::options::EngineOptions;
use crate::container::{self, Kind, Section, Tag};
use crate::{Error, Model, Result};

/// Files of what a call has read.
const KIND: Kind = Kind {
    tag: *b"PRFX",
    version: 1,
    oldest: 1,
    name: "a beginning of texts",
};
const KEY: Tag = *b"PKEY";
const PAGES: Tag = *b"PAGE";
const OVERLAYS: Tag = *b"OVER";

/// How many files may wait to be written.
const WAITING: usize = 16;

/// A folder of files, and the thread that writes them.
pub(super) struct Folder {
    path: PathBuf,
    model: Model,
    queue: Option<SyncSender<(Key, Left)>>,
    writer: Option<JoinHandle<()>>,
    /// The first thing that went wrong.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Folder {
    /// Opens a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub(super) fn open(
        (model, home): (&Model, &Home),
        options: &EngineOptions,
        trouble: Arc<Mutex<Option<String>>>,
    ) -> Result<Option<Self>> {
        let Some(folder) = &options.prefix_folder else {
            return Ok(None);
        };
        let path = folder.join(store_name(model, home)?);
        fs::create_dir_all(&path).map_err(|error| Error::file(&path, &error))?;
        container::check_writable(path.join("new"))?;
        let (queue, written) = sync_channel::<(Key, Left)>(WAITING);
        let most = options.prefix_folder_bytes;
        let (of, to, told) = (model.clone(), path.clone(), Arc::clone(&trouble));
        let all = folder.clone();
        let writer = std::thread::Builder::new().name("walsh-prefixes".into());
        let writer = writer.spawn(move || {
            for (key, left) in written {
                let put = write(&of, &to.join(file_name(&key)), &key, left);
                if let Err(error) = put.and_then(|()| shrink(&all, most)) {
                    note(&told, &error);
                    return;
                }
            }
        });
        let writer = writer.map_err(|error| Error::file(&path, &error))?;
        Ok(Some(Self {
            path,
            model: model.clone(),
            queue: Some(queue),
            writer: Some(writer),
            trouble,
        }))
    }

    /// Whether what a call has left behind is there.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.path.join(file_name(key)).exists()
    }

    /// Whether anything is still [written](Self::write).
    pub(super) fn is_written(&self) -> bool {
        self.queue.is_some()
    }

    /// Reads what a call has left behind: so many bytes of pages and overlays. `None` where the file is of no use, which is
    /// noted: the call is made, and written anew.
    pub(super) fn read(&self, key: &Key, bytes: (usize, usize)) -> Option<Left> {
        let path = self.path.join(file_name(key));
        let read = || -> Result<Left> {
            let mut sections = container::read(&path, KIND, self.model.origin()?)?;
            let named = sections.bytes(KEY)?;
            let (pages, overlays) = (sections.bytes(PAGES)?, sections.bytes(OVERLAYS)?);
            if named != key || (pages.len(), overlays.len()) != bytes {
                return Err(sections.damaged("what it holds"));
            }
            sections.finish()?;
            Ok(Left { pages, overlays })
        };
        match read() {
            Ok(left) => {
                // When it was last of use; where that cannot be noted it goes earlier.
                let touched = File::options().append(true).open(&path);
                let _ = touched.and_then(|file| file.set_modified(SystemTime::now()));
                Some(left)
            }
            Err(error) => {
                note(&self.trouble, &error);
                None
            }
        }
    }

    /// Hands over what a call has left behind, to be written; waits where the writer is far behind.
    pub(super) fn write(&mut self, key: Key, left: Left) {
        let sent = self.queue.as_ref().map(|queue| queue.send((key, left)));
        if let Some(Err(_)) = sent {
            // The writer has ended, and said why.
            self.queue = None;
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Keeps the first thing that goes wrong.
fn note(trouble: &Mutex<Option<String>>, error: &Error) {
    let mut first = trouble.lock().unwrap_or_else(PoisonError::into_inner);
    first.get_or_insert_with(|| error.to_string());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file_name(key: &Key) -> String {
    format!("{}.walsh", hex(&key[..16]))
}

/// What keys and values depend on besides the model.
pub(super) fn home(model: &Model, caches: &Caches, options: &EngineOptions) -> Result<Home> {
    let mut hash = Sha256::new();
    for cache in caches.texts.layers.iter().filter_map(|layer| layer.cache()) {
        let preparation = cache.preparation();
        for tensor in [&preparation.equaliser, &preparation.center] {
            let mut bytes = vec![0; tensor.as_ref().map_or(0, |tensor| tensor.bytes() as usize)];
            if let Some(tensor) = tensor {
                model.device().read_bytes(tensor, &mut bytes)?;
            }
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
    }
    Ok(vec![
        ("version of Walsh", env!("CARGO_PKG_VERSION").to_owned()),
        ("SPEC", options.kv.to_string()),
        // What overlays have room for.
        ("number of tokens looked up", options.look_up.to_string()),
        ("device", model.device().properties().to_string()),
        ("calibration", hex(&hash.finalize()[..16])),
    ])
}

/// The name of the files that this engine can use, among all that may be in a folder.
fn store_name(model: &Model, home: &Home) -> Result<String> {
    let mut hash = Sha256::new();
    let fingerprint = model.fingerprint()?.to_string();
    for text in home.iter().map(|(_, value)| value).chain([&fingerprint]) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    Ok(hex(&hash.finalize()[..16]))
}

fn write(model: &Model, path: &Path, key: &Key, left: Left) -> Result<()> {
    let sections = vec![
        Section::of(KEY, key.to_vec()),
        Section::of(PAGES, left.pages),
        Section::of(OVERLAYS, left.overlays),
    ];
    container::write(path, KIND, model.origin()?, sections)
}

fn is_hash(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Removes the files that were of use the longest ago, until all of a folder's have at most so many bytes.
fn shrink(folder: &Path, most: u64) -> Result<()> {
    let mut files = Vec::new();
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Error::file(&path, &error)
    };
    for store in fs::read_dir(folder).map_err(failed(folder))? {
        let store = store.map_err(failed(folder))?.path();
        // What else lies there is somebody else's.
        let name = store.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(is_hash) {
            continue;
        }
        let entries = fs::read_dir(&store).map_err(failed(&store))?;
        for entry in entries {
            let entry = entry.map_err(failed(&store))?;
            let name = entry.file_name();
            let is_ours = name
                .to_str()
                .is_some_and(|name| name.strip_suffix(".walsh").is_some_and(is_hash));
            if let Some(data) = entry.metadata().ok().filter(|_| is_ours) {
                let used = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((used, data.len(), entry.path()));
            }
        }
    }
    let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    files.sort_unstable();
    for (_, len, path) in files {
        if bytes <= most {
            break;
        }
        match fs::remove_file(&path) {
            // Others may use the folder too.
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&path)(error)),
            _ => bytes -= len,
        }
    }
    Ok(())
}
