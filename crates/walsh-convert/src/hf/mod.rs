//! Folders as the Hugging Face hub has them: safetensors beside a configuration and a tokenizer.

mod config;
mod family;
mod files;
mod fp8;
mod json;
mod mlx;
pub(crate) mod peft;
mod sentencepiece;
mod tensors;
mod tokenizer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use walsh_formats::DType;

use crate::source::{Source, map};
use crate::{Error, Mix, Result};
use family::Family;
use files::{CONFIG, INDEX, NAMED, SINGLE};
use json::Json;

/// A model's folder, with its tensors mapped. Its files must not be changed meanwhile.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    config: Json,
    shards: Vec<(PathBuf, Mmap)>,
}

impl Folder {
    /// Raised with every change of what folders are converted to, so that what was kept is made anew.
    pub const CONVERTER: u32 = 3;

    /// The files that a folder's conversion reads, of those that are there.
    ///
    /// # Errors
    /// When it has no files with tensors, or a damaged index of them.
    pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
        let named = NAMED.iter().map(|name| path.join(name));
        let mut files: Vec<PathBuf> = named.filter(|path| path.is_file()).collect();
        files.extend(shard_names(path)?.iter().map(|name| path.join(name)));
        Ok(files)
    }

    /// Reads a folder's configuration and maps its tensors.
    ///
    /// # Errors
    /// When files are missing, or the configuration names shards that are not there.
    pub fn open(path: &Path) -> Result<Folder> {
        let config = Json::open(&path.join(CONFIG))?;
        let mut shards = Vec::new();
        for name in shard_names(path)? {
            let path = path.join(name);
            let map = map(&path)?;
            shards.push((path, map));
        }
        Ok(Folder {
            path: path.to_owned(),
            config,
            shards,
        })
    }

    /// The model, as a GGUF file has it. Weights that MLX has quantised keep their values, in types that all readers of
    /// such files know where there are some, or with `own_types` in those that take the least room; 8-bit floats with scales
    /// are bfloat16 where they are not read for another type.
    ///
    /// # Errors
    /// When its family is not known, a file is damaged, or what it says of itself does not go together.
    pub fn source(&self, own_types: bool) -> Result<Source<'_>> {
        let family = Family::of(&self.config)?;
        let shape = config::Shape::read(&self.config, family)?;
        let mut metadata = config::metadata(&self.path, &self.config, (family, &shape))?;
        // What the configuration claims holds once the tensors have its sizes: what is made of it comes behind.
        let mut views = tensors::views(&self.shards)?;
        let mut notes = Vec::new();
        // MLX says the same in quantization_config, too.
        let joined = match mlx::Recipes::read(&self.config)? {
            Some(recipes) => {
                let joined = recipes.join(&mut views, own_types)?;
                notes = mlx::Recipes::notes(&joined);
                joined
            }
            None => match fp8::Scheme::read(&self.config)? {
                Some(scheme) => {
                    let joined = scheme.join(&mut views)?;
                    notes = scheme.notes(&joined);
                    joined
                }
                None => HashMap::new(),
            },
        };
        let mut stored = tensors::stored(views)?;
        stored.extend(joined);
        let mut tensors = tensors::read(stored, family, &shape)?;
        let factors = config::rope_factors(&self.config, family, shape.head)?;
        tensors.extend(factors.map(tensors::rope_factors));
        metadata.extend(tokenizer::metadata(
            &self.path,
            &self.config,
            (family, &shape),
        )?);
        let mut source = Source::new(metadata, tensors);
        source.own_types = own_types;
        source.notes = notes;
        Ok(source)
    }
}

/// The mix that leaves a model's weights in the type that most of them have; `None`, which leaves each in its own, where
/// some are quantised.
pub fn kept(source: &Source<'_>) -> Option<Mix> {
    if source
        .tensors
        .iter()
        .any(|tensor| tensor.dtype.is_quantised())
    {
        return None;
    }
    let mut largest = (0, DType::F16);
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let tensors = source.tensors.iter();
        let own = tensors.filter(|tensor| tensor.dtype == dtype && tensor.dimensions() > 1);
        let bytes = own.map(|tensor| tensor.bytes()).sum();
        if bytes > largest.0 {
            largest = (bytes, dtype);
        }
    }
    Some(match largest.1 {
        DType::F32 => Mix::F32,
        DType::BF16 => Mix::BF16,
        _ => Mix::F16,
    })
}

/// The names of the files with tensors: those of the index, or the only one.
fn shard_names(folder: &Path) -> Result<Vec<String>> {
    let index = folder.join(INDEX);
    if !index.is_file() {
        if folder.join(SINGLE).is_file() {
            return Ok(vec![SINGLE.to_owned()]);
        }
        return Err(Error::file(
            folder,
            format!(
                "there is neither {SINGLE} nor {INDEX}: give the folder of a whole model, with its weights as safetensors"
            ),
        ));
    }
    let json = Json::open(&index)?;
    let map = json.object("weight_map")?;
    let mut names = Vec::new();
    for value in map.values() {
        let name = value.as_str().unwrap_or_default();
        let is_plain = !name.is_empty() && !name.contains(['/', '\\']) && name != "..";
        if !is_plain {
            return Err(Error::file(
                &index,
                format!("{value} is no name of a file beside it: download the folder again"),
            ));
        }
        names.push(name.to_owned());
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(Error::file(&index, "it names no files: download it again"));
    }
    Ok(names)
}
