//! Python's operators between values.

use super::budget::{Heap, Outcome, fail};
use super::format;
use super::value::{Builder, Items, Value};

/// An operator of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
}

impl Operator {
    fn sign(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Sub => "-",
            Operator::Mul => "*",
            Operator::Div => "/",
            Operator::FloorDiv => "//",
            Operator::Rem => "%",
            Operator::Pow => "**",
        }
    }
}

/// `a operator b`.
pub(super) fn operate(heap: &Heap, operator: Operator, a: &Value, b: &Value) -> Outcome<Value> {
    if let Value::Str(template) = a
        && operator == Operator::Rem
    {
        return format::percent(heap, template.as_str(), b);
    }
    if let Value::Undefined(missing) = a {
        return fail(missing.sentence());
    }
    if let Value::Undefined(missing) = b {
        return fail(missing.sentence());
    }
    match (operator, a, b) {
        (Operator::Add, Value::Str(x), Value::Str(y)) => {
            let mut out = Builder::new(heap)?;
            out.push(x.as_str())?;
            out.push(y.as_str())?;
            Ok(Value::Str(out.finish()))
        }
        (Operator::Add, Value::Str(_) | Value::Markup(_), Value::Str(_) | Value::Markup(_)) => {
            let mut out = Builder::new(heap)?;
            for part in [a, b] {
                match part {
                    Value::Markup(text) => out.push(text.as_str())?,
                    other => escape(&mut out, other.as_str().unwrap_or_default())?,
                }
            }
            Ok(Value::Markup(out.finish()))
        }
        (Operator::Add, Value::List(x), Value::List(y))
        | (Operator::Add, Value::Tuple(x), Value::Tuple(y)) => {
            let mut items = Items::new(heap)?;
            items.extend(x.items())?;
            items.extend(y.items())?;
            let items = items.finish()?;
            Ok(match a {
                Value::List(_) => Value::List(items),
                _ => Value::Tuple(items),
            })
        }
        (Operator::Mul, Value::Str(_) | Value::List(_) | Value::Tuple(_), _)
            if b.as_int().is_some() =>
        {
            repeat(heap, a, b.as_int().unwrap_or(0))
        }
        (Operator::Mul, _, Value::Str(_) | Value::List(_) | Value::Tuple(_))
            if a.as_int().is_some() =>
        {
            repeat(heap, b, a.as_int().unwrap_or(0))
        }
        _ => match (a.as_int(), b.as_int()) {
            (Some(x), Some(y)) => integers(operator, x, y),
            _ => match (float(a), float(b)) {
                (Some(x), Some(y)) => floats(operator, x, y),
                _ => fail(format!(
                    "unsupported operand types for {}: '{}' and '{}'",
                    operator.sign(),
                    a.type_name(),
                    b.type_name()
                )),
            },
        },
    }
}

/// The number that a value is, as a float.
pub(super) fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        _ => value.as_int().map(|value| value as f64),
    }
}

/// `-value`.
pub(super) fn negate(value: &Value) -> Outcome<Value> {
    match value {
        Value::Float(value) => Ok(Value::Float(-value)),
        Value::Undefined(missing) => fail(missing.sentence()),
        _ => match value.as_int().map(i128::checked_neg) {
            Some(Some(value)) => Ok(Value::Int(value)),
            Some(None) => too_large(),
            None => fail(format!(
                "a value of type {} cannot be negated",
                value.type_name()
            )),
        },
    }
}

/// Appends text with what HTML would read as its own escaped.
pub(super) fn escape(out: &mut Builder, text: &str) -> Outcome<()> {
    for c in text.chars() {
        match c {
            '&' => out.push("&amp;")?,
            '<' => out.push("&lt;")?,
            '>' => out.push("&gt;")?,
            '"' => out.push("&#34;")?,
            '\'' => out.push("&#39;")?,
            _ => out.push_char(c)?,
        }
    }
    Ok(())
}

