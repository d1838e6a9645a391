//! Computes the expressions of a template.

use std::cmp::Ordering;

use minijinja::machinery::ast::{self, BinOpKind, CallArg, CompareOpKind, Expr, UnaryOpKind};
use minijinja::value::ValueKind;

use super::args::Args;
use super::arith::{self, Operator};
use super::budget::{Heap, Outcome, fail};
use super::exec::{Interpreter, line};
use super::function::Function;
use super::order;
use super::print::print;
use super::value::{Builder, Items, Missing, Table, Value};

impl<'a> Interpreter<'a> {
    /// The value of an expression.
    pub(super) fn eval(&mut self, expr: &'a Expr<'a>) -> Outcome<Value> {
        self.heap.step(1)?;
        self.heap.enter()?;
        let value = self
            .compute(expr)
            .map_err(|fault| fault.at(line(expr.span())))?;
        self.heap.leave();
        Ok(value)
    }

    fn compute(&mut self, expr: &'a Expr<'a>) -> Outcome<Value> {
        match expr {
            Expr::Var(var) => self.look_up(var.id),
            Expr::Const(of) => constant(&self.heap, &of.value),
            Expr::GetAttr(of) => {
                let value = self.eval(&of.expr)?;
                self.attribute(&value, of.name)
            }
            Expr::GetItem(of) => {
                let value = self.eval(&of.expr)?;
                let key = self.eval(&of.subscript_expr)?;
                self.item(&value, &key)
            }
            Expr::Call(of) => {
                let callee = self.eval(&of.expr)?;
                let args = self.args(&of.args)?;
                self.call(&callee, args)
            }
            Expr::Filter(of) => match &of.expr {
                Some(inner) => {
                    let value = self.eval(inner)?;
                    let args = self.args(&of.args)?;
                    self.filter(of.name, &value, args)
                }
                None => fail("a filter has nothing to filter"),
            },
            Expr::Test(of) => {
                let value = self.eval(&of.expr)?;
                let args = self.args(&of.args)?;
                Ok(Value::Bool(self.test(of.name, &value, args)?))
            }
            Expr::BinOp(of) => self.binary(of),
            Expr::UnaryOp(of) => {
                let value = self.eval(&of.expr)?;
                match of.op {
                    UnaryOpKind::Not => Ok(Value::Bool(!value.truth())),
                    UnaryOpKind::Neg => arith::negate(&value),
                }
            }
            Expr::Compare(of) => {
                let mut left = self.eval(&of.expr)?;
                for op in &of.ops {
                    let right = self.eval(&op.expr)?;
                    if !compare(&self.heap, op.op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::IfExpr(of) => match (self.eval(&of.test_expr)?.truth(), &of.false_expr) {
                (true, _) => self.eval(&of.true_expr),
                (false, Some(other)) => self.eval(other),
                (false, None) => Ok(Value::Undefined(Missing::Else)),
            },
            Expr::Slice(of) => {
                let value = self.eval(&of.expr)?;
                let mut bounds = [Value::None, Value::None, Value::None];
                for (bound, given) in bounds.iter_mut().zip([&of.start, &of.stop, &of.step]) {
                    if let Some(given) = given {
                        *bound = self.eval(given)?;
                    }
                }
                self.heap.slice(&value, bounds)
            }
            Expr::List(of) => Ok(Value::List(self.each_item(&of.items)?.finish()?)),
            Expr::Tuple(of) => Ok(Value::Tuple(self.each_item(&of.items)?.finish()?)),
            Expr::Map(of) => {
                let mut table = Table::new(&self.heap)?;
                for (key, value) in of.keys.iter().zip(&of.values) {
                    let key = self.eval(key)?;
                    let value = self.eval(value)?;
                    table.insert(key, value)?;
                }
                table.finish()
            }
        }
    }

    fn each_item(&mut self, exprs: &'a [Expr<'a>]) -> Outcome<Items> {
        let mut items = Items::new(&self.heap)?;
        for expr in exprs {
            let value = self.eval(expr)?;
            items.push(value)?;
        }
        Ok(items)
    }

    fn look_up(&self, name: &str) -> Outcome<Value> {
        if let Some(value) = self.variable(name) {
            return Ok(value.clone());
        }
        match (Function::from_name(name), name) {
            (Some(function), _) => Ok(Value::Function(function)),
            (None, "lipsum" | "self") => fail(format!("{name} is not supported")),
            _ => Ok(Value::Undefined(Missing::variable(name))),
        }
    }

    /// The arguments of a call.
    pub(super) fn args(&mut self, args: &'a [CallArg<'a>]) -> Outcome<Args> {
        let mut positional = Items::new(&self.heap)?;
        let mut named = Vec::new();
        for arg in args {
            match arg {
                CallArg::Pos(expr) => {
                    let value = self.eval(expr)?;
                    positional.push(value)?;
                }
                CallArg::PosSplat(expr) => {
                    let values = self.eval(expr)?;
                    positional.extend(self.heap.iterate(&values)?.items())?;
                }
                CallArg::Kwarg(name, expr) => named.push((name.to_string(), self.eval(expr)?)),
                CallArg::KwargSplat(expr) => {
                    let Value::Dict(dict) = self.eval(expr)? else {
                        return fail("what follows ** must be a dictionary");
                    };
                    for (key, value) in dict.iter() {
                        match key.as_str() {
                            // As many as there may be arguments, each looked for among them.
                            Some(name) if named.len() < 1000 => {
                                self.heap.touch(name.len())?;
                                named.push((name.to_string(), value.clone()));
                            }
                            Some(_) => return fail("a call has more than 1000 named arguments"),
                            None => return fail("keywords must be strings"),
                        }
                    }
                }
            }
        }
        Ok(Args {
            positional: positional.finish()?.items().to_vec(),
            named,
        })
    }

    /// A chain of filters without its beginning, applied to `value`.
    pub(super) fn filtered(&mut self, chain: &'a Expr<'a>, value: Value) -> Outcome<Value> {
        let Expr::Filter(of) = chain else {
            return fail("a filter is expected");
        };
        let value = match &of.expr {
            Some(inner) => self.filtered(inner, value)?,
            None => value,
        };
        let args = self.args(&of.args)?;
        self.filter(of.name, &value, args)
            .map_err(|fault| fault.at(line(of.span())))
    }

    fn binary(&mut self, of: &'a ast::BinOp<'a>) -> Outcome<Value> {
        let left = self.eval(&of.left)?;
        match of.op {
            BinOpKind::ScAnd if !left.truth() => return Ok(left),
            BinOpKind::ScOr if left.truth() => return Ok(left),
            _ => {}
        }
        let right = self.eval(&of.right)?;
        let operator = match of.op {
            BinOpKind::ScAnd | BinOpKind::ScOr => return Ok(right),
            BinOpKind::Eq => return self.compared(CompareOpKind::Eq, &left, &right),
            BinOpKind::Ne => return self.compared(CompareOpKind::Ne, &left, &right),
            BinOpKind::Lt => return self.compared(CompareOpKind::Lt, &left, &right),
            BinOpKind::Lte => return self.compared(CompareOpKind::Lte, &left, &right),
            BinOpKind::Gt => return self.compared(CompareOpKind::Gt, &left, &right),
            BinOpKind::Gte => return self.compared(CompareOpKind::Gte, &left, &right),
            BinOpKind::In => return self.compared(CompareOpKind::In, &left, &right),
            BinOpKind::Concat => {
                let mut out = Builder::new(&self.heap)?;
                print(&mut out, &left)?;
                print(&mut out, &right)?;
                return Ok(Value::Str(out.finish()));
            }
            BinOpKind::Add => Operator::Add,
            BinOpKind::Sub => Operator::Sub,
            BinOpKind::Mul => Operator::Mul,
            BinOpKind::Div => Operator::Div,
            BinOpKind::FloorDiv => Operator::FloorDiv,
            BinOpKind::Rem => Operator::Rem,
            BinOpKind::Pow => Operator::Pow,
        };
        arith::operate(&self.heap, operator, &left, &right)
    }

    fn compared(&self, op: CompareOpKind, a: &Value, b: &Value) -> Outcome<Value> {
        compare(&self.heap, op, a, b).map(Value::Bool)
    }
}

fn compare(heap: &Heap, op: CompareOpKind, a: &Value, b: &Value) -> Outcome<bool> {
    use Ordering::{Equal, Greater, Less};
    Ok(match op {
        CompareOpKind::Eq => order::equal(heap, a, b)?,
        CompareOpKind::Ne => !order::equal(heap, a, b)?,
        CompareOpKind::In => order::contains(heap, b, a)?,
        CompareOpKind::NotIn => !order::contains(heap, b, a)?,
        CompareOpKind::Lt => order::partial(heap, a, b)? == Some(Less),
        CompareOpKind::Lte => matches!(order::partial(heap, a, b)?, Some(Less | Equal)),
        CompareOpKind::Gt => order::partial(heap, a, b)? == Some(Greater),
        CompareOpKind::Gte => matches!(order::partial(heap, a, b)?, Some(Greater | Equal)),
    })
}

/// The value of a literal.
fn constant(heap: &Heap, value: &minijinja::Value) -> Outcome<Value> {
    Ok(match value.kind() {
        ValueKind::None => Value::None,
        ValueKind::Bool => Value::Bool(value.is_true()),
        ValueKind::String => heap.str(value.as_str().unwrap_or_default())?,
        ValueKind::Number if value.is_integer() => match i128::try_from(value.clone()) {
            Ok(int) => Value::Int(int),
            Err(_) => return fail("integers of more than 128 bits are not supported"),
        },
        ValueKind::Number => match f64::try_from(value.clone()) {
            Ok(float) => Value::Float(float),
            Err(_) => return fail("a number cannot be read"),
        },
        other => return fail(format!("a literal of kind {other} is not supported")),
    })
}
