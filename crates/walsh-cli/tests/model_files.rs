//! Model files: what is stated in them is heeded, or refused by name.

mod support;

use support::tiny::{self, Tiny};
use support::{Folder, command, walsh};
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
        ("qwen3", "qwen3.pooling_type", 0_u32.into(), 3_u32.into()),
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

#[test]
fn tensors_that_nothing_uses_are_refused() {
    for (architecture, name, shape) in [
        ("llama", "blk.0.attn_q.scale", &[1][..]),
        ("llama", "blk.0.attn_sub_norm.weight", &[64]),
        ("llama", "blk.2.attn_norm.weight", &[64]),
        ("llama", "blk.0.attn_q_norm.weight", &[64]),
        ("llama", "blk.1.ffn_gate_inp.weight", &[8, 64]),
        ("llama", "output.bias", &[260]),
        ("llama", "rope_factors_long.weight", &[32]),
        ("qwen2", "blk.0.ffn_up.bias", &[96]),
        ("qwen3", "rope_freqs.weight", &[32]),
        ("qwen3", "cls.output.weight", &[2, 64]),
        ("gemma3", "v.patch_embd.weight", &[64]),
        ("llama", "anything", &[1]),
    ] {
        let model = Tiny {
            extra: vec![(name, shape)],
            ..of(architecture)
        };
        refused(&model, &[name, architecture]);
    }
    // The first in order is named.
    let two = Tiny {
        extra: vec![("b", &[1]), ("a", &[1])],
        ..of("llama")
    };
    refused(&two, &["tensor a "]);
}

