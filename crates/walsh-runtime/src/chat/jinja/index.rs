//! Attributes, items and slices.

use super::budget::{Heap, Outcome, fail};
use super::exec::Interpreter;
use super::loops::Loop;
use super::methods;
use super::value::{Builder, Items, List, Missing, Value, View, shortened};

impl Heap {
    /// All that a value gives when it is iterated over.
    pub(super) fn iterate(&self, value: &Value) -> Outcome<List> {
        match value {
            Value::List(list) | Value::Tuple(list) | Value::View(_, list) => Ok(list.clone()),
            Value::Str(text) | Value::Markup(text) => {
                let mut items = Items::new(self)?;
                for c in text.as_str().chars() {
                    items.push(self.str(c.encode_utf8(&mut [0; 4]))?)?;
                }
                items.finish()
            }
            Value::Dict(dict) => {
                let mut items = Items::new(self)?;
                for (key, _) in dict.iter() {
                    items.push(key.clone())?;
                }
                items.finish()
            }
            Value::Range(range) => {
                let mut items = Items::new(self)?;
                for index in 0..range.len {
                    items.push(Value::Int(range.at(index)))?;
                }
                items.finish()
            }
            Value::Undefined(_) => self.items(Vec::new()),
            Value::Once(items) => match items.borrow_mut().take() {
                Some(list) => Ok(list),
                None => self.items(Vec::new()),
            },
            _ => fail(format!("'{}' object is not iterable", value.type_name())),
        }
    }

    /// Python's `len(value)`.
    pub(super) fn length(&self, value: &Value) -> Outcome<usize> {
        match value {
            Value::Str(text) | Value::Markup(text) if text.is_ascii() => Ok(text.as_str().len()),
            Value::Str(text) | Value::Markup(text) => {
                self.touch(text.as_str().len())?;
                Ok(text.as_str().chars().count())
            }
            Value::List(list) | Value::Tuple(list) | Value::View(_, list) => Ok(list.len()),
            Value::Dict(dict) => Ok(dict.len()),
            Value::Range(range) => Ok(range.len),
            Value::Undefined(_) => Ok(0),
            Value::Loop(frame) => match frame.attribute("length") {
                Some(Value::Int(len)) => Ok(len as usize),
                _ => Ok(0),
            },
            _ => fail(format!(
                "object of type '{}' has no len()",
                value.type_name()
            )),
        }
    }

    /// `value[start:stop:step]`, where none is left out.
    pub(super) fn slice(&self, value: &Value, bounds: [Value; 3]) -> Outcome<Value> {
        if let Value::Undefined(missing) = value {
            return fail(missing.sentence());
        }
        let sliceable = matches!(
            value,
            Value::Str(_) | Value::Markup(_) | Value::List(_) | Value::Tuple(_) | Value::Range(_)
        );
        if !sliceable {
            return fail(format!(
                "a value of type {} cannot be sliced",
                value.type_name()
            ));
        }
        let mut numbers = [None; 3];
        for (number, bound) in numbers.iter_mut().zip(&bounds) {
            *number = match bound {
                Value::None => None,
                Value::Bool(_) | Value::Int(_) => bound.as_int(),
                _ => {
                    return fail(format!(
                        "slice indices must be integers or none, not {}",
                        bound.type_name()
                    ));
                }
            };
        }
        let places = places(numbers, self.length(value)?)?;
        self.step(places.len)?;
        match value {
            Value::Str(text) if text.is_ascii() && places.step == 1 => {
                let end = places.start as usize + places.len;
                self.str(&text.as_str()[places.start as usize..end])
            }
            Value::Str(text) | Value::Markup(text) => {
                self.touch(text.as_str().len())?;
                let _charge = self.hold(text.as_str().len().saturating_mul(4))?;
                let chars: Vec<char> = text.as_str().chars().collect();
                let mut out = Builder::new(self)?;
                for place in places.iter() {
                    out.push_char(chars[place])?;
                }
                let text = out.finish();
                Ok(match value {
                    Value::Markup(_) => Value::Markup(text),
                    _ => Value::Str(text),
                })
            }
            _ => {
                let list = self.iterate(value)?;
                let mut items = Items::new(self)?;
                for place in places.iter() {
                    items.push(list.items()[place].clone())?;
                }
                let items = items.finish()?;
                match value {
                    Value::List(_) => Ok(Value::List(items)),
                    Value::Tuple(_) => Ok(Value::Tuple(items)),
                    _ => fail("a range cannot be sliced, make a list of it"),
                }
            }
        }
    }
}

