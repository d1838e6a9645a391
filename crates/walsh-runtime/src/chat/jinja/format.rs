//! Python's two ways to format: `%`, and `str.format`.

use super::args::Args;
use super::budget::{Heap, Outcome, fail};
use super::exec::Interpreter;
use super::print::{print, represent};
use super::value::{Builder, Value};

/// How one value is to be written.
#[derive(Clone, Debug)]
struct Spec {
    fill: char,
    /// `<`, `>`, `^` or `=`; the type's own when nothing is said.
    align: Option<char>,
    /// `+`, space, or `-` for none.
    sign: char,
    alternate: bool,
    width: usize,
    /// What stands between thousands.
    group: Option<char>,
    precision: Option<usize>,
    letter: Option<char>,
}

/// Wider fields and more digits are not within the limits of a template.
const MOST: usize = 1 << 15;

impl Spec {
    fn new() -> Spec {
        Spec {
            fill: ' ',
            align: None,
            sign: '-',
            alternate: false,
            width: 0,
            group: None,
            precision: None,
            letter: None,
        }
    }

    /// Parses what follows the colon in `str.format`.
    fn parse(text: &str) -> Outcome<Spec> {
        let mut spec = Spec::new();
        let chars: Vec<char> = text.chars().collect();
        let is_align = |c: Option<&char>| c.is_some_and(|c| "<>^=".contains(*c));
        let mut at = 0;
        if is_align(chars.get(1)) {
            (spec.fill, spec.align, at) = (chars[0], Some(chars[1]), 2);
        } else if is_align(chars.first()) {
            (spec.align, at) = (Some(chars[0]), 1);
        }
        if let Some(sign @ ('+' | '-' | ' ')) = chars.get(at) {
            (spec.sign, at) = (*sign, at + 1);
        }
        if chars.get(at) == Some(&'#') {
            (spec.alternate, at) = (true, at + 1);
        }
        if chars.get(at) == Some(&'0') {
            if spec.align.is_none() {
                (spec.fill, spec.align) = ('0', Some('='));
            }
            at += 1;
        }
        spec.width = digits(&chars, &mut at)?.unwrap_or(0);
        if let Some(group @ (',' | '_')) = chars.get(at) {
            (spec.group, at) = (Some(*group), at + 1);
        }
        if chars.get(at) == Some(&'.') {
            at += 1;
            spec.precision = digits(&chars, &mut at)?;
            if spec.precision.is_none() {
                return fail("format: a precision is missing");
            }
        }
        spec.letter = chars.get(at).copied();
        if at + 1 < chars.len() {
            return fail("format: the format specification is not understood");
        }
        Ok(spec)
    }

    /// Writes what has a sign and a body, in its field.
    fn place(&self, out: &mut Builder, (sign, body): (&str, &str), usual: char) -> Outcome<()> {
        let missing = self
            .width
            .saturating_sub(sign.chars().count() + body.chars().count());
        let align = self.align.unwrap_or(usual);
        let (before, inside, after) = match align {
            '<' => (0, 0, missing),
            '^' => (missing / 2, 0, missing - missing / 2),
            '=' => (0, missing, 0),
            _ => (missing, 0, 0),
        };
        let mut buffer = [0; 4];
        let fill = &*self.fill.encode_utf8(&mut buffer);
        out.repeat(fill, before)?;
        out.push(sign)?;
        out.repeat(fill, inside)?;
        out.push(body)?;
        out.repeat(fill, after)
    }

