//! What models of short convolutions refuse.

use walsh::formats::gguf::write::NewValue;

use walsh_runtime::{Model, inspect};

use super::{Whole, changed, named, refusal, refused, rename, set};

/// Why the model is refused with another value for a key, or without it.
fn with(name: &str, key: &str, value: Option<NewValue>) -> String {
    let (_folder, changed) = changed(&named(name), &[(key, value)], |_| {});
    refusal(changed.path.clone())
}

#[test]
fn convolutions_that_contradict_themselves_are_refused() {
    let taps = "lfm2.shortconv.l_cache";
    for (value, words) in [
        (0, "shortconv.l_cache is 0, but only 2 to 4"),
        (1, "shortconv.l_cache is 1, but only 2 to 4"),
        (5, "shortconv.l_cache is 5, but only 2 to 4"),
        (4, "the metadata asks for [32, 4]"),
    ] {
        let error = refused("lfm2", |bytes| set(bytes, taps, value));
        assert!(error.contains(words), "{value}: {error}");
    }
    let error = with("lfm2", taps, None);
    assert!(error.contains("shortconv.l_cache"), "{error}");
    let heads = "lfm2.attention.head_count_kv";
    for (value, words) in [
        (vec![0, 0, 0], "no layer attends"),
        (vec![0, 1], "2 entries for 3 layers"),
        (vec![0, -1, 0], "head_count_kv is -1"),
        (vec![2, 1, 0], "is 2 for one layer and 1 for another"),
        (vec![0, 3, 0], "2 query heads are not a multiple of 3"),
        (vec![1, 1, 0], "tensor blk.0.attn_q.weight is missing"),
        (vec![1, 0, 0], "tensor blk.0.attn_q.weight is missing"),
    ] {
        let error = with("lfm2", heads, Some(value.clone().into()));
        assert!(error.contains(words), "{value:?}: {error}");
    }
    let error = with("lfm2", heads, None);
    assert!(error.contains("head_count_kv is missing"), "{error}");
}

#[test]
fn a_look_at_a_model_tells_its_layers_apart() {
    let device = walsh::open("cpu:threads=1").expect("the processor");
    let model = Model::open(&device, named("lfm2moe").path).expect("the model");
    let shape = inspect(&model, &[], 64).expect("a look").shape;
    assert_eq!((shape.feed_forward, shape.experts), (16, Some(5)));
    assert_eq!(
        (shape.dense_feed_forward, shape.dense_layers),
        (Some(40), vec![0])
    );
    assert_eq!((shape.recurrent_layers, shape.kv_heads), (vec![0, 2], 1));
    // Of each of two layers, two tokens of 32 channels.
    assert_eq!(shape.state_bytes, Some(2 * 4 * 2 * 32));
    let model = Model::open(&device, named("lfm2").path).expect("the model");
    let shape = inspect(&model, &[], 64).expect("a look").shape;
    assert_eq!((shape.feed_forward, shape.dense_feed_forward), (32, None));
}

#[test]
fn layers_without_experts_that_contradict_themselves_are_refused() {
    let dense = "lfm2moe.leading_dense_block_count";
    for (value, words) in [
        (0, "tensor blk.0.ffn_gate_exps.weight is missing"),
        (2, "tensor blk.1.ffn_gate.weight is missing"),
        (3, "leading_dense_block_count is 3, which no model has"),
    ] {
        let error = refused("lfm2moe", |bytes| set(bytes, dense, value));
        assert!(error.contains(words), "{value}: {error}");
    }
    for (key, value, words) in [
        ("lfm2moe.feed_forward_length", 24, "asks for [24, 32]"),
        (
            "lfm2moe.expert_feed_forward_length",
            8,
            "asks for [5, 8, 32]",
        ),
        ("lfm2moe.expert_gating_func", 1, "only 2 is supported"),
        ("lfm2moe.expert_gating_func", 3, "only 2 is supported"),
    ] {
        let error = refused("lfm2moe", |bytes| set(bytes, key, value));
        assert!(error.contains(words), "{key} = {value}: {error}");
    }
    // Only dense models have no experts at all.
    let error = with("lfm2", "lfm2.leading_dense_block_count", Some(1u32.into()));
    assert!(error.contains("leading_dense_block_count"), "{error}");
}

#[test]
fn parts_of_convolutions_are_there_or_refused() {
    for (model, from, to) in [
        ("lfm2", "token_embd_norm.weight", "token_embd_nomr.weight"),
        (
            "lfm2",
            "blk.0.shortconv.conv.weight",
            "blk.0.shortconv.cnov.weight",
        ),
        (
            "lfm2",
            "blk.2.shortconv.in_proj.weight",
            "blk.2.shortconv.in_porj.weight",
        ),
        (
            "lfm2",
            "blk.2.shortconv.out_proj.weight",
            "blk.2.shortconv.out_porj.weight",
        ),
        (
            "lfm2moe",
            "blk.1.exp_probs_b.bias",
            "blk.1.exp_probs_c.bias",
        ),
        (
            "lfm2",
            "blk.1.attn_q_norm.weight",
            "blk.1.attn_q_nomr.weight",
        ),
    ] {
        let error = refused(model, |bytes| rename(bytes, from, to));
        assert!(
            error.contains(&format!("tensor {from} is missing")),
            "{error}"
        );
    }
    // Biases of convolutions, and what models of other families put behind the last layer.
    for name in ["blk.0.shortconv.in_proj.bias", "dense_2.weight"] {
        let more = |all: &mut Vec<Whole>| all.push((name.to_owned(), vec![96], vec![0.0; 96]));
        let (_folder, changed) = changed(&named("lfm2"), &[], more);
        let error = refusal(changed.path.clone());
        assert!(
            error.contains(&format!("tensor {name} is of no part")),
            "{error}"
        );
    }
    // Models that see what comes behind a token.
    let error = with("lfm2", "lfm2.attention.causal", Some(false.into()));
    assert!(error.contains("attention.causal is false"), "{error}");
}
