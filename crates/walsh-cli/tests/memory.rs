//! Memory is what is used: what a context could hold takes none, and one that cannot fit is refused.
#![cfg(unix)]

#[path = "hostile/child.rs"]
#[allow(dead_code)] // shared with the trial of hostile files
mod child;
mod support;

use support::tiny::Tiny;
use support::{Folder, command, walsh};

/// A cache of this many tokens takes at least 30 MB with the smallest codec, and 410 MB in f32.
const LARGE: &str = "400000";

/// What a run may take more for a larger context.
const MORE: u64 = 10 << 20;

struct Place {
    folder: Folder,
    model: String,
    cache: String,
}

impl Place {
    fn new() -> Self {
        let folder = Folder::new();
        let model = folder.argument("tiny.gguf", &Tiny::default().gguf());
        let cache = folder.path().join("cache");
        let cache = cache.to_str().expect("UTF-8").to_owned();
        let place = Self {
            folder,
            model,
            cache,
        };
        // What is found out about a model's keys takes memory the first time alone.
        walsh(place.arguments(&["--kv", "4bit", "hi"])).ok();
        place
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let fixed = ["generate", "--model", &self.model, "--threads", "1"];
        let few = ["--temperature", "0", "-n", "2", "--cache-dir", &self.cache];
        [&fixed[..], &few, more].concat()
    }

    /// The largest resident memory of a run.
    fn memory(&self, more: &[&str]) -> u64 {
        let mut command = command();
        command.args(self.arguments(more));
        let ended = child::run(&mut command, self.folder.path());
        assert!(ended.went_well(), "{more:?}: {ended:?}");
        ended.memory()
    }
}

#[test]
fn a_large_context_takes_no_more_memory_than_a_small_one() {
    let place = Place::new();
    for kv in [
        "f16",
        "f32",
        "q8_0",
        "4bit",
        "tq2",
        "tq4;recent=1048576",
        "tq4;first=1048576",
    ] {
        let small = place.memory(&["--kv", kv, "--context", "512", "hi"]);
        let large = place.memory(&["--kv", kv, "--context", LARGE, "hi"]);
        assert!(large < small + MORE, "{kv}: {small} and {large} bytes");
    }
}

#[test]
fn a_saved_session_with_a_large_context_is_small_and_is_taken_up_in_as_little() {
    let place = Place::new();
    let path = place.folder.path().join("large.walsh");
    let path = path.to_str().expect("UTF-8");
    for kv in ["f16", "tq4;recent=1048576"] {
        let small = place.memory(&["--kv", kv, "--context", "512", "hi"]);
        let saving = ["--kv", kv, "--context", LARGE, "--save", path, "hi"];
        for arguments in [&saving[..], &["--load", path, " ho"]] {
            let large = place.memory(arguments);
            assert!(large < small + MORE, "{kv}: {small} and {large} bytes");
        }
        let bytes = std::fs::metadata(path).expect("the session").len();
        assert!(bytes < 100_000, "{kv}: {bytes} bytes");
        // It goes on in a context that holds what it has read, and all that it prefills at a time.
        walsh(place.arguments(&["--load", path, "--context", "600", " ho"])).ok();
        walsh(place.arguments(&["--load", path, "--context", "500", " ho"])).fails(1, "at least");
    }
}

#[test]
fn what_cannot_fit_is_refused_with_numbers() {
    let place = Place::new();
    let most = i32::MAX.to_string();
    let refused = |arguments: &[&str]| walsh(place.arguments(arguments));
    let ran = refused(&["--kv", "f32", "--context", &most, "hi"]);
    ran.fails(1, "2.2 TB");
    ran.fails(1, "are free: ask for a context of at most");
    for context in ["2147483648", "9223372036854775807"] {
        refused(&["--context", context, "hi"]).fails(2, "2147483647");
    }
    let inspect = |more: &[&str]| walsh([&["inspect", &place.model], more].concat());
    let many = [
        "--context",
        &most,
        "--kv",
        "f32",
        "--kv",
        "tq4;recent=1048576",
    ];
    let table = inspect(&many).ok();
    for part in [
        "at 2147483647 tokens",
        "2.2 TB, too much",
        "of memory are free",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let found = inspect(&[&many[..], &["--json"]].concat()).json();
    assert_eq!(found["context"], i32::MAX);
    assert!(
        found["available_bytes"]
            .as_u64()
            .is_some_and(|free| free > 0)
    );
    inspect(&["--context", "2147483648"]).fails(2, "2147483647");
    // The note at a run's start, alone on its line.
    let ran = walsh(place.arguments(&["hi"]));
    let note = ran.err.lines().next().unwrap_or_default();
    for part in ["KV cache f16: up to 131.1 kB for 256 tokens, ", " free"] {
        assert!(note.contains(part), "{ran:?}");
    }
}

#[test]
fn a_batch_takes_the_memory_that_it_is_given() {
    let place = Place::new();
    // Sixteen texts of 2,000 tokens at once: a kilobyte for a token in f32.
    let line = |index| format!("{{\"prompt\": \"{index:02} {}\"}}\n", "word ".repeat(390));
    let questions: String = (0..16).map(line).collect();
    let questions = place.folder.file("questions.jsonl", questions.as_bytes());
    let memory = |more: &[&str]| {
        let mut command = command();
        command.arg("batch").arg(&questions);
        command.args(["--model", &place.model, "--threads", "1"]);
        command.args([
            "--temperature",
            "0",
            "-n",
            "2",
            "--kv",
            "f32",
            "--context",
            "2100",
        ]);
        command.args(more);
        let ended = child::run(&mut command, place.folder.path());
        assert!(ended.went_well(), "{more:?}: {ended:?}");
        ended.memory()
    };
    let one = memory(&["--sequences", "1"]);
    let all = memory(&[]);
    let few = memory(&["--kv-memory", "5MB"]);
    assert!(all > one + (20 << 20), "{one} and {all} bytes");
    assert!(few < one + (5 << 20), "{one} and {few} bytes");
}
