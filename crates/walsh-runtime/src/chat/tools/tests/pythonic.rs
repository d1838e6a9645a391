//! Calls as Python writes them.

use super::families::{check, with};
use super::*;

/// Calls between their marks.
fn marked(calls: &str) -> String {
    format!("<|tool_call_start|>{calls}<|tool_call_end|>")
}

#[test]
fn calls_are_read_as_python_has_them() {
    let text = |calls: &str, expected: &[[Delta; 2]]| (marked(calls), with(&[], expected));
    let weather = |arguments: &str| [call(0, "weather", arguments)];
    let cases = [
        text(
            "[weather(place=\"Zürich \\\"{}\\\", a=b\", days=-2)]",
            &weather("{\"place\": \"Zürich \\\"{}\\\", a=b\", \"days\": -2}"),
        ),
        text(
            "[weather(place='x', deep={'a b': [1.5, None, \"c,d\", [], {}], 'n': (1, 2)}, flag=True, maybe=None)]",
            &weather(
                "{\"place\": \"x\", \"deep\": {\"a b\": [1.5, null, \"c,d\", [], {}], \"n\": [1, 2]}, \"flag\": true, \"maybe\": null}",
            ),
        ),
        // JSON's words, and white space anywhere.
        text(
            "[ weather ( place = 'x' , flag = true, maybe = null, deep = { } ) ]",
            &weather("{\"place\": \"x\", \"flag\": true, \"maybe\": null, \"deep\": {}}"),
        ),
        text(
            "[f(), weather(place='x',), f(a=1)]",
            &[
                call(0, "f", "{}"),
                call(1, "weather", "{\"place\": \"x\"}"),
                call(2, "f", "{\"a\": 1}"),
            ],
        ),
        // Escapes, a character of two halves, half of one, and what is no escape.
        text(
            r"[weather(place='\n\t\x41\u00e9\U0001F600\ud83d\ude00\ud83d!\d\'')]",
            &weather("{\"place\": \"\\n\\tAé😀😀\u{fffd}!\\\\d'\"}"),
        ),
        // Quotes that were not escaped, as templates write them, and line ends.
        text(
            "[weather(place='it's \"so\",\nhe said')]",
            &weather("{\"place\": \"it's \\\"so\\\",\\nhe said\"}"),
        ),
        // Values of another kind than they are written as.
        text(
            "[weather(place=12345, days='3', flag='True')]",
            &weather("{\"place\": \"12345\", \"days\": 3, \"flag\": true}"),
        ),
        // No list, and ends that are missing.
        text("f(a=[1, 2])", &[call(0, "f", "{\"a\": [1, 2]}")]),
        text(
            "[weather(deep={'a': [1, 2",
            &weather("{\"deep\": {\"a\": [1, 2]}}"),
        ),
        text("[weather(place='x'", &weather("{\"place\": \"x\"}")),
        // No calls.
        (marked("[]"), vec![said(&marked("[]"))]),
        (
            marked("[nobody(a=1)]"),
            vec![said(&marked("[nobody(a=1)]"))],
        ),
        (marked("[f"), vec![said(&marked("[f"))]),
        (marked("[f g()]"), vec![said(&marked("[f g()]"))]),
    ];
    let cases: Vec<(&str, Vec<Delta>)> = cases
        .iter()
        .map(|(text, expected)| (text.as_str(), expected.clone()))
        .collect();
    check("lfm2", &cases);
    check("lfm2-plain", &cases);
    let then = |expected: Vec<Delta>, text: &str| -> Vec<Delta> {
        expected.into_iter().chain([said(text)]).collect()
    };
    let cases = [
        (
            "So.\n<|tool_call_start|>[f()]<|tool_call_end|>\n",
            with(&[said("So.")], &[call(0, "f", "{}")]),
        ),
        (
            "<|tool_call_start|>[f()]<|tool_call_end|> Done, <|tool_call_start|>[f()]",
            then(with(&[], &[call(0, "f", "{}")]), " Done,")
                .into_iter()
                .chain(call(1, "f", "{}"))
                .collect(),
        ),
        // Cut off.
        (
            "<|tool_call_start|>[weather(place='Ber",
            with(&[], &[call(0, "weather", "{\"place\": \"Ber")]),
        ),
        (
            "<|tool_call_start|>[weather(days=12",
            with(&[], &[call(0, "weather", "{\"days\": 12")]),
        ),
        (
            "<|tool_call_start|>[weat",
            vec![said("<|tool_call_start|>[weat")],
        ),
        ("so <|tool_ca", vec![said("so <|tool_ca")]),
        // Amid a value: what was given out stays, and nothing is lost.
        (
            "<|tool_call_start|>[f(a={1]x",
            then(with(&[], &[call(0, "f", "{\"a\": {")]), "]x"),
        ),
    ];
    check("lfm2", &cases);
    // Behind reasoning.
    let answer = "<think>Hm: <|tool_call</think><|tool_call_start|>[f()]<|tool_call_end|>";
    let expected = with(&[thought("Hm: <|tool_call")], &[call(0, "f", "{}")]);
    check("lfm2", &[(answer, expected)]);
    // However deep it nests, what comes out can be read.
    let deep = format!("<|tool_call_start|>[f(a={}", "[".repeat(300));
    let deltas = parsed(&template("lfm2"), "", &deep);
    assert!(
        matches!(&deltas[2], Delta::Text(text) if text.len() == 201),
        "{deltas:?}"
    );
}

