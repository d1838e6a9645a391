//! The filters of what can be iterated over.

use std::cmp::Ordering;

use super::args::{Args, count, integer};
use super::arith::{self, Operator};
use super::budget::{Heap, Outcome, fail};
use super::exec::Interpreter;
use super::order::{self, equal};
use super::print::print;
use super::value::{Builder, Items, List, Missing, Table, Value};

/// Attributes of attributes, as filters take them: `"address.city"` or a number.
pub(super) struct Path {
    pub(super) parts: Vec<Value>,
    /// What stands for what is not there.
    pub(super) default: Option<Value>,
    pub(super) ignore_case: bool,
}

/// How long attributes of attributes may be.
const LONGEST_PATH: usize = 1000;

impl Path {
    fn new(heap: &Heap, attribute: Option<&Value>) -> Outcome<Path> {
        let mut parts = Vec::new();
        match attribute {
            None | Some(Value::None) => {}
            Some(Value::Str(text)) => {
                if text.as_str().len() > LONGEST_PATH {
                    return fail(format!("an attribute has more than {LONGEST_PATH} bytes"));
                }
                for part in text.as_str().split('.') {
                    heap.step(1)?;
                    let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                    parts.push(match part.parse() {
                        Ok(index) if digits => Value::Int(index),
                        _ => heap.str(part)?,
                    });
                }
            }
            Some(other) => parts.push(other.clone()),
        }
        Ok(Path {
            parts,
            default: None,
            ignore_case: false,
        })
    }
}

fn truth(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.truth())
}

impl<'a> Interpreter<'a> {
    pub(super) fn filter_sequence(
        &mut self,
        name: &str,
        value: &Value,
        args: Args,
    ) -> Outcome<Value> {
        let heap = self.heap.clone();
        match name {
            "list" => {
                args.nothing(name)?;
                Ok(Value::List(heap.iterate(value)?))
            }
            "first" => {
                args.nothing(name)?;
                let items = heap.iterate(value)?;
                if let (Value::Once(rest), 1..) = (value, items.len()) {
                    *rest.borrow_mut() = Some(heap.items(items.items()[1..].to_vec())?);
                }
                Ok(items
                    .items()
                    .first()
                    .cloned()
                    .unwrap_or(Value::Undefined(Missing::Item)))
            }
            "last" => {
                args.nothing(name)?;
                if let Value::Once(_) = value {
                    return fail("last: a generator has no last item, make a list of it");
                }
                let items = heap.iterate(value)?;
                Ok(items
                    .items()
                    .last()
                    .cloned()
                    .unwrap_or(Value::Undefined(Missing::Item)))
            }
            "reverse" => {
                args.nothing(name)?;
                if value.as_str().is_some() {
                    return heap.slice(value, [Value::None, Value::None, Value::Int(-1)]);
                }
                let mut items = Items::new(&heap)?;
                for item in heap.iterate(value)?.items().iter().rev() {
                    items.push(item.clone())?;
                }
                let items = items.finish()?;
                Ok(match value {
                    Value::Once(_) => Value::List(items),
                    _ => heap.once(items),
                })
            }
            "items" => {
                args.nothing(name)?;
                match value {
                    Value::Dict(dict) => Ok(heap.once(heap.iterate(&super::index::view(
                        &heap,
                        dict,
                        super::value::View::Items,
                    )?)?)),
                    Value::Undefined(_) => Ok(heap.once(heap.items(Vec::new())?)),
                    _ => fail("items: a dictionary is needed"),
                }
            }
            "attr" => {
                let [name] = args.bind("attr", ["name"], 1)?;
                match name {
                    Some(Value::Str(name)) => self.plain_attribute(value, name.as_str()),
                    _ => fail("attr: the name must be a text"),
                }
            }
            "join" => self.join(value, args),
            "map" => self.map(value, args),
            "select" | "reject" | "selectattr" | "rejectattr" => self.select(name, value, args),
            "sort" | "dictsort" => self.sort(name, value, args),
            "unique" => self.unique(value, args),
            "groupby" => self.group(value, args),
            "min" | "max" => self.extreme(name, value, args),
            "sum" => self.sum(value, args),
            _ => columns(&heap, name, value, args),
        }
    }

    fn join(&mut self, value: &Value, args: Args) -> Outcome<Value> {
        let [separator, attribute] = args.bind("join", ["d", "attribute"], 0)?;
        let heap = self.heap.clone();
        let separator = match separator {
            Some(separator) => heap.printed(&separator)?,
            None => heap.text("")?,
        };
        let path = Path::new(&heap, attribute.as_ref())?;
        let mut out = Builder::new(&heap)?;
        for (index, item) in heap.iterate(value)?.items().iter().enumerate() {
            if index > 0 {
                out.push(separator.as_str())?;
            }
            print(&mut out, &self.follow(item, &path)?)?;
        }
        Ok(Value::Str(out.finish()))
    }

