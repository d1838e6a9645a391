//! Models from GGUF files, and of random weights.

mod adapted;
mod adapters;
mod architecture;
mod config;
mod file;
pub(crate) mod fingerprint;
pub(crate) mod graph;
mod keys;
mod kv;
pub(crate) mod memory;
mod screening;
pub(crate) mod steps;
mod synthetic;
pub(crate) mod weights;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use walsh::formats::DType;
use walsh::formats::gguf::Gguf;
use walsh::{Device, tensor_bytes};

use adapters::Adapters;
pub use adapters::{AdapterInfo, Lora};
pub(crate) use adapters::{Applied, Selection};
pub use architecture::Architecture;
use config::ROPE_FACTORS;
pub use config::{DeltaConfig, ExpertsConfig, LayerConfig, ModelConfig, RecurrentConfig};
use file::ModelFiles;
pub use fingerprint::Fingerprint;
pub(crate) use keys::number;
use screening::Screening;
pub use synthetic::Synthetic;
pub(crate) use weights::Weights;
use weights::{Loader, Place};

use crate::calibration::{Calibration, CalibrationOptions};
use crate::chat::Template;
use crate::constraint::{Constraint, Guide, Guides};
use crate::container::Origin;
use crate::sampling::RecommendedSampling;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The tensors of one storage type, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSummary {
    /// The storage type.
    pub dtype: DType,
    /// How many tensors have it.
    pub count: usize,
    /// How many numbers they hold.
    pub elements: u64,
    /// How many bytes they take.
    pub bytes: u64,
}

/// A model, ready to run. Cloning shares it.
///
/// Its weights stay in the mapped file and are read as they are stored, but for
/// those of products that the device has packed on opening
/// ([`packed_bytes`](Self::packed_bytes)); the file must not be changed while the
/// model is open.
///
/// A file that is cut short nevertheless ends the program with the signal `SIGBUS`
/// when a part that is gone is read. Signals are the program's: one that would
/// rather say what happened answers it, as the `walsh` command does.
#[derive(Clone)]
pub struct Model(Arc<Inner>, Adapters);

struct Inner {
    device: Device,
    files: ModelFiles,
    name: String,
    config: ModelConfig,
    tensors: Vec<TensorSummary>,
    weights: Weights,
    packed_bytes: u64,
    screening: Screening,
    tokenizer: Tokenizer,
    sampling: RecommendedSampling,
    calibrations: CalibrationOptions,
    calibration: OnceLock<Calibration>,
    fingerprint: OnceLock<Fingerprint>,
    guides: OnceLock<Guides>,
}

/// What a model is made of, wherever its tensors come from.
struct Parts {
    files: ModelFiles,
    config: ModelConfig,
    places: HashMap<String, Place>,
    calibrations: CalibrationOptions,
}

impl Parts {
    fn assemble(self, device: &Device) -> Result<Model> {
        let (path, config) = (&self.files.path, &self.config);
        let (name, tokenizer, sampling) = {
            let parsed = self.files.parse()?;
            let metadata = parsed[0].metadata();
            let name = match metadata.opt_str("general.name")? {
                Some(name) => name.to_owned(),
                None => path.display().to_string(),
            };
            let sampling = RecommendedSampling::read(path, metadata)?;
            (name, Tokenizer::from_gguf(&parsed[0])?, sampling)
        };
        if tokenizer.vocab_size() != config.vocabulary {
            return Err(Error::model(
                path,
                format!(
                    "the vocabulary has {} tokens, but the embedding table {} rows: download it again",
                    tokenizer.vocab_size(),
                    config.vocabulary
                ),
            ));
        }
        let tensors = summarise(self.places.values())?;
        let loader = Loader {
            device,
            path,
            places: self.places,
        };
        let mut weights = loader.weights(config)?;
        let packed_bytes = weights.pack(device, config)?;
        if packed_bytes > 0 {
            self.files.release();
        }
        let inner = Arc::new(Inner {
            device: device.clone(),
            name,
            weights,
            packed_bytes,
            screening: Screening::default(),
            config: self.config,
            tensors,
            tokenizer,
            sampling,
            calibrations: self.calibrations,
            calibration: OnceLock::new(),
            fingerprint: OnceLock::new(),
            guides: OnceLock::new(),
            files: self.files,
        });
        Ok(Model(inner, Adapters::default()))
    }
}

