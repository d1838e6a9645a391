//! Whatever is chosen under a constraint is read as calls whose arguments are of their schemas.

use walsh::formats::random::SplitMix64;

use super::super::super::{ToolChoice, ToolRequest};
use super::*;
use crate::Constraint;
use crate::constraint::Guides;
use crate::constraint::shapes::Shape;
use crate::tokenizer::Tokenizer;

/// Every form, and prompts that leave their reasoning at each place.
const FORMS: [(&str, &str); 14] = [
    ("qwen2.5", ""),
    ("qwen3", ""),
    ("qwen3", "<think>\n"),
    ("qwen3", "<think>\n\n</think>\n\n"),
    ("coder", ""),
    ("llama3.1", ""),
    ("mistral-v3", ""),
    ("named", ""),
    ("function-gemma", ""),
    ("gemma4", ""),
    ("gemma4", "<|channel>thought\n<channel|>"),
    ("lfm2", ""),
    ("lfm2-plain", ""),
    ("gpt-oss", "<|start|>assistant"),
];

struct Place {
    tokenizer: Tokenizer,
    guides: Guides,
}

impl Place {
    fn new(tokenizer: Tokenizer) -> Self {
        let guides = Guides::new(&tokenizer).unwrap();
        Self { tokenizer, guides }
    }

