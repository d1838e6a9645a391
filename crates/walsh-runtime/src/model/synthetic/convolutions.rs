//! Shapes most of whose layers are gated short convolutions.

use walsh::formats::gguf::write::NewValue;

use super::mix::Role;
use super::shape::{Shape, Weight};

/// What such shapes have beside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Convolutions {
    /// The layers that attend.
    pub(super) attending: &'static [usize],
    /// How many layers, the first, have no experts, and the width inside their feed-forward part.
    pub(super) dense: Option<[usize; 2]>,
}

const TAPS: usize = 3;

impl Shape {
    pub(super) fn convolving_layer(&self, layer: usize, own: &Convolutions) -> Vec<Weight> {
        let (width, dim) = (self.width, self.head_dim);
        let (queries, keys) = (self.heads * dim, self.kv_heads * dim);
        let mut weights = Vec::new();
        let mut add = |part: &str, shape: &[usize], role: Role| {
            weights.push(Weight::new(format!("blk.{layer}.{part}"), shape, role));
        };
        add("attn_norm.weight", &[width], Role::Other);
        if own.attending.contains(&layer) {
            add("attn_q.weight", &[queries, width], Role::Other);
            add("attn_k.weight", &[keys, width], Role::Other);
            add("attn_v.weight", &[keys, width], Role::Value(layer));
            add("attn_output.weight", &[width, queries], Role::Other);
            add("attn_q_norm.weight", &[dim], Role::Other);
            add("attn_k_norm.weight", &[dim], Role::Other);
        } else {
            add("shortconv.in_proj.weight", &[3 * width, width], Role::Other);
            add("shortconv.conv.weight", &[width, TAPS], Role::Router);
            add("shortconv.out_proj.weight", &[width, width], Role::Other);
        }
        add("ffn_norm.weight", &[width], Role::Other);
        let experts = self
            .experts
            .filter(|_| own.dense.is_none_or(|[dense, _]| layer >= dense));
        if let Some([count, _]) = experts {
            let inner = self.feed_forward;
            add("ffn_gate_inp.weight", &[count, width], Role::Router);
            add("exp_probs_b.bias", &[count], Role::Other);
            let [into, back] = [[count, inner, width], [count, width, inner]];
            add("ffn_gate_exps.weight", &into, Role::Other);
            add("ffn_up_exps.weight", &into, Role::Other);
            add("ffn_down_exps.weight", &back, Role::Down(layer));
        } else {
            let inner = own.dense.map_or(self.feed_forward, |[_, inner]| inner);
            add("ffn_gate.weight", &[inner, width], Role::Other);
            add("ffn_up.weight", &[inner, width], Role::Other);
            add("ffn_down.weight", &[width, inner], Role::Down(layer));
        }
        weights
    }

    /// The metadata that only such shapes have, in the place of what others have.
    pub(super) fn convolving_metadata(&self, own: &Convolutions) -> Vec<(&'static str, NewValue)> {
        let heads = (0..self.layers).map(|layer| match own.attending.contains(&layer) {
            true => self.kv_heads as i32,
            false => 0,
        });
        let mut metadata = vec![
            (
                "attention.head_count_kv",
                heads.collect::<Vec<i32>>().into(),
            ),
            ("shortconv.l_cache", (TAPS as u32).into()),
        ];
        if let Some([layers, inner]) = own.dense {
            metadata.push(("leading_dense_block_count", (layers as u32).into()));
            metadata.push(("feed_forward_length", (inner as u32).into()));
        }
        metadata
    }
}
