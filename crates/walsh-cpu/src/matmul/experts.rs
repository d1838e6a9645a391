//! Products with the weights of experts: each row of input meets the weight that its id names.
//!
//! A token alone takes each of its slots as a product of one row: items are pieces of slots' weights in order, so that a
//! team shares them evenly. Several tokens are *grouped*: slots are put in the order of their experts, the input is
//! prepared in that order, and an item is a few columns of one expert with all of its rows, so that each weight is read
//! once and goes through the very kernels that the dense product of as many rows takes.

use std::ops::Range;
use std::sync::Arc;

use walsh_core::ops::{ExpertMatMul, Operation};
use walsh_core::{Accesses, Activations, Buffer, Error, Result};

use super::contract::{Operands, ProductShape, Source};
use super::layout::{BLOCK, BlockQ8, LANES, RowParts};
use super::op::{check_address, name, plan_shape, prepared, size, weight_view};
use super::plan::ProductPlan;
use crate::lowering::{Fault, Lowering};
use crate::memory::{ALIGN, Parts, View};
use crate::team::{Phase, Scratch};

/// The most rows of an expert that go through its columns together: their sums stay in the second-level cache.
const ROWS: usize = 512;

/// The items that a thread gets of a grouped product, were all experts alike.
const ITEMS: usize = 12;

/// Adds the phases of products with experts.
pub(crate) fn lower_experts(op: &ExpertMatMul, lowering: &mut Lowering) -> Result<()> {
    let sizes = Sizes::of(op)?;
    check_address(ExpertMatMul::NAME, &op.weight)?;
    let target = lowering.target();
    let shape = ProductShape {
        weight: op.weight.dtype(),
        m: 1,
        n: sizes.n,
        k: sizes.k,
        packed: op.weight.is_packed(),
    };
    let plan = plan_shape(ExpertMatMul::NAME, shape, target)?;
    let way = if sizes.tokens == 1 { "" } else { ".grouped" };
    lowering.kernel(format!("expert_{}{way}", name(&plan, target)));
    match sizes.tokens {
        1 => direct(op, sizes, plan, lowering),
        _ => grouped(op, sizes, plan, lowering),
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    experts: usize,
    n: usize,
    k: usize,
    /// The products: slots of all tokens.
    products: usize,
    /// Slots that share a row of the input.
    each: usize,
}

impl Sizes {
    fn of(op: &ExpertMatMul) -> Result<Self> {
        let size = |dimension| size(ExpertMatMul::NAME, dimension);
        let [experts, n, k] = op.weight_sizes();
        Ok(Self {
            tokens: size(op.ids.shape()[0])?,
            experts: size(experts)?,
            n: size(n)?,
            k: size(k)?,
            products: size(op.ids.elements())?,
            each: size(op.slots_to_a_row())?,
        })
    }
}

/// The expert that an id names.
fn expert(id: i32, experts: usize) -> std::result::Result<usize, Error> {
    match usize::try_from(id) {
        Ok(expert) if expert < experts => Ok(expert),
        _ => Err(Error::Value {
            op: ExpertMatMul::NAME,
            message: format!("id {id} is none of {experts} experts"),
        }),
    }
}

/// What both ways read and write.
struct Tensors {
    weight: View<u8>,
    bias: Option<View<f32>>,
    output: View<f32>,
}

impl Tensors {
    fn of(op: &ExpertMatMul) -> Result<Self> {
        Ok(Self {
            weight: weight_view(&op.weight)?,
            bias: op.bias.as_ref().map(View::of).transpose()?,
            output: View::of(&op.output)?,
        })
    }

    /// The operands of a product of a shape with rows of an expert's weight, from number `row` of all experts' on.
    ///
    /// # Safety
    /// Nothing writes the weight and the bias while they are borrowed.
    unsafe fn operands<'a>(
        &'a self,
        row: usize,
        plan: &ProductPlan,
        input: &'a [u8],
        output: Parts<'a, f32>,
    ) -> Operands<'a> {
        let (row_bytes, rows) = (plan.row_bytes(), plan.shape().stored_rows());
        // SAFETY: nothing writes them, as this method asks.
        unsafe {
            Operands {
                weight: self.weight.slice(row * row_bytes..(row + rows) * row_bytes),
                input,
                bias: self
                    .bias
                    .as_ref()
                    .map(|bias| bias.slice(row..row + plan.shape().n)),
                output,
            }
        }
    }
}

/// A token's slots, one after the other.
struct Direct {
    sizes: Sizes,
    plan: ProductPlan,
    tensors: Tensors,
    ids: View<i32>,
    input: View<u8>,
    /// The bytes of a prepared row of the input.
    input_bytes: usize,
    fault: Arc<Fault>,
}

