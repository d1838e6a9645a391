use walsh::DType;
use walsh::ops::{DeltaRule, HeadOrder, ShortConv};

use super::shared::{Problems, Table, rng};
use crate::reference::{self, DeltaHead, DeltaToken};
use crate::{Expected, HostTensor, Problem};

pub(super) const TABLES: &[Table] = &[
    Table::new("ShortConv", short_conv),
    Table::new("DeltaRule", delta_rule),
];

/// Tokens of a sequence: its slot, the position of the first, and how many.
type Run = (i32, i32, usize);

/// One sequence, whose op knows no others.
const ALONE: &[&[Run]] = &[
    &[(0, 0, 1)],
    &[(0, 0, 3)],
    &[(0, 7, 1)],
    &[(0, 1, 2)],
    &[(0, 0, 70)],
    &[(0, 64, 37)],
];

/// Several, of slots in any order; not all slots are somebody's.
const TOGETHER: &[&[Run]] = &[
    &[(2, 9, 1), (0, 0, 1), (3, 1, 1)],
    &[(1, 4, 2), (4, 0, 20), (0, 30, 5), (2, 0, 3)],
];

/// Slots of a state.
const SLOTS: usize = 5;

fn name_of(runs: &[Run]) -> String {
    let runs: Vec<String> = runs
        .iter()
        .map(|(slot, first, count)| format!("{count} from {first} in {slot}"))
        .collect();
    runs.join(", ")
}

/// All rows' positions and slots.
fn rows_of(runs: &[Run]) -> (Vec<i32>, Vec<i32>) {
    let rows = runs
        .iter()
        .flat_map(|(slot, first, count)| (0..*count).map(move |at| (first + at as i32, *slot)));
    rows.unzip()
}

fn cases() -> impl Iterator<Item = (&'static [Run], bool)> {
    let alone = ALONE.iter().map(|runs| (*runs, false));
    alone.chain(TOGETHER.iter().map(|runs| (*runs, true)))
}

/// What a state is where a run begins: nothing, or what its slot holds.
fn from((_, first, _): Run, held: &[f32]) -> Vec<f64> {
    let known = |x: &f32| if first == 0 { 0.0 } else { f64::from(*x) };
    held.iter().map(known).collect()
}

fn short_conv() -> Problems {
    let mut problems = Vec::new();
    for (channels, taps, silu) in [
        (16, 4, true),
        (48, 2, true),
        (144, 3, true),
        (1040, 4, true),
        (272, 3, false),
    ] {
        for (runs, together) in cases() {
            problems.push(convolution((channels, taps, silu), runs, together));
        }
    }
    Box::new(problems.into_iter())
}

fn convolution(
    (channels, taps, silu): (usize, usize, bool),
    runs: &'static [Run],
    together: bool,
) -> Problem {
    let plain = if silu { "" } else { " no SiLU" };
    let name = format!("ShortConv [{channels}, {taps}]{plain}, {}", name_of(runs));
    let (seed, mut rng) = rng(&name);
    let (positions, sequences) = rows_of(runs);
    let (n, before) = (positions.len(), taps - 1);
    let input = rng.normals(n * channels);
    let weight = rng.normals(channels * taps);
    let state = rng.normals(SLOTS * before * channels);
    let mut outputs = vec![0.0; n * channels];
    let mut left: Vec<f64> = state.iter().map(|x| f64::from(*x)).collect();
    let mut start = 0;
    for run in runs {
        let kept = run.0 as usize * before * channels;
        for channel in 0..channels {
            let at = |age: usize| kept + age * channels + channel;
            let held: Vec<f32> = (0..before).map(|age| state[at(age)]).collect();
            let mut latest = from(*run, &held);
            let own: Vec<f32> = (start..start + run.2)
                .map(|row| input[row * channels + channel])
                .collect();
            let of_channel = &weight[channel * taps..][..taps];
            let found = reference::short_conv(of_channel, &mut latest, &own, silu);
            for (row, output) in found.into_iter().enumerate() {
                outputs[(start + row) * channels + channel] = output;
            }
            for (age, input) in latest.into_iter().enumerate() {
                left[at(age)] = input;
            }
        }
        start += run.2;
    }
    let left: Vec<f32> = left.iter().map(|x| *x as f32).collect();
    let why = "a sum of up to four products of normal numbers, and an f32 exponential";
    let [n, channels, taps] = [n, channels, taps].map(|size| size as u64);
    let slots = SLOTS as u64;
    let tensors = vec![
        HostTensor::f32(&[n, channels], &input),
        HostTensor::f32(&[channels, taps], &weight),
        HostTensor::f32(&[slots, taps - 1, channels], &state).becomes(Expected::f32(&left)),
        HostTensor::i32(&positions),
        HostTensor::i32(&sequences),
        HostTensor::output(
            DType::F32,
            &[n, channels],
            Expected::close(outputs, 1e-6, 4.0, why),
        ),
    ];
    Problem::new(name, seed, tensors, move |t| {
        Ok(ShortConv {
            input: t[0].clone(),
            weight: t[1].clone(),
            silu,
            state: t[2].clone(),
            positions: t[3].clone(),
            sequences: together.then(|| t[4].clone()),
            output: t[5].clone(),
        }
        .into())
    })
}

