//! Which values are equal, which is less, what is in what.

use std::cmp::Ordering;

use super::budget::{Heap, Outcome, fail};
use super::value::{Value, View, whole};

/// Python's `a == b`.
pub(super) fn equal(heap: &Heap, a: &Value, b: &Value) -> Outcome<bool> {
    heap.step(1)?;
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.items().iter().zip(b.items()) {
                if !equal(heap, a, b)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, value) in a.keyed() {
                match b.get(key) {
                    Some(other) if equal(heap, value, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Range(a), Value::Range(b)) => {
            a.len == b.len && (a.len == 0 || a.start == b.start && (a.len == 1 || a.step == b.step))
        }
        (Value::View(_, a), Value::View(_, b)) if a.is(b) => true,
        (Value::View(..), Value::View(..)) => {
            return fail("views of dictionaries cannot be compared");
        }
        (Value::Namespace(a), Value::Namespace(b)) | (Value::Macro(a), Value::Macro(b)) => a == b,
        (Value::Function(a), Value::Function(b)) => a == b,
        _ => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => {
                heap.touch(a.len().min(b.len()))?;
                a == b
            }
            _ => numbers(a, b) == Some(Ordering::Equal),
        },
    })
}

/// How two numbers compare, where both are numbers and neither is NaN.
fn numbers(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Float(a), b) => mixed(*a, b.as_int()?),
        (a, Value::Float(b)) => mixed(*b, a.as_int()?).map(Ordering::reverse),
        _ => Some(a.as_int()?.cmp(&b.as_int()?)),
    }
}

/// How a float compares with an integer, exactly.
fn mixed(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    Some(match whole(a.floor()) {
        Some(floor) if floor == b && a > a.floor() => Ordering::Greater,
        Some(floor) => floor.cmp(&b),
        None if a > 0.0 => Ordering::Greater,
        None => Ordering::Less,
    })
}

/// How two values compare, for `<` and its kin; `None` for NaN.
///
/// # Errors
/// For types that have no order.
pub(super) fn partial(heap: &Heap, a: &Value, b: &Value) -> Outcome<Option<Ordering>> {
    heap.step(1)?;
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        heap.touch(a.len().min(b.len()))?;
        return Ok(Some(a.cmp(b)));
    }
    match (a, b) {
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => {
            for (x, y) in x.items().iter().zip(y.items()) {
                if !equal(heap, x, y)? {
                    return partial(heap, x, y);
                }
            }
            Ok(Some(x.len().cmp(&y.len())))
        }
        (Value::Undefined(missing), _) | (_, Value::Undefined(missing)) => fail(missing.sentence()),
        _ => {
            let number =
                |value: &Value| matches!(value, Value::Float(_)) || value.as_int().is_some();
            if number(a) && number(b) {
                return Ok(numbers(a, b));
            }
            fail(format!(
                "'<' is not supported between '{}' and '{}'",
                a.type_name(),
                b.type_name()
            ))
        }
    }
}

/// How two values compare in a sort.
pub(super) fn compare(heap: &Heap, a: &Value, b: &Value) -> Outcome<Ordering> {
    match partial(heap, a, b)? {
        Some(order) => Ok(order),
        None => fail("nan has no place in an order"),
    }
}

/// Sorts, leaving what is equal in its order. `compare` may fail, and need not be an order.
pub(super) fn sort<T: Clone>(
    items: &mut [T],
    mut compare: impl FnMut(&T, &T) -> Outcome<Ordering>,
) -> Outcome<()> {
    let mut width = 1;
    while width < items.len() {
        for pair in items.chunks_mut(2 * width) {
            if pair.len() <= width {
                continue;
            }
            let (left, right) = (pair[..width].to_vec(), pair[width..].to_vec());
            let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
            for place in pair {
                let from_right = match (left.peek(), right.peek()) {
                    (Some(a), Some(b)) => compare(b, a)? == Ordering::Less,
                    (None, _) => true,
                    (_, None) => false,
                };
                let next = if from_right {
                    right.next()
                } else {
                    left.next()
                };
                if let Some(next) = next {
                    *place = next;
                }
            }
        }
        width *= 2;
    }
    Ok(())
}

/// Python's `needle in haystack`.
pub(super) fn contains(heap: &Heap, haystack: &Value, needle: &Value) -> Outcome<bool> {
    if let Some(text) = haystack.as_str() {
        return match needle {
            Value::Str(part) | Value::Markup(part) => {
                heap.touch(text.len() + part.as_str().len())?;
                Ok(text.contains(part.as_str()))
            }
            _ => fail(format!(
                "'in <string>' requires a string on its left, not {}",
                needle.type_name()
            )),
        };
    }
    match haystack {
        Value::Dict(dict) => Ok(dict.get(&needle.key(heap)?).is_some()),
        Value::Range(range) => match needle {
            Value::Int(_) | Value::Bool(_) | Value::Float(_) => {
                for index in 0..range.len {
                    if equal(heap, &Value::Int(range.at(index)), needle)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => Ok(false),
        },
        Value::View(View::Keys, list) => {
            // What cannot be a key is not looked for.
            needle.key(heap)?;
            any(heap, list.items(), needle)
        }
        Value::List(list) | Value::Tuple(list) | Value::View(_, list) => {
            any(heap, list.items(), needle)
        }
        Value::Undefined(_) => Ok(false),
        Value::Once(items) => {
            let Some(list) = items.borrow_mut().take() else {
                return Ok(false);
            };
            for (index, item) in list.items().iter().enumerate() {
                if equal(heap, item, needle)? {
                    let rest = heap.items(list.items()[index + 1..].to_vec())?;
                    *items.borrow_mut() = Some(rest);
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => fail(format!(
            "argument of type '{}' is not iterable",
            haystack.type_name()
        )),
    }
}

fn any(heap: &Heap, items: &[Value], needle: &Value) -> Outcome<bool> {
    for item in items {
        if equal(heap, item, needle)? {
            return Ok(true);
        }
    }
    Ok(false)
}
