//! Neighbours of a list that become one launch: products of a few rows together with the norm before them, and the gate or the
//! addition behind them; the turning of queries and keys with the look at what is to be stored. A launch leaves in memory all
//! that its ops leave.

use std::collections::{HashMap, HashSet};

use walsh_core::ops::{MatMul, Op, RmsNorm};
use walsh_core::{BufferId, Plan, Result, Span, Tensor};

use crate::dispatch::{Dispatch, Part};
use crate::kernel::Touch;
use crate::list::plan;
use crate::lower::Lowering;
use crate::ops::norm;
use crate::ops::products::{MOST_PARTS, Products, Shape, Then, is_readable, most_types, together};
use crate::ops::rope::RopeInspect;

/// The dispatches that [`RopeInspect`] joins.
const TURNING: usize = 3;

/// Adds a list's dispatches, with neighbours joined where the device has a kernel for that; what commands have become that
/// are not what they were pushed as.
pub(crate) fn join(
    dispatches: Vec<Dispatch>,
    lowering: &mut Lowering<'_>,
) -> Result<Vec<(usize, Plan)>> {
    if !lowering.limits().joins {
        lowering.dispatches = dispatches;
        return Ok(Vec::new());
    }
    let written = Written::of(&dispatches);
    let mut list = List { dispatches };
    let (mut plans, mut at, mut known) = (Vec::new(), 0, 0);
    while at < list.dispatches.len() {
        // Forms of what has been overwritten since are no more.
        for dispatch in &lowering.dispatches[known..] {
            for span in dispatch.accesses().writes {
                lowering.workspace.invalidate(&span);
            }
        }
        known = lowering.dispatches.len();
        if let Some(joined) = list.turning(at, lowering)? {
            plans.extend(joined);
            at += TURNING;
            continue;
        }
        let Some((group, shape)) = list.group(at, &written, lowering) else {
            lowering.dispatches.push(list.dispatches[at].clone());
            at += 1;
            continue;
        };
        plans.extend(list.join(at, &group, &shape, lowering)?);
        at = group.end;
    }
    let all = std::mem::take(&mut lowering.dispatches);
    lowering.dispatches = without_unread_forms(all);
    Ok(plans)
}

/// Puts a dispatch that makes a form, where one stands at a place, into the op before it, which makes what the form is of:
/// what that has become.
fn with_form(at: usize, lowering: &mut Lowering<'_>) -> Option<Dispatch> {
    let all = &mut lowering.dispatches;
    let maker = (0..at).rev().find(|at| !is_form(&all[*at]))?;
    let joined = together(&all[maker], all.get(at)?)?;
    all.remove(at);
    all[maker] = joined.clone();
    Some(joined)
}

/// The op that a dispatch is all of.
fn whole(dispatch: &Dispatch) -> Option<&Op> {
    match &dispatch.part {
        Part::Whole(op) => Some(op),
        Part::Step | Part::Form => None,
    }
}

fn is_form(dispatch: &Dispatch) -> bool {
    matches!(dispatch.part, Part::Form)
}

/// Whether two tensors are one: reshapes of it are others.
fn same(a: &Tensor, b: &Tensor) -> bool {
    a.span().same(&b.span()) && a.shape() == b.shape()
}

/// What a list writes.
struct Written(HashMap<BufferId, Vec<Span>>);

impl Written {
    fn of(dispatches: &[Dispatch]) -> Self {
        let mut written: HashMap<BufferId, Vec<Span>> = HashMap::new();
        for binding in dispatches.iter().flat_map(|dispatch| &dispatch.buffers) {
            if binding.touch == Touch::Writes && binding.span.bytes > 0 {
                let spans = written.entry(binding.span.buffer.id()).or_default();
                if !spans.iter().any(|span| span.same(&binding.span)) {
                    spans.push(binding.span.clone());
                }
            }
        }
        Self(written)
    }

    fn touches(&self, span: &Span) -> bool {
        let spans = self.0.get(&span.buffer.id());
        spans.is_some_and(|spans| spans.iter().any(|other| other.overlaps(span)))
    }
}

struct List {
    dispatches: Vec<Dispatch>,
}

/// Neighbours that can be one launch.
struct Group {
    products: Products,
    /// Behind its last dispatch.
    end: usize,
    /// The norm that stands there, when the launch makes the sum that it takes.
    sum_made: Option<RmsNorm>,
}

