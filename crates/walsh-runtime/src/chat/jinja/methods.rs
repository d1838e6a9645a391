//! The methods of Python's values that templates may call.

use super::args::{Args, count, integer};
use super::budget::{Heap, Outcome, fail};
use super::exec::Interpreter;
use super::format;
use super::function::Function;
use super::index::view;
use super::order::equal;
use super::text::{self, Side};
use super::value::{Builder, Dict, Items, List, Text, Value, View};

/// Attributes and methods of numbers.
pub(super) const NUMBERS: [&str; 11] = [
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "denominator",
    "from_bytes",
    "hex",
    "imag",
    "is_integer",
    "numerator",
    "real",
];

const STRINGS: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

/// Those that change the list are refused when they are called.
const LISTS: [&str; 11] = [
    "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse",
    "sort",
];

const DICTIONARIES: [&str; 11] = [
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];

/// The method of a value that has a name.
pub(super) fn named(value: &Value, name: &str) -> Option<&'static str> {
    let names: &[&'static str] = match value {
        Value::Str(_) | Value::Markup(_) => &STRINGS,
        Value::List(_) => &LISTS,
        Value::Tuple(_) | Value::Range(_) => &["count", "index"],
        Value::Dict(_) => &DICTIONARIES,
        Value::Cycler(_) => &["next", "reset"],
        Value::Function(Function::Dict) => &["fromkeys"],
        _ => &[],
    };
    names.iter().find(|other| **other == name).copied()
}

impl<'a> Interpreter<'a> {
    /// Calls a method of a value, which `named` has found.
    pub(super) fn call_method(
        &mut self,
        value: &Value,
        method: &'static str,
        args: Args,
    ) -> Outcome<Value> {
        let heap = self.heap.clone();
        match value {
            Value::Str(text) => self.call_str(text, method, args),
            Value::Markup(text) => {
                let plain = |value: &Value| matches!(value, Value::Str(_));
                if args.positional.iter().any(plain)
                    && !matches!(method, "split" | "rsplit" | "startswith" | "endswith")
                    || matches!(method, "format" | "join")
                {
                    return fail(format!(
                        "{method} of text that is marked as safe is not supported"
                    ));
                }
                match self.call_str(text, method, args)? {
                    Value::Str(text) => Ok(Value::Markup(text)),
                    Value::List(list) => heap.list(list.items().iter().map(mark).collect()),
                    Value::Tuple(list) => heap.tuple(list.items().iter().map(mark).collect()),
                    other => Ok(other),
                }
            }
            Value::List(list) if method == "copy" => {
                args.nothing(method)?;
                Ok(Value::List(list.clone()))
            }
            Value::List(list) | Value::Tuple(list) if matches!(method, "count" | "index") => {
                in_list(&heap, list, method, args)
            }
            Value::Range(_) if matches!(method, "count" | "index") => {
                in_list(&heap, &heap.iterate(value)?, method, args)
            }
            Value::Dict(dict) => in_dict(&heap, dict, method, args),
            Value::Loop(frame) => frame.call(&heap, method, args),
            Value::Cycler(cycler) => {
                args.nothing(method)?;
                let index = cycler.1.get();
                if method == "reset" {
                    cycler.1.set(0);
                    return Ok(Value::None);
                }
                cycler.1.set((index + 1) % cycler.0.len());
                Ok(cycler.0.items()[index].clone())
            }
            _ => fail(format!(
                "{method} of a {} would change it, which templates may not",
                value.type_name()
            )),
        }
    }

