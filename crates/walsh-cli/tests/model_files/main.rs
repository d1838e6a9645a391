//! Model files: what is stated in them is heeded, or refused by name.

#[path = "../support/mod.rs"]
mod support;

#[path = "../../../walsh-runtime/tests/fetching/server.rs"]
mod server;

mod fetched;
mod opening;
mod sampling;
mod tensors;

use support::tiny::{self, Tiny};
use support::{Folder, walsh};
use walsh::formats::DType;
use walsh::formats::gguf::ValueType;
use walsh::formats::gguf::write::NewValue;
use walsh_runtime::{Model, SessionOptions};

fn open(tiny: &Tiny) -> walsh_runtime::Result<Model> {
    let folder = Folder::new();
    let path = folder.file("tiny.gguf", &tiny.gguf());
    let device = walsh::open("cpu:threads=1,packing=never").expect("the processor");
    Model::open(&device, path)
}

/// The model is refused in one line that names the file and holds all parts.
#[track_caller]
fn refused(tiny: &Tiny, parts: &[&str]) {
    let error = open(tiny).expect_err(&format!("{parts:?}")).to_string();
    for part in parts.iter().chain(&["tiny.gguf: "]) {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert!(!error.contains('\n'), "{error:?}");
}

fn of(architecture: &'static str) -> Tiny {
    Tiny {
        architecture,
        dtype: DType::F32,
        ..Tiny::default()
    }
}

fn with(architecture: &'static str, key: &'static str, value: impl Into<NewValue>) -> Tiny {
    Tiny {
        metadata: vec![(key, Some(value.into()))],
        ..of(architecture)
    }
}

fn bools(values: &[bool]) -> NewValue {
    NewValue::Array(
        ValueType::Bool,
        values.iter().map(|v| (*v).into()).collect(),
    )
}

/// Logits of the last of a few tokens.
fn logits(model: &Model, kv: &str, tokens: &[i32]) -> Vec<f32> {
    let options = SessionOptions {
        context: 64,
        kv: kv.parse().expect("a SPEC"),
        ..SessionOptions::default()
    };
    let mut session = model.session(options).expect("a session");
    session.prefill(tokens).expect("read");
    session.logits().to_vec()
}

const TOKENS: [i32; 24] = [
    72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100, 33, 10, 84, 104, 101, 32, 113, 117, 105,
    99, 107, 32, 98,
];

#[test]
fn every_architecture_opens() {
    for architecture in ["llama", "qwen2", "qwen3", "gemma2", "gemma3"] {
        let model = open(&of(architecture)).expect(architecture);
        assert_eq!(model.config().architecture.name(), architecture);
    }
}

#[test]
fn keys_that_change_the_computation_are_refused_unless_they_say_what_holds_anyway() {
    for (architecture, key, plain, other) in [
        (
            "llama",
            "llama.expert_count",
            NewValue::U32(0),
            NewValue::U32(8),
        ),
        ("llama", "llama.attention.causal", true.into(), false.into()),
        (
            "llama",
            "llama.use_parallel_residual",
            false.into(),
            true.into(),
        ),
        ("llama", "llama.logit_scale", 1.0_f32.into(), 0.5_f32.into()),
        (
            "qwen2",
            "qwen2.residual_scale",
            0.0_f32.into(),
            0.5_f32.into(),
        ),
        (
            "qwen3",
            "qwen3.embedding_scale",
            1.0_f32.into(),
            12.0_f32.into(),
        ),
        (
            "llama",
            "llama.attention.clamp_kqv",
            0.0_f32.into(),
            8.0_f32.into(),
        ),
        (
            "llama",
            "llama.attention.sliding_window",
            0_u32.into(),
            8_u32.into(),
        ),
        ("qwen3", "qwen3.pooling_type", 0_u32.into(), 2_u32.into()),
        (
            "qwen3",
            "qwen3.nextn_predict_layers",
            0_u32.into(),
            1_u32.into(),
        ),
        (
            "llama",
            "llama.attention.value_length",
            64_u32.into(),
            32_u32.into(),
        ),
        (
            "llama",
            "llama.embedding_length_out",
            64_u32.into(),
            32_u32.into(),
        ),
        (
            "gemma3",
            "gemma3.attention.key_length_swa",
            64_u32.into(),
            32_u32.into(),
        ),
        (
            "gemma3",
            "gemma3.rope.dimension_count_swa",
            64_u32.into(),
            32_u32.into(),
        ),
        (
            "llama",
            "llama.tensor_data_layout",
            "reference".into(),
            "other".into(),
        ),
        (
            "llama",
            "llama.rope.scaling.type",
            "none".into(),
            "longrope".into(),
        ),
        (
            "llama",
            "llama.rope.scaling.yarn_log_multiplier",
            0.0_f32.into(),
            0.1_f32.into(),
        ),
        ("llama", "general.type", "model".into(), "adapter".into()),
        (
            "llama",
            "general.quantization_version",
            2_u32.into(),
            3_u32.into(),
        ),
    ] {
        open(&with(architecture, key, plain)).expect(key);
        refused(&with(architecture, key, other), &[key]);
    }
}

#[test]
fn keys_of_the_architecture_that_nobody_knows_are_refused() {
    for key in [
        "llama.rope.dimension_sections",
        "llama.rope.freq_base_swa",
        "llama.attention.sliding_window_pattern",
        "llama.decoder_start_token_id",
        "llama.full_attention_interval",
        "llama.anything",
    ] {
        refused(&with("llama", key, 4_u32), &[key, "is 4"]);
    }
    let long: &'static str = Box::leak(format!("llama.\u{1b}[2J\n{}", "x".repeat(5000)).into());
    let error = open(&with("llama", long, 1_u32))
        .expect_err("refused")
        .to_string();
    assert!(
        error.len() < 400 && !error.contains(['\u{1b}', '\n']),
        "{error:?}"
    );
    // What belongs to another architecture or describes the file changes nothing.
    for key in [
        "gemma3.anything",
        "general.url",
        "quantize.imatrix.file",
        "llama.vocab_size",
    ] {
        open(&with("llama", key, 4_u32)).expect(key);
    }
}

#[test]
fn numbers_that_cannot_be_are_refused_on_opening() {
    for (key, value) in [
        (
            "llama.attention.layer_norm_rms_epsilon",
            NewValue::F32(f32::NAN),
        ),
        ("llama.attention.scale", NewValue::F32(-1.0)),
        ("llama.attn_logit_softcapping", NewValue::F32(f32::INFINITY)),
        ("llama.rope.freq_base", NewValue::F32(0.0)),
        ("llama.rope.scaling.factor", NewValue::F32(-2.0)),
        ("llama.rope.scaling.attn_factor", NewValue::F32(f32::NAN)),
        ("llama.rope.dimension_count", NewValue::U32(63)),
        ("llama.rope.dimension_count", NewValue::U32(66)),
        ("llama.block_count", NewValue::U32(u32::MAX)),
        ("llama.context_length", NewValue::U32(u32::MAX)),
        ("llama.attention.key_length", NewValue::U32(1 << 20)),
        ("llama.attention.key_length", NewValue::U32(8)),
        ("llama.attention.head_count", NewValue::U32(0)),
        ("llama.embedding_length", NewValue::String("64".into())),
    ] {
        refused(&with("llama", key, value), &[]);
    }
}

#[test]
fn sizes_may_be_stated_for_each_layer_if_the_layers_are_alike() {
    let usual = logits(&open(&of("llama")).expect("the model"), "f16", &TOKENS);
    for (key, size) in [
        ("llama.attention.head_count", tiny::HEADS),
        ("llama.attention.head_count_kv", tiny::KV_HEADS),
        ("llama.feed_forward_length", tiny::INNER),
    ] {
        let size = size as u32;
        let model = open(&with("llama", key, vec![size, size])).expect(key);
        assert_eq!(logits(&model, "f16", &TOKENS), usual, "{key}");
        refused(&with("llama", key, vec![size, 2 * size]), &[key, "layer"]);
        refused(
            &with("llama", key, vec![size]),
            &[key, "1 entries for 2 layers"],
        );
    }
}

fn sliding(architecture: &'static str, pattern: Option<NewValue>) -> Tiny {
    let key = match architecture {
        "gemma2" => "gemma2.attention.sliding_window_pattern",
        _ => "gemma3.attention.sliding_window_pattern",
    };
    Tiny {
        layers: 8,
        window: Some(4),
        metadata: pattern
            .into_iter()
            .map(|value| (key, Some(value)))
            .collect(),
        ..of(architecture)
    }
}

/// The layers that attend globally.
fn global(model: &Model) -> Vec<usize> {
    let layers = model.config().layers.iter().enumerate();
    let global = layers.filter(|(_, layer)| layer.window.is_none());
    global.map(|(index, _)| index).collect()
}

#[test]
fn the_pattern_says_which_layers_slide() {
    let alternating: Vec<bool> = (0..8).map(|layer| layer % 2 == 0).collect();
    for (architecture, pattern, expected) in [
        ("gemma3", None, vec![5]),
        ("gemma2", None, vec![1, 3, 5, 7]),
        ("gemma3", Some(NewValue::U32(2)), vec![1, 3, 5, 7]),
        ("gemma3", Some(NewValue::I64(3)), vec![2, 5]),
        ("gemma2", Some(NewValue::U32(4)), vec![3, 7]),
        ("gemma3", Some(NewValue::U32(1)), (0..8).collect()),
        ("gemma3", Some(NewValue::U32(0)), vec![]),
        ("gemma3", Some(bools(&alternating)), vec![1, 3, 5, 7]),
        (
            "gemma3",
            Some(vec![1_u32, 1, 1, 0, 1, 1, 1, 0].into()),
            vec![3, 7],
        ),
    ] {
        let model = open(&sliding(architecture, pattern.clone())).expect("a pattern");
        assert_eq!(global(&model), expected, "{architecture} {pattern:?}");
    }
    let none = Tiny {
        window: None,
        ..sliding("gemma3", Some(NewValue::U32(2)))
    };
    assert_eq!(global(&open(&none).expect("no window")).len(), 8);
    refused(
        &Tiny {
            window: None,
            ..sliding("gemma3", Some("LG".into()))
        },
        &["sliding_window_pattern"],
    );
    for pattern in [
        NewValue::String("LG".into()),
        NewValue::F32(2.0),
        NewValue::I32(-1),
        bools(&[true; 7]),
        vec![2_u32; 8].into(),
        vec!["L"; 8].into(),
    ] {
        refused(
            &sliding("gemma3", Some(pattern)),
            &["sliding_window_pattern"],
        );
    }
}

#[test]
fn the_pattern_changes_what_is_computed_and_both_its_forms_agree() {
    let alternating: Vec<bool> = (0..8).map(|layer| layer % 2 == 0).collect();
    let of = |pattern| {
        let model = open(&sliding("gemma3", pattern)).expect("the model");
        logits(&model, "f16", &TOKENS)
    };
    let two = of(Some(NewValue::U32(2)));
    assert_eq!(two, of(Some(bools(&alternating))));
    assert_ne!(two, of(None));
}

#[test]
fn inspect_says_which_layers_slide() {
    let folder = Folder::new();
    let model = sliding("gemma3", Some(NewValue::U32(3)));
    let path = folder.argument("tiny.gguf", &model.gguf());
    let text = walsh(["inspect", &path]).ok();
    assert!(text.contains("a window of 4 tokens on 6 layers"), "{text}");
    assert!(text.contains("0–1, 3–4, 6–7"), "{text}");
    let json = walsh(["inspect", &path, "--json"]).json();
    assert_eq!(
        json["shape"]["sliding_layers"],
        serde_json::json!([0, 1, 3, 4, 6, 7])
    );
    assert_eq!(json["shape"]["window"], 4);
    let global = folder.argument("global.gguf", &of("llama").gguf());
    let json = walsh(["inspect", &global, "--json"]).json();
    assert_eq!(json["shape"]["sliding_layers"], serde_json::json!([]));
    assert!(!walsh(["inspect", &global]).ok().contains("window of"));
}

/// A file of the runtime's tests of architectures.
fn gemma4(name: &str) -> String {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../walsh-runtime/tests/architectures"
    );
    format!("{folder}/{name}.gguf")
}

