//! What is no adapter, or none of the model, is refused in a line.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use walsh::formats::DType;
use walsh::formats::gguf::Gguf;
use walsh::formats::gguf::write::{NewTensor, NewValue, Writer};
use walsh::formats::{ggml, gguf};
use walsh_runtime::{Lora, Model};

use super::{bits, folder, golden, open, peft, session};

const DEVICE: &str = "cpu:threads=1";

fn at(path: &Path) -> Lora {
    Lora {
        path: path.to_owned(),
        scale: 1.0,
    }
}

#[track_caller]
fn refused(model: &Model, adapters: &[Lora]) -> String {
    let error = model.with_adapters(adapters).expect_err("an error");
    let error = error.to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// A copy of a folder of PEFT's, changed.
fn changed(name: &str, change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(folder().join(name).join(file), copy.path().join(file)).expect("a copy");
    }
    change(copy.path());
    copy
}

fn with_config(key: &str, value: Value) -> tempfile::TempDir {
    changed("llama-all", |copy| {
        let path = copy.join("adapter_config.json");
        let text = fs::read(&path).expect("a file");
        let mut config: Value = serde_json::from_slice(&text).expect("JSON");
        config[key] = value;
        fs::write(path, config.to_string()).expect("written");
    })
}

#[test]
fn what_a_configuration_says_is_heeded_or_refused() {
    let model = open("llama", DEVICE);
    for (key, value, words) in [
        ("use_dora", json!(true), "use_dora is true"),
        ("modules_to_save", json!(["lm_head"]), "modules_to_save is"),
        ("bias", json!("all"), "bias is \"all\""),
        ("lora_bias", json!(true), "lora_bias is true"),
        ("fan_in_fan_out", json!(true), "fan_in_fan_out is true"),
        ("use_qalora", json!(true), "use_qalora is true"),
        ("layer_replication", json!([[0, 2]]), "layer_replication is"),
        (
            "trainable_token_indices",
            json!([1]),
            "trainable_token_indices is",
        ),
        (
            "alora_invocation_tokens",
            json!([1]),
            "alora_invocation_tokens is",
        ),
        ("a_new_key", json!(3), "a_new_key is 3"),
        (
            "init_lora_weights",
            json!("pissa_niter_4"),
            "init_lora_weights is \"pissa_niter_4\"",
        ),
        ("peft_type", json!("LOHA"), "peft_type is \"LOHA\""),
        ("peft_type", Value::Null, "peft_type is \"missing\""),
        ("r", json!(5), "adapter_config.json says a rank of 5"),
        ("r", json!(-1), "r is -1"),
        ("r", Value::Null, "r is missing"),
        ("lora_alpha", json!(0), "lora_alpha is 0"),
        ("lora_alpha", json!("8"), "lora_alpha is \"8\""),
        (
            "lora_alpha",
            json!(1e308),
            "more than single precision holds",
        ),
        ("rank_pattern", json!({"q_proj": 2}), "says a rank of 2"),
        (
            "rank_pattern",
            json!({"q_proj": 0.5}),
            "rank_pattern has 0.5",
        ),
        ("rank_pattern", json!({"(": 4}), "cannot be matched"),
        (
            "alpha_pattern",
            json!({"q_proj": null}),
            "alpha_pattern has null",
        ),
        (
            "target_modules",
            json!(["q_proj"]),
            "adapter_config.json gives no adapter",
        ),
        (
            "target_modules",
            json!(".*q_proj"),
            "adapter_config.json gives no adapter",
        ),
        ("target_modules", json!(4), "target_modules is missing"),
        (
            "layers_to_transform",
            json!([1]),
            "adapter_config.json gives no adapter",
        ),
        (
            "layers_to_transform",
            json!("x"),
            "layers_to_transform is neither",
        ),
    ] {
        let copy = with_config(key, value.clone());
        let error = refused(&model, &[at(copy.path())]);
        assert!(error.contains(words), "{key} = {value}: {error}");
    }
    for (key, value) in [
        ("target_modules", json!("all-linear")),
        ("target_modules", json!(".*_proj")),
        ("layers_to_transform", json!([0, 1])),
        ("init_lora_weights", json!("gaussian")),
        ("lora_dropout", json!(0.1)),
    ] {
        let copy = with_config(key, value);
        let adapted = model.with_adapters(&[at(copy.path())]);
        assert!(adapted.is_ok(), "{key}: {:?}", adapted.err());
    }
}

