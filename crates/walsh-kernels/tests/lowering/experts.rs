//! What products with experts are lowered to.

use walsh_core::ops::{ExpertMatMul, Scale};
use walsh_core::{Activations, Tensor};
use walsh_formats::DType;
use walsh_kernels::Limits;

use crate::paper::{Bench, H200, h200, names};

/// A product of tokens with some of 128 experts, of `[768, 512]` each.
fn product(bench: &Bench, dtype: DType, input: &Tensor, ids: &Tensor) -> ExpertMatMul {
    let [tokens, slots] = [ids.shape()[0], ids.shape()[1]];
    ExpertMatMul {
        weight: bench.tensor(dtype, &[128, 768, 512]),
        ids: ids.clone(),
        input: input.clone(),
        bias: None,
        output: bench.tensor(DType::F32, &[tokens, slots, 768]),
    }
}

fn input(bench: &Bench, tokens: u64) -> [Tensor; 2] {
    let input = bench.tensor(DType::F32, &[tokens, 512]);
    [input, bench.tensor(DType::I32, &[tokens, 8])]
}

#[test]
fn products_of_one_input_share_its_form_and_the_check_of_ids() {
    let bench = h200();
    let [x, ids] = input(&bench, 1);
    let product = |dtype| product(&bench, dtype, &x, &ids);
    let overwrite = Scale {
        input: bench.tensor(DType::F32, &[1, 512]),
        factor: 2.0,
        output: x.clone(),
    };
    let ops = vec![
        product(DType::Q4K).into(),
        product(DType::Q4K).into(),
        product(DType::F16).into(),
        overwrite.into(),
        product(DType::Q4K).into(),
    ];
    let lowered = bench.lower(ops).unwrap();
    let [check, form, blocks] = ["check_ids", "quantise", "expert_blocks"];
    assert_eq!(
        names(&lowered),
        [
            check,
            form,
            blocks,
            blocks,
            "expert_floats",
            "map",
            form,
            blocks
        ]
    );
    // Two rows of the weight to each of four simdgroups, for eight slots.
    assert_eq!(lowered[2].groups, [768 / 2 / 4 * 8, 1, 1]);
}

#[test]
fn many_tokens_are_put_in_the_order_of_their_experts() {
    let bench = h200();
    for (tokens, tile) in [(64, 32), (512, 32), (768, 64)] {
        let [x, ids] = input(&bench, tokens);
        let gate = product(&bench, DType::Q4K, &x, &ids);
        let up = product(&bench, DType::Q6K, &x, &ids);
        let lowered = bench.lower(vec![gate.into(), up.into()]).unwrap();
        let [tiles, scatter] = ["expert_tiles", "expert_scatter"];
        assert_eq!(
            names(&lowered),
            [
                "check_ids",
                "expert_order",
                "expert_gather",
                tiles,
                scatter,
                tiles,
                scatter
            ],
            "{tokens} tokens"
        );
        // Each of 128 experts may have a tile that is not full.
        let most = tokens * 8 / tile + 128;
        assert_eq!(lowered[3].variant.constant("TILE_M"), tile as i64);
        assert_eq!(lowered[3].groups, [768 / 64, most as u32, 1]);
    }
}

#[test]
fn few_slots_of_an_expert_and_full_precision_take_rows_one_by_one() {
    let last = |limits: Limits, dtype, tokens| {
        let bench = Bench::new(limits);
        let [x, ids] = input(&bench, tokens);
        let op = product(&bench, dtype, &x, &ids);
        let lowered = bench.lower(vec![op.into()]).unwrap();
        names(&lowered).pop().unwrap()
    };
    assert_eq!(last(H200, DType::Q4K, 63), "expert_blocks");
    assert_eq!(last(H200, DType::Q4K, 64), "expert_scatter");
    for dtype in [DType::BF16, DType::F16] {
        assert_eq!(last(H200, dtype, 63), "expert_floats");
        assert_eq!(last(H200, dtype, 64), "expert_scatter");
    }
    assert_eq!(last(H200, DType::F32, 64), "expert_floats");
    let exact = Limits {
        activations: Activations::F32,
        ..H200
    };
    assert_eq!(last(exact, DType::Q4K, 64), "expert_blocks");
    let without = Limits {
        bfloat_matrices: false,
        ..H200
    };
    assert_eq!(last(without, DType::Q4K, 64), "expert_blocks");
}
