//! Layers that keep a state, at the sizes of Qwen 3.5's.

use walsh::DType;
use walsh::ops::{DeltaRule, HeadOrder, Operation, ShortConv};

use super::Workload;

/// The sizes of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recurrent {
    pub(super) heads: u64,
    pub(super) key_heads: u64,
    /// Numbers of a key, and of a value.
    pub(super) dim: u64,
    /// How many tokens of one sequence there are, a single one apart.
    pub(super) tokens: &'static [u64],
}

/// Taps of the short convolution.
const TAPS: u64 = 4;

pub(super) fn workloads(sizes: Recurrent, all: &mut Vec<Workload>) {
    let Recurrent {
        heads,
        key_heads,
        dim,
        ..
    } = sizes;
    let width = (2 * key_heads + heads) * dim;
    for &tokens in [1].iter().chain(sizes.tokens) {
        let positions = move || -> Vec<i32> { (0..tokens).map(|at| 1 + at as i32).collect() };
        let name = format!("[{tokens}, {width}] of {TAPS}");
        all.push(Workload::new(ShortConv::NAME, name, move |maker| {
            Ok(ShortConv {
                input: maker.floats(&[tokens, width])?,
                weight: maker.floats(&[width, TAPS])?,
                silu: true,
                state: maker.floats(&[1, TAPS - 1, width])?,
                positions: maker.positions(&positions())?,
                sequences: None,
                output: maker.output(DType::F32, &[tokens, width])?,
            }
            .into())
        }));
        let name = format!("[{tokens}, {heads}, {dim}] of {key_heads}");
        all.push(Workload::new(DeltaRule::NAME, name, move |maker| {
            Ok(DeltaRule {
                mixed: maker.floats(&[tokens, width])?,
                decay: maker.floats(&[tokens, heads])?,
                rate: maker.floats(&[tokens, heads])?,
                decay_bias: maker.floats(&[heads])?,
                // What is forgotten goes to zero whatever its sign.
                decay_scale: maker
                    .device
                    .tensor(&[heads], &vec![-1.0f32; heads as usize])?,
                order: HeadOrder::Tiled,
                state: maker.floats(&[1, heads, dim, dim])?,
                positions: maker.positions(&positions())?,
                sequences: None,
                output: maker.output(DType::F32, &[tokens, heads, dim])?,
            }
            .into())
        }));
    }
}
