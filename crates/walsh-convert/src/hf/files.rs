//! The files of a folder beside those with tensors: their names, and how they are read.

use std::fs;
use std::path::Path;

use crate::{Error, Result};

pub(super) const CONFIG: &str = "config.json";
pub(super) const GENERATION: &str = "generation_config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const SENTENCE_PIECE: &str = "tokenizer.model";
pub(super) const TEMPLATE: &str = "chat_template.jinja";
pub(super) const TEMPLATE_JSON: &str = "chat_template.json";
pub(super) const INDEX: &str = "model.safetensors.index.json";
pub(super) const SINGLE: &str = "model.safetensors";

/// All that is read beside the files with tensors, where it is there.
pub(super) const NAMED: [&str; 8] = [
    CONFIG,
    GENERATION,
    TOKENIZER,
    TOKENIZER_CONFIG,
    SENTENCE_PIECE,
    TEMPLATE,
    TEMPLATE_JSON,
    INDEX,
];

/// Most that is read of a file without tensors: vocabularies have tens of megabytes.
const MOST: u64 = 512 << 20;

/// The bytes of a file without tensors.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::file(path, error);
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MOST {
        return Err(Error::file(
            path,
            "it is no file of at most 512 MiB, as all but tensors are: download it again",
        ));
    }
    fs::read(path).map_err(failed)
}
