use std::cell::Cell;
use std::ops::Range;

use walsh_core::Result;
use walsh_core::ops::{Activation, Add, GatedActivation, Operation, Scale, SoftCap};

use crate::lowering::Lowering;
use crate::memory::View;
use crate::simd::{self, LANES, Simd, Token, entries};
use crate::team::{Phase, Scratch};

/// What happens to each number, or pair of numbers.
#[derive(Clone, Copy)]
enum Map {
    Product,
    Silu,
    Sigmoid,
    GeluTanh,
    ClampedSwish { alpha: f32, limit: f32 },
    Add,
    Scale(f32),
    SoftCap(f32),
}

/// `output = map(a, b)` number by number, in pieces of [`PIECE`].
struct Elementwise {
    set: Token,
    map: Map,
    a: View<f32>,
    /// Repeats when shorter than a.
    b: Option<View<f32>>,
    output: View<f32>,
}

/// The numbers of one work item.
const PIECE: usize = 1024;

pub(crate) fn lower_gated(op: &GatedActivation, lowering: &mut Lowering) -> Result<()> {
    let map = match op.activation {
        Activation::Identity => Map::Product,
        Activation::Silu => Map::Silu,
        Activation::Sigmoid => Map::Sigmoid,
        Activation::GeluTanh => Map::GeluTanh,
        Activation::ClampedSwish { alpha, limit } => Map::ClampedSwish { alpha, limit },
    };
    let phase = Elementwise {
        set: lowering.target().token(),
        map,
        a: View::of(&op.gate)?,
        b: Some(View::of(&op.up)?),
        output: View::of(&op.output)?,
    };
    lowering.phase(&op.accesses(), phase);
    Ok(())
}

pub(crate) fn lower_add(op: &Add, lowering: &mut Lowering) -> Result<()> {
    let phase = Elementwise {
        set: lowering.target().token(),
        map: Map::Add,
        a: View::of(&op.a)?,
        b: Some(View::of(&op.b)?),
        output: View::of(&op.output)?,
    };
    lowering.phase(&op.accesses(), phase);
    Ok(())
}

pub(crate) fn lower_scale(op: &Scale, lowering: &mut Lowering) -> Result<()> {
    let phase = Elementwise {
        set: lowering.target().token(),
        map: Map::Scale(op.factor),
        a: View::of(&op.input)?,
        b: None,
        output: View::of(&op.output)?,
    };
    lowering.phase(&op.accesses(), phase);
    Ok(())
}

pub(crate) fn lower_softcap(op: &SoftCap, lowering: &mut Lowering) -> Result<()> {
    let phase = Elementwise {
        set: lowering.target().token(),
        map: Map::SoftCap(op.cap),
        a: View::of(&op.input)?,
        b: None,
        output: View::of(&op.output)?,
    };
    lowering.phase(&op.accesses(), phase);
    Ok(())
}

/// As many consecutive numbers of each. The output is one of the operands or apart from them, so that what is read of an
/// index is read before that index is written.
#[derive(Clone, Copy)]
struct Numbers<'a> {
    a: &'a [Cell<f32>],
    /// What maps of one operand do not read: the first again.
    b: &'a [Cell<f32>],
    output: &'a [Cell<f32>],
}

