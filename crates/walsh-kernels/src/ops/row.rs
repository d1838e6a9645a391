//! Products of one row of input with what stands before and behind them, as one launch of CUDA's own.

use std::fmt::Write;

use walsh_core::ops::{Activation, MatMul, RmsNorm};
use walsh_core::{Result, Span, Tensor};

use super::blocks::{self, Form, form, type_constant};
use crate::args::args;
use crate::kernel::{Kernel, Native, Platform, Variant, reads, writes};
use crate::lower::{Limits, Lowering, layout};

/// Threads of a group.
const THREADS: u64 = 256;

/// Groups that a multiprocessor has room for: one at work, and one that has its weights and waits for the first to end.
const RESIDENT: u64 = 2;

/// The most weights of a launch.
pub(crate) const MOST_PARTS: usize = 4;

/// The most numbers of an input that a thread holds, four by four.
const MOST_HELD: u64 = 16;

/// Pieces of a simdgroup's ring.
const SLOTS: u64 = 2;

args! {
    /// Arguments of `matmul_row`.
    MatMulRowArgs {
        /// The bytes of a row of each weight.
        row_bytes: [u64; 4],
        /// Rows of each weight.
        n: [u32; 4],
        /// The first of its units of rows, among those of all.
        first_unit: [u32; 4],
        /// Blocks in a row of either type.
        blocks: [u32; 2],
        /// Pieces of a row of either type.
        stages: [u32; 2],
        /// Units of all weights.
        units: u32,
        /// The weights of the second type, a bit each.
        second: u32,
        /// The weights with a bias, a bit each.
        biased: u32,
        /// Numbers of the input.
        k: u32,
        /// The bytes of the input's 8-bit form.
        code_bytes: u32,
        /// Added to the norm's mean square.
        eps: f32,
    }
}

static MATMUL_ROW: Kernel = Kernel {
    name: "matmul_row",
    includes: &[include_str!("../../kernels/gates.h")],
    tables,
    text: "",
    native: &[Native {
        platform: Platform::Cuda,
        text: include_str!("../../kernels/cuda/matmul_row.cu"),
    }],
    constants: &[
        "THREADS", "RESIDENT", "DYNAMIC", "TYPE", "OTHER", "PANEL", "SLOTS", "HELD", "NORM",
        "GATED", "ADD",
    ],
    args: layout::<MatMulRowArgs>(),
    buffers: &[
        reads("weight_0", "uchar"),
        reads("weight_1", "uchar"),
        reads("weight_2", "uchar"),
        reads("weight_3", "uchar"),
        reads("input", "float"),
        reads("norm", "float"),
        reads("bias_0", "float"),
        reads("bias_1", "float"),
        reads("bias_2", "float"),
        reads("bias_3", "float"),
        reads("addend", "float"),
        writes("normed", "float"),
        writes("output_0", "float"),
        writes("output_1", "float"),
        writes("output_2", "float"),
        writes("output_3", "float"),
        writes("joined", "float"),
    ],
    shared: false,
};

pub(crate) const KERNELS: &[&Kernel] = &[&MATMUL_ROW];

/// How the blocks of each of a variant's types are read, in a namespace for each.
fn tables(variant: &Variant) -> String {
    let mut text = String::from(concat!(
        include_str!("../../kernels/cuda/matrices.h"),
        include_str!("../../kernels/cuda/row_input.h")
    ));
    let mut space = |name: &str, stored: i64| {
        let _ = write!(
            text,
            "namespace {name} {{\n{}{}}} // namespace {name}\n",
            blocks::tables_of(stored),
            concat!(
                include_str!("../../kernels/blocks.h"),
                include_str!("../../kernels/dot.h"),
                include_str!("../../kernels/cuda/row_piece.h")
            )
        );
    };
    space("type", variant.constant("TYPE"));
    match variant.constant("OTHER") {
        ..0 => text.push_str("namespace other = type;\n"),
        stored => space("other", stored),
    }
    text
}

/// What is done with the products of a row.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    /// They are the outputs, and that is all.
    Nothing,
    /// The first weight's are gated with the second's: `output = activation(first) . second`.
    Gated {
        /// The activation.
        activation: Activation,
        /// What it is written to.
        output: Tensor,
    },
    /// Another row is added to the only weight's.
    Added {
        /// The other row.
        addend: Tensor,
        /// What the sum is written to.
        sum: Tensor,
    },
}

/// Products of one row.
#[derive(Debug, Clone)]
pub(crate) struct RowProducts {
    /// The norm whose output is the input; it has no addends.
    pub(crate) norm: Option<RmsNorm>,
    /// The products, of one input.
    pub(crate) products: Vec<MatMul>,
    /// What is done with them.
    pub(crate) then: Then,
}

