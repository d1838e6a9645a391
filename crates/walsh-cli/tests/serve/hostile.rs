//! What no client should send, and what a server should survive.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::http::{connect, request};
use super::support::tiny::Tiny;
use super::support::walsh;
use super::{Folder, Server, user};

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let server = Server::tiny(&["--max-body", "100KB"]);
    let with = |field: &str, value: Value| {
        let mut body = json!({ "messages": user("a"), "max_tokens": 2 });
        body[field] = value;
        body
    };
    for (body, param) in [
        (with("messages", json!("text")), "messages"),
        (with("messages", json!([])), "messages"),
        (
            with("messages", json!([{ "role": "king", "content": "a" }])),
            "messages[0].role",
        ),
        (
            with("messages", json!([{ "role": "user" }])),
            "messages[0].content",
        ),
        (
            with(
                "messages",
                json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] }]),
            ),
            "messages[0].content[0]",
        ),
        (
            with("messages", json!([{ "role": "user", "content": 7 }])),
            "messages[0].content",
        ),
        (with("temperature", json!(-1)), "temperature"),
        (with("temperature", json!("hot")), "temperature"),
        (with("top_p", json!(2)), "top_p"),
        (with("top_k", json!(-5)), "top_k"),
        (with("min_p", json!(1.5)), "min_p"),
        (with("presence_penalty", json!(3)), "presence_penalty"),
        (with("frequency_penalty", json!(-2.5)), "frequency_penalty"),
        (with("repetition_penalty", json!(0)), "repetition_penalty"),
        (
            with("repetition_penalty", json!(1e-45)),
            "repetition_penalty",
        ),
        (with("n", json!(0)), "n"),
        (with("n", json!(1_000_000)), "n"),
        (with("max_tokens", json!(-7)), "max_tokens"),
        (
            with("max_completion_tokens", json!(1.5)),
            "max_completion_tokens",
        ),
        (with("stop", json!(7)), "stop"),
        (with("stop", json!("")), "stop"),
        (with("stop", json!(vec!["a"; 100])), "stop"),
        (with("logit_bias", json!({ "x": 1 })), "logit_bias"),
        (with("logit_bias", json!({ "5": 1000 })), "logit_bias"),
        (with("logit_bias", json!({ "100000": 1 })), "logit_bias"),
        (with("top_logprobs", json!(3)), "top_logprobs"),
        (with("seed", json!("x")), "seed"),
        (with("timeout", json!(-1)), "timeout"),
        (with("priority", json!(1e99)), "priority"),
        (
            with("response_format", json!({ "type": "xml" })),
            "response_format",
        ),
        (
            with("response_format", json!({ "type": "json_schema" })),
            "response_format",
        ),
        (with("tool_choice", json!("sometimes")), "tool_choice"),
        (with("tool_choice", json!("required")), "tool_choice"),
        (with("functions", json!([])), "functions"),
        (
            with("continue_final_message", json!(true)),
            "continue_final_message",
        ),
    ] {
        let error = server.refused(CHAT, &body, 400);
        assert_eq!(error["param"], param, "{body}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let many = with("logprobs", json!(true));
    let many = json!({ "top_logprobs": 21, "logprobs": many["logprobs"], "messages": user("a") });
    assert_eq!(server.refused(CHAT, &many, 400)["param"], "top_logprobs");
    // A text that is too long, a schema that cannot be satisfied, and one that is none.
    let long = server.refused(CHAT, &with("messages", user(&"word ".repeat(500))), 400);
    assert_eq!(long["code"], "context_length_exceeded");
    for schema in [
        json!({ "type": "object", "properties": { "a": false }, "required": ["a"] }),
        json!({ "type": "nonsense" }),
        json!({ "$ref": "http://example.org/schema.json" }),
    ] {
        let format =
            json!({ "type": "json_schema", "json_schema": { "name": "a", "schema": schema } });
        let error = server.refused(CHAT, &with("response_format", format), 400);
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|m| m.contains("constraint")),
            "{error}"
        );
    }
    // Of other clients, in their own form.
    let error = server.post("/v1/messages", &json!({ "messages": user("a") }));
    assert_eq!(error.status, 400);
    assert_eq!(error.json()["type"], "error");
    assert_eq!(error.json()["error"]["type"], "invalid_request_error");
    // Unknown fields are nobody's business.
    server.ok(CHAT, &with("something_new", json!({ "a": 1 })));
}

