//! Gemma 4, whose layers are unlike each other: other ways to write the same, and what contradicts itself.

use walsh::formats::gguf::write::NewValue;

use super::{Whole, changed, logits_of, logits_with, named, ones, refusal};

const EVERY: &str = "gemma4.attention.sliding_window_pattern";
const HEADS: &str = "gemma4.attention.head_count_kv";
const SHARED: &str = "gemma4.attention.shared_kv_layers";
const INPUTS: &str = "gemma4.embedding_length_per_layer_input";

#[test]
fn what_contradicts_itself_is_refused() {
    let cases: [(&str, &str, Option<NewValue>, &str); 21] = [
        (
            "gemma4-shared",
            SHARED,
            Some(6u32.into()),
            "shared_kv_layers is 6, but of 6 layers one at least",
        ),
        (
            "gemma4-shared",
            SHARED,
            Some(4_000_000_000u32.into()),
            "but of 6 layers one at least",
        ),
        (
            "gemma4-shared",
            SHARED,
            Some(5u32.into()),
            "layer 1 has no keys and values of its own, and no layer that has some sees equally far",
        ),
        (
            "gemma4-shared",
            SHARED,
            Some(2u32.into()),
            "tensor blk.3.attn_k.weight is missing",
        ),
        (
            "gemma4-shared",
            HEADS,
            Some(vec![1i32, 1, 1, 2, 1, 1].into()),
            "layer 3 has 2 KV heads, but attends to the keys and values of a layer that has 1",
        ),
        (
            "gemma4-shared",
            HEADS,
            Some(vec![1i32, 1, 1].into()),
            "has 3 entries for 6 layers",
        ),
        (
            "gemma4",
            HEADS,
            Some(vec![2i32, 0, 2, 1].into()),
            "head_count_kv is 0",
        ),
        (
            "gemma4",
            HEADS,
            Some(vec![2i32, 3, 2, 1].into()),
            "4 query heads are not a multiple of 3 KV heads",
        ),
        (
            "gemma4",
            HEADS,
            Some(vec![2i32, -1, 2, 1].into()),
            "head_count_kv is -1",
        ),
        (
            "gemma4",
            HEADS,
            Some(2u32.into()),
            "tensor blk.1.attn_k.weight has the shape [32, 32]",
        ),
        (
            "gemma4",
            "gemma4.attention.head_count",
            Some(vec![4i32, 4, 2, 4].into()),
            "is 4 for one layer and 2 for another",
        ),
        (
            "gemma4",
            EVERY,
            Some(vec![true, false].into()),
            "has 2 entries for 4 layers",
        ),
        ("gemma4", EVERY, None, "sliding_window_pattern is missing"),
        (
            "gemma4",
            "gemma4.attention.sliding_window",
            None,
            "attention.sliding_window is missing",
        ),
        (
            "gemma4",
            "gemma4.attention.key_length_swa",
            Some(8u32.into()),
            "a head size of 8 is not supported",
        ),
        (
            "gemma4",
            "gemma4.attention.value_length_swa",
            Some(32u32.into()),
            "value_length_swa is 32, but only 16",
        ),
        (
            "gemma4",
            "gemma4.rope.dimension_count_swa",
            Some(18u32.into()),
            "18 rotating numbers per head of 16",
        ),
        (
            "gemma4-shared",
            INPUTS,
            Some(0u32.into()),
            "tensor blk.0.inp_gate.weight is of no part",
        ),
        (
            "gemma4-shared",
            INPUTS,
            Some(4u32.into()),
            "the metadata asks for",
        ),
        (
            "gemma4-experts",
            "gemma4.expert_count",
            Some(0u32.into()),
            "expert_used_count is 2, but only 0",
        ),
        (
            "gemma4-experts",
            "gemma4.expert_feed_forward_length",
            Some(0u32.into()),
            "expert_feed_forward_length is 0",
        ),
    ];
    for (model, key, value, words) in cases {
        let (_folder, changed) = changed(&named(model), &[(key, value)], |_| ());
        let error = refusal(changed.path);
        assert!(error.contains(words), "{model} {key}: {error}");
    }
}

