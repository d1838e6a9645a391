//! The values of templates: Python's, of which only namespaces, cyclers and joiners change.
//!
//! Lists and dictionaries cannot change because Jinja2's sandbox refuses the methods that would. So none
//! can hold itself, and how deeply they nest is known when they are made.

use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use indexmap::{Equivalent, IndexMap};

use super::budget::{Charge, Heap, Outcome, fail};
use super::function::Function;
use super::loops::Loop;

mod make;

pub(super) use make::{Builder, Items, Table};

/// A text.
#[derive(Clone, Debug)]
pub(super) struct Text(Rc<TextParts>);

#[derive(Debug)]
struct TextParts {
    text: String,
    ascii: bool,
    _charge: Charge,
}

impl Text {
    pub(super) fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Whether each character is one byte.
    pub(super) fn is_ascii(&self) -> bool {
        self.0.ascii
    }
}

/// The items of a list or tuple.
#[derive(Clone, Debug)]
pub(super) struct List(Rc<ListParts>);

#[derive(Debug)]
struct ListParts {
    items: Vec<Value>,
    nesting: u32,
    _charge: Charge,
}

impl List {
    pub(super) fn items(&self) -> &[Value] {
        &self.0.items
    }

    pub(super) fn len(&self) -> usize {
        self.0.items.len()
    }

    /// How deeply the items nest, with the list itself.
    pub(super) fn nesting(&self) -> u32 {
        self.0.nesting
    }

    pub(super) fn is(&self, other: &List) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// What a dictionary finds its entries by: equal for values that are equal in Python, such as 1, 1.0 and
/// True.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Undefined,
    None,
    Int(i128),
    /// The bits of a number that is no integer.
    Float(u64),
    Str(Text),
    Tuple(Vec<Key>),
}

/// Equal as texts are.
impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Key::Undefined => 1u8.hash(state),
            Key::None => 0u8.hash(state),
            Key::Int(value) => value.hash(state),
            Key::Float(bits) => bits.hash(state),
            Key::Str(text) => text.as_str().hash(state),
            Key::Tuple(keys) => keys.hash(state),
        }
    }
}

/// A text to find an entry by.
#[derive(Hash)]
struct Name<'name>(&'name str);

impl Equivalent<Key> for Name<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        matches!(key, Key::Str(text) if text.as_str() == self.0)
    }
}

/// The entries of a dictionary that is being made: keys as they were given, and values.
pub(super) type Entries = IndexMap<Key, (Value, Value)>;

/// A dictionary.
#[derive(Clone, Debug)]
pub(super) struct Dict(Rc<DictParts>);

#[derive(Debug)]
struct DictParts {
    entries: Entries,
    nesting: u32,
    _charge: Charge,
}

impl Dict {
    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.0.entries.get(key).map(|(_, value)| value)
    }

    pub(super) fn get_str(&self, key: &str) -> Option<&Value> {
        self.0.entries.get(&Name(key)).map(|(_, value)| value)
    }

    /// Keys and values, in the order in which they were added.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&Value, &Value)> {
        self.0.entries.values().map(|(key, value)| (key, value))
    }

    pub(super) fn keyed(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.0.entries.iter().map(|(key, (_, value))| (key, value))
    }

    pub(super) fn len(&self) -> usize {
        self.0.entries.len()
    }

    pub(super) fn is(&self, other: &Dict) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// `range(start, stop, step)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) start: i64,
    pub(super) step: i64,
    pub(super) len: usize,
}

impl Range {
    pub(super) fn at(&self, index: usize) -> i128 {
        i128::from(self.start) + i128::from(self.step) * index as i128
    }
}

/// What of a dictionary a view shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Keys,
    Values,
    Items,
}

/// Why a value is undefined.
#[derive(Clone, Debug)]
pub(super) enum Missing {
    /// A variable of this name.
    Variable(Rc<str>),
    /// An attribute of something, in a sentence.
    Attribute(Rc<str>),
    /// A parameter of this name that was not given.
    Parameter(Rc<str>),
    /// The value of an inline condition without `else`.
    Else,
    /// The first or last item of nothing.
    Item,
}

impl Missing {
    pub(super) fn variable(name: &str) -> Missing {
        Missing::Variable(shortened(name).into())
    }

    pub(super) fn sentence(&self) -> String {
        match self {
            Missing::Variable(name) => format!("'{name}' is undefined"),
            Missing::Attribute(sentence) => sentence.to_string(),
            Missing::Parameter(name) => format!("parameter '{name}' was not provided"),
            Missing::Else => {
                "the inline condition is false and no else section was defined".to_string()
            }
            Missing::Item => "there is no such item, the sequence is empty".to_string(),
        }
    }
}

/// A name as an error shows it.
pub(super) fn shortened(name: &str) -> String {
    match name.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_string(),
    }
}