    fn map(&mut self, value: &Value, mut args: Args) -> Outcome<Value> {
        let heap = self.heap.clone();
        let mut items = Items::new(&heap)?;
        // What is false has no items here, even where it cannot be iterated over.
        let source = match value.truth() {
            true => heap.iterate(value)?,
            false => heap.items(Vec::new())?,
        };
        let by_attribute = args.named.iter().any(|(name, _)| name == "attribute");
        if args.positional.is_empty() && by_attribute {
            // A default of none is no default.
            let [attribute, default] = args.bind("map", ["attribute", "default"], 1)?;
            let mut path = Path::new(&heap, attribute.as_ref())?;
            path.default = default.filter(|default| !matches!(default, Value::None));
            for item in source.items() {
                items.push(self.follow(item, &path)?)?;
            }
        } else {
            if args.positional.is_empty() {
                return fail("map needs the name of a filter, or an attribute");
            }
            let Value::Str(name) = args.positional.remove(0) else {
                return fail("map: the name of a filter must be a text");
            };
            for item in source.items() {
                let args = Args {
                    positional: args.positional.clone(),
                    named: args.named.clone(),
                };
                items.push(self.filter(name.as_str(), item, args)?)?;
            }
        }
        Ok(heap.once(items.finish()?))
    }

    fn select(&mut self, filter: &str, value: &Value, mut args: Args) -> Outcome<Value> {
        let heap = self.heap.clone();
        let mut path = Path::new(&heap, None)?;
        if filter.ends_with("attr") {
            if args.positional.is_empty() {
                return fail(format!("{filter} needs the name of an attribute"));
            }
            path = Path::new(&heap, Some(&args.positional.remove(0)))?;
        }
        let test = match args.positional.is_empty() {
            true => None,
            false => match args.positional.remove(0) {
                Value::Str(name) => Some(name),
                _ => return fail(format!("{filter}: the name of a test must be a text")),
            },
        };
        let wanted = filter.starts_with("select");
        let mut items = Items::new(&heap)?;
        if !value.truth() {
            return Ok(heap.once(items.finish()?));
        }
        for item in heap.iterate(value)?.items() {
            let found = self.follow(item, &path)?;
            let passes = match &test {
                None => found.truth(),
                Some(test) => {
                    let args = Args {
                        positional: args.positional.clone(),
                        named: args.named.clone(),
                    };
                    self.test(test.as_str(), &found, args)?
                }
            };
            if passes == wanted {
                items.push(item.clone())?;
            }
        }
        Ok(heap.once(items.finish()?))
    }

    /// The items with what they are sorted by, which is a list for each.
    fn keyed(&mut self, items: &List, paths: &[Path]) -> Outcome<Vec<(Value, Value)>> {
        let heap = self.heap.clone();
        let mut keyed = Vec::new();
        for item in items.items() {
            let keys: Outcome<Vec<Value>> =
                paths.iter().map(|path| self.follow(item, path)).collect();
            keyed.push((heap.list(keys?)?, item.clone()));
        }
        Ok(keyed)
    }

    fn sort(&mut self, name: &str, value: &Value, args: Args) -> Outcome<Value> {
        let heap = self.heap.clone();
        let (items, paths, reverse) = if name == "sort" {
            let names = ["reverse", "case_sensitive", "attribute"];
            let [reverse, case, attribute] = args.bind(name, names, 0)?;
            let case = truth(case);
            let mut paths = Vec::new();
            match attribute {
                Some(Value::Str(text)) => {
                    if text.as_str().len() > LONGEST_PATH {
                        return fail(format!(
                            "sort: an attribute has more than {LONGEST_PATH} bytes"
                        ));
                    }
                    for part in text.as_str().split(',') {
                        paths.push(Path::new(&heap, Some(&heap.str(part)?))?);
                    }
                }
                other => paths.push(Path::new(&heap, other.as_ref())?),
            }
            for path in &mut paths {
                path.ignore_case = !case;
            }
            (heap.iterate(value)?, paths, truth(reverse))
        } else {
            let names = ["case_sensitive", "by", "reverse"];
            let [case, by, reverse] = args.bind(name, names, 0)?;
            let place = match &by {
                None => 0,
                Some(by) if by.as_str() == Some("key") => 0,
                Some(by) if by.as_str() == Some("value") => 1,
                Some(_) => return fail("dictsort: by must be \"key\" or \"value\""),
            };
            let Value::Dict(dict) = value else {
                return fail(format!(
                    "dictsort: a dictionary is needed, not a {}",
                    value.type_name()
                ));
            };
            let mut path = Path::new(&heap, Some(&Value::Int(place)))?;
            path.ignore_case = !truth(case);
            let pairs = super::index::view(&heap, dict, super::value::View::Items)?;
            (heap.iterate(&pairs)?, vec![path], truth(reverse))
        };
        let _charge = heap.hold(items.len().saturating_mul(256))?;
        let mut keyed = self.keyed(&items, &paths)?;
        order::sort(&mut keyed, |a, b| {
            let (a, b) = if reverse { (b, a) } else { (a, b) };
            order::compare(&heap, &a.0, &b.0)
        })?;
        heap.list(keyed.into_iter().map(|(_, item)| item).collect())
    }

