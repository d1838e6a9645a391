//! Constraints by which an answer calls tools.

mod gemma;
mod pythonic;

use std::fmt::Write;

use serde_json::{Value, json};

use super::coder::Types;
use super::form::{Form, Format};
use super::reasoning::Begun;
use super::tool::{Tool, ToolChoice};
use crate::chat::template::Template;
use crate::chat::wrong::wrong;
use crate::constraint::with_whitespace;
use crate::{Constraint, Result};

/// What is asked of an answer's calls.
#[derive(Clone, Copy, Debug)]
pub struct ToolRequest<'a> {
    /// What can be called.
    pub tools: &'a [Tool],
    /// Whether something has to be.
    pub choice: &'a ToolChoice,
    /// Whether there can be several calls, up to 16.
    pub parallel: bool,
    /// The text of the prompt, which may have begun the answer's reasoning.
    pub prompt_text: &'a str,
    /// The JSON schema of what is said, behind any reasoning, where nothing is called; `None` where it may be any text.
    pub answer: Option<&'a Value>,
}

impl Template {
    /// The form that an answer must have for its calls to be as asked; `None` where it may have any. Tools that are not
    /// strict have calls with arguments by what is understood of their schema. What is said instead of calls is of the schema
    /// that `answer` gives, behind what the model thinks first.
    ///
    /// # Errors
    /// [`Error::Dialogue`](crate::Error::Dialogue) when a call is asked for and there is no such tool, or a strict tool's
    /// schema asks for what the model's form of calls cannot be held to.
    pub fn tool_constraint(&self, request: &ToolRequest<'_>) -> Result<Option<Constraint>> {
        let begun = Begun::of(request.prompt_text);
        let tools = match request.choice {
            ToolChoice::None => &[][..],
            _ => request.tools,
        };
        let (tools, must) = match (request.choice, request.answer) {
            (ToolChoice::None | ToolChoice::Auto, None)
                if !tools.iter().any(|tool| tool.strict) =>
            {
                return Ok(None);
            }
            (ToolChoice::None | ToolChoice::Auto, Some(schema))
                if tools.is_empty() && self.says_at_once(begun) =>
            {
                return Ok(Some(Constraint::JsonSchema(schema.to_string())));
            }
            (ToolChoice::None | ToolChoice::Auto, _) => (tools, false),
            (ToolChoice::Required, _) if tools.is_empty() => {
                return Err(wrong(
                    "a tool must be called, but there is none: give at least one",
                ));
            }
            (ToolChoice::Required, _) => (tools, true),
            (ToolChoice::Named(name), _) => {
                let tool = tools.iter().find(|tool| tool.name == *name);
                let Some(tool) = tool else {
                    return Err(wrong(format!(
                        "the tool {name} must be called, but is none of those given"
                    )));
                };
                (std::slice::from_ref(tool), true)
            }
        };
        let named = matches!(request.choice, ToolChoice::Named(_));
        let grammar = Grammar {
            form: &self.form,
            tools,
            several: request.parallel && !named,
            answer: request.answer,
            rules: String::new(),
        };
        let text = grammar.text(must, begun)?;
        Ok(Some(Constraint::Lark(text)))
    }

    /// Whether the model writes nothing before an answer that calls nothing: neither thoughts nor marks.
    fn says_at_once(&self, begun: Begun) -> bool {
        let thinks = matches!(begun, Begun::Open(_)) || !self.form.reasoning.is_empty();
        self.form.format != Format::Harmony && !thinks
    }
}

/// The most calls of an answer: a model that is held to calls may find no end to them.
const MOST_CALLS: usize = 16;

/// A member and what follows it; or else, where it may be left out, what follows without it.
fn or_without(this: String, is_required: bool, without: &str) -> String {
    match (is_required, without) {
        (true, _) => this,
        (false, "") => format!("({this})?"),
        (false, without) => format!("{this} | {without}"),
    }
}

/// A part that comes as often as calls can follow the first.
fn again(part: &str) -> String {
    format!("({part}){{0,{}}}", MOST_CALLS - 1)
}

/// A grammar being written, in llguidance's kind of Lark.
struct Grammar<'a> {
    form: &'a Form,
    tools: &'a [Tool],
    several: bool,
    /// The schema of what is said where nothing is called.
    answer: Option<&'a Value>,
    rules: String,
}

