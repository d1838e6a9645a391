//! Kernels in plain Rust.

use std::ops::Range;

use super::blocks::{Decode, Decoded, with_block};
use super::contract::{InputLayout, Job, Kernel, Kernels, ProductShape, Source};
use super::float::{Blocks, Float, with_float};
use super::layout::{BLOCK, GROUP, RowParts};
use crate::isa::Isa;
use crate::memory::Parts;
use crate::simd::Portable;

/// Any number of rows goes through the dot kernels: without vectors, a panel has nothing to offer.
pub(super) static KERNELS: Kernels = Kernels {
    isa: Isa::Portable,
    dot_rows: usize::MAX,
    float_dot_rows: usize::MAX,
    exact_dot_rows: usize::MAX,
    tile_rows: |_| 1,
    float_tile_rows: 1,
    packs: None,
    panel_rows: 1,
    prepare,
    dot: kernel,
    tile: kernel,
    float_dot: float_kernel,
    float_tile: float_kernel,
};

/// # Safety
/// As for [`InputLayout::prepare`].
unsafe fn prepare(
    layout: &InputLayout,
    items: Range<usize>,
    source: Source<'_>,
    prepared: Parts<'_, u8>,
) {
    // SAFETY: `InputLayout::prepare` has measured the bytes, and nobody else touches the items' parts, as it asks.
    unsafe { layout.prepare_with(Portable::new(), items, source, prepared.base()) }
}

fn kernel(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => dot::<B> as Kernel, else => unreachable!("other weights take floats"))
}

fn float_kernel(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => dot_floats::<Blocks<B>> as Kernel, else => {
        with_float!(shape.weight, F => dot_floats::<F> as Kernel, else => unreachable!("plans refuse other types"))
    })
}

fn dot<B: Decode>(job: &Job<'_>, scratch: &mut [u8]) {
    let parts = RowParts::new(job.shape.k);
    let m = job.shape.m;
    let runs = B::LEN / B::RUN;
    // The scales of a group's runs, then their sums.
    let per_group = GROUP / B::RUN;
    let start = if B::RUN == 16 {
        parts.runs_of_16()
    } else {
        parts.runs_of_32()
    };
    let sums: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch[..m * 4]);
    for column in job.columns.clone() {
        sums.fill(0.0);
        for (index, block) in job.blocks::<B>(column).iter().enumerate() {
            let (mut codes, mut scales, mut mins) = ([0; GROUP], [0.0; 16], [0.0; 16]);
            let out = Decoded {
                codes: &mut codes[..B::LEN],
                scales: &mut scales[..runs],
                mins: &mut mins[..runs],
            };
            block.decode(Portable::new(), out);
            let first_run = index * runs;
            let floats_at = first_run / per_group * 2 * per_group + first_run % per_group;
            for (m, sum) in sums.iter_mut().enumerate() {
                let input = job.quantised_row(m);
                let values: &[i8] = bytemuck::cast_slice(&input[index * B::LEN..][..B::LEN]);
                let floats: &[f32] = bytemuck::cast_slice(&input[start..]);
                let floats = &floats[floats_at..][..per_group + runs];
                let of_runs = (0..runs).map(|run| {
                    let range = run * B::RUN..(run + 1) * B::RUN;
                    let dot = int_dot(&codes[range.clone()], &values[range]) as f32;
                    dot * scales[run] * floats[run] - mins[run] * floats[per_group + run]
                });
                *sum += of_runs.sum::<f32>();
            }
        }
        for (row, &sum) in sums.iter().enumerate() {
            job.put(row, column, sum);
        }
    }
}

#[inline(always)]
fn int_dot(codes: &[u8], values: &[i8]) -> i32 {
    // 16-bit products, because that is what the baseline's multiply-add takes.
    codes
        .iter()
        .zip(values)
        .map(|(&code, &value)| i32::from(i16::from(code)) * i32::from(i16::from(value)))
        .sum()
}

fn dot_floats<F: Float<Portable>>(job: &Job<'_>, scratch: &mut [u8]) {
    let (k, m) = (job.shape.k, job.shape.m);
    let input = job.floats();
    let sums: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch[..m * 4]);
    let mut loaded = [0.0; GROUP];
    for column in job.columns.clone() {
        sums.fill(0.0);
        let weights = job.weight_row(column);
        for start in (0..k).step_by(GROUP) {
            let loaded = &mut loaded[..GROUP.min(k - start)];
            F::load_all(Portable::new(), weights, start, loaded);
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum += float_dot(loaded, &input[row * k + start..][..loaded.len()]);
            }
        }
        for (row, &sum) in sums.iter().enumerate() {
            job.put(row, column, sum);
        }
    }
}

/// Several sums, so that the additions do not wait for each other.
#[inline(always)]
fn float_dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<BLOCK>();
    let (b, b_rest) = b.as_chunks::<BLOCK>();
    let mut sums = [0.0; BLOCK];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    rest + sums.iter().sum::<f32>()
}