fn direct(
    op: &ExpertMatMul,
    sizes: Sizes,
    plan: ProductPlan,
    lowering: &mut Lowering,
) -> Result<()> {
    let rows = sizes.products / sizes.each;
    let layout = plan.layout().of_rows(rows);
    let (input, read) = prepared(&op.input, &layout, lowering)?;
    let mut accesses = op.accesses();
    accesses.read(read);
    let direct = Direct {
        sizes,
        plan,
        tensors: Tensors::of(op)?,
        ids: View::of(&op.ids)?,
        input_bytes: match layout.is_plain() {
            true => sizes.k * size_of::<f32>(),
            false => layout.bytes() / rows,
        },
        input,
        fault: lowering.fault(),
    };
    lowering.phase(&accesses, direct);
    Ok(())
}

impl Phase for Direct {
    fn items(&self) -> usize {
        self.sizes.products * self.plan.items()
    }

    fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    fn cost(&self) -> u64 {
        self.sizes.products as u64 * self.plan.cost()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let Sizes {
            experts, n, each, ..
        } = self.sizes;
        let of_slot = self.plan.items();
        // SAFETY: the list orders this read after the ids' writes.
        let ids = unsafe { self.ids.all() };
        let mut next = items.start;
        while next < items.end {
            let slot = next / of_slot;
            let end = ((slot + 1) * of_slot).min(items.end);
            let expert = match expert(ids[slot], experts) {
                Ok(expert) => expert,
                Err(error) => return self.fault.report(error),
            };
            let row = slot / each * self.input_bytes;
            let output = self.tensors.output.parts().range(slot * n..(slot + 1) * n);
            // SAFETY: the list orders the accesses, and each item writes its own numbers.
            unsafe {
                let input = self.input.slice(row..row + self.input_bytes);
                let operands = self.tensors.operands(expert * n, &self.plan, input, output);
                let pieces = next - slot * of_slot..end - slot * of_slot;
                self.plan.run(pieces, operands, scratch.bytes());
            }
            next = end;
        }
    }
}

/// Slots by expert. In memory: how many experts have slots; which they are, ascending; where each one's slots begin in
/// the order, and where the last one's end; and the order.
struct Groups {
    words: View<u32>,
    experts: usize,
}

/// What [`Groups`] are derived for.
#[derive(PartialEq)]
struct Grouping {
    experts: usize,
}

/// The slots of an expert.
struct Group {
    expert: usize,
    /// Their places in the order.
    places: Range<usize>,
}

impl Group {
    /// Its slots, so many at a time as are multiplied together.
    fn parts(&self) -> impl Iterator<Item = Range<usize>> {
        let Range { start, end } = self.places;
        (start..end)
            .step_by(ROWS)
            .map(move |first| first..(first + ROWS).min(end))
    }
}

impl Groups {
    fn bytes(sizes: Sizes) -> u64 {
        (size_of::<u32>() * (1 + sizes.experts + sizes.experts + 1 + sizes.products)) as u64
    }

    /// # Safety
    /// The groups are written, and nothing writes them while they are in use.
    unsafe fn read(&self) -> Found<'_> {
        // SAFETY: nothing writes them, as this method asks.
        let words = unsafe { self.words.all() };
        let (active, words) = (words[0] as usize, &words[1..]);
        let (experts, words) = words.split_at(self.experts);
        let (starts, order) = words.split_at(self.experts + 1);
        Found {
            experts: &experts[..active],
            starts: &starts[..active + 1],
            order,
        }
    }
}

/// [`Groups`] that are written.
struct Found<'a> {
    experts: &'a [u32],
    starts: &'a [u32],
    order: &'a [u32],
}

impl Found<'_> {
    /// The slots of the experts that have some, by number among these.
    fn group(&self, index: usize) -> Option<Group> {
        let expert = *self.experts.get(index)? as usize;
        Some(Group {
            expert,
            places: self.starts[index] as usize..self.starts[index + 1] as usize,
        })
    }
}

/// Puts slots in the order of their experts.
struct MakeGroups {
    ids: View<i32>,
    groups: Groups,
    fault: Arc<Fault>,
}

impl Phase for MakeGroups {
    fn items(&self) -> usize {
        1
    }

    fn cost(&self) -> u64 {
        (4 * self.ids.len() + self.groups.experts) as u64
    }