impl Grammar<'_> {
    fn text(mut self, must: bool, begun: Begun) -> Result<String> {
        if let Some(schema) = self.answer.filter(|_| !must) {
            let schema = with_whitespace(schema.clone());
            self.rule("answer", &format!("%json {schema}"));
        }
        let start = match self.form.format {
            Format::Harmony => self.harmony(must)?,
            format => {
                let reasoning = self.reasoning(begun);
                let calls = match format {
                    _ if self.tools.is_empty() => "answer",
                    Format::Llama => self.llama(must)?,
                    Format::Mistral => self.mistral(must)?,
                    Format::Gemma(marks) => self.gemma(marks, must)?,
                    Format::Pythonic => self.pythonic(must)?,
                    _ => self.blocks(must)?,
                };
                format!("{reasoning} {calls}")
            }
        };
        Ok(format!("start: {start}\n{}", self.rules))
    }

    fn rule(&mut self, name: &str, body: &str) {
        // A string takes it.
        let _ = writeln!(self.rules, "{name}: {body}");
    }

    /// A mark, as the token that it is or as text.
    fn mark(&self, mark: &str) -> String {
        match self.form.control(mark) {
            Some(token) => format!("<[{token}]>"),
            None => quoted(mark),
        }
    }

    /// A text up to a mark and with it, by a rule of this name. `without` are patterns of what must not be in it.
    fn until(&mut self, name: &str, mark: &str, without: &[&str]) {
        let upper = name.to_uppercase();
        match self.form.control(mark) {
            Some(token) => {
                self.rule(&upper, &pattern("(?s:.+)", without));
                self.rule(name, &format!("{upper}? <[{token}]>"));
            }
            None => {
                let text = format!("(?s:.*){}", escaped(mark));
                self.rule(&upper, &pattern(&text, without));
                self.rule(&format!("{name}[lazy]"), &upper);
            }
        }
    }

    /// Text without marks that begin a call.
    fn plain(&mut self, name: &str, marks: &[&str]) {
        let upper = name.to_uppercase();
        let marks = marks
            .iter()
            .filter(|mark| self.form.control(mark).is_none());
        let marks: Vec<&str> = marks.copied().collect();
        self.rule(&upper, &pattern("(?s:.+)", &marks));
        self.rule(name, &format!("{upper}?"));
    }

    /// What may or must come before the answer.
    fn reasoning(&mut self, begun: Begun) -> &'static str {
        self.rule("space", "/\\n{0,2}/");
        match (begun, self.form.reasoning.first().copied()) {
            (Begun::Open(marks), _) => {
                self.until("thought", marks.end, &[]);
                "thought space"
            }
            (Begun::No, Some(marks)) => {
                self.until("thought", marks.end, &[]);
                let begin = self.mark(marks.begin);
                self.rule("reasoning", &format!("({begin} thought space)?"));
                "reasoning"
            }
            _ => "",
        }
    }

    /// Marks around each call.
    fn blocks(&mut self, must: bool) -> Result<&'static str> {
        const BEGIN: &str = "<tool_call>";
        let coder = self.form.format == Format::Coder;
        let end = self.mark("</tool_call>");
        let begin = self.mark(BEGIN);
        let mut one = String::new();
        for (index, tool) in self.tools.iter().enumerate() {
            let call = match coder {
                true => self.parameters(index, tool)?,
                false => self.object(index, tool, "arguments"),
            };
            let bar = if index > 0 { " | " } else { "" };
            let _ = write!(one, "{bar}{call}");
        }
        let body = format!("\"\\n\" ({one}) \"\\n\" {end}");
        self.rule("body", &body);
        if must || self.answer.is_some() {
            self.rule("call", &format!("{begin} body"));
            self.rule("more", &again("\"\\n\" call"));
            return Ok(self.calls_or_answer(must));
        }
        let begins: &[&str] = match coder {
            true => &[BEGIN, "<function="],
            false => &[BEGIN],
        };
        self.until("before", BEGIN, &begins[1..]);
        self.plain("rest", begins);
        Ok(match self.several {
            true => "(before body){0,16} rest",
            false => "(before body | rest)",
        })
    }

    /// Calls, or where they need not be the answer instead of them.
    fn calls_or_answer(&self, must: bool) -> &'static str {
        match (must, self.several) {
            (true, true) => "call more",
            (true, false) => "call",
            (false, true) => "(call more | answer)",
            (false, false) => "(call | answer)",
        }
    }

    /// A call as JSON; gives the rule's name.
    fn object(&mut self, index: usize, tool: &Tool, arguments: &str) -> String {
        let name = Value::from(tool.name.as_str());
        let head = quoted(&format!("{{\"name\": {name}, \"{arguments}\": "));
        let arguments = arguments_rule(index, tool);
        self.rules.push_str(&arguments);
        let rule = format!("call_{index}");
        self.rule(&rule, &format!("{head} arguments_{index} \"}}\""));
        rule
    }

    fn llama(&mut self, must: bool) -> Result<&'static str> {
        self.objects("parameters");
        self.rule("more", &again("\"; \" call"));
        if must || self.answer.is_some() {
            return Ok(self.calls_or_answer(must));
        }
        // What begins with a brace would be read as a call.
        const MARK: &str = "<|python_tag|>";
        let marks: &[&str] = match self.form.control(MARK) {
            Some(_) => &[],
            None => &[MARK],
        };
        self.rule("PLAIN", &pattern("\\s*[^\\s{](?s:.*)", marks));
        Ok(match self.several {
            true => "(call more | PLAIN)",
            false => "(call | PLAIN)",
        })
    }

    /// The rule `call` of calls as JSON.
    fn objects(&mut self, arguments: &str) {
        let calls: Vec<String> = (self.tools.iter().enumerate())
            .map(|(index, tool)| self.object(index, tool, arguments))
            .collect();
        self.rule("call", &calls.join(" | "));
    }

    fn mistral(&mut self, must: bool) -> Result<&'static str> {
        const BEGIN: &str = "[TOOL_CALLS]";
        let begin = self.mark(BEGIN);
        if self.form.named {
            let mark = self.mark("[ARGS]");
            let id = match self.form.ids {
                true => format!("({} /[0-9A-Za-z]{{9}}/)?", self.mark("[CALL_ID]")),
                false => String::new(),
            };
            let mut calls = Vec::new();
            for (index, tool) in self.tools.iter().enumerate() {
                self.rules.push_str(&arguments_rule(index, tool));
                let name = quoted(&tool.name);
                calls.push(format!("{name} {id} {mark} arguments_{index}"));
            }
            self.rule("call", &calls.join(" | "));
            self.rule("more", &again(&format!("{begin} call")));
        } else {
            self.objects("arguments");
            self.rule("more", &again("\", \" call"));
        }
        let body = match (self.form.named, self.several) {
            (true, true) => "call more",
            (true, false) => "call",
            (false, true) => "\" \"? \"[\" call more \"]\"",
            (false, false) => "\" \"? \"[\" call \"]\"",
        };
        self.rule("body", body);
        if must || self.answer.is_some() {
            self.rule("calls", &format!("{begin} body"));
            return Ok(if must { "calls" } else { "(calls | answer)" });
        }
        self.until("before", BEGIN, &[]);
        self.plain("rest", &[BEGIN]);
        Ok("(before body | rest)")
    }

    fn harmony(&mut self, must: bool) -> Result<String> {
        let mark = |mark| self.mark(mark);
        let (start, channel, message, end, constrain) = (
            mark("<|start|>"),
            mark("<|channel|>"),
            mark("<|message|>"),
            mark("<|end|>"),
            mark("<|constrain|>"),
        );
        let mut calls = Vec::new();
        for (index, tool) in self.tools.iter().enumerate() {
            self.rules.push_str(&arguments_rule(index, tool));
            let to = quoted(&format!("commentary to=functions.{} ", tool.name));
            calls.push(format!(
                "{channel} {to} {constrain} \"json\" {message} arguments_{index}"
            ));
        }
        if !calls.is_empty() {
            self.rule("call", &calls.join(" | "));
        }
        self.until("said", "<|end|>", &[]);
        let said = format!("{message} said {start} \"assistant\"");
        self.rule("analysis", &format!("({channel} \"analysis\" {said})*"));
        if must {
            return Ok("analysis call".into());
        }
        if self.answer.is_none() {
            self.plain("answer", &["<|start|>", "<|channel|>"]);
        }
        let answer = format!("{channel} \"final\" {message} answer {end}?");
        self.rule("final", &answer);
        if self.tools.is_empty() {
            return Ok("analysis final".into());
        }
        self.rule("preamble", &format!("({channel} \"commentary\" {said})?"));
        Ok("analysis (final | preamble call)".into())
    }

    /// A call of parameters between marks.
    fn parameters(&mut self, index: usize, tool: &Tool) -> Result<String> {
        let schema = &tool.parameters;
        for key in [
            "$ref",
            "anyOf",
            "oneOf",
            "allOf",
            "not",
            "if",
            "patternProperties",
        ] {
            if tool.strict && schema.get(key).is_some() {
                return Err(held(tool, key));
            }
        }
        let anything = json!({});
        let mut body = String::new();
        for (at, (name, property, is_required)) in members(schema).into_iter().enumerate() {
            let property = property.unwrap_or(&anything);
            let limits = ["pattern", "format", "minLength", "maxLength"];
            let limit = limits.iter().find(|limit| property.get(limit).is_some());
            if let (true, true, Some(limit)) = (tool.strict, Types::of(property).has_text(), limit)
            {
                return Err(held(tool, limit));
            }
            let rule = format!("parameter_{index}_{at}");
            self.parameter(&rule, (name, property), schema);
            let _ = write!(body, " {rule}{}", if is_required { "" } else { "?" });
        }
        let rule = format!("call_{index}");
        let head = quoted(&format!("<function={}>\n", tool.name));
        self.rule(&rule, &format!("{head}{body} \"</function>\""));
        Ok(rule)
    }

    /// One parameter, its name and schema, of a tool whose schema has the definitions.
    fn parameter(&mut self, rule: &str, (name, schema): (&str, &Value), root: &Value) {
        let head = quoted(&format!("<parameter={name}>\n"));
        let end = quoted("\n</parameter>\n");
        let types = Types::of(schema);
        let texts = given(schema);
        let mut choices = Vec::new();
        if let Some(texts) = &texts {
            let texts = texts.iter().map(|value| match value {
                Value::String(text) => quoted(text),
                other => quoted(&other.to_string()),
            });
            choices.push(format!("({}) {end}", texts.collect::<Vec<_>>().join(" | ")));
        } else if types.has_text() {
            let text = format!("{rule}_text");
            let upper = text.to_uppercase();
            self.rule(&upper, &pattern("(?s:.*)<\\/parameter>", &[]));
            self.rule(&format!("{text}[lazy]"), &upper);
            choices.push(format!("{text} \"\\n\""));
        }
        if texts.is_none() && !types.is_text() {
            let mut value = schema.clone();
            if types.has_text() {
                value = json!({"allOf": [value, {"type": types.others()}]});
            }
            if let Value::Object(value) = &mut value {
                for key in ["$defs", "definitions"] {
                    if let Some(definitions) = root.get(key) {
                        value.insert(key.into(), definitions.clone());
                    }
                }
            }
            let json = format!("{rule}_json");
            self.rule(&json, &format!("%json {}", whitespace(value, true)));
            choices.push(format!("{json} {end}"));
        }
        self.rule(rule, &format!("{head} ({})", choices.join(" | ")));
    }
}

