//! Several models of one server.

use serde_json::{Value, json};

use super::support::tiny::Tiny;
use super::{Folder, Server, user};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn models_have_names_and_others_are_refused() {
    let folder = Folder::new();
    let other = Tiny {
        name: "Other",
        first_norm: 2.0,
        ..Tiny::default()
    };
    let other = format!("other={}", folder.argument("b.gguf", &other.gguf()));
    let server = Server::tiny(&["--model", &other]);
    let listed = server.get("/v1/models").json();
    let names: Vec<&Value> = listed["data"]
        .as_array()
        .expect("models")
        .iter()
        .map(|m| &m["id"])
        .collect();
    assert_eq!(names, ["tiny", "other"]);
    assert_eq!(server.get("/v1/models/other").json()["id"], "other");
    assert_eq!(server.get("/v1/models/none").status, 404);
    let ask = |model: Option<&str>| {
        let body = json!({ "model": model, "prompt": "ab", "max_tokens": 8, "temperature": 0 });
        server.ok("/v1/completions", &body)["choices"][0]["text"].clone()
    };
    assert_eq!(ask(None), ask(Some("tiny")));
    assert_ne!(ask(None), ask(Some("other")));
    assert_eq!(
        server.get("/metrics.json").json()["models"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    let error = server.refused(
        CHAT,
        &json!({ "model": "gpt-4", "messages": user("a") }),
        404,
    );
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("model_not_found"), &json!("model"))
    );
}

#[test]
fn models_have_their_parts_of_the_memory() {
    let folder = Folder::new();
    let more: Vec<String> = ["second", "third"]
        .iter()
        .map(|name| {
            let tiny = Tiny {
                name: "Other",
                ..Tiny::default()
            };
            let file = folder.argument(&format!("{name}.gguf"), &tiny.gguf());
            format!("{name}={file}")
        })
        .collect();
    let models = ["--model", &more[0], "--model", &more[1]];
    let pages = |options: &[&str]| -> Vec<u64> {
        let server = Server::tiny(&[&models[..], &["--log", "off"], options].concat());
        for name in ["tiny", "second", "third"] {
            let body = json!({ "model": name, "prompt": "ab", "max_tokens": 2 });
            server.ok("/v1/completions", &body);
        }
        let shown = server.get("/metrics.json").json();
        let models = shown["models"].as_array().expect("models").iter();
        models
            .map(|model| model["pages"]["total"].as_u64().expect("a number"))
            .collect()
    };
    let equal = pages(&["--kv-memory", "1500KB"]);
    assert!(
        equal[0] > 4 && equal.iter().all(|pages| *pages == equal[0]),
        "{equal:?}"
    );
    let shares = ["--kv-memory", "1500KB", "--kv-share", "second=1MB"];
    let parts = pages(&shares);
    assert_eq!(parts[0], parts[2]);
    assert!(parts[1] > 3 * parts[0] && parts[0] < equal[0], "{parts:?}");
    // What all have of it is no more than there is.
    let sum = |pages: &[u64]| pages.iter().sum::<u64>();
    assert!(sum(&parts) <= sum(&equal) + 2, "{parts:?} {equal:?}");
}
