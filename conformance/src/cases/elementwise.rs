use walsh::ops::{Activation, Add, GatedActivation, Scale, SoftCap};

use super::shared::{Problems, Table, count, rng};
use crate::reference::{clamped_swish, gelu_tanh, sigmoid, silu, softcap};
use crate::{Expected, HostTensor, Problem};

pub(super) const TABLES: &[Table] = &[
    Table::new("GatedActivation", gated),
    Table::new("Add", add),
    Table::new("Scale", scale),
    Table::new("SoftCap", soft_cap),
];

/// Around the sizes of vectors and of work items.
const SHAPES: &[&[u64]] = &[
    &[1],
    &[7],
    &[16, 3],
    &[1023],
    &[1024],
    &[1025],
    &[2, 3, 4097],
    &[5, 1, 1536],
];

/// Where the output lies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Apart,
    First,
    Second,
}

const PLACES: [Place; 3] = [Place::Apart, Place::First, Place::Second];

/// The tensors of `output = map(a, b)`, and the index of the output.
fn binary(
    place: Place,
    shape: &[u64],
    a: HostTensor,
    b: HostTensor,
    expected: Expected,
) -> (Vec<HostTensor>, usize) {
    match place {
        Place::Apart => {
            let output = HostTensor::output(walsh::DType::F32, shape, expected);
            (vec![a, b, output], 2)
        }
        Place::First => (vec![a.becomes(expected), b], 0),
        Place::Second => (vec![a, b.becomes(expected)], 1),
    }
}

/// Normal numbers, with some that are large, tiny, zero or NaN.
fn lively(rng: &mut crate::Rng, n: usize) -> Vec<f32> {
    let odd = [0.0, -0.0, 1e30, -1e30, 1e-30, 90.0, -90.0, f32::NAN];
    let pick = |rng: &mut crate::Rng| match rng.below(40) {
        0 => *rng.pick(&odd),
        _ => 4.0 * rng.normal(),
    };
    (0..n).map(|_| pick(rng)).collect()
}

fn gated() -> Problems {
    let mut problems = Vec::new();
    let clamped = Activation::ClampedSwish {
        alpha: 1.702,
        limit: 7.0,
    };
    for activation in [
        Activation::Identity,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::GeluTanh,
        clamped,
    ] {
        for (place, shape) in PLACES
            .iter()
            .flat_map(|p| SHAPES.iter().map(move |s| (*p, *s)))
        {
            let name = format!("GatedActivation {activation:?} {shape:?} {place:?}");
            let (seed, mut rng) = rng(&name);
            let gate = lively(&mut rng, count(shape));
            let up = rng.normals(count(shape));
            let f = |gate: f64, up: f64| match activation {
                Activation::Identity => gate * up,
                Activation::Silu => silu(gate) * up,
                Activation::Sigmoid => sigmoid(gate) * up,
                Activation::GeluTanh => gelu_tanh(gate) * up,
                Activation::ClampedSwish { alpha, limit } => {
                    clamped_swish([gate, up], f64::from(alpha), f64::from(limit))
                }
            };
            let pairs = gate.iter().zip(&up);
            let values: Vec<f64> = pairs
                .map(|(g, u)| f(f64::from(*g), f64::from(*u)))
                .collect();
            // Where the activation is near zero, an absolute error of one unit
            // of the gate's magnitude counts.
            let bounds = gate
                .iter()
                .zip(&up)
                .map(|(g, u)| match activation {
                    // The sum of up and 1, and a gate that is at most the limit.
                    Activation::ClampedSwish { .. } => {
                        2e-6 * f64::from(g.abs().clamp(1e-3, 60.0) * (u.abs() + 1.0))
                    }
                    Activation::Sigmoid => 4e-7 * f64::from(u.abs()) + 1e-36,
                    _ => 4e-7 * f64::from(g.abs().max(1e-3) * u.abs()) + 1e-36,
                })
                .collect();
            let expected = Expected::Close {
                values,
                bounds,
                leave: None,
                halves: None,
                why: "an f32 exponential and three roundings",
            };
            let (gate, up) = (HostTensor::f32(shape, &gate), HostTensor::f32(shape, &up));
            let (tensors, out) = binary(place, shape, gate, up, expected);
            problems.push(Problem::new(name, seed, tensors, move |t| {
                Ok(GatedActivation {
                    gate: t[0].clone(),
                    up: t[1].clone(),
                    activation,
                    output: t[out].clone(),
                }
                .into())
            }));
        }
    }
    Box::new(problems.into_iter())
}

