use walsh::DType;
use walsh::ops::{ArgMax, MatMulTopK, TopK};

use super::shared::{Problems, Table, rng};
use crate::reference::{self, order};
use crate::{Expected, HostTensor, Problem, Rng};

pub(super) const TABLES: &[Table] = &[
    Table::new("ArgMax", arg_max),
    Table::new("TopK", top_k),
    Table::new("MatMulTopK", matmul_top_k),
];

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

fn arg_max() -> Problems {
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

fn top_k() -> Problems {
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

/// Products are whole numbers that floats hold, and inputs ones that 8 bits do: every device
/// finds the very same, however it adds them up.
fn matmul_top_k() -> Problems {
    let mut problems = Vec::new();
    for dtype in [DType::Q8_0, DType::Q6K, DType::Q4_0, DType::F16, DType::F32] {
        for (m, n, count) in [
            (1, 1, 1),
            (1, 5, 5),
            (1, 70, 2),
            (1, 300, 270),
            (1, 5000, 40),
            (1, 17_000, 1),
            (1, 33_001, 7),
            (2, 40, 3),
            (3, 700, 1),
        ] {
            // The last two only where searches are: they take the reference long.
            if n > 5000 && dtype != DType::Q8_0 {
                continue;
            }
            for kind in [Weights::Apart, Weights::Close, Weights::Alike] {
                problems.push(search([m, n, count], dtype, kind));
            }
        }
    }
    Box::new(problems.into_iter())
}

/// How a weight's rows differ.
#[derive(Debug, Clone, Copy)]
enum Weights {
    /// As random numbers do, and a few are larger.
    Apart,
    /// Each has one of few products, so that many are equal.
    Close,
    /// Not at all.
    Alike,
}

fn search([m, n, count]: [usize; 3], dtype: DType, kind: Weights) -> Problem {
    let k = dtype.block_len().max(64);
    let name = format!("MatMulTopK {count} of {dtype} [{m}, {k}] · [{n}, {k}] {kind:?}");
    let (seed, mut rng) = rng(&name);
    // How many rows there are that are not copies of another.
    let different = match kind {
        Weights::Apart => n,
        Weights::Close => n.min(3),
        Weights::Alike => 1,
    };
    let numbers: Vec<f32> = (0..different * k)
        .map(|_| rng.below(15) as f32 - 7.0)
        .collect();
    let row_bytes = k / dtype.block_len() * dtype.block_bytes();
    let mut rows = vec![0; different * row_bytes];
    for (row, numbers) in rows
        .chunks_exact_mut(row_bytes)
        .zip(numbers.chunks_exact(k))
    {
        whole_numbers(dtype, numbers, row);
    }
    let stored: Vec<u8> = (0..n)
        .flat_map(|row| &rows[row % different * row_bytes..][..row_bytes])
        .copied()
        .collect();
    let weight = reference::decode(dtype, &stored).expect("whole blocks");
    let mut input: Vec<f32> = (0..m * k).map(|_| rng.below(21) as f32 - 10.0).collect();
    // Some columns are much larger than others.
    input
        .iter_mut()
        .skip(7)
        .step_by(19)
        .for_each(|x| *x *= 12.0);
    // Blocks of 32 become 8 bits as they are.
    input.iter_mut().step_by(32).for_each(|x| *x = 127.0);
    let products = reference::matmul(&input, &weight, k);
    let products: Vec<f32> = products.iter().map(|x| *x as f32).collect();
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    for row in products.chunks_exact(n) {
        let best = &order(row)[..count];
        values.extend(best.iter().map(|index| row[*index as usize]));
        indices.extend_from_slice(best);
    }
    let shape = [m as u64, count as u64];
    let tensors = vec![
        HostTensor::stored(dtype, &[n as u64, k as u64], stored),
        HostTensor::f32(&[m as u64, k as u64], &input),
        HostTensor::output(DType::F32, &shape, Expected::f32(&values)),
        HostTensor::output(DType::I32, &shape, Expected::i32(&indices)),
    ];
    Problem::new(name, seed, tensors, |t| {
        Ok(MatMulTopK {
            weight: t[0].clone(),
            screen: None,
            input: t[1].clone(),
            values: t[2].clone(),
            indices: t[3].clone(),
        }
        .into())
    })
}

/// A row of whole numbers from -7 to 7, as blocks of a scale of 1 have them.
fn whole_numbers(dtype: DType, numbers: &[f32], row: &mut [u8]) {
    let one = half::f16::ONE.to_le_bytes();
    let blocks = numbers.chunks_exact(dtype.block_len());
    match dtype {
        DType::Q4_0 => {
            for (block, numbers) in row.chunks_exact_mut(18).zip(blocks) {
                block[..2].copy_from_slice(&one);
                for (i, byte) in block[2..].iter_mut().enumerate() {
                    let code = |x: f32| (x + 8.0) as u8;
                    *byte = code(numbers[i]) | code(numbers[i + 16]) << 4;
                }
            }
        }
        DType::Q8_0 => {
            for (block, numbers) in row.chunks_exact_mut(34).zip(blocks) {
                block[..2].copy_from_slice(&one);
                // Larger ones, as the type can have them.
                let codes = block[2..].iter_mut().zip(numbers);
                codes.for_each(|(byte, x)| *byte = (x * 18.0) as i8 as u8);
            }
        }
        DType::Q6K => {
            for (block, numbers) in row.chunks_exact_mut(210).zip(blocks) {
                block.fill(0);
                for (i, x) in numbers.iter().enumerate() {
                    let code = (x * 4.0 + 32.0) as u8;
                    let (half, place) = (i / 128, i % 128);
                    // Two nibbles to a byte, 64 numbers apart; four pairs of bits to one, 32 apart.
                    block[64 * half + place % 64] |= (code & 15) << (4 * (place / 64));
                    block[128 + 32 * half + place % 32] |= (code >> 4) << (2 * (place / 32));
                }
                block[192..208].fill(1);
                block[208..].copy_from_slice(&one);
            }
        }
        _ => walsh::formats::ggml::encode(dtype, numbers, row).expect("finite numbers"),
    }
}