    unsafe fn run(&self, _: Range<usize>, _: &mut Scratch) {
        let experts = self.groups.experts;
        // SAFETY: the list orders this read after the ids' writes, and the groups are this item's.
        let (ids, words) = unsafe {
            let len = self.groups.words.len();
            (self.ids.all(), self.groups.words.slice_mut(0..len))
        };
        let (active, words) = words.split_at_mut(1);
        let (found, words) = words.split_at_mut(experts);
        let (starts, order) = words.split_at_mut(experts + 1);
        // First, how many slots each expert has stands behind its place.
        starts.fill(0);
        for &id in ids {
            match expert(id, experts) {
                Ok(expert) => starts[expert + 1] += 1,
                Err(error) => return self.fault.report(error),
            }
        }
        for expert in 0..experts {
            starts[expert + 1] += starts[expert];
        }
        // Each slot goes to its expert's next place, which moves that expert's start to its end.
        for (slot, &id) in ids.iter().enumerate() {
            let next = &mut starts[id as usize];
            order[*next as usize] = slot as u32;
            *next += 1;
        }
        let (mut count, mut before) = (0, 0);
        for expert in 0..experts {
            let end = starts[expert];
            if end > before {
                found[count] = expert as u32;
                starts[count] = before;
                count += 1;
                before = end;
            }
        }
        starts[count] = before;
        active[0] = count as u32;
    }
}

/// What is known of a grouped product before it runs.
#[derive(Clone)]
struct Grouped {
    sizes: Sizes,
    /// The product of one row, from which those of groups are made.
    plan: ProductPlan,
    activations: Activations,
    /// The room of a prepared row.
    room: usize,
}

impl Grouped {
    fn new(sizes: Sizes, plan: ProductPlan, activations: Activations) -> Self {
        let k = sizes.k;
        let quantised = plan.shape().weight.is_quantised() && activations == Activations::Int8;
        // Of whatever arrangement as many rows as a group happens to have take.
        let room = match quantised {
            true => RowParts::new(k)
                .stride()
                .max(k / BLOCK * size_of::<BlockQ8>()),
            false => k * size_of::<f32>(),
        };
        Self {
            sizes,
            plan,
            activations,
            room: room.next_multiple_of(ALIGN),
        }
    }

    /// The most experts that may have rows.
    fn most_groups(&self) -> usize {
        self.sizes.experts.min(self.sizes.products)
    }

    /// The columns of an item: as many panels as tiles take, unless that leaves the team too few items.
    fn columns(&self, threads: usize) -> usize {
        let n = self.sizes.n;
        let wanted = if threads == 1 { 1 } else { threads * ITEMS };
        let mut columns = self.plan.most_panels().next_multiple_of(LANES);
        while columns > LANES && self.most_groups() * n.div_ceil(columns) < wanted {
            columns = (columns / 2).next_multiple_of(LANES);
        }
        columns.min(n)
    }
}

/// What a prepared input is derived for.
#[derive(PartialEq)]
struct InOrder {
    /// Of a product of one row and one column.
    shape: ProductShape,
    each: usize,
}

/// Prepares the input of each group.
struct PrepareGroups {
    product: Grouped,
    groups: Groups,
    input: View<f32>,
    prepared: View<u8>,
    /// How many items a group is.
    pieces: usize,
}

impl Phase for PrepareGroups {
    fn items(&self) -> usize {
        self.product.most_groups() * self.pieces
    }

    fn cost(&self) -> u64 {
        self.product.sizes.products as u64 * self.product.plan.layout().cost().max(1)
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        let Grouped {
            sizes, plan, room, ..
        } = &self.product;
        let share =
            |all: usize, piece: usize| all * piece / self.pieces..all * (piece + 1) / self.pieces;
        // SAFETY: the list orders this behind the groups and what the input is written by.
        let (groups, input) = unsafe { (self.groups.read(), self.input.all()) };
        for item in items {
            let Some(group) = groups.group(item / self.pieces) else {
                break;
            };
            for part in group.parts() {
                let prepared = self
                    .prepared
                    .parts()
                    .range(part.start * room..part.end * room);
                let source = Source {
                    input,
                    order: Some(&groups.order[part.clone()]),
                    each: sizes.each,
                };
                let part = plan.part(part.len(), 1, self.product.activations);
                let layout = part.layout();
                if layout.is_plain() {
                    for row in share(part.shape().m, item % self.pieces) {
                        let row_bytes = sizes.k * size_of::<f32>();
                        // SAFETY: each row is of one item.
                        let to = unsafe { prepared.part(row * row_bytes..(row + 1) * row_bytes) };
                        to.copy_from_slice(bytemuck::cast_slice(source.row(row, sizes.k)));
                    }
                } else {
                    let items = share(layout.items(), item % self.pieces);
                    // SAFETY: each item of the layout is of one of these items, and a group's place is its own.
                    unsafe { layout.prepare(items, source, prepared) };
                }
            }
        }
    }
}

