//! The token that the hub knows its users by.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::regular;

/// More than any token has, in bytes.
const LONGEST: u64 = 4096;

/// A token. It is shown nowhere.
pub(super) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The token in a file; None where there is no such file, or nothing in it.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else.
    pub(super) fn read(file: &Path) -> Result<Option<Token>> {
        if !file.exists() {
            return Ok(None);
        }
        let (opened, bytes) = regular::open(file)?;
        let no_token = || Error::File {
            path: file.to_owned(),
            why: "it holds no token of the hub: expected one line of letters and digits".to_owned(),
        };
        if bytes > LONGEST {
            return Err(no_token());
        }
        let text = std::io::read_to_string(opened).map_err(|_| no_token())?;
        let token = text.trim();
        if !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(no_token());
        }
        Ok((!token.is_empty()).then(|| Token(token.to_owned())))
    }

    /// What is said to the hub.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

/// Where the hub's own programs keep it, below the user's cache folder.
pub(super) fn usual_file(cache: &Path) -> PathBuf {
    cache.join("huggingface").join("token")
}
