//! What models of each family write.

use super::*;

/// A table of texts and what they become.
pub(super) fn check(name: &str, cases: &[(&str, Vec<Delta>)]) {
    let template = template(name);
    for (text, expected) in cases {
        assert_eq!(&parsed(&template, "", text), expected, "{name}: {text}");
    }
}

pub(super) fn with(before: &[Delta], calls: &[[Delta; 2]]) -> Vec<Delta> {
    let calls = calls.iter().flatten();
    before.iter().chain(calls).cloned().collect()
}

#[test]
fn hermes() {
    let zurich = r#"{"place": "Zürich \"{}\" </tool_call>"}"#;
    let one =
        format!("<tool_call>\n{{\"name\": \"weather\", \"arguments\": {zurich}}}\n</tool_call>");
    let cases = [
        (one.as_str(), with(&[], &[call(0, "weather", zurich)])),
        (
            "Let me see.\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>\n{\"arguments\": {\"a\": [1, -2.5e3]}, \"name\": \"f\"}\n</tool_call>\n",
            with(
                &[said("Let me see.")],
                &[call(0, "f", "{}"), call(1, "f", "{\"a\": [1, -2.5e3]}")],
            ),
        ),
        // Several in one block, in a list, with what belongs to other forms.
        (
            "<tool_call>[{\"name\": \"f\", \"arguments\": {}}, {\"id\": 7, \"type\": \"function\", \"function\": {\"name\": \"weather\", \"parameters\": {\"place\": \"\"}}}]</tool_call>",
            with(
                &[],
                &[call(0, "f", "{}"), call(1, "weather", "{\"place\": \"\"}")],
            ),
        ),
        (
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n{\"name\": \"f\"}\n</tool_call>",
            with(&[], &[call(0, "f", "{}"), call(1, "f", "{}")]),
        ),
        // Arguments as text, none, and with line ends as they are.
        (
            r#"<tool_call>{"name": "f", "arguments": "{\"a\": 1}"}</tool_call>"#,
            with(&[], &[call(0, "f", "{\"a\": 1}")]),
        ),
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": null}}</tool_call>",
            with(&[], &[call(0, "f", "{}")]),
        ),
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"1\n2\"}}</tool_call>",
            with(&[], &[call(0, "f", "{\"a\": \"1\\n2\"}")]),
        ),
        // A brace that is missing, a mark that is missing.
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": {}</tool_call> Done",
            with(&[], &[call(0, "f", "{}")])
                .into_iter()
                .chain([said(" Done")])
                .collect(),
        ),
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": {}}",
            with(&[], &[call(0, "f", "{}")]),
        ),
        // Cut off.
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b",
            with(&[], &[call(0, "f", "{\"a\": \"b")]),
        ),
        (
            "a <tool_call>{\"name\": \"f\"",
            vec![said("a <tool_call>{\"name\": \"f\"")],
        ),
        ("so <tool_ca", vec![said("so <tool_ca")]),
        // No calls.
        (
            "<tool_call>{\"name\": \"nobody\", \"arguments\": {}}</tool_call>",
            vec![said(
                "<tool_call>{\"name\": \"nobody\", \"arguments\": {}}</tool_call>",
            )],
        ),
        (
            "The mark <tool_call> begins one: <tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
            with(
                &[said("The mark <tool_call> begins one:")],
                &[call(0, "f", "{}")],
            ),
        ),
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
            vec![said(
                "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
            )],
        ),
        (
            "<tool_call></tool_call> {}\n",
            vec![said("<tool_call></tool_call> {}\n")],
        ),
        // What was given out stays, and nothing is lost.
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": oh}}",
            with(&[], &[call(0, "f", "{\"a\": ")])
                .into_iter()
                .chain([said("oh}}")])
                .collect(),
        ),
    ];
    check("qwen2.5", &cases);
    check("qwen3", &cases);
}

