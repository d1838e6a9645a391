//! Files and prompts that cannot be used: one line each, and no panic.

mod support;

use support::tiny::Tiny;
use support::{Folder, walsh, walsh_with};

/// Runs a greedy generation of two tokens.
fn generate(model: &str, more: &[&str]) -> support::Ran {
    let fixed = [
        "generate",
        "--temperature",
        "0",
        "--max-tokens",
        "2",
        "--threads",
        "1",
        "--model",
        model,
    ];
    walsh(fixed.iter().chain(more).copied())
}

#[test]
fn files_that_are_no_models() {
    let folder = Folder::new();
    let random: Vec<u8> = (0..100_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for (name, bytes, part) in [
        ("empty.gguf", &b""[..], "empty"),
        ("short.gguf", b"GGUF", ""),
        (
            "text.gguf",
            b"This is not a model, but a text of some length.",
            "GGUF",
        ),
        ("random.gguf", &random, "GGUF"),
    ] {
        let model = folder.argument(name, bytes);
        generate(&model, &["x"]).fails(1, part);
        walsh(["inspect", &model]).fails(1, part);
    }
}

#[test]
fn files_that_are_not_there_or_no_files() {
    let folder = Folder::new();
    let missing = folder.path().join("missing.gguf");
    generate(missing.to_str().expect("UTF-8"), &["x"]).fails(1, "missing.gguf");
    generate(folder.path().to_str().expect("UTF-8"), &["x"]).fails(1, "file");
    generate("no-such-model", &["x"]).fails(1, "smollm2-135m");
    walsh(["pull", "no-such-model"]).fails(1, "smollm2-135m");
}

#[cfg(unix)]
#[test]
fn files_that_may_not_be_read() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    let folder = Folder::new();
    let forbid = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    };
    forbid(folder.path(), 0o755);
    let model = folder.file("model.gguf", &Tiny::default().gguf());
    forbid(&model, 0o000);
    // Root reads everything: a copy of the command runs as somebody else then.
    let binary = folder.path().join("walsh");
    std::fs::copy(env!("CARGO_BIN_EXE_walsh"), &binary).expect("copied");
    forbid(&binary, 0o755);
    let mut command = std::process::Command::new(&binary);
    if std::fs::metadata(folder.path()).expect("there").uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    let output = command
        .args(["generate", "--cache-dir"])
        .arg(folder.path())
        .arg("--model")
        .arg(&model)
        .arg("x")
        .output()
        .expect("the command starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.starts_with("walsh: ") && error.contains("model.gguf"),
        "{error}"
    );
    assert!(error.to_lowercase().contains("permission"), "{error}");
}

#[test]
fn truncated_files() {
    let folder = Folder::new();
    let whole = Tiny::default().gguf();
    generate(&folder.argument("whole.gguf", &whole), &["x"]).ok();
    for part in [1, 2, 10, 50, 90, 99] {
        let bytes = &whole[..whole.len() * part / 100];
        generate(&folder.argument("cut.gguf", bytes), &["x"]).fails(1, "");
    }
    generate(
        &folder.argument("cut.gguf", &whole[..whole.len() - 1]),
        &["x"],
    )
    .fails(1, "");
}

#[test]
fn flipped_bits_give_an_answer_or_one_line() {
    let folder = Folder::new();
    let whole = Tiny::default().gguf();
    let header = 9_000.min(whole.len());
    for index in 0..60 {
        let mut bytes = whole.clone();
        // Mostly the header, where bits mean most.
        let at = if index % 6 == 5 {
            whole.len() / 60 * index
        } else {
            header / 60 * index
        };
        bytes[at] ^= 1 << (index % 8);
        let ran = generate(&folder.argument("flipped.gguf", &bytes), &["x"]);
        if ran.status != Some(0) {
            ran.fails(1, "");
        }
    }
}

