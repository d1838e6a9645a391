//! Each architecture against transformers: tiny random models, whose logits were computed there by `make.py`.

mod convolutions;
mod embeddings;
mod fp8;
mod mlx;
mod unlike;

use std::path::{Path, PathBuf};

use serde_json::Value;
use walsh::formats::DType;
use walsh::formats::gguf::write::{NewTensor, NewValue, Writer};
use walsh::formats::gguf::{Gguf, TensorInfo};
use walsh_runtime::{Model, Session, SessionOptions};

/// How far logits may be off, as a share of the largest: sums of f32 in another order.
const TOLERANCE: f64 = 2e-5;

struct Golden {
    path: PathBuf,
    tokens: Vec<i32>,
    logits: Vec<Vec<f64>>,
    /// Those of weights that were not rounded, where there are any.
    exact: Vec<Vec<f64>>,
}

fn golden() -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/architectures");
    let files = std::fs::read_dir(&folder).expect("the folder");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "gguf"));
    paths.sort();
    paths.into_iter().map(read).collect()
}

/// What the file beside a model says of it.
fn read(path: PathBuf) -> Golden {
    let text = std::fs::read_to_string(path.with_extension("json")).expect("logits");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let row = |row: &Value| -> Vec<f64> {
        let numbers = row.as_array().expect("a row").iter();
        numbers.map(|x| x.as_f64().expect("a number")).collect()
    };
    let rows = |key: &str| {
        let rows = json[key].as_array().into_iter().flatten();
        rows.map(row).collect()
    };
    Golden {
        path,
        tokens: row(&json["tokens"]).iter().map(|x| *x as i32).collect(),
        logits: rows("logits"),
        exact: rows("exact"),
    }
}

fn session(golden: &Golden, device: &str) -> Session {
    let device = walsh::open(device).expect("the processor");
    session_of(&Model::open(&device, &golden.path).expect("the model"))
}

fn session_of(model: &Model) -> Session {
    let options = SessionOptions {
        context: 64,
        kv: "f32".parse().expect("a SPEC"),
        chunk: 8,
        ..SessionOptions::default()
    };
    model.session(options).expect("a session")
}

#[track_caller]
fn assert_near((golden, tolerance): (&Golden, f64), position: usize, given: &[f32]) -> f64 {
    let expected = &golden.logits[position];
    let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let pairs = expected.iter().zip(given);
    let off = pairs.fold(0.0f64, |most, (x, y)| most.max((x - f64::from(*y)).abs()));
    let share = off / largest;
    let name = golden.path.display();
    assert!(
        share < tolerance,
        "{name}: position {position} is off by {share:.2e}"
    );
    share
}

/// In whole chunks, a token at a time, and in chunks behind tokens.
#[test]
fn logits_are_those_of_transformers() {
    let all = golden();
    assert!(all.len() >= 16, "{} models", all.len());
    for golden in &all {
        let mut most = 0.0f64;
        for device in ["cpu:threads=1", "cpu:threads=2,isa=portable"] {
            let last = golden.tokens.len() - 1;
            let mut session = session(golden, device);
            session.prefill(&golden.tokens).expect("read");
            most = most.max(assert_near((golden, TOLERANCE), last, session.logits()));
            session.truncate(0).expect("cut back");
            for (position, &token) in golden.tokens.iter().enumerate() {
                session.decode(token).expect("read");
                most = most.max(assert_near((golden, TOLERANCE), position, session.logits()));
            }
            session.truncate(0).expect("cut back");
            let (first, rest) = golden.tokens.split_at(3);
            for &token in first {
                session.decode(token).expect("read");
            }
            session.prefill(rest).expect("read");
            most = most.max(assert_near((golden, TOLERANCE), last, session.logits()));
        }
        let name = golden.path.file_stem().expect("a name").display();
        println!("{name}: off by {most:.1e} of the largest logit at most");
    }
}

fn named(name: &str) -> Golden {
    let of_name = |golden: &Golden| golden.path.file_stem().is_some_and(|stem| stem == name);
    golden().into_iter().find(of_name).expect("a model")
}