impl Model {
    /// Opens a GGUF file, or one part of a split one.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged, or the model is of a form that
    /// is not supported.
    pub fn open(device: &Device, path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(device, path, CalibrationOptions::default())
    }

    /// [`open`](Self::open), with a place to keep what calibration finds.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with(
        device: &Device,
        path: impl AsRef<Path>,
        calibrations: CalibrationOptions,
    ) -> Result<Self> {
        let path = path.as_ref();
        let opened = Self::open_files(device, path, calibrations);
        opened.map_err(|error| match error {
            Error::Gguf(error) => Error::model(path, error.to_string()),
            other => other,
        })
    }

    fn open_files(device: &Device, path: &Path, calibrations: CalibrationOptions) -> Result<Self> {
        let files = ModelFiles::open(path)?;
        let (config, places) = {
            let parsed = files.parse()?;
            let config = ModelConfig::read(
                &files.path,
                parsed[0].metadata(),
                vocabulary(&files.path, &parsed)?,
                rope_factors(&files, &parsed)?,
            )?;
            (config, places(device, &files, &parsed)?)
        };
        let parts = Parts {
            files,
            config,
            places,
            calibrations,
        };
        parts.assemble(device)
    }

    /// The device that runs it.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// What the file calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The file that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.files.path
    }

    /// The size of its files in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.0.files.bytes()
    }

    /// The bytes of weights that the device has packed, and so has in memory beside
    /// the file; 0 where it reads all weights in the file. See
    /// [`Device::pack`](walsh::Device::pack).
    #[must_use]
    pub fn packed_bytes(&self) -> u64 {
        self.0.packed_bytes
    }

    /// What tells it from other models, and from itself with other adapters. It is worked out on the first call, in a
    /// few milliseconds.
    ///
    /// # Errors
    /// When the file was damaged since it was opened.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        if let Some(known) = self.0.fingerprint.get() {
            return Ok(self.1.fingerprint(*known));
        }
        let fingerprint = Fingerprint::of(&self.0.files)?;
        let known = self.0.fingerprint.get_or_init(|| fingerprint);
        Ok(self.1.fingerprint(*known))
    }

    /// A text under a constraint. What the vocabulary is to constraints is worked out with the first.
    ///
    /// # Errors
    /// When the constraint cannot be used, or none can with this vocabulary.
    pub(crate) fn guide(&self, constraint: &Constraint) -> Result<Guide> {
        if let Some(known) = self.0.guides.get() {
            return known.guide(constraint);
        }
        let guides = Guides::new(&self.0.tokenizer)?;
        self.0.guides.get_or_init(|| guides).guide(constraint)
    }

    /// Its shape.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.0.config
    }

    /// Refuses to make texts with a model that was trained to make vectors of them.
    pub(crate) fn check_generates(&self) -> Result<()> {
        match self.config().pooling {
            None => Ok(()),
            Some(pooling) => Err(Error::MakesVectors { pooling }),
        }
    }

    /// Its tensors by storage type, the largest share first.
    #[must_use]
    pub fn tensors(&self) -> &[TensorSummary] {
        &self.0.tensors
    }

    /// Its tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.0.tokenizer
    }

    /// How its makers would have tokens chosen, as far as its file says so.
    #[must_use]
    pub fn recommended_sampling(&self) -> &RecommendedSampling {
        &self.0.sampling
    }

    /// Its metadata, for those who want more than [`config`](Self::config).
    ///
    /// # Errors
    /// When the file was damaged since it was opened.
    pub fn with_metadata<T>(&self, read: impl FnOnce(&Gguf<'_>) -> T) -> Result<T> {
        let parsed = self.0.files.parse()?;
        Ok(read(&parsed[0]))
    }

    /// Whether it has a chat template, as models have that are trained to chat.
    ///
    /// # Errors
    /// When the file was damaged since it was opened, or what it has for one is no text.
    pub fn has_chat_template(&self) -> Result<bool> {
        let source = self.with_metadata(|gguf| {
            gguf.metadata()
                .opt_str(Template::KEY)
                .map(|text| text.is_some())
        })?;
        Ok(source?)
    }

    /// Its chat template.
    ///
    /// # Errors
    /// When it has none, or one that cannot be read.
    pub fn chat_template(&self) -> Result<Template> {
        self.with_metadata(|gguf| Template::from_gguf(gguf, &self.0.tokenizer))?
    }

    /// What was found of its calibration, and how that is looked for.
    pub(crate) fn calibration_kept(&self) -> (&OnceLock<Calibration>, &CalibrationOptions) {
        (&self.0.calibration, &self.0.calibrations)
    }

    /// The folder that what is found about it is kept in.
    pub(crate) fn kept_in(&self) -> Option<&Path> {
        self.0.calibrations.folder.as_deref()
    }

    /// Who files that are saved with it belong to.
    pub(crate) fn origin(&self) -> Result<Origin<'_>> {
        Ok(Origin {
            fingerprint: self.fingerprint()?,
            name: self.1.named(self.name()),
        })
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.0.weights
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.0.name)
            .field("path", &self.0.files.path)
            .finish_non_exhaustive()
    }
}