#[test]
fn tensors_that_an_architecture_may_have_are_used() {
    let plain = |architecture| logits(&open(&of(architecture)).expect("plain"), "f16", &TOKENS);
    let all_layers = |part: [&'static str; 2], shape: &'static [usize]| part.map(|n| (n, shape));
    for (architecture, extra) in [
        (
            "llama",
            all_layers(["blk.0.attn_v.bias", "blk.1.attn_v.bias"], &[64]),
        ),
        (
            "llama",
            all_layers(["blk.0.attn_output.bias", "blk.1.attn_output.bias"], &[64]),
        ),
        (
            "llama",
            all_layers(["blk.0.ffn_up.bias", "blk.1.ffn_up.bias"], &[96]),
        ),
        (
            "gemma3",
            all_layers(["blk.0.attn_v.bias", "blk.1.attn_v.bias"], &[64]),
        ),
    ] {
        let model = open(&Tiny {
            extra: extra.to_vec(),
            ..of(architecture)
        });
        let model = model.expect(extra[0].0);
        assert_ne!(
            logits(&model, "f16", &TOKENS),
            plain(architecture),
            "{extra:?}"
        );
    }
    let output = Tiny {
        extra: vec![("output.weight", &[tiny::VOCABULARY, tiny::WIDTH])],
        ..of("llama")
    };
    assert_ne!(
        logits(&open(&output).expect("untied"), "f16", &TOKENS),
        plain("llama")
    );
    let biased = Tiny {
        extra: vec![("output.bias", &[tiny::VOCABULARY])],
        ..of("qwen2")
    };
    assert_ne!(
        logits(&open(&biased).expect("biased"), "f16", &TOKENS),
        plain("qwen2")
    );
    // Divisors of 1 leave the frequencies as they are.
    let factors = Tiny {
        extra: vec![("rope_freqs.weight", &[32])],
        ..of("llama")
    };
    assert_eq!(
        logits(&open(&factors).expect("factors"), "f16", &TOKENS),
        plain("llama")
    );
    let short = Tiny {
        extra: vec![("rope_freqs.weight", &[31])],
        ..of("llama")
    };
    refused(&short, &["rope_freqs.weight", "32 numbers"]);
}

#[test]
fn norms_that_an_architecture_has_must_be_there() {
    for (architecture, name) in [
        ("qwen3", "blk.1.attn_q_norm.weight"),
        ("qwen3", "blk.0.attn_k_norm.weight"),
        ("gemma3", "blk.1.attn_k_norm.weight"),
        ("gemma2", "blk.0.post_attention_norm.weight"),
        ("gemma3", "blk.1.post_ffw_norm.weight"),
        ("llama", "blk.1.ffn_norm.weight"),
        ("llama", "output_norm.weight"),
    ] {
        let model = Tiny {
            without: Some(name),
            ..of(architecture)
        };
        refused(&model, &[&format!("tensor {name} is missing")]);
    }
}

#[test]
fn biases_come_in_all_layers_or_in_none() {
    let some = |architecture, extra| Tiny {
        extra,
        ..of(architecture)
    };
    refused(
        &some("llama", vec![("blk.1.attn_k.bias", &[64])]),
        &["tensor blk.0.attn_k.bias is missing"],
    );
    let keys: Vec<(&str, &[usize])> =
        vec![("blk.0.attn_k.bias", &[64]), ("blk.1.attn_k.bias", &[64])];
    refused(
        &some("qwen2", keys.clone()),
        &["tensor blk.0.attn_q.bias is missing"],
    );
    open(&some("llama", keys)).expect("biases of keys alone");
}

#[test]
fn heads_of_every_size_run_in_plain_numbers() {
    for head_dim in [16, 18, 34, 66, 100, 250, 272, 512] {
        let model = open(&Tiny {
            head_dim,
            ..of("llama")
        });
        let model = model.expect("the model");
        for kv in ["f16", "f32", "bf16"] {
            let at_once = logits(&model, kv, &TOKENS);
            let options = SessionOptions {
                context: 64,
                kv: kv.parse().expect("a SPEC"),
                ..SessionOptions::default()
            };
            let mut session = model.session(options).expect("a session");
            for token in TOKENS {
                session.decode(token).expect("read");
            }
            let one_by_one = session.logits();
            let spread = at_once.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let most = at_once.iter().zip(one_by_one).map(|(a, b)| (a - b).abs());
            let most = most.fold(0.0, f32::max);
            assert!(most < 0.03 * spread, "{head_dim} {kv}: {most} of {spread}");
        }
    }
    for head_dim in [8, 33, 514] {
        refused(
            &Tiny {
                head_dim,
                ..of("llama")
            },
            &[&head_dim.to_string()],
        );
    }
}

#[test]
fn the_vocabulary_and_the_embedding_table_are_of_one_size() {
    let mut tokens: Vec<String> = (0..256).map(|id| format!("t{id}")).collect();
    tokens[255] = "t1t2".into();
    let fewer = Tiny {
        metadata: vec![
            ("tokenizer.ggml.tokens", Some(tokens.into())),
            ("tokenizer.ggml.token_type", Some(vec![1_i32; 256].into())),
            (
                "tokenizer.ggml.merges",
                Some(vec!["t1 t2".to_owned()].into()),
            ),
            ("tokenizer.ggml.bos_token_id", Some(0_u32.into())),
            ("tokenizer.ggml.eos_token_id", Some(1_u32.into())),
        ],
        ..of("llama")
    };
    refused(&fewer, &["256 tokens", "260 rows"]);
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_at_once() {
    use std::os::unix::fs::symlink;

    let folder = Folder::new();
    let pipe = folder.path().join("pipe.gguf");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let link = folder.path().join("link.gguf");
    symlink(&pipe, &link).expect("a link");
    let zero = folder.path().join("zero.gguf");
    symlink("/dev/zero", &zero).expect("a link");
    for path in [&pipe, &link, &zero] {
        let device = walsh::open("cpu:threads=1,packing=never").expect("the processor");
        let error = Model::open(&device, path).expect_err("no file").to_string();
        assert!(error.contains("a pipe or a device"), "{error}");
        let path = path.to_str().expect("UTF-8");
        walsh(["inspect", path]).fails(1, "not a file");
        walsh(["generate", "--model", path, "x"]).fails(1, "not a file");
    }
    // A part of a split model.
    let parts = [
        ("split.no", Some(NewValue::U16(0))),
        ("split.count", Some(NewValue::U16(2))),
    ];
    let split = Tiny {
        metadata: parts.to_vec(),
        ..of("llama")
    };
    let first = folder.argument("split-00001-of-00002.gguf", &split.gguf());
    let second = folder.path().join("split-00002-of-00002.gguf");
    std::fs::rename(&pipe, &second).expect("moved");
    walsh(["inspect", &first]).fails(1, "split-00002-of-00002.gguf");
    // A session, and a lock.
    let model = folder.argument("tiny.gguf", &of("llama").gguf());
    let pipe = second.to_str().expect("UTF-8");
    walsh(["generate", "--model", &model, "--load", pipe, "x"]).fails(1, "not a file");
    let cache = folder.path().join("cache");
    std::fs::create_dir(&cache).expect("a folder");
    std::fs::rename(&second, cache.join(".smollm2-135m.lock")).expect("moved");
    let cache = cache.to_str().expect("UTF-8");
    walsh(["pull", "smollm2-135m", "--cache-dir", cache]).fails(1, ".smollm2-135m.lock");
}

/// A file that others shorten is the end of a run, which says why.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_cut_short_while_it_is_open_is_named_before_the_end() {
    use std::io::{Read, Write};
    use std::process::Stdio;

    let folder = Folder::new();
    let path = folder.argument("tiny.gguf", &of("llama").gguf());
    let mut chat = command()
        .args([
            "chat",
            "--threads",
            "1",
            "--max-tokens",
            "2",
            "--model",
            &path,
        ])
        .args(["--device", "cpu:packing=never"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut input = chat.stdin.take().expect("a pipe");
    let mut output = chat.stdout.take().expect("a pipe");
    input.write_all(b"hello\n").expect("written");
    // The model is open once it answers.
    let mut first = [0];
    output.read_exact(&mut first).expect("an answer");
    let file = std::fs::File::options().write(true).open(&path);
    file.expect("there").set_len(4096).expect("cut");
    // The command may be gone before it is asked again.
    drop(input.write_all(b"more\n"));
    drop(input);
    let ended = chat.wait_with_output().expect("the command ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("cut short"), "{said}");
}
