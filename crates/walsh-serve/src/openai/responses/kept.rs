//! Responses that are kept, to be gone on from.

use std::sync::{Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::error::{ApiError, Result};

/// The most responses that are kept, and the most bytes of them.
const MOST: usize = 1024;
const MOST_BYTES: usize = 64 << 20;

type Messages = Vec<Map<String, Value>>;

struct Entry {
    object: Value,
    messages: Messages,
    bytes: usize,
}

#[derive(Default)]
struct Entries {
    /// The oldest first.
    entries: IndexMap<String, Entry>,
    bytes: usize,
}

/// The latest responses, in memory alone: they are gone with the server.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Entries>);

impl Kept {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a response with the messages up to its end; the oldest ones go.
    pub(super) fn keep(&self, id: &str, object: Value, messages: Messages) {
        let bytes = size(&object) + size(&messages);
        let mut kept = self.entries();
        kept.bytes += bytes;
        let entry = Entry {
            object,
            messages,
            bytes,
        };
        kept.entries.insert(id.to_owned(), entry);
        while kept.entries.len() > MOST || kept.bytes > MOST_BYTES {
            let Some((_, oldest)) = kept.entries.shift_remove_index(0) else {
                break;
            };
            kept.bytes -= oldest.bytes;
        }
    }

    fn find<T>(&self, id: &str, read: impl FnOnce(&Entry) -> T) -> Result<T> {
        let kept = self.entries();
        kept.entries.get(id).map(read).ok_or_else(|| none(id))
    }

    pub(super) fn messages(&self, id: &str) -> Result<Messages> {
        self.find(id, |entry| entry.messages.clone())
            .map_err(|error| error.by("previous_response_id"))
    }

    pub(super) fn object(&self, id: &str) -> Result<Value> {
        self.find(id, |entry| entry.object.clone())
    }

    pub(super) fn remove(&self, id: &str) -> Result<()> {
        let mut kept = self.entries();
        let removed = kept.entries.shift_remove(id).ok_or_else(|| none(id))?;
        kept.bytes -= removed.bytes;
        Ok(())
    }
}

fn none(id: &str) -> ApiError {
    let message = format!(
        "there is no response {id:?} here: the latest {MOST} are kept, until the server ends"
    );
    ApiError::not_found("response_not_found", message)
}

/// How much memory texts take, about.
fn size(value: &impl serde::Serialize) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len())
}
