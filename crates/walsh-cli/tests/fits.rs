//! `walsh fit`, and what budgets mean before and after it.

mod support;

use support::tiny::Tiny;
use support::{Folder, Ran, walsh};

struct Place {
    folder: Folder,
    model: String,
    cache: String,
}

impl Place {
    fn new() -> Self {
        let folder = Folder::new();
        let model = folder.argument("tiny.gguf", &Tiny::default().gguf());
        let cache = folder
            .path()
            .join("cache")
            .to_str()
            .expect("UTF-8")
            .to_owned();
        folder.file("book.txt", "One text, and another. ".repeat(20).as_bytes());
        Self {
            folder,
            model,
            cache,
        }
    }

    fn run(&self, command: &str, more: &[&str]) -> Ran {
        let fixed = [
            command,
            "--model",
            &self.model,
            "--cache-dir",
            &self.cache,
            "--threads",
            "1",
        ];
        walsh(fixed.iter().chain(more).copied())
    }

    fn perplexity(&self, more: &[&str]) -> Ran {
        let book = self.folder.path().join("book.txt");
        let book = book.to_str().expect("UTF-8");
        let fixed = [
            "--file",
            book,
            "--context",
            "32",
            "--chunks",
            "1",
            "--kv",
            "f32",
            "--kv",
            "3.5bit",
        ];
        self.run("perplexity", &[&fixed[..], more].concat())
    }
}

#[test]
fn a_budget_is_what_a_fit_says_and_that_is_reported() {
    let place = Place::new();
    let unfitted = place.perplexity(&[]);
    assert!(
        unfitted.err.contains("3.5bit: all layers alike"),
        "{unfitted:?}"
    );
    assert!(
        unfitted.err.contains("'walsh fit' makes one"),
        "{unfitted:?}"
    );
    let report = place.perplexity(&["--json"]).json();
    assert!(report["results"][1].get("policy").is_none(), "{report}");

    let fit = place
        .run("fit", &["--tokens", "64", "--budget", "3.5", "--json"])
        .json();
    let spec = fit["kv"].as_str().expect("a SPEC");
    assert_eq!(fit["layers"].as_array().expect("layers").len(), 2);
    assert_eq!(
        (fit["tokens"].as_u64(), fit["budget"].as_f64()),
        (Some(64), Some(3.5))
    );
    let bits = fit["bits_per_value"].as_f64().expect("bits");
    for (at, tokens) in [1024.0, 4096.0, 32768.0].into_iter().enumerate() {
        let behind = &fit["bits_per_value_behind"][at];
        assert_eq!(behind["tokens"].as_f64(), Some(tokens));
        // 36 tokens in q8_0, of 8.5 bits a number.
        let expected = bits + 36.0 * 8.5 / tokens;
        let found = behind["bits"].as_f64().expect("bits");
        assert!((found - expected).abs() < 1e-9, "{fit}");
    }
    assert!(
        fit["layers"][0]["keys"]["kld"].as_f64() > Some(0.0),
        "{fit}"
    );

    let report = place.perplexity(&["--json"]).json();
    let result = &report["results"][1];
    assert_eq!(
        (&result["kv"], &result["policy"]),
        (&"3.5bit".into(), &spec.into())
    );
    assert_eq!(result["bits_per_value"], fit["bits_per_value"]);
    let fitted = place.perplexity(&[]);
    assert!(!fitted.err.contains("alike"), "{fitted:?}");
    assert!(
        fitted
            .ok()
            .contains(&format!("3.5bit, fitted to the model: {spec}\n"))
    );
    let text = ["--kv", "3.5bit", "-n", "2", "Hello"];
    let generated = place.run("generate", &text);
    assert!(
        generated.err.contains(&format!("KV cache {spec}: ")),
        "{generated:?}"
    );
}

#[test]
fn a_fit_is_shown_as_a_table_and_its_spec_is_taken() {
    let place = Place::new();
    let table = place
        .run("fit", &["--tokens", "64", "--budget", "2.5"])
        .ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains("64 tokens"), "{table}");
    assert!(
        lines[2].starts_with("  0 ") && lines[3].starts_with("  1 "),
        "{table}"
    );
    let spec = table.trim_end().lines().last().expect("a line").trim();
    place
        .run("generate", &["--kv", spec, "-n", "2", "Hello"])
        .ok();
    place
        .run("fit", &["--tokens", "1000000"])
        .fails(1, "tokens must be from 64 to 256");
}

#[test]
fn statistics_say_what_the_codes_lose() {
    let place = Place::new();
    let fixed = ["--tokens", "64", "--budget", "3"];
    let plain = place.run("fit", &[&fixed[..], &["--json"]].concat()).json();
    assert!(plain["layers"][0]["keys"].get("rms").is_none(), "{plain}");
    let fit = place
        .run("fit", &[&fixed[..], &["--json", "--stats"]].concat())
        .json();
    for layer in fit["layers"].as_array().expect("layers") {
        for side in [&layer["keys"], &layer["values"]] {
            let number = |name: &str| side[name].as_f64().expect(name);
            // Lloyd-Max's errors for a normal distribution, which few vectors of a small model come near.
            let expected = match side["codec"].as_str().expect("a codec") {
                "tq2" => 0.1175,
                "tq3" => 0.0345,
                "tq4" => 0.0095,
                "tq5" => 0.0025,
                _ => 0.00064,
            };
            let error = number("squared_error");
            assert!((0.3..3.0).contains(&(error / expected)), "{side}");
            assert!((0.9..1.2).contains(&number("scaled_rms")), "{side}");
            assert!(number("rms") > 0.0, "{side}");
        }
    }
    let table = place.run("fit", &[&fixed[..], &["--stats"]].concat()).ok();
    let lines: Vec<&str> = table.trim_end().lines().collect();
    assert!(lines[lines.len() - 3].contains("scaled"), "{table}");
    assert!(lines[lines.len() - 1].starts_with("  1 "), "{table}");
}
