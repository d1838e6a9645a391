use walsh::DType;
use walsh::ops::{ExpertMatMul, ExpertRoute, ExpertSum, Scoring};

use super::matmul::expected;
use super::shared::{Problems, Table, rng};
use crate::random::blocks;
use crate::{Expected, HostTensor, Problem, Rng, reference};

pub(super) const TABLES: &[Table] = &[
    Table::new("ExpertRoute", route),
    Table::new("ExpertMatMul", products),
    Table::new("ExpertSum", sum),
];

fn ids(shape: [usize; 2], values: &[i32]) -> HostTensor {
    let shape = shape.map(|size| size as u64);
    HostTensor::stored(DType::I32, &shape, bytemuck::cast_slice(values).to_vec())
}

fn route() -> Problems {
    let scorings = [
        (Scoring::Softmax, false),
        (Scoring::SoftmaxOfChosen, false),
        (Scoring::Sigmoid { normalised: false }, false),
        (Scoring::Sigmoid { normalised: true }, false),
        (Scoring::Sigmoid { normalised: true }, true),
    ];
    let mut problems = Vec::new();
    for (experts, used) in [(1, 1), (5, 5), (31, 4), (33, 2), (128, 8), (512, 32)] {
        for tokens in [1, 7] {
            for (scoring, biased) in scorings {
                problems.push(routing([tokens, experts, used], scoring, biased));
            }
        }
    }
    Box::new(problems.into_iter())
}

fn routing([tokens, experts, used]: [usize; 3], scoring: Scoring, biased: bool) -> Problem {
    let with = if biased { " + bias" } else { "" };
    let name = format!("ExpertRoute {used} of [{tokens}, {experts}] {scoring:?}{with}");
    let (seed, mut rng) = rng(&name);
    let scale = if tokens == 1 { 1.0 } else { 2.5f32 };
    let mut logits = rng.normals(tokens * experts);
    for (token, row) in logits.chunks_exact_mut(experts).enumerate() {
        // Logits far apart, some of them equal; few different ones; all equal.
        for logit in row {
            *logit = match token % 5 {
                // No zero is negative: zeros are equals.
                1 if !biased => (2.0 * *logit).round() + 0.0,
                2 => *logit * 40.0,
                3 if !biased => *logit * 1e30,
                4 if !biased => 0.25,
                _ => *logit,
            };
        }
    }
    let bias = rng.normals(experts);
    let (mut chosen, mut weights) = (Vec::new(), Vec::new());
    for row in logits.chunks_exact(experts) {
        let (ids, of_row) = reference::route(row, biased.then_some(&bias), scoring, used);
        chosen.extend(ids);
        weights.extend(of_row.into_iter().map(|weight| weight * f64::from(scale)));
    }
    let shape = [tokens as u64, used as u64];
    let why = "exponentials of differences of up to 88 that are rounded to f32, and sums of them";
    let weights = Expected::close(weights, 2e-5, 1e-30, why);
    let tensors = vec![
        HostTensor::f32(&[tokens as u64, experts as u64], &logits),
        HostTensor::f32(&[experts as u64], &bias),
        HostTensor::output(DType::I32, &shape, Expected::i32(&chosen)),
        HostTensor::output(DType::F32, &shape, weights),
    ];
    Problem::new(name, seed, tensors, move |t| {
        Ok(ExpertRoute {
            logits: t[0].clone(),
            bias: biased.then(|| t[1].clone()),
            scoring,
            scale,
            ids: t[2].clone(),
            weights: t[3].clone(),
        }
        .into())
    })
}

/// Products' sizes and forms.
struct Case {
    dtype: DType,
    tokens: usize,
    slots: usize,
    experts: usize,
    n: usize,
    k: usize,
    /// Whether each slot has a row of input.
    apart: bool,
}

fn products() -> Problems {
    let mut problems = Vec::new();
    for dtype in super::shared::weight_types() {
        let block = dtype.block_len();
        let few = if block == 1 { 38 } else { block };
        let many = if block == 1 {
            514
        } else {
            3 * 96usize.next_multiple_of(block)
        };
        let mut sizes = vec![
            (1, 1, 1, 1, few),
            (1, 3, 5, 33, many),
            (1, 8, 32, 48, few),
            (2, 2, 3, 80, many),
            (3, 4, 16, 19, few),
            (9, 2, 4, 16, many),
            // A tile of each expert and more, few of them full.
            (40, 2, 7, 70, few),
            (75, 3, 3, 32, many),
        ];
        if block == 1 {
            // Rows as slots of one token, as those of adapters are.
            sizes.push((1, 37, 3, 5, few));
            // In whole blocks of 32, for tiles.
            sizes.extend([(40, 2, 7, 70, 96), (75, 3, 3, 32, 288)]);
        }
        for (tokens, slots, experts, n, k) in sizes {
            problems.push(product(Case {
                dtype,
                tokens,
                slots,
                experts,
                n,
                k,
                apart: (tokens + slots) % 2 == 0,
            }));
        }
    }
    Box::new(problems.into_iter())
}

