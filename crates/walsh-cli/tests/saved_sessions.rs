//! `--save` and `--load`, and the chat commands that go with them, on a tiny model.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use support::tiny::Tiny;
use support::{Folder, Ran, command, walsh, walsh_with};

struct Place {
    folder: Folder,
    model: String,
}

impl Place {
    fn new() -> Self {
        let folder = Folder::new();
        let model = folder.argument("tiny.gguf", &Tiny::default().gguf());
        Self { folder, model }
    }

    fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    fn arguments<'a>(&'a self, command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let fixed = [command, "--model", &self.model, "--threads", "1"];
        let greedy = ["--temperature", "0", "-n", "6"];
        [&fixed[..], &greedy, more].concat()
    }

    fn generate(&self, more: &[&str]) -> Ran {
        walsh(self.arguments("generate", more))
    }

    fn chat(&self, lines: &str, more: &[&str]) -> Ran {
        walsh_with(lines.as_bytes(), &self.arguments("chat", more))
    }
}

#[test]
fn a_saved_text_is_continued_as_if_it_had_not_ended() {
    let place = Place::new();
    let (one, two) = (place.path("one.walsh"), place.path("two.walsh"));
    place
        .generate(&["--kv", "tq4", "--save", &one, "Hello"])
        .ok();
    let first = place
        .generate(&["--load", &one, "--save", &two, " and"])
        .ok();
    assert_eq!(place.generate(&["--load", &one, " and"]).ok(), first);
    // Onto the same file, and with what is already so.
    let more = [
        "--load",
        &two,
        "--save",
        &two,
        "--kv",
        "tq4",
        "--context",
        "256",
        "so",
    ];
    let second = place.generate(&more).ok();
    assert_ne!(place.generate(&["--load", &two, "so"]).ok(), "");
    assert_ne!(first, second);
    let ran = place.generate(&["--load", &one, "--json", "so"]);
    let figures: serde_json::Value = serde_json::from_str(&ran.err).expect("JSON");
    assert_eq!(figures["kv"], "tq4");
    assert_eq!(figures["prompt_tokens"], 2);
}

#[test]
fn what_contradicts_a_saved_session_is_one_line() {
    let place = Place::new();
    let file = place.path("a.walsh");
    place
        .generate(&["--kv", "tq4", "--save", &file, "Hello"])
        .ok();
    let load = |more: &[&str]| place.generate(&[&["--load", &file][..], more, &["x"]].concat());
    load(&["--kv", "tq8"]).fails(1, "tq4");
    load(&["--context", "255"]).fails(1, "256");
    load(&["--context", "300"]).ok();
    load(&["--chat"]).fails(1, "no conversation");
    load(&["--chat", "--system", "x"]).fails(2, "--load");
    let missing = place.path("missing.walsh");
    place
        .generate(&["--load", &missing, "x"])
        .fails(1, "missing.walsh");
    place
        .generate(&["--load", &place.model, "x"])
        .fails(1, "not saved by Walsh");
    let bytes = std::fs::read(&file).expect("the file");
    let cut = place
        .folder
        .argument("cut.walsh", &bytes[..bytes.len() - 9]);
    place.generate(&["--load", &cut, "x"]).fails(1, "cut off");
}

#[test]
fn a_place_that_cannot_be_written_is_known_before_anything_is_generated() {
    let place = Place::new();
    for path in ["missing/a.walsh", "tiny.gguf/a.walsh", "."] {
        let ran = place.generate(&["--save", &place.path(path), "Hello"]);
        ran.fails(1, "");
        assert_eq!(ran.out, "");
        let ran = place.chat("Hello\n", &["--save", &place.path(path)]);
        ran.fails(1, "");
        assert_eq!(ran.out, "");
    }
    // Not even a model is looked for.
    let save = place.path("missing/a.walsh");
    walsh(["generate", "--model", "no-such", "--save", &save, "x"]).fails(1, "missing");
}

#[cfg(unix)]
#[test]
fn a_text_that_ctrl_c_ended_is_saved() {
    let place = Place::new();
    let file = place.path("a.walsh");
    let mut child = command()
        .args(["generate", "--model", &place.model, "--context", "1000000"])
        .args([
            "--max-tokens",
            "900000",
            "--temperature",
            "0",
            "--threads",
            "1",
        ])
        .args(["--kv", "tq2", "--save", &file, "Hello"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    assert!(!out.fill_buf().expect("some text").is_empty());
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill runs");
    assert!(killed.success());
    out.read_to_end(&mut Vec::new()).expect("the rest");
    assert_eq!(child.wait().expect("the command ends").code(), Some(130));
    place.generate(&["--load", &file, "Hello"]).ok();
}

#[test]
fn a_conversation_goes_on_in_another_run() {
    let place = Place::new();
    let (half, whole) = (place.path("half.walsh"), place.path("whole.walsh"));
    let in_one = place.chat("Hello\nWhy?\n", &["--kv", "tq4"]).ok();
    let first = place
        .chat("Hello\n", &["--kv", "tq4", "--save", &half])
        .ok();
    let second = place
        .chat("Why?\n", &["--load", &half, "--save", &whole])
        .ok();
    assert_eq!(first + &second, in_one);
    // The same through the other command, and from within the conversation.
    let asked = place.generate(&["--chat", "--load", &half, "Why?"]).ok();
    assert_eq!(asked, second);
    let named = place.path("a name with spaces.walsh");
    let lines = format!("Hello\n/save {named}\nWhy?\n");
    assert_eq!(place.chat(&lines, &["--kv", "tq4"]).ok(), in_one);
    assert_eq!(place.chat("Why?\n", &["--load", &named]).ok(), second);
}

#[test]
fn undo_takes_an_exchange_back() {
    let place = Place::new();
    let straight = place.chat("Hello\nWhy?\n", &[]).ok();
    let hello = place.chat("Hello\n", &[]).ok();
    let ran = place.chat("Hello\nNo\n/undo\nWhy?\n", &[]).ok();
    let why = straight.strip_prefix(&hello).expect("it begins the same");
    assert!(ran.ends_with(why), "{ran:?} and {straight:?}");
    let ran = place.chat("/undo\n/help\n", &[]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(ran.err.contains("nothing was said"), "{ran:?}");
    assert!(ran.err.contains("/save FILE"), "{ran:?}");
    place.chat("/save\nHello\n", &[]).fails(1, "/save FILE");
    let missing = format!("/save {}\n", place.path("missing/a.walsh"));
    place.chat(&missing, &[]).fails(1, "missing");
}