/// Why a file is not opened.
fn refusal(path: PathBuf) -> String {
    let device = walsh::open("cpu:threads=1").expect("the processor");
    let error = Model::open(&device, path)
        .expect_err("an error")
        .to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// A file of these models with other bytes, and why it is refused.
fn refused(name: &str, change: impl Fn(&mut Vec<u8>)) -> String {
    let mut bytes = std::fs::read(named(name).path).expect("the file");
    change(&mut bytes);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).expect("the file is written");
    refusal(path)
}

fn place(bytes: &[u8], of: &str) -> usize {
    let found = bytes
        .windows(of.len())
        .position(|part| part == of.as_bytes());
    found.unwrap_or_else(|| panic!("{of} is not there"))
}

/// Gives a key of 32 bits another value.
fn set(bytes: &mut [u8], key: &str, value: u32) {
    let behind = place(bytes, key) + key.len() + 4;
    bytes[behind..behind + 4].copy_from_slice(&value.to_le_bytes());
}

/// Gives a tensor another name of the same length.
fn rename(bytes: &mut [u8], from: &str, to: &str) {
    let place = place(bytes, from);
    bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
}

#[test]
fn experts_that_contradict_themselves_are_refused() {
    let (count, used) = ("qwen3moe.expert_count", "qwen3moe.expert_used_count");
    let inner = "qwen3moe.expert_feed_forward_length";
    for (key, value, words) in [
        (count, 0, "expert_count is 0, but only 1 to 512"),
        (count, 513, "expert_count is 513, but only 1 to 512"),
        (
            count,
            4,
            "tensor blk.0.ffn_gate_exps.weight has the shape [5, 16, 32]",
        ),
        (used, 0, "expert_used_count is 0, but only 1 to 32"),
        (used, 6, "6 of 5 experts"),
        (used, 33, "expert_used_count is 33"),
        (inner, 0, "expert_feed_forward_length is 0"),
        (inner, 8, "the metadata asks for [5, 8, 32]"),
    ] {
        let error = refused("qwen3moe", |bytes| set(bytes, key, value));
        assert!(error.contains(words), "{key} = {value}: {error}");
    }
}

#[test]
fn states_that_contradict_themselves_are_refused() {
    let [inner, heads, keys, dim, taps, shared] = [
        "qwen35moe.ssm.inner_size",
        "qwen35moe.ssm.time_step_rank",
        "qwen35moe.ssm.group_count",
        "qwen35moe.ssm.state_size",
        "qwen35moe.ssm.conv_kernel",
        "qwen35moe.expert_shared_feed_forward_length",
    ];
    for (key, value, words) in [
        (inner, 0, "ssm.inner_size is 0, which no model has"),
        (inner, 1 << 30, "which no model has"),
        (inner, 62, "62 numbers of 4 heads"),
        (inner, 128, "the metadata asks for [192, 4]"),
        (heads, 0, "ssm.time_step_rank is 0"),
        (heads, 3, "64 numbers of 3 heads"),
        (
            heads,
            2,
            "tensor blk.0.ssm_alpha.weight has the shape [4, 32]",
        ),
        (heads, 8, "a state of 8 numbers are not supported"),
        (keys, 0, "ssm.group_count is 0"),
        (keys, 3, "share 3 key heads"),
        (keys, 4, "the metadata asks for [192, 4]"),
        (dim, 0, "a state of 0 numbers"),
        (dim, 24, "a multiple of 16, at most 256"),
        (dim, 512, "a multiple of 16, at most 256"),
        (dim, 32, "the metadata asks for [192, 4]"),
        (taps, 1, "ssm.conv_kernel is 1, but only 2 to 4"),
        (taps, 5, "ssm.conv_kernel is 5, but only 2 to 4"),
        (taps, 3, "the metadata asks for [128, 3]"),
        (shared, 0, "expert_shared_feed_forward_length is 0"),
        (shared, 24, "the metadata asks for [24, 32]"),
    ] {
        let error = refused("qwen35moe", |bytes| set(bytes, key, value));
        assert!(error.contains(words), "{key} = {value}: {error}");
    }
    // Which layers attend, in the wrong number, of none, and of others.
    let layers = "qwen35moe.attention.recurrent_layers";
    let flags = |bytes: &[u8]| place(bytes, layers) + layers.len() + 4 + 4 + 8;
    let error = refused("qwen35moe", |bytes| {
        let at = flags(bytes);
        bytes[at + 1] = 1;
    });
    assert!(error.contains("no layer attends"), "{error}");
    let error = refused("qwen35moe", |bytes| {
        let at = flags(bytes);
        bytes[at] = 0;
    });
    assert!(error.contains("blk.0.attn_q"), "{error}");
    let error = refused("qwen35moe", |bytes| {
        set(bytes, "qwen35moe.block_count", 2);
    });
    assert!(error.contains("3 entries for 2 layers"), "{error}");
}

