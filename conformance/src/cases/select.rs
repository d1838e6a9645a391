use walsh::DType;
use walsh::ops::{ArgMax, TopK};

use super::{Problems, rng};
use crate::reference::order;
use crate::{Expected, HostTensor, Problem, Rng};

const WIDTHS: [usize; 7] = [1, 2, 15, 16, 17, 1000, 49_152];

/// What the rows are like.
#[derive(Debug, Clone, Copy)]
enum Rows {
    Normal,
    /// Few different numbers: many equals.
    Ties,
    Infinite,
    AllEqual,
}

const KINDS: [Rows; 4] = [Rows::Normal, Rows::Ties, Rows::Infinite, Rows::AllEqual];

fn numbers(rows: Rows, rng: &mut Rng, count: usize) -> Vec<f32> {
    let number = |rng: &mut Rng| match rows {
        Rows::Normal => rng.normal(),
        Rows::Ties => rng.below(3) as f32,
        Rows::Infinite => *rng.pick(&[f32::NEG_INFINITY, f32::INFINITY, 0.5]),
        Rows::AllEqual => f32::NEG_INFINITY,
    };
    (0..count).map(|_| number(rng)).collect()
}

pub(super) fn arg_max() -> Problems {
    let mut problems = Vec::new();
    // A width that no piece of a row divides.
    for width in WIDTHS.into_iter().chain([20_001]) {
        for n in [1usize, 2, 5] {
            for kind in KINDS {
                let name = format!("ArgMax [{n}, {width}] {kind:?}");
                let (seed, mut rng) = rng(&name);
                let input = numbers(kind, &mut rng, n * width);
                let best: Vec<i32> = input.chunks_exact(width).map(|row| order(row)[0]).collect();
                let shape = [n as u64, width as u64];
                let tensors = vec![
                    HostTensor::f32(&shape, &input),
                    HostTensor::output(DType::I32, &[n as u64], Expected::i32(&best)),
                ];
                problems.push(Problem::new(name, seed, tensors, |t| {
                    Ok(ArgMax {
                        input: t[0].clone(),
                        output: t[1].clone(),
                    }
                    .into())
                }));
            }
        }
    }
    Box::new(problems.into_iter())
}

pub(super) fn top_k() -> Problems {
    let mut problems = Vec::new();
    for width in WIDTHS {
        for k in [1, 2, 40, width / 2, width] {
            // Sorting whole vocabularies is nobody's use of it.
            if k == 0 || k > width || k > 1000 {
                continue;
            }
            for kind in KINDS {
                let name = format!("TopK {k} of [2, {width}] {kind:?}");
                let (seed, mut rng) = rng(&name);
                let input = numbers(kind, &mut rng, 2 * width);
                let (mut values, mut indices) = (Vec::new(), Vec::new());
                for row in input.chunks_exact(width) {
                    let best = &order(row)[..k];
                    values.extend(best.iter().map(|index| row[*index as usize]));
                    indices.extend_from_slice(best);
                }
                let shape = [2, k as u64];
                let tensors = vec![
                    HostTensor::f32(&[2, width as u64], &input),
                    HostTensor::output(DType::F32, &shape, Expected::f32(&values)),
                    HostTensor::output(DType::I32, &shape, Expected::i32(&indices)),
                ];
                problems.push(Problem::new(name, seed, tensors, |t| {
                    Ok(TopK {
                        input: t[0].clone(),
                        values: t[1].clone(),
                        indices: t[2].clone(),
                    }
                    .into())
                }));
            }
        }
    }
    Box::new(problems.into_iter())
}
