use walsh::DType;
use walsh::formats::ggml;
use walsh::formats::rotation::Rotation;
use walsh::ops::{Direction, Rotate};

use super::shared::{Problems, Table, rng};
use crate::{Expected, HostTensor, Problem};

pub(super) const TABLES: &[Table] = &[Table::sampled(4, "Rotate", rotate)];

/// Powers of two, and sizes with a factor of each Paley matrix.
const SIZES: [u64; 16] = [
    16, 32, 64, 128, 256, 512, 48, 96, 192, 384, 80, 160, 320, 112, 224, 448,
];

/// Around the vectors of a work item.
const ROWS: [[u64; 2]; 3] = [[1, 1], [5, 3], [2, 17]];

const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn rotate() -> Problems {
    let cases = SIZES.into_iter().enumerate().flat_map(|(index, head_dim)| {
        [Direction::Forward, Direction::Inverse]
            .into_iter()
            .enumerate()
            .flat_map(move |(turn, direction)| {
                [false, true].into_iter().map(move |in_place| {
                    let dtype = TYPES[(index + turn + usize::from(in_place)) % 3];
                    let [rows, heads] = ROWS[(index / 3 + turn + usize::from(in_place)) % 3];
                    problem(direction, (dtype, [rows, heads, head_dim]), in_place)
                })
            })
    });
    Box::new(cases)
}

/// The same bits as the reference's: it rounds each sum and product, and so do all devices.
fn problem(direction: Direction, (dtype, shape): (DType, [u64; 3]), in_place: bool) -> Problem {
    let place = if in_place { "in place" } else { "apart" };
    let name = format!("Rotate {direction:?} {dtype}{shape:?} {place}");
    let (seed, mut rng) = rng(&name);
    let encoded = |numbers: &[f32]| {
        let mut bytes = vec![0; numbers.len() * dtype.block_bytes()];
        ggml::encode(dtype, numbers, &mut bytes).expect("finite numbers");
        bytes
    };
    let mut numbers = rng.normals(super::shared::count(&shape));
    let input = encoded(&numbers);
    ggml::decode(dtype, &input, &mut numbers).expect("whole numbers");
    let head_dim = shape[2] as usize;
    let rotation = Rotation::new(head_dim).expect("a size that has a rotation");
    for vector in numbers.chunks_exact_mut(head_dim) {
        match direction {
            Direction::Forward => rotation.forward(vector),
            Direction::Inverse => rotation.inverse(vector),
        }
    }
    let expected = Expected::Exact(encoded(&numbers));
    let input = HostTensor::stored(dtype, &shape, input);
    let tensors = match in_place {
        true => vec![input.becomes(expected)],
        false => vec![input, HostTensor::output(dtype, &shape, expected)],
    };
    Problem::new(name, seed, tensors, move |t| {
        Ok(Rotate {
            input: t[0].clone(),
            direction,
            output: t[t.len() - 1].clone(),
        }
        .into())
    })
}
