//! `walsh chat` at a terminal and through pipes, on a tiny model.

#![cfg(unix)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use support::pty::{Terminal, signal};
use support::tiny::Tiny;
use support::{Folder, Ran, command, walsh, walsh_with};

/// An answer ends by itself.
const SHORT: &[&str] = &["-n", "4", "--temperature", "0"];
/// An answer goes on for as long as any test, to a message behind nothing else.
const LONG: &[&str] = &[
    "-n",
    "-1",
    "--temperature",
    "0",
    "--context",
    "1000000",
    "--kv",
    "tq2",
];
const NOTHING_ELSE: &str = "{% for message in messages %}{{ message['content'] }}{% endfor %}";

struct Place {
    folder: Folder,
    model: String,
}

impl Place {
    fn new() -> Self {
        Self::of(&Tiny::default())
    }

    fn talkative() -> Self {
        Self::of(&Tiny {
            chat_template: Some(NOTHING_ELSE),
            ..Tiny::default()
        })
    }

    fn of(tiny: &Tiny) -> Self {
        let folder = Folder::new();
        let model = folder.argument("tiny.gguf", &tiny.gguf());
        Self { folder, model }
    }

    fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    fn terminal(&self, more: &[&str]) -> Terminal {
        let cache = self.path("cache");
        let fixed = [
            "chat",
            "--model",
            &self.model,
            "--threads",
            "1",
            "--cache-dir",
            &cache,
        ];
        let mut terminal = Terminal::start(&[&fixed[..], more].concat());
        terminal.wait_for("/help lists the commands");
        terminal.wait_for("> ");
        terminal
    }

    fn pipe(&self, input: &[u8], more: &[&str]) -> Ran {
        let fixed = ["chat", "--model", &self.model, "--threads", "1"];
        walsh_with(input, &[&fixed[..], more].concat())
    }

    /// How many messages the model answered of a conversation that was kept.
    #[track_caller]
    fn answered(&self, file: &str) -> usize {
        let ran = self.pipe(b"/show\n", &["--load", file]);
        assert_eq!(ran.status, Some(0), "{ran:?}");
        let words: Vec<&str> = ran.err.split_whitespace().collect();
        let at = words.iter().position(|word| word.starts_with("messages"));
        let count: usize = words[at.expect("a number of messages") - 1]
            .parse()
            .expect("a number");
        count / 2
    }
}

#[test]
fn an_answer_is_interrupted_and_the_conversation_goes_on() {
    let place = Place::talkative();
    let file = place.path("a.walsh");
    let mut terminal = place.terminal(&[LONG, &["--no-word-wrap", "--save", &file]].concat());
    terminal.send(b"Hello\r");
    terminal.wait_for_answer();
    for columns in [90, 70, 60] {
        terminal.resize(columns);
    }
    terminal.send(b"\x03");
    terminal.wait_for("interrupted]");
    terminal.wait_for("> ");
    for columns in [90, 20, 60] {
        terminal.resize(columns);
    }
    // At the prompt, the first says how to leave, unless something comes between.
    terminal.send(b"x\x03");
    terminal.wait_for("press Ctrl-C again or Ctrl-D to leave");
    terminal.send(b"/help\r");
    terminal.wait_for("a message to the model.");
    terminal.wait_for("> ");
    terminal.send(b"\x03");
    terminal.wait_for("press Ctrl-C again or Ctrl-D to leave");
    terminal.send(b"\x03");
    assert_eq!(terminal.end(), Some(130));
    assert_eq!(place.answered(&file), 1);
}

