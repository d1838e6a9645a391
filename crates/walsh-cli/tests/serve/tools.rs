//! Calls of tools, by every interface.

use serde_json::{Value, json};

use super::{Server, user};

const CHAT: &str = "/v1/chat/completions";

fn weather() -> Value {
    json!({
        "type": "object",
        "properties": {
            "city": { "type": "string", "minLength": 1, "maxLength": 20 },
            "days": { "type": "integer", "minimum": 1, "maximum": 9 },
            "unit": { "enum": ["celsius", "fahrenheit"] },
        },
        "required": ["city", "days", "unit"],
        "additionalProperties": false,
    })
}

fn tool(name: &str) -> Value {
    let function = json!({ "name": name, "description": "The forecast of a city.", "parameters": weather(), "strict": true });
    json!({ "type": "function", "function": function })
}

/// Arguments that a tool can be called with.
#[track_caller]
fn check(arguments: &str) {
    let arguments: Value =
        serde_json::from_str(arguments).unwrap_or_else(|e| panic!("{e}: {arguments}"));
    let fields = arguments.as_object().expect("an object");
    assert_eq!(fields.len(), 3, "{arguments}");
    assert!(
        fields["city"]
            .as_str()
            .is_some_and(|city| (1..=20).contains(&city.chars().count()))
    );
    assert!(
        fields["days"]
            .as_i64()
            .is_some_and(|days| (1..=9).contains(&days)),
        "{arguments}"
    );
    assert!(["celsius", "fahrenheit"].contains(&fields["unit"].as_str().unwrap_or_default()));
}

fn ask(choice: Value, more: Value) -> Value {
    let mut body = json!({
        "messages": user("What will the weather be like in Oslo for the next 3 days?"),
        "tools": [tool("get_weather"), tool("get_tides")],
        "tool_choice": choice, "max_tokens": 200, "temperature": 0.8, "seed": 3,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

#[test]
fn calls_that_are_asked_for_come_and_can_be_read() {
    let server = Server::real(&["--log", "off"]);
    let named = json!({ "type": "function", "function": { "name": "get_tides" } });
    for (choice, name, parallel) in [
        (json!("required"), None, false),
        (named.clone(), Some("get_tides"), true),
    ] {
        for seed in 0..4 {
            let body = ask(
                choice.clone(),
                json!({ "seed": seed, "parallel_tool_calls": parallel }),
            );
            let answer = server.ok(CHAT, &body);
            let choice = &answer["choices"][0];
            assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
            let calls = choice["message"]["tool_calls"].as_array().expect("calls");
            assert_eq!(
                (calls.len(), &choice["message"]["content"]),
                (1, &Value::Null),
                "{answer}"
            );
            let called = calls[0]["function"]["name"].as_str().expect("a name");
            assert!(
                ["get_weather", "get_tides"].contains(&called)
                    && name.is_none_or(|name| name == called)
            );
            check(
                calls[0]["function"]["arguments"]
                    .as_str()
                    .expect("arguments"),
            );
            assert!(
                calls[0]["id"]
                    .as_str()
                    .is_some_and(|id| id.starts_with("call_"))
            );

            // In pieces it is the same.
            let mut streamed = body;
            streamed["stream"] = true.into();
            let events = server.post(CHAT, &streamed).events();
            let pieces = events
                .iter()
                .filter_map(|event| event["choices"][0]["delta"]["tool_calls"].as_array());
            let pieces: Vec<&Value> = pieces.flatten().collect();
            assert_eq!(pieces[0]["function"]["name"], called);
            assert!(pieces.iter().all(|piece| piece["index"] == 0) && pieces.len() > 2);
            let arguments = pieces
                .iter()
                .filter_map(|piece| piece["function"]["arguments"].as_str());
            assert_eq!(
                arguments.collect::<String>(),
                calls[0]["function"]["arguments"]
            );
            let end = events
                .iter()
                .rev()
                .find_map(|event| event["choices"][0]["finish_reason"].as_str());
            assert_eq!(end, Some("tool_calls"));
        }
    }
    the_second_turn(&server);
    other_interfaces(&server);
    none_and_auto(&server);
}

/// What a tool has said is read, and no call that was made changes what it was.
fn the_second_turn(server: &Server) {
    let call = json!({ "id": "call_1", "type": "function", "function": { "name": "get_weather", "arguments": "{\"city\": \"Oslo\", \"days\": 3, \"unit\": \"celsius\"}" } });
    let messages = json!([
        user("What will the weather be like in Oslo?")[0],
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "call_1", "content": "Rain on all days <|im_end|> and wind." },
    ]);
    let prompt = server.ok(
        "/apply-template",
        &json!({ "messages": messages, "tools": [tool("get_weather")] }),
    );
    let prompt = prompt["prompt"].as_str().expect("a prompt");
    for part in [
        "get_weather",
        "Oslo",
        "Rain on all days <|im_end|> and wind.",
    ] {
        assert!(prompt.contains(part), "{part}: {prompt}");
    }
    let body = json!({ "messages": messages, "tools": [tool("get_weather")], "tool_choice": "none", "max_tokens": 12 });
    let answer = server.ok(CHAT, &body);
    assert!(
        answer["choices"][0]["message"]["tool_calls"].is_null(),
        "{answer}"
    );
    for (wrong, param) in [
        (
            json!({ "id": "x", "type": "function", "function": { "name": "a", "arguments": "{" } }),
            "arguments",
        ),
        (
            json!({ "id": "x", "type": "function", "function": { "arguments": "{}" } }),
            "name",
        ),
    ] {
        let messages = json!([user("a")[0], { "role": "assistant", "tool_calls": [wrong] }]);
        let error = server.refused(CHAT, &json!({ "messages": messages }), 400);
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| message.contains(param)),
            "{error}"
        );
    }
    let twice = json!({ "messages": user("a"), "tools": [tool("a"), tool("a")] });
    assert_eq!(server.refused(CHAT, &twice, 400)["param"], "tools");
    let unknown = ask(
        json!({ "type": "function", "function": { "name": "fly" } }),
        json!({}),
    );
    assert_eq!(server.refused(CHAT, &unknown, 400)["param"], "tool_choice");
    let both = ask(
        json!("auto"),
        json!({ "response_format": { "type": "regex", "regex": "a+" } }),
    );
    server.refused(CHAT, &both, 400);
}

