//! JSON schemas by chance, and whether JSON is of their form: for tests.

use regex_automata::meta::Regex;
use serde_json::{Map, Value, json};
use walsh::formats::random::SplitMix64;

/// Patterns of strings.
const PATTERNS: [&str; 5] = [
    "^[A-Z]{2}-[0-9]{3}$",
    "^(north|south)(east|west)?$",
    "^[äöüß]{1,6}$",
    "^[0-9]{4}-(0[1-9]|1[0-2])$",
    "^[α-ω]{2,5}!?$",
];

/// Names and values that are easy to get wrong.
const NAMES: [&str; 8] = [
    "name",
    "größe",
    "名前",
    "a b",
    "quote\"d",
    "back\\slash",
    "🙂",
    "x",
];

/// What a value is like.
pub(crate) enum Shape {
    Null,
    Boolean,
    /// Between two numbers, both included.
    Integer(i64, i64),
    /// Between two numbers, both included.
    Number(i64, i64),
    /// A string of so many characters.
    Text(usize, usize),
    Pattern(&'static str),
    OneOf(Vec<Value>),
    AnyOf(Vec<Shape>),
    /// So many values.
    Array(Box<Shape>, usize, usize),
    /// Names and values, and whether they must be there.
    Object(Vec<(&'static str, Shape, bool)>),
}

impl Shape {
    /// One that nests as deep at most.
    pub(crate) fn random(random: &mut SplitMix64, depth: usize) -> Self {
        let kinds = if depth == 0 { 7 } else { 12 };
        match below(random, kinds) {
            0 => Self::Null,
            1 => Self::Boolean,
            2 => {
                let least = below(random, 2000) as i64 - 1000;
                Self::Integer(least, least + below(random, 5000) as i64)
            }
            3 => {
                let least = below(random, 20) as i64 - 10;
                Self::Number(least, least + 1 + below(random, 20) as i64)
            }
            4 => {
                let least = below(random, 4);
                Self::Text(least, least + below(random, 12))
            }
            5 => Self::Pattern(PATTERNS[below(random, PATTERNS.len())]),
            6 => {
                let values = (0..=below(random, 3)).map(|_| match below(random, 3) {
                    0 => json!(below(random, 100)),
                    1 => json!([NAMES[below(random, NAMES.len())], null]),
                    _ => json!(NAMES[below(random, NAMES.len())]),
                });
                Self::OneOf(values.collect())
            }
            7 => {
                let shapes = (0..2).map(|_| Self::random(random, depth - 1));
                Self::AnyOf(shapes.collect())
            }
            8 => {
                let least = below(random, 3);
                let of = Self::random(random, depth - 1);
                Self::Array(Box::new(of), least, least + below(random, 3))
            }
            _ => {
                let first = below(random, NAMES.len());
                let members = (0..1 + below(random, 4)).map(|index| {
                    let name = NAMES[(first + index) % NAMES.len()];
                    let shape = Self::random(random, depth - 1);
                    (name, shape, below(random, 3) > 0)
                });
                Self::Object(members.collect())
            }
        }
    }

    /// Its JSON schema.
    pub(crate) fn schema(&self) -> Value {
        match self {
            Self::Null => json!({"type": "null"}),
            Self::Boolean => json!({"type": "boolean"}),
            Self::Integer(least, most) => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            Self::Number(least, most) => {
                json!({"type": "number", "minimum": least, "maximum": most})
            }
            Self::Text(least, most) => {
                json!({"type": "string", "minLength": least, "maxLength": most})
            }
            Self::Pattern(pattern) => json!({"type": "string", "pattern": pattern}),
            Self::OneOf(values) => json!({"enum": values}),
            Self::AnyOf(shapes) => {
                let schemas: Vec<Value> = shapes.iter().map(Self::schema).collect();
                json!({"anyOf": schemas})
            }
            Self::Array(of, least, most) => {
                json!({"type": "array", "items": of.schema(), "minItems": least, "maxItems": most})
            }
            Self::Object(members) => {
                let properties: Map<String, Value> = members
                    .iter()
                    .map(|(name, shape, _)| ((*name).to_owned(), shape.schema()))
                    .collect();
                let required = members.iter().filter(|(_, _, required)| *required);
                let required: Vec<&str> = required.map(|(name, _, _)| *name).collect();
                json!({
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                })
            }
        }
    }

    /// Whether a value is like that.
    pub(crate) fn holds(&self, value: &Value) -> bool {
        let between = |count: usize, least: &usize, most: &usize| (*least..=*most).contains(&count);
        match (self, value) {
            (Self::Null, Value::Null) | (Self::Boolean, Value::Bool(_)) => true,
            // -0 is an integer too.
            (Self::Integer(least, most), Value::Number(number)) => number
                .as_f64()
                .filter(|number| number.fract() == 0.0)
                .is_some_and(|number| (*least as f64..=*most as f64).contains(&number)),
            (Self::Number(least, most), Value::Number(number)) => number
                .as_f64()
                .is_some_and(|number| (*least as f64..=*most as f64).contains(&number)),
            (Self::Text(least, most), Value::String(text)) => {
                between(text.chars().count(), least, most)
            }
            (Self::Pattern(pattern), Value::String(text)) => {
                Regex::new(pattern).expect("a pattern").is_match(text)
            }
            (Self::OneOf(values), value) => values.contains(value),
            (Self::AnyOf(shapes), value) => shapes.iter().any(|shape| shape.holds(value)),
            (Self::Array(of, least, most), Value::Array(values)) => {
                between(values.len(), least, most) && values.iter().all(|value| of.holds(value))
            }
            (Self::Object(members), Value::Object(values)) => {
                let is_right =
                    |(name, shape, required): &(&str, Self, bool)| match values.get(*name) {
                        Some(value) => shape.holds(value),
                        None => !required,
                    };
                let known = |name: &String| members.iter().any(|(known, _, _)| known == name);
                members.iter().all(is_right) && values.keys().all(known)
            }
            _ => false,
        }
    }
}

/// A number below another.
fn below(random: &mut SplitMix64, count: usize) -> usize {
    (random.uniform() * count as f64) as usize
}
