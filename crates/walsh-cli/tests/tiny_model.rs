//! Every command on a tiny model with random weights.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::Value;
use support::tiny::{self, Tiny};
use support::{Folder, Ran, behind_start, command, walsh, walsh_with};

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

#[test]
fn greedy_text_repeats_and_figures_stay_off_standard_output() {
    let model = model();
    let arguments = ["--temperature", "0", "--max-tokens", "12", "Hello"];
    let first = model.run("generate", &arguments);
    assert_eq!(first.status, Some(0), "{first:?}");
    assert!(!first.out.contains("per second"), "{first:?}");
    assert!(first.err.contains("per second"), "{first:?}");
    assert!(first.err.contains("--max-tokens"), "{first:?}");
    assert_eq!(model.run("generate", &arguments).out, first.out);
}

#[test]
fn a_seed_repeats_a_text_and_another_gives_another() {
    let model = model();
    let text = |seed: &str| {
        let arguments = [
            "--temperature",
            "1.5",
            "--top-k",
            "0",
            "--top-p",
            "1",
            "--min-p",
            "0",
        ];
        let mut arguments = arguments.to_vec();
        arguments.extend(["--max-tokens", "24", "--seed", seed, "Hello"]);
        model.run("generate", &arguments).ok()
    };
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
}

#[test]
fn figures_are_one_line_of_json_when_asked_for() {
    let ran = model().run(
        "generate",
        &["--json", "--temperature", "0", "--max-tokens", "4", "Hello"],
    );
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let figures: Value = serde_json::from_str(&ran.err).expect("JSON on standard error");
    assert_eq!(figures["prompt_tokens"], 5);
    assert_eq!(figures["generated_tokens"], 4);
    assert_eq!(figures["finish"], "max_tokens");
    assert_eq!(figures["kv"], "f16");
    assert!(
        figures["first_token_seconds"]
            .as_f64()
            .is_some_and(|s| s > 0.0)
    );
}

#[test]
fn a_full_context_ends_the_text_and_says_so() {
    let ran = model().run(
        "generate",
        &["--temperature", "0", "--context", "16", "Hello"],
    );
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(ran.err.contains("context is full"), "{ran:?}");
}

