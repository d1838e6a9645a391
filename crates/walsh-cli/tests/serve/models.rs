//! Several models of one server.

use std::sync::atomic::{AtomicBool, Ordering};

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

/// A model that answers otherwise than the tiny one.
fn other() -> Tiny {
    Tiny {
        name: "Other",
        first_norm: 2.0,
        ..Tiny::default()
    }
}

/// What each model has of the memory for keys and values, and how much all may have.
fn bytes(server: &Server) -> (Vec<(String, u64)>, u64) {
    let text = server.get("/metrics").text();
    let number = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse().ok());
    let mut held = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("walsh_kv_bytes{model=\"") {
            let name = rest.split('"').next().expect("a name").to_owned();
            held.push((name, number(line).expect("a number")));
        }
    }
    let mut lines = text.lines();
    let budget = lines.find_map(|line| number(line.strip_prefix("walsh_kv_budget_bytes ")?));
    (held, budget.expect("a budget"))
}

fn held(server: &Server, name: &str) -> u64 {
    let (held, _) = bytes(server);
    held.iter()
        .find(|(model, _)| model == name)
        .map_or(0, |(_, bytes)| *bytes)
}

/// Says at its end that something is over, however that comes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a model answers to a prompt that no other is like.
fn ask(server: &Server, model: &str, number: usize) -> Value {
    let prompt = format!("{number}{}", "ab".repeat(70));
    let body = json!({ "model": model, "prompt": prompt, "max_tokens": 60, "temperature": 0, "ignore_eos": true });
    let answer = server.ok("/v1/completions", &body);
    assert_eq!(answer["usage"]["completion_tokens"], 60);
    answer["choices"][0]["text"].clone()
}

/// What it answers to several at once.
fn ask_all(server: &Server, model: &str, from: usize) -> Vec<Value> {
    std::thread::scope(|scope| {
        let threads =
            [0, 1, 2, 3].map(|number| scope.spawn(move || ask(server, model, from + number)));
        threads
            .map(|thread| thread.join().expect("an answer"))
            .into()
    })
}

const OPTIONS: [&str; 9] = [
    "--sequences",
    "4",
    "--context",
    "256",
    "--kv",
    "f16",
    "--deterministic",
    "--log",
    "off",
];

/// What models answer that have all that they can use, and how much that is.
fn alone() -> (Vec<Vec<Value>>, u64) {
    let mut full = 0;
    let answers = [Tiny::default(), other()].map(|tiny| {
        let server = Server::of(&tiny, &OPTIONS);
        full = held(&server, "tiny");
        assert_eq!(bytes(&server).1, 0);
        let turns = (0..3).flat_map(|turn| ask_all(&server, "tiny", 4 * turn));
        turns.collect()
    });
    (answers.into(), full)
}

#[test]
fn models_share_one_memory_which_goes_where_the_work_is() {
    let (alone, full) = alone();
    assert!(full > 400_000, "{full}");
    let folder = Folder::new();
    let other = format!("other={}", folder.argument("b.gguf", &other().gguf()));
    let budget = full * 13 / 10;
    let memory = format!("{budget}B");
    let own = ["--model", &other, "--kv-memory", &memory];
    let server = Server::tiny(&[&own[..], &OPTIONS].concat());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                let (held, all) = bytes(&server);
                assert_eq!(all, budget);
                most = most.max(held.iter().map(|(_, bytes)| bytes).sum());
            }
            most
        });
        let over = Over(&over);
        assert_eq!(held(&server, "tiny"), full);
        ask(&server, "other", 90);
        let began = held(&server, "other");
        for turn in 0..3 {
            for (at, name) in ["tiny", "other"].into_iter().enumerate() {
                let answers = ask_all(&server, name, 4 * turn);
                assert_eq!(answers, alone[at][4 * turn..4 * turn + 4], "{name} {turn}");
            }
        }
        // The one has had to leave the other some, and neither was closed for it.
        let ends = ["tiny", "other"].map(|name| held(&server, name));
        assert!(
            ends[0] > 0 && ends[0] < full && ends[1] > began,
            "{ends:?} {began}"
        );
        drop(over);
        let most: u64 = watch.join().expect("no panic");
        assert!(most <= budget && most > full, "{most} {budget}");
    });
    server.idle();
}

#[test]
fn a_model_that_nobody_uses_is_closed_for_another_and_opened_again() {
    let (alone, full) = alone();
    let folder = Folder::new();
    let other = format!("other={}", folder.argument("b.gguf", &other().gguf()));
    // A text is a quarter of what is taken in all: there is room for one, and not for two.
    let memory = format!("{}B", full * 3 / 8);
    let huge = Tiny {
        name: "Huge",
        layers: 8,
        ..Tiny::default()
    };
    let huge = format!("huge={}", folder.argument("c.gguf", &huge.gguf()));
    let own = ["--model", &other, "--model", &huge, "--kv-memory", &memory];
    let server = Server::tiny(&[&own[..], &OPTIONS].concat());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Who looks all the time hinders nobody.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                server.get("/metrics");
            }
        });
        let _over = Over(&over);
        close_and_open_again(&server, &alone);
    });
    // One whose text is more than all of it is told so, and closes nobody.
    let body = json!({ "model": "huge", "prompt": "ab", "max_tokens": 2 });
    let error = server.refused("/v1/completions", &body, 500);
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("kv_memory must be at least"), "{message}");
    assert!(held(&server, "other") > 0);
    server.idle();
    // What engines have done that are closed is not forgotten.
    let text = server.get("/metrics").text();
    for name in ["tiny", "other"] {
        let line = format!("walsh_generated_tokens_total{{model=\"{name}\"}} 360");
        assert!(text.contains(&line), "{text}");
    }
}

fn close_and_open_again(server: &Server, alone: &[Vec<Value>]) {
    for turn in 0..2 {
        for (at, name) in ["tiny", "other"].into_iter().enumerate() {
            assert_eq!(ask(server, name, turn), alone[at][turn], "{name} {turn}");
            let (held, _) = bytes(server);
            let open = held.iter().filter(|(_, bytes)| *bytes > 0);
            let open: Vec<&str> = open.map(|(name, _)| name.as_str()).collect();
            assert_eq!(open, [name]);
        }
    }
    // Who is served is not closed: the other waits for its end.
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| ask_all(server, "tiny", 0));
        let began = super::wait(|| (held(server, "tiny") > 0).then_some(()));
        assert!(began.is_some());
        assert_eq!(ask_all(server, "other", 4), alone[1][4..8]);
        assert_eq!(busy.join().expect("answers"), alone[0][..4]);
    });
}

#[test]
fn a_model_with_a_part_of_its_own_has_that_alone() {
    let folder = Folder::new();
    let more = ["second", "third"].map(|name| {
        let file = folder.argument(&format!("{name}.gguf"), &other().gguf());
        format!("{name}={file}")
    });
    let models = ["--model", &more[0], "--model", &more[1]];
    let shares = ["--kv-memory", "1500KB", "--kv-share", "second=1MB"];
    let server = Server::tiny(&[&models[..], &shares, &OPTIONS[2..]].concat());
    for name in ["second", "third", "tiny"] {
        ask(&server, name, 0);
    }
    assert_eq!(bytes(&server).1, 1_500_000);
    let [tiny, second, third] = ["tiny", "second", "third"].map(|name| held(&server, name));
    assert!(second > 900_000 && second <= 1_000_000, "{second}");
    assert!(
        tiny > 0 && third > 0 && tiny + third <= 500_000,
        "{tiny} {third}"
    );
}
