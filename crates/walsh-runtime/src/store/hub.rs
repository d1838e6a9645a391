//! The hub: what is in a repository, and where its files lie.
//!
//! Two of its public addresses are all that is needed. The crate `hf-hub` brings an asynchronous runtime
//! since 1.0, and its blocking flavour before checks no SHA-256, cannot be cancelled and has a cache of its
//! own; so this speaks through `ureq`.

use serde::Deserialize;

use super::choice::Remote;
use super::http::{Answer, Client, is_sha256};
use super::reference::{Address, Repository};
use crate::error::{Error, Result};
use crate::watch::Watch;

/// Where the hub is, unless options say otherwise.
pub(super) const ENDPOINT: &str = "https://huggingface.co";

/// The most that a repository's description may have, in bytes.
const LONGEST_ANSWER: usize = 8 << 20;

/// A repository's description. The parser bounds how deep it can be nested.
#[derive(Deserialize)]
struct Description {
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Large>,
}

/// What is known of a file that is kept apart because it is large.
#[derive(Deserialize)]
struct Large {
    size: u64,
    sha256: String,
}

/// Where the hub is.
#[derive(Debug)]
pub(super) struct Hub<'a> {
    pub(super) endpoint: &'a Address,
    pub(super) client: &'a Client,
}

impl Hub<'_> {
    /// All files of a repository whose names end in `.gguf`.
    ///
    /// # Errors
    /// When there is no such repository, it is not open to the user, or the hub cannot be reached or understood.
    pub(super) fn list(&self, repository: &Repository, watch: &Watch) -> Result<Vec<Remote>> {
        let Repository { owner, name } = repository;
        let address = self.at(&format!("/api/models/{owner}/{name}?blobs=true"))?;
        let mut answer = self
            .client
            .get(&address, &[], watch)
            .map_err(|trouble| trouble.into_error())?;
        if answer.head.status != 200 {
            return Err(self.client.refusal(&answer.head, &repository.to_string()));
        }
        let text = self.whole(&mut answer, watch)?;
        let odd = |what: String| {
            Error::store(format!(
                "{} does not describe {repository} as a hub does ({what}): check where the hub is",
                self.endpoint.host()
            ))
        };
        let description: Description =
            serde_json::from_slice(&text).map_err(|error| odd(error.to_string()))?;
        let is_model = |file: &Sibling| file.rfilename.to_ascii_lowercase().ends_with(".gguf");
        let files = description.siblings.into_iter().filter(is_model);
        files
            .map(|file| {
                let (bytes, sha256) = match file.lfs {
                    Some(large) => (Some(large.size), Some(large.sha256)),
                    None => (file.size, None),
                };
                let bytes = bytes.ok_or_else(|| odd("a file has no size".to_owned()))?;
                if sha256.as_deref().is_some_and(|sha256| !is_sha256(sha256)) {
                    return Err(odd("a SHA-256 is none".to_owned()));
                }
                Ok(Remote {
                    name: file.rfilename,
                    bytes,
                    sha256,
                })
            })
            .collect()
    }

    fn whole(&self, answer: &mut Answer, watch: &Watch) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        while let Some(chunk) = answer.next(watch).map_err(|trouble| trouble.into_error())? {
            text.extend(chunk);
            if text.len() > LONGEST_ANSWER {
                return Err(Error::store(format!(
                    "{} describes the repository in more than {LONGEST_ANSWER} bytes: check where the hub is",
                    self.endpoint.host()
                )));
            }
        }
        Ok(text)
    }

    /// Where a file of a repository lies.
    ///
    /// # Errors
    /// When that is no address.
    pub(super) fn address(&self, repository: &Repository, file: &str) -> Result<Address> {
        let Repository { owner, name } = repository;
        self.at(&format!("/{owner}/{name}/resolve/main/{}", escaped(file)))
    }

    /// An address of the hub, which may itself lie below a folder of a server.
    fn at(&self, path: &str) -> Result<Address> {
        let endpoint = self.endpoint.plain();
        Address::parse(&format!("{}{path}", endpoint.trim_end_matches('/')))
    }
}

/// A path as it stands in an address.
fn escaped(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
