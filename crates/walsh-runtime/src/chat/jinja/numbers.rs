//! The filters of numbers.

use super::args::{Args, integer};
use super::arith;
use super::budget::{Heap, Outcome, fail};
use super::value::{Value, whole};

/// The filters `abs`, `float`, `int` and `round`.
pub(super) fn filter(heap: &Heap, name: &str, value: &Value, args: Args) -> Outcome<Value> {
    if let Value::Undefined(missing) = value {
        return fail(missing.sentence());
    }
    match name {
        "abs" => {
            args.nothing(name)?;
            match value {
                Value::Float(value) => Ok(Value::Float(value.abs())),
                _ => match value.as_int() {
                    Some(int) if int < 0 => arith::negate(value),
                    Some(int) => Ok(Value::Int(int)),
                    None => fail(format!(
                        "abs: a number is needed, not a {}",
                        value.type_name()
                    )),
                },
            }
        }
        "float" => {
            let [default] = args.bind(name, ["default"], 0)?;
            let parsed = match value.as_str() {
                Some(text) => {
                    heap.touch(text.len())?;
                    parse_float(text)
                }
                None => arith::float(value),
            };
            Ok(match parsed {
                Some(value) => Value::Float(value),
                None => default.unwrap_or(Value::Float(0.0)),
            })
        }
        "int" => {
            let [default, base] = args.bind(name, ["default", "base"], 0)?;
            let base = integer(name, base, 10)?;
            let parsed = match value.as_str() {
                Some(text) => {
                    heap.touch(text.len())?;
                    match parse_int(text, base)? {
                        Some(int) => Some(int),
                        None => parse_float(text).map(truncated).transpose()?.flatten(),
                    }
                }
                None => match value {
                    Value::Float(value) if value.is_infinite() => {
                        return fail("int: infinity is no integer");
                    }
                    Value::Float(value) => truncated(*value)?,
                    _ => value.as_int(),
                },
            };
            Ok(match parsed {
                Some(value) => Value::Int(value),
                None => default.unwrap_or(Value::Int(0)),
            })
        }
        _ => {
            let [precision, method] = args.bind("round", ["precision", "method"], 0)?;
            let precision = integer("round", precision, 0)?;
            if precision.abs() > 300 {
                return fail("round: a precision of more than 300 digits is not supported");
            }
            match method.as_ref().map_or(Some("common"), Value::as_str) {
                Some("common") => round(value, precision as i32),
                Some(way @ ("ceil" | "floor")) => {
                    let Some(number) = arith::float(value) else {
                        return fail(format!(
                            "round: a number is needed, not a {}",
                            value.type_name()
                        ));
                    };
                    let scale = libm::pow(10.0, precision as f64);
                    let scaled = number * scale;
                    let scaled = if way == "ceil" {
                        scaled.ceil()
                    } else {
                        scaled.floor()
                    };
                    if !scaled.is_finite() {
                        return fail("round: infinity and nan are no integers");
                    }
                    Ok(Value::Float(scaled / scale))
                }
                _ => fail("round: method must be common, ceil or floor"),
            }
        }
    }
}

/// The integer that a float is without its fraction; none for infinity and NaN.
fn truncated(value: f64) -> Outcome<Option<i128>> {
    if !value.is_finite() {
        return Ok(None);
    }
    match whole(value.trunc()) {
        Some(int) => Ok(Some(int)),
        None => fail("integers of more than 128 bits are not supported"),
    }
}

/// Python's `round(value, precision)`.
fn round(value: &Value, precision: i32) -> Outcome<Value> {
    match value {
        Value::Float(value) if precision >= 0 => {
            // Formatting rounds the exact number, and halves to even.
            let text = format!("{value:.0$}", precision as usize);
            Ok(Value::Float(text.parse().unwrap_or(*value)))
        }
        Value::Float(_) => fail("round: floats cannot be rounded to tens, make an integer of it"),
        _ => match value.as_int() {
            Some(int) if precision >= 0 => Ok(Value::Int(int)),
            Some(int) => {
                let Some(unit) = 10i128.checked_pow(precision.unsigned_abs()) else {
                    return Ok(Value::Int(0));
                };
                let (down, rest) = (int.div_euclid(unit), int.rem_euclid(unit));
                let up = rest * 2 > unit || rest * 2 == unit && down % 2 != 0;
                match (down + i128::from(up)).checked_mul(unit) {
                    Some(int) => Ok(Value::Int(int)),
                    None => fail("integers of more than 128 bits are not supported"),
                }
            }
            None => fail(format!(
                "round: a number is needed, not a {}",
                value.type_name()
            )),
        },
    }
}

/// The digits without the underscores between them; nothing when one is elsewhere.
fn digits(text: &str) -> Option<String> {
    let misplaced = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    (!misplaced).then(|| text.replace('_', ""))
}

/// Python's `int(text, base)`.
fn parse_int(text: &str, base: i128) -> Outcome<Option<i128>> {
    let text = text.trim_matches(super::text::is_space);
    let (negative, digits_) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits_.get(..2).map(str::to_ascii_lowercase);
    let (base, body) = match (base, lower.as_deref()) {
        (2 | 0, Some("0b")) => (2, &digits_[2..]),
        (8 | 0, Some("0o")) => (8, &digits_[2..]),
        (16 | 0, Some("0x")) => (16, &digits_[2..]),
        (0, _) => (10, digits_),
        (2..=36, _) => (base as u32, digits_),
        _ => return fail("int: the base must be 0 or 2 to 36"),
    };
    let body = match body.len() != digits_.len() {
        true => body.strip_prefix('_').unwrap_or(body),
        false => body,
    };
    if !body.is_ascii() && body.contains(char::is_numeric) {
        return fail("int: digits beyond ASCII are not supported");
    }
    let Some(body) = digits(body) else {
        return Ok(None);
    };
    if body.is_empty() || !body.chars().all(|c| c.is_digit(base)) {
        return Ok(None);
    }
    match i128::from_str_radix(&body, base) {
        Ok(int) => Ok(Some(if negative { -int } else { int })),
        Err(_) => fail("integers of more than 128 bits are not supported"),
    }
}

/// Python's `float(text)`.
fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(super::text::is_space);
    let between_digits = text
        .as_bytes()
        .windows(3)
        .all(|three| three[1] != b'_' || three[0].is_ascii_digit() && three[2].is_ascii_digit());
    if !between_digits {
        return None;
    }
    let text = digits(text)?;
    // Rust and Python read the same forms, and the same names of infinity and NaN.
    text.parse().ok()
}
