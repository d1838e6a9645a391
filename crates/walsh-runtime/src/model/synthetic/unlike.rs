//! Shapes whose layers are unlike each other, as Gemma 4's are.

use walsh::formats::gguf::write::NewValue;

use super::mix::Role;
use super::shape::{Shape, Weight};

/// What layers that attend globally have of their own, and what only such families have. Every sixth layer does, and the
/// last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unlike {
    /// KV heads, and numbers per head.
    pub(super) global: [usize; 2],
    /// Whether their keys are their values.
    pub(super) keys_are_values: bool,
    /// The numbers of a token's embedding for each layer.
    pub(super) inputs: Option<usize>,
    /// How many layers, the last, have no keys and values of their own.
    pub(super) sharing: usize,
    /// Experts beside the feed-forward part: how many, how many a token goes to, and the width inside.
    pub(super) beside: Option<[usize; 3]>,
}

const PERIOD: usize = 6;

impl Shape {
    fn is_global(&self, layer: usize) -> bool {
        layer % PERIOD == PERIOD - 1 || layer == self.layers - 1
    }

    /// A quarter of the numbers of a head rotate, of layers that attend globally: others have a divisor without bound.
    pub(super) fn rope_factors(&self) -> Option<Vec<f32>> {
        let [_, dim] = self.unlike?.global;
        let factor = |pair: usize| if pair < dim / 8 { 1.0 } else { 1e30 };
        Some((0..dim / 2).map(factor).collect())
    }

    /// What makes embeddings for all layers.
    pub(super) fn inputs(&self) -> Vec<Weight> {
        let Some(own) = self.unlike.and_then(|unlike| unlike.inputs) else {
            return Vec::new();
        };
        let all = self.layers * own;
        vec![
            Weight::new(
                "per_layer_token_embd.weight",
                &[self.vocabulary, all],
                Role::Output,
            ),
            Weight::new(
                "per_layer_model_proj.weight",
                &[all, self.width],
                Role::Router,
            ),
            Weight::new("per_layer_proj_norm.weight", &[own], Role::Other),
        ]
    }

    pub(super) fn unlike_layer(&self, layer: usize, unlike: &Unlike) -> Vec<Weight> {
        let (width, inner, global) = (self.width, self.feed_forward, self.is_global(layer));
        let [kv_heads, dim] = match global {
            true => unlike.global,
            false => [self.kv_heads, self.head_dim],
        };
        let (queries, keys) = (self.heads * dim, kv_heads * dim);
        let mut weights = Vec::new();
        let mut add = |part: &str, shape: &[usize], role: Role| {
            weights.push(Weight::new(format!("blk.{layer}.{part}"), shape, role));
        };
        for part in [
            "attn_norm",
            "post_attention_norm",
            "ffn_norm",
            "post_ffw_norm",
        ] {
            add(&format!("{part}.weight"), &[width], Role::Other);
        }
        add("attn_q.weight", &[queries, width], Role::Other);
        add("attn_q_norm.weight", &[dim], Role::Other);
        add("attn_output.weight", &[width, queries], Role::Other);
        if layer < self.layers - unlike.sharing {
            add("attn_k.weight", &[keys, width], Role::Other);
            add("attn_k_norm.weight", &[dim], Role::Other);
            if !global || !unlike.keys_are_values {
                add("attn_v.weight", &[keys, width], Role::Value(layer));
            }
        }
        add("ffn_gate.weight", &[inner, width], Role::Other);
        add("ffn_up.weight", &[inner, width], Role::Other);
        add("ffn_down.weight", &[width, inner], Role::Down(layer));
        if let Some([count, _, inner]) = unlike.beside {
            for part in ["pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"] {
                add(&format!("{part}.weight"), &[width], Role::Other);
            }
            add("ffn_gate_inp.weight", &[count, width], Role::Router);
            add("ffn_gate_inp.scale", &[width], Role::Other);
            let both = [count, 2 * inner, width];
            add("ffn_gate_up_exps.weight", &both, Role::Other);
            let down = [count, width, inner];
            add("ffn_down_exps.weight", &down, Role::Down(layer));
            add("ffn_down_exps.scale", &[count], Role::Other);
        }
        if let Some(own) = unlike.inputs {
            add("inp_gate.weight", &[own, width], Role::Other);
            add("proj.weight", &[width, own], Role::Other);
            add("post_norm.weight", &[width], Role::Other);
        }
        add("layer_output_scale.weight", &[1], Role::Other);
        weights
    }

    /// The metadata that only such shapes have, in the place of what others have.
    pub(super) fn unlike_metadata(&self, unlike: &Unlike) -> Vec<(&'static str, NewValue)> {
        let [kv_heads, dim] = unlike.global;
        let layers = 0..self.layers;
        let heads = layers.clone().map(|layer| match self.is_global(layer) {
            true => kv_heads as i32,
            false => self.kv_heads as i32,
        });
        let slides = layers.map(|layer| !self.is_global(layer));
        let size = |size: usize| NewValue::from(size as u32);
        let mut metadata = vec![
            (
                "attention.head_count_kv",
                heads.collect::<Vec<i32>>().into(),
            ),
            (
                "attention.sliding_window_pattern",
                slides.collect::<Vec<bool>>().into(),
            ),
            ("attention.key_length", size(dim)),
            ("attention.value_length", size(dim)),
            ("attention.key_length_swa", size(self.head_dim)),
            ("attention.value_length_swa", size(self.head_dim)),
            ("attention.shared_kv_layers", size(unlike.sharing)),
            (
                "embedding_length_per_layer_input",
                size(unlike.inputs.unwrap_or(0)),
            ),
            ("final_logit_softcapping", 30.0f32.into()),
        ];
        if let Some([count, used, inner]) = unlike.beside {
            metadata.push(("expert_count", size(count)));
            metadata.push(("expert_used_count", size(used)));
            metadata.push(("expert_feed_forward_length", size(inner)));
        }
        metadata
    }
}