/// Some columns of an expert, with all of its rows.
struct GroupProducts {
    product: Grouped,
    columns: usize,
    groups: Groups,
    tensors: Tensors,
    input: View<u8>,
}

impl GroupProducts {
    /// The room of an item's results before they go to their slots.
    fn result_bytes(&self) -> usize {
        let rows = ROWS.min(self.product.sizes.products);
        (rows * self.columns * size_of::<f32>()).next_multiple_of(ALIGN)
    }
}

impl Phase for GroupProducts {
    fn items(&self) -> usize {
        self.product.most_groups() * self.product.sizes.n.div_ceil(self.columns)
    }

    fn scratch_bytes(&self) -> usize {
        self.result_bytes() + self.product.plan.most_scratch_bytes(ROWS)
    }

    fn cost(&self) -> u64 {
        let Sizes { products, n, k, .. } = self.product.sizes;
        let read = self.product.most_groups() as u64 * self.product.plan.cost();
        read.max((products * n * k / 80) as u64)
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let Grouped {
            sizes, plan, room, ..
        } = &self.product;
        let of_group = sizes.n.div_ceil(self.columns);
        let (results, scratch) = scratch.bytes().split_at_mut(self.result_bytes());
        let results: &mut [f32] = bytemuck::cast_slice_mut(results);
        // SAFETY: the list orders this behind the groups and their prepared rows.
        let (groups, input) = unsafe { (self.groups.read(), self.input.all()) };
        for item in items {
            let first = item % of_group * self.columns;
            let columns = self.columns.min(sizes.n - first);
            let Some(group) = groups.group(item / of_group) else {
                break;
            };
            for part in group.parts() {
                let plan = plan.part(part.len(), columns, self.product.activations);
                let input = &input[part.start * room..part.end * room];
                let row = group.expert * sizes.n + first;
                // SAFETY: the list orders the accesses, and the results are this thread's.
                unsafe {
                    let output = Parts::of(results);
                    let operands = self.tensors.operands(row, &plan, input, output);
                    plan.run(0..plan.items(), operands, scratch);
                }
                let rows = results.chunks_exact(columns);
                for (&slot, result) in groups.order[part].iter().zip(rows) {
                    let to = slot as usize * sizes.n + first;
                    // SAFETY: each item writes its own columns of the slots of its group.
                    let to = unsafe { self.tensors.output.slice_mut(to..to + columns) };
                    to.copy_from_slice(result);
                }
            }
        }
    }
}

fn grouped(
    op: &ExpertMatMul,
    sizes: Sizes,
    plan: ProductPlan,
    lowering: &mut Lowering,
) -> Result<()> {
    let target = lowering.target();
    let experts = sizes.experts;
    let groups = |buffer: &Buffer| -> Result<Groups> {
        Ok(Groups {
            words: View::range(buffer, 0, Groups::bytes(sizes))?,
            experts,
        })
    };
    let sources = [op.ids.span()];
    let purpose = Grouping { experts };
    let order = lowering.derived(purpose, &sources, Groups::bytes(sizes), |buffer, fault| {
        Ok(MakeGroups {
            ids: View::of(&op.ids)?,
            groups: groups(buffer)?,
            fault,
        })
    })?;
    let product = Grouped::new(sizes, plan, target.activations);
    let bytes = (sizes.products * product.room) as u64;
    let purpose = InOrder {
        shape: ProductShape {
            n: 1,
            ..product.plan.shape()
        },
        each: sizes.each,
    };
    let sources = [op.input.span(), op.ids.span(), order.span()];
    let prepared = lowering.derived(purpose, &sources, bytes, |buffer, _| {
        Ok(PrepareGroups {
            pieces: (target.threads * ITEMS).div_ceil(product.most_groups()),
            product: product.clone(),
            groups: groups(&order)?,
            input: View::of(&op.input)?,
            prepared: View::range(buffer, 0, bytes)?,
        })
    })?;
    let mut accesses: Accesses = op.accesses();
    accesses.read(order.span());
    accesses.read(prepared.span());
    let products = GroupProducts {
        columns: product.columns(target.threads),
        product,
        groups: groups(&order)?,
        tensors: Tensors::of(op)?,
        input: View::range(&prepared, 0, bytes)?,
    };
    lowering.phase(&accesses, products);
    Ok(())
}
