//! `walsh batch`: prompts in, answers out, in their order, and on from where it was ended.

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::tiny::Tiny;
use support::{Folder, Ran, walsh};

const QUESTIONS: &str = r#"{"id": 7, "prompt": "Once upon a time", "max_tokens": 5}
{"messages": [{"role": "user", "content": "hi <|im_end|> there"}], "max_tokens": 3}

{"prompt": "Again", "temperature": 1.5, "seed": 3, "max_tokens": 40, "stop": ["z", "q"]}
{"prompt": "", "note": [1, 2.5, {"a": null}]}
no json
{"prompt": "x", "messages": []}
{"prompt": "twice", "text": "taken"}
{"prompt": "last", "max_tokens": 0}
"#;

fn model(folder: &Folder) -> String {
    folder.argument("tiny.gguf", &Tiny::default().gguf())
}

fn arguments<'a>(model: &'a str, questions: &'a Path) -> [&'a str; 12] {
    [
        "batch",
        questions.to_str().expect("UTF-8"),
        "--model",
        model,
        "--device",
        "cpu:isa=portable",
        "--temperature",
        "0",
        "--sequences",
        "3",
        "--context",
        "128",
    ]
}

fn batch(model: &str, questions: &Path, more: &[&str]) -> Ran {
    let fixed = arguments(model, questions);
    walsh(fixed.iter().chain(more).copied())
}

/// The run ended with an error behind its figures.
#[track_caller]
fn ends_with_errors(ran: &Ran, part: &str) {
    assert_eq!(ran.status, Some(1), "{ran:?}");
    let last = ran.err.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("walsh: ") && last.contains(part),
        "{ran:?}"
    );
}

fn lines(text: &str) -> Vec<Value> {
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    lines.collect()
}

#[test]
fn answers_come_in_order_and_say_what_is_wrong_with_a_line() {
    let folder = Folder::new();
    let model = model(&folder);
    let questions = folder.file("questions.jsonl", QUESTIONS.as_bytes());
    let ran = batch(&model, &questions, &[]);
    ends_with_errors(&ran, "4 of the answers are errors");
    let answers = lines(&ran.out);
    assert_eq!(answers.len(), 8);
    assert_eq!(
        (&answers[0]["id"], &answers[0]["finish"]),
        (&json!(7), &json!("max_tokens"))
    );
    assert_eq!(answers[0]["generated_tokens"], 5);
    assert!(answers[0]["text"].is_string() && answers[0]["error"].is_null());
    assert_eq!(answers[1]["messages"][0]["content"], "hi <|im_end|> there");
    assert!(answers[1]["prompt_tokens"].as_u64().expect("a number") > 10);
    assert_eq!(answers[3]["note"], json!([1, 2.5, { "a": null }]));
    for (index, part) in [
        (3, "prompt is empty"),
        (4, "line 6: it is no JSON object"),
        (5, "line 7: give \"prompt\" or \"messages\""),
        (6, "line 8: it has \"text\" already"),
    ] {
        let error = answers[index]["error"].as_str().expect("an error");
        assert!(error.contains(part), "{error:?} lacks {part:?}");
        assert!(answers[index]["finish"].is_null());
    }
    assert_eq!(
        (&answers[7]["text"], &answers[7]["finish"]),
        (&json!(""), &json!("max_tokens"))
    );
    assert!(
        ran.err.contains("8 of 8 prompts answered, 4 with an error"),
        "{}",
        ran.err
    );
}

