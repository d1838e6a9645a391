//! Calls as Python writes them, with values that are JSON: both have the same texts and numbers, and what reads calls reads
//! JSON's other words too.

use serde_json::{Value, json};

use super::super::pythonic::{BEGIN, END, NO_KEY};
use super::super::tool::Tool;
use super::{Grammar, again, held, members, or_without, quoted, whitespace};
use crate::Result;

/// What strict schemas must not ask of arguments as a whole.
const BEYOND: [&str; 11] = [
    "$ref",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "if",
    "patternProperties",
    "propertyNames",
    "dependentRequired",
    "minProperties",
    "maxProperties",
];

impl Grammar<'_> {
    pub(super) fn pythonic(&mut self, must: bool) -> Result<&'static str> {
        let (begin, end) = (self.mark(BEGIN), self.mark(END));
        let mut calls = Vec::new();
        for (index, tool) in self.tools.iter().enumerate() {
            let arguments = self.named_arguments(index, tool)?;
            let head = quoted(&format!("{}(", tool.name));
            calls.push(format!("{head} {arguments} \")\""));
        }
        self.rule("call", &calls.join(" | "));
        let more = match self.several {
            true => again("\", \" call"),
            false => String::new(),
        };
        self.rule("body", &format!("\"[\" call {more} \"]\" {end}"));
        if must || self.answer.is_some() {
            self.rule("calls", &format!("{begin} body"));
            return Ok(if must { "calls" } else { "(calls | answer)" });
        }
        self.until("before", BEGIN, &[]);
        self.plain("rest", &[BEGIN]);
        Ok("(before body | rest)")
    }

    /// What stands between a call's parentheses; in the order of the schema, and nothing that it does not list.
    fn named_arguments(&mut self, index: usize, tool: &Tool) -> Result<String> {
        let schema = &tool.parameters;
        let beyond = BEYOND.iter().find(|key| schema.get(**key).is_some());
        if let Some(key) = beyond.filter(|_| tool.strict) {
            return Err(held(tool, key));
        }
        let anything = json!({});
        // Of what is left from each place on: where nothing stands before it, and where something does.
        let (mut first, mut then) = (String::new(), String::new());
        for (at, (name, property, is_required)) in members(schema).into_iter().enumerate().rev() {
            let is_word = name.trim() == name
                && !name.is_empty()
                && !name.starts_with(':')
                && !name.contains(|c| NO_KEY.contains(c));
            if !is_word {
                if tool.strict {
                    return Err(held(tool, "a name that no argument can have"));
                }
                continue;
            }
            let value = whitespace(
                with_definitions(property.unwrap_or(&anything), schema),
                !tool.strict,
            );
            let pair = format!("argument_{index}_{at}");
            self.rule(&format!("{pair}_v"), &format!("%json {value}"));
            let key = quoted(&format!("{name}="));
            self.rule(&pair, &format!("{key} {pair}_v"));
            let or = |this, without: &str| or_without(this, is_required, without);
            let this = or(format!("{pair} {then}"), &first);
            first = format!("{pair}_f");
            self.rule(&first, &this);
            let this = or(format!("\", \" {pair} {then}"), &then);
            then = format!("{pair}_t");
            self.rule(&then, &this);
        }
        Ok(first)
    }
}

/// A property's schema with the definitions that it may name.
fn with_definitions(property: &Value, root: &Value) -> Value {
    let mut schema = property.clone();
    if let Value::Object(schema) = &mut schema {
        for key in ["$defs", "definitions"] {
            if let Some(definitions) = root.get(key) {
                schema.insert(key.into(), definitions.clone());
            }
        }
    }
    schema
}
