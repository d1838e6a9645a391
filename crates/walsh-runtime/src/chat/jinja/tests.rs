//! Jinja2's tests, which follow `is`.

use super::args::Args;
use super::arith::{self, Operator};
use super::budget::{Heap, Outcome, fail};
use super::exec::Interpreter;
use super::filters::is_filter;
use super::order::{self, equal};
use super::text;
use super::value::{Value, shortened};

use std::cmp::Ordering;

/// The tests without an argument.
const PLAIN: [&str; 21] = [
    "boolean",
    "callable",
    "defined",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "integer",
    "iterable",
    "lower",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// The tests that compare with an argument.
const BINARY: [&str; 19] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "divisibleby",
    "eq",
    "equalto",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "le",
    "lessthan",
    "lt",
    "ne",
    "sameas",
    "",
];

fn is_test(name: &str) -> bool {
    PLAIN.contains(&name) || !name.is_empty() && BINARY.contains(&name)
}

impl<'a> Interpreter<'a> {
    /// `value is name(args)`.
    pub(super) fn test(&mut self, name: &str, value: &Value, args: Args) -> Outcome<bool> {
        let heap = self.heap.clone();
        heap.step(1)?;
        if PLAIN.contains(&name) {
            args.nothing(name)?;
            return plain(&heap, name, value);
        }
        if !is_test(name) {
            return fail(format!("no test named '{}'", shortened(name)));
        }
        let other = args.one(name)?;
        match name {
            "==" | "eq" | "equalto" => equal(&heap, value, &other),
            "!=" | "ne" => Ok(!equal(&heap, value, &other)?),
            "in" => order::contains(&heap, &other, value),
            "divisibleby" => {
                let rest = arith::operate(&heap, Operator::Rem, value, &other)?;
                equal(&heap, &rest, &Value::Int(0))
            }
            "sameas" => same(value, &other),
            _ => {
                let order = order::partial(&heap, value, &other)?;
                Ok(match name {
                    "<" | "lt" | "lessthan" => order == Some(Ordering::Less),
                    "<=" | "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                    ">" | "gt" | "greaterthan" => order == Some(Ordering::Greater),
                    _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
                })
            }
        }
    }
}

fn plain(heap: &Heap, name: &str, value: &Value) -> Outcome<bool> {
    let rest = |of: i128| -> Outcome<bool> {
        let rest = arith::operate(heap, Operator::Rem, value, &Value::Int(2))?;
        equal(heap, &rest, &Value::Int(of))
    };
    Ok(match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Float(_)) || value.as_int().is_some(),
        "string" => value.as_str().is_some(),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => {
            let indexed = matches!(
                value,
                Value::Dict(_) | Value::Range(_) | Value::Undefined(_)
            );
            indexed || value.as_str().is_some() || value.as_list().is_some()
        }
        "iterable" => {
            let iterated = matches!(
                value,
                Value::Dict(_)
                    | Value::View(..)
                    | Value::Range(_)
                    | Value::Once(_)
                    | Value::Loop(_)
                    | Value::Undefined(_)
            );
            iterated || value.as_str().is_some() || value.as_list().is_some()
        }
        "callable" => matches!(
            value,
            Value::Function(_)
                | Value::Method(_)
                | Value::Macro(_)
                | Value::Loop(_)
                | Value::Joiner(_)
                | Value::Undefined(_)
        ),
        "escaped" => matches!(value, Value::Markup(_)),
        "odd" => rest(1)?,
        "even" => rest(0)?,
        // Python looks the value up, whatever it is.
        "filter" | "test" if value.key(heap).is_err() => {
            return fail(format!("{name}: a name is needed"));
        }
        "filter" => value.as_str().is_some_and(is_filter),
        "test" => value.as_str().is_some_and(is_test),
        "lower" => text::is(heap.printed(value)?.as_str(), "islower")?,
        "upper" => text::is(heap.printed(value)?.as_str(), "isupper")?,
        _ => return fail(format!("no test named '{name}'")),
    })
}

/// Python's `a is b`, where it does not depend on what Python keeps once.
fn same(a: &Value, b: &Value) -> Outcome<bool> {
    Ok(match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) if a != b || (-5..=256).contains(a) => a == b,
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => a.is(b),
        (Value::Dict(a), Value::Dict(b)) => a.is(b),
        (Value::Namespace(a), Value::Namespace(b)) => a == b,
        (Value::Str(a), Value::Str(b)) if a.as_str() != b.as_str() => false,
        _ if a.type_name() != b.type_name() => false,
        _ => {
            return fail(format!(
                "sameas is not supported between two {}",
                a.type_name()
            ));
        }
    })
}
