use std::ops::Range;

use walsh_core::Result;
use walsh_core::ops::{Activation, Add, GatedActivation, Operation, Scale, SoftCap};

use crate::isa::Isa;
use crate::lower::Lowering;
use crate::memory::View;
use crate::simd::{self, versions};
use crate::team::{Phase, Scratch};

/// What happens to each number.
enum Map {
    Silu,
    GeluTanh,
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

/// The numbers of one work item. Operands are copied into two such blocks
/// first, because the output may be one of them in place.
const PIECE: usize = 1024;

pub(crate) fn lower_gated(op: &GatedActivation, lowering: &mut Lowering) -> Result<()> {
    let map = match op.activation {
        Activation::Silu => Map::Silu,
        Activation::GeluTanh => Map::GeluTanh,
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

versions! {
    fn silu(a: &mut [f32], b: &[f32]) {
        for (a, b) in a.iter_mut().zip(b) {
            *a = simd::silu(*a) * b;
        }
    }
}

versions! {
    fn gelu_tanh(a: &mut [f32], b: &[f32]) {
        for (a, b) in a.iter_mut().zip(b) {
            *a = simd::gelu_tanh(*a) * b;
        }
    }
}

versions! {
    fn add(a: &mut [f32], b: &[f32]) {
        for (a, b) in a.iter_mut().zip(b) {
            *a += b;
        }
    }
}

versions! {
    fn scale(a: &mut [f32], factor: f32) {
        for a in a {
            *a *= factor;
        }
    }
}

versions! {
    fn softcap(a: &mut [f32], cap: f32) {
        for a in a {
            *a = cap * simd::tanh(*a / cap);
        }
    }
}

impl Elementwise {
    /// Copies numbers of b that go with `range` of a.
    ///
    /// # Safety
    /// Nothing writes them meanwhile.
    unsafe fn load_b(&self, view: &View<f32>, range: Range<usize>, block: &mut [f32]) {
        if view.len() == self.a.len() {
            // SAFETY: the caller's.
            block.copy_from_slice(unsafe { view.slice(range) });
            return;
        }
        // SAFETY: the caller's.
        let row = unsafe { view.all() };
        let mut column = range.start % row.len();
        let mut rest = block;
        while !rest.is_empty() {
            let count = rest.len().min(row.len() - column);
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&row[column..column + count]);
            (column, rest) = (0, later);
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
            Map::Add | Map::Scale(_) => self.a.len() as u64 / 4,
            _ => self.a.len() as u64,
        }
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        let (mut block_a, mut block_b) = ([0.0f32; PIECE], [0.0f32; PIECE]);
        for item in items {
            let range = item * PIECE..((item + 1) * PIECE).min(self.a.len());
            let a = &mut block_a[..range.len()];
            let b = &mut block_b[..range.len()];
            // SAFETY: each item touches its own numbers alone, and no borrow
            // outlives its copy.
            unsafe {
                a.copy_from_slice(self.a.slice(range.clone()));
                if let Some(view) = &self.b {
                    self.load_b(view, range.clone(), b);
                }
            }
            match self.map {
                Map::Silu => silu(self.isa, a, b),
                Map::GeluTanh => gelu_tanh(self.isa, a, b),
                Map::Add => add(self.isa, a, b),
                Map::Scale(factor) => scale(self.isa, a, factor),
                Map::SoftCap(cap) => softcap(self.isa, a, cap),
            }
            // SAFETY: as above.
            unsafe { self.output.slice_mut(range) }.copy_from_slice(a);
        }
    }
}
