//! Runs the statements of a template.

use std::collections::HashMap;
use std::rc::Rc;

use minijinja::machinery::ast::{self, Expr, Stmt};

use super::budget::{Charge, Fault, Heap, Outcome, fail};
use super::json::Json;
use super::loops::Loop;
use super::macros::Macro;
use super::mentions::Mentions;
use super::print::print;
use super::syntax::GENERATION;
use super::value::{Builder, Items, List, Table, Text, Value, shortened};

/// How a statement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

/// The variables of a block.
struct Scope<'a> {
    variables: HashMap<&'a str, Value>,
    /// The block around it, by its place.
    parent: Option<usize>,
    /// Told apart from the scopes that had the same place before.
    serial: u64,
    charge: Charge,
}

/// A place in the stack of scopes, which may be another's by now.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScopeRef {
    place: usize,
    serial: u64,
}

/// What `{% set space.name = ... %}` writes to.
struct Namespace {
    attributes: HashMap<String, Value>,
    charge: Charge,
}

/// A loop that calls itself.
#[derive(Clone, Copy)]
struct Recursion<'a> {
    of: &'a ast::ForLoop<'a>,
    scope: ScopeRef,
}

/// A template that runs.
pub(super) struct Interpreter<'a> {
    pub(super) heap: Heap,
    scopes: Vec<Scope<'a>>,
    serials: u64,
    pub(super) macros: Vec<Macro<'a>>,
    recursions: Vec<Recursion<'a>>,
    namespaces: Vec<Namespace>,
    /// What bodies mention, by where they lie.
    mentions: HashMap<usize, Mentions<'static>>,
    out: Builder,
}

impl<'a> Interpreter<'a> {
    /// An interpreter with the variables of `context`.
    pub(super) fn new(heap: Heap, context: &'a [(String, Json)]) -> Outcome<Self> {
        let out = Builder::new(&heap)?;
        let mut interpreter = Interpreter {
            heap,
            scopes: Vec::new(),
            serials: 0,
            macros: Vec::new(),
            recursions: Vec::new(),
            namespaces: Vec::new(),
            mentions: HashMap::new(),
            out,
        };
        interpreter.push_scope(None)?;
        for (name, value) in context {
            let value = interpreter.heap.value(value)?;
            interpreter.assign(name, value)?;
        }
        Ok(interpreter)
    }

    /// The text of a template.
    pub(super) fn run(mut self, template: &'a Stmt<'a>) -> Outcome<String> {
        let Stmt::Template(template) = template else {
            return fail("it is no template");
        };
        self.body(&template.children)?;
        Ok(self.out.into_string())
    }

