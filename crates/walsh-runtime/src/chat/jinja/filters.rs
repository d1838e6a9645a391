//! Jinja2's filters. Each is listed here: a name that is not is an error.

use super::args::{Args, count, integer};
use super::arith;
use super::budget::{Outcome, fail};
use super::exec::Interpreter;
use super::format;
use super::json;
use super::numbers;
use super::sequences::Path;
use super::text::{self, Side};
use super::value::{Builder, Value, shortened};

/// The filters that there are, and those of Jinja2 that are refused by name.
const FILTERS: [&str; 50] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "pprint",
    "random",
    "urlize",
];

/// Whether Jinja2 has a filter of this name.
pub(super) fn is_filter(name: &str) -> bool {
    FILTERS.contains(&name)
        || matches!(
            name,
            "filesizeformat" | "striptags" | "wordwrap" | "xmlattr"
        )
}

impl<'a> Interpreter<'a> {
    /// `value | name(args)`.
    pub(super) fn filter(&mut self, name: &str, value: &Value, args: Args) -> Outcome<Value> {
        self.heap.step(1)?;
        match name {
            "attr" | "batch" | "dictsort" | "first" | "groupby" | "items" | "join" | "last"
            | "list" | "map" | "max" | "min" | "reject" | "rejectattr" | "reverse" | "select"
            | "selectattr" | "slice" | "sort" | "sum" | "unique" => {
                self.filter_sequence(name, value, args)
            }
            "abs" | "float" | "int" | "round" => numbers::filter(&self.heap, name, value, args),
            "tojson" => json::tojson(&self.heap, value, args),
            "d" | "default" => {
                let [default, falsy] = args.bind(name, ["default_value", "boolean"], 0)?;
                let falsy = falsy.is_some_and(|falsy| falsy.truth()) && !value.truth();
                match (value.is_undefined() || falsy, default) {
                    (false, _) => Ok(value.clone()),
                    (true, Some(default)) => Ok(default),
                    (true, None) => self.heap.str(""),
                }
            }
            "count" | "length" => {
                args.nothing(name)?;
                Ok(Value::Int(self.heap.length(value)? as i128))
            }
            "string" => {
                args.nothing(name)?;
                match value {
                    Value::Markup(_) => Ok(value.clone()),
                    _ => Ok(Value::Str(self.heap.printed(value)?)),
                }
            }
            "safe" => {
                args.nothing(name)?;
                Ok(Value::Markup(self.heap.printed(value)?))
            }
            "e" | "escape" | "forceescape" => {
                args.nothing(name)?;
                if let (Value::Markup(_), "e" | "escape") = (value, name) {
                    return Ok(value.clone());
                }
                let text = self.heap.printed(value)?;
                let mut out = Builder::new(&self.heap)?;
                arith::escape(&mut out, text.as_str())?;
                Ok(Value::Markup(out.finish()))
            }
            "indent" => self.indent(value, args),
            "truncate" => self.truncate(value, args),
            _ if is_filter(name) => self.filter_text(name, value, args),
            _ => fail(format!("no filter named '{}'", shortened(name))),
        }
    }

    /// Filters of what a value is as a text.
    fn filter_text(&mut self, name: &str, value: &Value, args: Args) -> Outcome<Value> {
        let text = self.heap.printed(value)?;
        let source = text.as_str();
        self.heap.touch(source.len())?;
        let result = match name {
            "upper" => self.call_method(&Value::Str(text), "upper", args)?,
            "lower" => self.call_method(&Value::Str(text), "lower", args)?,
            "capitalize" => self.call_method(&Value::Str(text), "capitalize", args)?,
            "title" => {
                args.nothing(name)?;
                text::title_words(&self.heap, source)?
            }
            "center" => {
                let [width] = args.bind(name, ["width"], 0)?;
                text::pad(
                    &self.heap,
                    source,
                    count(name, width, 80)?,
                    (' ', Side::Both),
                )?
            }
            "trim" => {
                let [chars] = args.bind(name, ["chars"], 0)?;
                let chars = match &chars {
                    None | Some(Value::None) => None,
                    Some(Value::Str(chars)) => Some(chars.as_str()),
                    Some(_) => return fail("trim: chars must be a text"),
                };
                self.heap
                    .touch(source.len().saturating_mul(chars.map_or(0, str::len)))?;
                self.heap.str(text::strip(source, chars, Side::Both))?
            }
            "replace" => {
                let [old, new, most] = args.bind(name, ["old", "new", "count"], 2)?;
                let most = match most {
                    None | Some(Value::None) => -1,
                    most => integer(name, most, -1)?,
                };
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                let old = self.heap.printed(&old.unwrap_or(Value::None))?;
                let new = self.heap.printed(&new.unwrap_or(Value::None))?;
                return text::replace(&self.heap, source, (old.as_str(), new.as_str()), most);
            }
            "format" => {
                let values = match (args.positional.is_empty(), args.named.is_empty()) {
                    (false, false) => {
                        return fail("format takes values either with names or without");
                    }
                    (true, false) => {
                        let mut table = super::value::Table::new(&self.heap)?;
                        for (name, value) in args.named {
                            table.insert_str(&name, value)?;
                        }
                        table.finish()?
                    }
                    _ => self.heap.tuple(args.positional)?,
                };
                format::percent(&self.heap, source, &values)?
            }
            "wordcount" => {
                args.nothing(name)?;
                let inside = |c: char| c == '_' || c.is_alphanumeric();
                let words = source.split(|c| !inside(c)).filter(|word| !word.is_empty());
                return Ok(Value::Int(words.count() as i128));
            }
            "urlencode" if value.as_str().is_some() || self.heap.iterate(value).is_err() => {
                args.nothing(name)?;
                let mut out = Builder::new(&self.heap)?;
                for byte in source.bytes() {
                    match byte {
                        b'a'..=b'z'
                        | b'A'..=b'Z'
                        | b'0'..=b'9'
                        | b'_'
                        | b'.'
                        | b'-'
                        | b'~'
                        | b'/' => {
                            out.push_char(byte.into())?;
                        }
                        _ => out.push(&format!("%{byte:02X}"))?,
                    }
                }
                return Ok(Value::Str(out.finish()));
            }
            _ => return fail(format!("the filter {name} is not supported here")),
        };
        Ok(match (value, result) {
            (Value::Markup(_), Value::Str(text)) => Value::Markup(text),
            (_, result) => result,
        })
    }