    fn text(&self, out: &mut Builder, text: &str) -> Outcome<()> {
        let end = match self.precision {
            Some(most) => text
                .char_indices()
                .nth(most)
                .map_or(text.len(), |(at, _)| at),
            None => text.len(),
        };
        self.place(out, ("", &text[..end]), '<')
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.sign) {
            (true, _) => "-",
            (_, '+') => "+",
            (_, ' ') => " ",
            _ => "",
        }
    }

    fn int(&self, out: &mut Builder, value: i128) -> Outcome<()> {
        let size = value.unsigned_abs();
        let (prefix, mut body) = match self.letter {
            Some('b') => ("0b", format!("{size:b}")),
            Some('o') => ("0o", format!("{size:o}")),
            Some('x') => ("0x", format!("{size:x}")),
            Some('X') => ("0X", format!("{size:X}")),
            _ => ("", size.to_string()),
        };
        if let Some(separator) = self.group {
            body = grouped(&body, separator, if prefix.is_empty() { 3 } else { 4 });
            if self.fill == '0' && self.align == Some('=') {
                return fail("format: zeros and separators together are not supported");
            }
        }
        let prefix = if self.alternate { prefix } else { "" };
        let sign = format!("{}{prefix}", self.sign(value < 0));
        self.place(out, (&sign, &body), '>')
    }

    fn float(&self, out: &mut Builder, value: f64) -> Outcome<()> {
        let letter = self.letter.unwrap_or('g');
        let size = value.abs();
        let precision = self.precision.unwrap_or(6);
        let mut body = if !value.is_finite() {
            if value.is_nan() { "nan" } else { "inf" }.to_string()
        } else {
            match letter.to_ascii_lowercase() {
                'f' => format!("{size:.precision$}"),
                'e' => exponential(size, precision),
                '%' => format!("{:.precision$}%", size * 100.0),
                _ => general(size, precision, self.alternate),
            }
        };
        if letter.is_ascii_uppercase() {
            body.make_ascii_uppercase();
        }
        if let Some(separator) = self.group {
            let end = body
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(body.len());
            body = grouped(&body[..end], separator, 3) + &body[end..];
            if self.fill == '0' && self.align == Some('=') {
                return fail("format: zeros and separators together are not supported");
            }
        }
        let negative = value.is_sign_negative() && !value.is_nan();
        self.place(out, (self.sign(negative), &body), '>')
    }
}

fn digits(chars: &[char], at: &mut usize) -> Outcome<Option<usize>> {
    let mut value = None;
    while let Some(digit) = chars.get(*at).and_then(|c| c.to_digit(10)) {
        let more = value.unwrap_or(0) * 10 + digit as usize;
        if more > MOST {
            return fail(format!(
                "format: a field of more than {MOST} is not allowed"
            ));
        }
        value = Some(more);
        *at += 1;
    }
    Ok(value)
}

fn grouped(digits: &str, separator: char, size: usize) -> String {
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(size) {
            out.push(separator);
        }
        out.push(digit);
    }
    out
}

fn exponential(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        None => text,
    }
}

fn general(value: f64, precision: usize, keep_zeros: bool) -> String {
    let precision = precision.max(1);
    let text = exponential(value, precision - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') && !keep_zeros {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if (-4..precision.min(MOST) as i32).contains(&power) {
        let places = (precision as i32 - 1 - power).max(0) as usize;
        return trim(&format!("{value:.places$}"));
    }
    format!("{}e{exponent}", trim(mantissa))
}

/// `template % values`.
pub(super) fn percent(heap: &Heap, template: &str, values: &Value) -> Outcome<Value> {
    heap.touch(template.len())?;
    let mut out = Builder::new(heap)?;
    let single = std::slice::from_ref(values);
    let (items, mapping) = match values {
        Value::Tuple(list) => (list.items(), false),
        Value::Dict(_) | Value::List(_) | Value::Range(_) => (single, true),
        _ => (single, false),
    };
    let mut next = items.iter();
    let mut take = || match next.next() {
        Some(value) => Ok(value.clone()),
        None => fail("not enough arguments for format string"),
    };
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        heap.step(2)?;
        out.push(&rest[..at])?;
        rest = &rest[at + 1..];
        let mut key = None;
        if let Some(inside) = rest.strip_prefix('(') {
            let Some((name, after)) = inside.split_once(')') else {
                return fail("incomplete format key");
            };
            (key, rest) = (Some(name), after);
        }
        let (mut spec, conversion, after) = percent_spec(rest, &mut take)?;
        rest = after;
        if conversion == '%' {
            out.push("%")?;
            continue;
        }
        let value = match (key, values) {
            (None, _) => take()?,
            (Some(key), Value::Dict(dict)) => match dict.get_str(key) {
                Some(value) => value.clone(),
                None => {
                    return fail(format!(
                        "there is no key {:?} to format",
                        super::value::shortened(key)
                    ));
                }
            },
            _ => return fail("format requires a mapping"),
        };
        write_percent(&mut out, &mut spec, conversion, &value)?;
    }
    out.push(rest)?;
    // A mapping that is never looked at is no mistake in Python.
    if next.next().is_some() && !mapping {
        return fail("not all arguments converted during string formatting");
    }
    Ok(Value::Str(out.finish()))
}

