mod constraints;
mod dialogues;
mod families;
mod pythonic;
mod round;

use serde::Deserialize;
use serde_json::{Value, json};
use walsh::formats::gguf::Gguf;
use walsh::formats::gguf::write::Writer;

use super::super::{Delta, OutputParser, Template, Tool};
use crate::tokenizer::Tokenizer;

/// Qwen3-Coder's way of writing calls.
const CODER: &str = "{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for call in m.tool_calls or [] %}

<tool_call>
<function={{ call.function.name }}>
{% for name, value in call.function.arguments.items() %}<parameter={{ name }}>
{{ value | tojson if value is mapping or (value is sequence and value is not string) else value | string }}
</parameter>
{% endfor %}</function>
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{{ tools | tojson if tools }}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}";

/// Mistral's later way of writing calls.
const NAMED: &str = "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}{% for call in m.tool_calls or [] %}[TOOL_CALLS]{{ call.function.name }}[ARGS]{{ call.function.arguments | tojson }}{% endfor %}{{ eos_token }}{% endif %}{% endfor %}{{ tools | tojson if tools }}";

/// FunctionGemma's way of declaring tools, of writing calls and of what they give.
const GEMMA: &str = "{{ bos_token }}{% macro show(value) %}
{%- if value is string %}<escape>{{ value }}<escape>
{%- elif value is boolean %}{{ 'true' if value else 'false' }}
{%- elif value is none %}null
{%- elif value is mapping %}{{ '{' }}{% for k, v in value | dictsort %}{{ ',' if not loop.first }}{{ k }}:{{ show(v) }}{% endfor %}{{ '}' }}
{%- elif value is sequence %}[{% for v in value %}{{ ',' if not loop.first }}{{ show(v) }}{% endfor %}]
{%- else %}{{ value }}{% endif %}{% endmacro %}
{%- if tools %}<start_of_turn>developer
{% for tool in tools %}<start_function_declaration>declaration:{{ tool.function.name }}{{ show({'description': tool.function.description, 'parameters': tool.function.parameters}) }}<end_function_declaration>{% endfor %}<end_of_turn>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<start_function_response>response:{{ m.name }}{{ show({'value': m.content}) }}<end_function_response>
{%- else %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ m.content or '' }}{% for call in m.tool_calls or [] %}<start_function_call>call:{{ call.function.name }}{{ show(call.function.arguments) }}<end_function_call>{% endfor %}<end_of_turn>
{% endif %}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}";

/// LFM2.5's way of telling of tools and of writing calls.
const LFM2: &str = "{{ bos_token }}{{ 'List of tools: ' + tools | tojson if tools }}{% for m in messages %}<|im_start|>{{ m.role }}
{{ '<think>' + m.thinking + '</think>' if m.thinking }}{{ m.content + '' }}
{%- if m.tool_calls %}<|tool_call_start|>[{% for call in m.tool_calls %}{{ ', ' if not loop.first }}{{ call.function.name }}(
{%- for name, value in call.function.arguments.items() %}{{ ', ' if not loop.first }}{{ name }}=
{%- if value is string %}'{{ value }}'{% elif value is mapping %}{{ value | tojson }}{% else %}{{ value | string }}{% endif %}
{%- endfor %}){% endfor %}]<|tool_call_end|>{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}";

/// The same of models whose templates write no calls.
const LFM2_PLAIN: &str = "{{ 'List of tools: ' + tools | tojson if tools }}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}";

