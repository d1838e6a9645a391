//! One file from a server to a place on disk: checked, and gone on with where it was broken off.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ureq::http::header;

use super::Progress;
use super::choice::Remote;
use super::http::{Answer, Client, Head, Trouble};
use super::own;
use super::reference::Address;
use super::unpack::hex;
use crate::error::{Error, Result};
use crate::size::size_text;
use crate::watch::Watch;

/// What every model's file begins with.
const MAGIC: &[u8] = b"GGUF";

/// How often a broken connection is made again without getting on.
const RETRIES: u32 = 4;

/// What counts as getting on, in bytes.
const PROGRESS: u64 = 1 << 20;

/// How much is read of a partial file at a time.
const CHUNK: usize = 1 << 18;

/// A file to fetch.
pub(super) struct Fetch<'a> {
    pub(super) client: &'a Client,
    pub(super) from: &'a Address,
    /// Where it is to lie. Its folder is there, and its lock is held.
    pub(super) to: &'a Path,
    /// What is known of it.
    pub(super) known: Known,
    /// How long to wait before a broken connection is made again; twice as long each further time.
    pub(super) pause: Duration,
}

/// What is known of a file before it is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) bytes: Option<u64>,
    pub(super) sha256: Option<String>,
}

/// What a partial file is a part of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The address, without what may hold secrets.
    from: String,
    /// The size of the whole.
    pub(super) bytes: u64,
    /// The SHA-256 of the whole, where somebody states it.
    sha256: Option<String>,
    /// What the server tells versions of it apart by: an ETag or a date.
    version: Option<String>,
}

/// The bytes of a file that are here so far.
struct Partial {
    path: PathBuf,
    record: Option<Record>,
    file: File,
    done: u64,
    hash: Sha256,
    /// Whether its server has answered in this call.
    was_reached: bool,
    /// Whether it is a part of something else than the server has now.
    is_stale: bool,
}

/// Where the beginning of a file lies while it is fetched. No model has such a name.
pub(super) fn partial_path(path: &Path) -> PathBuf {
    hidden(path, ".part")
}

/// Where it is kept what a partial file is a part of.
pub(super) fn record_path(path: &Path) -> PathBuf {
    hidden(path, ".part.json")
}

fn hidden(path: &Path, end: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{end}"))
}