#[test]
fn coder() {
    let cases = [
        (
            "<tool_call>\n<function=weather>\n<parameter=place>\nBasel \"<b>\"\n</para\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=deep>\n{\"a\": [1]}\n</parameter>\n<parameter=flag>\nTrue\n</parameter>\n<parameter=maybe>\nNone\n</parameter>\n</function>\n</tool_call>",
            with(
                &[],
                &[call(
                    0,
                    "weather",
                    "{\"place\": \"Basel \\\"<b>\\\"\\n</para\", \"days\": 3, \"deep\": {\"a\": [1]}, \"flag\": true, \"maybe\": null}",
                )],
            ),
        ),
        (
            "So:\n<function=f>\n</function>\n</tool_call>\n<tool_call>\n<function=f>\n<parameter=x>\nabc\n</parameter>\n<parameter=y>\n[1]\n</parameter>\n</function>\n<function=f></function></tool_call>",
            with(
                &[said("So:")],
                &[
                    call(0, "f", "{}"),
                    call(1, "f", "{\"x\": \"abc\", \"y\": [1]}"),
                    call(2, "f", "{}"),
                ],
            ),
        ),
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>",
            with(&[], &[call(0, "f", "{\"a\": 1}")]),
        ),
        (
            "<tool_call>\n<function=weather>\n<parameter=place>\nGen",
            with(&[], &[call(0, "weather", "{\"place\": \"Gen")]),
        ),
        (
            "<tool_call>\n<function=weather>\n<parameter=place>\n</parameter>\n</function>",
            with(&[], &[call(0, "weather", "{\"place\": \"\"}")]),
        ),
        (
            "<tool_call>\n<function=nobody>\n</function>\n</tool_call>",
            vec![said(
                "<tool_call>\n<function=nobody>\n</function>\n</tool_call>",
            )],
        ),
        ("a <function of x> b", vec![said("a <function of x> b")]),
        (
            "<tool_call>no <function=f></function>",
            with(&[said("<tool_call>no")], &[call(0, "f", "{}")]),
        ),
        (
            "<tool_call>\n<function=f",
            vec![said("<tool_call>\n<function=f")],
        ),
    ];
    check("coder", &cases);
}

#[test]
fn llama() {
    let cases = [
        (
            " {\"name\": \"weather\", \"parameters\": {\"place\": \"Bern\"}}",
            with(&[], &[call(0, "weather", "{\"place\": \"Bern\"}")]),
        ),
        (
            "<|python_tag|>{\"type\": \"function\", \"function\": \"f\", \"parameters\": {}}; {\"name\": \"f\", \"parameters\": {\"a\": 1}}",
            with(&[], &[call(0, "f", "{}"), call(1, "f", "{\"a\": 1}")]),
        ),
        (
            "I call.\n<|python_tag|>{\"name\": \"f\", \"arguments\": {}}",
            with(&[said("I call.")], &[call(0, "f", "{}")]),
        ),
        // JSON that is no call.
        (
            "{\"name\": \"Bob\", \"parameters\": {}} ",
            vec![said("{\"name\": \"Bob\", \"parameters\": {}} ")],
        ),
        ("{\"name\": \"f\"}", vec![said("{\"name\": \"f\"}")]),
        (
            "{ok} and {\"name\": \"f\", \"parameters\": {}}",
            vec![said("{ok} and {\"name\": \"f\", \"parameters\": {}}")],
        ),
        (
            "<|python_tag|>print(1)\n",
            vec![said("<|python_tag|>print(1)\n")],
        ),
        ("[1] is a source", vec![said("[1] is a source")]),
    ];
    check("llama3.1", &cases);
}