/// A value that functions of a template give and take.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Undefined(Missing),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Text),
    /// Text that is marked as safe.
    Markup(Text),
    List(List),
    Tuple(List),
    Dict(Dict),
    View(View, List),
    Range(Range),
    /// What can be iterated over once, as Python's generators.
    Once(Rc<RefCell<Option<List>>>),
    /// A namespace, by its place among those of the rendering.
    Namespace(usize),
    /// A macro, by its place among those of the rendering.
    Macro(usize),
    Function(Function),
    /// A method of a value.
    Method(Rc<(Value, &'static str)>),
    Loop(Rc<Loop>),
    Cycler(Rc<(List, Cell<usize>)>),
    /// The separator of a `joiner`, and whether it was used.
    Joiner(Rc<(Text, Cell<bool>)>),
}

impl Value {
    /// The text of a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) | Value::Markup(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// The number of a boolean or integer.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Value::Bool(value) => Some(i128::from(*value)),
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn as_list(&self) -> Option<&List> {
        match self {
            Value::List(list) | Value::Tuple(list) => Some(list),
            _ => None,
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_))
    }

    /// Python's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Markup(_) => "Markup",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::View(View::Keys, _) => "dict_keys",
            Value::View(View::Values, _) => "dict_values",
            Value::View(View::Items, _) => "dict_items",
            Value::Range(_) => "range",
            Value::Once(_) => "generator",
            Value::Namespace(_) => "Namespace",
            Value::Macro(_) => "Macro",
            Value::Function(_) => "function",
            Value::Method(_) => "method",
            Value::Loop(_) => "LoopContext",
            Value::Cycler(_) => "Cycler",
            Value::Joiner(_) => "Joiner",
        }
    }

    /// Python's `bool(value)`.
    pub(super) fn truth(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Str(text) | Value::Markup(text) => !text.as_str().is_empty(),
            Value::List(list) | Value::Tuple(list) | Value::View(_, list) => list.len() > 0,
            Value::Dict(dict) => dict.len() > 0,
            Value::Range(range) => range.len > 0,
            _ => true,
        }
    }

    fn nesting(&self) -> u32 {
        match self {
            Value::List(list) | Value::Tuple(list) | Value::View(_, list) => list.nesting(),
            Value::Dict(dict) => dict.0.nesting,
            Value::Once(list) => list.borrow().as_ref().map_or(1, List::nesting),
            Value::Method(method) => method.0.nesting() + 1,
            Value::Loop(frame) => frame.nesting(),
            Value::Cycler(cycler) => cycler.0.nesting(),
            _ => 0,
        }
    }

    /// What a place for the value takes, with what it keeps alive without being charged.
    fn place(&self) -> usize {
        match self {
            Value::Undefined(_) | Value::Method(_) => 320,
            Value::Once(_) | Value::Cycler(_) | Value::Joiner(_) => 128,
            _ => 32,
        }
    }

    /// What a dictionary finds the value by.
    ///
    /// # Errors
    /// For what Python calls unhashable.
    pub(super) fn key(&self, heap: &Heap) -> Outcome<Key> {
        self.key_within(heap, &mut { LARGEST_KEY })
    }

    /// The key, of no more than `left` values, some of which may be there many times.
    fn key_within(&self, heap: &Heap, left: &mut usize) -> Outcome<Key> {
        heap.step(1)?;
        let Some(rest) = left.checked_sub(1) else {
            return fail(format!(
                "a key of more than {LARGEST_KEY} values is not supported"
            ));
        };
        *left = rest;
        Ok(match self {
            Value::Undefined(_) => Key::Undefined,
            Value::None => Key::None,
            Value::Bool(value) => Key::Int(i128::from(*value)),
            Value::Int(value) => Key::Int(*value),
            Value::Float(value) => match whole(*value) {
                Some(int) => Key::Int(int),
                None => Key::Float(value.to_bits()),
            },
            Value::Str(text) | Value::Markup(text) => {
                heap.touch(text.as_str().len())?;
                Key::Str(text.clone())
            }
            Value::Tuple(list) => {
                let keys = list.items().iter().map(|item| item.key_within(heap, left));
                Key::Tuple(keys.collect::<Outcome<_>>()?)
            }
            _ => {
                return fail(format!(
                    "unhashable type: '{}' cannot be a key",
                    self.type_name()
                ));
            }
        })
    }
}

/// How many values a key may have.
const LARGEST_KEY: usize = 1000;

impl Key {
    /// What the key takes besides its texts.
    fn size(&self) -> usize {
        match self {
            Key::Tuple(keys) => 48 + keys.iter().map(Key::size).sum::<usize>(),
            _ => 48,
        }
    }
}

/// The integer that a float is equal to.
pub(super) fn whole(value: f64) -> Option<i128> {
    // Above 2^126 a float may be no i128.
    (value.fract() == 0.0 && value.abs() < 8.5e37).then_some(value as i128)
}
