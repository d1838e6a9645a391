//! What the command's options do to texts, and the small commands about them.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::Value;
use support::tiny::Tiny;
use support::{Folder, Ran, command, walsh, walsh_with};

struct Model {
    _folder: Folder,
    path: String,
}

fn model() -> Model {
    let folder = Folder::new();
    let path = folder.argument("tiny.gguf", &Tiny::default().gguf());
    Model {
        _folder: folder,
        path,
    }
}

impl Model {
    fn run(&self, command: &str, arguments: &[&str]) -> Ran {
        let fixed = [command, "--model", &self.path, "--threads", "2"];
        walsh(fixed.iter().chain(arguments).copied())
    }
}

/// The first use of a codec that is fitted to a model makes remarks.
#[test]
fn nothing_but_json_stands_beside_a_text_when_asked_for() {
    let model = model();
    let folder = Folder::new();
    let cache = folder.path().to_str().expect("UTF-8");
    let arguments = ["--json", "--kv", "tq4", "--cache-dir", cache, "-n", "2"];
    let arguments: Vec<&str> = arguments.iter().chain(&["Hello"]).copied().collect();
    let figures = |ran: Ran| -> Value {
        assert_eq!(ran.status, Some(0), "{ran:?}");
        serde_json::from_str(&ran.err).expect("JSON alone on standard error")
    };
    let first = figures(model.run("generate", &arguments));
    let note = first["notes"][0].as_str().expect("a remark");
    assert!(note.contains("looking at the keys"), "{note}");
    let second = figures(model.run("generate", &arguments));
    assert_eq!(second["notes"], Value::Array(Vec::new()));
}

