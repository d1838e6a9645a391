//! The packages that people use: PyPI's `openai` and `anthropic`, npm's `openai` and `ai`; and `schemathesis`, which draws
//! requests from the server's OpenAPI document.

use std::path::PathBuf;
use std::process::Command;

use super::Server;
use super::documents::blocks;
use super::support::{Folder, root};

/// Where packages are kept between runs.
fn tools() -> PathBuf {
    root().join("target/tools/clients")
}

/// Whatever is asked of what the document has is answered as it says: with no error of the server's, with what it says of
/// status and form, and what breaks it is refused.
#[test]
fn the_document_is_kept_to() {
    let folder = Folder::new();
    let slots = folder.path().join("slots");
    let slots = slots.to_str().expect("UTF-8");
    let times = ["--request-timeout", "5s", "--read-timeout", "5s"];
    let server = Server::tiny(&[&["--log", "off", "--slot-folder", slots], &times[..]].concat());
    let suites = root().join("crates/walsh-cli/tests/serve/clients/run.sh");
    let output = Command::new(suites)
        .arg(format!("http://{}", server.address))
        .args(["--document", "20", "--tools"])
        .arg(tools())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    let lines = said.lines().map(str::trim);
    let generated = lines.rev().find(|line| line.contains("generated"));
    println!("{}", generated.expect("a count"));
    server.idle();
}

/// Runs the suites, which make what they need of packages, and then what the documents have for these.
#[test]
fn clients_find_what_they_expect() {
    let server = Server::real(&["--deterministic", "--log", "off"]);
    let keyed = Server::real(&["--deterministic", "--log", "off", "--api-key", "sesame"]);
    let url = |server: &Server| format!("http://{}", server.address);
    let suites = root().join("crates/walsh-cli/tests/serve/clients/run.sh");
    let output = Command::new(suites)
        .args([&url(&server), &url(&keyed), "sesame", "--schemas", "40"])
        .arg("--tools")
        .arg(tools())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("ok "))
        .collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", wrong.join("\n"));
    println!("{}", wrong.join("\n"));
    server.idle();

    let folder = Folder::new();
    for (language, program, name) in [
        ("python", "python/bin/python", "a.py"),
        ("js", "node", "a.mjs"),
    ] {
        let blocks = blocks("docs/book/src/serve.md", language, &server);
        assert!(!blocks.is_empty(), "{language}");
        for block in blocks {
            // Node finds packages beside a module alone.
            let (program, file) = match language {
                "js" => ("node".into(), tools().join("node").join(name)),
                _ => (tools().join(program), folder.path().join(name)),
            };
            std::fs::write(&file, &block).expect("the file is written");
            let output = Command::new(program).arg(file).output().expect("it starts");
            let said = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && said.len() > 20,
                "{block}\n{said}\n{errors}"
            );
        }
    }
}
