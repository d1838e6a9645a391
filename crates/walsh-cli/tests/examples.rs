//! The examples of the crates `walsh` and `walsh-runtime` do what they say.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use walsh_runtime::Watch;
use walsh_runtime::store::{Store, StoreOptions};

mod support;

use support::Ran;

/// The folder of the examples, which are built first where they are not: of the whole workspace, as tests are.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--workspace", "--examples"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo");
        assert!(built.status.success(), "{built:?}");
        let test = std::env::current_exe().expect("the path of this test");
        let debug = test.ancestors().nth(2).expect("the folder of the build");
        debug.join("examples")
    })
}

fn run(example: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(folder().join(example));
    Ran::new(command.args(arguments).output().expect("it starts"))
}

/// A real model, fetched on first use.
fn model() -> String {
    let store = Store::open(StoreOptions::default()).expect("a store");
    let path = store.resolve("smollm2-135m", &Watch::default(), &mut |_| ());
    let path = path.expect("the model");
    path.into_os_string()
        .into_string()
        .expect("a path in UTF-8")
}

/// The numbers of a line that begins with a word.
fn numbers(text: &str, word: &str) -> Vec<f64> {
    let mut lines = text.lines();
    let line = lines.find(|line| line.split_whitespace().next() == Some(word));
    let line = line.unwrap_or_else(|| panic!("{word}: {text}"));
    let words = line.split_whitespace().skip(1);
    words.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn codecs_lose_less_with_more_bits() {
    let text = run("codecs", &["64"]).ok();
    let [tq3, tq4, q4_0] = ["tq3", "tq4", "q4_0"].map(|name| numbers(&text, name));
    assert_eq!([tq3[0], tq4[0], q4_0[0]], [3.25, 4.25, 4.5]);
    assert!(tq4[1] < 0.4 * tq3[1] && tq4[1] < 0.5 * q4_0[1], "{text}");
    let text = run("codecs", &["40"]).ok();
    assert!(text.contains("tq4          takes no rows of 40"), "{text}");
    assert_eq!(run("codecs", &["x"]).status, Some(1));
}

#[test]
fn products_are_of_the_file() {
    let model = model();
    let text = run(
        "products",
        &[&model, "blk.0.ffn_down.weight", "cpu:threads=1"],
    )
    .ok();
    assert!(text.starts_with("MatMul f32[1, 1536] "), "{text}");
    let sums = text.split_once("[-17.").expect(&text).1;
    assert!(sums.contains("GB of weights per second"), "{text}");
    let missing = run("products", &[&model, "blk.0.none"]);
    assert_eq!(missing.status, Some(1));
    assert!(
        missing.err.contains("there is no such tensor"),
        "{missing:?}"
    );
}

#[test]
fn an_answer_comes() {
    let question = "What is the capital of France?";
    let text = run("answer", &[&model(), "4bit", question]).ok();
    assert!(text.contains("Figures { prompt_tokens: 37, "), "{text}");
    assert!(text.contains("bytes of keys and values"), "{text}");
    let missing = run("answer", &["no-such-model", "4bit", question]);
    assert!(missing.err.contains("there is no such file"), "{missing:?}");
}

#[test]
fn branches_part_and_come_back() {
    let text = run("branches", &[&model(), "Once upon a time"]).ok();
    let said = |start: &str| {
        let mut lines = text.lines();
        lines
            .find_map(|line| line.strip_prefix(start))
            .map(str::to_owned)
    };
    let [a, again, b] = ["a: ", "a again: ", "b: "].map(said);
    assert!(a.is_some() && a == again && a != b, "{text}");
    assert!(text.contains("saved and taken up"), "{text}");
}

#[test]
fn many_are_answered_in_their_forms() {
    let text = run("many", &[&model()]).ok();
    assert!(text.contains("The capital of France is Paris"), "{text}");
    assert!(text.contains("The capital of Italy is Rome"), "{text}");
    assert!(
        text.contains("The number of days in a week is 7  [Some(End)]"),
        "{text}"
    );
    // They were served together: four of 16 tokens in no more steps than one of them needs alone.
    let steps = text.split_once("steps: ").expect(&text).1;
    let steps: usize = steps
        .split(',')
        .next()
        .and_then(|n| n.parse().ok())
        .expect(&text);
    assert!(steps < 40, "{text}");
}

#[test]
fn caches_are_compared() {
    let text = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/data/persuasion.txt"
    );
    let said = run("caches", &[&model(), text, "f16", "tq4", "q4_0"]).ok();
    let [f16, tq4, q4_0] = ["f16", "tq4", "q4_0"].map(|spec| numbers(&said, spec));
    assert_eq!([f16[0], tq4[0], q4_0[0]], [23040.0, 6120.0, 6480.0]);
    assert_eq!(f16[2], 0.0);
    assert!(tq4[2] > 0.0005 && tq4[2] < 0.006, "{said}");
    assert!(q4_0[2] > 20.0 * tq4[2], "{said}");
}