/// What is wrong with a strict tool whose form of calls knows no way to ask for something.
fn held(tool: &Tool, what: &str) -> crate::Error {
    wrong(format!(
        "the strict tool {} has {what} in its parameters, which this model's form of calls cannot be held to: leave it out, or make the tool not strict",
        tool.name
    ))
}

/// What an object has by its schema: names, what is said of each where something is, and whether it has to be there.
fn members(schema: &Value) -> Vec<(&str, Option<&Value>, bool)> {
    let listed = schema["properties"].as_object();
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    let known = listed.into_iter().flatten().map(|(name, property)| {
        let is_required = required.iter().any(|required| required == name);
        (name.as_str(), Some(property), is_required)
    });
    let is_listed = |name: &&str| listed.is_some_and(|listed| listed.contains_key(*name));
    let unknown = required.iter().filter_map(Value::as_str);
    let unknown = unknown.filter(|name| !is_listed(name));
    known
        .chain(unknown.map(|name| (name, None, true)))
        .collect()
}

/// The values of which a schema lets one be.
fn given(schema: &Value) -> Option<Vec<Value>> {
    let values = schema["enum"].as_array().cloned();
    values.or_else(|| schema.get("const").map(|value| vec![value.clone()]))
}

/// The rule of a tool's arguments as JSON.
fn arguments_rule(index: usize, tool: &Tool) -> String {
    let mut schema = tool.parameters.clone();
    if let Value::Object(schema) = &mut schema {
        schema.entry("type").or_insert("object".into());
    }
    let schema = whitespace(schema, !tool.strict);
    format!("arguments_{index}: %json {schema}\n")
}

/// A schema with what may be between its parts, and whether what is not understood of it is left out.
fn whitespace(mut schema: Value, lenient: bool) -> Value {
    if let (true, Value::Object(schema)) = (lenient, &mut schema) {
        let options = schema.entry("x-guidance").or_insert_with(|| json!({}));
        if let Value::Object(options) = options {
            options.insert("lenient".into(), true.into());
        }
    }
    with_whitespace(schema)
}

/// A text in a grammar.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text in a pattern.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && c.is_ascii() {
            out.push('\\');
        }
        out.push(c);
    }
    // No escape of a letter-like character is one of a pattern.
    out.replace("\\_", "_")
        .replace("\\<", "<")
        .replace("\\>", ">")
}

/// A pattern of what has none of some texts in it.
fn pattern(pattern: &str, without: &[&str]) -> String {
    let mut out = format!("/{pattern}/");
    for text in without {
        let _ = write!(out, " & ~/(?s:.*){}(?s:.*)/", escaped(text));
    }
    out
}