/// Which places of a sequence a slice takes.
struct Places {
    start: i128,
    step: i128,
    len: usize,
}

impl Places {
    fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.len as i128).map(|index| (self.start + index * self.step) as usize)
    }
}

fn places([start, stop, step]: [Option<i128>; 3], len: usize) -> Outcome<Places> {
    let len = len as i128;
    let step = step.unwrap_or(1);
    if step == 0 {
        return fail("slice step cannot be zero");
    }
    // With a negative step, the place before the first is an end.
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let place = |value: i128| match value < 0 {
        true => value.saturating_add(len).max(low),
        false => value.min(high),
    };
    let start = start.map_or(if step > 0 { low } else { high }, place);
    let stop = stop.map_or(if step > 0 { high } else { low }, place);
    let span = if step > 0 { stop - start } else { start - stop };
    let count = match span > 0 {
        // At least one, and no more than there are.
        true => (span - 1) / step.saturating_abs() + 1,
        false => 0,
    };
    // A step past the end is not taken, so that its size does not matter.
    let step = step.clamp(-len - 1, len + 1);
    Ok(Places {
        start,
        step,
        len: count as usize,
    })
}

/// The item of a sequence that an index names, counted from the end when it is negative.
fn place(index: i128, len: usize) -> Option<usize> {
    let index = if index < 0 {
        index.checked_add(len as i128)?
    } else {
        index
    };
    usize::try_from(index).ok().filter(|index| *index < len)
}

fn no_attribute(value: &Value, name: &str) -> Value {
    let sentence = format!(
        "'{} object' has no attribute '{}'",
        value.type_name(),
        shortened(name)
    );
    Value::Undefined(Missing::Attribute(sentence.into()))
}

impl<'a> Interpreter<'a> {
    /// `value.name`: an attribute or method, or else the item of that key.
    pub(super) fn attribute(&mut self, value: &Value, name: &str) -> Outcome<Value> {
        if let Some(found) = self.own_attribute(value, name)? {
            return Ok(found);
        }
        Ok(self
            .item_of(value, name)
            .unwrap_or_else(|| no_attribute(value, name)))
    }