/// Experts of each token, all of them different where there are so many, the first experts more often than others; one
/// never.
fn chosen(rng: &mut Rng, case: &Case) -> Vec<i32> {
    let mut all = Vec::new();
    for _ in 0..case.tokens {
        let mut of_token: Vec<i32> = Vec::new();
        while of_token.len() < case.slots {
            let [a, b] = [rng.below(case.experts), rng.below(case.experts)];
            let next = a.min(b) as i32;
            let spare = case.experts > case.slots && next == case.experts as i32 / 2;
            let again = of_token.contains(&next) && case.experts >= case.slots;
            if !spare && !again {
                of_token.push(next);
            }
        }
        all.extend(of_token);
    }
    all
}

fn product(case: Case) -> Problem {
    let Case {
        dtype,
        tokens,
        slots,
        experts,
        n,
        k,
        apart,
    } = case;
    let bias = (slots + n) % 2 == 0;
    let rows = if apart { tokens * slots } else { tokens };
    let name = format!(
        "ExpertMatMul {dtype} [{tokens}, {slots}, {k}] of {rows} rows · [{experts}, {n}, {k}]{}",
        if bias { " + bias" } else { "" },
    );
    let (seed, mut rng) = rng(&name);
    let stored = blocks(&mut rng, dtype, experts * n * k);
    let weight = reference::decode(dtype, &stored).expect("whole blocks");
    let mut input = rng.normals(rows * k);
    for (row, numbers) in input.chunks_exact_mut(k).enumerate() {
        let magnitude = [1.0, 100.0, 0.0, 1e-3, 1e25, 1e-25][row % 6];
        numbers.iter_mut().for_each(|x| *x *= magnitude);
        if row == 6 {
            numbers[k / 2] = f32::NAN;
        }
    }
    let biases = rng.normals(experts * n);
    let chosen = chosen(&mut rng, &case);
    let row = |slot: usize| &input[(if apart { slot } else { slot / slots }) * k..][..k];
    let column = |slot: usize, n_th: usize| &weight[(chosen[slot] as usize * n + n_th) * k..][..k];
    let mut values = Vec::new();
    for slot in 0..tokens * slots {
        let expert = chosen[slot] as usize;
        let of_expert = &weight[expert * n * k..][..n * k];
        let products = reference::matmul(row(slot), of_expert, k);
        let added = biases[expert * n..][..n].iter().map(|b| match bias {
            true => f64::from(*b),
            false => 0.0,
        });
        values.extend(products.into_iter().zip(added).map(|(a, b)| a + b));
    }
    let expected = expected(dtype, n, values, |at| (row(at / n), column(at / n, at % n)));
    let [tokens, slots, experts, n, k] = [tokens, slots, experts, n, k].map(|size| size as u64);
    let input_shape: &[u64] = if apart {
        &[tokens, slots, k]
    } else {
        &[tokens, k]
    };
    let mut tensors = vec![
        HostTensor::stored(dtype, &[experts, n, k], stored),
        ids([tokens as usize, slots as usize], &chosen),
        HostTensor::f32(input_shape, &input),
        HostTensor::f32(&[experts, n], &biases),
        HostTensor::output(DType::F32, &[tokens, slots, n], expected),
    ];
    tensors[0].imported = n % 3 != 0;
    tensors[0].weight = true;
    Problem::new(name, seed, tensors, move |t| {
        Ok(ExpertMatMul {
            weight: t[0].clone(),
            ids: t[1].clone(),
            input: t[2].clone(),
            bias: bias.then(|| t[3].clone()),
            output: t[4].clone(),
        }
        .into())
    })
}

/// What a sum is added to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Onto {
    Nothing,
    Apart,
    InPlace,
}

fn sum() -> Problems {
    let mut problems = Vec::new();
    for (tokens, slots, width) in [(1, 1, 1), (1, 8, 2048), (3, 2, 17), (33, 4, 515)] {
        for onto in [Onto::Nothing, Onto::Apart, Onto::InPlace] {
            problems.push(summing([tokens, slots, width], onto));
        }
    }
    Box::new(problems.into_iter())
}

fn summing([tokens, slots, width]: [usize; 3], onto: Onto) -> Problem {
    let name = format!("ExpertSum [{tokens}, {slots}, {width}] onto {onto:?}");
    let (seed, mut rng) = rng(&name);
    let input = rng.normals(tokens * slots * width);
    let weights = rng.normals(tokens * slots);
    let added = rng.normals(tokens * width);
    let mut values = reference::weighted_sum(&input, &weights, slots, width);
    if onto != Onto::Nothing {
        values
            .iter_mut()
            .zip(&added)
            .for_each(|(value, added)| *value += f64::from(*added));
    }
    let why = "sums of as many numbers as slots, each of a magnitude of a few";
    let expected = Expected::close(values, 1e-6, 4.0, why);
    let [tokens, slots, width] = [tokens, slots, width].map(|size| size as u64);
    let mut tensors = vec![
        HostTensor::f32(&[tokens, slots, width], &input),
        HostTensor::f32(&[tokens, slots], &weights),
        HostTensor::f32(&[tokens, width], &added),
    ];
    match onto {
        Onto::InPlace => tensors[2].expected = Some(expected),
        _ => tensors.push(HostTensor::output(DType::F32, &[tokens, width], expected)),
    }
    Problem::new(name, seed, tensors, move |t| {
        Ok(ExpertSum {
            input: t[0].clone(),
            weights: t[1].clone(),
            onto: (onto != Onto::Nothing).then(|| t[2].clone()),
            output: t[t.len() - 1].clone(),
        }
        .into())
    })
}
