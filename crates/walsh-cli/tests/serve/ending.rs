//! Clients that go away, and servers that are asked to end.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{connect, receive, send};
use super::support::tiny::Tiny;
use super::{Server, user, wait};

const JSON: (&str, &str) = ("content-type", "application/json");

/// An answer that goes on until the context is full.
fn endless(stream: bool) -> Value {
    json!({ "messages": user("go on"), "stream": stream, "ignore_eos": true, "temperature": 0 })
}

/// A model that takes its time: a long context, and not the smallest of layers.
fn slow() -> Tiny {
    Tiny {
        layers: 24,
        metadata: vec![("llama.context_length", Some(65536u32.into()))],
        ..Tiny::default()
    }
}

#[test]
fn who_goes_away_ends_the_answer() {
    let server = Server::of(&slow(), &["--context", "60000"]);
    for (stream, path) in [
        (true, "/v1/chat/completions"),
        (false, "/v1/chat/completions"),
        (true, "/v1/messages"),
    ] {
        let before = server.figure("walsh_requests_cancelled_total");
        let mut client = connect(server.address).expect("a connection");
        let mut body = endless(stream);
        body["max_tokens"] = 50_000.into();
        send(
            &mut client,
            ("POST", path),
            &[JSON],
            body.to_string().as_bytes(),
        )
        .expect("sent");
        let runs = || (server.figure("walsh_requests_running") > 0.0).then_some(());
        wait(runs).expect("it runs");
        if stream {
            client
                .read_exact(&mut [0; 200])
                .expect("the answer's beginning");
        }
        drop(client);
        let gone = Instant::now();
        server.idle();
        // Tens of thousands of tokens take longer.
        assert!(gone.elapsed() < Duration::from_secs(10));
        assert_eq!(
            server.figure("walsh_requests_cancelled_total"),
            before + 1.0
        );
    }
}

#[test]
fn a_server_that_is_to_end_lets_answers_end_first() {
    let mut server = Server::tiny(&["--grace", "60s"]);
    let mut client = connect(server.address).expect("a connection");
    let body = endless(true).to_string();
    send(
        &mut client,
        ("POST", "/v1/chat/completions"),
        &[JSON],
        body.as_bytes(),
    )
    .expect("sent");
    let mut first = [0; 15];
    client
        .read_exact(&mut first)
        .expect("the answer's beginning");
    server.signal(libc::SIGTERM);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("the rest");
    let whole = String::from_utf8([&first[..], &rest].concat()).expect("UTF-8");
    assert!(
        whole.contains("\"finish_reason\":\"length\"") && whole.contains("[DONE]"),
        "{whole}"
    );
    assert_eq!(server.status().code(), Some(0));
    assert!(connect(server.address).is_err());
    assert!(server.said().contains("ending when requests that run have"));
}

#[test]
fn grace_is_over_at_some_time_and_a_second_signal_waits_for_nothing() {
    for (grace, second) in [("300ms", false), ("600s", true)] {
        let mut server = Server::of(&slow(), &["--context", "60000", "--grace", grace]);
        let mut client = connect(server.address).expect("a connection");
        let body = endless(true).to_string();
        send(
            &mut client,
            ("POST", "/v1/chat/completions"),
            &[JSON],
            body.as_bytes(),
        )
        .expect("sent");
        client
            .read_exact(&mut [0; 200])
            .expect("the answer's beginning");
        let start = Instant::now();
        server.signal(libc::SIGTERM);
        if second {
            let ending = || server.said().contains("ending when").then_some(());
            wait(ending).expect("it was heard");
            server.signal(libc::SIGTERM);
        }
        let status = server.status();
        assert!(start.elapsed() < Duration::from_secs(20));
        assert_eq!(
            status.code(),
            Some(if second { 143 } else { 0 }),
            "{}",
            server.said()
        );
        // The client is told by the end of its connection.
        assert!(receive(client).is_err());
    }
}

#[test]
fn models_that_nobody_asks_for_are_closed_and_opened_again() {
    let server = Server::tiny(&["--close-after", "300ms"]);
    let open = || {
        server.get("/metrics.json").json()["models"]
            .as_array()
            .map_or(0, Vec::len)
    };
    wait(|| (open() == 0).then_some(())).expect("it is closed");
    let answer = server.ok(
        "/v1/completions",
        &json!({ "prompt": "a", "max_tokens": 3 }),
    );
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    assert_eq!(open(), 1);
}