#[test]
fn parts_that_are_half_there_are_refused() {
    for (model, from, to, words) in [
        (
            "qwen3moe",
            "blk.1.ffn_gate_inp.weight",
            "blk.1.ffn_gate_inq.weight",
            "tensor blk.1.ffn_gate_inp.weight is missing",
        ),
        (
            "qwen3moe",
            "blk.1.ffn_up_exps.weight",
            "blk.1.ffn_up_shexp.weigh",
            "tensor blk.1.ffn_up_exps.weight is missing",
        ),
        (
            "gpt-oss",
            "blk.1.attn_sinks.weight",
            "blk.1.attn_sinkz.weight",
            "tensor blk.1.attn_sinks.weight is missing",
        ),
        (
            "gpt-oss",
            "blk.1.ffn_up_exps.bias",
            "blk.1.ffn_up_expz.bias",
            "tensor blk.1.ffn_up_exps.bias is missing, and blk.0.ffn_up_exps.bias is there",
        ),
        (
            "olmo2",
            "blk.0.post_ffw_norm.weight",
            "blk.0.post_ffz_norm.weight",
            "tensor blk.0.post_ffw_norm.weight is missing",
        ),
        (
            "qwen35",
            "blk.0.ssm_norm.weight",
            "blk.0.ssm_nomr.weight",
            "tensor blk.0.ssm_norm.weight is missing",
        ),
        (
            "qwen35",
            "blk.2.ssm_conv1d.weight",
            "blk.2.ssm_conv2d.weight",
            "tensor blk.2.ssm_conv1d.weight is missing",
        ),
        (
            "qwen3next",
            "blk.0.ssm_ba.weight",
            "blk.0.ssm_bb.weight",
            "tensor blk.0.ssm_alpha.weight is missing",
        ),
        (
            "qwen35moe",
            "blk.1.ffn_gate_inp_shexp.weight",
            "blk.1.ffn_gate_imp_shexp.weight",
            "tensor blk.1.ffn_gate_inp_shexp.weight is missing",
        ),
        (
            "phi3",
            "blk.0.attn_qkv.weight",
            "blk.0.attn_qqq.weight",
            "tensor blk.0.attn_qkv.weight is missing",
        ),
    ] {
        let error = refused(model, |bytes| rename(bytes, from, to));
        assert!(error.contains(words), "{model} {to}: {error}");
    }
}

#[test]
fn keys_that_no_part_heeds_are_refused() {
    let refused = |model, from, to| refused(model, |bytes| rename(bytes, from, to));
    let error = refused("smollm3", "smollm3.vocab_size", "smollm3.vocab_sizf");
    assert!(
        error.contains("smollm3.vocab_sizf is 260, which is not known"),
        "{error}"
    );
    let error = refused(
        "granite",
        "granite.residual_scale",
        "granite.temperat_scale",
    );
    assert!(error.contains("granite.temperat_scale"), "{error}");
    // Where layers never slide, a window is more than is computed.
    let error = refused(
        "olmo2",
        "olmo2.attention.value_length",
        "olmo2.attention.sliding_wind",
    );
    assert!(
        error.contains("olmo2.attention.sliding_wind is 16"),
        "{error}"
    );
}