#[test]
fn what_was_said_is_kept_however_a_conversation_ends() {
    let place = Place::new();
    let file = place.path("a.walsh");
    type End = fn(Terminal) -> Option<i32>;
    let ends: [(&str, End, i32); 5] = [
        (
            "Ctrl-D",
            |mut terminal| {
                terminal.send(b"\x04");
                terminal.end()
            },
            0,
        ),
        (
            "/bye",
            |mut terminal| {
                terminal.send(b"/bye\r");
                terminal.end()
            },
            0,
        ),
        (
            "SIGTERM",
            |terminal| {
                signal(terminal.id(), "TERM");
                terminal.end()
            },
            143,
        ),
        (
            "SIGHUP",
            |terminal| {
                signal(terminal.id(), "HUP");
                terminal.end()
            },
            129,
        ),
        ("no terminal", |terminal| terminal.hang_up().code(), 129),
    ];
    for (name, end, status) in ends {
        let _ = std::fs::remove_file(&file);
        let mut terminal = place.terminal(&[SHORT, &["--save", &file]].concat());
        terminal.send(b"Hello\r");
        terminal.wait_for("per second");
        terminal.wait_for("> ");
        let ended = end(terminal);
        // A terminal that is gone is the end of its input as well.
        assert!(
            ended == Some(status) || name == "no terminal" && ended == Some(0),
            "{name}: {ended:?}"
        );
        assert_eq!(place.answered(&file), 1, "{name}");
    }
}

#[test]
fn a_signal_during_an_answer_keeps_what_was_said() {
    let place = Place::talkative();
    for (name, status) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        let file = place.path(&format!("{name}.walsh"));
        let mut child = command()
            .args([
                "chat",
                "--model",
                &place.model,
                "--threads",
                "1",
                "--save",
                &file,
            ])
            .args(LONG)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(b"Hello\n").expect("the message is read");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        assert!(!out.fill_buf().expect("some text").is_empty());
        signal(child.id(), name);
        std::io::copy(&mut out, &mut std::io::sink()).expect("the rest");
        assert_eq!(
            child.wait().expect("it ends").code(),
            Some(status),
            "{name}"
        );
        drop(stdin);
        assert_eq!(place.answered(&file), 1, "{name}");
    }
}