impl List {
    /// Joins the dispatches at a place that turn queries and keys and look at what is to be stored, if they stand there; what
    /// their commands have become.
    fn turning(
        &self,
        at: usize,
        lowering: &mut Lowering<'_>,
    ) -> Result<Option<impl Iterator<Item = (usize, Plan)> + use<>>> {
        let Some([query, key, inspect]) = self.dispatches[at..].first_chunk::<TURNING>() else {
            return Ok(None);
        };
        let three = RopeInspect {
            query,
            key,
            inspect,
        };
        let first = lowering.dispatches.len();
        lowering.command = query.command;
        if !three.lower(lowering)? {
            return Ok(None);
        }
        let joined = plan(&lowering.dispatches[first..], 0);
        // The store has others, too.
        let commands = [query.command, key.command];
        Ok(Some(
            commands
                .into_iter()
                .map(move |command| (command, joined.clone())),
        ))
    }

    /// Adds a group's launch; what its commands have become.
    fn join(
        &mut self,
        at: usize,
        group: &Group,
        shape: &Shape,
        lowering: &mut Lowering<'_>,
    ) -> Result<impl Iterator<Item = (usize, Plan)> + use<>> {
        let own = &self.dispatches[at..group.end];
        let mut commands: Vec<usize> = own.iter().map(|dispatch| dispatch.command).collect();
        commands.dedup();
        let product = own
            .iter()
            .find(|dispatch| matches!(whole(dispatch), Some(Op::MatMul(_))));
        lowering.command = product.map_or(0, |product| product.command);
        // Forms of the input that others may read, too: before the launch, which may write behind them, or behind the norm.
        let forms: Vec<Dispatch> = own.iter().filter(|d| is_form(d)).cloned().collect();
        let before = group.products.norm.is_none();
        if before {
            lowering.dispatches.extend(forms.iter().cloned());
        }
        let first = lowering.dispatches.len();
        group.products.lower(shape, lowering)?;
        let made = with_form(first, lowering);
        commands.extend(made.iter().map(|made| made.command));
        let launches = lowering.dispatches[first..].iter().cloned();
        let launches: Vec<Dispatch> = made.into_iter().chain(launches).collect();
        let joined = plan(&launches, 0);
        if !before {
            lowering.dispatches.extend(forms);
        }
        if let Some(norm) = &group.sum_made {
            self.replace_norm(group.end, norm, lowering)?;
            commands.push(self.dispatches[group.end].command);
        }
        Ok(commands
            .into_iter()
            .map(move |command| (command, joined.clone())))
    }

    /// The op at or behind a place, forms of inputs passed over, and where it stands.
    fn next(&self, from: usize) -> Option<(usize, &Op)> {
        let at = (from..self.dispatches.len()).find(|at| !is_form(&self.dispatches[*at]))?;
        Some((at, whole(&self.dispatches[at])?))
    }

    /// The largest group that begins at a place.
    fn group(
        &self,
        at: usize,
        written: &Written,
        lowering: &Lowering<'_>,
    ) -> Option<(Group, Shape)> {
        let limits = lowering.limits();
        let (norm, from) = match whole(&self.dispatches[at])? {
            Op::RmsNorm(norm) if norm.before.is_none() && norm.after.is_none() => {
                (Some(norm.clone()), at + 1)
            }
            Op::MatMul(_) => (None, at),
            _ => return None,
        };
        let (products, end) = self.products(norm.as_ref(), from);
        if products.is_empty() {
            return None;
        }
        let alone = Products {
            norm,
            products,
            then: Then::Nothing,
        };
        let with_end = self
            .then(&alone.products, end)
            .map(|(then, end, sum_made)| {
                let products = Products {
                    then,
                    ..alone.clone()
                };
                Group {
                    products,
                    end,
                    sum_made,
                }
            });
        let alone = Group {
            products: alone,
            end,
            sum_made: None,
        };
        with_end.into_iter().chain([alone]).find_map(|group| {
            let early = group.products.read_early();
            let constant = !early.iter().any(|span| written.touches(span));
            let fits = constant && group.products.is_sound();
            let shape = fits.then(|| group.products.shape(&limits))??;
            Some((group, shape))
        })
    }