fn add() -> Problems {
    let mut problems = Vec::new();
    for row in [false, true] {
        for (place, shape) in PLACES
            .iter()
            .flat_map(|p| SHAPES.iter().map(move |s| (*p, *s)))
        {
            let b_shape = if row {
                &shape[shape.len() - 1..]
            } else {
                shape
            };
            if row && (place == Place::Second || shape.len() == 1) {
                continue; // a row cannot hold the output, or is the whole
            }
            let name = format!("Add {shape:?} + {b_shape:?} {place:?}");
            let (seed, mut rng) = rng(&name);
            let mut a = lively(&mut rng, count(shape));
            a[0] = f32::INFINITY;
            let b = rng.normals(count(b_shape));
            let sums: Vec<f32> = a.iter().zip(b.iter().cycle()).map(|(a, b)| a + b).collect();
            let values = sums.iter().map(|sum| f64::from(*sum)).collect();
            let expected = Expected::close(values, 0.0, 0.0, "one rounding, the same everywhere");
            let (a, b) = (HostTensor::f32(shape, &a), HostTensor::f32(b_shape, &b));
            let (tensors, out) = binary(place, shape, a, b, expected);
            problems.push(Problem::new(name, seed, tensors, move |t| {
                Ok(Add {
                    a: t[0].clone(),
                    b: t[1].clone(),
                    output: t[out].clone(),
                }
                .into())
            }));
        }
    }
    Box::new(problems.into_iter())
}

/// The tensors of `output = map(input)`, and the index of the output.
fn unary(
    place: Place,
    shape: &[u64],
    input: HostTensor,
    expected: Expected,
) -> (Vec<HostTensor>, usize) {
    if place == Place::First {
        return (vec![input.becomes(expected)], 0);
    }
    let output = HostTensor::output(walsh::DType::F32, shape, expected);
    (vec![input, output], 1)
}

fn scale() -> Problems {
    let mut problems = Vec::new();
    for factor in [0.0f32, 1.0, -1.5, 1e-20, 1e20] {
        for (place, shape) in PLACES[..2]
            .iter()
            .flat_map(|p| SHAPES.iter().map(move |s| (*p, *s)))
        {
            let name = format!("Scale {factor:e} {shape:?} {place:?}");
            let (seed, mut rng) = rng(&name);
            let input = lively(&mut rng, count(shape));
            let values = input.iter().map(|x| f64::from(x * factor)).collect();
            let expected = Expected::close(values, 0.0, 0.0, "one rounding, the same everywhere");
            let (tensors, out) = unary(place, shape, HostTensor::f32(shape, &input), expected);
            problems.push(Problem::new(name, seed, tensors, move |t| {
                Ok(Scale {
                    input: t[0].clone(),
                    factor,
                    output: t[out].clone(),
                }
                .into())
            }));
        }
    }
    Box::new(problems.into_iter())
}

fn soft_cap() -> Problems {
    let mut problems = Vec::new();
    for cap in [30.0f32, 50.0, 1.0, 1e-3, 1e30] {
        for (place, shape) in PLACES[..2]
            .iter()
            .flat_map(|p| SHAPES.iter().map(move |s| (*p, *s)))
        {
            let name = format!("SoftCap {cap:e} {shape:?} {place:?}");
            let (seed, mut rng) = rng(&name);
            let mut input = lively(&mut rng, count(shape));
            input[0] = f32::NEG_INFINITY;
            let values: Vec<f64> = input
                .iter()
                .map(|x| softcap(f64::from(*x), f64::from(cap)))
                .collect();
            // A quotient below the normal range may be flushed to zero.
            let bounds = values
                .iter()
                .map(|value| 1e-6 * value.abs() + f64::from(cap) * 1.2e-38)
                .collect();
            let expected = Expected::Close {
                values,
                bounds,
                leave: None,
                halves: None,
                why: "an f32 tanh and two roundings",
            };
            let (tensors, out) = unary(place, shape, HostTensor::f32(shape, &input), expected);
            problems.push(Problem::new(name, seed, tensors, move |t| {
                Ok(SoftCap {
                    input: t[0].clone(),
                    cap,
                    output: t[out].clone(),
                }
                .into())
            }));
        }
    }
    Box::new(problems.into_iter())
}
