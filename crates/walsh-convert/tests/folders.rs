//! Folders of safetensors against llama.cpp's converter: `golden/make_folders.py` made them and the figures.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use walsh_convert::{Folder, Mix, Plan, PlanOptions, WriteOptions, kept};
use walsh_formats::gguf::{Gguf, Value};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const FAMILIES: [&str; 9] = [
    "gemma3", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "qwen3moe", "smollm3",
];

/// What describes the file, and what readers take for granted where it is not said.
const OF_NO_CONSEQUENCE: [&str; 8] = [
    "general.name",
    "general.size_label",
    "general.file_type",
    "general.quantization_version",
    "tokenizer.ggml.add_sep_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.seperator_token_id",
];

fn folders() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/folders")
}

fn converted(folder: &Path, mix: Option<Mix>) -> Result<Vec<u8>> {
    let folder = Folder::open(folder)?;
    let source = folder.source(false)?;
    let options = PlanOptions {
        mix: mix.or_else(|| kept(&source)),
        overrides: &[],
        imatrix: None,
        allow_requantize: false,
    };
    let mut out = Vec::new();
    Plan::new(&source, &options)?.write(
        &mut out,
        &mut WriteOptions {
            threads: 2,
            cancel: &AtomicBool::new(false),
            progress: &mut |_| {},
        },
    )?;
    Ok(out)
}

/// Whether a value is that of the converter; floats are single precision.
fn is_same(found: &Value<'_>, expected: &Json) -> bool {
    match (found, expected) {
        (Value::String(found), Json::String(expected)) => found == expected,
        (Value::Bool(found), Json::Bool(expected)) => found == expected,
        (Value::F32(found), Json::Number(expected)) => expected
            .as_f64()
            .is_some_and(|expected| *found == expected as f32),
        (Value::Array(found), Json::Array(expected)) => {
            let pairs = found.values().zip(expected);
            found.len() == expected.len()
                && pairs
                    .into_iter()
                    .all(|(found, expected)| found.is_ok_and(|found| is_same(&found, expected)))
        }
        (found, Json::Number(expected)) => {
            found.integer() == expected.as_i64().map(i128::from) && found.integer().is_some()
        }
        _ => false,
    }
}

#[test]
fn files_are_those_of_llama_cpps_converter() -> Result {
    for name in FAMILIES {
        let golden = fs::read_to_string(folders().join(format!("{name}.json")))?;
        let golden: Json = serde_json::from_str(&golden)?;
        let bytes = converted(&folders().join(name), None)?;
        let file = Gguf::parse(&bytes)?;
        let expected = golden["tensors"].as_object().ok_or("no tensors")?;
        let names: BTreeSet<&str> = file.tensors().iter().map(|tensor| tensor.name).collect();
        let theirs: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
        assert_eq!(names, theirs, "{name}");
        for tensor in file.tensors() {
            let expected = &expected[tensor.name];
            assert_eq!(expected[0], tensor.dtype.name(), "{name}: {}", tensor.name);
            assert_eq!(
                expected[1],
                serde_json::json!(tensor.shape),
                "{name}: {}",
                tensor.name
            );
            let digest = Sha256::digest(file.data(tensor));
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            // Logarithms and powers of frequencies differ in the last bit.
            if tensor.name != "rope_freqs.weight" {
                assert_eq!(expected[2], digest, "{name}: {}", tensor.name);
            }
        }
        let metadata = file.metadata();
        for (key, expected) in golden["metadata"].as_object().ok_or("no metadata")? {
            if OF_NO_CONSEQUENCE.contains(&&**key) {
                continue;
            }
            let found = metadata
                .get(key)
                .ok_or_else(|| format!("{name}: {key} is missing"))?;
            assert!(
                is_same(found, expected),
                "{name}: {key} is {found}, not {:.200}",
                expected.to_string()
            );
        }
    }
    Ok(())
}