/// The bytes of a piece of a type's rows, as `row_piece.h` counts them.
fn slot_bytes(product: &MatMul, form: &Form, panel: u64) -> u64 {
    let block = product.weight.dtype().block_bytes() as u64;
    panel * ((form.stage as u64 * block + 15 + 4 + 15) / 16 * 16)
}

impl RowProducts {
    /// The types of the weights, each once.
    fn types(&self) -> Vec<&MatMul> {
        let mut types: Vec<&MatMul> = Vec::new();
        for product in &self.products {
            let known = |other: &&MatMul| other.weight.dtype() == product.weight.dtype();
            if !types.iter().any(|other| known(&other)) {
                types.push(product);
            }
        }
        types
    }

    fn input(&self) -> &Tensor {
        match &self.norm {
            Some(norm) => &norm.input,
            None => &self.products[0].input,
        }
    }

    /// What the launch writes.
    fn written(&self) -> Vec<&Tensor> {
        let mut written: Vec<&Tensor> = self.products.iter().map(|p| &p.output).collect();
        written.extend(self.norm.iter().map(|norm| &norm.output));
        match &self.then {
            Then::Nothing => {}
            Then::Gated { output, .. } => written.push(output),
            Then::Added { sum, .. } => written.push(sum),
        }
        written
    }

    /// What groups read while others write already.
    fn shared(&self) -> Vec<&Tensor> {
        let mut read = vec![self.input()];
        read.extend(self.norm.iter().filter_map(|norm| norm.weight.as_ref()));
        for product in &self.products {
            read.push(&product.weight);
            read.extend(&product.bias);
        }
        read
    }

    /// What is read before the launch waits for those before it.
    pub(crate) fn read_early(&self) -> Vec<Span> {
        let mut read: Vec<Span> = self.products.iter().map(|p| p.weight.span()).collect();
        let norms = self.norm.iter().filter_map(|norm| norm.weight.as_ref());
        read.extend(norms.map(Tensor::span));
        read
    }

    /// Whether a device's kernel takes it: how its launch is cut then.
    pub(crate) fn shape(&self, limits: &Limits) -> Option<Shape> {
        let types = self.types();
        let k = self.input().row_len();
        let aligned = |tensor: &Tensor| tensor.offset().is_multiple_of(16);
        let readable = |p: &MatMul| {
            let step = blocks::alignment(p.weight.dtype());
            (p.weight.offset() | p.weight.bytes() / p.weight.shape()[0]).is_multiple_of(step)
        };
        let gated = matches!(self.then, Then::Gated { .. });
        let fits = limits.fragment_bytes > 0
            && limits.activations == walsh_core::Activations::Int8
            && self.input().row_count() == 1
            && (1..=MOST_PARTS).contains(&self.products.len())
            && types.len() <= 2
            && self.products.iter().all(readable)
            && aligned(self.input())
            && self.norm.iter().all(|norm| norm.weight.as_ref().is_some_and(aligned) && aligned(&norm.output))
            // The two of a gate walk in step.
            && !(gated && types.len() > 1);
        let forms: Option<Vec<Form>> = types.iter().map(|p| form(p.weight.dtype())).collect();
        let forms = forms.filter(|_| fits)?;
        let fours = k / 4;
        let held = fours.div_ceil(THREADS);
        if self.norm.is_some() && held > MOST_HELD {
            return None;
        }
        let rows: u64 = self.products.iter().map(|p| p.weight.shape()[0]).sum();
        let multiprocessors = u64::from(limits.multiprocessors);
        let simds = multiprocessors * THREADS / 32;
        let panel = if gated || rows >= 2 * simds { 2 } else { 1 };
        let sizes = types.iter().zip(&forms);
        let slot = sizes.map(|(p, form)| slot_bytes(p, form, panel)).max()?;
        let code_bytes = 48 * (k / 32).next_multiple_of(4);
        let dynamic = code_bytes + THREADS / 32 * SLOTS * slot;
        (dynamic <= u64::from(limits.fragment_bytes)).then(|| Shape {
            held: if self.norm.is_some() { held } else { held.min(MOST_HELD / 2) },
            panel,
            code_bytes,
            dynamic,
            blocks: types
                .iter()
                .zip(forms)
                .map(|(p, form)| {
                    let blocks = k / p.weight.dtype().block_len() as u64;
                    [blocks, blocks.div_ceil(form.stage as u64)]
                })
                .collect(),
        })
    }

