//! How values on the heap are made: charged as they grow.

use std::cell::RefCell;
use std::rc::Rc;

use super::super::budget::{Charge, Heap, MAX_NESTING, Outcome, fail};
use super::{Dict, DictParts, Entries, Key, List, ListParts, Text, TextParts, Value};

/// A text that is being written. What it holds is charged as it grows.
pub(in super::super) struct Builder {
    text: String,
    charge: Charge,
}

/// What a value on the heap takes besides its contents.
const OVERHEAD: usize = 64;

impl Builder {
    pub(in super::super) fn new(heap: &Heap) -> Outcome<Builder> {
        Ok(Builder {
            text: String::new(),
            charge: heap.hold(OVERHEAD)?,
        })
    }

    pub(in super::super) fn push(&mut self, text: &str) -> Outcome<()> {
        // A call is some work, however short the text is.
        self.charge.heap().touch(8)?;
        self.charge.grow(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    pub(in super::super) fn push_char(&mut self, c: char) -> Outcome<()> {
        self.push(c.encode_utf8(&mut [0; 4]))
    }

    /// `text`, `times` times.
    pub(in super::super) fn repeat(&mut self, text: &str, times: usize) -> Outcome<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.charge.grow(text.len().saturating_mul(times))?;
        self.text.extend(std::iter::repeat_n(text, times));
        Ok(())
    }

    pub(in super::super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(in super::super) fn len(&self) -> usize {
        self.text.len()
    }

    pub(in super::super) fn heap(&self) -> &Heap {
        self.charge.heap()
    }

    pub(in super::super) fn finish(self) -> Text {
        Text(Rc::new(TextParts {
            ascii: self.text.is_ascii(),
            text: self.text,
            _charge: self.charge,
        }))
    }

    pub(in super::super) fn into_string(self) -> String {
        self.text
    }
}

impl Heap {
    pub(in super::super) fn text(&self, text: &str) -> Outcome<Text> {
        let mut builder = Builder::new(self)?;
        builder.push(text)?;
        Ok(builder.finish())
    }

    pub(in super::super) fn str(&self, text: &str) -> Outcome<Value> {
        Ok(Value::Str(self.text(text)?))
    }

    /// A new list of items. The memory of `items` itself is the caller's until then: where it may be
    /// large, `Items` charges it as it grows.
    pub(in super::super) fn items(&self, items: Vec<Value>) -> Outcome<List> {
        let mut building = Items::new(self)?;
        for item in items {
            building.push(item)?;
        }
        building.finish()
    }

    pub(in super::super) fn list(&self, items: Vec<Value>) -> Outcome<Value> {
        Ok(Value::List(self.items(items)?))
    }

    pub(in super::super) fn tuple(&self, items: Vec<Value>) -> Outcome<Value> {
        Ok(Value::Tuple(self.items(items)?))
    }

    /// What is iterated over once.
    pub(in super::super) fn once(&self, items: List) -> Value {
        Value::Once(Rc::new(RefCell::new(Some(items))))
    }

    pub(in super::super) fn method(&self, value: &Value, name: &'static str) -> Outcome<Value> {
        if value.nesting() >= MAX_NESTING {
            return fail("values are nested too deeply");
        }
        Ok(Value::Method(Rc::new((value.clone(), name))))
    }
}

/// A list that is being made, charged as it grows.
pub(in super::super) struct Items {
    items: Vec<Value>,
    nesting: u32,
    charge: Charge,
}

impl Items {
    pub(in super::super) fn new(heap: &Heap) -> Outcome<Items> {
        Ok(Items {
            items: Vec::new(),
            nesting: 0,
            charge: heap.hold(OVERHEAD)?,
        })
    }

    pub(in super::super) fn push(&mut self, item: Value) -> Outcome<()> {
        self.charge.grow(item.place())?;
        self.nesting = self.nesting.max(item.nesting());
        self.items.push(item);
        Ok(())
    }

    pub(in super::super) fn extend(&mut self, items: &[Value]) -> Outcome<()> {
        items.iter().try_for_each(|item| self.push(item.clone()))
    }

    pub(in super::super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(in super::super) fn reverse(&mut self) {
        self.items.reverse();
    }

    pub(in super::super) fn finish(self) -> Outcome<List> {
        Ok(List(Rc::new(ListParts {
            nesting: deeper(self.nesting)?,
            items: self.items,
            _charge: self.charge,
        })))
    }
}

/// A dictionary that is being made, charged as it grows.
pub(in super::super) struct Table {
    entries: Entries,
    nesting: u32,
    charge: Charge,
}

impl Table {
    pub(in super::super) fn new(heap: &Heap) -> Outcome<Table> {
        Ok(Table {
            entries: Entries::new(),
            nesting: 0,
            charge: heap.hold(OVERHEAD)?,
        })
    }

    /// Adds an entry, or gives one that is there another value.
    pub(in super::super) fn insert(&mut self, key: Value, value: Value) -> Outcome<()> {
        let found_by = key.key(self.charge.heap())?;
        self.charge.grow(found_by.size() + 112 + value.place())?;
        self.nesting = self.nesting.max(value.nesting()).max(key.nesting());
        match self.entries.entry(found_by) {
            indexmap::map::Entry::Occupied(mut entry) => entry.get_mut().1 = value,
            indexmap::map::Entry::Vacant(entry) => {
                entry.insert((key, value));
            }
        }
        Ok(())
    }

    pub(in super::super) fn insert_str(&mut self, key: &str, value: Value) -> Outcome<()> {
        let key = self.charge.heap().str(key)?;
        self.insert(key, value)
    }

    pub(in super::super) fn get(&self, key: &Key) -> Option<&Value> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(in super::super) fn iter(&self) -> impl Iterator<Item = (&Value, &Value)> {
        self.entries.values().map(|(key, value)| (key, value))
    }

    pub(in super::super) fn finish(self) -> Outcome<Value> {
        Ok(Value::Dict(Dict(Rc::new(DictParts {
            nesting: deeper(self.nesting)?,
            entries: self.entries,
            _charge: self.charge,
        }))))
    }
}

fn deeper(nesting: u32) -> Outcome<u32> {
    if nesting >= MAX_NESTING {
        return fail(format!(
            "lists and dictionaries are nested more than {MAX_NESTING} deep"
        ));
    }
    Ok(nesting + 1)
}
