//! What the documents say of the server, and what is packaged for it.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::Server;
use super::support::{Folder, root, walsh};

/// The blocks of a document in a language, with the server's address put in.
pub(crate) fn blocks(document: &str, language: &str, server: &Server) -> Vec<String> {
    let text = fs::read_to_string(root().join(document)).expect("a document");
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1);
    let blocks = blocks.map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned());
    let address = server.address.to_string();
    blocks
        .map(|block| block.replace("127.0.0.1:8080", &address))
        .collect()
}

#[test]
fn the_documents_requests_are_answered() {
    let folder = Folder::new();
    let slots = folder.path().join("slots");
    let slots = slots.to_str().expect("UTF-8");
    let server = Server::real(&["--log", "off", "--slot-folder", slots]);
    let mut seen = 0;
    for document in ["README.md", "docs/book/src/serve.md"] {
        for block in blocks(document, "bash", &server) {
            for command in block.replace("\\\n", " ").lines() {
                let output = Command::new("sh")
                    .args(["-c", command])
                    .output()
                    .expect("a shell");
                let said = String::from_utf8(output.stdout).expect("UTF-8");
                let answer: Value = serde_json::from_str(&said).unwrap_or_else(|error| {
                    panic!(
                        "{error}: {command}: {said} {:?}",
                        String::from_utf8_lossy(&output.stderr)
                    )
                });
                assert!(
                    answer.get("error").is_none()
                        && (answer["usage"].is_object() || answer["id_slot"].is_number()),
                    "{command}: {answer}"
                );
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 8);
}

/// Runs a packaged command line as far as it can be here: it names a file that is not there.
fn is_understood(arguments: &[&str]) {
    let ran = walsh(arguments);
    assert_eq!(ran.status, Some(1), "{arguments:?}: {ran:?}");
    assert!(ran.err.contains("/keys: "), "{ran:?}");
}

#[test]
fn the_unit_is_one() {
    let text = fs::read_to_string(root().join("packaging/walsh.service")).expect("the unit");
    let mut sections = Vec::new();
    let mut start = None;
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            sections.push(name);
            continue;
        }
        let (key, value) = line.split_once('=').expect("a key and a value");
        assert!(
            !sections.is_empty() && !key.contains(' ') && !value.is_empty(),
            "{line}"
        );
        if key == "ExecStart" {
            start = Some(value);
        }
    }
    assert_eq!(sections, ["Unit", "Service", "Install"]);
    let command = start
        .expect("a command")
        .replace("${CREDENTIALS_DIRECTORY}", "/no/such/folder");
    let words: Vec<&str> = command.split(' ').collect();
    assert!(words[0].ends_with("/walsh"));
    is_understood(&words[1..]);
    // Where the system has what knows units, it finds nothing wrong with this one.
    let folder = Folder::new();
    let unit = folder.argument(
        "walsh.service",
        text.replace("/usr/local/bin/walsh", "/bin/true").as_bytes(),
    );
    match Command::new("systemd-analyze")
        .args(["verify", &unit])
        .output()
    {
        Ok(output) => assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => println!("systemd-analyze was not run: {error}"),
    }
}

#[test]
fn the_containerfile_is_one() {
    let text = fs::read_to_string(root().join("packaging/Containerfile")).expect("the file");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let known = [
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "ENTRYPOINT",
        "CMD",
    ];
    for line in &lines {
        let word = line.split(' ').next().unwrap_or_default();
        assert!(known.contains(&word), "{line}");
    }
    let array = |word: &str| -> Vec<String> {
        let line = lines
            .iter()
            .find_map(|line| line.strip_prefix(word))
            .expect("a line");
        serde_json::from_str(line).expect("an array of texts")
    };
    let mut words = array("ENTRYPOINT ");
    words.extend(
        array("CMD ")
            .into_iter()
            .map(|word| word.replace("/keys", "/no/such/keys")),
    );
    assert_eq!(words[0], "walsh");
    let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    is_understood(&words);
    // Who runs it is not root, and what is built is what the repository builds.
    let user = lines
        .iter()
        .position(|line| line.starts_with("USER "))
        .expect("a user");
    assert!(
        lines[user + 1..]
            .iter()
            .all(|line| !line.starts_with("RUN"))
    );
    assert!(text.contains("cargo build --release --locked --package walsh-cli"));
}

#[test]
fn a_document_describes_what_there_is() {
    let server = Server::tiny(&["--log", "off"]);
    let document = server.get("/openapi.json").json();
    assert_eq!(document["openapi"].as_str().map(|v| &v[..2]), Some("3."));
    let paths = document["paths"].as_object().expect("paths");
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/messages",
        "/tokenize",
        "/slots/{id}",
    ] {
        let operation = &paths[path]["post"];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert!(
            schema.is_object() && operation["responses"]["4XX"].is_object(),
            "{path}: {operation}"
        );
    }
    for path in [
        "/v1/models/{model}",
        "/v1/health",
        "/health",
        "/slots",
        "/metrics",
    ] {
        assert!(paths[path]["get"].is_object(), "{path}");
    }
    // What is described takes what is described, and nothing of it is unknown.
    let text = document.to_string();
    for field in [
        "max_completion_tokens",
        "response_format",
        "presence_penalty",
        "min_p",
        "previous_response_id",
        "pooling",
    ] {
        assert!(text.contains(&format!("\"{field}\"")), "{field}");
    }
}