#[test]
fn frequencies_are_divided_as_in_llama_3_1() -> Result {
    let bytes = converted(&folders().join("llama"), None)?;
    let file = Gguf::parse(&bytes)?;
    let tensor = file.tensor("rope_freqs.weight").ok_or("no frequencies")?;
    let factors: Vec<f32> = file
        .data(tensor)
        .as_chunks()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    // By the formula in f64: one third of the waves are short, the last are divided by all of the factor.
    assert_eq!(factors.len(), 8);
    assert_eq!(factors[0], 1.0);
    assert_eq!(factors[7], 8.0);
    assert!(factors.is_sorted());
    Ok(())
}

#[test]
fn folders_are_quantised_on_the_way() -> Result {
    let bytes = converted(&folders().join("qwen3"), Some(Mix::Q8_0))?;
    let file = Gguf::parse(&bytes)?;
    let tensor = file.tensor("blk.0.attn_q.weight").ok_or("no such tensor")?;
    assert_eq!(tensor.dtype.name(), "q8_0");
    assert_eq!(file.metadata().u32("general.file_type")?, 7);
    Ok(())
}

fn copy(name: &str) -> Result<tempfile::TempDir> {
    let copy = tempfile::tempdir()?;
    for entry in fs::read_dir(folders().join(name))? {
        let entry = entry?;
        fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
    }
    Ok(copy)
}

/// What is said of a copy of a folder in which a file is changed.
fn changed(name: &str, file: &str, change: impl Fn(Vec<u8>) -> Option<Vec<u8>>) -> Result<String> {
    let copy = copy(name)?;
    let path = copy.path().join(file);
    match change(fs::read(&path)?) {
        Some(bytes) => fs::write(&path, bytes)?,
        None => fs::remove_file(&path)?,
    }
    complaint(copy.path())
}

fn complaint(folder: &Path) -> Result<String> {
    match converted(folder, None) {
        Ok(_) => Err(format!("{} was not refused", folder.display()).into()),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n'), "{text}");
            Ok(text)
        }
    }
}

fn replaced(from: &'static str, to: &'static str) -> impl Fn(Vec<u8>) -> Option<Vec<u8>> {
    move |bytes| {
        let text = String::from_utf8(bytes).unwrap_or_default();
        assert!(text.contains(from), "{from}");
        Some(text.replace(from, to).into_bytes())
    }
}

#[test]
fn what_contradicts_itself_is_refused() -> Result {
    let gone = |_| None;
    let config = |from, to| changed("qwen2", "config.json", replaced(from, to));
    for (text, part) in [
        (changed("qwen2", "config.json", gone)?, "config.json"),
        (changed("qwen2", "tokenizer.json", gone)?, "tokenizer.json"),
        (
            changed("qwen2", "model.safetensors", gone)?,
            "model.safetensors",
        ),
        (
            changed("mistral", "model-00002-of-00004.safetensors", gone)?,
            "model-00002",
        ),
        (
            config("Qwen2ForCausalLM", "Qwen2VlForCausalLM")?,
            "nearest: Qwen2ForCausalLM",
        ),
        (
            config("\"hidden_size\": 32", "\"hidden_size\": 64")?,
            "config.json asks for",
        ),
        (
            config("\"hidden_size\": 32", "\"hidden_size\": -1")?,
            "hidden_size",
        ),
        (
            config("\"hidden_size\": 32", "\"hidden_size\": \"x\"")?,
            "hidden_size",
        ),
        (
            config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3")?,
            "blk.2.",
        ),
        (
            config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1")?,
            "config.json does not have",
        ),
        (
            config("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 0")?,
            "contradict",
        ),
        (config("\"silu\"", "\"relu\"")?, "relu"),
        (
            config("\"rope_type\": \"default\"", "\"rope_type\": \"linear\"")?,
            "factor is missing",
        ),
        (
            changed(
                "qwen3moe",
                "config.json",
                replaced(
                    "\"moe_intermediate_size\": 16",
                    "\"moe_intermediate_size\": 0",
                ),
            )?,
            "contradict",
        ),
        (
            changed(
                "qwen2",
                "tokenizer.json",
                replaced("\\\\p{N}|", "\\\\p{N}{1,7}|"),
            )?,
            "pre-tokenizer",
        ),
        (
            changed(
                "qwen2",
                "tokenizer.json",
                replaced("\"BPE\"", "\"Unigram\""),
            )?,
            "BPE",
        ),
        (
            changed("gemma3", "tokenizer.model", |_| Some(vec![255; 50]))?,
            "SentencePiece",
        ),
        (
            changed(
                "mistral",
                "model.safetensors.index.json",
                replaced("model-00001", "../odel-00001"),
            )?,
            "name of a file",
        ),
    ] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    Ok(())
}