/// A tensor of a file: its name, its shape, outermost dimension first, and its numbers.
type Whole = (String, Vec<u64>, Vec<f32>);

/// A model with other metadata (`None` takes a key away) and other tensors, in a folder of its own.
fn changed(
    golden: &Golden,
    metadata: &[(&str, Option<NewValue>)],
    change: impl FnOnce(&mut Vec<Whole>),
) -> (tempfile::TempDir, Golden) {
    let bytes = std::fs::read(&golden.path).expect("the file");
    let gguf = Gguf::parse(&bytes).expect("a file");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        let key = key.to_string();
        // The writer states its own alignment.
        if key != "general.alignment" && !metadata.iter().any(|(other, _)| *other == key) {
            let value = NewValue::try_from(*value).expect("a value");
            writer.set(&key, value).expect("a new key");
        }
    }
    for (key, value) in metadata {
        if let Some(value) = value {
            writer.set(key, value.clone()).expect("a new key");
        }
    }
    let whole = |tensor: &TensorInfo<'_>| {
        let data = gguf.data(tensor).chunks_exact(4);
        let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        (
            tensor.name.to_owned(),
            tensor.shape.clone(),
            data.map(number).collect(),
        )
    };
    let mut tensors: Vec<Whole> = gguf.tensors().iter().map(whole).collect();
    change(&mut tensors);
    for (name, shape, numbers) in &tensors {
        let data: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let new = NewTensor {
            name,
            dtype: DType::F32,
            shape,
            data: data.into(),
        };
        writer.tensor(new).expect("a new tensor");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, writer.to_bytes()).expect("the file is written");
    let golden = Golden {
        path,
        tokens: golden.tokens.clone(),
        logits: Vec::new(),
        exact: Vec::new(),
    };
    (folder, golden)
}

/// A tensor of ones.
fn ones((name, shape): (&str, &[u64])) -> Whole {
    let count = shape.iter().product::<u64>() as usize;
    (name.to_owned(), shape.to_vec(), vec![1.0; count])
}

/// The logits behind a model's tokens.
fn logits_of(golden: &Golden) -> Vec<f32> {
    let mut session = session(golden, "cpu:threads=1");
    session.prefill(&golden.tokens).expect("read");
    session.logits().to_vec()
}

/// The same with other metadata and more tensors of ones.
fn logits_with(
    golden: &Golden,
    metadata: &[(&str, Option<NewValue>)],
    tensors: &[(&str, &[u64])],
) -> Vec<f32> {
    let more = |all: &mut Vec<Whole>| all.extend(tensors.iter().copied().map(ones));
    let (_folder, changed) = changed(golden, metadata, more);
    logits_of(&changed)
}

/// Files state which layers keep a state one by one or by an interval, and may end with layers that only guess.
#[test]
fn hybrids_are_the_same_in_all_their_forms() {
    let golden = &named("qwen35");
    let expected = logits_with(golden, &[], &[]);
    assert_near((golden, TOLERANCE), golden.tokens.len() - 1, &expected);
    let interval = [
        ("qwen35.attention.recurrent_layers", None),
        ("qwen35.full_attention_interval", Some(2u32.into())),
    ];
    assert_eq!(logits_with(golden, &interval, &[]), expected);
    let layers = "qwen35.attention.recurrent_layers";
    let guessing = [
        ("qwen35.block_count", Some(4u32.into())),
        ("qwen35.nextn_predict_layers", Some(1u32.into())),
        (layers, Some(vec![true, false, true, false].into())),
    ];
    let tensors: [(&str, &[u64]); 2] = [
        ("blk.3.nextn.eh_proj.weight", &[32, 64]),
        ("blk.3.attn_norm.weight", &[32]),
    ];
    assert_eq!(logits_with(golden, &guessing, &tensors), expected);
}
