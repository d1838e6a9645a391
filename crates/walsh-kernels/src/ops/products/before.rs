//! Forms of an input together with what makes it: the kernels that round rows can take norms or gate them first, and so spare a
//! launch and the wait for it.

use walsh_core::ops::{Activation, Op};
use walsh_core::{Buffer, Span, Tensor};

use super::few::ROUND_ROWS;
use super::wgmma::SLAB_ROWS;
use crate::dispatch::{Dispatch, Part};
use crate::kernel::{Parameter, Variant, reads, writes};
use crate::lower::Lowering;

/// The texts of a kernel that makes forms.
pub(super) const INCLUDES: &[&str] = &[
    include_str!("../../../kernels/cuda/matrices.h"),
    include_str!("../../../kernels/gates.h"),
    include_str!("../../../kernels/cuda/norm_factor.h"),
    include_str!("../../../kernels/cuda/before.h"),
];

/// Its buffers.
pub(super) const BUFFERS: [Parameter; 4] = [
    reads("input", "float"),
    reads("by", "float"),
    writes("written", "float"),
    writes("output", "uint"),
];

/// The most times four numbers of a row that a thread holds.
const MOST_HELD: u64 = 8;

/// The buffers where the input is there already.
pub(super) fn nothing_before(input: &Tensor, form: &Buffer, lowering: &Lowering<'_>) -> Vec<Span> {
    vec![
        input.span(),
        lowering.nothing(),
        lowering.nothing(),
        form.span(),
    ]
}

/// What makes a form's input, as `before.h` numbers it.
struct Before<'a> {
    number: i64,
    input: &'a Tensor,
    by: &'a Tensor,
    output: &'a Tensor,
    eps: f32,
}

impl<'a> Before<'a> {
    fn of(op: &'a Op) -> Option<Self> {
        match op {
            Op::RmsNorm(norm) if norm.before.is_none() && norm.after.is_none() => Some(Self {
                number: 1,
                input: &norm.input,
                by: norm.weight.as_ref()?,
                output: &norm.output,
                eps: norm.eps,
            }),
            Op::GatedActivation(gated) => Some(Self {
                number: match gated.activation {
                    Activation::Silu => 2,
                    Activation::GeluTanh => 3,
                    _ => return None,
                },
                input: &gated.gate,
                by: &gated.up,
                output: &gated.output,
                eps: 0.0,
            }),
            _ => None,
        }
    }
}

/// An op and the dispatch behind it, which makes a form of what the op gives, as one; `None` where no kernel does that.
pub(crate) fn together(op: &Dispatch, form: &Dispatch) -> Option<Dispatch> {
    let (Part::Whole(whole), Part::Form) = (&op.part, &form.part) else {
        return None;
    };
    let kernel = form.variant.kernel();
    let rounds = std::ptr::eq(kernel, &raw const ROUND_ROWS);
    if !rounds && !std::ptr::eq(kernel, &raw const SLAB_ROWS) {
        return None;
    }
    let before = Before::of(whole)?;
    let tensors = [before.input, before.by, before.output];
    let threads = form.variant.constant("THREADS") as u64;
    let held = match before.number {
        1 => (before.output.row_len() / 4).div_ceil(threads),
        _ => 1,
    };
    let fits = form.buffers[0].span.same(&before.output.span())
        && tensors.iter().all(|t| t.offset().is_multiple_of(16))
        && held <= MOST_HELD;
    if !fits {
        return None;
    }
    let constant = |name: &&'static str| {
        let value = match *name {
            "BEFORE" => before.number,
            "HELD" => held as i64,
            known => form.variant.constant(known),
        };
        (*name, value)
    };
    let constants: Vec<_> = kernel.constants.iter().map(constant).collect();
    let mut joined = form.clone();
    joined.variant = Variant::new(kernel, &constants);
    joined.part = Part::Step;
    joined.command = op.command;
    for (binding, tensor) in joined.buffers.iter_mut().zip(tensors) {
        binding.span = tensor.span();
    }
    let eps = kernel
        .args
        .fields
        .iter()
        .find(|field| field.name == "eps")?
        .offset;
    joined.args[eps..][..4].copy_from_slice(&before.eps.to_le_bytes());
    if rounds && before.number == 1 {
        // A group for each row, those that fill tiles up among them.
        joined.groups = [8 * form.variant.constant("TILES") as u32, 1, 1];
    }
    Some(joined)
}
