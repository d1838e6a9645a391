//! What the interfaces answer.

use serde_json::{Value, json};

use super::http::request;
use super::support::tiny::Tiny;
use super::{Server, user};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn a_chat_is_the_same_whole_and_in_pieces() {
    let server = Server::real(&[]);
    let body = json!({
        "messages": user("What is a lighthouse for?"), "temperature": 0, "max_tokens": 24,
        "logprobs": true, "top_logprobs": 3,
    });
    let whole = server.ok(CHAT, &body);
    let choice = &whole["choices"][0];
    let text = choice["message"]["content"].as_str().expect("a text");
    assert!(text.contains("light"), "{text}");
    assert_eq!(
        (&choice["finish_reason"], &whole["model"]),
        (&json!("length"), &json!("smollm2-135m"))
    );
    let tokens = choice["logprobs"]["content"]
        .as_array()
        .expect("log-probabilities");
    assert_eq!(tokens.len(), 24);
    for token in tokens {
        let top = token["top_logprobs"].as_array().expect("an array");
        assert_eq!((top.len(), &top[0]["logprob"]), (3, &token["logprob"]));
    }
    let said: String = tokens
        .iter()
        .filter_map(|token| token["token"].as_str())
        .collect();
    assert_eq!(said, text);

    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({ "include_usage": true });
    let answer = server.post(CHAT, &streamed);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    let events = answer.events();
    let (last, pieces) = events.split_last().expect("events");
    let delta = |event: &Value| {
        event["choices"][0]["delta"]["content"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(pieces.iter().filter_map(delta).collect::<String>(), text);
    assert_eq!(pieces[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(
        pieces.last().expect("one")["choices"][0]["finish_reason"],
        "length"
    );
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 24);
    assert_eq!(
        last["usage"]["prompt_tokens"],
        whole["usage"]["prompt_tokens"]
    );
    assert!(last["timings"]["predicted_per_second"].as_f64() > Some(0.0));

    // Several answers, each by its own seed, and each again.
    let several = json!({ "messages": user("Tell me a story."), "temperature": 1.2, "max_tokens": 16, "n": 4, "seed": 7 });
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().expect("choices");
        choices
            .iter()
            .map(|choice| choice["message"]["content"].to_string())
            .collect()
    };
    let first = texts(&server.ok(CHAT, &several));
    assert_eq!(first.len(), 4);
    assert!(first.iter().any(|text| *text != first[0]), "{first:?}");
    assert_eq!(texts(&server.ok(CHAT, &several)), first);

    // The same by the other interfaces.
    let anthropic = server.ok(
        "/v1/messages",
        &json!({ "messages": user("What is a lighthouse for?"), "temperature": 0, "max_tokens": 24 }),
    );
    assert_eq!(anthropic["content"][0]["text"], text);
    assert_eq!(anthropic["stop_reason"], "max_tokens");
    let response = server.ok(
        "/v1/responses",
        &json!({ "input": "What is a lighthouse for?", "temperature": 0, "max_output_tokens": 24 }),
    );
    assert_eq!(response["output"][0]["content"][0]["text"], text);
    assert_eq!(
        response["incomplete_details"]["reason"],
        "max_output_tokens"
    );
    let prompt = server.ok(
        "/apply-template",
        &json!({ "messages": user("What is a lighthouse for?") }),
    );
    let completed = server.ok(
        "/v1/completions",
        &json!({ "prompt": prompt["prompt"], "temperature": 0, "max_tokens": 24 }),
    );
    assert_eq!(completed["choices"][0]["text"], text);

    a_second_turn_is_not_read_again(&server);
}

/// What was said before is kept, and gone on from.
fn a_second_turn_is_not_read_again(server: &Server) {
    let document = "The lighthouse keeper counted ships, and wrote their names down. ".repeat(40);
    let system = json!({ "role": "system", "content": document });
    let ask = |messages: Vec<Value>| {
        let body = json!({ "messages": messages, "temperature": 0, "max_tokens": 20 });
        server.ok(CHAT, &body)
    };
    let question = json!({ "role": "user", "content": "What did the keeper count?" });
    let first = ask(vec![system.clone(), question.clone()]);
    let answer =
        json!({ "role": "assistant", "content": first["choices"][0]["message"]["content"] });
    let next = json!({ "role": "user", "content": "And what did he write down?" });
    let second = ask(vec![system, question, answer, next]);
    let usage = &second["usage"];
    let (read, reused) = (
        usage["prompt_tokens"].as_u64(),
        &usage["prompt_tokens_details"]["cached_tokens"],
    );
    assert!(reused.as_u64().map(|reused| reused + 80) > read, "{usage}");
    assert!(server.figure("walsh_prompt_tokens_reused_total") > 400.0);
}

#[test]
fn what_is_looked_up_comes_sooner_and_is_the_same() {
    let server = Server::real(&["--look-up", "7", "--log", "off"]);
    let text = "Ships: Anna, Berta, Clara, Dora, Emma, Frida, Greta.\n".repeat(3);
    let body = |look_up: bool| {
        let prompt = format!("{text}Ships:");
        json!({ "prompt": prompt, "max_tokens": 48, "temperature": 0, "look_up": look_up })
    };
    let ask = |look_up| server.ok("/v1/completions", &body(look_up))["choices"][0]["text"].clone();
    let plain = ask(false);
    assert_eq!(server.figure("walsh_tokens_looked_up_total"), 0.0);
    assert_eq!(ask(true), plain);
    let found = || (server.figure("walsh_tokens_found_total") > 20.0).then_some(());
    assert!(super::wait(found).is_some(), "{plain}");
    // A server without it says so.
    let without = Server::tiny(&["--log", "off"]);
    let error = without.refused("/v1/completions", &body(true), 400);
    assert_eq!(error["param"], "look_up");
}

#[test]
fn texts_are_logged_where_that_is_asked_for() {
    for (options, logged) in [(&[][..], false), (&["--log-texts"][..], true)] {
        let server = Server::tiny(&[&["--log", "json"][..], options].concat());
        for path in [CHAT, "/v1/messages"] {
            server.ok(
                path,
                &json!({ "messages": user("a secret of mine"), "max_tokens": 2 }),
            );
        }
        let requests = || (server.said().matches("\"status\":200").count() >= 2).then_some(());
        super::wait(requests).expect("they are logged");
        assert_eq!(
            server.said().contains("secret"),
            logged,
            "{}",
            server.said()
        );
    }
}

#[test]
fn completions_take_texts_and_tokens_and_echo_them() {
    let server = Server::tiny(&["--kv", "f32"]);
    let ask = |body: Value| server.ok("/v1/completions", &body);
    let tokens = server.ok("/tokenize", &json!({ "content": "abc" }))["tokens"].clone();
    assert_eq!(
        server.ok("/detokenize", &json!({ "tokens": tokens }))["content"],
        "abc"
    );
    let body = |prompt: Value| json!({ "prompt": prompt, "max_tokens": 5, "temperature": 0, "ignore_eos": true });
    let texts = |answer: &Value| -> Vec<Value> {
        answer["choices"]
            .as_array()
            .expect("choices")
            .iter()
            .map(|c| c["text"].clone())
            .collect()
    };
    let text = texts(&ask(body(json!("abc"))));
    assert_eq!(texts(&ask(body(json!(["abc", "xyz"]))))[0], text[0]);
    assert_eq!(
        texts(&ask(body(json!([tokens, tokens])))),
        [text[0].clone(), text[0].clone()]
    );
    let mut echo = body(json!("abc"));
    echo["echo"] = true.into();
    echo["logprobs"] = 2.into();
    let echoed = ask(echo.clone());
    let choice = &echoed["choices"][0];
    assert_eq!(
        choice["text"],
        format!("abc{}", text[0].as_str().expect("a text"))
    );
    let columns = &choice["logprobs"];
    let all = columns["tokens"].as_array().expect("tokens").len();
    assert_eq!(all, tokens.as_array().expect("tokens").len() + 5);
    for column in ["token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(
            columns[column].as_array().map(Vec::len),
            Some(all),
            "{column}"
        );
    }
    assert!(columns["token_logprobs"][0].is_null());
    // Nothing is generated: what a text is worth.
    echo["max_tokens"] = 0.into();
    let scored = ask(echo);
    let (some, every) = (
        &scored["choices"][0]["logprobs"]["token_logprobs"],
        &columns["token_logprobs"],
    );
    let some = some.as_array().expect("an array");
    assert_eq!(some[..], every.as_array().expect("an array")[..some.len()]);
    assert_eq!(scored["usage"]["completion_tokens"], 0);
    // A gap, of a model that was not trained to fill one.
    let error = server.refused(
        "/v1/completions",
        &json!({ "prompt": "a", "suffix": "b" }),
        400,
    );
    assert_eq!(error["param"], "suffix");
}

#[test]
fn a_gap_is_filled_by_models_that_were_trained_to() {
    let names = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"];
    let server = Server::of(&Tiny::with_control(&names), &["--log", "off"]);
    let tokens = |text: &str| {
        let body = json!({ "content": text, "parse_special": true });
        server.ok("/tokenize", &body)["tokens"].clone()
    };
    let ask = |body: Value| server.ok("/v1/completions", &body);
    let common = json!({ "max_tokens": 6, "temperature": 0, "ignore_eos": true });
    let mut gap = common.clone();
    gap["prompt"] = "fn a(".into();
    gap["suffix"] = ") {}".into();
    let mut written = common;
    written["prompt"] = tokens("<|fim_prefix|>fn a(<|fim_suffix|>) {}<|fim_middle|>");
    let (gap, written) = (ask(gap), ask(written));
    let text = &gap["choices"][0]["text"];
    assert_eq!(text, &written["choices"][0]["text"]);
    assert_eq!(gap["usage"], written["usage"]);
    // As editors ask that know llama-server: with what is chosen before the gap, and files besides.
    let editor = json!({
        "input_prefix": "fn a", "prompt": "(", "input_suffix": ") {}", "n_predict": 6,
        "temperature": 0, "ignore_eos": true,
    });
    let filled = server.ok("/infill", &editor);
    assert_eq!(
        (&filled["content"], &filled["stop_type"]),
        (text, &json!("limit"))
    );
    let mut streamed = editor.clone();
    streamed["stream"] = true.into();
    let events = server.post("/infill", &streamed).events();
    let pieces = events.iter().filter_map(|event| event["content"].as_str());
    assert_eq!(&json!(pieces.collect::<String>()), text);
    assert_eq!(events.last().expect("an end")["stop"], true);
    let mut more = editor;
    more["input_extra"] = json!([{ "filename": "b.rs", "text": "fn b() {}" }]);
    let with_file = server.ok("/infill", &more);
    let read = |answer: &Value| answer["tokens_evaluated"].as_u64().expect("a number");
    assert_eq!(read(&with_file), read(&filled) + "fn b() {}\n".len() as u64);
}

#[test]
fn completion_is_what_it_is_elsewhere() {
    let server = Server::tiny(&["--log", "off"]);
    let body = json!({ "prompt": "abc", "n_predict": 7, "temperature": 0, "ignore_eos": true, "n_probs": 2 });
    let own = server.ok("/completion", &body);
    let openai = json!({ "prompt": "abc", "max_tokens": 7, "temperature": 0, "ignore_eos": true });
    let openai = server.ok("/v1/completions", &openai);
    assert_eq!(own["content"], openai["choices"][0]["text"]);
    assert_eq!(own["tokens_predicted"], 7);
    let known = own["completion_probabilities"]
        .as_array()
        .expect("an array");
    assert_eq!(
        (
            known.len(),
            known[0]["top_logprobs"].as_array().map(Vec::len)
        ),
        (7, Some(2))
    );
    let text: Vec<char> = own["content"].as_str().expect("a text").chars().collect();
    let stop = json!({ "prompt": "abc", "n_predict": 7, "temperature": 0, "ignore_eos": true, "stop": [text[2]] });
    let stopped = server.ok("/completion", &stop);
    assert_eq!(
        (&stopped["stop_type"], &stopped["stopping_word"]),
        (&json!("word"), &json!(text[2]))
    );
    for (body, param) in [
        (json!({ "n_predict": 3 }), "prompt"),
        (json!({ "prompt": ["a", "b"] }), "prompt"),
        (
            json!({ "prompt": "a", "grammar": "root ::= \"a\"" }),
            "grammar",
        ),
        (
            json!({ "prompt": "a", "json_schema": { "type": "nonsense" } }),
            "json_schema",
        ),
    ] {
        assert_eq!(
            server.refused("/completion", &body, 400)["param"],
            param,
            "{body}"
        );
    }
}

#[test]
fn embeddings_are_unit_vectors_of_texts_alone() {
    let server = Server::tiny(&["--kv", "f32"]);
    let ask = |body: Value| server.ok("/v1/embeddings", &body);
    let vector = |value: &Value| -> Vec<f64> {
        value
            .as_array()
            .expect("a vector")
            .iter()
            .map(|x| x.as_f64().expect("a number"))
            .collect()
    };
    let both = ask(json!({ "input": ["abc", "something else"] }));
    assert_eq!(both["pooling"], "mean");
    let one = vector(&both["data"][0]["embedding"]);
    let length: f64 = one.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    assert_eq!(
        vector(&ask(json!({ "input": "abc" }))["data"][0]["embedding"]),
        one
    );
    assert_ne!(vector(&both["data"][1]["embedding"]), one);
    let last = ask(json!({ "input": "abc", "pooling": "last" }));
    assert_eq!(last["pooling"], "last");
    assert_ne!(vector(&last["data"][0]["embedding"]), one);
    let coded = ask(json!({ "input": "abc", "encoding_format": "base64" }));
    let coded = coded["data"][0]["embedding"]
        .as_str()
        .expect("a text")
        .len();
    assert_eq!(coded, (one.len() * 4).div_ceil(3) * 4);
    for (body, param) in [
        (json!({ "input": [] }), "input"),
        (json!({ "input": "a", "dimensions": 3 }), "dimensions"),
        (
            json!({ "input": "a", "encoding_format": "hex" }),
            "encoding_format",
        ),
        (json!({ "input": "a", "pooling": "max" }), "pooling"),
    ] {
        assert_eq!(server.refused("/v1/embeddings", &body, 400)["param"], param);
    }
}

#[test]
fn models_that_make_vectors_pool_as_they_were_trained_to_and_make_no_texts() {
    let tiny = Tiny {
        architecture: "qwen3",
        metadata: vec![("qwen3.pooling_type", Some(3_u32.into()))],
        ..Tiny::default()
    };
    let server = Server::of(&tiny, &["--kv", "f32"]);
    let ask = |body: Value| server.ok("/v1/embeddings", &body);
    let own = ask(json!({ "input": "abc" }));
    assert_eq!(own["pooling"], "last");
    assert_eq!(ask(json!({ "input": "abc", "pooling": "last" })), own);
    let mean = ask(json!({ "input": "abc", "pooling": "mean" }));
    assert_eq!(mean["pooling"], "mean");
    assert_ne!(mean["data"], own["data"]);
    let messages = json!([{ "role": "user", "content": "a" }]);
    for (path, body) in [
        ("/v1/completions", json!({ "prompt": "a", "max_tokens": 3 })),
        ("/v1/chat/completions", json!({ "messages": messages })),
        ("/v1/responses", json!({ "input": "a" })),
        (
            "/v1/messages",
            json!({ "messages": messages, "max_tokens": 3 }),
        ),
        ("/completion", json!({ "prompt": "a" })),
    ] {
        let error = server.refused(path, &body, 400);
        let message = error["message"].as_str().expect("a message");
        assert!(
            message.contains("one vector of a text (last pooling)"),
            "{path}: {message}"
        );
    }
}

#[test]
fn responses_go_on_from_earlier_ones() {
    let server = Server::tiny(&[]);
    let ask = |body: Value| server.ok("/v1/responses", &body);
    let common = |input: Value| json!({ "input": input, "temperature": 0, "max_output_tokens": 6 });
    let first = ask(common(json!("abc")));
    let id = first["id"].as_str().expect("an id").to_owned();
    let said = first["output"][0]["content"][0]["text"].clone();
    let mut next = common(json!("def"));
    next["previous_response_id"] = id.as_str().into();
    let all = common(json!([
        { "role": "user", "content": "abc" },
        { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": said }] },
        { "role": "user", "content": [{ "type": "input_text", "text": "def" }] },
    ]));
    let (next, all) = (ask(next), ask(all));
    assert_eq!(next["output"][0]["content"], all["output"][0]["content"]);
    assert_eq!(next["usage"]["input_tokens"], all["usage"]["input_tokens"]);
    let path = format!("/v1/responses/{id}");
    assert_eq!(server.get(&path).json(), first);
    let deleted = request(server.address, "DELETE", &path, &[], b"").expect("an answer");
    assert_eq!(deleted.json()["deleted"], true);
    assert_eq!(server.get(&path).status, 404);
    let mut gone = common(json!("def"));
    gone["previous_response_id"] = id.into();
    assert_eq!(
        server.refused("/v1/responses", &gone, 404)["param"],
        "previous_response_id"
    );
    let mut streamed = common(json!("abc"));
    streamed["stream"] = true.into();
    let events = server.post("/v1/responses", &streamed).events();
    let kinds: Vec<&str> = events
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ];
    assert_eq!(kinds[..4], expected);
    let expected = [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ];
    assert_eq!(kinds[kinds.len() - 4..], expected);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let delta = |event: &Value| event["delta"].as_str().map(str::to_owned);
    let text: String = events.iter().filter_map(delta).collect();
    assert_eq!(first["output"][0]["content"][0]["text"], text);
}

#[test]
fn the_page_and_what_describes_the_server_are_there() {
    let server = Server::tiny(&["--kv", "4bit"]);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/html"))
    );
    assert!(
        page.header("content-security-policy")
            .is_some_and(|p| p.contains("default-src 'self'"))
    );
    let text = page.text();
    let names = |text: &str, start: &str| -> Vec<String> {
        let parts = text.split('"').filter_map(|part| part.strip_prefix(start));
        parts.map(str::to_owned).collect()
    };
    let mut files = names(&text, "page/");
    let mut seen = 0;
    // What it names, and what its scripts import.
    while let Some(file) = files.get(seen).cloned() {
        let answer = server.get(&format!("/page/{file}"));
        assert_eq!(answer.status, 200, "{file}");
        let more = names(&answer.text(), "./")
            .into_iter()
            .filter(|name| name.ends_with(".js"));
        let more: Vec<String> = more.filter(|name| !files.contains(name)).collect();
        files.extend(more);
        seen += 1;
    }
    assert!(seen > 10, "{files:?}");
    assert_eq!(server.get("/health").json()["status"], "ok");
    let props = server.get("/props").json();
    assert_eq!(
        (&props["model"], &props["context"]),
        (&json!("tiny"), &json!(256))
    );
    assert_eq!(
        props["total_slots"],
        server.get("/slots").json().as_array().map_or(0, Vec::len)
    );
    let saved = server.post("/slots/0?action=save", &json!({ "filename": "x" }));
    assert_eq!(saved.status, 501);
    server.ok(
        "/v1/completions",
        &json!({ "prompt": "abc", "max_tokens": 4, "ignore_eos": true }),
    );
    // What an engine counts is told behind each step.
    let counted = || (server.figure("walsh_generated_tokens_total") == 4.0).then_some(());
    super::wait(counted).expect("four tokens");
    assert_eq!(
        server.figure("walsh_time_between_tokens_seconds_count"),
        3.0
    );
    assert_eq!(
        server.figure("walsh_time_to_first_token_seconds_count"),
        1.0
    );
}

#[test]
fn what_goes_wrong_with_the_folder_of_prefixes_is_told() {
    let folder = super::Folder::new();
    let path = folder.path().join("prefixes");
    let options = ["--prefix-folder", path.to_str().expect("UTF-8")];
    let system =
        json!({ "role": "system", "content": "Say little, and that with care. ".repeat(4) });
    let body = json!({ "messages": [system, user("a")[0]], "max_tokens": 2, "temperature": 0 });
    let mut server = Server::tiny(&options);
    let text = |server: &Server| server.ok(CHAT, &body)["choices"][0]["message"].clone();
    let first = text(&server);
    server.signal(libc::SIGTERM);
    assert_eq!(server.status().code(), Some(0));
    let mut damaged = 0;
    for entry in std::fs::read_dir(&path).expect("the folder") {
        for file in std::fs::read_dir(entry.expect("a folder").path()).expect("a folder") {
            std::fs::write(file.expect("a file").path(), b"damaged").expect("written");
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let server = Server::tiny(&options);
    assert_eq!(text(&server), first);
    let told = || {
        server
            .said()
            .contains("beginnings of prompts")
            .then_some(())
    };
    super::wait(told).expect("it is told");
}
