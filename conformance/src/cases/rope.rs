use walsh::DType;
use walsh::ops::{Pairing, Rope, RopeConfig, RopeScaling, Temperature};

use super::shared::{Problems, Table, rng};
use crate::{Expected, HostTensor, Problem, reference};

pub(super) const TABLES: &[Table] = &[Table::new("Rope", rope)];

const LLAMA3: RopeScaling = RopeScaling::Llama3 {
    factor: 8.0,
    low_frequency_factor: 1.0,
    high_frequency_factor: 4.0,
    original_context: 8192,
};

const YARN: RopeScaling = RopeScaling::Yarn {
    factor: 4.0,
    original_context: 32768,
    extrapolation: 1.0,
    attention_factor: 1.0,
    beta_fast: 32.0,
    beta_slow: 1.0,
    rounded: true,
};

const YARN_LINEAR: RopeScaling = RopeScaling::Yarn {
    factor: 2.0,
    original_context: 4096,
    extrapolation: 0.0,
    attention_factor: 0.9,
    beta_fast: 32.0,
    beta_slow: 1.0,
    rounded: true,
};

/// Whose blend begins and ends between pairs.
const YARN_EXACT: RopeScaling = RopeScaling::Yarn {
    factor: 32.0,
    original_context: 4096,
    extrapolation: 1.0,
    attention_factor: 1.0,
    beta_fast: 32.0,
    beta_slow: 1.0,
    rounded: false,
};

/// A case's sizes and frequencies.
struct Case {
    tokens: usize,
    heads: u64,
    head_dim: u64,
    config: RopeConfig,
    in_place: bool,
}

fn rope() -> Problems {
    let mut problems = Vec::new();
    for pairing in [Pairing::Pairwise, Pairing::HalfSplit] {
        for in_place in [false, true] {
            // Whole heads, and heads of which only the beginning rotates.
            for (tokens, heads, head_dim, dims) in [
                (1, 1, 2, 2),
                (1, 9, 64, 64),
                (3, 3, 80, 80),
                (5, 2, 96, 24),
                (2, 4, 100, 66),
                (130, 1, 128, 128),
                (7, 5, 256, 256),
            ] {
                problems.push(problem(Case {
                    tokens,
                    heads,
                    head_dim,
                    config: RopeConfig::new(dims, 10_000.0, pairing),
                    in_place,
                }));
            }
        }
        for scaling in [
            RopeScaling::Linear { factor: 8.0 },
            LLAMA3,
            YARN,
            YARN_LINEAR,
            YARN_EXACT,
        ] {
            problems.push(problem(Case {
                tokens: 9,
                heads: 2,
                head_dim: 128,
                config: RopeConfig {
                    scaling,
                    ..RopeConfig::new(128, 500_000.0, pairing)
                },
                in_place: true,
            }));
        }
        problems.push(problem(Case {
            tokens: 9,
            heads: 2,
            head_dim: 64,
            config: RopeConfig {
                temperature: Some(Temperature {
                    scale: 0.1,
                    context: 511,
                }),
                ..RopeConfig::new(64, 1_000_000.0, pairing)
            },
            in_place: true,
        }));
        let factors = (0..32).map(|i| 1.0 + i as f32 / 4.0).collect();
        problems.push(problem(Case {
            tokens: 9,
            heads: 2,
            head_dim: 64,
            config: RopeConfig {
                factors: Some(factors),
                ..RopeConfig::new(64, 1_000_000.0, pairing)
            },
            in_place: false,
        }));
    }
    Box::new(problems.into_iter())
}

fn problem(case: Case) -> Problem {
    let Case {
        tokens,
        heads,
        head_dim,
        config,
        in_place,
    } = case;
    let name = format!(
        "Rope [{tokens}, {heads}, {head_dim}] {config:?}{}",
        if in_place { " in place" } else { "" }
    );
    let (seed, mut rng) = rng(&name);
    let shape = [tokens as u64, heads, head_dim];
    let input = rng.normals(super::shared::count(&shape));
    let far = [0, 1, 2, 511, 4095, 131_071, 1_000_000];
    let positions: Vec<i32> = (0..tokens).map(|i| far[i % far.len()]).collect();
    let values = reference::rope(&input, &positions, head_dim as usize, &config);
    let expected = Expected::Close {
        bounds: vec![2e-6; values.len()],
        values,
        leave: None,
        halves: None,
        why: "angles in f64, then f32 sines and four roundings of numbers up to 5",
    };
    let input = HostTensor::f32(&shape, &input);
    let mut tensors = vec![HostTensor::i32(&positions)];
    if in_place {
        tensors.push(input.becomes(expected));
    } else {
        tensors.extend([input, HostTensor::output(DType::F32, &shape, expected)]);
    }
    let output = tensors.len() - 1;
    Problem::new(name, seed, tensors, move |t| {
        Ok(Rope {
            input: t[1].clone(),
            positions: t[0].clone(),
            config: config.clone(),
            output: t[output].clone(),
        }
        .into())
    })
}