/// Sizes that nothing could hold are found out before anything is made of them.
#[test]
fn sizes_are_held_to_the_tensors_first() -> Result {
    for (name, from, to, part) in [
        (
            "qwen2",
            "\"vocab_size\": 360",
            "\"vocab_size\": 2147483647",
            "config.json asks for [2147483647",
        ),
        (
            "qwen2",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 2147483647",
            "blk.2.",
        ),
        (
            "llama",
            "\"head_dim\": 16",
            "\"head_dim\": 2147483646",
            "config.json asks for",
        ),
    ] {
        let text = changed(name, "config.json", replaced(from, to))?;
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    Ok(())
}

#[test]
fn frequencies_that_cannot_be_divided_are_refused() -> Result {
    for (from, to) in [
        ("\"factor\": 8.0", "\"factor\": 0.0"),
        ("\"factor\": 8.0", "\"factor\": -8.0"),
        ("\"factor\": 8.0", "\"factor\": 1e300"),
        ("\"low_freq_factor\": 1.0", "\"low_freq_factor\": 4.0"),
        ("\"rope_theta\": 500000.0", "\"rope_theta\": -1.0"),
    ] {
        let text = changed("llama", "config.json", replaced(from, to))?;
        assert!(text.contains("cannot be divided"), "{to}: {text}");
    }
    Ok(())
}

#[test]
fn files_that_are_too_large_are_not_read() -> Result {
    for (name, file) in [
        ("qwen2", "tokenizer.json"),
        ("gemma3", "tokenizer.model"),
        ("llama", "chat_template.jinja"),
    ] {
        let copy = copy(name)?;
        let large = fs::File::options()
            .write(true)
            .open(copy.path().join(file))?;
        // A hole, which takes no room.
        large.set_len((512 << 20) + 1)?;
        let text = complaint(copy.path())?;
        assert!(text.contains(file) && text.contains("512 MiB"), "{text}");
    }
    Ok(())
}

#[test]
fn the_files_that_are_read_are_known() -> Result {
    for name in FAMILIES {
        let folder = folders().join(name);
        let mut all = Vec::new();
        for entry in fs::read_dir(&folder)? {
            all.push(entry?.path());
        }
        let mut found = Folder::files(&folder)?;
        all.sort();
        found.sort();
        assert_eq!(found, all);
    }
    Ok(())
}

#[test]
fn hostile_headers_are_refused() -> Result {
    for (change, part) in [(8_usize, "model.safetensors"), (0, "model.safetensors")] {
        let text = changed("qwen2", "model.safetensors", |mut bytes| {
            bytes[change] = 0xff;
            bytes[change + 7] = 0xff;
            Some(bytes)
        })?;
        assert!(text.contains(part), "{text}");
    }
    // Cut off anywhere.
    let whole = fs::read(folders().join("qwen2/model.safetensors"))?;
    for length in [1, 7, 8, 9, 500, whole.len() / 2, whole.len() - 1] {
        let text = changed("qwen2", "model.safetensors", |bytes| {
            Some(bytes[..length].to_vec())
        })?;
        assert!(text.contains("model.safetensors"), "{text}");
    }
    Ok(())
}