#[test]
fn inspect_says_in_what_layers_differ() {
    let shared = gemma4("gemma4-shared");
    let text = walsh(["inspect", &shared, "--kv", "f16"]).ok();
    for words in [
        "6 layers of width 32, feed-forward 48",
        "an embedding of 8 numbers of each token for each layer",
        "a window of 6 tokens on 3 layers, counted from 0: 0, 2–3",
        "no keys and values of their own on 3 layers, counted from 0: 3–5",
        "2 query heads and 1 KV heads of 32 on layers 0, 2–3, 1 KV heads of 64 on layers 1, 4–5",
        "KV cache, all layers that have one, 3 of 6",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let json = walsh(["inspect", &shared, "--kv", "f16", "--json"]).json();
    assert_eq!(
        json["shape"]["sharing_layers"],
        serde_json::json!([3, 4, 5])
    );
    assert_eq!(json["kv"][0]["bytes_per_token"], 2 * 2 * (32 + 64 + 32));
    let text = walsh(["inspect", &gemma4("gemma4-experts")]).ok();
    let words = "feed-forward 40, and 12 in each of 5 experts beside it, 2 to a token";
    assert!(text.contains(words), "{text}");
}

#[test]
fn rotary_settings_are_heeded() {
    let usual = logits(&open(&of("gemma2")).expect("the model"), "f16", &TOKENS);
    for (architecture, key, value) in [
        ("gemma2", "gemma2.rope.freq_base_swa", 100.0_f32),
        ("gemma2", "gemma2.rope.scaling.attn_factor", 2.0),
        ("gemma2", "gemma2.rope.scaling.factor", 4.0),
        ("gemma2", "gemma2.rope.scale_linear", 4.0),
    ] {
        let model = open(&with(architecture, key, value)).expect(key);
        assert_ne!(logits(&model, "f16", &TOKENS), usual, "{key}");
    }
}
