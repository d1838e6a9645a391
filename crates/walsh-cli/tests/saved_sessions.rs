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

#[test]
fn a_text_goes_on_without_new_words_and_with_its_random_numbers() {
    let place = Place::new();
    let (one, two) = (place.path("one.walsh"), place.path("two.walsh"));
    let warm = ["--temperature", "1", "--repetition-penalty", "1.3"];
    let fixed = ["generate", "--model", &place.model, "--threads", "1"];
    let run = |more: &[&str]| walsh([&fixed[..], &warm, more].concat());
    let text = |ran: Ran| {
        let out = ran.ok();
        out.strip_suffix('\n').unwrap_or(&out).to_owned()
    };
    // A seed whose text does not end early.
    let long = (0..20).map(|seed| seed.to_string()).find(|seed| {
        let ran = run(&["--seed", seed, "-n", "14", "--json", "Hello"]);
        ran.err.contains("\"max_tokens\"") && !ran.out.trim_end().ends_with('\n')
    });
    let seed = long.expect("a long text");
    let whole = text(run(&["--seed", &seed, "-n", "14", "Hello"]));
    let first = text(run(&["--seed", &seed, "-n", "6", "--save", &one, "Hello"]));
    let ran = run(&["--load", &one, "--save", &two, "-n", "8"]);
    assert!(ran.err.contains(&format!("seed {seed}")), "{}", ran.err);
    assert_eq!(first + &text(ran), whole);
    assert_eq!(
        text(run(&["--load", &one, "-n", "8"])),
        text(run(&["--load", &one, "-n", "8"]))
    );
}

#[test]
fn another_answer_to_the_same_question_and_a_seed_that_repeats_both() {
    let place = Place::new();
    let fixed = [
        "chat",
        "--model",
        &place.model,
        "--threads",
        "1",
        "-n",
        "16",
    ];
    let warm = ["--temperature", "1", "--seed"];
    let chat = |seed: &str| {
        let arguments = [&fixed[..], &warm, &[seed]].concat();
        walsh_with(b"Hello\n/undo\nHello\n", &arguments).ok()
    };
    let answers = chat("3");
    let half = answers.len() / 2;
    assert!(half > 4, "{answers:?}");
    assert_ne!(answers.as_bytes()[..half], answers.as_bytes()[half..]);
    assert_eq!(chat("3"), answers);
    assert_ne!(chat("4"), answers);
}

#[test]
fn a_text_stops_before_what_it_is_told_to_stop_at() {
    let place = Place::new();
    let whole = place.generate(&["Hello"]).ok();
    let stop = whole.chars().nth(2).expect("a character").to_string();
    let ran = place.generate(&["--stop", "?!?!", "--stop", &stop, "--json", "Hello"]);
    let figures: serde_json::Value = serde_json::from_str(&ran.err).expect("JSON");
    assert_eq!(figures["finish"], "stop");
    let expected = &whole[..whole.find(&stop).expect("there")];
    assert_eq!(ran.ok().strip_suffix('\n'), Some(expected));
}

#[test]
fn a_byte_order_mark_is_no_text_and_other_encodings_are_refused() {
    let place = Place::new();
    let arguments = place.arguments("generate", &["-"]);
    let expected = place.generate(&["Hello"]).ok();
    let marked = walsh_with(b"\xef\xbb\xbfHello", &arguments).ok();
    assert_eq!(marked, expected);
    let file = place.folder.argument("marked.txt", b"\xef\xbb\xbfHello");
    assert_eq!(place.generate(&["--file", &file]).ok(), expected);
    let wide: Vec<u8> = "Hello".encode_utf16().flat_map(u16::to_le_bytes).collect();
    walsh_with(&wide, &arguments).fails(1, "standard input: it is in UTF-16LE");
    walsh_with(b"caf\xe9 au lait", &arguments).fails(1, "byte 3 is 0xe9");
    let latin = place.folder.argument("latin.txt", b"caf\xe9 au lait");
    let measured = ["perplexity", "--model", &place.model, "--threads", "1"];
    let measured = [&measured[..], &["--context", "4", "--file"]].concat();
    walsh([&measured[..], &[&latin]].concat()).fails(1, "latin.txt: byte 3 is 0xe9");
    if cfg!(target_os = "linux") {
        let endless = ["/dev/zero", "--chunks", "1"];
        walsh([&measured[..], &endless].concat()).ok();
    }
}

#[cfg(unix)]
#[test]
fn a_table_is_printed_before_a_report_that_has_no_room() {
    let place = Place::new();
    let text = place
        .folder
        .argument("text.txt", "one two three ".repeat(8).as_bytes());
    let report = place.path("report.html");
    std::fs::write(&report, "old").expect("written");
    // Files of 512 bytes at most.
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"")
        .arg(env!("CARGO_BIN_EXE_walsh"))
        .args(["perplexity", "--model", &place.model, "--threads", "1"])
        .args(["--context", "8", "--chunks", "1"])
        .args(["--file", &text, "--report", &report])
        .output()
        .expect("the command runs");
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("perplexity"), "{table}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("report.html"), "{error}");
    assert_eq!(std::fs::read_to_string(&report).expect("kept"), "old");
    let files = std::fs::read_dir(place.folder.path())
        .expect("a folder")
        .count();
    assert_eq!(files, 3, "nothing unfinished is left");
}