/// Sizes of a delta rule.
#[derive(Debug, Clone, Copy)]
struct Heads {
    heads: usize,
    key_heads: usize,
    key_dim: usize,
    value_dim: usize,
    order: HeadOrder,
}

fn delta_rule() -> Problems {
    let mut problems = Vec::new();
    for (heads, key_heads, key_dim, value_dim, order) in [
        (1, 1, 16, 16, HeadOrder::Tiled),
        (4, 2, 16, 48, HeadOrder::Tiled),
        (4, 2, 32, 16, HeadOrder::Grouped),
        (6, 2, 48, 32, HeadOrder::Grouped),
        (2, 1, 128, 128, HeadOrder::Tiled),
        (2, 2, 256, 64, HeadOrder::Grouped),
    ] {
        for (runs, together) in cases() {
            let heads = Heads {
                heads,
                key_heads,
                key_dim,
                value_dim,
                order,
            };
            problems.push(following(heads, runs, together));
        }
    }
    Box::new(problems.into_iter())
}

fn following(sizes: Heads, runs: &'static [Run], together: bool) -> Problem {
    let Heads {
        heads,
        key_heads,
        key_dim,
        value_dim,
        order,
    } = sizes;
    let name = format!(
        "DeltaRule {heads} of {key_heads} [{key_dim}, {value_dim}] {order:?}, {}",
        name_of(runs)
    );
    let (seed, mut rng) = rng(&name);
    let (positions, sequences) = rows_of(runs);
    let n = positions.len();
    let (keys, values) = (key_heads * key_dim, heads * value_dim);
    let width = 2 * keys + values;
    let mut mixed = rng.normals(n * width);
    // Queries and keys of any magnitude are made unit vectors; one of zeros is none.
    for (row, numbers) in mixed.chunks_exact_mut(width).enumerate() {
        let magnitude = [1.0, 20.0, 0.05, 0.0][row % 4];
        numbers[..2 * keys].iter_mut().for_each(|x| *x *= magnitude);
    }
    let decay = rng.normals(n * heads);
    let rate: Vec<f32> = rng.normals(n * heads).iter().map(|x| 3.0 * x).collect();
    let bias = rng.normals(heads);
    // Heads that keep nearly all, and heads that forget at once.
    let scale: Vec<f32> = (0..heads)
        .map(|head| [-0.01, -1.0, -16.0][head % 3])
        .collect();
    let state = rng.normals(SLOTS * heads * key_dim * value_dim);
    let mut left: Vec<f64> = state.iter().map(|x| f64::from(*x)).collect();
    let mut outputs = vec![0.0; n * values];
    let mut start = 0;
    for run in runs {
        for head in 0..heads {
            let size = key_dim * value_dim;
            let kept = (run.0 as usize * heads + head) * size;
            let mut of_head = DeltaHead {
                bias: bias[head],
                scale: scale[head],
                state: from(*run, &state[kept..kept + size]),
            };
            let key_head = match order {
                HeadOrder::Grouped => head * key_heads / heads,
                HeadOrder::Tiled => head % key_heads,
            };
            for row in start..start + run.2 {
                let numbers = &mixed[row * width..][..width];
                let found = of_head.token(DeltaToken {
                    query: &numbers[key_head * key_dim..][..key_dim],
                    key: &numbers[keys + key_head * key_dim..][..key_dim],
                    value: &numbers[2 * keys + head * value_dim..][..value_dim],
                    decay: decay[row * heads + head],
                    rate: rate[row * heads + head],
                });
                outputs[row * values + head * value_dim..][..value_dim].copy_from_slice(&found);
            }
            left[kept..kept + size].copy_from_slice(&of_head.state);
        }
        start += run.2;
    }
    let why = "sums of up to 256 products, of states that add up to 70 tokens' roundings";
    let close = |numbers: Vec<f64>| Expected::close(numbers, 3e-6, 4.0, why);
    let [n, heads, key_dim, value_dim, width] =
        [n, heads, key_dim, value_dim, width].map(|size| size as u64);
    let states = [SLOTS as u64, heads, key_dim, value_dim];
    let tensors = vec![
        HostTensor::f32(&[n, width], &mixed),
        HostTensor::f32(&[n, heads], &decay),
        HostTensor::f32(&[n, heads], &rate),
        HostTensor::f32(&[heads], &bias),
        HostTensor::f32(&[heads], &scale),
        HostTensor::f32(&states, &state).becomes(close(left)),
        HostTensor::i32(&positions),
        HostTensor::i32(&sequences),
        HostTensor::output(DType::F32, &[n, heads, value_dim], close(outputs)),
    ];
    Problem::new(name, seed, tensors, move |t| {
        Ok(DeltaRule {
            mixed: t[0].clone(),
            decay: t[1].clone(),
            rate: t[2].clone(),
            decay_bias: t[3].clone(),
            decay_scale: t[4].clone(),
            order,
            state: t[5].clone(),
            positions: t[6].clone(),
            sequences: together.then(|| t[7].clone()),
            output: t[8].clone(),
        }
        .into())
    })
}