    /// The products of one input from a place on that one kernel takes, and where they end.
    fn products(&self, norm: Option<&RmsNorm>, from: usize) -> (Vec<MatMul>, usize) {
        let mut products: Vec<MatMul> = Vec::new();
        let mut end = from;
        while let Some((at, Op::MatMul(product))) = self.next(end) {
            let input = norm.map_or_else(
                || products.first().map(|first| &first.input),
                |norm| Some(&norm.output),
            );
            let mut types: Vec<_> = products.iter().map(|p| p.weight.dtype()).collect();
            types.push(product.weight.dtype());
            types.sort_unstable();
            types.dedup();
            let written = product.output.span();
            let joins = input.is_none_or(|input| same(input, &product.input))
                && types.len() <= most_types(&product.input)
                && products.len() < MOST_PARTS
                && is_readable(&product.weight)
                && !products.iter().any(|p| p.output.span().overlaps(&written));
            if !joins {
                break;
            }
            products.push(product.clone());
            end = at + 1;
        }
        (products, end)
    }

    /// What stands behind products that a launch can do with them.
    fn then(&self, products: &[MatMul], end: usize) -> Option<(Then, usize, Option<RmsNorm>)> {
        let (at, op) = self.next(end)?;
        match (products, op) {
            ([gate, up], Op::GatedActivation(gated))
                if same(&gated.gate, &gate.output) && same(&gated.up, &up.output) =>
            {
                let then = Then::Gated {
                    activation: gated.activation,
                    output: gated.output.clone(),
                };
                Some((then, at + 1, None))
            }
            ([product], Op::Add(add)) => {
                let addend = match (same(&add.a, &product.output), same(&add.b, &product.output)) {
                    (true, false) => &add.b,
                    (false, true) => &add.a,
                    _ => return None,
                };
                let then = Then::Added {
                    addend: addend.clone(),
                    sum: add.output.clone(),
                };
                (addend.elements() == add.output.elements()).then_some((then, at + 1, None))
            }
            ([product], Op::RmsNorm(norm)) => {
                let before = norm.before.as_ref()?;
                let then = Then::Added {
                    addend: before.addend.clone(),
                    sum: before.sum.clone(),
                };
                let left = RmsNorm {
                    input: before.sum.clone(),
                    before: None,
                    ..norm.clone()
                };
                same(&norm.input, &product.output).then_some((then, at, Some(left)))
            }
            _ => None,
        }
    }

    /// Puts a norm whose sum is made already in the place of the one that makes it.
    fn replace_norm(&mut self, at: usize, op: &RmsNorm, lowering: &mut Lowering<'_>) -> Result<()> {
        let command = self.dispatches[at].command;
        let others = std::mem::take(&mut lowering.dispatches);
        let earlier = std::mem::replace(&mut lowering.command, command);
        let lowered = norm::lower(op, lowering);
        let own = std::mem::replace(&mut lowering.dispatches, others);
        lowering.command = earlier;
        lowered?;
        self.dispatches.splice(at..=at, own);
        Ok(())
    }
}

/// Leaves out forms of inputs that nothing reads.
fn without_unread_forms(dispatches: Vec<Dispatch>) -> Vec<Dispatch> {
    let mut needed: Vec<Span> = Vec::new();
    let mut kept: Vec<Dispatch> = Vec::with_capacity(dispatches.len());
    let forms: HashSet<BufferId> = dispatches
        .iter()
        .filter(|dispatch| is_form(dispatch))
        .flat_map(|dispatch| dispatch.accesses().writes)
        .map(|span| span.buffer.id())
        .collect();
    for dispatch in dispatches.into_iter().rev() {
        let accesses = dispatch.accesses();
        if is_form(&dispatch) {
            let read = |span: &Span| needed.iter().any(|needed| needed.overlaps(span));
            if !accesses.writes.iter().any(read) {
                continue;
            }
        }
        // Workspace is used again and again: what is read behind this is what this leaves there.
        needed.retain(|needed| !accesses.writes.iter().any(|span| span.same(needed)));
        let reads = accesses.reads.into_iter();
        for span in reads.filter(|span| span.bytes > 0 && forms.contains(&span.buffer.id())) {
            if !needed.iter().any(|needed| needed.same(&span)) {
                needed.push(span);
            }
        }
        kept.push(dispatch);
    }
    kept.reverse();
    kept
}