#[test]
fn models_that_cannot_be_run() {
    let folder = Folder::new();
    let tiny = Tiny::default();
    for (model, part) in [
        (
            Tiny {
                architecture: "mamba",
                ..tiny.clone()
            },
            "mamba",
        ),
        (
            Tiny {
                first_norm: f32::NAN,
                ..tiny.clone()
            },
            "",
        ),
        (
            Tiny {
                first_norm: f32::INFINITY,
                ..tiny.clone()
            },
            "",
        ),
        (
            Tiny {
                without: Some("blk.1.ffn_up.weight"),
                ..tiny.clone()
            },
            "blk.1.ffn_up.weight",
        ),
        (
            Tiny {
                without: Some("token_embd.weight"),
                ..tiny.clone()
            },
            "token_embd.weight",
        ),
    ] {
        let ran = generate(&folder.argument("model.gguf", &model.gguf()), &["x"]);
        // What was printed before the failure is an empty text at most.
        assert_eq!(ran.out.trim(), "");
        ran.fails(1, part);
    }
    let silent = Tiny {
        chat_template: None,
        ..tiny
    };
    let model = folder.argument("silent.gguf", &silent.gguf());
    generate(&model, &["--chat", "x"]).fails(1, "template");
    generate(&model, &["x"]).ok();
}

#[test]
fn an_unknown_tensor_type_is_named() {
    let folder = Folder::new();
    let mut bytes = Tiny::default().gguf();
    let name = b"token_embd.weight";
    let at = bytes
        .windows(name.len())
        .position(|w| w == name)
        .expect("the tensor's entry");
    // Behind the name: dimensions (u32), two sizes (u64 each), the type (u32).
    let dtype = at + name.len() + 4 + 16;
    bytes[dtype..dtype + 4].copy_from_slice(&99u32.to_le_bytes());
    let ran = generate(&folder.argument("model.gguf", &bytes), &["x"]);
    ran.fails(1, "token_embd.weight");
    ran.fails(1, "99");
}

#[test]
fn prompts_that_do_not_fit() {
    let folder = Folder::new();
    let model = folder.argument("model.gguf", &Tiny::default().gguf());
    // Each letter is a token.
    let long = "x".repeat(300);
    generate(&model, &[&long]).fails(1, "context of 256");
    generate(&model, &["--context", "64", "--chat", &long]).fails(1, "context");
    generate(&model, &["--context", "512", &long]).ok();
    walsh_with(b"", &["generate", "--model", &model, "-"]).fails(2, "the prompt is empty");
}

#[test]
fn codecs_that_do_not_fit_the_model_or_do_not_exist() {
    let folder = Folder::new();
    let model = folder.argument("model.gguf", &Tiny::default().gguf());
    for kv in ["tq4", "tq8", "q8_0", "f32", "k=tq5,v=tq3", "tq4+norot"] {
        generate(&model, &["--kv", kv, "x"]).ok();
    }
    generate(&model, &["--kv", "tq1", "x"]).fails(2, "tq1");
}

#[test]
fn texts_for_perplexity_that_cannot_be_used() {
    let folder = Folder::new();
    let model = folder.argument("model.gguf", &Tiny::default().gguf());
    let run = |file: &str| {
        walsh([
            "perplexity",
            "--model",
            &model,
            "--context",
            "64",
            "--file",
            file,
        ])
    };
    run(&folder.argument("short.txt", b"too short")).fails(1, "9 tokens");
    run(&folder.argument("empty.txt", b"")).fails(1, "0 tokens");
    run("/no/such/file.txt").fails(1, "/no/such/file.txt");
    run(folder.path().to_str().expect("UTF-8")).fails(1, "");
}

#[test]
fn a_cache_folder_that_cannot_be_is_one_line() {
    let folder = Folder::new();
    let file = folder.argument("file", b"");
    walsh(["pull", "--cache-dir", &format!("{file}/models")]).fails(1, "");
}
