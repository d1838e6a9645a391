use std::ops::Range;

use walsh_core::Result;
use walsh_core::ops::{Operation, RmsNorm};

use crate::isa::Isa;
use crate::lower::Lowering;
use crate::memory::View;
use crate::simd::versions;
use crate::team::{Phase, Scratch};

struct Norm {
    isa: Isa,
    width: usize,
    eps: f32,
    input: View<f32>,
    before: Option<(View<f32>, View<f32>)>,
    weight: Option<View<f32>>,
    after: Option<View<f32>>,
    output: View<f32>,
}

pub(crate) fn lower(op: &RmsNorm, lowering: &mut Lowering) -> Result<()> {
    let before = match &op.before {
        Some(before) => Some((View::of(&before.addend)?, View::of(&before.sum)?)),
        None => None,
    };
    let phase = Norm {
        isa: lowering.target().isa,
        width: op.input.row_len() as usize,
        eps: op.eps,
        input: View::of(&op.input)?,
        before,
        weight: op.weight.as_ref().map(View::of).transpose()?,
        after: op.after.as_ref().map(View::of).transpose()?,
        output: View::of(&op.output)?,
    };
    lowering.phase(&op.accesses(), phase);
    Ok(())
}

versions! {
    /// Adds b to a.
    fn add_into(a: &mut [f32], b: &[f32]) {
        for (a, b) in a.iter_mut().zip(b) {
            *a += b;
        }
    }
}

versions! {
    /// The sum of squares, over 16 running sums.
    fn sum_of_squares(x: &[f32]) -> f32 {
        let mut sums = [0.0f32; 16];
        let mut chunks = x.chunks_exact(16);
        for chunk in &mut chunks {
            for i in 0..16 {
                sums[i] += chunk[i] * chunk[i];
            }
        }
        let tail: f32 = chunks.remainder().iter().map(|x| x * x).sum();
        tail + sums.iter().sum::<f32>()
    }
}

/// 1 / √(mean square + eps) of a row.
fn inverse_rms(isa: Isa, row: &[f32], eps: f32) -> f32 {
    let sum = sum_of_squares(isa, row);
    let sum = if (1e-25..1e37).contains(&sum) {
        f64::from(sum)
    } else {
        // Squares may have left the range of f32, although the row is sound.
        row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum()
    };
    (1.0 / (sum / row.len() as f64 + f64::from(eps)).sqrt()) as f32
}

versions! {
    /// Multiplies by a factor.
    fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

versions! {
    /// Multiplies by a factor and by weights.
    fn scale_by(x: &mut [f32], factor: f32, weight: &[f32]) {
        for (x, w) in x.iter_mut().zip(weight) {
            *x = *x * factor * w;
        }
    }
}

impl Phase for Norm {
    fn items(&self) -> usize {
        self.input.len() / self.width
    }

    fn grain(&self) -> usize {
        (super::GRAIN / self.width).max(1)
    }

    fn cost(&self) -> u64 {
        self.input.len() as u64 / 4
    }

    fn scratch_bytes(&self) -> usize {
        self.width * size_of::<f32>()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        // The row is worked on in scratch: inputs and outputs may be the same
        // memory.
        let row = scratch.floats(self.width);
        for item in items {
            let range = item * self.width..(item + 1) * self.width;
            // SAFETY: each item touches its own rows alone, and the borrow of
            // each row ends before the next is taken.
            unsafe {
                row.copy_from_slice(self.input.slice(range.clone()));
                if let Some((addend, sum)) = &self.before {
                    add_into(self.isa, row, addend.slice(range.clone()));
                    sum.slice_mut(range.clone()).copy_from_slice(row);
                }
            }
            let factor = inverse_rms(self.isa, row, self.eps);
            match &self.weight {
                // SAFETY: no phase of this group writes the weight.
                Some(weight) => scale_by(self.isa, row, factor, unsafe { weight.all() }),
                None => scale(self.isa, row, factor),
            }
            // SAFETY: as above.
            unsafe {
                if let Some(after) = &self.after {
                    add_into(self.isa, row, after.slice(range.clone()));
                }
                self.output.slice_mut(range).copy_from_slice(row);
            }
        }
    }
}