    fn call_str(&mut self, text: &Text, method: &'static str, args: Args) -> Outcome<Value> {
        let heap = &self.heap;
        let source = text.as_str();
        heap.touch(source.len())?;
        match method {
            "upper" | "lower" | "capitalize" | "title" | "swapcase" | "casefold" => {
                args.nothing(method)?;
                match method {
                    // A character may become three, of six bytes.
                    "upper" | "lower" => {
                        let _charge = heap.hold(source.len().saturating_mul(3))?;
                        heap.str(&if method == "upper" {
                            source.to_uppercase()
                        } else {
                            source.to_lowercase()
                        })
                    }
                    "capitalize" => text::capitalize(heap, source),
                    "title" => text::title(heap, source),
                    "swapcase" => text::swapcase(heap, source),
                    _ if source.is_ascii() => heap.str(&source.to_lowercase()),
                    _ => fail("casefold is supported for ASCII text alone"),
                }
            }
            "strip" | "lstrip" | "rstrip" => {
                let [chars] = args.bind(method, [""], 0)?;
                let chars = optional(method, &chars)?;
                let side = match method {
                    "strip" => Side::Both,
                    "lstrip" => Side::Left,
                    _ => Side::Right,
                };
                heap.touch(source.len().saturating_mul(chars.map_or(0, str::len)))?;
                heap.str(text::strip(source, chars, side))
            }
            "split" | "rsplit" => {
                let [separator, most] = args.bind(method, ["sep", "maxsplit"], 0)?;
                let most = integer(method, most, -1)?;
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                let separator = optional(method, &separator)?;
                Ok(Value::List(text::split(
                    heap,
                    source,
                    separator,
                    most,
                    method == "rsplit",
                )?))
            }
            "splitlines" => {
                let [keep] = args.bind(method, ["keepends"], 0)?;
                let keep = keep.is_some_and(|keep| keep.truth());
                let mut lines = Items::new(heap)?;
                for line in text::lines(source, keep) {
                    lines.push(heap.str(line)?)?;
                }
                Ok(Value::List(lines.finish()?))
            }
            "partition" | "rpartition" => {
                let separator = args.one(method)?;
                let separator = string(method, &separator)?;
                if separator.is_empty() {
                    return fail(format!("{method}: empty separator"));
                }
                let cut = match method {
                    "partition" => source.split_once(separator),
                    _ => source.rsplit_once(separator),
                };
                let (before, middle, after) = match (cut, method) {
                    (Some((before, after)), _) => (before, separator, after),
                    (None, "partition") => (source, "", ""),
                    (None, _) => ("", "", source),
                };
                let parts = [before, middle, after].map(|part| heap.str(part));
                heap.tuple(parts.into_iter().collect::<Outcome<_>>()?)
            }
            "removeprefix" | "removesuffix" => {
                let part = args.one(method)?;
                let part = string(method, &part)?;
                let rest = match method {
                    "removeprefix" => source.strip_prefix(part),
                    _ => source.strip_suffix(part),
                };
                heap.str(rest.unwrap_or(source))
            }
            "replace" => {
                let [old, new, most] = args.bind(method, ["", "", "count"], 2)?;
                let most = integer(method, most, -1)?;
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                let (old, new) = (old.unwrap_or(Value::None), new.unwrap_or(Value::None));
                text::replace(
                    heap,
                    source,
                    (string(method, &old)?, string(method, &new)?),
                    most,
                )
            }
            "join" => {
                let values = args.one(method)?;
                let mut out = Builder::new(heap)?;
                for (index, item) in heap.iterate(&values)?.items().iter().enumerate() {
                    out.push(if index > 0 { source } else { "" })?;
                    out.push(string(method, item)?)?;
                }
                Ok(Value::Str(out.finish()))
            }
            "find" | "rfind" | "index" | "rindex" | "count" => search(heap, text, method, args),
            "startswith" | "endswith" => ends(text, method, args),
            "center" | "ljust" | "rjust" => {
                let [width, fill] = args.bind(method, ["", ""], 1)?;
                let width = count(method, width, 0)?;
                let fill = match &fill {
                    None => ' ',
                    Some(fill) => {
                        let mut chars = string(method, fill)?.chars();
                        match (chars.next(), chars.next()) {
                            (Some(fill), None) => fill,
                            _ => return fail(format!("{method}: the fill must be one character")),
                        }
                    }
                };
                let side = match method {
                    "center" => Side::Both,
                    "ljust" => Side::Right,
                    _ => Side::Left,
                };
                text::pad(heap, source, width, (fill, side))
            }
            "zfill" => text::zero_fill(heap, source, count(method, Some(args.one(method)?), 0)?),
            "expandtabs" => {
                let [width] = args.bind(method, ["tabsize"], 0)?;
                text::expand_tabs(heap, source, count(method, width, 8)?)
            }
            "format" => {
                let text = text.clone();
                format::braces(self, text.as_str(), args)
            }
            _ if method.starts_with("is") => {
                args.nothing(method)?;
                Ok(Value::Bool(text::is(source, method)?))
            }
            _ => fail(format!("the method {method} of str is not supported")),
        }
    }
}

/// Text as text that is marked as safe.
fn mark(value: &Value) -> Value {
    match value {
        Value::Str(text) => Value::Markup(text.clone()),
        other => other.clone(),
    }
}

fn string<'value>(method: &str, value: &'value Value) -> Outcome<&'value str> {
    match value.as_str() {
        Some(text) => Ok(text),
        None => fail(format!(
            "{method}: a str is needed, but a {} is given",
            value.type_name()
        )),
    }
}

fn optional<'value>(method: &str, value: &'value Option<Value>) -> Outcome<Option<&'value str>> {
    match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => string(method, value).map(Some),
    }
}

