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
fn bench_says_what_was_packed_and_packing_can_be_switched_off() {
    let run = |device: &str, more: &[&str]| {
        let fixed = [
            "bench",
            "--synthetic",
            "smollm2-135m:q4_0",
            "--device",
            device,
        ];
        let small = [
            "--prompt",
            "0",
            "--generate",
            "1",
            "--depth",
            "0",
            "--repetitions",
            "1",
        ];
        walsh(fixed.iter().chain(&small).chain(more).copied())
    };
    let packed = |device: &str| run(device, &["--json"]).json()["packed_bytes"].as_u64();
    assert_eq!(packed("cpu:packing=never"), Some(0));
    assert_eq!(packed("cpu:isa=portable,packing=always"), Some(0));
    // The products of 30 layers in blocks of 18 bytes: the table, which is the output too, is read row by row.
    let layer = 2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576;
    let all: u64 = 30 * layer / 32 * 18;
    for isa in walsh::Isa::available() {
        let packs = isa.base().name().starts_with("avx");
        let device = format!("cpu:isa={isa},packing=always");
        assert_eq!(packed(&device), Some(if packs { all } else { 0 }), "{isa}");
    }
    if walsh::Isa::available().len() > 1 && cfg!(target_arch = "x86_64") {
        let text = run("cpu:packing=always", &[]).ok();
        assert!(text.contains("59.7 MB of weights packed"), "{text}");
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
fn a_profile_says_where_a_token_goes() {
    let fixed = ["bench", "--synthetic", "smollm2-135m:q4_0", "--profile"];
    let small = [
        "--depth",
        "5",
        "--generate",
        "2",
        "--threads",
        "2",
        "--json",
    ];
    let reports = walsh(fixed.iter().chain(&small)).json();
    let report = &reports[0];
    assert!(report["replay_microseconds"].as_f64().expect("a time") > 0.0);
    for part in ["ops", "kernels"] {
        let rows = report[part].as_array().expect("an array");
        let share = |row: &serde_json::Value| row["share"].as_f64().expect("a share");
        let sum: f64 = rows.iter().map(share).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{part}: {sum}");
    }
    let ops = report["ops"].as_array().expect("an array");
    let calls = |start: &str| {
        let of_op =
            |row: &&serde_json::Value| row["name"].as_str().is_some_and(|n| n.starts_with(start));
        ops.iter()
            .filter(of_op)
            .filter_map(|row| row["calls"].as_u64())
            .sum::<u64>()
    };
    // Seven products a layer and one behind the last; a norm before each half of a layer and one at the end.
    assert_eq!((calls("MatMul"), calls("RmsNorm")), (211, 61));
    // The likeliest token is looked for among all logits, or with the output's product.
    assert_eq!(calls("ArgMax") + calls("MatMulTopK"), 1);
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
    let text = run(&["--op", "RmsNorm", "[1, "]).ok();
    assert!(text.contains("RmsNorm"), "{text}");
    walsh(["bench-ops", "--op", "Conv"]).fails(2, "Attention");
    walsh(["bench-ops", "--quick", "no such case"]).fails(2, "no op matches");
}
