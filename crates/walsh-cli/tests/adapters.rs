//! LoRA adapters of every command that takes them.

mod support;

use std::fs;

use serde_json::Value;
use support::tiny::{Tiny, adapter};
use support::{Folder, Ran, walsh};
use walsh::formats::DType;

struct Place {
    folder: Folder,
    model: String,
    /// Two adapters.
    one: String,
    two: String,
}

impl Place {
    fn new() -> Self {
        let folder = Folder::new();
        // Wide enough to be merged without much loss.
        let tiny = Tiny {
            dtype: DType::F32,
            ..Tiny::default()
        };
        Self {
            model: folder.argument("tiny.gguf", &tiny.gguf()),
            one: folder.argument("one.gguf", &adapter(1)),
            two: folder.argument("two.gguf", &adapter(2)),
            folder,
        }
    }

    fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    fn run(&self, command: &str, more: &[&str]) -> Ran {
        let fixed = [command, "--model", &self.model, "--threads", "1"];
        walsh(fixed.iter().chain(more).copied())
    }

    fn generate(&self, more: &[&str]) -> String {
        let fixed = ["--temperature", "0", "--max-tokens", "16", "Hello"];
        self.run("generate", &[&fixed[..], more].concat()).ok()
    }
}

#[test]
fn texts_follow_the_adapters() {
    let place = Place::new();
    let (one, two) = (place.one.as_str(), place.two.as_str());
    let plain = place.generate(&[]);
    let with_one = place.generate(&["--lora", one]);
    let with_both = place.generate(&["--lora", one, "--lora", two]);
    assert_ne!(with_one, plain);
    assert_ne!(with_both, with_one);
    assert_eq!(place.generate(&["--lora", &format!("{one}=0")]), plain);
    let first = format!("{two}=0.0");
    assert_eq!(place.generate(&["--lora", &first, "--lora", one]), with_one);
    // Merged, by the command.
    let merged = place.path("merged.gguf");
    walsh([
        "convert",
        &place.model,
        &merged,
        "--lora",
        one,
        "--lora",
        two,
    ])
    .ok();
    let text = walsh([
        "generate",
        "--model",
        &merged,
        "--threads",
        "1",
        "--temperature",
        "0",
        "--max-tokens",
        "16",
        "Hello",
    ]);
    assert_eq!(text.ok(), with_both);
}

#[test]
fn what_measures_takes_them_too() {
    let place = Place::new();
    let one = place.one.as_str();
    let book = place
        .folder
        .argument("book.txt", "Call me Ishmael. ".repeat(20).as_bytes());
    let perplexity = |more: &[&str]| -> f64 {
        let fixed = [
            "--file",
            &book,
            "--context",
            "64",
            "--chunks",
            "1",
            "--kv",
            "f16",
            "--json",
        ];
        let report = place.run("perplexity", &[&fixed[..], more].concat()).json();
        let found = report["results"][0]["ppl"].as_f64();
        found.unwrap_or_else(|| panic!("{report}"))
    };
    assert_ne!(perplexity(&["--lora", one]), perplexity(&[]));
    let bench = [
        "--lora",
        one,
        "--prompt",
        "4",
        "--generate",
        "2",
        "--depth",
        "0",
        "--repetitions",
        "1",
    ];
    place.run("bench", &bench).ok();
    let line = br#"{"prompt": "Hello", "max_tokens": 16, "temperature": 0}"#;
    let lines = place.folder.argument("lines.jsonl", line);
    let batch = |more: &[&str]| -> Value {
        let answer = place.run("batch", &[&[lines.as_str()], more].concat()).ok();
        serde_json::from_str(&answer).expect("JSON")
    };
    let (plain, with_one) = (batch(&[]), batch(&["--lora", one]));
    assert_ne!(plain["text"], with_one["text"]);
    let line = br#"{"prompt": "Hello", "max_tokens": 16, "temperature": 0, "lora": []}"#;
    place.folder.argument("lines.jsonl", line);
    assert_eq!(batch(&["--lora", one])["text"], plain["text"]);
    let line = br#"{"prompt": "Hello", "lora": [{"id": 1, "scale": 1}]}"#;
    place.folder.argument("lines.jsonl", line);
    let ran = place.run("batch", &[lines.as_str(), "--lora", one]);
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(ran.out.contains("adapters below the model's 1"), "{ran:?}");
}

#[test]
fn a_session_needs_its_adapters() {
    let place = Place::new();
    let (one, saved) = (place.one.as_str(), place.path("a.walsh"));
    place.generate(&["--lora", one, "--save", &saved]);
    let load = |more: &[&str]| {
        let fixed = ["--temperature", "0", "--max-tokens", "4", "--load", &saved];
        place.run("generate", &[&fixed[..], more].concat())
    };
    load(&["--lora", one]).ok();
    for other in [
        &[][..],
        &["--lora", &place.two],
        &["--lora", &format!("{one}=0.5")],
    ] {
        let ran = load(other);
        assert_eq!(ran.status, Some(1), "{ran:?}");
        assert!(ran.err.contains("with the adapters one=1"), "{ran:?}");
    }
}

#[test]
fn what_is_no_adapter_is_refused_in_a_line() {
    let place = Place::new();
    let one = place.one.as_str();
    let cut = {
        let bytes = fs::read(one).expect("the file");
        place
            .folder
            .argument("cut.gguf", &bytes[..bytes.len() - 100])
    };
    let (nan, twice) = (format!("{one}=nan"), ["--lora", one, "--lora", one]);
    for (status, more, words) in [
        (1, &["--lora", "nothing.gguf"][..], "nothing.gguf"),
        (1, &["--lora", &place.model], "it is no LoRA adapter"),
        (1, &["--lora", &cut], "cut.gguf"),
        (1, &twice, "it is the same adapter"),
        (2, &["--lora", &nan], "finite"),
        (2, &["--lora-scaled", one], "--lora PATH=SCALE"),
    ] {
        let ran = place.run("generate", &[&["Hello"], more].concat());
        assert_eq!(ran.status, Some(status), "{ran:?}");
        assert!(ran.err.contains(words), "{ran:?}");
    }
    let out = place.path("out.gguf");
    for (status, arguments, words) in [
        (2, &["convert", &place.model, &out][..], "'walsh quantize'"),
        (
            1,
            &["convert", &place.model, &out, "--lora", &cut],
            "cut.gguf",
        ),
        (
            1,
            &["convert", &place.model, &out, "--lora", one, "--lora", one],
            "the same adapter",
        ),
        (
            2,
            &["convert", &place.model, one, "--lora", one],
            "one of the files that are read",
        ),
    ] {
        let ran = walsh(arguments);
        assert_eq!(ran.status, Some(status), "{ran:?}");
        assert!(ran.err.contains(words), "{ran:?}");
    }
    assert!(!std::path::Path::new(&out).exists());
}

/// Quantised weights are quantised again, and that is said.
#[test]
fn merging_into_quantised_weights_is_told() {
    let place = Place::new();
    let small = place.folder.argument("q8.gguf", &Tiny::default().gguf());
    let out = place.path("out.gguf");
    let report = walsh(["convert", &small, &out, "--lora", &place.one, "--json"]).json();
    assert_eq!(report["type"], Value::Null);
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("6 tensors that an adapter is added to"),
        "{notes}"
    );
    let tensors = report["tensors"].as_array().expect("tensors");
    assert!(tensors.iter().all(|tensor| tensor["from"] == tensor["to"]));
    let halves = [
        "convert", &small, &out, "--lora", &place.one, "--type", "f16", "--json",
    ];
    let report = walsh(halves).json();
    assert_eq!(report["type"], "f16");
}