/// What a partial file is a part of, if it is known.
pub(super) fn record(path: &Path) -> Option<Record> {
    let path = record_path(path);
    own::length(&path).ok()??;
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

impl Fetch<'_> {
    /// Fetches the file, from where a call before this one stopped if it is the same still, and puts it
    /// in its place when all of it is here.
    ///
    /// # Errors
    /// When the server does not give it, it is not what it should be, it cannot be written, or the caller
    /// no longer wants it. What is here by then stays for the next call, unless it is known to be wrong.
    pub(super) fn run(&self, watch: &Watch, progress: &mut dyn FnMut(Progress)) -> Result<Remote> {
        let mut partial = self.open(watch, progress)?;
        let came = self.complete(&mut partial, watch, progress);
        if partial.done == 0 {
            remove(self.to)?;
        }
        came?;
        self.finish(partial)
    }

    /// Makes one connection after another until all of the file is here.
    fn complete(
        &self,
        partial: &mut Partial,
        watch: &Watch,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let mut broken = 0;
        while !partial.is_whole() {
            let before = partial.done;
            let why = match self.go_on(partial, watch, progress) {
                Ok(()) => continue,
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Broken(why)) => why,
            };
            if partial.done >= before.saturating_add(PROGRESS) {
                broken = 0;
            }
            // Somebody without a network is told so at once.
            if broken == RETRIES || !partial.was_reached {
                let kept = match partial.done {
                    0 => "check the network and try again".to_owned(),
                    done => format!(
                        "{} are here, and the next pull goes on from there",
                        size_text(done)
                    ),
                };
                return Err(Error::store(format!("{why}: {kept}")));
            }
            wait(self.pause * 2u32.pow(broken), watch)?;
            broken += 1;
        }
        Ok(())
    }

    /// What a call before this one left, if it can be gone on with.
    fn open(&self, watch: &Watch, progress: &mut dyn FnMut(Progress)) -> Result<Partial> {
        let path = partial_path(self.to);
        own::length(&record_path(self.to))?;
        let left = own::length(&path)?.unwrap_or(0);
        let record = record(self.to).filter(|record| self.goes_on(record) && left <= record.bytes);
        let failed = |e: std::io::Error| Error::file(&path, &e);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(record.is_none())
            .open(&path)
            .map_err(failed)?;
        let mut partial = Partial {
            path: path.clone(),
            done: 0,
            hash: Sha256::new(),
            was_reached: false,
            is_stale: false,
            record,
            file,
        };
        if let Some(record) = &partial.record {
            let mut chunk = vec![0; CHUNK];
            loop {
                watch.check()?;
                let count = match partial.file.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(failed(error)),
                };
                partial.hash.update(&chunk[..count]);
                partial.done += count as u64;
                progress(Progress::Checking {
                    done: partial.done,
                    total: record.bytes,
                });
            }
        }
        Ok(partial)
    }

    /// Whether a partial file is the beginning of what is wanted.
    fn goes_on(&self, record: &Record) -> bool {
        let same_size = self.known.bytes.is_none_or(|bytes| bytes == record.bytes);
        let same = match (&self.known.sha256, &record.sha256) {
            (Some(wanted), Some(had)) => wanted == had,
            _ => record.from == self.from.plain() && record.version.is_some(),
        };
        record.bytes > 0 && same_size && same
    }

    /// One connection: what it brings is appended.
    fn go_on(
        &self,
        partial: &mut Partial,
        watch: &Watch,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Trouble> {
        let goes_on = partial.done > 0 && !partial.is_stale;
        let mut headers = Vec::new();
        if goes_on {
            headers.push((header::RANGE, format!("bytes={}-", partial.done)));
            let version = partial.record.as_ref().and_then(|had| had.version.clone());
            // What is checked by its SHA-256 needs no comparison before.
            let unchecked = self.known.sha256.is_none();
            headers.extend(version.filter(|_| unchecked).map(|v| (header::IF_RANGE, v)));
        }
        let mut answer = self.client.get(self.from, &headers, watch)?;
        partial.was_reached = true;
        let is_continued = match answer.head.status {
            200 => false,
            206 if goes_on && partial.is_continued_by(&answer.head) => true,
            206 | 416 if goes_on => {
                // It is another file by now, or the server counts otherwise.
                partial.is_stale = true;
                return Ok(());
            }
            _ => return Err(self.client.refusal(&answer.head, &self.from.plain()).into()),
        };
        let had = if is_continued { partial.done } else { 0 };
        let record = self.record(&answer.head, had)?;
        let total = record.bytes;
        has_room(self.to, total - had)?;
        // What is here stays until it is certain that what comes in its place is a model.
        let mut start = (!is_continued).then(Vec::new);
        while let Some(mut chunk) = answer.next(watch)? {
            if let Some(mut begun) = start.take() {
                begun.extend(chunk);
                if begun.len() < MAGIC.len() && (begun.len() as u64) < total {
                    start = Some(begun);
                    continue;
                }
                self.check_start(&begun, &answer)?;
                self.keep(&record)?;
                partial.begin(record.clone())?;
                chunk = begun;
            }
            partial.append(&chunk, total)?;
            progress(Progress::Fetching {
                done: partial.done,
                total,
            });
        }
        match partial.is_whole() {
            true => Ok(()),
            false => Err(Trouble::Broken(format!(
                "{} stopped after {} of {total} bytes",
                self.from.host(),
                partial.done
            ))),
        }
    }

    /// What the answer says of the file, held against what is known.
    fn record(&self, head: &Head, done: u64) -> Result<Record> {
        let (host, what) = (head.address.host(), self.from.plain());
        if let Some(coding) = head.text(header::CONTENT_ENCODING)
            && coding != "identity"
        {
            return Err(Error::store(format!(
                "{host} sends {what} packed as {coding:?}, which was not asked for: fetch it otherwise, and give its path"
            )));
        }
        if head
            .text(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.contains("text/html"))
        {
            return Err(not_a_model(&what, "a web page"));
        }
        let length = head.text(header::CONTENT_LENGTH);
        let length: u64 = length.and_then(|length| length.parse().ok()).ok_or_else(|| {
            Error::store(format!(
                "{host} does not say how long {what} is, so that nobody could see whether it came whole: fetch it otherwise, and give its path"
            ))
        })?;
        let bytes = length.saturating_add(done);
        if bytes == 0 {
            return Err(not_a_model(&what, "an empty file"));
        }
        if let Some(wanted) = self.known.bytes
            && wanted != bytes
        {
            return Err(Error::store(format!(
                "{what} has {bytes} bytes at {host}, and should have {wanted}: pull again, and if it stays so, tell who publishes it"
            )));
        }
        Ok(Record {
            from: what,
            bytes,
            sha256: self.known.sha256.clone().or(head.sha256.clone()),
            version: version(head),
        })
    }

    fn keep(&self, record: &Record) -> Result<()> {
        let path = record_path(self.to);
        let text = serde_json::to_vec(record).map_err(|error| Error::store(error.to_string()))?;
        std::fs::write(&path, text).map_err(|e| Error::file(&path, &e))
    }

    /// A file that is no model is found out by its first bytes.
    fn check_start(&self, start: &[u8], answer: &Answer) -> Result<()> {
        if start.starts_with(MAGIC) {
            return Ok(());
        }
        let text = start.trim_ascii_start();
        let what = if text.starts_with(b"version https://git-lfs") {
            "a pointer of Git LFS, not the file that it stands for"
        } else if text.starts_with(b"<") {
            "a web page"
        } else if text.starts_with(b"{") {
            "a text in JSON"
        } else {
            "something else"
        };
        let what = match answer.head.address == *self.from {
            true => what.to_owned(),
            false => format!("{what}, from {}", answer.head.address.host()),
        };
        Err(not_a_model(&self.from.plain(), &what))
    }

    /// Checks what is here and gives it its name.
    fn finish(&self, partial: Partial) -> Result<Remote> {
        let failed = |e: std::io::Error| Error::file(&partial.path, &e);
        let sha256 = hex(&partial.hash.finalize());
        let stated = partial.record.and_then(|record| record.sha256);
        if let Some(stated) = stated
            && stated != sha256
        {
            remove(self.to)?;
            return Err(Error::store(format!(
                "what came for {} has another SHA-256 than stated and is not kept: pull again, and if it stays so, tell who publishes it",
                self.from.plain()
            )));
        }
        // The name must not reach the disk before the bytes do.
        partial.file.sync_all().map_err(failed)?;
        std::fs::rename(&partial.path, self.to).map_err(|e| Error::file(self.to, &e))?;
        own::remove(&record_path(self.to))?;
        Ok(Remote {
            name: String::new(),
            bytes: partial.done,
            sha256: Some(sha256),
        })
    }
}

