//! What all kernels for joined products have in common: the products, what is done with them, and their buffers.

use std::fmt::Write;

use walsh_core::ops::{Activation, MatMul, RmsNorm};
use walsh_core::{Buffer, Span, Tensor};

use crate::kernel::{Parameter, Variant, reads, writes};
use crate::lower::Lowering;
use crate::ops::blocks;

/// The most weights of a launch.
pub(crate) const MOST_PARTS: usize = 4;

/// The most types of weights of a launch: its kernel has the code of each.
pub(crate) fn most_types(input: &Tensor) -> usize {
    if input.row_count() == 1 { 2 } else { 1 }
}

/// Whether a weight's rows begin where the wide fields of their blocks can be read.
pub(crate) fn is_readable(weight: &Tensor) -> bool {
    (weight.offset() | row_bytes(weight)).is_multiple_of(blocks::alignment(weight.dtype()))
}

pub(super) fn row_bytes(weight: &Tensor) -> u64 {
    weight.bytes() / weight.shape()[0]
}

/// A variant's types, how each one's blocks are read in a namespace of its own.
pub(super) fn tables(variant: &Variant, before: &str, piece: &str) -> String {
    let mut text = format!(
        "{}{before}",
        include_str!("../../../kernels/cuda/matrices.h")
    );
    let mut space = |name: &str, stored: i64| {
        let _ = write!(
            text,
            "namespace {name} {{\n{}{}{piece}}} // namespace {name}\n",
            blocks::matrix_tables_of(stored),
            include_str!("../../../kernels/blocks.h")
        );
    };
    space("type", variant.constant("TYPE"));
    if variant.kernel().constants.contains(&"OTHER") {
        match variant.constant("OTHER") {
            ..0 => text.push_str("namespace other = type;\n"),
            stored => space("other", stored),
        }
    }
    text
}

/// What is done with products.
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
    /// Other rows are added to the only weight's.
    Added {
        /// The other rows.
        addend: Tensor,
        /// What the sum is written to.
        sum: Tensor,
    },
}

/// Products of a few rows.
#[derive(Debug, Clone)]
pub(crate) struct Products {
    /// The norm whose output is the input; it has no addends.
    pub(crate) norm: Option<RmsNorm>,
    /// The products, of one input.
    pub(crate) products: Vec<MatMul>,
    /// What is done with them.
    pub(crate) then: Then,
}

impl Products {
    /// The types of the weights, each once.
    pub(super) fn types(&self) -> Vec<&MatMul> {
        let mut types: Vec<&MatMul> = Vec::new();
        for product in &self.products {
            let known = |other: &&MatMul| other.weight.dtype() == product.weight.dtype();
            if !types.iter().any(known) {
                types.push(product);
            }
        }
        types
    }

    pub(super) fn input(&self) -> &Tensor {
        match &self.norm {
            Some(norm) => &norm.input,
            None => &self.products[0].input,
        }
    }

    /// What the launch writes.
    pub(super) fn written(&self) -> Vec<&Tensor> {
        let mut written: Vec<&Tensor> = self.products.iter().map(|p| &p.output).collect();
        written.extend(self.norm.iter().map(|norm| &norm.output));
        written.extend(self.joined());
        written
    }