#[test]
fn mistral() {
    let cases = [
        (
            "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"place\": \"]\"}, \"id\": \"abcdefghi\"}, {\"name\": \"f\", \"arguments\": {}}]",
            with(
                &[],
                &[call(0, "weather", "{\"place\": \"]\"}"), call(1, "f", "{}")],
            ),
        ),
        (
            "Well [TOOL_CALLS]{\"name\": \"f\", \"arguments\": {}}",
            with(&[said("Well")], &[call(0, "f", "{}")]),
        ),
        (
            "[TOOL_CALLS]weather[CALL_ID]abc[ARGS]{\"place\": \"[ARGS]\"}[TOOL_CALLS]f[ARGS] {}",
            with(
                &[],
                &[
                    call(0, "weather", "{\"place\": \"[ARGS]\"}"),
                    call(1, "f", "{}"),
                ],
            ),
        ),
        ("[TOOL_CALLS]f {}", with(&[], &[call(0, "f", "{}")])),
        (
            "[TOOL_CALLS]f[ARGS]{\"a\": tr",
            with(&[], &[call(0, "f", "{\"a\": tr")]),
        ),
        (
            "[TOOL_CALLS]nobody[ARGS]{}",
            vec![said("[TOOL_CALLS]nobody[ARGS]{}")],
        ),
        ("[TOOL_CALLS]f[x] y", vec![said("[TOOL_CALLS]f[x] y")]),
        (
            "[TOOL_CALLS]f is one [TOOL",
            vec![said("[TOOL_CALLS]f is one [TOOL")],
        ),
        ("[TOOL_CALLS]f[AR", vec![said("[TOOL_CALLS]f[AR")]),
    ];
    check("mistral-v3", &cases);
    check("named", &cases);
}

#[test]
fn harmony() {
    let cases = [
        (
            "<|channel|>analysis<|message|>Hm, <b>.<|end|><|start|>assistant<|channel|>final<|message|>Two.",
            vec![thought("Hm, <b>."), said("Two.")],
        ),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"place\": \"Chur\"}<|call|>",
            with(
                &[thought("Hm.")],
                &[call(0, "weather", "{\"place\": \"Chur\"}")],
            ),
        ),
        (
            " to=functions.f<|channel|>commentary json<|message|>{}",
            with(&[], &[call(0, "f", "{}")]),
        ),
        (
            "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.f<|message|><|call|>",
            with(&[said("I look.")], &[call(0, "f", "{}")]),
        ),
        (
            "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1",
            with(&[], &[call(0, "f", "{\"a\": 1")]),
        ),
        (
            "<|channel|>commentary to=nobody <|constrain|>json<|message|>{}<|call|>",
            vec![said(
                "<|channel|>commentary to=nobody <|constrain|>json<|message|>{}",
            )],
        ),
        (
            "<|channel|>commentary to=functions.f<|message|>no",
            vec![said("<|channel|>commentary to=functions.f<|message|>no")],
        ),
        ("{\"a\": 1}", vec![said("{\"a\": 1}")]),
        (" to be", vec![said(" to be")]),
        (
            "<|channel|>final<|message|>a <|x|> b<|return|>",
            vec![said("a <|x|> b")],
        ),
    ];
    check("gpt-oss", &cases);
    let open = "<|start|>assistant<|channel|>analysis<|message|>";
    let went_on = parsed(
        &template("gpt-oss"),
        open,
        "Hm.<|end|><|start|>assistant<|channel|>final<|message|>1",
    );
    assert_eq!(went_on, [thought("Hm."), said("1")]);
}

#[test]
fn reasoning_is_told_from_the_answer() {
    let qwen = template("qwen3");
    let cases = [
        (
            "",
            "<think>\nHm </thin.\n</think>\n\nTwo.",
            vec![thought("Hm </thin."), said("Two.")],
        ),
        (
            "<think>\n",
            "Hm.\n</think>\n\nTwo.\n",
            vec![thought("Hm."), said("Two.\n")],
        ),
        ("<think>", "cut off \n", vec![thought("cut off")]),
        ("<think>\n\n</think>\n\n", "Two.", vec![said("Two.")]),
        ("", "\n<think></think>Two.", vec![said("Two.")]),
        (
            "",
            "The mark <think> is said.",
            vec![said("The mark <think> is said.")],
        ),
        ("", " \n<thin", vec![said(" \n<thin")]),
        ("<think>", "a\n\nb </think>", vec![thought("a\n\nb")]),
    ];
    for (prompt, text, expected) in cases {
        assert_eq!(parsed(&qwen, prompt, text), expected, "{prompt} {text}");
    }
    let text = "<think>I call <tool_call>.</think>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
    let expected = with(&[thought("I call <tool_call>.")], &[call(0, "f", "{}")]);
    assert_eq!(parsed(&qwen, "", text), expected);
    // Without tools there are no calls, and what looks like them is text.
    let without = read(&qwen, "", &[], &["a ", "<tool_call>{}</tool_call>"]);
    assert_eq!(without, [said("a <tool_call>{}</tool_call>")]);
}