impl Partial {
    fn is_whole(&self) -> bool {
        let whole = self.record.as_ref().map(|record| record.bytes);
        whole == Some(self.done) && !self.is_stale
    }

    /// Drops what is here for another file, or another version of it.
    fn begin(&mut self, record: Record) -> Result<()> {
        let failed = |e: std::io::Error| Error::file(&self.path, &e);
        self.file.set_len(0).map_err(failed)?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        (self.done, self.hash) = (0, Sha256::new());
        (self.record, self.is_stale) = (Some(record), false);
        Ok(())
    }

    /// Whether an answer of status 206 goes on where this ends, with the same file.
    fn is_continued_by(&self, head: &Head) -> bool {
        let Some(record) = &self.record else {
            return false;
        };
        let range = head.text(header::CONTENT_RANGE).unwrap_or_default();
        let expected = format!("bytes {}-{}/{}", self.done, record.bytes - 1, record.bytes);
        let same = match (&record.sha256, &record.version, version(head)) {
            (None, Some(had), Some(has)) => *had == has,
            _ => true,
        };
        range == expected && same
    }

    fn append(&mut self, bytes: &[u8], total: u64) -> Result<()> {
        if self.done + bytes.len() as u64 > total {
            return Err(Error::store(
                "the server sends more than it said: check the address, and pull again",
            ));
        }
        self.file
            .write_all(bytes)
            .map_err(|e| Error::file(&self.path, &e))?;
        self.hash.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }
}

/// What tells versions of a file apart: an ETag that stands for the same bytes, or else the date.
fn version(head: &Head) -> Option<String> {
    let etag = head.text(header::ETAG).filter(|etag| etag.starts_with('"'));
    let version = etag.or_else(|| head.text(header::LAST_MODIFIED));
    version.map(str::to_owned)
}

fn not_a_model(from: &str, what: &str) -> Error {
    Error::store(format!(
        "{from} gave {what} instead of a GGUF file: check the address"
    ))
}

/// Removes what is here of a file that is not whole; says how many bytes that was.
pub(super) fn remove(path: &Path) -> Result<Option<u64>> {
    own::remove(&record_path(path))?;
    own::remove(&partial_path(path))
}

/// Waits, unless the caller no longer wants to.
fn wait(time: Duration, watch: &Watch) -> Result<()> {
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()) {
        watch.check()?;
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    Ok(())
}

/// Finds out whether the file system of a path's folder takes so many bytes more, where it says so.
pub(super) fn has_room(path: &Path, needed: u64) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let Ok(system) = fs4::statvfs(folder) else {
        return Ok(());
    };
    let free = system.available_space();
    // A file system of no size is one that does not count.
    if system.total_space() > 0 && free < needed {
        return Err(Error::store(format!(
            "{} are to be fetched, but {} has {} free: make room or give another cache folder",
            size_text(needed),
            folder.display(),
            size_text(free)
        )));
    }
    Ok(())
}