entries! {
    /// `output = map(a, b)`.
    fn map_numbers(map: Map, numbers: Numbers<'_>) = map_all
}

impl Map {
    /// The map of vectors.
    #[inline(always)]
    fn of<S: Simd>(self, s: S, a: S::F, b: S::F) -> S::F {
        match self {
            Map::Product => s.mul(a, b),
            Map::Silu => s.mul(silu(s, a), b),
            Map::Sigmoid => s.mul(sigmoid(s, a), b),
            Map::GeluTanh => s.mul(gelu_tanh(s, a), b),
            Map::ClampedSwish { alpha, limit } => {
                let (most, least) = (s.splat(limit), s.splat(-limit));
                let gate = s.pick_below(most, a, most, a);
                let up = s.pick_below(most, b, most, b);
                let up = s.pick_below(up, least, least, up);
                let swish = s.mul(gate, sigmoid(s, s.mul(gate, s.splat(alpha))));
                s.mul(swish, s.add(up, s.splat(1.0)))
            }
            Map::Add => s.add(a, b),
            Map::Scale(factor) => s.mul(a, s.splat(factor)),
            Map::SoftCap(cap) => {
                let cap = s.splat(cap);
                s.mul(cap, simd::tanh(s, s.div(a, cap)))
            }
        }
    }
}

/// See [`map_numbers`].
#[inline(always)]
fn map_all<S: Simd>(s: S, map: Map, numbers: Numbers<'_>) {
    // A loop for each map. (Closures are not always inlined, and are then compiled without the instruction set.)
    match map {
        Map::Product => each::<S, true>(s, numbers, Map::Product),
        Map::Silu => each::<S, true>(s, numbers, Map::Silu),
        Map::Sigmoid => each::<S, true>(s, numbers, Map::Sigmoid),
        Map::GeluTanh => each::<S, true>(s, numbers, Map::GeluTanh),
        Map::ClampedSwish { alpha, limit } => {
            each::<S, true>(s, numbers, Map::ClampedSwish { alpha, limit });
        }
        Map::Add => each::<S, true>(s, numbers, Map::Add),
        Map::Scale(factor) => each::<S, false>(s, numbers, Map::Scale(factor)),
        Map::SoftCap(cap) => each::<S, false>(s, numbers, Map::SoftCap(cap)),
    }
}

/// A loop of one map, of two operands or one.
#[inline(always)]
fn each<S: Simd, const TWO: bool>(s: S, numbers: Numbers<'_>, map: Map) {
    let (a, a_rest) = numbers.a.as_chunks();
    let (b, b_rest) = numbers.b.as_chunks();
    let (output, rest) = numbers.output.as_chunks();
    let zero = s.splat(0.0);
    for ((a, b), output) in a.iter().zip(b).zip(output) {
        let second = if TWO { s.get(b) } else { zero };
        s.set(output, map.of(s, s.get(a), second));
    }
    if !rest.is_empty() {
        let (mut first, mut second) = ([0.0f32; LANES], [0.0f32; LANES]);
        for (i, a) in a_rest.iter().enumerate() {
            first[i] = a.get();
        }
        if TWO {
            for (i, b) in b_rest.iter().enumerate() {
                second[i] = b.get();
            }
        }
        let mapped = map.of(s, s.read(&first), s.read(&second));
        s.write(&mut first, mapped);
        for (output, number) in rest.iter().zip(first) {
            output.set(number);
        }
    }
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let (zero, one) = (s.splat(0.0), s.splat(1.0));
    let e = simd::exp(s, s.sub(zero, s.abs(x)));
    s.div(s.pick_below(x, zero, e, one), s.add(one, e))
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub(super) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    s.mul(x, sigmoid(s, x))
}

/// GELU in its tanh form, through tanh(u) = 2·sigmoid(2u) − 1.
#[inline(always)]
fn gelu_tanh<S: Simd>(s: S, x: S::F) -> S::F {
    const C: f32 = 2.0 * 0.797_884_6; // 2·√(2/π)
    let square = s.mul(x, x);
    let inner = s.fma(square, s.splat(C * 0.044_715), s.splat(C));
    s.mul(x, sigmoid(s, s.mul(x, inner)))
}

impl Elementwise {
    /// Where the numbers of b are from one of a on, and how many follow each other.
    fn b_from(&self, start: usize) -> (usize, usize) {
        match &self.b {
            // A row that repeats.
            Some(row) if row.len() < self.a.len() => {
                let column = start % row.len();
                (column, row.len() - column)
            }
            _ => (start, usize::MAX),
        }
    }
}

impl Phase for Elementwise {
    fn items(&self) -> usize {
        self.a.len().div_ceil(PIECE)
    }

    fn grain(&self) -> usize {
        super::GRAIN / PIECE
    }

    fn cost(&self) -> u64 {
        match self.map {
            Map::Add | Map::Scale(_) => self.a.len() as u64 / 8,
            _ => self.a.len() as u64 / 2,
        }
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        let mut start = items.start * PIECE;
        let end = (items.end * PIECE).min(self.a.len());
        while start < end {
            let (b, follow) = self.b_from(start);
            let count = follow.min(end - start);
            // SAFETY: each item touches its own numbers alone, of tensors that were found to be the same memory or apart.
            let numbers = unsafe {
                let a = self.a.cells(start..start + count);
                Numbers {
                    a,
                    b: self.b.as_ref().map_or(a, |view| view.cells(b..b + count)),
                    output: self.output.cells(start..start + count),
                }
            };
            map_numbers(self.set, self.map, numbers);
            start += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn activations_are_close_and_keep_nan() {
        let inputs: Vec<f32> = (-4000..4003).map(|i| i as f32 * 0.005).collect();
        for isa in Isa::available() {
            let run = |map: Map, a: &[f32]| {
                let (mut a, mut ones) = (a.to_vec(), vec![1.0f32; a.len()]);
                let mut output = vec![0.0f32; a.len()];
                let numbers = Numbers {
                    a: Cell::from_mut(&mut a[..]).as_slice_of_cells(),
                    b: Cell::from_mut(&mut ones[..]).as_slice_of_cells(),
                    output: Cell::from_mut(&mut output[..]).as_slice_of_cells(),
                };
                map_numbers(Token::of(isa), map, numbers);
                output
            };
            let (silu, gelu) = (run(Map::Silu, &inputs), run(Map::GeluTanh, &inputs));
            for (i, x) in inputs.iter().enumerate() {
                let x = f64::from(*x);
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                let exact = [x / (1.0 + (-x).exp()), 0.5 * x * (1.0 + u.tanh())];
                assert!((f64::from(silu[i]) - exact[0]).abs() < 2e-6, "{isa} {x}");
                assert!((f64::from(gelu[i]) - exact[1]).abs() < 2e-6, "{isa} {x}");
            }
            for map in [Map::Silu, Map::GeluTanh, Map::SoftCap(3.0)] {
                let found = run(map, &[f32::NAN, -100.0, 100.0]);
                assert!(found[0].is_nan(), "{isa}");
                assert!(!found[1].is_nan() && !found[2].is_nan(), "{isa}");
            }
        }
    }
}