/// The same with Gemma 4's marks.
fn gemma4(text: &str) -> String {
    [
        ("<start_function_call>", "<|tool_call>"),
        ("<end_function_call>", "<tool_call|>"),
        ("<escape>", "<|\"|>"),
        ("<start_of_turn>", "<|turn>"),
        ("<end_of_turn>", "<turn|>"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The templates of the golden files by name, and those above.
fn source(name: &str) -> String {
    #[derive(Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        name: String,
        template: String,
    }
    match name {
        "coder" => return CODER.to_owned(),
        "named" => return NAMED.to_owned(),
        "function-gemma" => return GEMMA.to_owned(),
        "lfm2" => return LFM2.to_owned(),
        "lfm2-plain" => return LFM2_PLAIN.to_owned(),
        "gemma4" => return gemma4(GEMMA) + "{# <|channel>thought and <channel|> #}",
        _ => {}
    }
    let golden: Golden = serde_json::from_str(include_str!(
        "../../../../../../tests/golden/templates.json"
    ))
    .unwrap();
    let mut cases = golden.cases.into_iter();
    let case = cases.find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("{name} is no template"))
        .template
}

/// A template without a tokenizer.
fn template(name: &str) -> Template {
    Template::new(&source(name), Vec::new(), None).unwrap()
}

/// Bytes, each a token, some words, control tokens, and one that ends a text.
fn tokenizer() -> Tokenizer {
    let byte = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte - 0x7f)).unwrap(),
        0xad => '\u{143}',
        _ => char::from_u32(0x100 + u32::from(byte)).unwrap(),
    };
    let mut tokens: Vec<String> = (0..=255u8).map(|b| byte(b).to_string()).collect();
    let words = [
        "{\"",
        "\":",
        "name",
        "\"}",
        "}}",
        "weather",
        "</",
        "tool",
        "\u{10a}{",
        ",\u{120}\"",
        "true",
    ];
    tokens.extend(words.map(str::to_owned));
    let mut kinds = vec![1; tokens.len()];
    let controls = [
        "</s>",
        "<s>",
        "<|im_start|>",
        "<|im_end|>",
        "<|start|>",
        "<|end|>",
        "<|message|>",
        "<|channel|>",
        "<|constrain|>",
        "<|call|>",
        "<|return|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[INST]",
        "[/INST]",
        "<|python_tag|>",
        "<|eot_id|>",
        "<start_function_call>",
        "<end_function_call>",
        "<escape>",
        "<|tool_call_start|>",
        "<|tool_call_end|>",
    ];
    tokens.extend(controls.map(str::to_owned));
    kinds.resize(tokens.len(), 3);
    let plain = [
        "<tool_call>",
        "</tool_call>",
        "<think>",
        "</think>",
        "<|tool_call>",
        "<tool_call|>",
        "<|\"|>",
        "<|channel>",
        "<channel|>",
    ];
    tokens.extend(plain.map(str::to_owned));
    kinds.resize(tokens.len(), 4);
    let end = tokens.iter().position(|token| token == "</s>").unwrap() as u32;
    let mut writer = Writer::new();
    writer.set("tokenizer.ggml.model", "gpt2").unwrap();
    let merges = vec!["a b".to_owned()];
    writer.set("tokenizer.ggml.merges", merges).unwrap();
    writer.set("tokenizer.ggml.tokens", tokens).unwrap();
    writer.set("tokenizer.ggml.token_type", kinds).unwrap();
    writer.set("tokenizer.ggml.eos_token_id", end).unwrap();
    writer.set("tokenizer.ggml.bos_token_id", end + 1).unwrap();
    let bytes = writer.to_bytes();
    Tokenizer::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap()
}

fn tool_json(name: &str, parameters: &Value) -> Value {
    let function = json!({"name": name, "description": "It does.", "parameters": parameters});
    json!({"type": "function", "function": function})
}

fn tools() -> Vec<Tool> {
    let weather = json!({
        "type": "object",
        "properties": {
            "place": {"type": "string"},
            "days": {"type": "integer"},
            "deep": {"type": "object"},
            "flag": {"type": "boolean"},
            "maybe": {"type": ["string", "null"]},
        },
        "required": ["place"],
    });
    let tools = [tool_json("weather", &weather), tool_json("f", &json!({}))];
    Tool::parse_all(&tools).unwrap()
}

/// Appends a piece where the last is of the same kind.
fn join(all: &mut Vec<Delta>, next: Delta) {
    match (all.last_mut(), &next) {
        (Some(Delta::Text(text)), Delta::Text(more))
        | (Some(Delta::Reasoning(text)), Delta::Reasoning(more)) => text.push_str(more),
        (
            Some(Delta::Arguments { index, text }),
            Delta::Arguments {
                index: other,
                text: more,
            },
        ) if index == other => text.push_str(more),
        _ => all.push(next),
    }
}

/// What a text in pieces becomes.
fn read(template: &Template, prompt: &str, tools: &[Tool], pieces: &[&str]) -> Vec<Delta> {
    let mut parser = OutputParser::new(template, prompt, tools);
    let mut all = Vec::new();
    for piece in pieces {
        for delta in parser.push(piece) {
            join(&mut all, delta);
        }
    }
    for delta in parser.finish() {
        join(&mut all, delta);
    }
    all
}

/// What a text becomes, however it is cut.
fn parsed(template: &Template, prompt: &str, text: &str) -> Vec<Delta> {
    let tools = tools();
    let whole = read(template, prompt, &tools, &[text]);
    let chars: Vec<String> = text.chars().map(String::from).collect();
    let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
    assert_eq!(read(template, prompt, &tools, &chars), whole, "{text}");
    for (at, _) in text.char_indices() {
        let (first, second) = text.split_at(at);
        let cut = read(template, prompt, &tools, &[first, second]);
        assert_eq!(cut, whole, "{first} | {second}");
    }
    whole
}

fn said(text: &str) -> Delta {
    Delta::Text(text.to_owned())
}

fn thought(text: &str) -> Delta {
    Delta::Reasoning(text.to_owned())
}

fn call(index: usize, name: &str, arguments: &str) -> [Delta; 2] {
    let call = Delta::Call {
        index,
        name: name.to_owned(),
    };
    let text = arguments.to_owned();
    [call, Delta::Arguments { index, text }]
}
