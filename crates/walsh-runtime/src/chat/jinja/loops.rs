//! What a template knows of the loop that it is in.

use std::cell::{Cell, RefCell};

use super::value::{List, Missing, Value};

/// A running loop.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) items: List,
    pub(super) index: Cell<usize>,
    depth: usize,
    /// What `loop.changed` was last called with.
    pub(super) seen: RefCell<Option<List>>,
    /// The loop's place among those that call themselves.
    pub(super) recursion: Option<usize>,
}

/// The methods and attributes of a loop.
const METHODS: [&str; 2] = ["cycle", "changed"];

impl Loop {
    pub(super) fn new(items: List, depth: usize, recursion: Option<usize>) -> Loop {
        Loop {
            items,
            index: Cell::new(0),
            depth,
            seen: RefCell::new(None),
            recursion,
        }
    }

    pub(super) fn go_to(&self, index: usize) {
        self.index.set(index);
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// How deep a value is that holds the loop.
    pub(super) fn nesting(&self) -> u32 {
        self.items.nesting()
    }

    /// Ends the loop: what it remembers may hold the loop itself.
    pub(super) fn end(&self) {
        self.seen.take();
    }

    /// An attribute of `loop`, or `None` when it has none of this name.
    pub(super) fn attribute(&self, name: &str) -> Option<Value> {
        let (index, len) = (self.index.get(), self.items.len());
        let number = |value: usize| Value::Int(value as i128);
        let item = |index: Option<usize>| {
            let item = index.and_then(|index| self.items.items().get(index));
            item.cloned().unwrap_or(Value::Undefined(Missing::Item))
        };
        Some(match name {
            "index" => number(index + 1),
            "index0" => number(index),
            "revindex" => number(len - index),
            "revindex0" => number(len - index - 1),
            "first" => Value::Bool(index == 0),
            "last" => Value::Bool(index + 1 == len),
            "length" => number(len),
            "depth" => number(self.depth),
            "depth0" => number(self.depth - 1),
            "previtem" => item(index.checked_sub(1)),
            "nextitem" => item(Some(index + 1)),
            _ => return None,
        })
    }

    pub(super) fn method(name: &str) -> Option<&'static str> {
        METHODS.into_iter().find(|method| *method == name)
    }
}