/// Scales of modules follow the first pattern that their names end with.
#[test]
fn patterns_change_what_they_name() {
    let model = open("llama", DEVICE);
    let tokens = golden("llama").tokens;
    let logits = |adapter: Lora| {
        let adapted = model.with_adapters(&[adapter]).expect("the adapter");
        let mut session = session(&adapted);
        session.prefill(&tokens).expect("read");
        bits(session.logits())
    };
    let own = logits(peft("llama-all", 1.0));
    let same = with_config("alpha_pattern", json!({"proj": 1, "q_proj": 8}));
    assert_eq!(logits(at(same.path())), own);
    let other = with_config("alpha_pattern", json!({"layers.1.self_attn.q_proj": 7}));
    assert_ne!(logits(at(other.path())), own);
}

#[test]
fn damaged_folders_are_refused() {
    let model = open("llama", DEVICE);
    let tensors = "adapter_model.safetensors";
    let whole = fs::read(folder().join("llama-all").join(tensors)).expect("a file");
    let header = u64::from_le_bytes(whole[..8].try_into().expect("a length"));
    let with = |bytes: Vec<u8>| {
        let copy = changed("llama-all", |copy| {
            fs::write(copy.join(tensors), bytes).expect("written");
        });
        refused(&model, &[at(copy.path())])
    };
    for length in [
        1,
        7,
        8,
        9,
        200,
        header as usize + 7,
        header as usize + 9,
        whole.len() - 1,
    ] {
        let error = with(whole[..length].to_vec());
        assert!(error.contains(tensors), "{length}: {error}");
    }
    with(Vec::new());
    for length in [u64::MAX, 1 << 62, 1 << 40, header + 1, 0] {
        let mut bytes = whole.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        with(bytes);
    }
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let place = whole
            .windows(from.len())
            .position(|part| part == from.as_bytes());
        let place = place.expect("it is there");
        let mut bytes = whole.clone();
        bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
        with(bytes)
    };
    let first = "layers.0.self_attn.q_proj.lora_A";
    for (to, words) in [
        ("layers.0.self_attn.q_proj.lora_C", "neither A nor B"),
        ("layers.0.self_attn.q_proj.lora_B", ""),
        ("layers.7.self_attn.q_proj.lora_A", "has no other half"),
        ("layers.0.self_attn.x_proj.lora_A", "gives no adapter"),
        ("layers.0.self_attention_proj.lora_A", "gives no adapter"),
    ] {
        if first.len() == to.len() {
            let error = replaced(first, to);
            assert!(error.contains(words), "{to}: {error}");
        }
    }
    // A number that is none.
    let mut bytes = whole.clone();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(with(bytes).contains("not finite"));
    for file in ["adapter_config.json", tensors] {
        let copy = changed("llama-all", |copy| {
            fs::remove_file(copy.join(file)).expect("removed");
        });
        let error = refused(&model, &[at(copy.path())]);
        assert!(error.contains(file), "{error}");
    }
    let error = refused(&model, &[at(&folder().join("llama-all").join(tensors))]);
    assert!(error.contains("give its folder"), "{error}");
}

/// The file of an adapter with other metadata (`None` takes a key away) and tensors.
fn gguf_with(
    metadata: &[(&str, Option<NewValue>)],
    change: impl Fn(&str, &[u64], &[u8]) -> Option<(String, DType, Vec<u64>, Vec<u8>)>,
) -> Vec<u8> {
    let bytes = fs::read(folder().join("llama-all.gguf")).expect("the file");
    let gguf = Gguf::parse(&bytes).expect("a file");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        if key != "general.alignment" && !metadata.iter().any(|(other, _)| *other == key) {
            let value = NewValue::try_from(*value).expect("a value");
            writer.set(key, value).expect("a new key");
        }
    }
    for (key, value) in metadata {
        if let Some(value) = value {
            writer.set(key, value.clone()).expect("a new key");
        }
    }
    for tensor in gguf.tensors() {
        let found = change(tensor.name, &tensor.shape, gguf.data(tensor));
        if let Some((name, dtype, shape, data)) = found {
            let new = NewTensor {
                name: &name,
                dtype,
                shape: &shape,
                data: data.into(),
            };
            writer.tensor(new).expect("a new tensor");
        }
    }
    writer.to_bytes()
}