    fn unique(&mut self, value: &Value, args: Args) -> Outcome<Value> {
        let [case, attribute] = args.bind("unique", ["case_sensitive", "attribute"], 0)?;
        let heap = self.heap.clone();
        let mut path = Path::new(&heap, attribute.as_ref())?;
        path.ignore_case = !truth(case);
        let mut seen = Table::new(&heap)?;
        let mut items = Items::new(&heap)?;
        for item in heap.iterate(value)?.items() {
            let key = self.follow(item, &path)?;
            if seen.get(&key.key(&heap)?).is_none() {
                seen.insert(key, Value::None)?;
                items.push(item.clone())?;
            }
        }
        Ok(heap.once(items.finish()?))
    }

    fn group(&mut self, value: &Value, args: Args) -> Outcome<Value> {
        let names = ["attribute", "default", "case_sensitive"];
        let [attribute, default, case] = args.bind("groupby", names, 1)?;
        let heap = self.heap.clone();
        let mut path = Path::new(&heap, attribute.as_ref())?;
        path.default = default.filter(|default| !matches!(default, Value::None));
        path.ignore_case = !truth(case);
        let items = heap.iterate(value)?;
        let _charge = heap.hold(items.len().saturating_mul(256))?;
        let mut keyed = Vec::new();
        for item in items.items() {
            keyed.push((self.follow(item, &path)?, item.clone()));
        }
        order::sort(&mut keyed, |a, b| order::compare(&heap, &a.0, &b.0))?;
        path.ignore_case = false;
        let mut groups = Items::new(&heap)?;
        let mut rest = keyed.as_slice();
        while let Some((key, first)) = rest.first() {
            let mut members = Items::new(&heap)?;
            let mut len = 0;
            while let Some((other, item)) = rest.get(len) {
                if !equal(&heap, key, other)? {
                    break;
                }
                members.push(item.clone())?;
                len += 1;
            }
            // The name of the group is as its first item has it.
            let name = self.follow(first, &path)?;
            groups.push(heap.tuple(vec![name, Value::List(members.finish()?)])?)?;
            // A key that is not equal to itself is a group of its own.
            rest = &rest[len.max(1)..];
        }
        Ok(Value::List(groups.finish()?))
    }

    fn extreme(&mut self, name: &str, value: &Value, args: Args) -> Outcome<Value> {
        let [case, attribute] = args.bind(name, ["case_sensitive", "attribute"], 0)?;
        let heap = self.heap.clone();
        let mut path = Path::new(&heap, attribute.as_ref())?;
        path.ignore_case = !truth(case);
        let wanted = if name == "min" {
            Ordering::Less
        } else {
            Ordering::Greater
        };
        let mut best: Option<(Value, Value)> = None;
        for item in heap.iterate(value)?.items() {
            let key = self.follow(item, &path)?;
            let better = match &best {
                None => true,
                Some((other, _)) => order::compare(&heap, &key, other)? == wanted,
            };
            if better {
                best = Some((key, item.clone()));
            }
        }
        Ok(best.map_or(Value::Undefined(Missing::Item), |(_, item)| item))
    }

    fn sum(&mut self, value: &Value, args: Args) -> Outcome<Value> {
        let [attribute, start] = args.bind("sum", ["attribute", "start"], 0)?;
        let heap = self.heap.clone();
        let path = Path::new(&heap, attribute.as_ref())?;
        let mut total = start.unwrap_or(Value::Int(0));
        if total.as_str().is_some() {
            return fail("sum: texts cannot be added up, join them");
        }
        for item in heap.iterate(value)?.items() {
            let item = self.follow(item, &path)?;
            total = arith::operate(&heap, Operator::Add, &total, &item)?;
        }
        Ok(total)
    }
}

/// The filters `batch` and `slice`.
fn columns(heap: &Heap, name: &str, value: &Value, args: Args) -> Outcome<Value> {
    let first = if name == "batch" {
        "linecount"
    } else {
        "slices"
    };
    let [size, fill] = args.bind(name, [first, "fill_with"], 1)?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let items = heap.iterate(value)?;
    let items = items.items();
    let mut groups = Items::new(heap)?;
    let mut group = |part: &[Value], missing: usize| -> Outcome<()> {
        let mut members = Items::new(heap)?;
        members.extend(part)?;
        if let Some(fill) = &fill {
            for _ in 0..missing {
                members.push(fill.clone())?;
            }
        }
        groups.push(Value::List(members.finish()?))
    };
    if name == "batch" {
        let size = match usize::try_from(integer(name, size, 0)?) {
            // A row is begun before its length is looked at.
            Ok(0) => return fail("batch: the rows must hold at least one item"),
            size => size.unwrap_or(usize::MAX),
        };
        for part in items.chunks(size) {
            group(part, size - part.len())?;
        }
    } else {
        let slices = count(name, size, 0)?;
        if slices == 0 {
            return fail("slice: at least one slice is needed");
        }
        let (each, longer) = (items.len() / slices, items.len() % slices);
        let mut rest = items;
        for index in 0..slices {
            let len = each + usize::from(index < longer);
            let (part, others) = rest.split_at(len);
            group(part, usize::from(index >= longer))?;
            rest = others;
        }
    }
    Ok(heap.once(groups.finish()?))
}