/// Arguments come as they are written, and no sooner is anything else given out than it is certain.
#[test]
fn arguments_stream() {
    for (name, text) in [
        (
            "qwen3",
            "<tool_call>{\"name\": \"weather\", \"arguments\": {\"place\": \"Bern",
        ),
        (
            "coder",
            "<tool_call><function=weather><parameter=place>\nBern",
        ),
        (
            "llama3.1",
            "{\"name\": \"weather\", \"parameters\": {\"place\": \"Bern",
        ),
        ("named", "[TOOL_CALLS]weather[ARGS]{\"place\": \"Bern"),
        (
            "gpt-oss",
            "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"place\": \"Bern",
        ),
    ] {
        let template = template(name);
        let mut parser = OutputParser::new(&template, "", &tools());
        let mut all = Vec::new();
        for delta in parser.push(text) {
            join(&mut all, delta);
        }
        assert_eq!(all, call(0, "weather", "{\"place\": \"Bern"), "{name}");
        assert_eq!(parser.finish(), []);
    }
}

/// Whatever comes, nothing but marks and the space around calls is lost, and nothing depends on the pieces.
#[test]
fn random_texts_are_read_alike_in_any_pieces() {
    use walsh::formats::random::SplitMix64;
    let parts = [
        "<tool_call>",
        "</tool_call>",
        "<function=f>",
        "<parameter=a>",
        "</parameter>",
        "</function>",
        "{\"name\": \"f\", ",
        "\"arguments\": ",
        "\"parameters\": ",
        "{\"a\": \"",
        "\"}",
        "}",
        "{}",
        "[",
        "]",
        "[TOOL_CALLS]",
        "[ARGS]",
        "f",
        "<|channel|>",
        "commentary to=functions.f",
        "final",
        "<|message|>",
        "<|end|>",
        "<|start|>assistant",
        "<|python_tag|>",
        "\n",
        " ",
        "<",
        "é",
        "<think>",
        "</think>",
        ",",
        "\\",
        "\\ud83d",
        "\\ude42",
        "null",
        "-1.5e3",
        "\"",
    ];
    let mut random = SplitMix64(7);
    let mut calls = 0;
    for name in ["qwen3", "coder", "llama3.1", "mistral-v3", "gpt-oss"] {
        let template = template(name);
        for _ in 0..800 {
            let count = 1 + random.below(12);
            let text: String = (0..count)
                .map(|_| parts[random.below(parts.len())])
                .collect();
            let deltas = parsed(&template, "", &text);
            calls += deltas
                .iter()
                .filter(|delta| matches!(delta, Delta::Call { .. }))
                .count();
            if !deltas.iter().any(|delta| !matches!(delta, Delta::Text(_))) && name != "gpt-oss" {
                let out: String = deltas
                    .iter()
                    .map(|delta| match delta {
                        Delta::Text(text) => text.as_str(),
                        _ => "",
                    })
                    .collect();
                // Empty reasoning is nothing.
                if !text.contains("think>") {
                    assert_eq!(out, text, "{name}");
                }
            }
        }
    }
    assert!(calls > 100, "{calls}");
}