#[test]
fn a_text_has_the_form_that_is_asked_for() {
    let model = model();
    let folder = Folder::new();
    let schema = folder.argument("schema.json", br#"{"const": {"a": true}}"#);
    let grammar = folder.argument("two.lark", b"start: WORD \" \" WORD\nWORD: /[a-c]{3}/");
    for (arguments, holds) in [
        (["--json-schema", schema.as_str()], "{\"a\":true}"),
        (["--json-schema", r#"{"const": 12}"#], "12"),
        (["--regex", "-(no){2}"], "-nono"),
        (["--grammar", grammar.as_str()], ""),
    ] {
        let text = model.run("generate", &[&arguments[..], &["Hello"]].concat());
        let text: String = text.ok().chars().filter(|c| !c.is_whitespace()).collect();
        assert!(text.contains(holds), "{arguments:?}: {text}");
        assert!(text.len() < 20, "{arguments:?}: {text}");
    }
    let several = model.run(
        "generate",
        &["--regex", "a", "--grammar", &grammar, "Hello"],
    );
    assert_eq!(several.status, Some(2), "{several:?}");
    let malformed = model.run("generate", &["--regex", "(a", "Hello"]);
    assert_eq!(malformed.status, Some(1), "{malformed:?}");
    assert!(malformed.err.contains("unclosed group"), "{malformed:?}");
}

#[test]
fn a_text_comes_from_an_option_or_a_file_too() {
    let model = model();
    let folder = Folder::new();
    let file = folder.argument("prompt.txt", b"-Hello");
    let text = |more: &[&str]| {
        let fixed = ["--temp", "0", "-n", "4"];
        let arguments: Vec<&str> = fixed.iter().chain(more).copied().collect();
        model.run("generate", &arguments).ok()
    };
    let direct = text(&["--", "-Hello"]);
    assert_eq!(text(&["-p", "-Hello"]), direct);
    assert_eq!(text(&["--file", &file]), direct);
    let missing = model.run("generate", &["-f", "/no/such.txt"]);
    missing.fails(1, "/no/such.txt");
}

#[test]
fn a_text_without_a_limit_goes_on_to_the_end_of_the_context() {
    let arguments = ["--temp", "0", "-n", "-1", "-c", "300", "--seed", "-1"];
    let arguments: Vec<&str> = arguments.iter().chain(&["Hello"]).copied().collect();
    let ran = model().run("generate", &arguments);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let ended = ran.err.contains("context is full") || !ran.err.contains("stopped");
    assert!(ended, "{ran:?}");
}

#[test]
fn run_answers_a_question_or_holds_a_conversation() {
    let model = model();
    let fixed = ["--temp", "0", "-n", "5"];
    let answer = walsh(["run", &model.path, "Hello", "you"].iter().chain(&fixed)).ok();
    let chat: Vec<&str> = fixed
        .iter()
        .chain(&["--chat", "Hello you"])
        .copied()
        .collect();
    assert_eq!(answer, model.run("generate", &chat).ok());
    let run: Vec<&str> = ["run", &model.path].iter().chain(&fixed).copied().collect();
    assert_eq!(walsh_with(b"Hello you\n", &run).ok(), answer);
}

#[test]
fn tokens_of_a_text_and_back() {
    let model = model();
    let fixed = ["--model", &model.path];
    let run = |more: &[&str]| walsh(["tokenize"].iter().chain(&fixed).chain(more));
    // Byte-level: a letter is a token, and the model has one merge.
    let ids = run(&["--ids", "a t<|im_end|>"]).ok();
    assert_eq!(ids.split_whitespace().count(), 2 + "<|im_end|>".len());
    let ids = run(&["--ids", "--special", "a t<|im_end|>"]).ok();
    assert_eq!(ids, "97 256 259\n");
    let decode = |more: &[&str]| run(&[&["--decode", ids.trim()], more].concat());
    assert_eq!(decode(&[]).ok(), "a t\n");
    assert_eq!(decode(&["--special"]).ok(), "a t<|im_end|>\n");
    assert_eq!(decode(&["--json"]).json()["text"], "a t");
    assert_eq!(run(&["--decode", "[97, 256]"]).ok(), "a t\n");
    run(&["--decode", "97 260"]).fails(2, "from 0 to 259");
    run(&["--decode", "97 x"]).fails(2, "no token");
    let report = run(&["--json", "é\u{1b}"]).json();
    assert_eq!(report["count"], 3);
    assert_eq!(report["tokens"][0]["piece"], serde_json::json!([0xc3]));
    assert_eq!(report["tokens"][2]["piece"], "\u{1b}");
    let shown = run(&["é\u{1b} t"]).ok();
    for piece in ["\"\\xc3\"", "\"\\u{1b}\"", "\" t\""] {
        assert!(shown.contains(piece), "{piece}: {shown}");
    }
}

#[test]
fn a_fetched_model_is_removed_by_its_name() {
    let folder = Folder::new();
    let cache = folder.path().to_str().expect("UTF-8");
    let model = folder.file("smollm2-135m.gguf", b"a model");
    let run = |name: &str| walsh(["rm", name, "--cache-dir", cache]);
    let said = run("smollm2-135m").ok();
    assert!(said.contains("smollm2-135m.gguf, 7 B"), "{said}");
    assert!(!model.exists());
    run("smollm2-135m").fails(1, "nothing to remove");
    run("../smollm2-135m").fails(1, "there is no model");
}

#[test]
fn a_template_of_ones_own_is_used_instead_of_the_model_s() {
    let model = model();
    let folder = Folder::new();
    let template = "{% for m in messages %}{{ m.content }}|{% endfor %}";
    let template = folder.argument("template.jinja", template.as_bytes());
    let fixed = ["--temp", "0", "-n", "6"];
    let run = |more: &[&str]| model.run("generate", &[&fixed, more].concat());
    let own = ["--chat", "--template", &template, "--system", "A", "Hello"];
    assert_eq!(run(&own).ok(), run(&["A|Hello|"]).ok());
    assert_ne!(
        run(&own).ok(),
        run(&["--chat", "--system", "A", "Hello"]).ok()
    );
    // What was saved goes on with it too.
    let saved = folder.path().join("talk.walsh");
    let saved = saved.to_str().expect("UTF-8");
    run(&[&own[..], &["--save", saved]].concat()).ok();
    let own = ["--chat", "--template", &template, "--load", saved, "Hello"];
    assert_eq!(run(&own).status, Some(0));
    let bad = folder.argument("bad.jinja", b"{% for %}");
    run(&["--chat", "--template", &bad, "x"]).fails(1, "template");
    run(&["--chat", "--template", "/no/such", "x"]).fails(1, "/no/such");
    run(&["--template", &template, "x"]).fails(2, "--chat");
}

#[test]
fn a_stop_text_ends_the_text_and_is_not_printed() {
    let model = model();
    let run = |more: &[&str]| {
        let fixed = ["--temp", "0", "-n", "24"];
        model.run("generate", &[&fixed, more, &["Hello"]].concat())
    };
    let whole = run(&[]).ok();
    let text: Vec<char> = whole.trim_end_matches('\n').chars().collect();
    // What comes in the middle of the text, and what never comes.
    let stop: String = text[text.len() / 2..text.len() / 2 + 2].iter().collect();
    let before = whole.split(&stop).next().expect("a part").to_owned();
    let ran = run(&["--stop", "never comes", "--stop", &stop]);
    assert!(ran.err.contains("--stop"), "{ran:?}");
    assert_eq!(
        ran.ok().trim_end_matches('\n'),
        before.trim_end_matches('\n')
    );
}

#[test]
fn a_saved_text_goes_on_without_more_words() {
    let model = model();
    let folder = Folder::new();
    let saved = folder.path().join("s.walsh");
    let saved = saved.to_str().expect("UTF-8");
    let run = |more: &[&str]| {
        let fixed = ["--temp", "0", "-n", "6"];
        model.run("generate", &[&fixed, more].concat())
    };
    let first = run(&["--save", saved, "Hello"]).ok();
    let rest = run(&["--load", saved]).ok();
    let whole = model
        .run("generate", &["--temp", "0", "-n", "12", "Hello"])
        .ok();
    let parts = [&first, &rest].map(|part| part.strip_suffix('\n').unwrap_or(part));
    assert_eq!(parts.concat(), whole.strip_suffix('\n').unwrap_or(&whole));
}

/// Runs the command until a line on standard error holds a word, and interrupts it.
#[cfg(unix)]
fn interrupted(arguments: &[&str], word: &str) -> Ran {
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut words = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut err = String::new();
    while !err.contains(word) {
        let read = words.read_line(&mut err).expect("words");
        assert!(read > 0, "{word:?} never came: {err}");
    }
    let id = child.id().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(kill.expect("kill runs").success());
    words.read_to_string(&mut err).expect("the rest");
    let output = child.wait_with_output().expect("the command ends");
    let out = String::from_utf8(output.stdout).expect("UTF-8");
    let status = output.status.code();
    Ran { status, out, err }
}

#[cfg(unix)]
#[test]
fn what_was_measured_is_printed_when_the_rest_is_interrupted() {
    let model = model();
    let folder = Folder::new();
    let text = folder.argument("text.txt", "some words ".repeat(60_000).as_bytes());
    let on_model = ["--model", &model.path, "--threads", "1"];
    let arguments = ["perplexity", "--file", &text, "--context", "32"];
    let ran = interrupted(&[&arguments[..], &on_model].concat(), "[2/");
    assert_eq!(ran.status, Some(130), "{ran:?}");
    assert!(ran.out.contains("KV bytes/token"), "{ran:?}");
    assert!(ran.err.contains("interrupted"), "{ran:?}");
    let arguments = [
        "bench",
        "--depth",
        "0",
        "--prompt",
        "4",
        "--generate",
        "120",
    ];
    let arguments = [&arguments[..], &on_model, &["--repetitions", "300"]].concat();
    let ran = interrupted(&arguments, "prefill of");
    assert_eq!(ran.status, Some(130), "{ran:?}");
    assert!(
        ran.out.contains("tokens/s") && ran.out.contains("prefill"),
        "{ran:?}"
    );
    assert!(!ran.out.contains("decode"), "{ran:?}");
    let arguments = [
        "fidelity", "--task", "greedy", "--tokens", "30", "--count", "2000",
    ];
    let ran = interrupted(&[&arguments[..], &on_model, &["--kv", "f32"]].concat(), "/");
    assert_eq!(ran.status, Some(130), "{ran:?}");
    assert!(ran.out.contains("same answer"), "{ran:?}");
    assert!(ran.err.contains("questions of 2000"), "{ran:?}");
}