#[test]
fn a_signal_during_a_text_keeps_it() {
    let place = Place::talkative();
    let file = place.path("a.walsh");
    let fixed = ["generate", "--model", &place.model, "--threads", "1"];
    let mut child = command()
        .args(fixed)
        .args(LONG)
        .args(["--save", &file, "Hello"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    assert!(!out.fill_buf().expect("some text").is_empty());
    signal(child.id(), "TERM");
    std::io::copy(&mut out, &mut std::io::sink()).expect("the rest");
    assert_eq!(child.wait().expect("it ends").code(), Some(143));
    let more = ["--load", &file, "-n", "2", "--temperature", "0", "and"];
    walsh(fixed.iter().chain(&more)).ok();
}

#[test]
fn a_reader_that_leaves_ends_the_conversation_and_it_is_kept() {
    let place = Place::new();
    let file = place.path("a.walsh");
    let mut child = command()
        .args(["chat", "--model", &place.model, "--save", &file])
        .args(SHORT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"Hello\n").expect("the message is read");
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    drop(stdin);
    assert_eq!(place.answered(&file), 1);
}

#[test]
fn keys_and_bytes_of_any_kind_lose_nothing() {
    let place = Place::new();
    let mut terminal = place.terminal(SHORT);
    // What comes at once is read one after the other.
    terminal.send(b"caf\xe9 au lait\rand more\r");
    terminal.wait_for("caf\u{fffd} au lait");
    terminal.wait_for("not UTF-8");
    terminal.wait_for("per second");
    terminal.wait_for("> and more\r");
    terminal.wait_for_answer();
    terminal.wait_for("per second");
    // A pasted text is one message, whatever its lines.
    terminal.send(b"\x1b[200~one\rtwo\x1b[201~\r");
    terminal.wait_for_answer();
    terminal.wait_for("per second");
    terminal.send(b"\"\"\"\r/undo\rthree\"\"\"\r");
    terminal.wait_for("three\"\"\"");
    terminal.wait_for_answer();
    terminal.wait_for("per second");
    terminal.send(b"/show\r");
    terminal.wait_for("8 messages");
    terminal.send(b"/nonsense foo\r/undo 2\r//slash\r");
    terminal.wait_for("there is no /nonsense");
    terminal.wait_for("nothing goes behind /undo");
    terminal.wait_for("per second");
    terminal.send(b"/show\r");
    terminal.wait_for("10 messages");
    terminal.wait_for("> ");
    terminal.send(b"\x04");
    assert_eq!(terminal.end(), Some(0));
    // The history is there in the next conversation, for its owner alone.
    let file = place.folder.path().join("cache/chat-history");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&file.metadata().expect("a file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut terminal = place.terminal(SHORT);
    terminal.send(b"\x1b[A\x1b[A");
    terminal.wait_for("> //slash");
    terminal.send(b"\x15\x04");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn settings_change_under_way() {
    let place = Place::new();
    let file = place.path("a.walsh");
    let mut lines = format!("Hello\n/save {file}\n/set kv q8_0\n/set context 200\n/set temp 0.5\n");
    lines.push_str(
        "/set seed 7\n/set max_tokens 3\n/show\n/regenerate\nWhy?\n/system Be brief.\n/system\n",
    );
    lines.push_str(&format!("/show\n/load {file}\n/show\nWhy?\n"));
    let ran = place.pipe(lines.as_bytes(), SHORT);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let shown: Vec<&str> = ran.err.split("Tiny: ").skip(1).collect();
    for part in [
        "of 200 tokens",
        "kv                  q8_0",
        "temperature         0.5",
        "seed                7",
        "max_tokens          3",
        "2 messages",
    ] {
        assert!(shown[0].contains(part), "{part}: {ran:?}");
    }
    assert!(shown[0].contains("text 3 tokens"), "{ran:?}");
    assert!(shown[0].contains("\nBe brief.\n"), "{ran:?}");
    assert!(shown[1].contains("5 messages"), "{ran:?}");
    assert!(
        shown[2].contains("2 messages") && shown[2].contains("f16"),
        "{ran:?}"
    );
    assert_eq!(ran.err.matches("per second").count() / 2, 4, "{ran:?}");
}

#[test]
fn what_cannot_be_done_ends_a_conversation_only_where_nobody_reads_it() {
    let place = Place::new();
    let missing = place.path("missing/a.walsh");
    for (line, part) in [
        ("/set kv q9".to_owned(), "SPEC"),
        ("/set context 3".to_owned(), "context"),
        ("/set top_p 2".to_owned(), "from 0 to 1"),
        ("/set colour red".to_owned(), "max_tokens"),
        (format!("/save {missing}"), "missing"),
        (format!("/load {missing}"), "missing"),
    ] {
        place
            .pipe(format!("Hello\n{line}\n").as_bytes(), SHORT)
            .err_ends(part);
    }
    let mut terminal = place.terminal(&[SHORT, &["--context", "64"]].concat());
    terminal.send(format!("Hello\r/save {missing}\r/load {missing}\r/set kv q9\r").as_bytes());
    terminal.wait_for("walsh: ");
    terminal.wait_for("walsh: ");
    terminal.wait_for("walsh: ");
    terminal.send(format!("{}\r", "long ".repeat(30)).as_bytes());
    terminal.wait_for("/set context");
    terminal.send(b"/set context 256\r/show\r");
    terminal.wait_for("of 256 tokens");
    terminal.wait_for("2 messages");
    terminal.wait_for("> ");
    terminal.send(b"\x04");
    assert_eq!(terminal.end(), Some(0));
}

impl Ran {
    /// The conversation ended with a line that holds `part`.
    #[track_caller]
    fn err_ends(&self, part: &str) {
        assert_eq!(self.status, Some(1), "{self:?}");
        let last = self.err.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("walsh: ") && last.contains(part),
            "{self:?}"
        );
    }
}

#[test]
fn lines_of_any_bytes() {
    let place = Place::new();
    let ran = place.pipe(
        b"\xef\xbb\xbf/undo\nHello\xff\n\"\"\"\none\ntwo\n\"\"\"\nno end",
        SHORT,
    );
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(ran.err.contains("nothing was said"), "{ran:?}");
    assert_eq!(ran.err.matches("not UTF-8").count(), 1, "{ran:?}");
    assert_eq!(ran.err.matches("[prompt").count(), 3, "{ran:?}");
    place.pipe(b"\xff\xfeH\0i\0\n", SHORT).fails(1, "UTF-16");
    place.pipe(b"\"\"\"\nHello\n", SHORT).fails(1, "close it");
    let ran = place.pipe(b"\"\"\"\"\"\"\n\"\"\"\n\n\"\"\"\n", SHORT);
    assert_eq!((ran.status, ran.out.as_str()), (Some(0), ""), "{ran:?}");
    place.pipe(&vec![0; 5 << 20], SHORT).fails(1, "longer than");
}
