//! LoRA adapters (Hu et al., arXiv 2106.09685): what is added to a model's products, in a file or a folder of its own.
//!
//! A product's weight W `[rows, columns]` becomes W + s · B · A with A `[rank, columns]` and B `[rows, rank]`. Files of
//! GGUF have both as `NAME.lora_a` and `NAME.lora_b`, of a model in GGUF's order of rows; folders of PEFT have them by the
//! names of transformers, and in its order. Either way an [`Adapter`] has them as GGUF does.

mod gguf;
pub(crate) mod merge;
pub(crate) mod pair;

use std::path::{Path, PathBuf};

use crate::hf::peft;
use crate::{Error, Result};
pub use pair::{Adapter, Base, Pair};

impl Adapter {
    /// Reads an adapter of a model: a GGUF file, or a folder that PEFT has saved.
    ///
    /// # Errors
    /// When it cannot be read or is damaged, is of another architecture, or has something that is neither A nor B of a
    /// product.
    pub fn open(path: &Path, base: &Base<'_>) -> Result<Adapter> {
        if path.is_dir() {
            return peft::read(path, base);
        }
        let is_safetensors = path.extension().is_some_and(|kind| kind == "safetensors");
        if let (true, Some(folder)) = (is_safetensors, path.parent()) {
            return Err(Error::adapter(
                path,
                format!(
                    "an adapter of PEFT is read with its configuration: give its folder, {}",
                    shown(folder)
                ),
            ));
        }
        gguf::read(path, base)
    }

    /// What an adapter is called: its file's name without the ending, or its folder's.
    pub fn name_of(path: &Path) -> String {
        let whole: PathBuf = match path.file_name() {
            Some(_) => path.to_owned(),
            // A folder that is named by where it stands, such as "." or "..".
            None => path.canonicalize().unwrap_or_default(),
        };
        let name = match whole.is_dir() {
            true => whole.file_name(),
            false => whole.file_stem(),
        };
        name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}

fn shown(folder: &Path) -> String {
    match folder.as_os_str().is_empty() {
        true => ".".to_owned(),
        false => folder.display().to_string(),
    }
}
