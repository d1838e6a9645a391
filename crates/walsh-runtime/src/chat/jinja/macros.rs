//! Macros, and the bodies of call blocks, which are macros too.

use minijinja::machinery::ast::{self, Expr};

use super::args::Args;
use super::budget::{Outcome, fail};
use super::exec::{Interpreter, ScopeRef};
use super::value::{Missing, Table, Value, shortened};

/// A macro and the scope that it was made in, whose variables it sees.
pub(super) struct Macro<'a> {
    of: &'a ast::Macro<'a>,
    scope: ScopeRef,
    _charge: super::budget::Charge,
}

impl<'a> Interpreter<'a> {
    /// Makes a macro.
    pub(super) fn define(&mut self, of: &'a ast::Macro<'a>) -> Outcome<Value> {
        self.macros.push(Macro {
            of,
            scope: self.scope(),
            _charge: self.heap.hold(64)?,
        });
        Ok(Value::Macro(self.macros.len() - 1))
    }

    pub(super) fn macro_name(&self, place: usize) -> Outcome<Value> {
        match self.macros.get(place) {
            Some(found) => self.heap.str(found.of.name),
            None => fail("there is no such macro"),
        }
    }

    /// The text that a macro writes.
    pub(super) fn call_macro(&mut self, place: usize, args: Args) -> Outcome<Value> {
        let Some((of, scope)) = self.macros.get(place).map(|found| (found.of, found.scope)) else {
            return fail("there is no such macro");
        };
        let around = self.check_scope(scope)?;
        self.heap.enter()?;
        self.push_scope(Some(around))?;
        self.bind_macro(of, args)?;
        let text = self.capture(|this| this.body(&of.body).map(|_| ()))?;
        self.pop_scope();
        self.heap.leave();
        Ok(Value::Str(text))
    }

    /// Makes variables of the arguments.
    fn bind_macro(&mut self, of: &'a ast::Macro<'a>, args: Args) -> Outcome<()> {
        let name = shortened(of.name);
        let mentions = self.mentioned(&of.body);
        let mut named = args.named;
        let mut positional = args.positional.into_iter();
        let mut explicit_caller = false;
        for (index, parameter) in of.args.iter().enumerate() {
            let Expr::Var(parameter) = parameter else {
                return fail(format!("macro {name} has a parameter that is no name"));
            };
            let parameter = parameter.id;
            explicit_caller |= parameter == "caller";
            let by_name = |named: &mut Vec<(String, Value)>| {
                let place = named.iter().position(|(name, _)| name == parameter)?;
                Some(named.remove(place).1)
            };
            let first_default = of.args.len() - of.defaults.len();
            let value = match positional.next().or_else(|| by_name(&mut named)) {
                Some(value) => value,
                None => match index
                    .checked_sub(first_default)
                    .and_then(|at| of.defaults.get(at))
                {
                    Some(default) => self.eval(default)?,
                    None => Value::Undefined(Missing::Parameter(shortened(parameter).into())),
                },
            };
            self.assign(parameter, value)?;
        }
        if mentions.caller && !explicit_caller {
            let caller = named.iter().position(|(name, _)| name == "caller");
            let caller = match caller {
                Some(place) => named.remove(place).1,
                None => Value::Undefined(Missing::variable("caller")),
            };
            self.assign("caller", caller)?;
        }
        if mentions.kwargs {
            let mut table = Table::new(&self.heap)?;
            for (name, value) in named {
                table.insert_str(&name, value)?;
            }
            self.assign("kwargs", table.finish()?)?;
        } else if let Some((unknown, _)) = named.first() {
            let unknown = shortened(unknown);
            return fail(format!("macro {name} takes no argument {unknown}"));
        }
        if mentions.varargs {
            let rest = self.heap.tuple(positional.collect())?;
            self.assign("varargs", rest)?;
        } else if positional.next().is_some() {
            return fail(format!(
                "macro {name} takes no more than {} arguments",
                of.args.len()
            ));
        }
        Ok(())
    }
}
