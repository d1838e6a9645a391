//! LoRA adapters, as llama-server's clients and by names of models.

use serde_json::{Value, json};

use super::http::request;
use super::support::tiny::{Tiny, adapter};
use super::{Folder, Server, user};

const CHAT: &str = "/v1/chat/completions";

/// A server whose adapters count for nothing unless somebody asks for them.
fn server(scales: [&str; 2]) -> Server {
    let folder = Folder::new();
    let model = folder.argument("tiny.gguf", &Tiny::default().gguf());
    let [one, two] = [("one", 1), ("two", 2)].map(|(name, seed)| {
        let path = folder.argument(&format!("{name}.gguf"), &adapter(seed));
        format!("{path}={}", scales[seed as usize - 1])
    });
    let options = [
        "--model",
        &model,
        "--device",
        "cpu:threads=1",
        "--log",
        "off",
    ];
    let adapters = ["--lora", &one, "--lora", &two];
    Server::start(folder, &[&options[..], &adapters].concat())
}

fn body(more: &Value) -> Value {
    let mut body = json!({
        "messages": user("How many ships?"), "max_tokens": 12, "temperature": 0, "ignore_eos": true,
    });
    for (key, value) in more.as_object().expect("fields") {
        body[key] = value.clone();
    }
    body
}

fn said(server: &Server, more: &Value) -> String {
    let answer = server.ok(CHAT, &body(more));
    let text = answer["choices"][0]["message"]["content"].as_str();
    text.expect("a text").to_owned()
}

/// What `/lora-adapters` says of scales.
fn scales(server: &Server) -> Vec<f64> {
    let listed = server.get("/lora-adapters").json();
    let listed = listed.as_array().expect("a list");
    let scale = |adapter: &Value| adapter["scale"].as_f64().expect("a scale");
    listed.iter().map(scale).collect()
}

fn set(server: &Server, list: &Value) -> (u16, Value) {
    let answer = server.post("/lora-adapters", list);
    (answer.status, answer.json())
}

#[test]
fn requests_take_what_they_ask_for() {
    let server = server(["0", "0"]);
    let plain = said(&server, &json!({}));
    let one = said(&server, &json!({ "lora": [{ "id": 0, "scale": 1.0 }] }));
    let two = said(&server, &json!({ "lora": [{ "id": 1, "scale": 1 }] }));
    let both = json!({ "lora": [{ "id": 1, "scale": -0.5 }, { "id": 0, "scale": 0.5 }] });
    let both = said(&server, &both);
    let texts = [&plain, &one, &two, &both];
    for (place, text) in texts.iter().enumerate() {
        assert!(!texts[..place].contains(text), "{texts:?}");
    }
    // By names of models.
    let listed = server.get("/v1/models").json();
    let ids: Vec<&str> = listed["data"]
        .as_array()
        .expect("models")
        .iter()
        .filter_map(|model| model["id"].as_str())
        .collect();
    assert_eq!(ids, ["tiny", "tiny:one", "tiny:two"]);
    assert_eq!(server.get("/v1/models/tiny:two").json()["id"], "tiny:two");
    let named = server.ok(CHAT, &body(&json!({ "model": "tiny:two" })));
    assert_eq!(named["model"], "tiny:two");
    assert_eq!(named["choices"][0]["message"]["content"], two.as_str());
    assert_eq!(said(&server, &json!({ "model": "tiny" })), plain);
    // What a request says itself comes first.
    let own = json!({ "model": "tiny:two", "lora": [{ "id": 0, "scale": 1 }] });
    assert_eq!(said(&server, &own), one);
    assert_eq!(
        said(&server, &json!({ "model": "tiny:two", "lora": [] })),
        plain
    );
    server.refused(CHAT, &body(&json!({ "model": "tiny:three" })), 404);
    let embedded = |model: &str| {
        let body = json!({ "model": model, "input": "ships" });
        server.ok("/v1/embeddings", &body)["data"][0]["embedding"].clone()
    };
    assert_ne!(embedded("tiny:one"), embedded("tiny"));
    let completion =
        json!({ "prompt": "ships", "n_predict": 8, "temperature": 0, "ignore_eos": true });
    let complete = |path: &str, more: &Value| {
        let mut body = completion.clone();
        body["lora"] = more.clone();
        server.ok(path, &body)
    };
    let with = complete("/completion", &json!([{ "id": 0, "scale": 1 }]));
    assert_ne!(
        with["content"],
        complete("/completion", &json!([]))["content"]
    );
}

