use std::cell::Cell;
use std::ops::Range;

use walsh_core::Result;
use walsh_core::ops::{Operation, RmsNorm};

use crate::lowering::Lowering;
use crate::memory::View;
use crate::simd::{LANES, Simd, Token, entries};
use crate::team::{Phase, Scratch};

struct Norm {
    set: Token,
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
        set: lowering.target().token(),
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

/// Numbers of tensors that may be the same memory.
type Cells<'a> = &'a [Cell<f32>];

/// A row's numbers: where they come from and where they go, as many of each. Tensors are the same memory or apart, so that
/// what is read of an index is read before anything of that index is written.
#[derive(Clone, Copy)]
struct Row<'a> {
    input: Cells<'a>,
    /// What is added first, and where the sum is kept.
    before: Option<(Cells<'a>, Cells<'a>)>,
    weight: Option<&'a [f32]>,
    after: Option<Cells<'a>>,
    output: Cells<'a>,
    eps: f32,
}

impl<'a> Row<'a> {
    /// The numbers whose norm is taken, once the sum is kept.
    fn normed(&self) -> Cells<'a> {
        self.before.map_or(self.input, |(_, sum)| sum)
    }

    /// The numbers that do not fill a vector.
    fn tail(&self) -> Range<usize> {
        let width = self.input.len();
        width / LANES * LANES..width
    }
}

entries! {
    /// Normalises a row.
    fn normalise(row: Row<'_>) = normalise_row
}

/// See [`normalise`].
#[inline(always)]
fn normalise_row<S: Simd>(s: S, row: Row<'_>) {
    let sum = sum_of_squares(s, row);
    let x = row.normed();
    let sum = if (1e-25..1e37).contains(&sum) {
        f64::from(sum)
    } else {
        // Squares may have left the range of f32, although the row is sound.
        let numbers = x.iter().map(|x| f64::from(x.get()));
        numbers.map(|x| x * x).sum()
    };
    let factor = (1.0 / (sum / x.len() as f64 + f64::from(row.eps)).sqrt()) as f32;
    // As long as each other: nothing is measured again in the loop.
    let vectors = row.tail().start / LANES;
    let weight = row.weight.map(|weight| &weight.as_chunks().0[..vectors]);
    let after = row.after.map(|after| &after.as_chunks().0[..vectors]);
    let output = &row.output.as_chunks::<LANES>().0[..vectors];
    for (i, (x, output)) in x.as_chunks().0[..vectors].iter().zip(output).enumerate() {
        let mut y = s.mul(s.get(x), s.splat(factor));
        if let Some(weight) = weight {
            y = s.mul(y, s.read(&weight[i]));
        }
        if let Some(after) = after {
            y = s.add(y, s.get(&after[i]));
        }
        s.set(output, y);
    }
    for i in row.tail() {
        let mut y = x[i].get() * factor;
        if let Some(weight) = row.weight {
            y *= weight[i];
        }
        if let Some(after) = row.after {
            y += after[i].get();
        }
        row.output[i].set(y);
    }
}

/// The sum of squares, after adding what is added first.
#[inline(always)]
fn sum_of_squares<S: Simd>(s: S, row: Row<'_>) -> f32 {
    let vectors = row.tail().start / LANES;
    let before = row.before.map(|(addend, sum)| {
        let (addend, sum) = (addend.as_chunks().0, sum.as_chunks().0);
        (&addend[..vectors], &sum[..vectors])
    });
    let mut sums = [s.splat(0.0); 4];
    for (i, input) in row.input.as_chunks().0[..vectors].iter().enumerate() {
        let mut x = s.get(input);
        if let Some((addend, sum)) = before {
            x = s.add(x, s.get(&addend[i]));
            s.set(&sum[i], x);
        }
        let sum = &mut sums[i % 4];
        *sum = s.fma(x, x, *sum);
    }
    let [a, b, c, d] = sums;
    let mut total = s.reduce_add(s.add(s.add(a, b), s.add(c, d)));
    for i in row.tail() {
        let mut x = row.input[i].get();
        if let Some((addend, sum)) = row.before {
            x += addend[i].get();
            sum[i].set(x);
        }
        total += x * x;
    }
    total
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
            let of_item = item * self.width..(item + 1) * self.width;
            // SAFETY: each item touches its own rows alone, of tensors that were found to be the same memory or apart, and no
            // phase of this group writes the weight.
            let row = unsafe {
                let at = |view| View::cells(view, of_item.clone());
                Row {
                    input: at(&self.input),
                    before: self
                        .before
                        .as_ref()
                        .map(|(addend, sum)| (at(addend), at(sum))),
                    weight: self
                        .weight
                        .as_ref()
                        .map(|weight| weight.slice(0..self.width)),
                    after: self.after.as_ref().map(at),
                    output: at(&self.output),
                    eps: self.eps,
                }
            };
            normalise(self.set, row);
        }
    }
}
