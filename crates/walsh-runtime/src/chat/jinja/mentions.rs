//! Which of the names that Jinja2 gives a meaning a body uses, and whether it uses another.

use minijinja::machinery::ast::{CallArg, Expr, Stmt};

/// The names that were found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mentions<'n> {
    /// The other name, and whether it was found.
    wanted: &'n str,
    found: bool,
    pub(super) this_loop: bool,
    pub(super) caller: bool,
    pub(super) varargs: bool,
    pub(super) kwargs: bool,
}

impl<'n> Mentions<'n> {
    pub(super) fn of(body: &[Stmt<'_>]) -> Self {
        let mut mentions = Self::default();
        mentions.body(body);
        mentions
    }

    /// Whether a whole template uses a name.
    pub(super) fn name(template: &Stmt<'_>, wanted: &'n str) -> bool {
        let mut mentions = Self {
            wanted,
            ..Self::default()
        };
        match template {
            Stmt::Template(of) => mentions.body(&of.children),
            other => mentions.statement(other),
        }
        mentions.found
    }

    fn body(&mut self, body: &[Stmt<'_>]) {
        for statement in body {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Stmt<'_>) {
        match statement {
            Stmt::EmitExpr(emit) => self.expr(&emit.expr),
            Stmt::ForLoop(of) => {
                self.expr(&of.iter);
                self.optional(of.filter_expr.as_ref());
                self.body(&of.body);
                self.body(&of.else_body);
            }
            Stmt::IfCond(of) => {
                self.expr(&of.expr);
                self.body(&of.true_body);
                self.body(&of.false_body);
            }
            Stmt::WithBlock(of) => {
                of.assignments
                    .iter()
                    .for_each(|(_, value)| self.expr(value));
                self.body(&of.body);
            }
            Stmt::Set(of) => self.expr(&of.expr),
            Stmt::SetBlock(of) => {
                self.optional(of.filter.as_ref());
                self.body(&of.body);
            }
            Stmt::AutoEscape(of) => {
                self.expr(&of.enabled);
                self.body(&of.body);
            }
            Stmt::FilterBlock(of) => {
                self.expr(&of.filter);
                self.body(&of.body);
            }
            Stmt::Block(of) => self.body(&of.body),
            Stmt::Macro(of) => {
                of.defaults.iter().for_each(|default| self.expr(default));
                self.body(&of.body);
            }
            Stmt::CallBlock(of) => {
                self.expr(&of.call.expr);
                self.args(&of.call.args);
                self.body(&of.macro_decl.body);
            }
            Stmt::Template(_)
            | Stmt::EmitRaw(_)
            | Stmt::Import(_)
            | Stmt::FromImport(_)
            | Stmt::Extends(_)
            | Stmt::Include(_)
            | Stmt::Continue(_)
            | Stmt::Break(_)
            | Stmt::Do(_) => {}
        }
    }

    fn optional(&mut self, expr: Option<&Expr<'_>>) {
        if let Some(expr) = expr {
            self.expr(expr);
        }
    }

    fn args(&mut self, args: &[CallArg<'_>]) {
        for arg in args {
            match arg {
                CallArg::Pos(expr)
                | CallArg::Kwarg(_, expr)
                | CallArg::PosSplat(expr)
                | CallArg::KwargSplat(expr) => self.expr(expr),
            }
        }
    }

    fn expr(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::Var(var) => match var.id {
                "loop" => self.this_loop = true,
                "caller" => self.caller = true,
                "varargs" => self.varargs = true,
                "kwargs" => self.kwargs = true,
                name => self.found |= name == self.wanted,
            },
            Expr::Const(_) => {}
            Expr::Slice(of) => {
                self.expr(&of.expr);
                for bound in [&of.start, &of.stop, &of.step] {
                    self.optional(bound.as_ref());
                }
            }
            Expr::UnaryOp(of) => self.expr(&of.expr),
            Expr::BinOp(of) => {
                self.expr(&of.left);
                self.expr(&of.right);
            }
            Expr::Compare(of) => {
                self.expr(&of.expr);
                of.ops.iter().for_each(|op| self.expr(&op.expr));
            }
            Expr::IfExpr(of) => {
                self.expr(&of.test_expr);
                self.expr(&of.true_expr);
                self.optional(of.false_expr.as_ref());
            }
            Expr::Filter(of) => {
                self.optional(of.expr.as_ref());
                self.args(&of.args);
            }
            Expr::Test(of) => {
                self.expr(&of.expr);
                self.args(&of.args);
            }
            Expr::GetAttr(of) => self.expr(&of.expr),
            Expr::GetItem(of) => {
                self.expr(&of.expr);
                self.expr(&of.subscript_expr);
            }
            Expr::Call(of) => {
                self.expr(&of.expr);
                self.args(&of.args);
            }
            Expr::List(of) => of.items.iter().for_each(|item| self.expr(item)),
            Expr::Tuple(of) => of.items.iter().for_each(|item| self.expr(item)),
            Expr::Map(of) => of
                .keys
                .iter()
                .chain(&of.values)
                .for_each(|item| self.expr(item)),
        }
    }
}
