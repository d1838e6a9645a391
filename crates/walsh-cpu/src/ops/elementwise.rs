use std::ops::Range;

use walsh_core::Result;
use walsh_core::ops::{Activation, Add, GatedActivation, Operation, Scale, SoftCap};

use crate::isa::Isa;
use crate::lowering::Lowering;
use crate::memory::View;
use crate::simd::{self, LANES, Simd, entries};
use crate::team::{Phase, Scratch};

/// What happens to each number, or pair of numbers.
#[derive(Clone, Copy)]
enum Map {
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
    isa: Isa,
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
        Activation::Silu => Map::Silu,
        Activation::Sigmoid => Map::Sigmoid,
        Activation::GeluTanh => Map::GeluTanh,
        Activation::ClampedSwish { alpha, limit } => Map::ClampedSwish { alpha, limit },
    };
    let phase = Elementwise {
        isa: lowering.target().isa,
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
        isa: lowering.target().isa,
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
        isa: lowering.target().isa,
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
        isa: lowering.target().isa,
        map: Map::SoftCap(op.cap),
        a: View::of(&op.input)?,
        b: None,
        output: View::of(&op.output)?,
    };
    lowering.phase(&op.accesses(), phase);
    Ok(())
}

/// Consecutive numbers. The output is one of the operands or apart from them, so that what is read of an index is read
/// before that index is written.
#[derive(Clone, Copy)]
struct Numbers {
    a: *const f32,
    b: *const f32,
    output: *mut f32,
    count: usize,
}

entries! {
    /// `output = map(a, b)`. Maps of one operand do not read b.
    ///
    /// # Safety
    /// The pointers are good for as many numbers.
    unsafe fn map_numbers(map: Map, numbers: Numbers) = map_all
}

impl Map {
    /// The map of vectors.
    #[inline(always)]
    fn of<S: Simd>(self, s: S, a: S::F, b: S::F) -> S::F {
        match self {
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
unsafe fn map_all<S: Simd>(s: S, map: Map, numbers: Numbers) {
    // A loop for each map. (Closures are not always inlined, and are then compiled without the instruction set.)
    // SAFETY: the caller's pointers.
    unsafe {
        match map {
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
}

/// # Safety
/// As for [`map_numbers`].
#[inline(always)]
unsafe fn each<S: Simd, const TWO: bool>(s: S, numbers: Numbers, map: Map) {
    let Numbers {
        a,
        b,
        output,
        count,
    } = numbers;
    let whole = count / LANES * LANES;
    // SAFETY: the caller's pointers; the last vector is a copy of what is left, with room.
    unsafe {
        let zero = s.splat(0.0);
        for i in (0..whole).step_by(LANES) {
            let second = if TWO { s.load(b.add(i)) } else { zero };
            s.store(output.add(i), map.of(s, s.load(a.add(i)), second));
        }
        if whole < count {
            let rest = count - whole;
            let (mut first, mut second) = ([0.0f32; LANES], [0.0f32; LANES]);
            first
                .as_mut_ptr()
                .copy_from_nonoverlapping(a.add(whole), rest);
            if TWO {
                second
                    .as_mut_ptr()
                    .copy_from_nonoverlapping(b.add(whole), rest);
            }
            let mapped = map.of(s, s.load(first.as_ptr()), s.load(second.as_ptr()));
            s.store(first.as_mut_ptr(), mapped);
            output
                .add(whole)
                .copy_from_nonoverlapping(first.as_ptr(), rest);
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
    /// The numbers of b from one of a on, and how many follow each other.
    fn b_from(&self, start: usize) -> (*const f32, usize) {
        match &self.b {
            // A row that repeats.
            Some(row) if row.len() < self.a.len() => {
                let column = start % row.len();
                (row.base().wrapping_add(column), row.len() - column)
            }
            Some(b) => (b.base().wrapping_add(start), b.len() - start),
            None => (std::ptr::null(), usize::MAX),
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
            let numbers = Numbers {
                a: self.a.base().wrapping_add(start),
                b,
                output: self.output.base().wrapping_add(start),
                count: follow.min(end - start),
            };
            // SAFETY: each item touches its own numbers alone, of tensors that were found to be the same memory or apart.
            unsafe { map_numbers(self.isa, self.map, numbers) };
            start += numbers.count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_close_and_keep_nan() {
        let inputs: Vec<f32> = (-4000..4003).map(|i| i as f32 * 0.005).collect();
        for isa in Isa::available() {
            let run = |map: Map, a: &[f32]| {
                let ones = vec![1.0f32; a.len()];
                let mut output = vec![0.0f32; a.len()];
                let numbers = Numbers {
                    a: a.as_ptr(),
                    b: ones.as_ptr(),
                    output: output.as_mut_ptr(),
                    count: a.len(),
                };
                // SAFETY: three vectors of one length, and a set that the machine has.
                unsafe { map_numbers(isa, map, numbers) };
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