#[test]
fn tensors_that_are_half_there_are_refused() {
    for (model, tensor, words) in [
        (
            "gemma4",
            "rope_freqs.weight",
            "rope_freqs.weight is missing",
        ),
        (
            "gemma4",
            "blk.2.layer_output_scale.weight",
            "blk.2.layer_output_scale.weight is missing",
        ),
        (
            "gemma4",
            "blk.2.attn_v.weight",
            "blk.2.attn_v.weight is missing",
        ),
        (
            "gemma4-shared",
            "per_layer_token_embd.weight",
            "per_layer_token_embd.weight is missing",
        ),
        (
            "gemma4-shared",
            "per_layer_proj_norm.weight",
            "per_layer_proj_norm.weight is missing",
        ),
        (
            "gemma4-shared",
            "blk.4.post_norm.weight",
            "blk.4.post_norm.weight is missing",
        ),
        (
            "gemma4-experts",
            "blk.1.ffn_gate_inp.scale",
            "blk.1.ffn_gate_inp.scale is missing",
        ),
        (
            "gemma4-experts",
            "blk.0.ffn_down_exps.scale",
            "blk.0.ffn_down_exps.scale is missing",
        ),
        (
            "gemma4-experts",
            "blk.0.ffn_gate_up_exps.weight",
            "blk.0.ffn_gate_exps.weight is missing",
        ),
        (
            "gemma4-experts",
            "blk.1.post_ffw_norm_1.weight",
            "blk.1.post_ffw_norm_1.weight is missing",
        ),
    ] {
        let (_folder, changed) = changed(&named(model), &[], |all| {
            let before = all.len();
            all.retain(|(name, ..)| name != tensor);
            assert_eq!(all.len(), before - 1, "{tensor}");
        });
        let error = refusal(changed.path);
        assert!(error.contains(words), "{model} {tensor}: {error}");
    }
    // One of the layers whose keys are their values has values all the same.
    let values = ones(("blk.3.attn_v.weight", &[32, 32]));
    let (_folder, changed) = changed(&named("gemma4"), &[], |all| all.push(values));
    let error = refusal(changed.path);
    assert!(error.contains("blk.1.attn_v.weight is missing"), "{error}");
}

#[test]
fn numbers_that_are_none_are_refused() {
    for (model, tensor) in [
        ("gemma4", "blk.0.layer_output_scale.weight"),
        ("gemma4-experts", "blk.0.ffn_gate_inp.scale"),
        ("gemma4-experts", "blk.1.ffn_down_exps.scale"),
    ] {
        let (_folder, changed) = changed(&named(model), &[], |all| {
            let found = all.iter_mut().find(|(name, ..)| name == tensor);
            found.expect("the tensor").2[0] = f32::NAN;
        });
        let error = refusal(changed.path);
        assert!(
            error.contains(&format!("tensor {tensor} is not finite")),
            "{error}"
        );
    }
}

/// Files have what was trained: keys and values of layers that attend to those of others, too.
#[test]
fn keys_of_layers_that_have_none_of_their_own_change_nothing() {
    let golden = named("gemma4-shared");
    let expected = logits_of(&golden);
    let more: [(&str, &[u64]); 4] = [
        ("blk.4.attn_k.weight", &[64, 32]),
        ("blk.4.attn_v.weight", &[64, 32]),
        ("blk.4.attn_k_norm.weight", &[64]),
        ("blk.3.attn_k.weight", &[32, 32]),
    ];
    assert_eq!(logits_with(&golden, &[], &more), expected);
    let wrong = ones(("blk.4.attn_k.weight", &[32, 32]));
    let (_folder, changed) = changed(&golden, &[], |all| all.push(wrong));
    let error = refusal(changed.path);
    assert!(
        error.contains("blk.4.attn_k.weight has the shape"),
        "{error}"
    );
}

/// Gates and ups of experts are one tensor or two.
#[test]
fn experts_are_the_same_in_both_their_forms() {
    let golden = named("gemma4-experts");
    let split = |all: &mut Vec<Whole>| {
        let (joined, mut rest): (Vec<Whole>, Vec<Whole>) = std::mem::take(all)
            .into_iter()
            .partition(|(name, ..)| name.contains("ffn_gate_up_exps"));
        for (name, shape, numbers) in joined {
            let [count, rows, columns] = [shape[0], shape[1] / 2, shape[2]];
            for (half, part) in ["ffn_gate_exps", "ffn_up_exps"].into_iter().enumerate() {
                let size = (rows * columns) as usize;
                let halves = numbers.chunks_exact(size).skip(half).step_by(2);
                rest.push((
                    name.replace("ffn_gate_up_exps", part),
                    vec![count, rows, columns],
                    halves.flatten().copied().collect(),
                ));
            }
        }
        *all = rest;
    };
    let (_folder, apart) = changed(&golden, &[], split);
    assert_eq!(logits_of(&apart), logits_of(&golden));
}