/// The bytes of the part of a text that `start` and `end` name, and the character at which it begins;
/// nothing when it begins past its end.
fn part(
    method: &str,
    text: &Text,
    start: Option<Value>,
    end: Option<Value>,
) -> Outcome<Option<(usize, usize, usize)>> {
    let source = text.as_str();
    let len = match text.is_ascii() {
        true => source.len(),
        false => source.chars().count(),
    };
    let place = |value: Option<Value>, default: usize| -> Outcome<usize> {
        let value = match value {
            None | Some(Value::None) => default as i128,
            value => integer(method, value, 0)?,
        };
        let value = if value < 0 {
            value.saturating_add(len as i128).max(0)
        } else {
            value
        };
        Ok(usize::try_from(value).unwrap_or(usize::MAX))
    };
    let (start, end) = (place(start, 0)?, place(end, len)?.min(len));
    if start > end {
        return Ok(None);
    }
    let byte = |index| text::offset(source, text.is_ascii(), index);
    Ok(Some((byte(start), byte(end), start)))
}

fn search(heap: &Heap, text: &Text, method: &str, args: Args) -> Outcome<Value> {
    let [needle, start, end] = args.bind(method, ["", "", ""], 1)?;
    let needle = needle.unwrap_or(Value::None);
    let needle = string(method, &needle)?;
    heap.touch(text.as_str().len())?;
    let part = part(method, text, start, end)?;
    let inside = part.map(|(start, end, at)| (&text.as_str()[start..end], at));
    if method == "count" {
        let found = match inside {
            None => 0,
            Some((inside, _)) if needle.is_empty() => inside.chars().count() + 1,
            Some((inside, _)) => inside.matches(needle).count(),
        };
        return Ok(Value::Int(found as i128));
    }
    let found = inside.and_then(|(inside, at)| {
        let byte = match method.starts_with('r') {
            true => inside.rfind(needle),
            false => inside.find(needle),
        };
        byte.map(|byte| at + inside[..byte].chars().count())
    });
    match found {
        Some(at) => Ok(Value::Int(at as i128)),
        None if method.ends_with("index") => fail(format!("{method}: substring not found")),
        None => Ok(Value::Int(-1)),
    }
}

fn ends(text: &Text, method: &str, args: Args) -> Outcome<Value> {
    let [wanted, start, end] = args.bind(method, ["", "", ""], 1)?;
    let wanted = wanted.unwrap_or(Value::None);
    let wanted = match &wanted {
        Value::Tuple(list) => list.items(),
        other => std::slice::from_ref(other),
    };
    let part = part(method, text, start, end)?;
    let mut found = false;
    for wanted in wanted {
        let wanted = string(method, wanted)?;
        found |= part.is_some_and(|(start, end, _)| {
            let inside = &text.as_str()[start..end];
            match method {
                "startswith" => inside.starts_with(wanted),
                _ => inside.ends_with(wanted),
            }
        });
    }
    Ok(Value::Bool(found))
}

fn in_list(heap: &Heap, list: &List, method: &str, args: Args) -> Outcome<Value> {
    let [wanted, start, stop] = args.bind(method, ["", "", ""], 1)?;
    let wanted = wanted.unwrap_or(Value::None);
    let mut count = 0;
    let place = |value: Option<Value>, default: usize| -> Outcome<i128> {
        let value = integer(method, value, default as i128)?;
        Ok(if value < 0 {
            value.saturating_add(list.len() as i128)
        } else {
            value
        })
    };
    let (start, stop) = (place(start, 0)?, place(stop, list.len())?);
    for (index, item) in list.items().iter().enumerate() {
        if (index as i128) < start || index as i128 >= stop || !equal(heap, item, &wanted)? {
            continue;
        }
        if method == "index" {
            return Ok(Value::Int(index as i128));
        }
        count += 1;
    }
    match method {
        "index" => fail("index: the value is not in the list"),
        _ => Ok(Value::Int(count)),
    }
}

fn in_dict(heap: &Heap, dict: &Dict, method: &str, args: Args) -> Outcome<Value> {
    match method {
        "get" => {
            let [key, default] = args.bind(method, ["", ""], 1)?;
            let key = key.unwrap_or(Value::None).key(heap)?;
            Ok(dict.get(&key).cloned().or(default).unwrap_or(Value::None))
        }
        "items" | "keys" | "values" => {
            args.nothing(method)?;
            let shown = match method {
                "items" => View::Items,
                "keys" => View::Keys,
                _ => View::Values,
            };
            view(heap, dict, shown)
        }
        "copy" => {
            args.nothing(method)?;
            Ok(Value::Dict(dict.clone()))
        }
        "fromkeys" => fail("the method fromkeys of dict is not supported"),
        _ => fail(format!(
            "{method} of a dict would change it, which templates may not"
        )),
    }
}