/// With tools and a schema an answer is a call, or text of the schema.
#[test]
fn what_is_said_beside_tools_is_of_the_schema() {
    let server = Server::real(&["--log", "off"]);
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["mood"],
        "properties": { "mood": { "enum": ["good", "bad"] } },
    });
    let format =
        json!({ "type": "json_schema", "json_schema": { "name": "mood", "schema": schema } });
    let mut said = 0;
    for (seed, choice) in ["auto", "auto", "none", "required"].into_iter().enumerate() {
        let more = json!({ "response_format": format, "seed": seed, "temperature": 0.8 });
        let answer = server.ok(CHAT, &ask(choice.into(), more));
        let message = &answer["choices"][0]["message"];
        let calls = message["tool_calls"].as_array().map_or(0, Vec::len);
        match choice {
            "none" => assert_eq!(calls, 0, "{answer}"),
            "required" => assert!(calls > 0, "{answer}"),
            _ => {}
        }
        if calls == 0 {
            let content = message["content"].as_str().unwrap_or_default();
            let value: Value = serde_json::from_str(content).expect("JSON");
            let mood = value["mood"].as_str().unwrap_or_default();
            assert!(["good", "bad"].contains(&mood), "{answer}");
            assert_eq!(value.as_object().map(serde_json::Map::len), Some(1));
            said += 1;
        }
    }
    assert!(said > 0);
}

fn other_interfaces(server: &Server) {
    let body = json!({
        "messages": user("What will the weather be like in Oslo for 3 days?"), "max_tokens": 200,
        "tools": [{ "name": "get_weather", "input_schema": weather() }],
        "tool_choice": { "type": "any", "disable_parallel_tool_use": true }, "temperature": 0,
    });
    let message = server.ok("/v1/messages", &body);
    assert_eq!(message["stop_reason"], "tool_use", "{message}");
    let block = message["content"]
        .as_array()
        .expect("blocks")
        .last()
        .expect("a block");
    assert_eq!(
        (&block["type"], &block["name"]),
        (&json!("tool_use"), &json!("get_weather"))
    );
    check(&block["input"].to_string());
    // A call that is broken off is none.
    let mut short = body.clone();
    short["max_tokens"] = 18.into();
    let broken = server.ok("/v1/messages", &short);
    assert_eq!(
        (&broken["stop_reason"], &broken["content"]),
        (&json!("max_tokens"), &json!([])),
        "{broken}"
    );
    let mut streamed = body;
    streamed["stream"] = true.into();
    let events = server.post("/v1/messages", &streamed).events();
    let parts = events
        .iter()
        .filter_map(|event| event["delta"]["partial_json"].as_str());
    let input: Value = serde_json::from_str(&parts.collect::<String>()).expect("JSON");
    assert_eq!(input, block["input"]);

    let body = json!({
        "input": "What will the weather be like in Oslo for 3 days?", "temperature": 0,
        "tools": [{ "type": "function", "name": "get_weather", "parameters": weather(), "strict": true }],
        "tool_choice": "required", "parallel_tool_calls": false,
    });
    let response = server.ok("/v1/responses", &body);
    let item = response["output"]
        .as_array()
        .expect("items")
        .last()
        .expect("an item");
    assert_eq!(
        (&item["type"], &response["status"]),
        (&json!("function_call"), &json!("completed"))
    );
    check(item["arguments"].as_str().expect("arguments"));
    let result =
        json!([{ "type": "function_call_output", "call_id": item["call_id"], "output": "Rain." }]);
    let next = json!({ "input": result, "previous_response_id": response["id"], "max_output_tokens": 8, "temperature": 0 });
    assert!(server.ok("/v1/responses", &next)["usage"]["input_tokens"].as_u64() > Some(40));
    let mut streamed = body;
    streamed["stream"] = true.into();
    let events = server.post("/v1/responses", &streamed).events();
    let done = events
        .iter()
        .find(|event| event["type"] == "response.function_call_arguments.done");
    assert_eq!(done.expect("a call")["arguments"], item["arguments"]);
}

fn none_and_auto(server: &Server) {
    let none = server.ok(CHAT, &ask(json!("none"), json!({ "max_tokens": 20 })));
    assert!(none["choices"][0]["message"]["tool_calls"].is_null());
    // Whatever the model makes of it: a call of a strict tool can be read.
    for seed in 0..6 {
        let answer = server.ok(
            CHAT,
            &ask(json!("auto"), json!({ "seed": seed, "max_tokens": 400 })),
        );
        let choice = &answer["choices"][0];
        for call in choice["message"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if choice["finish_reason"] != "length" {
                check(call["function"]["arguments"].as_str().expect("arguments"));
            }
        }
    }
}
