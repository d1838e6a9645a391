//! Jinja2 as Hugging Face's libraries run it on chat templates, which are code from strangers.
//!
//! The syntax is read by `minijinja`. Its values and its virtual machine are not used, for two reasons
//! that one evaluator answers. A template means what Python makes of it: how numbers and lists print, which
//! operands an operator takes, what the methods of strings do. And a template may use no more than it is
//! given: `minijinja` bounds how many instructions are run, while one instruction may take all memory, and
//! values that lie in each other deeply enough end the process when they are dropped. Bounding that from
//! outside would replace every operator, literal, filter and method, and so all that the machine does,
//! and a process of its own is nothing that a library can start safely in any program. What is left is
//! a walk over the syntax tree with values of its own, in which
//!
//! - each step is counted, and so is each byte that a step touches (`budget`);
//! - each text, list and dictionary is charged before it is made, and given back when it is dropped
//!   (`value`): the charge is a part of the value, so that none can be made without;
//! - lists and dictionaries do not change, as in Jinja2's sandbox, so that none can hold itself, and how
//!   deeply they nest is bounded when they are made. Namespaces, which change, are places in a table;
//! - the syntax is bounded in length and depth before the parser, which calls itself, sees it (`syntax`);
//! - nothing is there that is not written here: a filter, test, method or tag that is not is an error
//!   that names it.
//!
//! All of it runs on a thread of its own, with a stack that holds the deepest nesting that is allowed.
//! A panic there, which nothing is known to cause, is an error of the template.
//!
//! Python 3.11 and Jinja2 3.1 are what the golden files are made with (`tools/templates.py`).

mod args;
mod arith;
mod budget;
mod call;
mod eval;
mod exec;
mod filters;
mod format;
mod function;
mod index;
mod json;
mod loops;
mod macros;
mod mentions;
mod methods;
mod numbers;
mod order;
mod print;
mod sequences;
mod syntax;
mod tests;
mod text;
mod time;
mod value;

use std::thread;

use budget::{Fault, Heap, Limits, Outcome, fail};
use exec::Interpreter;
use mentions::Mentions;
use syntax::Source;

pub(super) use json::Json;

/// Holds `budget::MAX_DEPTH` levels of a template. It is address space: what is not reached takes no
/// memory.
const STACK: usize = 128 << 20;

/// How much of what went wrong is told, in characters.
const LONGEST_MESSAGE: usize = 240;

/// Whether a template uses a variable of this name.
///
/// # Errors
/// In one line, when it cannot be read.
pub(super) fn mentions(source: &str, name: &str) -> Result<bool, String> {
    apart(|| Ok(Mentions::name(&Source::new(source)?.parse()?, name)))
}

/// The text that a template makes of a context.
///
/// # Errors
/// In one line, when the template cannot be read, refuses the context, or uses more than it may.
pub(super) fn render(source: &str, context: &[(String, Json)]) -> Result<String, String> {
    apart(|| {
        let size: usize = context.iter().map(|(_, value)| json::size(value)).sum();
        let source = Source::new(source)?;
        let template = source.parse()?;
        Interpreter::new(Heap::new(Limits::new(size)), context)?.run(&template)
    })
}

/// Runs on a thread with a large stack.
fn apart<T: Send>(run: impl FnOnce() -> Outcome<T> + Send) -> Result<T, String> {
    let result = thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("chat-template".to_string())
            .stack_size(STACK)
            .spawn_scoped(scope, run);
        match thread.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => fail("it made the renderer panic, which is a fault of Walsh: report it"),
            Err(error) => fail(format!("no thread can be started to render it: {error}")),
        }
    });
    result.map_err(|fault| sentence(&fault))
}

/// A fault in one line of printable characters.
fn sentence(fault: &Fault) -> String {
    let mut out = String::new();
    for (index, word) in fault.message.split_whitespace().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        for c in word.chars() {
            match print::printable(c) {
                true => out.push(c),
                false => out.extend(c.escape_unicode()),
            }
        }
        if out.chars().count() > LONGEST_MESSAGE {
            out = out.chars().take(LONGEST_MESSAGE).collect::<String>() + "…";
            break;
        }
    }
    match fault.line {
        Some(line) => format!("line {line}: {out}"),
        None => out,
    }
}
