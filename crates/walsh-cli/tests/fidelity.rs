//! `walsh fidelity` on a tiny model of random weights, whose answers are always wrong and always the same.

mod support;

use serde_json::Value;
use support::tiny::Tiny;
use support::{Folder, Ran, walsh};

/// A tiny model with room for so many tokens, each a byte.
fn model(context: u32, chat_template: Option<&'static str>) -> Tiny {
    Tiny {
        metadata: vec![("llama.context_length", Some(context.into()))],
        chat_template,
        ..Tiny::default()
    }
}

fn fidelity(model: &Tiny, more: &[&str]) -> (Folder, Ran) {
    let folder = Folder::new();
    let path = folder.argument("tiny.gguf", &model.gguf());
    let cache = folder.path().join("cache");
    let fixed = [
        "fidelity",
        "--model",
        &path,
        "--cache-dir",
        cache.to_str().expect("UTF-8"),
        "--threads",
        "1",
    ];
    let ran = walsh(fixed.iter().chain(more).copied());
    (folder, ran)
}

#[test]
fn every_task_is_asked_with_every_spec() {
    let small = ["--count", "3", "--tokens", "12", "--json"];
    let kv = ["--kv", "f32", "--kv", "f32", "--kv", "tq2"];
    let whole = Tiny::default();
    let run = |template, seed| {
        let model = model(2500, template);
        let seed = ["--seed", seed];
        fidelity(&model, &[&small[..], &kv, &seed].concat())
            .1
            .json()
    };
    let report = run(whole.chat_template, "5");
    assert_eq!(report, run(whole.chat_template, "5"));
    assert_eq!(
        (&report["seed"], &report["chat"]),
        (&5.into(), &true.into())
    );
    let names = |report: &Value| -> Vec<String> {
        let tasks = report["tasks"].as_array().expect("tasks").iter();
        tasks
            .map(|task| task["task"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(names(&report), ["greedy", "recall", "sums", "tools"]);
    assert_eq!(report["tasks"][1]["length"], 2048);
    let left_out = report["left_out"].as_array().expect("lines");
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    for task in report["tasks"].as_array().expect("tasks") {
        assert_eq!((&task["cases"], &task["planned"]), (&3.into(), &3.into()));
        let results = task["results"].as_array().expect("results");
        assert_eq!(results.len(), 3);
        // A cache is equal to itself.
        for result in &results[..2] {
            assert_eq!(result["same_result"]["count"], 3, "{result}");
        }
        if task["task"] == "greedy" {
            assert!(results[0]["right"].is_null());
            assert_eq!(results[1]["equal_tokens"]["share"], 1.0);
        } else {
            assert_eq!(results[2]["right"]["of"], 3);
        }
    }
    assert_eq!(report["specs"][1]["same_verdict"]["share"], 1.0);
    let others = run(None, "6");
    assert_eq!(others["chat"], false);
    assert_eq!(names(&others), names(&report));
}

#[test]
fn which_spec_comes_first_changes_no_answer() {
    let run = |kv: [&str; 2]| {
        let asked = [
            "--task", "greedy", "--task", "recall", "--count", "6", "--tokens", "40",
        ];
        let kv = ["--kv", kv[0], "--kv", kv[1], "--json"];
        fidelity(&model(2048, None), &[&asked[..], &kv].concat())
            .1
            .json()
    };
    let (one, other) = (run(["f32", "tq2"]), run(["tq2", "f32"]));
    for task in 0..2 {
        let results = [&one, &other].map(|report| &report["tasks"][task]["results"]);
        let [one, other] = results;
        for figure in ["same_result", "same_verdict"] {
            assert_eq!(one[1][figure], other[1][figure], "{one} {other}");
        }
        assert_eq!(
            one[1]["equal_tokens"]["mean"],
            other[1]["equal_tokens"]["mean"]
        );
        assert_eq!(
            (&one[0]["right"], &one[1]["right"]),
            (&other[1]["right"], &other[0]["right"])
        );
    }
    let equal = &one["tasks"][0]["results"][1]["equal_tokens"]["mean"];
    assert!(equal.as_f64() < Some(40.0), "{one}");
}

#[test]
fn figures_are_tables_and_a_page() {
    let folder = Folder::new();
    let page = folder.path().join("fidelity.html");
    let page = page.to_str().expect("UTF-8");
    let asked = [
        "--task", "sums", "--task", "tools", "--task", "sums", "--count", "2",
    ];
    let kv = ["--kv", "f16", "--kv", "3bit", "--report", page];
    let (_, ran) = fidelity(&model(2048, None), &[&asked[..], &kv].concat());
    assert!(ran.err.contains("3bit: all layers alike"), "{ran:?}");
    let text = ran.ok();
    for part in [
        "as plain text",
        "sums, 2 questions",
        "tools, 2 questions",
        "all tasks",
        "lost",
        "0.0% [0.0, 65.8]",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("greedy"), "{text}");
    let html = std::fs::read_to_string(page).expect("the page");
    assert!(
        html.contains("Fidelity report") && html.contains("--task sums"),
        "{html}"
    );
}

#[test]
fn what_cannot_be_asked_is_one_line() {
    let tiny = model(256, None);
    for (arguments, status, part) in [
        (
            &["--task", "poems"][..],
            2,
            "expected one of greedy, recall, sums, tools",
        ),
        (&["--count", "0"], 2, "from 1"),
        (&["--tokens", "0"], 2, "from 1"),
        (&["--seed", "x"], 2, "--seed"),
        (&["--count", "3000"], 1, "count must be from 1 to 2000"),
        (&["--task", "tools"], 1, "the model has a context of 256"),
        (&["--task", "recall"], 1, "recall takes 2048 tokens"),
        (
            &["--task", "greedy", "--tokens", "300"],
            1,
            "ask for other tasks",
        ),
        (&["--report", "/nonexistent/a.html"], 1, "/nonexistent"),
    ] {
        fidelity(&tiny, arguments).1.fails(status, part);
    }
}