/// Parses flags, width, precision and letter after a percent sign.
fn percent_spec<'text>(
    text: &'text str,
    take: &mut impl FnMut() -> Outcome<Value>,
) -> Outcome<(Spec, char, &'text str)> {
    let mut spec = Spec::new();
    // A number of more than twenty places is refused, so that no more than this is looked at.
    let chars: Vec<char> = text.chars().take(64).collect();
    let mut at = 0;
    let mut zeros = false;
    while let Some(flag @ ('-' | '+' | ' ' | '#' | '0')) = chars.get(at) {
        match flag {
            '-' => spec.align = Some('<'),
            '#' => spec.alternate = true,
            '0' => zeros = true,
            ' ' if spec.sign == '+' => {}
            sign => spec.sign = *sign,
        }
        at += 1;
    }
    let mut number = |at: &mut usize| -> Outcome<Option<i128>> {
        if chars.get(*at) == Some(&'*') {
            *at += 1;
            return match take()?.as_int() {
                Some(value) if value.unsigned_abs() <= MOST as u128 => Ok(Some(value)),
                _ => fail("* wants an int that is not too large"),
            };
        }
        Ok(digits(&chars, at)?.map(|value| value as i128))
    };
    let width = number(&mut at)?.unwrap_or(0);
    if width < 0 {
        spec.align = Some('<');
    }
    spec.width = width.unsigned_abs() as usize;
    if chars.get(at) == Some(&'.') {
        at += 1;
        spec.precision = Some(number(&mut at)?.unwrap_or(0).max(0) as usize);
    }
    if let Some('h' | 'l' | 'L') = chars.get(at) {
        at += 1;
    }
    let Some(conversion) = chars.get(at).copied() else {
        return fail("incomplete format");
    };
    if zeros && spec.align.is_none() && !matches!(conversion, 's' | 'r' | 'a' | 'c') {
        (spec.fill, spec.align) = ('0', Some('='));
    }
    let used: usize = chars[..=at].iter().map(|c| c.len_utf8()).sum();
    Ok((spec, conversion, &text[used..]))
}

fn write_percent(
    out: &mut Builder,
    spec: &mut Spec,
    conversion: char,
    value: &Value,
) -> Outcome<()> {
    spec.letter = Some(conversion);
    let wrong = || {
        fail(format!(
            "%{conversion} format: a number is required, not {}",
            value.type_name()
        ))
    };
    match conversion {
        's' | 'r' => {
            let mut text = Builder::new(out.heap())?;
            match conversion {
                's' => print(&mut text, value)?,
                _ => represent(&mut text, value)?,
            }
            spec.align.get_or_insert('>');
            spec.text(out, text.as_str())
        }
        'c' => match value {
            Value::Str(text) if text.as_str().chars().count() == 1 => {
                spec.align.get_or_insert('>');
                spec.place(out, ("", text.as_str()), '>')
            }
            _ => fail("%c is supported for one character alone"),
        },
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
            let int = match (value, conversion) {
                (Value::Float(value), 'd' | 'i' | 'u') if value.is_finite() => {
                    super::value::whole(value.trunc())
                }
                _ => value.as_int(),
            };
            let Some(int) = int else { return wrong() };
            if let Some(least) = spec.precision.take() {
                let digits = format!("{:0least$}", int.unsigned_abs());
                if !matches!(conversion, 'd' | 'i' | 'u') {
                    return fail("a precision is supported for decimal integers alone");
                }
                return spec.place(out, (spec.sign(int < 0), &digits), '>');
            }
            spec.int(out, int)
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match (value, value.as_int()) {
            (Value::Float(float), _) => spec.float(out, *float),
            (_, Some(int)) => spec.float(out, int as f64),
            _ => wrong(),
        },
        _ => fail(format!(
            "unsupported format character {:?}",
            conversion.to_string()
        )),
    }
}