fn as_it_is(name: &str, shape: &[u64], data: &[u8]) -> Option<(String, DType, Vec<u64>, Vec<u8>)> {
    Some((name.to_owned(), DType::F32, shape.to_vec(), data.to_vec()))
}

fn in_file(bytes: &[u8]) -> (tempfile::TempDir, Lora) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("adapter.gguf");
    fs::write(&path, bytes).expect("written");
    let lora = at(&path);
    (folder, lora)
}

#[test]
fn files_that_are_no_adapters_of_the_model_are_refused() {
    let model = open("llama", DEVICE);
    let alpha = "adapter.lora.alpha";
    for (key, value, words) in [
        ("general.type", None, "general.type is \"missing\""),
        (
            "general.type",
            Some("model".into()),
            "general.type is \"model\"",
        ),
        (
            "adapter.type",
            Some("control_vector".into()),
            "adapter.type is \"control_vector\"",
        ),
        (
            "general.architecture",
            Some("qwen2".into()),
            "architecture \"qwen2\", and the model is llama",
        ),
        ("general.architecture", None, "architecture \"missing\""),
        (alpha, Some(0.0f32.into()), "adapter.lora.alpha is 0"),
        (alpha, Some(f32::NAN.into()), "adapter.lora.alpha is NaN"),
        (
            alpha,
            Some(f32::INFINITY.into()),
            "adapter.lora.alpha is inf",
        ),
        (alpha, Some("8".into()), "adapter.lora.alpha"),
        (
            "adapter.alora.invocation_tokens",
            Some(vec![1u32].into()),
            "\"adapter.alora.invocation_tokens\" is not known",
        ),
    ] {
        let (_folder, lora) = in_file(&gguf_with(&[(key, value)], as_it_is));
        let error = refused(&model, &[lora]);
        assert!(error.contains(words), "{key}: {error}");
    }
    let model_file = at(&super::model_path("llama"));
    assert!(refused(&model, &[model_file]).contains("it is no LoRA adapter"));
    let other = refused(&model, &[peft("qwen3moe-attention", 1.0)]);
    assert!(other.contains("use an adapter of this model"), "{other}");
    let renamed = |from: &'static str, to: &'static str| {
        let change = move |name: &str, shape: &[u64], data: &[u8]| {
            as_it_is(&name.replace(from, to), shape, data)
        };
        let (_folder, lora) = in_file(&gguf_with(&[], change));
        refused(&model, &[lora])
    };
    for (from, to, words) in [
        (
            "blk.1.attn_q.weight",
            "blk.9.attn_q.weight",
            "something for blk.9.attn_q",
        ),
        (
            "blk.1.attn_q.weight",
            "blk.1.attn_norm.weight",
            "something for blk.1.attn_norm",
        ),
        (
            "blk.1.attn_q.weight",
            "output.weight",
            "'walsh convert MODEL OUT --lora' merges it",
        ),
        (
            "blk.1.attn_q.weight",
            "token_embd.weight",
            "of the token embeddings",
        ),
        (
            "blk.1.attn_q.weight",
            "blk.1.attn_q.bias",
            "is of no weight",
        ),
        (
            "attn_q.weight.lora_a",
            "attn_q.weight.lora_x",
            "neither A nor B",
        ),
        (
            "blk.1.attn_q.weight.lora_a",
            "blk.3.attn_q.weight.lora_a",
            "has no other half",
        ),
    ] {
        let error = renamed(from, to);
        assert!(error.contains(words), "{to}: {error}");
    }
    let of = |which: &'static str, shape: &'static [u64], fill: f32| {
        let change = move |name: &str, own: &[u64], data: &[u8]| match name == which {
            true => {
                let count = shape.iter().product::<u64>() as usize;
                let data = fill.to_le_bytes().repeat(count);
                as_it_is(name, shape, &data)
            }
            false => as_it_is(name, own, data),
        };
        let (_folder, lora) = in_file(&gguf_with(&[], change));
        refused(&model, &[lora])
    };
    let a = "blk.0.attn_q.weight.lora_a";
    for (shape, fill, words) in [
        (&[3u64, 64][..], 1.0, "a rank of 3, and"),
        (
            &[4, 32],
            1.0,
            "has the shape [64, 32], and the model's is [64, 64]",
        ),
        (&[256], 1.0, "adapters of matrices are applied"),
        (&[2, 4, 64], 1.0, "adapters of matrices are applied"),
        (&[4, 64], f32::NAN, "not finite"),
        (&[4, 64], f32::NEG_INFINITY, "not finite"),
    ] {
        let error = of(a, shape, fill);
        assert!(error.contains(words), "{shape:?}: {error}");
    }
    let (_folder, lora) = in_file(&gguf_with(&[], |_, _, _| None));
    assert!(refused(&model, &[lora]).contains("no tensors"));
    let whole = fs::read(folder().join("llama-all.gguf")).expect("a file");
    for length in [0, 3, 4, 40, 300, 2000, whole.len() - 1] {
        let (_folder, lora) = in_file(&whole[..length]);
        refused(&model, &[lora]);
    }
    let missing = at(&folder().join("nothing.gguf"));
    assert!(refused(&model, &[missing]).contains("nothing.gguf"));
    refused(&model, &[at(&folder())]);
}