#[test]
fn bodies_that_are_none() {
    let server = Server::tiny(&["--max-body", "100KB"]);
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        request(server.address, "POST", CHAT, headers, body)
            .expect("an answer")
            .status
    };
    let deep = [vec![b'['; 50_000], vec![b']'; 50_000]].concat();
    for body in [
        &b""[..],
        b"{",
        b"[]",
        b"nul",
        b"{\"messages\": \xff}",
        b"{\"a\": 1e999}",
        &deep,
    ] {
        assert_eq!(
            post(&[JSON], body),
            400,
            "{:?}",
            &body[..body.len().min(30)]
        );
    }
    assert_eq!(post(&[JSON], &[b' '; 200_000]), 413);
    assert_eq!(post(&[("content-type", "text/plain")], b"{}"), 415);
    assert_eq!(post(&[], b"{}"), 415);
    let status = |method: &str, path: &str| {
        request(server.address, method, path, &[], b"")
            .expect("an answer")
            .status
    };
    assert_eq!(status("GET", CHAT), 405);
    assert_eq!(status("GET", "/v2/nothing"), 404);
    assert_eq!(status("GET", "/page/../Cargo.toml"), 404);
    assert_eq!(status("GET", "/page/%2e%2e%2fCargo.toml"), 404);
    // What is no HTTP at all gets an answer, or its connection closed.
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        &[0; 100_000],
    ] {
        let mut stream = connect(server.address).expect("a connection");
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty()
                || answer.starts_with(b"HTTP/1.1 4")
                || answer.starts_with(b"HTTP/1.1 5"),
            "{answer:?}"
        );
    }
    // A body of which half comes, and then nothing.
    let mut half = connect(server.address).expect("a connection");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"mess";
    half.write_all(head.as_bytes()).expect("sent");
    half.shutdown(std::net::Shutdown::Write).expect("shut");
    let mut answer = Vec::new();
    let _ = half.read_to_end(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    server.ok(CHAT, &json!({ "messages": user("a"), "max_tokens": 2 }));
    server.idle();
}

#[test]
fn keys_are_asked_for() {
    let folder = Folder::new();
    let keys = folder.argument("keys.txt", b"# of the team\nsecret-1\n\nsecret-2\n");
    let server = Server::tiny(&["--api-key-file", &keys, "--api-key", "third"]);
    let ask = |header: &[(&str, &str)]| {
        let answer = request(server.address, "GET", "/v1/models", header, b"").expect("an answer");
        answer.status
    };
    for key in ["secret-1", "secret-2", "third"] {
        assert_eq!(ask(&[("authorization", &format!("Bearer {key}"))]), 200);
        assert_eq!(ask(&[("x-api-key", key)]), 200);
    }
    for header in [
        &[][..],
        &[("authorization", "Bearer secret")],
        &[("authorization", "Bearer secret-11")],
        &[("authorization", "Basic secret-1")],
        &[("x-api-key", "")],
        &[("x-api-key", "# of the team")],
    ] {
        assert_eq!(ask(header), 401, "{header:?}");
    }
    let error = server.refused(CHAT, &json!({}), 401);
    assert_eq!(error["code"], "invalid_api_key");
    let error = server.post("/v1/messages", &json!({})).json();
    assert_eq!(error["error"]["type"], "authentication_error");
    // The page and whether it lives are for all.
    assert_eq!(
        (server.get("/").status, server.get("/health").status),
        (200, 200)
    );
    assert_eq!(server.get("/metrics").status, 401);
    assert!(!server.said().contains("secret"));
}