    pub(super) fn body(&mut self, body: &'a [Stmt<'a>]) -> Outcome<Flow> {
        for statement in body {
            self.heap.step(1)?;
            self.heap.enter()?;
            let flow = self.statement(statement)?;
            self.heap.leave();
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &'a Stmt<'a>) -> Outcome<Flow> {
        match statement {
            Stmt::EmitRaw(raw) => self.emit(raw.raw)?,
            Stmt::EmitExpr(emit) => {
                let value = self.eval(&emit.expr)?;
                self.emit_value(&value)
                    .map_err(|fault| fault.at(line(emit.span())))?;
            }
            Stmt::IfCond(branch) => return self.branch(branch),
            Stmt::ForLoop(of) => {
                let items = self.eval(&of.iter)?;
                let at = |fault: Fault| fault.at(line(of.span()));
                let items = self.heap.iterate(&items).map_err(at)?;
                let recursion = of.recursive.then(|| {
                    let scope = self.scope();
                    self.recursions.push(Recursion { of, scope });
                    self.recursions.len() - 1
                });
                self.each(of, items, Loop::new, (1, recursion))
                    .map_err(at)?;
                if recursion.is_some() {
                    self.recursions.pop();
                }
            }
            Stmt::Set(set) => {
                let value = self.eval(&set.expr)?;
                self.assign_to(&set.target, value)
                    .map_err(|fault| fault.at(line(set.span())))?;
            }
            Stmt::SetBlock(set) => {
                let text = Value::Str(self.captured(&set.body)?);
                let value = match &set.filter {
                    Some(filter) => self.filtered(filter, text)?,
                    None => text,
                };
                self.assign_to(&set.target, value)
                    .map_err(|fault| fault.at(line(set.span())))?;
            }
            Stmt::FilterBlock(of) => {
                let text = Value::Str(self.captured(&of.body)?);
                let value = self.filtered(&of.filter, text)?;
                self.emit_value(&value)?;
            }
            Stmt::WithBlock(with) => {
                // The values do not see the new variables.
                let mut values = Vec::new();
                for (target, value) in &with.assignments {
                    values.push((target, self.eval(value)?));
                }
                self.push_scope(Some(self.scope().place))?;
                for (target, value) in values {
                    self.assign_to(target, value)
                        .map_err(|fault| fault.at(line(with.span())))?;
                }
                let flow = self.body(&with.body)?;
                self.pop_scope();
                return Ok(flow);
            }
            Stmt::AutoEscape(of) => {
                if self.eval(&of.enabled)?.truth() {
                    return fail("autoescape is not supported")
                        .map_err(|fault: Fault| fault.at(line(of.span())));
                }
                return self.scoped(&of.body);
            }
            Stmt::Macro(of) => {
                let value = self.define(of)?;
                self.assign(of.name, value)?;
            }
            Stmt::CallBlock(of) => {
                if matches!(&of.call.expr, Expr::Var(var) if var.id == GENERATION) {
                    return self.scoped(&of.macro_decl.body);
                }
                let callee = self.eval(&of.call.expr)?;
                let mut args = self.args(&of.call.args)?;
                args.named
                    .push(("caller".to_string(), self.define(&of.macro_decl)?));
                let value = self
                    .call(&callee, args)
                    .map_err(|fault| fault.at(line(of.span())))?;
                self.emit_value(&value)?;
            }
            Stmt::Block(of) => {
                if self.scopes.len() > 1 {
                    return fail("a block inside of another is not supported")
                        .map_err(|fault: Fault| fault.at(line(of.span())));
                }
                return self.scoped(&of.body);
            }
            Stmt::Break(_) => return Ok(Flow::Break),
            Stmt::Continue(_) => return Ok(Flow::Continue),
            Stmt::Import(_) | Stmt::FromImport(_) | Stmt::Extends(_) | Stmt::Include(_) => {
                return fail("it asks for another template, and there is none");
            }
            Stmt::Template(_) | Stmt::Do(_) => {
                return fail("it has a statement that is not supported");
            }
        }
        Ok(Flow::Next)
    }

    fn branch(&mut self, branch: &'a ast::IfCond<'a>) -> Outcome<Flow> {
        let mut branch = branch;
        loop {
            if self.eval(&branch.expr)?.truth() {
                return self.body(&branch.true_body);
            }
            match branch.false_body.as_slice() {
                // An `elif` is a branch in a branch.
                [Stmt::IfCond(next)] => branch = next,
                body => return self.body(body),
            }
        }
    }

    /// Runs a loop over items. `begin` makes the loop of `depth` and place.
    fn each(
        &mut self,
        of: &'a ast::ForLoop<'a>,
        mut items: List,
        begin: impl FnOnce(List, usize, Option<usize>) -> Loop,
        (depth, recursion): (usize, Option<usize>),
    ) -> Outcome<()> {
        let around = match recursion {
            Some(place) => self.recursions[place].scope.place,
            None => self.scope().place,
        };
        // A filter sees what earlier rounds did, unless the loop must know how many rounds there are.
        let counted = self.mentioned(&of.body).this_loop;
        if let (true, Some(filter)) = (counted, &of.filter_expr) {
            let mut kept = Items::new(&self.heap)?;
            for item in items.items() {
                self.push_scope(Some(around))?;
                self.assign_to(&of.target, item.clone())?;
                if self.eval(filter)?.truth() {
                    kept.push(item.clone())?;
                }
                self.pop_scope();
            }
            items = kept.finish()?;
        }
        let frame = Rc::new(begin(items.clone(), depth, recursion));
        let result = self.rounds(of, &items, &frame, (around, counted));
        frame.end();
        if !result? {
            self.push_scope(Some(around))?;
            self.body(&of.else_body)?;
            self.pop_scope();
        }
        Ok(())
    }

    /// Runs the rounds of a loop; whether one came to its end, without which `else` runs.
    fn rounds(
        &mut self,
        of: &'a ast::ForLoop<'a>,
        items: &List,
        frame: &Rc<Loop>,
        (around, counted): (usize, bool),
    ) -> Outcome<bool> {
        let mut any = false;
        for (index, item) in items.items().iter().enumerate() {
            self.heap.step(1)?;
            frame.go_to(index);
            self.push_scope(Some(around))?;
            self.assign_to(&of.target, item.clone())?;
            let skip = match &of.filter_expr {
                Some(filter) if !counted => !self.eval(filter)?.truth(),
                _ => false,
            };
            let mut flow = Flow::Next;
            if !skip {
                if counted {
                    self.assign("loop", Value::Loop(frame.clone()))?;
                }
                flow = self.body(&of.body)?;
                // Only a round that comes to its end counts.
                any |= flow == Flow::Next;
            }
            self.pop_scope();
            if flow == Flow::Break {
                break;
            }
        }
        Ok(any)
    }

    /// `loop(items)` of a loop that is recursive.
    pub(super) fn call_loop(&mut self, frame: &Loop, items: Value) -> Outcome<Value> {
        let Some(place) = frame.recursion else {
            return fail("the loop must be recursive to be called");
        };
        let Some(recursion) = self.recursions.get(place).copied() else {
            return fail("a loop is called after its end");
        };
        self.check_scope(recursion.scope)?;
        let items = self.heap.iterate(&items)?;
        let depth = frame.depth() + 1;
        let text =
            self.capture(|this| this.each(recursion.of, items, Loop::new, (depth, Some(place))))?;
        Ok(Value::Str(text))
    }

    /// Runs a body with variables of its own.
    fn scoped(&mut self, body: &'a [Stmt<'a>]) -> Outcome<Flow> {
        self.push_scope(Some(self.scope().place))?;
        let flow = self.body(body)?;
        self.pop_scope();
        Ok(flow)
    }

    /// The text of a body with variables of its own.
    fn captured(&mut self, body: &'a [Stmt<'a>]) -> Outcome<Text> {
        self.capture(|this| this.scoped(body).map(|_| ()))
    }

    /// The text that something writes.
    pub(super) fn capture(
        &mut self,
        write: impl FnOnce(&mut Self) -> Outcome<()>,
    ) -> Outcome<Text> {
        let inner = Builder::new(&self.heap)?;
        let outer = std::mem::replace(&mut self.out, inner);
        let result = write(self);
        let inner = std::mem::replace(&mut self.out, outer);
        result.map(|()| inner.finish())
    }

    fn emit(&mut self, text: &str) -> Outcome<()> {
        self.out.push(text)?;
        self.check_output()
    }

    fn emit_value(&mut self, value: &Value) -> Outcome<()> {
        print(&mut self.out, value)?;
        self.check_output()
    }

    fn check_output(&self) -> Outcome<()> {
        let most = self.heap.limits().output();
        if self.out.len() > most {
            return fail(format!("it writes more than {most} bytes"));
        }
        Ok(())
    }

    pub(super) fn mentioned(&mut self, body: &'a [Stmt<'a>]) -> Mentions<'static> {
        let place = body.as_ptr() as usize;
        *self
            .mentions
            .entry(place)
            .or_insert_with(|| Mentions::of(body))
    }

    /// The scope that runs.
    pub(super) fn scope(&self) -> ScopeRef {
        let place = self.scopes.len().saturating_sub(1);
        ScopeRef {
            place,
            serial: self.scopes.get(place).map_or(0, |scope| scope.serial),
        }
    }

    /// Fails if the scope has ended.
    pub(super) fn check_scope(&self, scope: ScopeRef) -> Outcome<usize> {
        match self.scopes.get(scope.place) {
            Some(there) if there.serial == scope.serial => Ok(scope.place),
            _ => fail("a macro or loop is called outside of the block that it was made in"),
        }
    }

    pub(super) fn push_scope(&mut self, parent: Option<usize>) -> Outcome<()> {
        self.serials += 1;
        self.scopes.push(Scope {
            variables: HashMap::new(),
            parent,
            serial: self.serials,
            charge: self.heap.hold(128)?,
        });
        Ok(())
    }

    pub(super) fn pop_scope(&mut self) {
        self.scopes.pop();
    }

    pub(super) fn assign(&mut self, name: &'a str, value: Value) -> Outcome<()> {
        let Some(scope) = self.scopes.last_mut() else {
            return fail("there is no scope");
        };
        if scope.variables.insert(name, value).is_none() {
            scope.charge.grow(96)?;
        }
        Ok(())
    }

    fn assign_to(&mut self, target: &'a Expr<'a>, value: Value) -> Outcome<()> {
        match target {
            Expr::Var(var) => self.assign(var.id, value),
            Expr::List(targets) => {
                let items = self.heap.iterate(&value)?;
                if items.len() != targets.items.len() {
                    return fail(format!(
                        "{} names are given for {} values",
                        targets.items.len(),
                        items.len()
                    ));
                }
                for (target, item) in targets.items.iter().zip(items.items()) {
                    self.assign_to(target, item.clone())?;
                }
                Ok(())
            }
            Expr::GetAttr(attribute) => match (&attribute.expr, self.eval(&attribute.expr)?) {
                (Expr::Var(_), Value::Namespace(place)) => {
                    self.set_attribute(place, attribute.name, value)
                }
                _ => fail("cannot assign attribute on non-namespace object"),
            },
            _ => fail("something is assigned to that is no variable"),
        }
    }

    /// The variable of a name, in the blocks around.
    pub(super) fn variable(&self, name: &str) -> Option<&Value> {
        let mut place = self.scopes.len().checked_sub(1);
        while let Some(scope) = place.and_then(|place| self.scopes.get(place)) {
            if let Some(value) = scope.variables.get(name) {
                return Some(value);
            }
            place = scope.parent;
        }
        None
    }

    pub(super) fn new_namespace(&mut self, table: Table) -> Outcome<Value> {
        let place = self.namespaces.len();
        self.namespaces.push(Namespace {
            attributes: HashMap::new(),
            charge: self.heap.hold(256)?,
        });
        for (key, value) in table.iter() {
            match key.as_str() {
                Some(name) => self.set_attribute(place, name, value.clone())?,
                None => return fail("namespace: the names must be texts"),
            }
        }
        Ok(Value::Namespace(place))
    }

    fn set_attribute(&mut self, place: usize, name: &str, value: Value) -> Outcome<()> {
        if name.starts_with('_') {
            return fail(format!(
                "a namespace has no attributes that begin with an underscore, such as {}",
                shortened(name)
            ));
        }
        let Some(namespace) = self.namespaces.get_mut(place) else {
            return fail("there is no such namespace");
        };
        if let Some(slot) = namespace.attributes.get_mut(name) {
            *slot = value;
            return Ok(());
        }
        // A place may come to hold the largest kind of value.
        namespace.charge.grow(name.len() + 400)?;
        namespace.attributes.insert(name.to_string(), value);
        Ok(())
    }

    pub(super) fn namespace_attribute(&self, place: usize, name: &str) -> Option<Value> {
        self.namespaces.get(place)?.attributes.get(name).cloned()
    }
}

/// The line at which something begins.
pub(super) fn line(span: minijinja::machinery::Span) -> usize {
    span.start_line.into()
}