#[test]
fn reasoning_and_calls_are_told_to_templates_as_they_know_them() {
    let tokenizer = tokenizer();
    let message = |message: Value| message.as_object().cloned().unwrap();
    let dialogue = crate::chat::Dialogue {
        messages: vec![
            message(json!({"role": "user", "content": "Hello"})),
            message(json!({
                "role": "assistant", "content": "So.", "reasoning_content": "Hm",
                "tool_calls": [{"id": "a", "type": "function", "function": {
                    "name": "f", "arguments": {"a": "it's \"x\"", "b": [true, null, {"c": 1}]},
                }}],
            })),
            message(json!({"role": "tool", "tool_call_id": "a", "content": "20"})),
        ],
        tools: vec![tool_json("f", &json!({}))],
        ..Default::default()
    };
    for (name, text) in [
        (
            "lfm2",
            "<think>Hm</think>So.<|tool_call_start|>[f(a='it's \"x\"', b=[True, None, {'c': 1}])]<|tool_call_end|><|im_end|>",
        ),
        (
            "lfm2-plain",
            "So.<|tool_call_start|>[f(a=\"it's \\\"x\\\"\", b=[True, None, {\"c\": 1}])]<|tool_call_end|><|im_end|>",
        ),
    ] {
        let template = Template::from_source(&source(name), &tokenizer).unwrap();
        let prompt = template.prompt(&dialogue, &tokenizer).unwrap().text;
        assert!(prompt.contains(text), "{name}: {prompt}");
    }
}

#[test]
fn what_no_argument_can_be_called_is_refused_where_tools_are_strict() {
    let schema = json!({"type": "object", "properties": {"a\"b": {}, "c": {"type": "integer"}}});
    let mut tool = tool_json("f", &schema);
    let ask = |tool: &Value| {
        let tools = [Tool::parse(tool).unwrap()];
        template("lfm2").tool_constraint(&crate::chat::ToolRequest {
            tools: &tools,
            choice: &crate::chat::ToolChoice::Required,
            parallel: true,
            prompt_text: "",
            answer: None,
        })
    };
    assert!(ask(&tool).is_ok());
    tool["function"]["strict"] = true.into();
    let error = ask(&tool).unwrap_err().to_string();
    assert!(
        error.contains("a name that no argument can have"),
        "{error}"
    );
    let tool = json!({"type": "function", "function": {
        "name": "f", "strict": true, "parameters": {"type": "object", "anyOf": [{}]},
    }});
    let error = ask(&tool).unwrap_err().to_string();
    assert!(error.contains("has anyOf in its parameters"), "{error}");
}
