use walsh::DType;
use walsh::ops::EmbeddingRows;

use super::shared::{Problems, Table, rng};
use crate::random::blocks;
use crate::{Expected, HostTensor, Problem, reference};

pub(super) const TABLES: &[Table] = &[Table::new("EmbeddingRows", embedding_rows)];

fn embedding_rows() -> Problems {
    let mut problems = Vec::new();
    for dtype in super::shared::weight_types() {
        let block = dtype.block_len() as u64;
        for (vocabulary, width, n) in [(1, 1, 1), (7, 3, 5), (50, 9, 33)] {
            // Widths that are no power of two, and whole blocks where there are blocks.
            let width = if block == 1 {
                2 * width + 1
            } else {
                width * block
            };
            for scale in [1.0f32, 24.0, 0.3] {
                problems.push(problem(dtype, [vocabulary, width], n, scale));
            }
        }
    }
    Box::new(problems.into_iter())
}

fn problem(dtype: DType, shape: [u64; 2], n: usize, scale: f32) -> Problem {
    let name = format!("EmbeddingRows {n} of {dtype}{shape:?} × {scale}");
    let (seed, mut rng) = rng(&name);
    let table = blocks(&mut rng, dtype, super::shared::count(&shape));
    let mut ids: Vec<i32> = (0..n)
        .map(|_| rng.below(shape[0] as usize) as i32)
        .collect();
    ids[n - 1] = shape[0] as i32 - 1;
    let width = shape[1] as usize;
    let decoded = reference::decode(dtype, &table).expect("whole blocks");
    let values = ids
        .iter()
        .flat_map(|id| &decoded[*id as usize * width..][..width])
        .map(|value| f64::from(*value) * f64::from(scale))
        .collect();
    let expected = Expected::close(values, 1e-7, 1e-30, "decoded exactly, then one rounding");
    let tensors = vec![
        HostTensor::stored(dtype, &shape, table).imported(),
        HostTensor::i32(&ids),
        HostTensor::output(DType::F32, &[n as u64, shape[1]], expected),
    ];
    Problem::new(name, seed, tensors, move |t| {
        Ok(EmbeddingRows {
            table: t[0].clone(),
            ids: t[1].clone(),
            scale,
            output: t[2].clone(),
        }
        .into())
    })
}