#[test]
fn a_page_elsewhere_gets_nothing() {
    let server = Server::tiny(&["--cors", "https://example.org"]);
    let ask = |headers: &[(&str, &str)]| {
        request(server.address, "GET", "/v1/models", headers, b"").expect("an answer")
    };
    for host in ["localhost:8080", "127.0.0.1", "[::1]:80", "walsh.localhost"] {
        assert_eq!(ask(&[("host", host)]).status, 200, "{host}");
    }
    // A name elsewhere that leads here.
    for host in ["example.com", "localhost.example.com", "10.0.0.1"] {
        assert_eq!(ask(&[("host", host)]).status, 403, "{host}");
    }
    let allowed = |origin: &str| {
        let answer = ask(&[("origin", origin)]);
        answer
            .header("access-control-allow-origin")
            .map(str::to_owned)
    };
    assert_eq!(
        allowed("https://example.org").as_deref(),
        Some("https://example.org")
    );
    assert_eq!(allowed("https://example.com"), None);
}

#[test]
fn too_many_requests_are_told_to_come_again() {
    let server = Server::tiny(&["--sequences", "1", "--queue", "1", "--context", "200"]);
    let body =
        json!({ "messages": user("a"), "ignore_eos": true, "n": 1, "stream": true }).to_string();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask =
            || request(server.address, "POST", CHAT, &[JSON], body.as_bytes()).expect("an answer");
        let threads: Vec<_> = (0..24).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    let (served, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert!(
        !served.is_empty() && !refused.is_empty(),
        "{} {}",
        served.len(),
        refused.len()
    );
    for answer in refused {
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (429, Some("1"))
        );
        assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
    }
    server.idle();
}

#[test]
fn a_hostile_template_ends() {
    let template =
        "{% for a in range(90000) %}{% for b in range(90000) %}{{ a }}{% endfor %}{% endfor %}";
    let tiny = Tiny {
        chat_template: Some(template),
        ..Tiny::default()
    };
    let server = Server::of(&tiny, &[]);
    let start = Instant::now();
    let error = server.refused(CHAT, &json!({ "messages": user("a") }), 400);
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains("chat template")),
        "{error}"
    );
    // A model without one completes texts alone.
    let server = Server::of(
        &Tiny {
            chat_template: None,
            ..Tiny::default()
        },
        &[],
    );
    server.refused(CHAT, &json!({ "messages": user("a") }), 400);
    server.ok(
        "/v1/completions",
        &json!({ "prompt": "a", "max_tokens": 2 }),
    );
}

#[test]
fn numbers_that_are_none_end_their_request_alone() {
    // Logits are products of another matrix than the one that has the embeddings.
    let tiny = Tiny {
        nan_token: Some(usize::from(b'#')),
        extra: vec![("output.weight", &[260, 64])],
        ..Tiny::default()
    };
    let server = Server::of(&tiny, &[]);
    let good = json!({
        "prompt": "abc", "max_tokens": 30, "temperature": 1, "seed": 5, "ignore_eos": true,
        "logit_bias": { "35": -100 },
    });
    let expected = server.ok("/v1/completions", &good)["choices"].clone();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| server.ok("/v1/completions", &good)["choices"].clone()))
            .collect();
        let error = server.refused(
            "/v1/completions",
            &json!({ "prompt": "#", "max_tokens": 3 }),
            500,
        );
        assert_eq!(error["type"], "server_error");
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), expected);
        }
    });
    let streamed = server.post(
        "/v1/completions",
        &json!({ "prompt": "#", "max_tokens": 3, "stream": true }),
    );
    assert!(
        streamed
            .events()
            .iter()
            .any(|event| event["error"]["type"] == "server_error"),
        "{streamed:?}"
    );
    server.idle();
}

