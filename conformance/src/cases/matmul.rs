use walsh::DType;
use walsh::ops::MatMul;

use super::shared::{Problems, Table, rng};
use crate::random::blocks;
use crate::{Expected, HostTensor, Leave, Problem, reference};

pub(super) const TABLES: &[Table] = &[Table::new("MatMul", matmul)];

/// A product's sizes and forms.
struct Case {
    dtype: DType,
    m: usize,
    n: usize,
    k: usize,
    bias: bool,
    imported: bool,
}

fn matmul() -> Problems {
    let mut problems = Vec::new();
    for dtype in super::shared::weight_types() {
        let block = dtype.block_len();
        // A single block, and several that are no multiple of what kernels unroll.
        let few = if block == 1 { 37 } else { block };
        let many = if block == 1 {
            515
        } else {
            5 * 96usize.next_multiple_of(block)
        };
        // What kernels of matrices take: floats in rows of whole blocks of 32, too.
        let whole: &[_] = match dtype {
            DType::F16 | DType::BF16 => &[
                (2, 33, 96),
                (11, 130, 640),
                (33, 70, 64),
                (40, 17, 480),
                (65, 130, 96),
                (130, 20, 256),
                (260, 70, 160),
            ],
            _ => &[],
        };
        let any = [
            (1, 1, few),
            (1, 3, many),
            (1, 65, few),
            (2, 17, many),
            (3, 5, few),
            (4, 33, few),
            (5, 16, many),
            (7, 15, few),
            (8, 31, many),
            (9, 16, few),
            (17, 33, many),
            (40, 70, few),
            (65, 18, many),
            (130, 20, few),
        ];
        for (m, n, k) in any.iter().chain(whole).copied() {
            problems.push(problem(Case {
                dtype,
                m,
                n,
                k,
                bias: (m + n) % 2 == 0,
                imported: n % 3 != 0,
            }));
        }
    }
    Box::new(problems.into_iter())
}

fn problem(case: Case) -> Problem {
    let Case {
        dtype,
        m,
        n,
        k,
        bias,
        imported,
    } = case;
    let name = format!(
        "MatMul {dtype} [{m}, {k}] · [{n}, {k}]{}{}",
        if bias { " + bias" } else { "" },
        if imported { " imported" } else { "" },
    );
    let (seed, mut rng) = rng(&name);
    let stored = blocks(&mut rng, dtype, n * k);
    let weight = reference::decode(dtype, &stored).expect("whole blocks");
    // Rows of different magnitudes, some of them zero, and one with a NaN.
    let mut input = rng.normals(m * k);
    for (row, numbers) in input.chunks_exact_mut(k).enumerate() {
        let magnitude = [1.0, 100.0, 0.0, 1e-3, 1e25, 1e-25][row % 6];
        numbers.iter_mut().for_each(|x| *x *= magnitude);
        if row == 6 {
            numbers[k / 2] = f32::NAN;
        }
    }
    let biases = rng.normals(n);
    let mut values = reference::matmul(&input, &weight, k);
    if bias {
        for (value, bias) in values.iter_mut().zip(biases.iter().cycle()) {
            *value += f64::from(*bias);
        }
    }
    let expected = expected(dtype, n, values, |index| {
        (&input[index / n * k..][..k], &weight[index % n * k..][..k])
    });
    let mut tensors = vec![
        HostTensor::stored(dtype, &[n as u64, k as u64], stored),
        HostTensor::f32(&[m as u64, k as u64], &input),
        HostTensor::f32(&[n as u64], &biases),
        HostTensor::output(DType::F32, &[m as u64, n as u64], expected),
    ];
    tensors[0].imported = imported;
    tensors[0].weight = true;
    Problem::new(name, seed, tensors, move |t| {
        Ok(MatMul {
            weight: t[0].clone(),
            input: t[1].clone(),
            bias: bias.then(|| t[2].clone()),
            output: t[3].clone(),
        }
        .into())
    })
}

/// What products must be near to, of the factors of each; `n` of them make a row of the output.
pub(super) fn expected<'a>(
    dtype: DType,
    n: usize,
    values: Vec<f64>,
    factors: impl Fn(usize) -> (&'a [f32], &'a [f32]),
) -> Expected {
    // What the squares of the products' sums come to when signs are random:
    // results that happen to cancel ask for no more accuracy than others.
    let mut power = 0.0;
    let (mut bounds, mut loose) = (Vec::new(), Vec::new());
    let is_narrow = matches!(dtype, DType::F16 | DType::BF16);
    for (index, value) in values.iter().enumerate() {
        let (x, w) = factors(index);
        let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
        let magnitude: f64 = products.clone().map(f64::abs).sum();
        let squares = products.map(|p| p * p).sum::<f64>().max(value * value);
        power += if value.is_nan() { 0.0 } else { squares };
        let rounding = 1e-6 * (magnitude + value.abs()) + 1e-30;
        bounds.push(rounding);
        loose.push(match is_narrow {
            true => rounding + 2.02 * magnitude / 256.0,
            false => rounding + activation_error(x, w),
        });
    }
    let leave = match (is_narrow, dtype.is_quantised()) {
        (true, _) => Some(Leave {
            bounds: loose,
            squared_error: squared_error(5.5e-6, n) * power,
            why: "activations and weights may be rounded to bfloat16, half a step of 2^-7 at most",
        }),
        (_, true) => Some(Leave {
            bounds: loose,
            squared_error: squared_error(3.3e-5, n) * power,
            why: "activations may be rounded to 8 bits per block of 32, half a step at most",
        }),
        (false, false) => None,
    };
    Expected::Close {
        values,
        bounds,
        why: "an f32 sum of products in many lanes",
        halves: leave.clone(),
        leave: leave.filter(|_| !is_narrow),
    }
}

/// The squared error of a row of `n` products whose numbers are rounded, as a share of what their squares come to: thrice
/// what it is on average, or, as a few products are a sample, four of its deviations.
fn squared_error(mean: f64, n: usize) -> f64 {
    let deviations = 4.0 * (2.0 / n as f64).sqrt();
    f64::max(3.0 * mean, mean * (1.0 + deviations))
}

/// The most that a product can be off when the activations of each block of 32
/// are rounded to 127 steps a side.
fn activation_error(x: &[f32], w: &[f32]) -> f64 {
    let blocks = x.chunks(32).zip(w.chunks(32));
    let error = blocks.map(|(x, w)| {
        let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let weights: f64 = w.iter().map(|w| f64::from(w.abs())).sum();
        f64::from(most) / 254.0 * 1.01 * weights
    });
    error.sum()
}