#[test]
fn the_prompt_may_come_from_standard_input() {
    let model = model();
    let arguments = [
        "generate",
        "--model",
        &model.path,
        "--temperature",
        "0",
        "-n",
        "6",
    ];
    let direct = walsh(arguments.iter().chain(&["Hello"]).copied()).ok();
    let piped: Vec<&str> = arguments.iter().chain(&["-"]).copied().collect();
    assert_eq!(walsh_with(b"Hello", &piped).ok(), direct);
    // A mark of the encoding is no part of the text; other encodings are refused.
    assert_eq!(walsh_with(b"\xef\xbb\xbfHello", &piped).ok(), direct);
    walsh_with(b"\xff\xfeH\0", &piped).fails(1, "UTF-16LE");
    walsh_with(b"caf\xe9 au lait", &piped).fails(1, "UTF-8");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let model = model();
    let mut child = command()
        .args([
            "generate",
            "--model",
            &model.path,
            "--max-tokens",
            "200",
            "Hello",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(behind_start(&error), "");
    assert_eq!(output.status.code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_one_line() {
    let model = model();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let output = command()
        .args([
            "generate",
            "--model",
            &model.path,
            "--max-tokens",
            "200",
            "Hello",
        ])
        .stdout(full)
        .output()
        .expect("the command starts");
    let error = String::from_utf8_lossy(&output.stderr);
    let error = behind_start(&error);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.starts_with("walsh: cannot write to standard output"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_text_with_its_figures() {
    let folder = Folder::new();
    let model = folder.argument("tiny.gguf", &Tiny::default().gguf());
    // More tokens than any machine makes before the signal is there.
    let mut child = command()
        .args([
            "generate",
            "--model",
            &model,
            "--context",
            "1000000",
            "--max-tokens",
            "900000",
        ])
        .args([
            "--temperature",
            "0",
            "--threads",
            "1",
            "--kv",
            "tq2",
            "Hello",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    // The first piece is there, so the generation is under way.
    assert!(!out.fill_buf().expect("some text").is_empty());
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill runs");
    assert!(killed.success());
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).expect("the rest of the text");
    let output = child.wait_with_output().expect("the command ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{error}");
    assert!(error.contains("interrupted"), "{error}");
    assert!(error.contains("per second"), "{error}");
    assert!(rest.ends_with(b"\n"));
}

#[test]
fn chat_takes_lines_from_a_pipe() {
    let model = model();
    let arguments = [
        "chat",
        "--model",
        &model.path,
        "--temperature",
        "0",
        "-n",
        "5",
    ];
    let ran = walsh_with(
        b"Hello\n\n/help\n/reset\n/nonsense\nHello\n/quit\nHello\n",
        &arguments,
    );
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(
        ran.err.matches("per second").count(),
        4,
        "two answers: {ran:?}"
    );
    assert!(ran.err.contains("forget the conversation"), "{ran:?}");
    assert!(ran.err.contains("/nonsense"), "{ran:?}");
}

#[test]
fn chat_reads_only_what_is_new_and_forgets_on_reset() {
    let model = model();
    let arguments = [
        "chat",
        "--model",
        &model.path,
        "--temperature",
        "0",
        "-n",
        "5",
    ];
    let tokens = |input: &[u8]| -> Vec<usize> {
        let ran = walsh_with(input, &arguments);
        assert_eq!(ran.status, Some(0), "{ran:?}");
        let count = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
        ran.err
            .lines()
            .filter(|line| line.starts_with("[prompt"))
            .filter_map(count)
            .collect()
    };
    let turns = tokens(b"Hello\nHello\n/reset\nHello\n");
    assert_eq!(turns.len(), 3);
    // The second turn adds the end of the answer; a turn that reads all of the
    // conversation again would take more than twice the first.
    assert!(turns[1] <= turns[0] + 3, "{turns:?}");
    assert_eq!(turns[0], turns[2]);
}

#[test]
fn chat_says_when_the_context_is_full() {
    let model = model();
    let arguments = [
        "chat",
        "--model",
        &model.path,
        "--context",
        "64",
        "-n",
        "20",
    ];
    let ran = walsh_with(b"Hello\nHello\nHello\nHello\n", &arguments);
    assert_eq!(ran.status, Some(1), "{ran:?}");
    let last = ran.err.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("walsh: ") && last.contains("/reset"),
        "{ran:?}"
    );
}

#[test]
fn inspect_shows_sizes_and_the_cost_of_each_codec() {
    let model = model();
    let text = walsh(["inspect", &model.path]).ok();
    for word in [
        "Tiny",
        "llama",
        "q8_0",
        "tq4",
        "bytes/token",
        "general.architecture",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let report = walsh(["inspect", &model.path, "--json"]).json();
    assert_eq!(report["architecture"], "llama");
    assert_eq!(report["shape"]["layers"], tiny::LAYERS);
    let cost = |kv: &str| {
        let costs = report["kv"].as_array().expect("an array");
        let entry = costs
            .iter()
            .find(|entry| entry["kv"] == kv)
            .expect("the codec");
        entry["bytes_per_token"].as_u64().expect("a number")
    };
    let numbers = (2 * tiny::LAYERS * tiny::KV_HEADS * tiny::HEAD_DIM) as u64;
    let rows = (2 * tiny::LAYERS * tiny::KV_HEADS) as u64;
    assert_eq!(cost("f32"), 4 * numbers);
    assert_eq!(cost("f16"), 2 * numbers);
    assert_eq!(cost("q8_0"), numbers / 32 * 34);
    assert_eq!(cost("tq4"), numbers / 2 + 2 * rows);
    assert_eq!(cost("tq3"), numbers * 3 / 8 + 2 * rows);
}

#[test]
fn perplexity_reports_every_codec_against_the_first() {
    let model = model();
    let folder = Folder::new();
    let file = lines(&folder);
    let arguments = [
        "--file",
        &file,
        "--context",
        "128",
        "--chunks",
        "3",
        "--json",
    ];
    // Products in single precision are what the command measures with, unless it is told otherwise.
    let device = |more: &[&'static str]| {
        let arguments = [&arguments[..], more].concat();
        let report = model.run("perplexity", &arguments).json();
        report["device"].as_str().expect("a text").to_owned()
    };
    assert!(device(&[]).ends_with(", activations in f32)"));
    assert!(!device(&["--device", "cpu"]).contains("f32"));
    let specs = ["--kv", "f32", "--kv", "f16", "--kv", "tq8", "--kv", "tq2"];
    let arguments: Vec<&str> = arguments.iter().chain(&specs).copied().collect();
    let report = model.run("perplexity", &arguments).json();
    assert_eq!(report["model"], "Tiny");
    assert_eq!(report["context"], 128);
    assert_eq!(report["chunks"], 3);
    let results = report["results"].as_array().expect("an array");
    let field = |index: usize, name: &str| results[index][name].as_f64().expect("a number");
    let names: Vec<_> = results.iter().map(|result| &result["kv"]).collect();
    assert_eq!(names, ["f32", "f16", "tq8", "tq2"]);
    for index in 0..4 {
        assert!(field(index, "ppl") > 1.0);
        assert!(field(index, "ppl_stderr") > 0.0);
        assert!(field(index, "kv_bytes_per_token") > 0.0);
        assert!(field(index, "kld_p99") >= field(index, "kld_mean"));
    }
    assert_eq!((field(0, "kld_mean"), field(0, "same_top")), (0.0, 1.0));
    assert!(field(1, "kld_mean") < field(2, "kld_mean"));
    assert!(field(2, "kld_mean") < field(3, "kld_mean"));
    assert!((field(2, "ppl") / field(0, "ppl") - 1.0).abs() < 0.005);
}

/// A text of a few hundred of the tiny model's tokens.
fn lines(folder: &Folder) -> String {
    let text: String = (0..60)
        .map(|i| format!("Line {i} of some text.\n"))
        .collect();
    folder.argument("text.txt", text.as_bytes())
}

#[test]
fn perplexity_writes_a_report_beside_its_json() {
    let model = model();
    let folder = Folder::new();
    let file = lines(&folder);
    let page = folder.path().join("out.html");
    let page = page.to_str().expect("UTF-8");
    let compare = folder.argument(
        "other.json",
        br#"{"entries": [{"name": "other & q4_0", "bits_per_value": 4.5, "kld_mean": 0.01, "source": "made up"}]}"#,
    );
    let mut arguments = vec![
        "--file",
        &file,
        "--context",
        "64",
        "--chunks",
        "2",
        "--json",
    ];
    arguments.extend(["--kv", "tq8", "--kv", "q4_0", "--kv", "k=tq5,v=tq2"]);
    arguments.extend(["--report", page, "--compare", &compare]);
    let ran = model.run("perplexity", &arguments);
    assert!(ran.err.contains("warning: the reference is tq8"), "{ran:?}");
    let report = ran.json();
    assert!(
        report["warnings"][0]
            .as_str()
            .is_some_and(|w| w.contains("tq8"))
    );
    let result = &report["results"][2];
    assert_eq!(result["bits_per_value"].as_f64(), Some(3.75));
    assert!(
        result["kld_stderr"]
            .as_f64()
            .is_some_and(|error| error > 0.0)
    );
    let html = std::fs::read_to_string(page).expect("the report");
    let body = html.strip_prefix("<!DOCTYPE html>\n").expect("the doctype");
    let document = roxmltree::Document::parse(body).expect("well-formed");
    let shown: String = document
        .descendants()
        .filter_map(|node| node.text())
        .collect();
    for part in [
        "the reference is tq8",
        "k=tq5,v=tq2",
        "other & q4_0",
        "Tiny",
        "text.txt",
        page,
    ] {
        assert!(shown.contains(part), "{part}");
    }
}

#[test]
fn a_report_that_cannot_be_is_known_before_anything_is_measured() {
    let model = model();
    let folder = Folder::new();
    let file = lines(&folder);
    let run = |extra: &[&str]| {
        let mut arguments = vec!["--file", &file, "--context", "64"];
        arguments.extend(extra);
        let ran = model.run("perplexity", &arguments);
        // A line of progress would show that a chunk was scored.
        assert_eq!(ran.out, "");
        ran
    };
    let page = folder.path().join("out.html");
    let page = page.to_str().expect("UTF-8");
    run(&["--report", "/no/such/folder/out.html"]).fails(1, "/no/such/folder");
    let no_file = folder.path().to_str().expect("UTF-8");
    run(&["--report", no_file]).fails(1, no_file);
    let bad = folder.argument("bad.json", br#"{"entries": 1}"#);
    run(&["--report", page, "--compare", &bad]).fails(1, "bad.json");
    run(&["--report", page, "--compare", "/no/such.json"]).fails(1, "/no/such.json");
    run(&["--compare", &bad]).fails(2, "--report");
    assert!(!std::fs::exists(page).expect("looked"));
}

#[test]
fn bench_reports_every_test() {
    let model = model();
    let arguments = [
        "--prompt",
        "32",
        "--generate",
        "8",
        "--depth",
        "0,64",
        "--repetitions",
        "2",
    ];
    let mut arguments = arguments.to_vec();
    arguments.extend(["--kv", "f16", "--kv", "tq4", "--json"]);
    let report = model.run("bench", &arguments).json();
    assert_eq!(report["threads"], 2);
    let results = report["results"].as_array().expect("an array");
    assert_eq!(results.len(), 8);
    for result in results {
        let figure = |name: &str| result[name].as_f64().expect("a number");
        assert!(figure("min") > 0.0);
        assert!(figure("min") <= figure("tokens_per_second"));
        assert!(figure("tokens_per_second") <= figure("max"));
    }
    assert_eq!(
        (&results[0]["test"], &results[0]["tokens"]),
        (&"prefill".into(), &32.into())
    );
    assert_eq!(
        (&results[3]["test"], &results[3]["depth"]),
        (&"decode".into(), &64.into())
    );
    model
        .run("bench", &["--prompt", "0", "--generate", "0"])
        .fails(1, "nothing to measure");
}

#[test]
fn list_and_doctor_report_without_a_network() {
    let folder = Folder::new();
    let cache = folder.path().to_str().expect("UTF-8");
    let models = walsh(["list", "--cache-dir", cache, "--json"]).json();
    assert_eq!(models["models"][0]["name"], "smollm2-135m");
    assert_eq!(models["models"][0]["state"], "not fetched");
    assert!(
        walsh(["list", "--cache-dir", cache])
            .ok()
            .contains("gemma3-270m")
    );
    let doctor = walsh(["doctor", "--cache-dir", cache, "--json"]).json();
    assert!(
        doctor["memory_gigabytes_per_second"]
            .as_f64()
            .is_some_and(|rate| rate > 0.1)
    );
    assert_eq!(doctor["cache"]["models"], Value::Array(Vec::new()));
    assert_eq!(doctor["backends"][1]["name"], "cuda");
    assert_eq!(doctor["backends"][1]["in_build"], true);
    assert_eq!(doctor["backends"][2]["in_build"], false);
    let text = walsh(["doctor", "--cache-dir", cache]).ok();
    assert!(text.contains("not in this build"), "{text}");
    assert!(
        text.contains("driver for CUDA") || text.contains("no CUDA driver"),
        "{text}"
    );
    assert!(text.contains("NVRTC"), "{text}");
}
