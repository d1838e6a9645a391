//! Whose texts may go on from each other.

use sha2::{Digest, Sha256};

use super::request::Request;
use crate::model::Selection;
use crate::{Model, Result};

/// What texts have in common that share beginnings: what they are salted with, and the adapters that their keys and values
/// were made with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Kin {
    pub(super) salt: Option<String>,
    pub(super) adapters: Selection,
}

impl Kin {
    /// That of a request.
    ///
    /// # Errors
    /// When it asks for adapters that the model has not, or for one twice, or for a part that is no number.
    pub(super) fn of(request: &Request, model: &Model) -> Result<Self> {
        Ok(Self {
            salt: request.salt.clone(),
            adapters: match &request.adapters {
                None => model.selection().clone(),
                Some(scales) => Selection::new(scales, model.rack().map_or(0, |rack| rack.len()))?,
            },
        })
    }

    /// What the names of a text's calls begin with: no text and kin are those of another.
    pub(super) fn hash(&self, model: &Model) -> Sha256 {
        let mut hash = Sha256::new();
        if let Some(rack) = model.rack().filter(|_| !self.adapters.is_empty()) {
            hash.update([2]);
            hash.update((self.adapters.len() as u64).to_le_bytes());
            hash.update(self.adapters.bytes(rack));
        }
        match &self.salt {
            None => hash.update([0]),
            Some(salt) => {
                hash.update([1]);
                hash.update((salt.len() as u64).to_le_bytes());
                hash.update(salt);
            }
        }
        hash
    }
}