/// `template.format(...)`.
pub(super) fn braces(
    interpreter: &mut Interpreter<'_>,
    template: &str,
    args: Args,
) -> Outcome<Value> {
    let heap = interpreter.heap.clone();
    let mut out = Builder::new(&heap)?;
    let mut rest = template;
    let mut counted = 0;
    while let Some(at) = rest.find(['{', '}']) {
        heap.step(2)?;
        out.push(&rest[..at])?;
        let after = &rest[at + 1..];
        let brace = &rest[at..at + 1];
        if after.starts_with(brace) {
            out.push(brace)?;
            rest = &after[1..];
            continue;
        }
        let Some(end) = after
            .find(['{', '}'])
            .filter(|end| brace == "{" && after[*end..].starts_with('}'))
        else {
            return fail("format: a brace is not closed, or fields lie in each other");
        };
        let field = &after[..end];
        rest = &after[end + 1..];
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (path, conversion) = match field.split_once('!') {
            Some((path, conversion)) => (path, Some(conversion)),
            None => (field, None),
        };
        let value = find(interpreter, path, &args, &mut counted)?;
        let value = match conversion {
            None => value,
            Some("s") => Value::Str(heap.printed(&value)?),
            Some("r") => {
                let mut text = Builder::new(&heap)?;
                represent(&mut text, &value)?;
                Value::Str(text.finish())
            }
            Some(_) => return fail("format: a conversion must be s or r"),
        };
        write_braces(&mut out, spec, &value)?;
    }
    out.push(rest)?;
    Ok(Value::Str(out.finish()))
}

/// The value that a field of `str.format` names.
fn find(
    interpreter: &mut Interpreter<'_>,
    path: &str,
    args: &Args,
    counted: &mut usize,
) -> Outcome<Value> {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (first, mut rest) = path.split_at(end);
    let value = match first.parse::<usize>() {
        _ if first.is_empty() => {
            *counted += 1;
            args.positional.get(*counted - 1)
        }
        Ok(index) => args.positional.get(index),
        Err(_) => args
            .named
            .iter()
            .find(|(name, _)| name == first)
            .map(|(_, value)| value),
    };
    let Some(mut value) = value.cloned() else {
        return fail(format!(
            "format: there is no argument for {:?}",
            super::value::shortened(first)
        ));
    };
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some((key, after)) = after.split_once(']') else {
                return fail("format: a bracket is not closed");
            };
            let key = match key.parse::<i64>() {
                Ok(index) => Value::Int(index.into()),
                Err(_) => interpreter.heap.str(key)?,
            };
            value = interpreter.item(&value, &key)?;
            rest = after;
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let end = after.find(['.', '[']).unwrap_or(after.len());
            value = interpreter.attribute(&value, &after[..end])?;
            rest = &after[end..];
        }
    }
    Ok(value)
}

fn write_braces(out: &mut Builder, spec: &str, value: &Value) -> Outcome<()> {
    if spec.is_empty() {
        return print(out, value);
    }
    let mut spec = Spec::parse(spec)?;
    let wrong = |letter: char| {
        fail(format!(
            "format: unknown format code {:?} for a {}",
            letter.to_string(),
            value.type_name()
        ))
    };
    match (value, value.as_int()) {
        (Value::Str(text), _) => match spec.letter {
            None | Some('s') if spec.align != Some('=') && spec.sign == '-' => {
                spec.text(out, text.as_str())
            }
            letter => wrong(letter.unwrap_or('=')),
        },
        (Value::Float(float), _) => match spec.letter {
            Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => spec.float(out, *float),
            None if spec.precision.is_none() && spec.group.is_none() => {
                let text = super::print::float(float.abs());
                let negative = float.is_sign_negative() && !float.is_nan();
                spec.place(out, (spec.sign(negative), &text), '>')
            }
            None => fail("format: a precision needs a letter, such as f"),
            Some(letter) => wrong(letter),
        },
        (_, Some(int)) => match spec.letter {
            None | Some('d' | 'b' | 'o' | 'x' | 'X') if spec.precision.is_none() => {
                spec.letter.get_or_insert('d');
                spec.int(out, int)
            }
            Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => spec.float(out, int as f64),
            letter => wrong(letter.unwrap_or('.')),
        },
        _ => fail(format!("format: a {} has no format", value.type_name())),
    }
}
