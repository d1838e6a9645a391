//! Calls with values that are no JSON, as FunctionGemma and Gemma 4 have them.

use serde_json::{Value, json};

use super::super::coder::Types;
use super::super::gemma::{CALL, Marks};
use super::super::tool::Tool;
use super::{Grammar, again, given, held, members, or_without, quoted, whitespace};
use crate::Result;
use crate::chat::wrong::wrong;

/// What strict schemas must not ask for, as their values are not written as JSON.
const BEYOND: [&str; 16] = [
    "$ref",
    "allOf",
    "not",
    "if",
    "patternProperties",
    "propertyNames",
    "dependentRequired",
    "minProperties",
    "maxProperties",
    "uniqueItems",
    "contains",
    "prefixItems",
    "pattern",
    "format",
    "minLength",
    "maxLength",
];

impl Grammar<'_> {
    pub(super) fn gemma(&mut self, marks: Marks, must: bool) -> Result<&'static str> {
        let (begin, end) = (self.mark(marks.begin()), self.mark(marks.end()));
        let escape = self.mark(marks.escape());
        self.rule("escape", &escape);
        // Spelt out it would be read as the token.
        let without: &[&str] = match self.form.control(marks.escape()) {
            Some(_) => &[marks.escape()],
            None => &[],
        };
        self.until("text_end", marks.escape(), without);
        self.rule("text", "escape text_end");
        self.rule(
            "plain_any",
            "%json {\"type\": [\"number\", \"boolean\", \"null\"]}",
        );
        self.rule("pair", "/[A-Za-z_][A-Za-z0-9_]{0,63}/ \":\" any");
        self.rule("object_any", "\"{\" (pair (\",\" pair)*)? \"}\"");
        self.rule("list_any", "\"[\" (any (\",\" any)*)? \"]\"");
        self.rule("any", "text | plain_any | object_any | list_any");
        let mut calls = Vec::new();
        for (index, tool) in self.tools.iter().enumerate() {
            let rule = format!("arguments_{index}");
            self.gemma_object((tool, marks), &rule, &tool.parameters)?;
            calls.push(format!(
                "{} {rule}",
                quoted(&format!("{CALL}{}", tool.name))
            ));
        }
        self.rule("body", &format!("({}) {end}", calls.join(" | ")));
        if must || self.answer.is_some() {
            self.rule("call", &format!("{begin} body"));
            self.rule("more", &again("call"));
            return Ok(self.calls_or_answer(must));
        }
        self.until("before", marks.begin(), &[]);
        self.plain("rest", &[marks.begin()]);
        Ok(match self.several {
            true => "(before body){0,16} rest",
            false => "(before body | rest)",
        })
    }

    /// The rule of an object by its schema.
    fn gemma_object(&mut self, of: (&Tool, Marks), rule: &str, schema: &Value) -> Result<()> {
        check(of.0, schema)?;
        let all = members(schema);
        let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        if all.is_empty() {
            self.rule(rule, if is_closed { "\"{}\"" } else { "object_any" });
            return Ok(());
        }
        // Of what is left from each place on: where nothing stands before it, and where something does.
        let (mut first, mut then) = (String::new(), String::new());
        let anything = json!({});
        for (at, (name, property, is_required)) in all.into_iter().enumerate().rev() {
            let pair = format!("{rule}_{at}");
            let value = format!("{pair}_v");
            self.gemma_value(of, &value, property.unwrap_or(&anything))?;
            let key = key(of, name)?;
            self.rule(&pair, &format!("{key} \":\" {value}"));
            let or = |this, without: &str| or_without(this, is_required, without);
            let this = or(format!("{pair} {then}"), &first);
            first = format!("{rule}_f{at}");
            self.rule(&first, &this);
            if at > 0 {
                let this = or(format!("\",\" {pair} {then}"), &then);
                then = format!("{rule}_t{at}");
                self.rule(&then, &this);
            }
        }
        self.rule(rule, &format!("\"{{\" {first} \"}}\""));
        Ok(())
    }

    /// The rule of a value by its schema.
    fn gemma_value(&mut self, of: (&Tool, Marks), rule: &str, schema: &Value) -> Result<()> {
        check(of.0, schema)?;
        if let Some(values) = given(schema) {
            let values: Result<Vec<String>> = values.iter().map(|v| literal(of, v)).collect();
            self.rule(rule, &values?.join(" | "));
            return Ok(());
        }
        let any = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
        if let Some(any) = any {
            let mut choices = Vec::new();
            for (at, schema) in any.iter().enumerate() {
                let choice = format!("{rule}_{at}");
                self.gemma_value(of, &choice, schema)?;
                choices.push(choice);
            }
            self.rule(rule, &choices.join(" | "));
            return Ok(());
        }
        let types = Types::of(schema);
        let (mut choices, mut plain) = (Vec::new(), Vec::new());
        if types.has_text() {
            choices.push("text".to_owned());
        }
        for other in types.others() {
            match other {
                "object" => {
                    choices.push(format!("{rule}_o"));
                    self.gemma_object(of, &format!("{rule}_o"), schema)?;
                }
                "array" => {
                    choices.push(format!("{rule}_l"));
                    self.gemma_list(of, &format!("{rule}_l"), schema)?;
                }
                other => plain.push(other),
            }
        }
        if !plain.is_empty() {
            let mut value = schema.clone();
            value["type"] = json!(plain);
            let value = whitespace(value, !of.0.strict);
            self.rule(&format!("{rule}_p"), &format!("%json {value}"));
            choices.push(format!("{rule}_p"));
        }
        if choices.is_empty() {
            choices.push("any".into());
        }
        self.rule(rule, &choices.join(" | "));
        Ok(())
    }

    fn gemma_list(&mut self, of: (&Tool, Marks), rule: &str, schema: &Value) -> Result<()> {
        let item = format!("{rule}_i");
        match schema.get("items") {
            Some(items) => self.gemma_value(of, &item, items)?,
            None => self.rule(&item, "any"),
        }
        let least = schema["minItems"].as_u64().unwrap_or(0);
        let more = match (least.saturating_sub(1), schema["maxItems"].as_u64()) {
            (_, Some(0)) => {
                self.rule(rule, "\"[]\"");
                return Ok(());
            }
            (_, Some(1)) => String::new(),
            (least, Some(most)) => format!("(\",\" {item}){{{least},{}}}", most - 1),
            (0, None) => format!("(\",\" {item})*"),
            (least, None) => format!("(\",\" {item}){{{least}}} (\",\" {item})*"),
        };
        let optional = if least == 0 { "?" } else { "" };
        self.rule(rule, &format!("\"[\" ({item} {more}){optional} \"]\""));
        Ok(())
    }
}

