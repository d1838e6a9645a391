//! Help, and command lines that cannot be.

mod support;

use support::walsh;

const COMMANDS: [&str; 18] = [
    "pull",
    "list",
    "rm",
    "inspect",
    "generate",
    "chat",
    "run",
    "batch",
    "serve",
    "tokenize",
    "perplexity",
    "fidelity",
    "fit",
    "bench",
    "bench-ops",
    "doctor",
    "completions",
    "manual",
];

#[test]
fn help_names_every_command_and_teaches_by_examples() {
    let help = walsh(["--help"]).ok();
    for command in COMMANDS {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command}: {help}"
        );
    }
    assert!(help.contains("Examples:"));
}

#[test]
fn every_command_has_help_without_a_model() {
    for command in COMMANDS {
        let help = walsh([command, "--help"]).ok();
        assert!(help.contains(&format!("Usage: walsh {command}")), "{help}");
    }
    for command in ["generate", "chat", "run", "perplexity", "bench"] {
        let help = walsh([command, "--help"]).ok();
        for word in [
            "--model",
            "--device",
            "--threads",
            "--kv",
            "tq4",
            "k=CODEC,v=CODEC",
            "4bit",
        ] {
            assert!(help.contains(word), "{command} does not speak of {word}");
        }
    }
}

#[test]
fn version_is_printed() {
    let version = walsh(["--version"]).ok();
    assert_eq!(version, format!("walsh {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn no_command_shows_the_help_and_is_an_error() {
    let ran = walsh::<&str>([]);
    assert_eq!(ran.status, Some(2));
    assert!(ran.err.contains("Usage: walsh"), "{ran:?}");
    assert_eq!(ran.out, "");
}

#[test]
fn wrong_command_lines_are_one_line_and_status_2() {
    for (arguments, part) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["generate"], "PROMPT"),
        (&["generate", "--tempreature", "1", "x"], "--temperature"),
        (
            &["generate", "--temperature", "NaN", "x"],
            "a number from 0",
        ),
        (&["generate", "--top-p", "2", "x"], "from 0 to 1"),
        (&["generate", "--max-tokens", "0", "x"], "--max-tokens"),
        (&["generate", "--threads", "0", "x"], "--threads"),
        (&["generate", "--context", "-3", "x"], "-3"),
        (&["generate", "--kv", "tq9", "x"], "tq8"),
        (&["generate", "--kv", "", "x"], "--kv"),
        (&["generate", "--kv", "k=f16", "x"], "v= is missing"),
        (&["generate", "--device", "metal", "x"], "not in this build"),
        (&["generate", "--device", "gpu", "x"], "cpu"),
        (&["generate", "--device", "cuda:first", "x"], "cuda:N"),
        (&["generate", "--system", "be brief", "x"], "--chat"),
        (&["generate", ""], "the prompt is empty"),
        (&["generate", "-p", "x", "y"], "--prompt"),
        (&["generate", "-f", "x", "-p", "y"], "--file"),
        (&["generate", "--stop", "", "x"], "at least one character"),
        (&["generate", "-n", "-2", "x"], "or -1 for no limit"),
        (&["generate", "-n", "1e9", "x"], "a whole number from 1"),
        (
            &["generate", "--seed", "-2", "x"],
            "or -1 for one drawn anew",
        ),
        (&["generate", "--seed", "0.5", "x"], "a whole number from 0"),
        (&["generate", "--top-k", "-1", "x"], "a whole number from 0"),
        (
            &["generate", "--context", "99999999999999999999", "x"],
            "a whole number from 1 to 2147483647",
        ),
        (&["generate", "--temp", "inf", "x"], "a number from 0"),
        (&["generate", "--min-p", "-0.1", "x"], "from 0 to 1"),
        (&["generate", "-ngl", "99", "x"], "--device cuda:0"),
        (&["chat", "--system", "x", "--load", "y"], "--load"),
        (&["run", "x", "y", "-m", "z"], "--model"),
        (&["tokenize"], "there is no text"),
        (&["tokenize", "--decode", "--ids", "1"], "--decode"),
        (&["completions", "cmd"], "fish"),
        (&["manual"], "<FOLDER>"),
        (&["rm"], "<NAME>"),
        (&["bench", "--depth", "-1"], "a whole number from 0"),
        (&["bench", "--repetitions", "0"], "a whole number from 1"),
        (&["perplexity", "--file", "x", "--chunks", "0"], "from 1"),
        (&["perplexity"], "--file"),
        (&["fit", "--budget", "1.9"], "from 2 to 6"),
        (&["fit", "--budget", "-3"], "from 2 to 6"),
        (&["fit", "--budget", "3bit"], "from 2 to 6"),
        (&["fit", "--tokens", "x"], "a whole number"),
        (&["perplexity", "--file", "x", "--context", "2"], "from 4"),
        (
            &["perplexity", "--file", "x", "--kv", "6bit"],
            "unknown budget",
        ),
        (&["bench", "--depth", "0,x"], "--depth"),
    ] {
        walsh(arguments.iter().copied()).fails(2, part);
    }
}

#[test]
fn a_gpu_that_is_not_there_is_one_line_before_a_model_is_fetched() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().to_str().expect("UTF-8");
    for command in [&["generate", "x"][..], &["chat"], &["bench"]] {
        let place = ["--device", "cuda:4095", "--cache-dir", cache];
        let ran = walsh(command.iter().copied().chain(place));
        ran.fails(1, "cuda:4095: ");
    }
    let left = std::fs::read_dir(folder.path())
        .expect("the folder")
        .count();
    assert_eq!(left, 0, "nothing was fetched");
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = walsh(["completions", shell]).ok();
        assert!(script.contains("perplexity"), "{shell}");
    }
}

#[test]
fn every_command_has_a_page_of_the_manual() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("share/man1");
    let argument = pages.to_str().expect("UTF-8");
    assert_eq!(walsh(["manual", argument]).ok(), "");
    let page = |name: &str| {
        let text = std::fs::read_to_string(pages.join(name));
        text.unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert!(page("walsh.1").contains("quantised KV cache"));
    for command in COMMANDS {
        let name = format!("walsh-{command}.1");
        assert!(page(&name).contains("Print help"), "{name}");
    }
    // What is there is replaced, with the same.
    let before = page("walsh-generate.1");
    walsh(["manual", argument]).ok();
    assert_eq!(page("walsh-generate.1"), before);
    let file = pages.join("walsh.1");
    walsh(["manual", file.to_str().expect("UTF-8")]).fails(1, "walsh.1: ");
}