#[test]
fn an_adapter_is_given_once_and_with_a_number() {
    let model = open("llama", DEVICE);
    let twice = [peft("llama-all", 1.0), peft("llama-all", 0.5)];
    assert!(refused(&model, &twice).contains("with the sum of the scales"));
    for scale in [f32::NAN, f32::INFINITY] {
        assert!(refused(&model, &[peft("llama-all", scale)]).contains("finite"));
    }
    for (text, words) in [
        ("a.gguf=nan", "finite"),
        ("a.gguf=inf", "finite"),
        ("=2", "PATH"),
    ] {
        let error = text.parse::<Lora>().expect_err("an error").to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    let odd: Lora = "a=b.gguf".parse().expect("a path");
    assert_eq!((odd.path.to_str(), odd.scale), (Some("a=b.gguf"), 1.0));
}

/// Factors in every type that numbers have, and without an alpha.
#[test]
fn factors_are_read_in_all_types() {
    let model = open("llama", DEVICE);
    let tokens = golden("llama").tokens;
    let logits = |lora: Lora| {
        let adapted = model.with_adapters(&[lora]).expect("the adapter");
        let mut session = session(&adapted);
        session.prefill(&tokens).expect("read");
        session.logits().to_vec()
    };
    let exact = logits(peft("llama-all", 1.0));
    for (dtype, most) in [
        (DType::F32, 0.0),
        (DType::F16, 2e-3),
        (DType::BF16, 2e-2),
        (DType::Q8_0, 2e-2),
    ] {
        let change = |name: &str, shape: &[u64], data: &[u8]| {
            // Rows of B are as long as the rank, and no whole blocks.
            let dtype = match shape[1].is_multiple_of(dtype.block_len() as u64) {
                true => dtype,
                false => DType::F16,
            };
            let values: Vec<f32> = data
                .as_chunks()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect();
            let bytes = gguf_bytes(dtype, values.len());
            let mut out = vec![0; bytes];
            ggml::encode(dtype, &values, &mut out).expect("encoded");
            Some((name.to_owned(), dtype, shape.to_vec(), out))
        };
        let (_folder, lora) = in_file(&gguf_with(&[], change));
        let found = logits(lora);
        let largest = exact.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let pairs = exact.iter().zip(&found);
        let off = pairs.fold(0.0f32, |most, (x, y)| most.max((x - y).abs())) / largest;
        assert!(f64::from(off) <= most, "{dtype}: {off:.1e}");
        assert!(dtype == DType::F32 || off > 0.0, "{dtype}");
    }
    // The ranks are 4, and alpha 8.
    let (_folder, mut lora) = in_file(&gguf_with(&[("adapter.lora.alpha", None)], as_it_is));
    lora.scale = 2.0;
    assert_eq!(bits(&logits(lora)), bits(&exact));
}

fn gguf_bytes(dtype: DType, values: usize) -> usize {
    dtype.row_bytes(values as u64).expect("whole blocks") as usize
}

/// A hostile header is met by the reader of all GGUF files.
#[test]
fn what_the_reader_refuses_is_refused() {
    let mut bytes = fs::read(folder().join("llama-all.gguf")).expect("a file");
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let parsed: Result<_, gguf::GgufError> = Gguf::parse(&bytes);
    assert!(parsed.is_err());
    let (_folder, lora) = in_file(&bytes);
    refused(&open("llama", DEVICE), &[lora]);
}