#[test]
fn gemma() {
    let zurich = r#"{"place": "Zürich \"{}\", a:b"}"#;
    let mixed =
        r#"{"place": "x", "days": -2, "deep": {"a b": [1.5, null, "c,d", [], {}]}, "flag": true}"#;
    let cases = [
        (
            "<start_function_call>call:weather{place:<escape>Zürich \"{}\", a:b<escape>}<end_function_call>",
            with(&[], &[call(0, "weather", zurich)]),
        ),
        (
            "So.\n<start_function_call>call:f{}<end_function_call><start_function_call>call:f{ a : 1 , b:[ ] }<end_function_call>\n",
            with(
                &[said("So.")],
                &[call(0, "f", "{}"), call(1, "f", "{\"a\": 1, \"b\": []}")],
            ),
        ),
        (
            "<start_function_call>call:weather{place:<escape>x<escape>,days:-2,deep:{<escape>a b<escape>:[1.5,null,<escape>c,d<escape>,[],{}]},flag:true}<end_function_call>",
            with(&[], &[call(0, "weather", mixed)]),
        ),
        // Values of another kind than they are written as.
        (
            "<start_function_call>call:weather{place:12345,days:<escape>3<escape>,flag:True,maybe:None}<end_function_call>",
            with(
                &[],
                &[call(
                    0,
                    "weather",
                    r#"{"place": "12345", "days": 3, "flag": true, "maybe": null}"#,
                )],
            ),
        ),
        // A text as it is, line ends and marks within it, and one that holds the beginning of a mark.
        (
            "<start_function_call>call:weather{place:a < b,maybe:<escape>1\n<esc<end_function_call><escape>}<end_function_call>",
            with(
                &[],
                &[call(
                    0,
                    "weather",
                    "{\"place\": \"a < b\", \"maybe\": \"1\\n<esc<end_function_call>\"}",
                )],
            ),
        ),
        // Braces that are missing, a mark that is missing, text behind.
        (
            "<start_function_call>call:weather{deep:{a:[1,2<end_function_call> Done",
            with(&[], &[call(0, "weather", "{\"deep\": {\"a\": [1, 2]}}")])
                .into_iter()
                .chain([said(" Done")])
                .collect(),
        ),
        (
            "<start_function_call>call:f{} <b>",
            with(&[], &[call(0, "f", "{}")])
                .into_iter()
                .chain([said(" <b>")])
                .collect(),
        ),
        // Cut off.
        (
            "<start_function_call>call:weather{place:<escape>Ber",
            with(&[], &[call(0, "weather", "{\"place\": \"Ber")]),
        ),
        (
            "<start_function_call>call:weather{days:12",
            with(&[], &[call(0, "weather", "{\"days\": 12")]),
        ),
        // No calls.
        (
            "<start_function_call>call:weat",
            vec![said("<start_function_call>call:weat")],
        ),
        (
            "<start_function_call>call:nobody{}<end_function_call>",
            vec![said(
                "<start_function_call>call:nobody{}<end_function_call>",
            )],
        ),
        (
            "a <start_function_call>to call <escape>",
            vec![said("a <start_function_call>to call <escape>")],
        ),
        // Amid a value.
        (
            "<start_function_call>call:f{a:1]x",
            with(&[], &[call(0, "f", "{\"a\": 1]x")]),
        ),
        (
            "<start_function_call>call:f{a:[1}x",
            with(&[], &[call(0, "f", "{\"a\": [1}x")]),
        ),
    ];
    check("function-gemma", &cases);
    // The same between other marks.
    let said_so = |delta: &Delta| match delta {
        Delta::Text(text) => Delta::Text(gemma4(text)),
        other => other.clone(),
    };
    for (text, expected) in &cases {
        if expected
            .iter()
            .all(|delta| !matches!(delta, Delta::Arguments { text, .. } if text.contains("<esc")))
        {
            let expected: Vec<Delta> = expected.iter().map(said_so).collect();
            check("gemma4", &[(&gemma4(text), expected)]);
        }
    }
    let answer = "<|channel>thought\nHm: <|tool\n<channel|>So. <|tool_call>call:weather{place:<|\"|>x, |<|\"|>,days:2}<tool_call|>";
    let expected = with(
        &[thought("Hm: <|tool"), said("So.")],
        &[call(0, "weather", r#"{"place": "x, |", "days": 2}"#)],
    );
    check("gemma4", &[(answer, expected)]);
    // However deep it nests, what comes out can be read.
    let deep = format!("<start_function_call>call:f{{a:{}", "[".repeat(300));
    let template = template("function-gemma");
    let deltas = parsed(&template, "", &deep);
    assert!(
        matches!(&deltas[2], Delta::Text(text) if text.len() == 201),
        "{deltas:?}"
    );
}