#[test]
fn what_all_take_is_set_as_llama_servers() {
    let server = server(["0", "1"]);
    let listed = server.get("/lora-adapters").json();
    assert_eq!(listed[0]["id"], 0);
    assert_eq!(listed[1]["name"], "two");
    assert!(
        listed[0]["path"]
            .as_str()
            .expect("a path")
            .ends_with("one.gguf")
    );
    assert_eq!(scales(&server), [0.0, 1.0]);
    let two = said(&server, &json!({}));
    let one = said(&server, &json!({ "lora": [{ "id": 0, "scale": 1 }] }));
    assert_ne!(one, two);
    assert_eq!(
        set(&server, &json!([{ "id": 0, "scale": 1 }])),
        (200, json!({ "success": true }))
    );
    assert_eq!(scales(&server), [1.0, 0.0]);
    assert_eq!(said(&server, &json!({})), one);
    assert_eq!(said(&server, &json!({ "model": "tiny:two" })), two);
    assert_eq!(set(&server, &json!([])).0, 200);
    assert_eq!(scales(&server), [0.0, 0.0]);
    let plain = said(&server, &json!({}));
    assert_eq!(plain, said(&server, &json!({ "lora": [] })));
    assert!(![&one, &two].contains(&&plain));
}

#[test]
fn what_cannot_be_taken_is_refused() {
    let server = server(["0", "0"]);
    for (list, words) in [
        (
            json!([{ "id": 2, "scale": 1 }]),
            "id is 2: give a number below 2",
        ),
        (
            json!([{ "id": -1, "scale": 1 }]),
            "id is -1: give a number below 2",
        ),
        (
            json!([{ "id": 0, "scale": 1 }, { "id": 0, "scale": 0 }]),
            "id 0 is there twice",
        ),
        (json!([{ "id": 0, "scale": 1e300 }]), "scale"),
        (json!([{ "id": 0 }]), "scale is missing"),
        (json!([{ "scale": 1 }]), "id is missing"),
        (json!({ "id": 0, "scale": 1 }), "sequence"),
        (json!("one"), "sequence"),
    ] {
        let error = server.refused(CHAT, &body(&json!({ "lora": list })), 400);
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(words), "{list}: {message}");
        let (status, answer) = set(&server, &list);
        assert_eq!(status, 400, "{list}: {answer}");
    }
    let answer = request(server.address, "POST", "/lora-adapters", &[], b"[]").expect("an answer");
    assert_eq!(answer.status, 415);
    let plain = Server::tiny(&["--log", "off"]);
    assert_eq!(plain.get("/lora-adapters").json(), json!([]));
    let error = plain.refused(
        CHAT,
        &body(&json!({ "lora": [{ "id": 0, "scale": 1 }] })),
        400,
    );
    assert!(
        error["message"]
            .to_string()
            .contains("start the server with --lora"),
        "{error}"
    );
}

/// Answers with various adapters in the same steps are those of each alone.
#[test]
fn adapters_are_served_together() {
    let server = server(["0", "0"]);
    let asks = [
        json!({}),
        json!({ "model": "tiny:one" }),
        json!({ "model": "tiny:two" }),
        json!({ "lora": [{ "id": 0, "scale": 0.5 }, { "id": 1, "scale": 0.5 }] }),
    ];
    let alone: Vec<String> = asks.iter().map(|ask| said(&server, ask)).collect();
    let together = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|place| {
                let (server, ask) = (&server, &asks[place % asks.len()]);
                scope.spawn(move || said(server, ask))
            })
            .collect();
        let texts = threads
            .into_iter()
            .map(|thread| thread.join().expect("an answer"));
        texts.collect::<Vec<_>>()
    });
    for (place, text) in together.iter().enumerate() {
        assert_eq!(*text, alone[place % asks.len()]);
    }
}
