//! `walsh bench` on models without a file.

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