    /// Whether no group reads what another writes.
    pub(crate) fn is_sound(&self) -> bool {
        let written = self.written();
        let overlap = |a: &Tensor, b: &Tensor| a.span().overlaps(&b.span());
        let read = self.shared();
        if written.iter().any(|w| read.iter().any(|r| overlap(w, r))) {
            return false;
        }
        // An addend's number is read by who writes the sum.
        if let Then::Added { addend, sum } = &self.then {
            let others = written.iter().filter(|w| !w.span().same(&sum.span()));
            if others.clone().any(|w| overlap(w, addend)) || (overlap(addend, sum) && !addend.span().same(&sum.span())) {
                return false;
            }
        }
        let mut pairs = written.iter().enumerate().flat_map(|(at, a)| written[at + 1..].iter().map(move |b| (a, b)));
        pairs.all(|(a, b)| {
            // The gated numbers may take the place of what they are made of.
            let in_place = matches!(&self.then, Then::Gated { output, .. } if b.span().same(&output.span()) && a.span().same(&b.span()));
            in_place || !overlap(a, b)
        })
    }

    /// Adds the launch.
    pub(crate) fn lower(&self, shape: &Shape, lowering: &mut Lowering<'_>) -> Result<()> {
        let types = self.types();
        let gated = match &self.then {
            Then::Gated { activation, .. } => match activation {
                Activation::Silu => 1,
                Activation::GeluTanh => 2,
            },
            _ => 0,
        };
        let stored = |p: &&MatMul| type_constant(p.weight.dtype());
        let variant = Variant::new(
            &MATMUL_ROW,
            &[
                ("THREADS", THREADS as i64),
                ("RESIDENT", RESIDENT as i64),
                ("DYNAMIC", shape.dynamic as i64),
                ("TYPE", stored(&types[0])),
                ("OTHER", types.get(1).map_or(-1, stored)),
                ("PANEL", shape.panel as i64),
                ("SLOTS", SLOTS as i64),
                ("HELD", shape.held as i64),
                ("NORM", i64::from(self.norm.is_some())),
                ("GATED", gated),
                ("ADD", i64::from(matches!(self.then, Then::Added { .. }))),
            ],
        );
        let mut args = MatMulRowArgs {
            row_bytes: [0; 4],
            n: [0; 4],
            first_unit: [u32::MAX; 4],
            blocks: [0; 2],
            stages: [0; 2],
            units: 0,
            second: 0,
            biased: 0,
            k: self.input().row_len() as u32,
            code_bytes: shape.code_bytes as u32,
            eps: self.norm.as_ref().map_or(0.0, |norm| norm.eps),
        };
        for (at, [blocks, stages]) in shape.blocks.iter().enumerate() {
            args.blocks[at] = *blocks as u32;
            args.stages[at] = *stages as u32;
        }
        let mut units = 0;
        for (at, product) in self.products.iter().enumerate() {
            let rows = product.weight.shape()[0];
            args.row_bytes[at] = product.weight.bytes() / rows;
            args.n[at] = rows as u32;
            args.first_unit[at] = units as u32;
            args.second |= u32::from(product.weight.dtype() != types[0].weight.dtype()) << at;
            args.biased |= u32::from(product.bias.is_some()) << at;
            units += if gated == 0 { rows.div_ceil(shape.panel) } else if at == 0 { rows } else { 0 };
        }
        args.units = units as u32;
        let nothing = lowering.nothing();
        let span = |tensor: Option<&Tensor>| tensor.map_or_else(|| nothing.clone(), Tensor::span);
        let part = |at: usize| self.products.get(at);
        let mut spans: Vec<Span> = (0..MOST_PARTS).map(|at| span(part(at).map(|p| &p.weight))).collect();
        let norm = self.norm.as_ref();
        spans.push(self.input().span());
        spans.push(span(norm.and_then(|norm| norm.weight.as_ref())));
        spans.extend((0..MOST_PARTS).map(|at| span(part(at).and_then(|p| p.bias.as_ref()))));
        spans.push(span(match &self.then {
            Then::Added { addend, .. } => Some(addend),
            _ => None,
        }));
        spans.push(span(norm.map(|norm| &norm.output)));
        spans.extend((0..MOST_PARTS).map(|at| span(part(at).map(|p| &p.output))));
        spans.push(span(match &self.then {
            Then::Nothing => None,
            Then::Gated { output, .. } => Some(output),
            Then::Added { sum, .. } => Some(sum),
        }));
        let groups = units.min(u64::from(lowering.limits().multiprocessors));
        lowering.dispatch(variant, [groups, 1, 1], &args, spans)
    }
}

/// How a launch is cut.
pub(crate) struct Shape {
    /// Numbers of the input that a thread holds, four by four.
    held: u64,
    /// Rows of the weights that a simdgroup takes at a time.
    panel: u64,
    /// The bytes of the input's 8-bit form.
    code_bytes: u64,
    /// The memory of a group.
    dynamic: u64,
    /// Blocks and pieces of a row of each type.
    blocks: Vec<[u64; 2]>,
}
