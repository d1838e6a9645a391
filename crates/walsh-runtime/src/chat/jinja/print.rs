//! Values as text: Python's `str` and `repr`.

use super::budget::{Heap, Outcome, fail};
use super::value::{Builder, Text, Value, View};

impl Heap {
    /// Python's `str(value)`.
    pub(super) fn printed(&self, value: &Value) -> Outcome<Text> {
        if let Value::Str(text) | Value::Markup(text) = value {
            return Ok(text.clone());
        }
        let mut out = Builder::new(self)?;
        print(&mut out, value)?;
        Ok(out.finish())
    }
}

/// Appends `str(value)`.
pub(super) fn print(out: &mut Builder, value: &Value) -> Outcome<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Str(text) | Value::Markup(text) => out.push(text.as_str()),
        _ => represent(out, value),
    }
}

/// Appends `repr(value)`.
pub(super) fn represent(out: &mut Builder, value: &Value) -> Outcome<()> {
    out.heap().step(1)?;
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(true) => out.push("True"),
        Value::Bool(false) => out.push("False"),
        Value::Int(value) => out.push(&value.to_string()),
        Value::Float(value) => out.push(&float(*value)),
        Value::Str(text) => quote(out, text.as_str()),
        Value::Markup(text) => {
            out.push("Markup(")?;
            quote(out, text.as_str())?;
            out.push(")")
        }
        Value::List(list) => sequence(out, "[", list.items(), "]"),
        Value::Tuple(list) => sequence(
            out,
            "(",
            list.items(),
            if list.len() == 1 { ",)" } else { ")" },
        ),
        Value::View(view, list) => {
            let name = match view {
                View::Keys => "dict_keys([",
                View::Values => "dict_values([",
                View::Items => "dict_items([",
            };
            sequence(out, name, list.items(), "])")
        }
        Value::Dict(dict) => {
            out.push("{")?;
            for (index, (key, value)) in dict.iter().enumerate() {
                out.push(if index > 0 { ", " } else { "" })?;
                represent(out, key)?;
                out.push(": ")?;
                represent(out, value)?;
            }
            out.push("}")
        }
        Value::Range(range) => {
            let stop = range.at(range.len);
            match range.step {
                1 => out.push(&format!("range({}, {stop})", range.start)),
                // The stop that was given is not kept, and may lie between two steps.
                _ => fail("a range with a step cannot be printed"),
            }
        }
        Value::Once(_)
        | Value::Namespace(_)
        | Value::Macro(_)
        | Value::Function(_)
        | Value::Method(_)
        | Value::Loop(_)
        | Value::Cycler(_)
        | Value::Joiner(_) => fail(format!("a {} cannot be printed", value.type_name())),
    }
}

fn sequence(out: &mut Builder, open: &str, items: &[Value], close: &str) -> Outcome<()> {
    out.push(open)?;
    for (index, item) in items.iter().enumerate() {
        out.push(if index > 0 { ", " } else { "" })?;
        represent(out, item)?;
    }
    out.push(close)
}

fn quote(out: &mut Builder, text: &str) -> Outcome<()> {
    let quote = match text.contains('\'') && !text.contains('"') {
        true => '"',
        false => '\'',
    };
    out.push_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            _ if c == quote => {
                out.push("\\")?;
                out.push_char(c)?;
            }
            _ if printable(c) => out.push_char(c)?,
            '\0'..='\u{ff}' => out.push(&format!("\\x{:02x}", c as u32))?,
            '\u{100}'..='\u{ffff}' => out.push(&format!("\\u{:04x}", c as u32))?,
            _ => out.push(&format!("\\U{:08x}", c as u32))?,
        }
    }
    out.push_char(quote)
}

/// Python's `isprintable` of a character.
pub(super) fn printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // As a first character, one that combines would be escaped too.
    let mut text = [b'a'; 5];
    let len = c.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..=len]).is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
}

/// Python's `repr` of a float: the shortest digits that give it back.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    match exponent.parse::<i32>() {
        Ok(-4..=15) => {
            let fixed = value.to_string();
            if fixed.contains('.') {
                fixed
            } else {
                fixed + ".0"
            }
        }
        Ok(exponent) if exponent < 0 => format!("{mantissa}e-{:02}", -exponent),
        Ok(exponent) => format!("{mantissa}e+{exponent:02}"),
        Err(_) => scientific,
    }
}
