//! JSON: what a conversation is given as, and the filter `tojson` of Hugging Face's templates.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::args::Args;
use super::budget::{Fault, Heap, Outcome, fail};
use super::order;
use super::print;
use super::value::{Builder, Items, Table, Value};

/// A value of JSON that keeps the order of its keys, which templates print.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Json {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::Str(text.to_string())
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Json::Map(map))
    }
}

impl Heap {
    /// A value of JSON.
    pub(super) fn value(&self, json: &Json) -> Outcome<Value> {
        Ok(match json {
            Json::Null => Value::None,
            Json::Bool(value) => Value::Bool(*value),
            Json::Int(value) => Value::Int(*value),
            Json::Float(value) => Value::Float(*value),
            Json::Str(text) => self.str(text)?,
            Json::List(values) => {
                let mut items = Items::new(self)?;
                for value in values {
                    items.push(self.value(value)?)?;
                }
                Value::List(items.finish()?)
            }
            Json::Map(entries) => {
                let mut table = Table::new(self)?;
                for (key, value) in entries {
                    table.insert_str(key, self.value(value)?)?;
                }
                table.finish()?
            }
        })
    }
}

/// How many bytes a value of JSON is, about.
pub(super) fn size(json: &Json) -> usize {
    const NODE: usize = 16;
    match json {
        Json::Str(text) => NODE + text.len(),
        Json::List(values) => NODE + values.iter().map(size).sum::<usize>(),
        Json::Map(entries) => {
            let size = |(key, value): &(String, Json)| NODE + key.len() + size(value);
            NODE + entries.iter().map(size).sum::<usize>()
        }
        _ => NODE,
    }
}

struct Style {
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sort: bool,
}

/// The filter `tojson`: Python's `json.dumps`, with nothing escaped for HTML.
pub(super) fn tojson(heap: &Heap, value: &Value, args: Args) -> Outcome<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sort] = args.bind("tojson", names, 0)?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text.as_str().to_string()),
        Some(value) => match value.as_int() {
            Some(width) if width > 1000 => {
                return fail("tojson: an indent of more than 1000 is not supported");
            }
            Some(width) => Some(" ".repeat(width.max(0) as usize)),
            None => return fail("tojson: indent must be a number or a text"),
        },
    };
    let text = |value: &Value| match value {
        Value::Str(text) => Ok(text.as_str().to_string()),
        _ => fail("tojson: separators must be two texts"),
    };
    let (item, key) = match &separators {
        None | Some(Value::None) if indent.is_some() => (",".to_string(), ": ".to_string()),
        None | Some(Value::None) => (", ".to_string(), ": ".to_string()),
        Some(Value::List(pair) | Value::Tuple(pair)) if pair.len() == 2 => {
            (text(&pair.items()[0])?, text(&pair.items()[1])?)
        }
        Some(_) => return fail("tojson: separators must be two texts"),
    };
    let style = Style {
        indent,
        item,
        key,
        ascii: ascii.is_some_and(|value| value.truth()),
        sort: sort.is_some_and(|value| value.truth()),
    };
    let mut out = Builder::new(heap)?;
    write(&mut out, value, &style, 0)?;
    Ok(Value::Str(out.finish()))
}

fn write(out: &mut Builder, value: &Value, style: &Style, depth: usize) -> Outcome<()> {
    out.heap().step(1)?;
    match value {
        Value::Str(text) | Value::Markup(text) => string(out, text.as_str(), style.ascii),
        Value::List(list) | Value::Tuple(list) => {
            out.push("[")?;
            for (index, item) in list.items().iter().enumerate() {
                separate(out, style, depth + 1, index)?;
                write(out, item, style, depth + 1)?;
            }
            end(out, style, depth, list.len())?;
            out.push("]")
        }
        Value::Dict(dict) => {
            let mut entries: Vec<(&Value, &Value)> = dict.iter().collect();
            if style.sort {
                order::sort(&mut entries, |a, b| order::compare(out.heap(), a.0, b.0))?;
            }
            out.push("{")?;
            for (index, (key, value)) in entries.into_iter().enumerate() {
                separate(out, style, depth + 1, index)?;
                let key = match key {
                    Value::Str(text) | Value::Markup(text) => text.clone(),
                    _ => out.heap().text(&scalar(key).ok_or_else(|| {
                        Fault::new(format!(
                            "tojson: keys must be text, numbers or none, not {}",
                            key.type_name()
                        ))
                    })?)?,
                };
                string(out, key.as_str(), style.ascii)?;
                out.push(&style.key)?;
                write(out, value, style, depth + 1)?;
            }
            end(out, style, depth, dict.len())?;
            out.push("}")
        }
        _ => match scalar(value) {
            Some(text) => out.push(&text),
            None => fail(format!(
                "tojson: a value of type {} is not JSON",
                value.type_name()
            )),
        },
    }
}

fn scalar(value: &Value) -> Option<String> {
    Some(match value {
        Value::None => "null".to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) if value.is_nan() => "NaN".to_string(),
        Value::Float(value) if value.is_infinite() && *value > 0.0 => "Infinity".to_string(),
        Value::Float(value) if value.is_infinite() => "-Infinity".to_string(),
        Value::Float(value) => print::float(*value),
        _ => return None,
    })
}

fn separate(out: &mut Builder, style: &Style, depth: usize, index: usize) -> Outcome<()> {
    if index > 0 {
        out.push(&style.item)?;
    }
    line(out, style, depth)
}

fn end(out: &mut Builder, style: &Style, depth: usize, items: usize) -> Outcome<()> {
    if items > 0 {
        line(out, style, depth)
    } else {
        Ok(())
    }
}

fn line(out: &mut Builder, style: &Style, depth: usize) -> Outcome<()> {
    if let Some(indent) = &style.indent {
        out.push("\n")?;
        out.repeat(indent, depth)?;
    }
    Ok(())
}

fn string(out: &mut Builder, text: &str, ascii: bool) -> Outcome<()> {
    out.push("\"")?;
    for c in text.chars() {
        match c {
            '"' => out.push("\\\"")?,
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\u{8}' => out.push("\\b")?,
            '\u{c}' => out.push("\\f")?,
            '\0'..='\x1f' => out.push(&format!("\\u{:04x}", c as u32))?,
            _ if ascii && !(' '..='~').contains(&c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push(&format!("\\u{unit:04x}"))?;
                }
            }
            _ => out.push_char(c)?,
        }
    }
    out.push("\"")
}
