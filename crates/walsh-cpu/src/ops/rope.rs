use std::ops::Range;

use walsh_core::Result;
use walsh_core::ops::{Operation, Pairing, Rope, RopeConfig, Temperature};

use crate::lowering::Lowering;
use crate::memory::View;
use crate::simd::{Token, versions};
use crate::team::{Phase, Scratch};

/// Cosines and sines at some positions.
#[derive(PartialEq)]
struct Turns(RopeConfig);

/// Computes `[n, 2, dims / 2]`: the cosines of a token's pairs, then the sines.
struct Table {
    positions: View<i32>,
    frequencies: Vec<f64>,
    magnitude: f64,
    temperature: Option<Temperature>,
    output: View<f32>,
}

struct Rotate {
    set: Token,
    heads: usize,
    head_dim: usize,
    pairs: usize,
    pairing: Pairing,
    input: View<f32>,
    table: View<f32>,
    output: View<f32>,
}

pub(crate) fn lower(op: &Rope, lowering: &mut Lowering) -> Result<()> {
    let pairs = op.config.dims / 2;
    let n = op.positions.elements();
    let bytes = n * pairs * 2 * size_of::<f32>() as u64;
    let purpose = Turns(op.config.clone());
    let table = lowering.derived(purpose, &[op.positions.span()], bytes, |buffer, _| {
        let (frequencies, magnitude) = op.config.frequencies();
        Ok(Table {
            positions: View::of(&op.positions)?,
            frequencies,
            magnitude,
            temperature: op.config.temperature,
            output: View::range(buffer, 0, bytes)?,
        })
    })?;
    let phase = Rotate {
        set: lowering.target().token(),
        heads: op.input.shape()[1] as usize,
        head_dim: op.input.row_len() as usize,
        pairs: pairs as usize,
        pairing: op.config.pairing,
        input: View::of(&op.input)?,
        table: View::range(&table, 0, bytes)?,
        output: View::of(&op.output)?,
    };
    let mut accesses = op.accesses();
    accesses.read(table.span());
    lowering.phase(&accesses, phase);
    Ok(())
}

impl Phase for Table {
    fn items(&self) -> usize {
        self.positions.len()
    }

    fn grain(&self) -> usize {
        8
    }

    fn cost(&self) -> u64 {
        (self.output.len() * 10) as u64
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        let pairs = self.frequencies.len();
        for item in items {
            // SAFETY: the list orders this read after the positions' writes,
            // and each item writes its own row.
            let (position, row) = unsafe {
                (
                    self.positions.slice(item..item + 1)[0],
                    self.output
                        .slice_mut(item * pairs * 2..(item + 1) * pairs * 2),
                )
            };
            let (cosines, sines) = row.split_at_mut(pairs);
            let temperature = self.temperature.map_or(1.0, |of| of.factor(position));
            let magnitude = self.magnitude * temperature;
            for i in 0..pairs {
                // In f64 throughout: at position 100,000 an f32 angle or
                // frequency is off by 0.004.
                let angle = f64::from(position) * self.frequencies[i];
                let (sin, cos) = angle.sin_cos();
                cosines[i] = (cos * magnitude) as f32;
                sines[i] = (sin * magnitude) as f32;
            }
        }
    }
}

versions! {
    /// Rotates numbers i and i + pairs.
    fn rotate_halves(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
        let pairs = cosines.len();
        let (low, high) = head.split_at_mut(pairs);
        for i in 0..pairs.min(sines.len()).min(high.len()) {
            let (a, b) = (low[i], high[i]);
            low[i] = a * cosines[i] - b * sines[i];
            high[i] = a * sines[i] + b * cosines[i];
        }
    }
}

versions! {
    /// Rotates numbers 2i and 2i + 1.
    fn rotate_pairs(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
        for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cosines).zip(sines) {
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a * cos - b * sin;
            pair[1] = a * sin + b * cos;
        }
    }
}

impl Phase for Rotate {
    /// One item per token.
    fn items(&self) -> usize {
        self.input.len() / (self.heads * self.head_dim)
    }

    fn grain(&self) -> usize {
        (super::GRAIN / (self.heads * self.head_dim)).max(1)
    }

    fn cost(&self) -> u64 {
        self.input.len() as u64 / 4
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        let width = self.heads * self.head_dim;
        for item in items {
            let range = item * width..(item + 1) * width;
            if self.input.base() != self.output.base() {
                // SAFETY: apart from each other by validation; each item touches
                // its own rows alone.
                unsafe {
                    self.output
                        .slice_mut(range.clone())
                        .copy_from_slice(self.input.slice(range.clone()));
                }
            }
            // SAFETY: as above; the table was written before a barrier.
            let (output, table) = unsafe {
                (
                    self.output.slice_mut(range),
                    self.table
                        .slice(item * self.pairs * 2..(item + 1) * self.pairs * 2),
                )
            };
            let (cosines, sines) = table.split_at(self.pairs);
            for head in output.chunks_exact_mut(self.head_dim) {
                match self.pairing {
                    Pairing::HalfSplit => {
                        rotate_halves(self.set, &mut head[..2 * self.pairs], cosines, sines);
                    }
                    Pairing::Pairwise => {
                        rotate_pairs(self.set, &mut head[..2 * self.pairs], cosines, sines);
                    }
                }
            }
        }
    }
}
