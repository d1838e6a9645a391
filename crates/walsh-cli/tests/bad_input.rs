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
fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
}

/// The command as run by somebody who is not root, who reads everything, and has no home folder.
#[cfg(unix)]
fn somebody(folder: &Folder) -> std::process::Command {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;

    set_mode(folder.path(), 0o755);
    let binary = folder.path().join("walsh");
    // Copied by a process of its own: what other tests start meanwhile must not inherit a handle that writes to it.
    let copied = std::process::Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_walsh"))
        .arg(&binary)
        .status();
    assert!(copied.expect("cp starts").success());
    set_mode(&binary, 0o755);
    let mut command = std::process::Command::new(&binary);
    command.env_clear().stdin(std::process::Stdio::null());
    if std::fs::metadata(folder.path()).expect("there").uid() == 0 {
        command.uid(54_321).gid(54_321);
    }
    command
}

#[cfg(unix)]
#[test]
fn files_that_may_not_be_read() {
    let folder = Folder::new();
    let model = folder.file("model.gguf", &Tiny::default().gguf());
    set_mode(&model, 0o000);
    let output = somebody(&folder)
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

/// Root's home folder is known to the system, that of a user without an account is not.
#[cfg(target_os = "linux")]
#[test]
fn without_a_home_folder_files_run_and_names_ask_for_a_cache_folder() {
    let folder = Folder::new();
    let model = folder.argument("model.gguf", &Tiny::default().gguf());
    let run = |arguments: &[&str]| {
        let output = somebody(&folder).args(arguments).env("HOME", "").output();
        let output = output.expect("the command starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), error)
    };
    let on_model = ["--model", &model, "-n", "2", "--threads", "1"];
    let (status, error) = run(&[&["generate", "--kv", "4bit", "x"], &on_model[..]].concat());
    assert_eq!(status, Some(0), "{error}");
    assert_eq!(run(&["inspect", &model]).0, Some(0));
    assert_eq!(run(&["tokenize", "--model", &model, "x"]).0, Some(0));
    assert_eq!(run(&["doctor"]).0, Some(0));
    if error.contains("no home folder") {
        for arguments in [&["generate", "x"][..], &["list"], &["pull"], &["rm", "x"]] {
            let (status, error) = run(arguments);
            assert_eq!(status, Some(1), "{error}");
            assert!(error.contains("--cache-dir"), "{error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn places_that_nothing_can_be_kept_in() {
    let folder = Folder::new();
    let model = folder.argument("model.gguf", &Tiny::default().gguf());
    let on_model = [
        "generate", "--model", &model, "-n", "2", "--kv", "4bit", "x",
    ];
    for place in ["/proc/none", "/dev/null", &model] {
        let ran = walsh(on_model.iter().chain(&["--cache-dir", place]));
        assert_eq!(ran.status, Some(0), "{ran:?}");
        assert!(ran.err.contains("cannot be kept"), "{ran:?}");
    }
}

/// Texts, numbers and places that nobody expects: each gives a text or one line, at once.
#[cfg(target_os = "linux")]
#[test]
fn odd_command_lines_give_a_text_or_one_line() {
    use std::os::unix::ffi::OsStrExt;

    let folder = Folder::new();
    let model = folder.argument("model.gguf", &Tiny::default().gguf());
    let long = "word ".repeat(20_000);
    let not_utf8 = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let cases: [(&[&str], Option<&str>); 23] = [
        (&["\u{1b}[2J\u{202e}"], None),
        (&["e\u{301}\u{200d}\u{fdd0}\u{10ffff}"], None),
        (&["<|im_start|><|im_end|>", "--special"], None),
        (&["%s%n{}", "--chat"], None),
        (&[" \n\t"], Some("the prompt is empty")),
        (&["", "--chat"], Some("the prompt is empty")),
        (&[&long], Some("context of 256")),
        (&[&long, "--chat"], Some("context of 256")),
        (&["-f", "/dev/null"], Some("the prompt is empty")),
        (&["-f", "/proc/self/mem"], Some("/proc/self/mem")),
        (&["-f", "/"], Some("/: it is a folder")),
        (&["x", "--temp", "3e38"], None),
        (&["x", "--temp", "1e-45"], None),
        (&["x", "--top-k", "2147483647"], None),
        (&["x", "--top-p", "0", "--min-p", "1"], None),
        (&["x", "--repeat-penalty", "100"], None),
        (
            &["x", "--repeat-penalty", "3e38"],
            Some("repetition_penalty is 3"),
        ),
        (&["x", "--seed", "18446744073709551615"], None),
        (&["x", "-n", "2147483647"], None),
        (&["x", "--load", "/dev/null"], Some("/dev/null")),
        (&["x", "--save", "/dev/full"], Some("/dev/full")),
        (&["x", "--save", "/no/such/place"], Some("/no/such/place")),
        (&["x", "--threads", "2147483647"], Some("threads")),
    ];
    for (arguments, wrong) in cases {
        let few: &[&str] = if arguments.contains(&"-n") {
            &[]
        } else {
            &["-n", "2"]
        };
        let fixed = ["generate", "--model", &model];
        let ran = walsh(fixed.iter().chain(few).chain(arguments));
        match wrong {
            None => assert_eq!(ran.status, Some(0), "{arguments:?}: {ran:?}"),
            Some(part) => ran.fails(if part.ends_with("empty") { 2 } else { 1 }, part),
        }
        assert!(!ran.err.contains('\u{1b}'), "{ran:?}");
        assert!(ran.err.len() < 1000, "{ran:?}");
    }
    let ran = walsh([std::ffi::OsStr::new("generate"), not_utf8]);
    ran.fails(2, "\"caf\\xe9\" is not UTF-8");
    let input = |bytes: &[u8]| walsh_with(bytes, &["generate", "--model", &model, "-n", "2", "-"]);
    assert_eq!(input(b"a\0b\x01").status, Some(0));
    input(b" \n").fails(2, "the prompt is empty");
}

/// Standard streams that are closed or full, and a folder that is gone.
#[cfg(target_os = "linux")]
#[test]
fn odd_surroundings_give_an_answer_or_one_line() {
    let folder = Folder::new();
    let model = folder.argument("model.gguf", &Tiny::default().gguf());
    let shell = |script: &str| {
        let output = std::process::Command::new("sh")
            .args(["-c", script, "sh", env!("CARGO_BIN_EXE_walsh"), &model])
            .current_dir(folder.path())
            .output()
            .expect("a shell");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!error.contains("panicked"), "{script}: {error}");
        (output.status.code(), error)
    };
    let run = "\"$1\" generate --model \"$2\" -n 2";
    for (script, status) in [
        (format!("{run} x >&-"), 0),
        (format!("{run} x 2>&-"), 0),
        (format!("{run} x <&- >&- 2>&-"), 0),
        (format!("{run} - <&-"), 2),
        (format!("{run} x 2>/dev/full"), 0),
        (format!("{run} x --json 2>/dev/full"), 0),
        (format!("{run} x >/dev/full"), 1),
        ("\"$1\" --help >/dev/full".to_owned(), 1),
        ("\"$1\" completions bash >/dev/full".to_owned(), 1),
        ("\"$1\" list | true".to_owned(), 0),
        (
            format!("mkdir gone && cd gone && rmdir ../gone && {run} x"),
            0,
        ),
        (
            "mkdir gone && cd gone && rmdir ../gone && \"$1\" generate --model x.gguf x".to_owned(),
            1,
        ),
    ] {
        let (ended, error) = shell(&script);
        assert_eq!(ended, Some(status), "{script}: {error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_report_on_a_full_disk_comes_after_the_table() {
    let folder = Folder::new();
    let model = folder.argument("model.gguf", &Tiny::default().gguf());
    let text = folder.argument("text.txt", "some words ".repeat(20).as_bytes());
    let fixed = [
        "perplexity",
        "--model",
        &model,
        "--file",
        &text,
        "--context",
        "64",
    ];
    let ran = walsh(fixed.iter().chain(&["--report", "/dev/full"]));
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(ran.out.contains("KV bytes/token"), "{ran:?}");
    let last = ran.err.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("walsh: /dev/full: the disk is full"),
        "{ran:?}"
    );
}

/// A model's name, its metadata and its path are words of somebody else.
#[cfg(unix)]
#[test]
fn control_characters_of_names_are_shown() {
    let folder = Folder::new();
    let tiny = Tiny {
        name: "Ti\u{1b}[31mny\u{202e}\nwalsh: done",
        ..Tiny::default()
    };
    let model = folder.argument("mo\u{1b}]0;x\u{7}\ndel.gguf", &tiny.gguf());
    let text = folder.argument("text.txt", "some words ".repeat(20).as_bytes());
    let on_text = ["--context", "64", "--model", &model, "--file", &text];
    let bench = [
        "--prompt",
        "4",
        "--generate",
        "0",
        "--depth",
        "0",
        "--model",
        &model,
    ];
    for arguments in [
        vec!["inspect", &model],
        [&["perplexity"], &on_text[..]].concat(),
        [&["bench", "--repetitions", "1"], &bench[..]].concat(),
        vec!["generate", "-n", "2", "--model", &model, "x"],
        vec!["generate", "--model", "none\u{1b}[2J\n.gguf", "x"],
        vec!["generate", "--kv", "\u{1b}[2J", "x"],
        vec!["generate", "--load", &model, "--model", &model, "x"],
    ] {
        let ran = walsh(&arguments);
        for text in [&ran.out, &ran.err] {
            let obeyed = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            // What the model writes is its own.
            assert!(
                arguments[0] == "generate" && ran.status == Some(0) || !text.contains(obeyed),
                "{ran:?}"
            );
            assert!(!text.contains("\nwalsh: done"), "{ran:?}");
        }
        assert!(ran.err.chars().count() < 1000, "{ran:?}");
    }
}
