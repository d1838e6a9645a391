//! Every tensor is used or refused, and what an architecture has is there.

use walsh_runtime::SessionOptions;

use crate::support::tiny::{self, Tiny};
use crate::{TOKENS, logits, of, open, refused};

#[test]
fn tensors_that_nothing_uses_are_refused() {
    for (architecture, name, shape) in [
        ("llama", "blk.0.attn_norm.scale", &[1][..]),
        ("llama", "blk.0.attn_sub_norm.weight", &[64]),
        ("llama", "blk.2.attn_norm.weight", &[64]),
        ("llama", "blk.0.attn_q_norm.weight", &[64]),
        ("llama", "blk.1.ffn_gate_inp.weight", &[8, 64]),
        ("llama", "output.bias", &[260]),
        ("llama", "rope_factors_long.weight", &[32]),
        ("qwen2", "blk.0.ffn_up.bias", &[96]),
        ("qwen3", "rope_freqs.weight", &[32]),
        ("qwen3", "cls.output.weight", &[2, 64]),
        ("gemma3", "v.patch_embd.weight", &[64]),
        ("llama", "anything", &[1]),
    ] {
        let model = Tiny {
            extra: vec![(name, shape)],
            ..of(architecture)
        };
        refused(&model, &[name, architecture]);
    }
    // The first in order is named.
    let two = Tiny {
        extra: vec![("b", &[1]), ("a", &[1])],
        ..of("llama")
    };
    refused(&two, &["tensor a "]);
}

#[test]
fn tensors_that_an_architecture_may_have_are_used() {
    let plain = |architecture| logits(&open(&of(architecture)).expect("plain"), "f16", &TOKENS);
    let all_layers = |part: [&'static str; 2], shape: &'static [usize]| part.map(|n| (n, shape));
    for (architecture, extra) in [
        (
            "llama",
            all_layers(["blk.0.attn_v.bias", "blk.1.attn_v.bias"], &[64]),
        ),
        (
            "llama",
            all_layers(["blk.0.attn_output.bias", "blk.1.attn_output.bias"], &[64]),
        ),
        (
            "llama",
            all_layers(["blk.0.ffn_up.bias", "blk.1.ffn_up.bias"], &[96]),
        ),
        (
            "gemma3",
            all_layers(["blk.0.attn_v.bias", "blk.1.attn_v.bias"], &[64]),
        ),
    ] {
        let model = open(&Tiny {
            extra: extra.to_vec(),
            ..of(architecture)
        });
        let model = model.expect(extra[0].0);
        assert_ne!(
            logits(&model, "f16", &TOKENS),
            plain(architecture),
            "{extra:?}"
        );
    }
    let output = Tiny {
        extra: vec![("output.weight", &[tiny::VOCABULARY, tiny::WIDTH])],
        ..of("llama")
    };
    assert_ne!(
        logits(&open(&output).expect("untied"), "f16", &TOKENS),
        plain("llama")
    );
    let biased = Tiny {
        extra: vec![("output.bias", &[tiny::VOCABULARY])],
        ..of("qwen2")
    };
    assert_ne!(
        logits(&open(&biased).expect("biased"), "f16", &TOKENS),
        plain("qwen2")
    );
    // Divisors of 1 leave the frequencies as they are.
    let factors = Tiny {
        extra: vec![("rope_freqs.weight", &[32])],
        ..of("llama")
    };
    assert_eq!(
        logits(&open(&factors).expect("factors"), "f16", &TOKENS),
        plain("llama")
    );
    let short = Tiny {
        extra: vec![("rope_freqs.weight", &[31])],
        ..of("llama")
    };
    refused(&short, &["rope_freqs.weight", "32 numbers"]);
}

#[test]
fn norms_that_an_architecture_has_must_be_there() {
    for (architecture, name) in [
        ("qwen3", "blk.1.attn_q_norm.weight"),
        ("qwen3", "blk.0.attn_k_norm.weight"),
        ("gemma3", "blk.1.attn_k_norm.weight"),
        ("gemma2", "blk.0.post_attention_norm.weight"),
        ("gemma3", "blk.1.post_ffw_norm.weight"),
        ("llama", "blk.1.ffn_norm.weight"),
        ("llama", "output_norm.weight"),
    ] {
        let model = Tiny {
            without: Some(name),
            ..of(architecture)
        };
        refused(&model, &[&format!("tensor {name} is missing")]);
    }
}

#[test]
fn biases_come_in_all_layers_or_in_none() {
    let some = |architecture, extra| Tiny {
        extra,
        ..of(architecture)
    };
    refused(
        &some("llama", vec![("blk.1.attn_k.bias", &[64])]),
        &["tensor blk.0.attn_k.bias is missing"],
    );
    let keys: Vec<(&str, &[usize])> =
        vec![("blk.0.attn_k.bias", &[64]), ("blk.1.attn_k.bias", &[64])];
    refused(
        &some("qwen2", keys.clone()),
        &["tensor blk.0.attn_q.bias is missing"],
    );
    open(&some("llama", keys)).expect("biases of keys alone");
}

#[test]
fn heads_of_every_size_run_in_plain_numbers() {
    for head_dim in [16, 18, 34, 66, 100, 250, 272, 512] {
        let model = open(&Tiny {
            head_dim,
            ..of("llama")
        });
        let model = model.expect("the model");
        for kv in ["f16", "f32", "bf16"] {
            let at_once = logits(&model, kv, &TOKENS);
            let options = SessionOptions {
                context: 64,
                kv: kv.parse().expect("a SPEC"),
                ..SessionOptions::default()
            };
            let mut session = model.session(options).expect("a session");
            for token in TOKENS {
                session.decode(token).expect("read");
            }
            let one_by_one = session.logits();
            let spread = at_once.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let most = at_once.iter().zip(one_by_one).map(|(a, b)| (a - b).abs());
            let most = most.fold(0.0, f32::max);
            assert!(most < 0.03 * spread, "{head_dim} {kv}: {most} of {spread}");
        }
    }
    for head_dim in [8, 33, 514] {
        refused(
            &Tiny {
                head_dim,
                ..of("llama")
            },
            &[&head_dim.to_string()],
        );
    }
}

#[test]
fn the_vocabulary_and_the_embedding_table_are_of_one_size() {
    let mut tokens: Vec<String> = (0..256).map(|id| format!("t{id}")).collect();
    tokens[255] = "t1t2".into();
    let fewer = Tiny {
        metadata: vec![
            ("tokenizer.ggml.tokens", Some(tokens.into())),
            ("tokenizer.ggml.token_type", Some(vec![1_i32; 256].into())),
            (
                "tokenizer.ggml.merges",
                Some(vec!["t1 t2".to_owned()].into()),
            ),
            ("tokenizer.ggml.bos_token_id", Some(0_u32.into())),
            ("tokenizer.ggml.eos_token_id", Some(1_u32.into())),
        ],
        ..of("llama")
    };
    refused(&fewer, &["256 tokens", "260 rows"]);
}
