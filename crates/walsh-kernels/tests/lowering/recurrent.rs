//! What ops that keep a state are lowered to.

use walsh_core::Tensor;
use walsh_core::ops::{DeltaRule, HeadOrder, ShortConv};
use walsh_formats::DType;

use crate::paper::{Bench, h200, names};

fn conv(bench: &Bench, tokens: [&Tensor; 2]) -> ShortConv {
    let n = tokens[0].shape()[0];
    ShortConv {
        input: bench.tensor(DType::F32, &[n, 8192]),
        weight: bench.tensor(DType::F32, &[8192, 4]),
        silu: true,
        state: bench.tensor(DType::F32, &[16, 3, 8192]),
        positions: tokens[0].clone(),
        sequences: Some(tokens[1].clone()),
        output: bench.tensor(DType::F32, &[n, 8192]),
    }
}

fn delta(bench: &Bench, conv: &ShortConv) -> DeltaRule {
    let n = conv.output.shape()[0];
    DeltaRule {
        mixed: conv.output.clone(),
        decay: bench.tensor(DType::F32, &[n, 32]),
        rate: bench.tensor(DType::F32, &[n, 32]),
        decay_bias: bench.tensor(DType::F32, &[32]),
        decay_scale: bench.tensor(DType::F32, &[32]),
        order: HeadOrder::Tiled,
        state: bench.tensor(DType::F32, &[16, 32, 128, 128]),
        positions: conv.positions.clone(),
        sequences: conv.sequences.clone(),
        output: bench.tensor(DType::F32, &[n, 32, 128]),
    }
}

#[test]
fn layers_share_the_look_at_their_tokens() {
    let bench = h200();
    let tokens = [0, 1].map(|_| bench.tensor(DType::I32, &[7]));
    let layers = [0, 1].map(|_| conv(&bench, [&tokens[0], &tokens[1]]));
    let ops = layers.iter().flat_map(|layer| {
        let rule = delta(&bench, layer);
        [layer.clone().into(), rule.into()]
    });
    let lowered = bench.lower(ops.collect()).unwrap();
    let layer = ["short_conv", "delta_rule"];
    assert_eq!(
        names(&lowered),
        ["kv_tokens", layer[0], layer[1], layer[0], layer[1]]
    );
    // A group for 128 channels of each row, and for 32 columns of each head of each row.
    assert_eq!(lowered[1].groups, [64 * 7, 1, 1]);
    assert_eq!(lowered[2].groups, [4 * 32 * 7, 1, 1]);
    assert!(lowered[2].barrier, "it reads what the convolution writes");
}