#[test]
fn answers_have_the_form_that_their_line_asks_for() {
    let folder = Folder::new();
    let model = model(&folder);
    let questions = r#"{"prompt": "a", "json_schema": {"enum": [[1, "é"]]}}
{"prompt": "b", "regex": "(left|right){2}"}
{"prompt": "c", "grammar": "start: \"x\" /[0-9]{2}/"}
{"prompt": "d", "regex": "a", "grammar": "start: \"a\""}
{"prompt": "e", "regex": "(a"}
"#;
    let questions = folder.file("questions.jsonl", questions.as_bytes());
    let ran = batch(&model, &questions, &[]);
    ends_with_errors(&ran, "2 of the answers are errors");
    let answers = lines(&ran.out);
    let text = |index: usize| answers[index]["text"].as_str().expect("a text");
    let value: Value = serde_json::from_str(text(0)).expect("JSON");
    assert_eq!(value, json!([1, "é"]));
    assert_eq!(text(1).replace("left", "").replace("right", ""), "");
    assert!(text(2).starts_with('x') && text(2).len() == 3);
    for answer in &answers[..3] {
        assert_eq!(answer["finish"], "end");
    }
    for (index, part) in [
        (3, "line 4: give one of \"json_schema\", \"regex\" and"),
        (4, "unclosed group"),
    ] {
        let error = answers[index]["error"].as_str().expect("an error");
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn a_run_that_was_ended_goes_on() {
    let folder = Folder::new();
    let model = model(&folder);
    let questions = folder.file("questions.jsonl", QUESTIONS.as_bytes());
    let answers = folder.path().join("answers.jsonl");
    let output = ["--output", answers.to_str().expect("UTF-8")];
    ends_with_errors(&batch(&model, &questions, &output), "4 of the answers");
    let whole = fs::read_to_string(&answers).expect("the answers");
    // A run with less memory, and one that was killed in the middle of its fourth answer, give the same.
    let starts: Vec<usize> = whole.match_indices('\n').map(|(at, _)| at + 1).collect();
    for kept in [0, starts[1], starts[2] + 9, whole.len()] {
        fs::write(&answers, &whole[..kept]).expect("written");
        let ran = batch(&model, &questions, &output);
        ends_with_errors(&ran, "4 of the answers");
        assert_eq!(fs::read_to_string(&answers).expect("the answers"), whole);
        let before = whole[..kept].matches('\n').count();
        assert_eq!(
            ran.err.contains(&format!("({before} before)")),
            before > 0,
            "{}",
            ran.err
        );
    }
    // Answers to other questions are not gone on from, and are left as they are.
    let others = folder.file("others.jsonl", b"{\"prompt\": \"another\"}\n");
    batch(&model, &others, &output).fails(1, "it is the answer to another question");
    let fewer = folder.file(
        "fewer.jsonl",
        QUESTIONS.lines().next().expect("a line").as_bytes(),
    );
    batch(&model, &fewer, &output).fails(1, "there are more answers than questions");
    assert_eq!(fs::read_to_string(&answers).expect("the answers"), whole);
    // Nor is anything else taken for a cut-off answer.
    for (content, part) in [
        ("my notes\n", "it is no answer"),
        ("my notes", "it is no answer"),
        (
            "{\"my\": \"settings\"}",
            "it is the answer to another question",
        ),
    ] {
        let text = folder.file("notes.txt", content.as_bytes());
        let output = ["--output", text.to_str().expect("UTF-8")];
        batch(&model, &questions, &output).fails(1, part);
        assert_eq!(fs::read_to_string(&text).expect("the notes"), content);
    }
}

/// A run over many long answers that is ended by a signal once two are written; how long it took to end, and its status.
#[cfg(unix)]
fn ended_by(signal: i32, place: (&str, &Path, &Path)) -> (Duration, std::process::ExitStatus) {
    use std::os::unix::process::CommandExt;
    let (model, questions, answers) = place;
    let mut command = support::command();
    command.args(arguments(model, questions));
    command.arg("--output").arg(answers);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec nothing but signals is touched.
    unsafe { command.pre_exec(support::heed_signals) };
    let mut child = command.spawn().expect("the command starts");
    let start = Instant::now();
    let lines = || fs::read_to_string(answers).map_or(0, |text| text.matches('\n').count());
    while lines() < 2 {
        assert!(start.elapsed() < Duration::from_secs(60), "no answer comes");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = i32::try_from(child.id()).expect("a process");
    let start = Instant::now();
    // SAFETY: the process is a child that was not waited for.
    unsafe { libc::kill(pid, signal) };
    let status = child.wait().expect("the command ends");
    (start.elapsed(), status)
}

#[cfg(unix)]
#[test]
fn a_run_that_a_signal_ends_goes_on_too() {
    use std::os::unix::process::ExitStatusExt;
    let folder = Folder::new();
    let model = model(&folder);
    let line = |index| format!("{{\"prompt\": \"question {index}\", \"max_tokens\": 100}}\n");
    let questions: String = (0..60).map(line).collect();
    let questions = folder.file("questions.jsonl", questions.as_bytes());
    let answers = folder.path().join("answers.jsonl");
    let output = ["--output", answers.to_str().expect("UTF-8")];
    batch(&model, &questions, &output).ok();
    let whole = fs::read_to_string(&answers).expect("the answers");
    for signal in [libc::SIGINT, libc::SIGKILL] {
        fs::remove_file(&answers).expect("removed");
        let (took, status) = ended_by(signal, (&model, &questions, &answers));
        let written = fs::read_to_string(&answers).expect("the answers");
        assert!(written.len() < whole.len(), "it was over before the signal");
        assert!(whole.starts_with(&written));
        if signal == libc::SIGINT {
            assert_eq!(status.code(), Some(130));
            assert!(written.ends_with('\n'));
            assert!(took < Duration::from_secs(5), "{took:?}");
        } else {
            assert_eq!(status.signal(), Some(libc::SIGKILL));
        }
        batch(&model, &questions, &output).ok();
        assert_eq!(fs::read_to_string(&answers).expect("the answers"), whole);
    }
}

#[test]
fn what_cannot_be_read_or_held_is_said() {
    let folder = Folder::new();
    let model = model(&folder);
    let questions = folder.file("questions.jsonl", QUESTIONS.as_bytes());
    batch(&model, &folder.path().join("none"), &[]).fails(1, "there is no such file");
    let binary = folder.file("binary", &[0xff, 0xfe, b'\n']);
    batch(&model, &binary, &[]).fails(1, "not UTF-8");
    batch(&model, &questions, &["--kv-memory", "1KB"]).fails(1, "kv_memory must be at least");
    for size in ["0", "many", "-3", "5 parsecs", "nan"] {
        let size = format!("--kv-memory={size}");
        batch(&model, &questions, &[&size]).fails(2, "512MB");
    }
}
