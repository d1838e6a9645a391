//! What templates write for calls is read back as those calls.

use serde_json::Map;

use super::super::super::Dialogue;
use super::*;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

fn dialogue(calls: &[(&str, Value)]) -> Dialogue {
    let calls = calls.iter().enumerate().map(|(index, (name, arguments))| {
        json!({"id": format!("call_{index}"), "type": "function", "function": {"name": name, "arguments": arguments}})
    });
    let calls: Vec<Value> = calls.collect();
    let answers = (0..calls.len()).map(|index| {
        object(json!({"role": "tool", "tool_call_id": format!("call_{index}"), "content": "20"}))
    });
    let mut messages = vec![
        object(json!({"role": "user", "content": "Hello"})),
        object(json!({"role": "assistant", "content": null, "tool_calls": calls})),
    ];
    messages.extend(answers);
    let weather = serde_json::to_value(&tools()[0].parameters).unwrap();
    Dialogue {
        messages,
        tools: vec![tool_json("weather", &weather), tool_json("f", &json!({}))],
        ..Dialogue::default()
    }
}

/// Names and arguments of the calls in what comes behind a prompt.
fn calls(template: &Template, prompt: &str, text: &str) -> Vec<(String, Value)> {
    let mut calls: Vec<(String, String)> = Vec::new();
    for delta in parsed(template, prompt, text) {
        match delta {
            Delta::Call { name, .. } => calls.push((name, String::new())),
            Delta::Arguments { text, .. } => calls.last_mut().unwrap().1.push_str(&text),
            Delta::Text(_) | Delta::Reasoning(_) => {}
        }
    }
    let parse = |(name, text): (String, String)| {
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (name, value)
    };
    calls.into_iter().map(parse).collect()
}

#[test]
fn calls_are_read_back() {
    let weather = json!({"place": "Zürich \"x\"\n{}", "days": 2, "deep": {"a": [1, null, "b"]}, "flag": true, "maybe": null});
    let other = json!({"a": {"b": [true, 0.5, "c d"]}, "n": -3});
    let tokenizer = tokenizer();
    // By each, where the answer begins and by what it ends.
    for (name, begin, end) in [
        ("qwen2.5", "<|im_start|>assistant", "<|im_end|>"),
        ("qwen3", "<|im_start|>assistant\n", "<|im_end|>"),
        ("coder", "<|im_start|>assistant\n", "<|im_end|>"),
        (
            "llama3.1",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "<|eot_id|>",
        ),
        ("mistral-v3", "[/INST]", "</s>"),
        ("named", "[/INST]", "</s>"),
        ("function-gemma", "<start_of_turn>model\n", "<end_of_turn>"),
        ("gemma4", "<|turn>model\n", "<turn|>"),
        ("lfm2", "<|im_start|>assistant\n", "<|im_end|>"),
        ("lfm2-plain", "<|im_start|>assistant\n", "<|im_end|>"),
        ("gpt-oss", "<|start|>assistant", "<|call|>"),
        // Those that know no tools are told of them.
        ("chatml", "<|im_start|>assistant\n", "<|im_end|>"),
        ("gemma3", "<start_of_turn>model\n", "<end_of_turn>"),
        ("gemma", "<start_of_turn>model\n", "<end_of_turn>"),
        ("smollm3", "<|im_start|>assistant\n", "<|im_end|>"),
        (
            "granite3",
            "<|start_of_role|>assistant<|end_of_role|>",
            "<|end_of_text|>",
        ),
        ("mistral-tekken", "[/INST]", "</s>"),
        ("deepseek-r1", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    ] {
        let template = Template::from_source(&source(name), &tokenizer).unwrap();
        let given = [("weather", weather.clone()), ("f", other.clone())];
        let prompt = template.prompt(&dialogue(&given), &tokenizer);
        let prompt = prompt.unwrap_or_else(|error| panic!("{name}: {error}"));
        let text = &prompt.text;
        let mut found = Vec::new();
        // In forms with one call in a message there are several.
        let mut rest = text.as_str();
        while let Some(at) = rest.find(begin) {
            let (head, answer) = rest.split_at(at + begin.len());
            let answer = answer.split(end).next().unwrap();
            found.extend(calls(&template, head, answer));
            rest = &rest[at + begin.len()..];
        }
        let expected: Vec<(String, Value)> = given
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect();
        assert_eq!(found, expected, "{name}: {text}");
        assert!(
            text.contains("It does.") || name == "named",
            "{name} is told of its tools: {text}"
        );
        let mut places = prompt.checkpoints.iter();
        assert!(places.all(|place| *place <= prompt.tokens.len()));
        assert!(!prompt.checkpoints.is_empty(), "{name}");
    }
}