    /// What groups read while others write already.
    pub(super) fn shared(&self) -> Vec<&Tensor> {
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
            if others.clone().any(|w| overlap(w, addend))
                || (overlap(addend, sum) && !addend.span().same(&sum.span()))
            {
                return false;
            }
        }
        let mut pairs = written
            .iter()
            .enumerate()
            .flat_map(|(at, a)| written[at + 1..].iter().map(move |b| (a, b)));
        pairs.all(|(a, b)| {
            // The gated numbers may take the place of what they are made of.
            let in_place = matches!(&self.then, Then::Gated { output, .. } if b.span().same(&output.span()) && a.span().same(&b.span()));
            in_place || !overlap(a, b)
        })
    }

    /// The numbers that every kernel is told of its weights, where a unit is `panel` rows.
    pub(super) fn parts(&self, panel: u64) -> Parts {
        let first = self.products[0].weight.dtype();
        let mut parts = Parts {
            row_bytes: [0; 4],
            n: [0; 4],
            first_unit: [u32::MAX; 4],
            units: 0,
            second: 0,
            biased: 0,
        };
        for (at, product) in self.products.iter().enumerate() {
            let rows = product.weight.shape()[0];
            parts.row_bytes[at] = product.weight.bytes() / rows;
            parts.n[at] = rows as u32;
            parts.first_unit[at] = parts.units;
            parts.second |= u32::from(product.weight.dtype() != first) << at;
            parts.biased |= u32::from(product.bias.is_some()) << at;
            parts.units += rows.div_ceil(panel) as u32;
        }
        parts
    }

    /// What of each product a kernel has as buffers, one for each weight that there may be.
    pub(super) fn each<'a>(
        &'a self,
        lowering: &Lowering<'_>,
        what: impl Fn(&'a MatMul) -> Option<&'a Tensor>,
    ) -> impl Iterator<Item = Span> {
        let nothing = lowering.nothing();
        let span = |at: usize| self.products.get(at).and_then(&what).map(Tensor::span);
        let spans: Vec<Option<Span>> = (0..MOST_PARTS).map(span).collect();
        spans
            .into_iter()
            .map(move |span| span.unwrap_or_else(|| nothing.clone()))
    }

    /// The buffers of a kernel of several rows, whose input has a form of its own: [`ROWS_BUFFERS`].
    pub(super) fn spans(&self, form: &Buffer, lowering: &Lowering<'_>) -> Vec<Span> {
        let mut spans: Vec<_> = self.each(lowering, |p| Some(&p.weight)).collect();
        spans.push(form.span());
        spans.extend(self.each(lowering, |p| p.bias.as_ref()));
        spans.push(lowering.span(self.addend()));
        spans.extend(self.each(lowering, |p| Some(&p.output)));
        spans.push(lowering.span(self.joined()));
        spans
    }

    /// The other rows that are added.
    pub(super) fn addend(&self) -> Option<&Tensor> {
        match &self.then {
            Then::Added { addend, .. } => Some(addend),
            Then::Nothing | Then::Gated { .. } => None,
        }
    }

    /// What is made of the products.
    pub(super) fn joined(&self) -> Option<&Tensor> {
        match &self.then {
            Then::Nothing => None,
            Then::Gated { output, .. } => Some(output),
            Then::Added { sum, .. } => Some(sum),
        }
    }
}

/// See [`Products::parts`].
pub(super) struct Parts {
    pub(super) row_bytes: [u64; 4],
    pub(super) n: [u32; 4],
    pub(super) first_unit: [u32; 4],
    pub(super) units: u32,
    /// The weights of the second type, a bit each.
    pub(super) second: u32,
    /// The weights with a bias, a bit each.
    pub(super) biased: u32,
}

/// The buffers of weights, and of what is added to and made of their products.
pub(super) const WEIGHTS: [Parameter; MOST_PARTS] = [
    reads("weight_0", "uchar"),
    reads("weight_1", "uchar"),
    reads("weight_2", "uchar"),
    reads("weight_3", "uchar"),
];
pub(super) const BIASES: [Parameter; MOST_PARTS] = [
    reads("bias_0", "float"),
    reads("bias_1", "float"),
    reads("bias_2", "float"),
    reads("bias_3", "float"),
];
pub(super) const OUTPUTS: [Parameter; MOST_PARTS] = [
    writes("output_0", "float"),
    writes("output_1", "float"),
    writes("output_2", "float"),
    writes("output_3", "float"),
];

/// The buffers of the kernels of several rows.
pub(super) const ROWS_BUFFERS: [Parameter; 15] = [
    WEIGHTS[0],
    WEIGHTS[1],
    WEIGHTS[2],
    WEIGHTS[3],
    reads("input", "uint"),
    BIASES[0],
    BIASES[1],
    BIASES[2],
    BIASES[3],
    reads("addend", "float"),
    OUTPUTS[0],
    OUTPUTS[1],
    OUTPUTS[2],
    OUTPUTS[3],
    writes("joined", "float"),
];

/// The memory of a multiprocessor that each group takes besides its own.
pub(super) const RESERVED: u64 = 1024;