#[test]
fn what_cannot_be_served_is_said_before_it_begins() {
    let folder = Folder::new();
    let model = folder.argument("tiny.gguf", &Tiny::default().gguf());
    let empty = folder.argument("keys.txt", b"# none\n");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let serve = |options: &[&str]| walsh([&["serve", "--model", &model][..], options].concat());
    let said = serve(&["--host", "0.0.0.0", "--port", "0"]);
    said.fails(2, "--no-auth");
    serve(&["--api-key-file", &empty]).fails(1, "it has no key");
    serve(&["--api-key", "two words"]).fails(2, "a key has to be");
    let last = |ran: super::support::Ran| ran.err.lines().last().unwrap_or_default().to_owned();
    let said = last(serve(&["--port", &port]));
    assert!(said.contains("cannot listen at 127.0.0.1"), "{said}");
    let said = last(serve(&["--port", "0", "--model", &model]));
    assert!(said.contains("two models are called \"tiny\""), "{said}");
    let said = last(serve(&["--port", "0", "--kv-memory", "1KB"]));
    assert!(said.contains("kv_memory"), "{said}");
    for (share, what) in [
        ("other=1MB", "there is no model"),
        ("tiny=2MB", "leaves nothing"),
        ("tiny", "coder=2GB"),
    ] {
        let said = last(serve(&[
            "--port",
            "0",
            "--kv-memory",
            "1MB",
            "--kv-share",
            share,
        ]));
        assert!(said.contains(what), "{said}");
    }
    let said = last(serve(&["--port", "0", "--request-timeout", "0"]));
    assert!(said.contains("above 0"), "{said}");
    let said = last(serve(&["--port", "0", "--grace", "soon"]));
    assert!(said.contains("30s"), "{said}");
    let said = last(walsh(["serve", "--model", "/no/such/file.gguf"]));
    assert!(said.contains("/no/such/file.gguf"), "{said}");
}

#[test]
fn what_is_wrong_is_named_by_its_field() {
    let server = Server::tiny(&["--log", "off"]);
    let chat = |more: Value| {
        let mut body = json!({ "messages": user("a"), "max_tokens": 2 });
        let more = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(more);
        body
    };
    let every: Map<String, Value> = (0..260).map(|id| (id.to_string(), json!(-100))).collect();
    let responses = "/v1/responses";
    let refused = [
        (CHAT, json!({ "max_tokens": 2 }), "messages"),
        ("/tokenize", json!({}), "content"),
        (CHAT, chat(json!({ "logit_bias": every })), "logit_bias"),
        (CHAT, chat(json!({ "timeout": 0 })), "timeout"),
        (CHAT, chat(json!({ "timeout": 1e300 })), "timeout"),
        (responses, json!({}), "input"),
        (responses, json!({ "input": [] }), "input"),
        (
            responses,
            json!({ "input": [{ "role": "robot", "content": "a" }] }),
            "input[0].role",
        ),
        (responses, json!({ "input": "a", "text": "json" }), "text"),
        (
            responses,
            json!({ "input": "a", "reasoning": 5 }),
            "reasoning",
        ),
        (
            responses,
            json!({ "input": "a", "metadata": 5 }),
            "metadata",
        ),
        (
            responses,
            json!({ "input": "a", "conversation": "conv_1" }),
            "conversation",
        ),
        (responses, json!({ "prompt": { "id": "pmpt_1" } }), "prompt"),
        (
            responses,
            json!({ "input": "a", "tools": [{ "type": "web_search" }] }),
            "tools[0]",
        ),
    ];
    for (path, body, field) in refused {
        let error = server.refused(path, &body, 400);
        assert_eq!(error["param"], field, "{error} {body}");
        let message = error["message"].as_str().expect("a message");
        assert!(
            message.len() < 200 && !message.contains("Some("),
            "{message}"
        );
    }
    // Whoever streams is told so too.
    let body = chat(json!({ "logit_bias": every, "stream": true }));
    let events = server.post(CHAT, &body).events();
    let mut errors = events
        .iter()
        .filter_map(|event| event["error"]["param"].as_str());
    assert_eq!(errors.next(), Some("logit_bias"), "{events:?}");
    server.idle();
}