/// Refuses what a strict schema asks for in vain.
fn check(tool: &Tool, schema: &Value) -> Result<()> {
    let beyond = BEYOND.iter().find(|key| schema.get(**key).is_some());
    match beyond.filter(|_| tool.strict) {
        Some(key) => Err(held(tool, key)),
        None => Ok(()),
    }
}

/// A key as it stands in a call: between marks where it could be taken for more than that.
fn key(of: (&Tool, Marks), name: &str) -> Result<String> {
    let is_plain = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    match !name.is_empty() && name.chars().all(is_plain) {
        true => Ok(quoted(name)),
        false => text(of, name),
    }
}

/// A text between its marks.
fn text((tool, marks): (&Tool, Marks), text: &str) -> Result<String> {
    let escape = marks.escape();
    if text.contains(escape) {
        return Err(wrong(format!(
            "the tool {} has {escape} in its parameters, which is a mark of this model's form of calls: leave it out",
            tool.name
        )));
    }
    // A grammar has no empty text.
    let text = if text.is_empty() {
        String::new()
    } else {
        quoted(text)
    };
    Ok(format!("escape {text} escape"))
}

/// A value that is given.
fn literal(of: (&Tool, Marks), value: &Value) -> Result<String> {
    Ok(match value {
        Value::String(value) => text(of, value)?,
        Value::Array(values) => {
            let values: Result<Vec<String>> = values.iter().map(|v| literal(of, v)).collect();
            format!("\"[\" {} \"]\"", values?.join(" \",\" "))
        }
        Value::Object(values) => {
            let pair = |(name, value): (&String, &Value)| {
                Ok(format!("{} \":\" {}", key(of, name)?, literal(of, value)?))
            };
            let pairs: Result<Vec<String>> = values.iter().map(pair).collect();
            format!("\"{{\" {} \"}}\"", pairs?.join(" \",\" "))
        }
        plain => quoted(&plain.to_string()),
    })
}