    fn indent(&mut self, value: &Value, args: Args) -> Outcome<Value> {
        let [width, first, blank] = args.bind("indent", ["width", "first", "blank"], 0)?;
        let source = match value {
            Value::Str(text) | Value::Markup(text) => text.clone(),
            _ => {
                return fail(format!(
                    "indent: a text is needed, but a {} is given",
                    value.type_name()
                ));
            }
        };
        let truth = |value: Option<Value>| value.is_some_and(|value| value.truth());
        let (first, blank) = (truth(first), truth(blank));
        // What a line begins with: a text, some number of times.
        let (unit, times) = match &width {
            Some(Value::Str(text)) => (text.clone(), 1),
            _ => (self.heap.text(" ")?, count("indent", width, 4)?),
        };
        let mut out = Builder::new(&self.heap)?;
        // A line end is added before the text is cut into lines, so that an empty text is one line.
        let mut ended = Builder::new(&self.heap)?;
        ended.push(source.as_str())?;
        ended.push("\n")?;
        for (index, line) in text::lines(ended.as_str(), false).enumerate() {
            if index > 0 {
                out.push("\n")?;
            }
            if if index == 0 {
                first
            } else {
                blank || !line.is_empty()
            } {
                out.repeat(unit.as_str(), times)?;
            }
            out.push(line)?;
        }
        let text = out.finish();
        Ok(match value {
            Value::Markup(_) => Value::Markup(text),
            _ => Value::Str(text),
        })
    }

    fn truncate(&mut self, value: &Value, args: Args) -> Outcome<Value> {
        let names = ["length", "killwords", "end", "leeway"];
        let [length, kill, end, leeway] = args.bind("truncate", names, 0)?;
        let length = count("truncate", length, 255)?;
        let end = match end {
            None => self.heap.text("...")?,
            Some(Value::Str(end)) => end,
            Some(_) => return fail("truncate: end must be a text"),
        };
        let leeway = match leeway {
            Some(Value::None) => 5,
            leeway => integer("truncate", leeway, 5)?,
        };
        let end_length = end.as_str().chars().count();
        if length < end_length || leeway < 0 {
            return fail(
                "truncate: the length must hold the end, and the leeway be no less than 0",
            );
        }
        if self.heap.length(value)? as i128 <= (length as i128).saturating_add(leeway) {
            return Ok(value.clone());
        }
        let Value::Str(text) = value else {
            return fail("truncate: a text is needed");
        };
        let cut = text::offset(text.as_str(), text.is_ascii(), length - end_length);
        let mut start = &text.as_str()[..cut];
        if !kill.is_some_and(|kill| kill.truth()) {
            start = start.rsplit_once(' ').map_or(start, |(start, _)| start);
        }
        let mut out = Builder::new(&self.heap)?;
        out.push(start)?;
        out.push(end.as_str())?;
        Ok(Value::Str(out.finish()))
    }

    /// The value that a path of attributes leads to.
    pub(super) fn follow(&mut self, value: &Value, path: &Path) -> Outcome<Value> {
        let mut value = value.clone();
        for part in &path.parts {
            value = self.item(&value, part)?;
            if let (Value::Undefined(_), Some(default)) = (&value, &path.default) {
                value = default.clone();
            }
        }
        if path.ignore_case && value.as_str().is_some() {
            value = self.call_method(
                &Value::Str(self.heap.printed(&value)?),
                "lower",
                Args::none(),
            )?;
        }
        Ok(value)
    }
}
