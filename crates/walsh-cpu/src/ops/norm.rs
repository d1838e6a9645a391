use std::ops::Range;

use walsh_core::Result;
use walsh_core::ops::{Operation, RmsNorm};

use crate::isa::Isa;
use crate::lowering::Lowering;
use crate::memory::View;
use crate::simd::{LANES, Simd, entries};
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

/// A row's numbers: where they come from and where they go. Tensors are the same memory or apart, so that what is read of
/// an index is read before anything of that index is written.
#[derive(Clone, Copy)]
struct Row {
    width: usize,
    input: *const f32,
    /// What is added first, and where the sum is kept.
    before: Option<(*const f32, *mut f32)>,
    weight: Option<*const f32>,
    after: Option<*const f32>,
    output: *mut f32,
    eps: f32,
}

impl Row {
    /// The numbers whose norm is taken, once the sum is kept.
    fn normed(&self) -> *const f32 {
        self.before.map_or(self.input, |(_, sum)| sum.cast_const())
    }

    /// The numbers that do not fill a vector.
    fn tail(&self) -> Range<usize> {
        self.width / LANES * LANES..self.width
    }
}

entries! {
    /// Normalises a row.
    ///
    /// # Safety
    /// The row's pointers are good for its width.
    unsafe fn normalise(row: Row) = normalise_row
}

/// See [`normalise`].
#[inline(always)]
unsafe fn normalise_row<S: Simd>(s: S, row: Row) {
    // SAFETY: the caller's pointers; vectors end before the tail.
    unsafe {
        let sum = sum_of_squares(s, row);
        let x = row.normed();
        let sum = if (1e-25..1e37).contains(&sum) {
            f64::from(sum)
        } else {
            // Squares may have left the range of f32, although the row is sound.
            let numbers = std::slice::from_raw_parts(x, row.width);
            numbers.iter().map(|x| f64::from(*x) * f64::from(*x)).sum()
        };
        let factor = (1.0 / (sum / row.width as f64 + f64::from(row.eps)).sqrt()) as f32;
        for i in (0..row.tail().start).step_by(LANES) {
            let mut y = s.mul(s.load(x.add(i)), s.splat(factor));
            if let Some(weight) = row.weight {
                y = s.mul(y, s.load(weight.add(i)));
            }
            if let Some(after) = row.after {
                y = s.add(y, s.load(after.add(i)));
            }
            s.store(row.output.add(i), y);
        }
        for i in row.tail() {
            let mut y = *x.add(i) * factor;
            if let Some(weight) = row.weight {
                y *= *weight.add(i);
            }
            if let Some(after) = row.after {
                y += *after.add(i);
            }
            *row.output.add(i) = y;
        }
    }
}

/// The sum of squares, after adding what is added first.
///
/// # Safety
/// As for [`normalise`].
#[inline(always)]
unsafe fn sum_of_squares<S: Simd>(s: S, row: Row) -> f32 {
    // SAFETY: the caller's pointers; vectors end before the tail.
    unsafe {
        let mut sums = [s.splat(0.0); 4];
        for i in (0..row.tail().start).step_by(LANES) {
            let mut x = s.load(row.input.add(i));
            if let Some((addend, sum)) = row.before {
                x = s.add(x, s.load(addend.add(i)));
                s.store(sum.add(i), x);
            }
            let sum = &mut sums[i / LANES % 4];
            *sum = s.fma(x, x, *sum);
        }
        let [a, b, c, d] = sums;
        let mut total = s.reduce_add(s.add(s.add(a, b), s.add(c, d)));
        for i in row.tail() {
            let mut x = *row.input.add(i);
            if let Some((addend, sum)) = row.before {
                x += *addend.add(i);
                *sum.add(i) = x;
            }
            total += x * x;
        }
        total
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
        self.input.len() as u64 / 8
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        for item in items {
            // SAFETY: each item touches its own rows alone, of tensors that were found to be the same memory or apart, and no
            // phase of this group writes the weight.
            unsafe {
                let at = |view: &View<f32>| view.base().add(item * self.width);
                let row = Row {
                    width: self.width,
                    input: at(&self.input).cast_const(),
                    before: self
                        .before
                        .as_ref()
                        .map(|(addend, sum)| (at(addend).cast_const(), at(sum))),
                    weight: self
                        .weight
                        .as_ref()
                        .map(|weight| weight.base().cast_const()),
                    after: self.after.as_ref().map(|after| at(after).cast_const()),
                    output: at(&self.output),
                    eps: self.eps,
                };
                normalise(self.isa, row);
            }
        }
    }
}