    /// A text of tokens that are drawn from those that are allowed, with control tokens by their names; `None` where it
    /// did not end in time. What ends it is likelier than in a model, as no model draws evenly.
    fn draw(&self, constraint: &Constraint, random: &mut SplitMix64) -> Option<String> {
        let mut guide = self.guides.guide(constraint).unwrap();
        let mut bytes = Vec::new();
        for _ in 0..4000 {
            let mut logits = vec![0.0; self.tokenizer.vocab_size()];
            guide.mask(&mut logits).unwrap();
            let allowed = (0..logits.len() as i32)
                .filter(|token| logits[*token as usize] > f32::NEG_INFINITY);
            let (over, more): (Vec<i32>, Vec<i32>) =
                allowed.partition(|token| self.tokenizer.is_end(*token));
            // Where there are few ways on, one of them is as likely as the end.
            let often = if more.len() < 9 { 2 } else { 12 };
            if more.is_empty() || !over.is_empty() && random.below(often) == 0 {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            let is_mark = |token: &i32| {
                let bytes = self.tokenizer.token_bytes(*token);
                bytes.first().is_some_and(|byte| b"\"}]<{[".contains(byte))
                    || self.tokenizer.is_control(*token)
            };
            let marks: Vec<i32> = more.iter().copied().filter(is_mark).collect();
            let from =
                match marks.is_empty() || random.below(if bytes.is_empty() { 2 } else { 4 }) > 0 {
                    true => &more,
                    false => &marks,
                };
            let token = from[random.below(from.len())];
            bytes.extend_from_slice(&self.tokenizer.token_bytes(token));
            guide.accept(token, &self.tokenizer.token_bytes(token));
        }
        None
    }
}

/// Tools with schemas by chance.
fn random_tools(random: &mut SplitMix64, form: &str) -> (Vec<Tool>, Vec<Shape>) {
    let mut tools = Vec::new();
    let mut shapes = Vec::new();
    while tools.len() < 2 {
        let shape = Shape::random(random, 2);
        let schema = shape.schema();
        // Texts between marks are held to no length and no pattern, and names to what can stand there.
        let text = schema.to_string();
        let beyond = text.contains("Length") || text.contains("pattern");
        let beyond = match form {
            "coder" => beyond || text.contains("anyOf") || text.contains("enum"),
            "function-gemma" | "gemma4" => beyond,
            "lfm2" | "lfm2-plain" => {
                let names = schema["properties"].as_object().into_iter().flatten();
                names.into_iter().any(|(name, _)| name.contains('"'))
            }
            _ => false,
        };
        if schema["type"] != "object" || beyond {
            continue;
        }
        let mut tool = tool_json(["weather", "f/g.h"][tools.len()], &schema);
        tool["function"]["strict"] = true.into();
        tools.push(Tool::parse(&tool).unwrap());
        shapes.push(shape);
    }
    (tools, shapes)
}

/// The calls that a text becomes, each checked; and its other text.
fn checked(
    template: &Template,
    prompt: &str,
    (tools, shapes): (&[Tool], &[Shape]),
    text: &str,
) -> (usize, String) {
    let mut calls: Vec<(String, String)> = Vec::new();
    let mut other = String::new();
    for delta in read(template, prompt, tools, &[text]) {
        match delta {
            Delta::Call { name, .. } => calls.push((name, String::new())),
            Delta::Arguments { text, .. } => calls.last_mut().unwrap().1.push_str(&text),
            Delta::Text(text) => other.push_str(&text),
            Delta::Reasoning(_) => {}
        }
    }
    for (name, arguments) in &calls {
        let value: Value = serde_json::from_str(arguments)
            .unwrap_or_else(|error| panic!("{error}: {arguments} in {text}"));
        let at = tools.iter().position(|tool| tool.name == *name).unwrap();
        let schema = &tools[at].parameters;
        assert!(shapes[at].holds(&value), "{value} by {schema} in {text}");
    }
    (calls.len(), other)
}

#[test]
fn a_call_that_must_be_is() {
    let place = Place::new(tokenizer());
    let mut random = SplitMix64(5);
    for (name, prompt) in FORMS {
        let template = Template::from_source(&source(name), &place.tokenizer).unwrap();
        let (mut drawn, mut most) = (0, 0);
        for round in 0..36 {
            let (tools, shapes) = random_tools(&mut random, name);
            let named = ToolChoice::Named(tools[1].name.clone());
            let choice = if round % 3 == 0 {
                &named
            } else {
                &ToolChoice::Required
            };
            let request = ToolRequest {
                tools: &tools,
                choice,
                parallel: round % 2 == 0,
                prompt_text: prompt,
                answer: None,
            };
            let constraint = template.tool_constraint(&request).unwrap().unwrap();
            let Some(text) = place.draw(&constraint, &mut random) else {
                continue;
            };
            drawn += 1;
            let (calls, other) = checked(&template, prompt, (&tools, &shapes), &text);
            assert_eq!(other, "", "{name}: {text}");
            let at_most = if request.parallel && *choice == ToolChoice::Required {
                99
            } else {
                1
            };
            assert!(
                (1..=at_most).contains(&calls),
                "{name}: {calls} calls in {text}"
            );
            most = most.max(calls);
        }
        assert!(drawn > 12, "{name} {drawn}");
        // Its turn ends with a call.
        assert_eq!(most > 1, name != "gpt-oss", "{name} {most}");
    }
}

/// A vocabulary of words, whose tokens end anywhere in marks, names and JSON.
#[test]
fn calls_hold_on_real_vocabularies() {
    for (model, name) in [
        ("smollm2-135m", "chatml"),
        ("gemma3-270m", "gemma3"),
        ("smollm2-135m", "coder"),
        ("gemma3-270m", "function-gemma"),
        ("smollm2-135m", "lfm2"),
    ] {
        let place = Place::new(crate::constraint::tests::tokenizer(model));
        let mut random = SplitMix64(23);
        let template = Template::from_source(&source(name), &place.tokenizer).unwrap();
        let mut drawn = 0;
        for round in 0..16 {
            let (tools, shapes) = random_tools(&mut random, name);
            let choice = [ToolChoice::Required, ToolChoice::Auto][round % 2].clone();
            let request = ToolRequest {
                tools: &tools,
                choice: &choice,
                parallel: true,
                prompt_text: "",
                answer: None,
            };
            let constraint = template.tool_constraint(&request).unwrap().unwrap();
            let Some(text) = place.draw(&constraint, &mut random) else {
                continue;
            };
            drawn += 1;
            let (calls, other) = checked(&template, "", (&tools, &shapes), &text);
            assert!(
                choice == ToolChoice::Auto || calls > 0 && other.is_empty(),
                "{text}"
            );
        }
        assert!(drawn > 8, "{name} {drawn}");
    }
}

#[test]
fn a_call_that_may_be_is_of_its_schema() {
    let place = Place::new(tokenizer());
    let mut random = SplitMix64(11);
    for (name, prompt) in FORMS {
        let template = Template::from_source(&source(name), &place.tokenizer).unwrap();
        let (mut drawn, mut with_calls) = (0, 0);
        for round in 0..40 {
            let (tools, shapes) = random_tools(&mut random, name);
            let request = ToolRequest {
                tools: &tools,
                choice: &ToolChoice::Auto,
                parallel: round % 2 == 0,
                prompt_text: prompt,
                answer: None,
            };
            let constraint = template.tool_constraint(&request).unwrap().unwrap();
            let Some(text) = place.draw(&constraint, &mut random) else {
                continue;
            };
            drawn += 1;
            let (calls, _) = checked(&template, prompt, (&tools, &shapes), &text);
            with_calls += usize::from(calls > 0);
        }
        println!("{name}: {drawn} drawn, {with_calls} with calls");
        assert!(drawn > 20 && with_calls > 0, "{name} {drawn} {with_calls}");
    }
}

/// Whatever a model says instead of a call is of the schema, and comes behind its reasoning.
#[test]
fn what_is_said_instead_of_a_call_is_of_its_schema() {
    let place = Place::new(tokenizer());
    let mut random = SplitMix64(17);
    for (name, prompt) in FORMS {
        let template = Template::from_source(&source(name), &place.tokenizer).unwrap();
        let (mut said, mut called) = (0, 0);
        for round in 0..60 {
            let (all, shapes) = random_tools(&mut random, name);
            // With tools that are strict, with tools that are not, and without any.
            let mut tools = if round % 3 == 2 { Vec::new() } else { all };
            for tool in &mut tools {
                tool.strict = round % 3 == 0;
            }
            let choice = match round % 6 {
                5 => ToolChoice::None,
                _ => ToolChoice::Auto,
            };
            let shape = Shape::random(&mut random, 2);
            let schema = shape.schema();
            let request = ToolRequest {
                tools: &tools,
                choice: &choice,
                parallel: round % 2 == 0,
                prompt_text: prompt,
                answer: Some(&schema),
            };
            let constraint = template.tool_constraint(&request).unwrap().unwrap();
            let Some(text) = place.draw(&constraint, &mut random) else {
                continue;
            };
            let (calls, other) = checked(&template, prompt, (&tools, &shapes), &text);
            called += usize::from(calls > 0);
            if calls == 0 {
                let value = serde_json::from_str(other.trim());
                let value: Value = value.unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
                assert!(shape.holds(&value), "{name}: {schema} of {text}");
                said += 1;
            }
        }
        println!("{name}: {said} said, {called} called");
        assert!(said > 8 && called > 0, "{name} {said} {called}");
    }
}

#[test]
fn what_is_not_asked_for_is_not_held() {
    let tokenizer = tokenizer();
    let template = Template::from_source(&source("coder"), &tokenizer).unwrap();
    let loose = tools();
    let ask = |tools: &[Tool], choice: ToolChoice| {
        template.tool_constraint(&ToolRequest {
            tools,
            choice: &choice,
            parallel: true,
            prompt_text: "",
            answer: None,
        })
    };
    assert_eq!(ask(&loose, ToolChoice::Auto).unwrap(), None);
    assert_eq!(ask(&loose, ToolChoice::None).unwrap(), None);
    assert!(ask(&loose, ToolChoice::Required).unwrap().is_some());
    let error = ask(&[], ToolChoice::Required).unwrap_err().to_string();
    assert!(error.contains("at least one"), "{error}");
    let error = ask(&loose, ToolChoice::Named("x".into()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("the tool x"), "{error}");
    let mut strict = loose;
    strict[0].strict = true;
    strict[0].parameters["properties"]["place"]["pattern"] = "^a".into();
    let error = ask(&strict, ToolChoice::Auto).unwrap_err().to_string();
    assert!(
        error.contains("weather") && error.contains("pattern"),
        "{error}"
    );
}

#[test]
fn marks_that_are_control_tokens_are_asked_for() {
    let tokenizer = tokenizer();
    for (name, with, without) in [
        ("qwen3", false, false),
        ("llama3.1", true, false),
        ("mistral-v3", true, false),
        ("function-gemma", true, false),
        ("gemma4", false, false),
        ("lfm2", true, false),
        ("gpt-oss", true, true),
    ] {
        let template = Template::from_source(&source(name), &tokenizer).unwrap();
        let shows = |tools: &[Tool]| OutputParser::new(&template, "", tools).shows_control();
        assert_eq!((shows(&tools()), shows(&[])), (with, without), "{name}");
    }
}