fn repeat(heap: &Heap, value: &Value, times: i128) -> Outcome<Value> {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    match value {
        Value::Str(text) => {
            let mut out = Builder::new(heap)?;
            out.repeat(text.as_str(), times)?;
            Ok(Value::Str(out.finish()))
        }
        _ => {
            let list = heap.iterate(value)?;
            let mut items = Items::new(heap)?;
            if list.len() > 0 {
                for _ in 0..times {
                    items.extend(list.items())?;
                }
            }
            let items = items.finish()?;
            Ok(match value {
                Value::List(_) => Value::List(items),
                _ => Value::Tuple(items),
            })
        }
    }
}

fn too_large<T>() -> Outcome<T> {
    fail("integers of more than 128 bits are not supported")
}

fn integers(operator: Operator, a: i128, b: i128) -> Outcome<Value> {
    let by_zero = || fail("division by zero");
    let result = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Sub => a.checked_sub(b),
        Operator::Mul => a.checked_mul(b),
        Operator::Div if b == 0 => return by_zero(),
        Operator::Div => return divide(a, b),
        Operator::FloorDiv | Operator::Rem if b == 0 => return by_zero(),
        Operator::FloorDiv => a.checked_div(b).map(|quotient| {
            // Towards the smaller, where Rust rounds towards zero.
            quotient - i128::from(a % b != 0 && (a < 0) != (b < 0))
        }),
        // The sign of the divisor. The remainder by -1 is 0, and would overflow for one number.
        Operator::Rem => Some(match a.checked_rem(b).unwrap_or(0) {
            rest if rest != 0 && (rest < 0) != (b < 0) => rest + b,
            rest => rest,
        }),
        Operator::Pow if b < 0 && a == 0 => return by_zero(),
        Operator::Pow if b < 0 => return floats(operator, a as f64, b as f64),
        Operator::Pow => match (a, u32::try_from(b)) {
            (0 | 1, _) => Some(if b == 0 { 1 } else { a }),
            (-1, _) => Some(if b % 2 == 0 { 1 } else { -1 }),
            (_, Ok(power)) => a.checked_pow(power),
            (_, Err(_)) => None,
        },
    };
    match result {
        Some(value) => Ok(Value::Int(value)),
        None => too_large(),
    }
}

/// The float that is nearest to a quotient of integers.
fn divide(a: i128, b: i128) -> Outcome<Value> {
    const EXACT: u128 = 1 << 53;
    if a.unsigned_abs() > EXACT || b.unsigned_abs() > EXACT {
        // Rounded twice, unless the division has no remainder.
        if let Some(quotient) = a.checked_div(b).filter(|_| a.checked_rem(b) == Some(0)) {
            return Ok(Value::Float(quotient as f64));
        }
        return fail("division of integers of more than 53 bits is not supported");
    }
    Ok(Value::Float(a as f64 / b as f64))
}

fn floats(operator: Operator, a: f64, b: f64) -> Outcome<Value> {
    if b == 0.0 && matches!(operator, Operator::Div | Operator::FloorDiv | Operator::Rem) {
        return fail("float division by zero");
    }
    let result = match operator {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mul => a * b,
        Operator::Div => a / b,
        Operator::FloorDiv => {
            // From the remainder, as Python computes it: the quotient itself may be rounded up.
            let exact = (a - remainder(a, b)) / b;
            let floor = exact.floor();
            if exact == 0.0 {
                0f64.copysign(a / b)
            } else if exact - floor > 0.5 {
                floor + 1.0
            } else {
                floor
            }
        }
        Operator::Rem => remainder(a, b),
        Operator::Pow => {
            if a == 0.0 && b < 0.0 {
                return fail("0.0 cannot be raised to a negative power");
            }
            if a < 0.0 && b.fract() != 0.0 && b.is_finite() {
                return fail("complex numbers are not supported");
            }
            let power = libm::pow(a, b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return fail("the result is too large");
            }
            power
        }
    };
    Ok(Value::Float(result))
}

/// The remainder with the sign of the divisor.
fn remainder(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        0f64.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }
}
