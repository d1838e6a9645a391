//! `walsh bench` on models without a file, and `walsh bench-ops`.

mod support;

use support::walsh;

#[test]
fn bench_runs_a_synthetic_model() {
    let arguments = [
        "bench",
        "--synthetic",
        "smollm2-135m:q4_k_m",
        "--threads",
        "2",
        "--prompt",
        "8",
        "--generate",
        "2",
        "--depth",
        "0",
        "--repetitions",
        "1",
        "--json",
    ];
    let report = walsh(arguments).json();
    assert_eq!(report["model"], "synthetic smollm2-135m:q4_k_m");
    let results = report["results"].as_array().expect("an array");
    assert_eq!(results.len(), 2);
    for result in results {
        assert!(result["tokens_per_second"].as_f64().expect("a number") > 0.0);
    }
}

#[test]
fn synthetic_models_that_do_not_exist_are_one_line() {
    walsh(["bench", "--synthetic", "llama3-8b:q4_2"]).fails(2, "llama3-8b, gemma3-27b");
    walsh([
        "bench",
        "--synthetic",
        "llama3-8b:q4_0",
        "--model",
        "a.gguf",
    ])
    .fails(2, "--model");
}

#[test]
fn a_device_that_times_no_kernels_says_so() {
    let fixed = ["bench", "--synthetic", "smollm2-135m:q4_0", "--profile"];
    walsh(fixed.iter().chain(&["--depth", "0", "--generate", "1"])).fails(1, "one by one");
    walsh(fixed.iter().chain(&["--prompt", "4"])).fails(2, "--prompt");
}

#[test]
fn bench_ops_times_what_is_asked_for() {
    let fixed = ["bench-ops", "--quick", "--threads", "2"];
    let run = |more: &[&'static str]| walsh(fixed.iter().chain(more).copied());
    let report = run(&["--op", "kvstore", "--op", "TopK", "--json"]).json();
    let results = report["results"].as_array().expect("an array");
    assert_eq!(results.len(), 13);
    for result in results {
        assert!(result["microseconds"].as_f64().expect("a number") > 0.0);
        assert!(result["error"].is_null());
    }
    let text = run(&["--op", "RmsNorm", "--cases", "[1, 1]"]).ok();
    assert!(text.contains("RmsNorm"), "{text}");
    walsh(["bench-ops", "--op", "Conv"]).fails(2, "AttentionDecode");
    walsh(["bench-ops", "--quick", "no such case"]).fails(2, "no op matches");
}
