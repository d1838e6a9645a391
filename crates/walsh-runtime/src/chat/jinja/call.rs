//! What is called: functions, macros, loops and methods.

use std::cell::Cell;
use std::rc::Rc;

use super::args::{Args, integer};
use super::budget::{Heap, Outcome, fail};
use super::exec::Interpreter;
use super::function::Function;
use super::loops::Loop;
use super::order::equal;
use super::time;
use super::value::{Range, Table, Value};

impl<'a> Interpreter<'a> {
    /// Calls a value.
    pub(super) fn call(&mut self, callee: &Value, args: Args) -> Outcome<Value> {
        match callee {
            Value::Function(function) => self.call_function(*function, args),
            Value::Method(method) => self.call_method(&method.0, method.1, args),
            Value::Macro(index) => self.call_macro(*index, args),
            Value::Loop(frame) => self.call_loop(frame, args.one("loop")?),
            Value::Joiner(joiner) => {
                args.nothing("joiner")?;
                match joiner.1.replace(true) {
                    true => Ok(Value::Str(joiner.0.clone())),
                    false => self.heap.str(""),
                }
            }
            Value::Undefined(missing) => fail(missing.sentence()),
            _ => fail(format!(
                "a value of type {} cannot be called",
                callee.type_name()
            )),
        }
    }

    fn call_function(&mut self, function: Function, args: Args) -> Outcome<Value> {
        match function {
            Function::Range => range(args),
            Function::Dict => Ok(dictionary(&self.heap, "dict", args)?.finish()?),
            Function::Namespace => {
                let table = dictionary(&self.heap, "namespace", args)?;
                self.new_namespace(table)
            }
            Function::Cycler => {
                if args.positional.is_empty() || !args.named.is_empty() {
                    return fail("cycler needs at least one item, and takes no names");
                }
                let items = self.heap.items(args.positional)?;
                Ok(Value::Cycler(Rc::new((items, Cell::new(0)))))
            }
            Function::Joiner => {
                let [separator] = args.bind("joiner", ["sep"], 0)?;
                let separator = match separator {
                    None => self.heap.text(", ")?,
                    Some(Value::Str(text)) => text,
                    Some(_) => return fail("joiner: the separator must be a text"),
                };
                Ok(Value::Joiner(Rc::new((separator, Cell::new(false)))))
            }
            Function::RaiseException => {
                let [message] = args.bind("raise_exception", ["message"], 1)?;
                let message = self.heap.printed(&message.unwrap_or(Value::None))?;
                fail(message.as_str().chars().take(400).collect::<String>())
            }
            Function::StrftimeNow => {
                let [format] = args.bind("strftime_now", ["format"], 1)?;
                match format {
                    Some(Value::Str(format)) => time::now(&self.heap, format.as_str()),
                    _ => fail("strftime_now: the format must be a text"),
                }
            }
        }
    }
}

/// What Jinja2's sandbox allows.
const LONGEST_RANGE: i128 = 100_000;

fn range(args: Args) -> Outcome<Value> {
    let [first, second, step] = args.bind("range", ["", "", ""], 1)?;
    let first = integer("range", first, 0)?;
    let step = integer("range", step, 1)?;
    let (start, stop) = match second {
        None => (0, first),
        second => (first, integer("range", second, 0)?),
    };
    if step == 0 {
        return fail("range: the step must not be 0");
    }
    let small =
        |value: i128| i64::try_from(value).is_ok_and(|value| value.unsigned_abs() < 1 << 62);
    if ![start, stop, step].into_iter().all(small) {
        return fail("range: the numbers are too large");
    }
    let len = if step > 0 {
        (stop - start + step - 1).div_euclid(step)
    } else {
        (start - stop - step - 1).div_euclid(-step)
    };
    let len = len.max(0);
    if len > LONGEST_RANGE {
        return fail(format!(
            "range: more than {LONGEST_RANGE} numbers are not allowed"
        ));
    }
    Ok(Value::Range(Range {
        start: start as i64,
        step: step as i64,
        len: len as usize,
    }))
}

/// The entries that `dict(...)` makes: of a dictionary or of pairs, then of the names.
fn dictionary(heap: &Heap, function: &str, args: Args) -> Outcome<Table> {
    let mut table = Table::new(heap)?;
    match args.positional.as_slice() {
        [] => {}
        [Value::Dict(dict)] => {
            for (key, value) in dict.iter() {
                table.insert(key.clone(), value.clone())?;
            }
        }
        [pairs] => {
            for pair in heap.iterate(pairs)?.items() {
                let pair = heap.iterate(pair)?;
                let [key, value] = pair.items() else {
                    return fail(format!("{function}: pairs of a key and a value are needed"));
                };
                table.insert(key.clone(), value.clone())?;
            }
        }
        _ => {
            return fail(format!(
                "{function} takes at most 1 argument without a name"
            ));
        }
    }
    for (name, value) in args.named {
        table.insert_str(&name, value)?;
    }
    Ok(table)
}

impl Loop {
    /// Calls a method of `loop`.
    pub(super) fn call(&self, heap: &Heap, method: &str, args: Args) -> Outcome<Value> {
        if !args.named.is_empty() {
            return fail(format!("loop.{method} takes no names"));
        }
        let values = heap.items(args.positional)?;
        if method == "cycle" {
            return match values.items() {
                [] => fail("loop.cycle needs at least one item"),
                items => Ok(items[self.index.get() % items.len()].clone()),
            };
        }
        let same = match &*self.seen.borrow() {
            Some(seen) if seen.len() == values.len() => {
                let mut same = true;
                for (a, b) in seen.items().iter().zip(values.items()) {
                    same = same && equal(heap, a, b)?;
                }
                same
            }
            _ => false,
        };
        *self.seen.borrow_mut() = Some(values);
        Ok(Value::Bool(!same))
    }
}