fn vocabulary(path: &Path, parsed: &[Gguf<'_>]) -> Result<usize> {
    let table = parsed
        .iter()
        .find_map(|part| part.tensor("token_embd.weight"));
    match table.map(|table| table.shape.as_slice()) {
        Some([rows, _]) if *rows > 0 && *rows <= i32::MAX as u64 => Ok(*rows as usize),
        Some(shape) => Err(Error::model(
            path,
            format!(
                "tensor token_embd.weight has the shape {shape:?} instead of [vocabulary, width]: download it again"
            ),
        )),
        None => Err(Error::model(
            path,
            "it has no tensor token_embd.weight: it is not a whole language model",
        )),
    }
}

/// The divisors of RoPE's frequencies, where the file has them.
fn rope_factors(files: &ModelFiles, parsed: &[Gguf<'_>]) -> Result<Option<Vec<f32>>> {
    for part in parsed {
        let Some(tensor) = part.tensor(ROPE_FACTORS) else {
            continue;
        };
        if tensor.dtype != DType::F32 {
            return Err(Error::model(
                &files.path,
                format!(
                    "tensor {ROPE_FACTORS} is {}, but must be f32: convert the model again",
                    tensor.dtype
                ),
            ));
        }
        let bytes = part.data(tensor).chunks_exact(4);
        let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        return Ok(Some(bytes.map(number).collect()));
    }
    Ok(None)
}

/// Imports all parts into the device, and says where each tensor lies.
fn places(
    device: &Device,
    files: &ModelFiles,
    parsed: &[Gguf<'_>],
) -> Result<HashMap<String, Place>> {
    let mut places = HashMap::new();
    for (part, gguf) in files.parts.iter().zip(parsed) {
        let buffer = device.import(part.clone())?;
        for tensor in gguf.tensors() {
            let shape = tensor.shape.clone();
            let place = Place::new(buffer.clone(), tensor.offset, tensor.dtype, shape);
            places.insert(tensor.name.to_owned(), place);
        }
    }
    Ok(places)
}

fn summarise<'p>(places: impl Iterator<Item = &'p Place>) -> Result<Vec<TensorSummary>> {
    let mut by_type = BTreeMap::<&str, TensorSummary>::new();
    for place in places {
        let entry = by_type
            .entry(place.dtype.name())
            .or_insert_with(|| TensorSummary {
                dtype: place.dtype,
                count: 0,
                elements: 0,
                bytes: 0,
            });
        entry.count += 1;
        entry.elements += place.shape.iter().product::<u64>();
        entry.bytes += tensor_bytes(place.dtype, &place.shape)?;
    }
    let mut summaries: Vec<_> = by_type.into_values().collect();
    summaries.sort_by_key(|summary| std::cmp::Reverse(summary.bytes));
    Ok(summaries)
}