    /// `value[key]`: the item of that key, or else an attribute.
    pub(super) fn item(&mut self, value: &Value, key: &Value) -> Outcome<Value> {
        let found = match (value, key) {
            (Value::Undefined(missing), _) => return fail(missing.sentence()),
            (Value::Dict(dict), Value::Str(text) | Value::Markup(text)) => {
                dict.get_str(text.as_str()).cloned()
            }
            (Value::Dict(dict), _) => match key.key(&self.heap) {
                Ok(key) => dict.get(&key).cloned(),
                Err(_) => None,
            },
            (Value::List(list) | Value::Tuple(list), _) => key
                .as_int()
                .and_then(|index| place(index, list.len()))
                .map(|index| list.items()[index].clone()),
            (Value::Str(text) | Value::Markup(text), _) => match key.as_int() {
                Some(index) => self.character(text, index)?,
                None => None,
            },
            (Value::Range(range), _) => key
                .as_int()
                .and_then(|index| place(index, range.len))
                .map(|index| Value::Int(range.at(index))),
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        match key {
            Value::Str(name) | Value::Markup(name) => {
                let name = name.clone();
                let found = self.own_attribute(value, name.as_str())?;
                Ok(found.unwrap_or_else(|| no_attribute(value, name.as_str())))
            }
            _ => {
                let key = match key {
                    Value::Int(key) => key.to_string(),
                    _ => format!("of type {}", key.type_name()),
                };
                Ok(no_attribute(value, &key))
            }
        }
    }

    /// `value | attr(name)`: an attribute, and never an item.
    pub(super) fn plain_attribute(&mut self, value: &Value, name: &str) -> Outcome<Value> {
        let found = self.own_attribute(value, name)?;
        Ok(found.unwrap_or_else(|| no_attribute(value, name)))
    }

    fn character(&self, text: &super::value::Text, index: i128) -> Outcome<Option<Value>> {
        let source = text.as_str();
        let found = if text.is_ascii() {
            place(index, source.len()).map(|index| &source[index..index + 1])
        } else {
            self.heap.touch(source.len())?;
            let from_end = index < 0;
            let steps = usize::try_from(if from_end { -(index + 1) } else { index });
            let mut chars = source.char_indices();
            let found = steps.ok().and_then(|steps| match from_end {
                true => chars.nth_back(steps),
                false => chars.nth(steps),
            });
            found.map(|(start, c)| &source[start..start + c.len_utf8()])
        };
        found.map(|found| self.heap.str(found)).transpose()
    }

    /// The item of a key that is a name.
    fn item_of(&self, value: &Value, name: &str) -> Option<Value> {
        match value {
            Value::Dict(dict) => dict.get_str(name).cloned(),
            _ => None,
        }
    }

    /// An attribute in Python's sense, or `None`.
    ///
    /// # Errors
    /// For an undefined value, and for attributes that Python has and templates of Walsh do not.
    fn own_attribute(&mut self, value: &Value, name: &str) -> Outcome<Option<Value>> {
        if let Value::Undefined(missing) = value {
            return fail(missing.sentence());
        }
        if name.starts_with('_') {
            // The sandbox shows none of them.
            return Ok(None);
        }
        match value {
            Value::Namespace(index) => Ok(self.namespace_attribute(*index, name)),
            Value::Loop(frame) => match (frame.attribute(name), Loop::method(name)) {
                (Some(found), _) => Ok(Some(found)),
                (None, Some(method)) => self.heap.method(value, method).map(Some),
                _ => Ok(None),
            },
            Value::Cycler(cycler) if name == "current" => {
                Ok(Some(cycler.0.items()[cycler.1.get()].clone()))
            }
            // What `groupby` gives has names for its two parts.
            Value::Tuple(pair) if pair.len() == 2 && (name == "grouper" || name == "list") => {
                Ok(pair.items().get(usize::from(name == "list")).cloned())
            }
            Value::Macro(index) if name == "name" => self.macro_name(*index).map(Some),
            Value::Range(range) if name == "start" => Ok(Some(Value::Int(range.start.into()))),
            Value::Range(range) if name == "step" => Ok(Some(Value::Int(range.step.into()))),
            Value::Int(_) | Value::Bool(_) | Value::Float(_)
                if methods::NUMBERS.contains(&name) =>
            {
                fail(format!("the attribute {name} of numbers is not supported"))
            }
            _ => match methods::named(value, name) {
                Some(method) => self.heap.method(value, method).map(Some),
                None => Ok(None),
            },
        }
    }
}

/// What a view of a dictionary shows.
pub(super) fn view(heap: &Heap, dict: &super::value::Dict, view: View) -> Outcome<Value> {
    let mut items = Items::new(heap)?;
    for (key, value) in dict.iter() {
        items.push(match view {
            View::Keys => key.clone(),
            View::Values => value.clone(),
            View::Items => heap.tuple(vec![key.clone(), value.clone()])?,
        })?;
    }
    Ok(Value::View(view, items.finish()?))
}
