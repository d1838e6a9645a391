//! The shapes, as metadata and as lists of tensors.

use walsh::formats::gguf::write::{NewValue, Writer};

use super::convolutions::Convolutions;
use super::mix::Role;
use super::unlike::Unlike;
use crate::Result;
use crate::model::Architecture;

/// A model's shape, in the terms of its published configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) architecture: Architecture,
    pub(super) layers: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// The width inside the feed-forward part, or inside each expert of it.
    pub(super) feed_forward: usize,
    /// How many experts there are, and how many a token goes to.
    pub(super) experts: Option<[usize; 2]>,
    pub(super) multipliers: Option<Multipliers>,
    pub(super) states: Option<States>,
    pub(super) unlike: Option<Unlike>,
    pub(super) convolutions: Option<Convolutions>,
    pub(super) vocabulary: usize,
    pub(super) context: u32,
    pub(super) rope_base: f32,
    /// The window of the layers that slide.
    pub(super) window: Option<u32>,
    pub(super) norm_eps: f32,
    /// Whether the embedding table also makes the logits.
    pub(super) tied: bool,
}

/// What some families multiply by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Multipliers {
    embeddings: f32,
    residuals: f32,
    scores: f32,
    /// What logits are divided by.
    logits: f32,
}

/// Layers that keep a state; every fourth attends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct States {
    pub(super) heads: usize,
    pub(super) key_heads: usize,
    /// Numbers of a key, and of a value.
    pub(super) dim: usize,
    /// The width inside the expert that all tokens share.
    pub(super) shared: Option<usize>,
}

/// Taps of short convolutions, and how often a layer attends.
const TAPS: usize = 4;
const INTERVAL: usize = 4;

pub(super) const SHAPES: &[Shape] = &[
    Shape {
        name: "smollm2-135m",
        architecture: Architecture::Llama,
        layers: 30,
        width: 576,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        feed_forward: 1536,
        experts: None,
        multipliers: None,
        states: None,
        unlike: None,
        convolutions: None,
        vocabulary: 49_152,
        context: 8192,
        rope_base: 100_000.0,
        window: None,
        norm_eps: 1e-5,
        tied: true,
    },
    Shape {
        name: "llama3-8b",
        architecture: Architecture::Llama,
        layers: 32,
        width: 4096,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        feed_forward: 14_336,
        experts: None,
        multipliers: None,
        states: None,
        unlike: None,
        convolutions: None,
        vocabulary: 128_256,
        context: 8192,
        rope_base: 500_000.0,
        window: None,
        norm_eps: 1e-5,
        tied: false,
    },
    Shape {
        name: "gemma3-27b",
        architecture: Architecture::Gemma3,
        layers: 62,
        width: 5376,
        heads: 32,
        kv_heads: 16,
        head_dim: 128,
        feed_forward: 21_504,
        experts: None,
        multipliers: None,
        states: None,
        unlike: None,
        convolutions: None,
        vocabulary: 262_144,
        context: 131_072,
        rope_base: 1_000_000.0,
        window: Some(1024),
        norm_eps: 1e-6,
        tied: true,
    },
    Shape {
        name: "qwen3-30b-a3b",
        architecture: Architecture::Qwen3Moe,
        layers: 48,
        width: 2048,
        heads: 32,
        kv_heads: 4,
        head_dim: 128,
        feed_forward: 768,
        experts: Some([128, 8]),
        multipliers: None,
        states: None,
        unlike: None,
        convolutions: None,
        vocabulary: 151_936,
        context: 40_960,
        rope_base: 1_000_000.0,
        window: None,
        norm_eps: 1e-6,
        tied: false,
    },
    Shape {
        name: "granite3-3b-a800m",
        architecture: Architecture::GraniteMoe,
        layers: 32,
        width: 1536,
        heads: 24,
        kv_heads: 8,
        head_dim: 64,
        feed_forward: 512,
        experts: Some([40, 8]),
        multipliers: Some(Multipliers {
            embeddings: 12.0,
            residuals: 0.22,
            scores: 0.015_625,
            logits: 6.0,
        }),
        states: None,
        unlike: None,
        convolutions: None,
        vocabulary: 49_155,
        context: 131_072,
        rope_base: 10_000_000.0,
        window: None,
        norm_eps: 1e-6,
        tied: true,
    },
    Shape {
        name: "qwen3.5-0.8b",
        architecture: Architecture::Qwen35,
        layers: 24,
        width: 1024,
        heads: 8,
        kv_heads: 2,
        head_dim: 256,
        feed_forward: 3584,
        experts: None,
        multipliers: None,
        states: Some(States {
            heads: 16,
            key_heads: 16,
            dim: 128,
            shared: None,
        }),
        unlike: None,
        convolutions: None,
        vocabulary: 248_320,
        context: 262_144,
        rope_base: 10_000_000.0,
        window: None,
        norm_eps: 1e-6,
        tied: true,
    },
    Shape {
        name: "qwen3.5-27b",
        architecture: Architecture::Qwen35,
        layers: 64,
        width: 5120,
        heads: 24,
        kv_heads: 4,
        head_dim: 256,
        feed_forward: 17_408,
        experts: None,
        multipliers: None,
        states: Some(States {
            heads: 48,
            key_heads: 16,
            dim: 128,
            shared: None,
        }),
        unlike: None,
        convolutions: None,
        vocabulary: 248_320,
        context: 262_144,
        rope_base: 10_000_000.0,
        window: None,
        norm_eps: 1e-6,
        tied: false,
    },
    Shape {
        name: "qwen3.5-35b-a3b",
        architecture: Architecture::Qwen35Moe,
        layers: 40,
        width: 2048,
        heads: 16,
        kv_heads: 2,
        head_dim: 256,
        feed_forward: 512,
        experts: Some([256, 8]),
        multipliers: None,
        states: Some(States {
            heads: 32,
            key_heads: 16,
            dim: 128,
            shared: Some(512),
        }),
        unlike: None,
        convolutions: None,
        vocabulary: 248_320,
        context: 262_144,
        rope_base: 10_000_000.0,
        window: None,
        norm_eps: 1e-6,
        tied: false,
    },
    Shape {
        name: "gemma4-e4b",
        layers: 42,
        width: 2560,
        heads: 8,
        kv_heads: 2,
        feed_forward: 10_240,
        unlike: Some(Unlike {
            global: [2, 512],
            keys_are_values: false,
            inputs: Some(256),
            sharing: 18,
            beside: None,
        }),
        context: 131_072,
        window: Some(512),
        ..GEMMA4
    },
    Shape {
        name: "gemma4-31b",
        layers: 60,
        width: 5376,
        heads: 32,
        kv_heads: 16,
        feed_forward: 21_504,
        unlike: Some(Unlike {
            global: [4, 512],
            keys_are_values: true,
            inputs: None,
            sharing: 0,
            beside: None,
        }),
        ..GEMMA4
    },
    GEMMA4,
    Shape {
        name: "lfm2-1.2b",
        architecture: Architecture::Lfm2,
        layers: 16,
        feed_forward: 8192,
        experts: None,
        convolutions: Some(Convolutions {
            attending: &[2, 5, 8, 10, 12, 14],
            dense: None,
        }),
        ..LFM2
    },
    LFM2,
];

/// What all of its family have in common but the sizes of this one.
const LFM2: Shape = Shape {
    name: "lfm2-8b-a1b",
    architecture: Architecture::Lfm2Moe,
    layers: 24,
    width: 2048,
    heads: 32,
    kv_heads: 8,
    head_dim: 64,
    feed_forward: 1792,
    experts: Some([32, 4]),
    multipliers: None,
    states: None,
    unlike: None,
    convolutions: Some(Convolutions {
        attending: &[2, 6, 10, 14, 18, 21],
        dense: Some([2, 7168]),
    }),
    vocabulary: 65_536,
    context: 128_000,
    rope_base: 1_000_000.0,
    window: None,
    norm_eps: 1e-5,
    tied: true,
};

/// What all of its family have in common but the sizes of this one.
const GEMMA4: Shape = Shape {
    name: "gemma4-26b-a4b",
    architecture: Architecture::Gemma4,
    layers: 30,
    width: 2816,
    heads: 16,
    kv_heads: 8,
    head_dim: 256,
    feed_forward: 2112,
    experts: None,
    multipliers: None,
    states: None,
    unlike: Some(Unlike {
        global: [2, 512],
        keys_are_values: true,
        inputs: None,
        sharing: 0,
        beside: Some([128, 8, 704]),
    }),
    convolutions: None,
    vocabulary: 262_144,
    context: 262_144,
    rope_base: 1_000_000.0,
    window: Some(1024),
    norm_eps: 1e-6,
    tied: true,
};

/// A tensor: its name in GGUF files, its dimensions, outermost first, and what it does.
pub(super) struct Weight {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) role: Role,
}

impl Weight {
    pub(super) fn new(name: impl Into<String>, shape: &[usize], role: Role) -> Self {
        Self {
            name: name.into(),
            shape: shape.iter().map(|n| *n as u64).collect(),
            role,
        }
    }
}

impl Shape {
    /// Every tensor.
    pub(super) fn weights(&self) -> Vec<Weight> {
        let table = [self.vocabulary, self.width];
        let mut weights = Vec::new();
        let norm = format!("{}.weight", self.architecture.output_norm());
        let norm = Weight::new(norm, &[self.width], Role::Other);
        if self.tied {
            weights.push(Weight::new("token_embd.weight", &table, Role::Output));
        } else {
            weights.push(Weight::new("token_embd.weight", &table, Role::Other));
            weights.push(Weight::new("output.weight", &table, Role::Output));
        }
        weights.push(norm);
        weights.extend(self.inputs());
        for layer in 0..self.layers {
            self.layer(layer, &mut weights);
        }
        weights
    }

    fn layer(&self, layer: usize, weights: &mut Vec<Weight>) {
        if let Some(unlike) = &self.unlike {
            weights.extend(self.unlike_layer(layer, unlike));
            return;
        }
        if let Some(convolutions) = &self.convolutions {
            weights.extend(self.convolving_layer(layer, convolutions));
            return;
        }
        let (width, inner, dim) = (self.width, self.feed_forward, self.head_dim);
        let (queries, keys) = (self.heads * dim, self.kv_heads * dim);
        let mut add = |part: &str, shape: &[usize], role: Role| {
            weights.push(Weight::new(
                format!("blk.{layer}.{part}.weight"),
                shape,
                role,
            ));
        };
        add("attn_norm", &[width], Role::Other);
        let states = self
            .states
            .filter(|_| !(layer + 1).is_multiple_of(INTERVAL));
        if let Some(States {
            heads,
            key_heads,
            dim,
            ..
        }) = states
        {
            let (values, channels) = (heads * dim, (2 * key_heads + heads) * dim);
            add("attn_qkv", &[channels, width], Role::Other);
            add("attn_gate", &[values, width], Role::Other);
            add("ssm_alpha", &[heads, width], Role::Other);
            add("ssm_beta", &[heads, width], Role::Other);
            add("ssm_conv1d", &[channels, TAPS], Role::Router);
            add("ssm_norm", &[dim], Role::Other);
            add("ssm_out", &[width, values], Role::Other);
        } else {
            let asked = queries * if self.states.is_some() { 2 } else { 1 };
            add("attn_q", &[asked, width], Role::Other);
            add("attn_k", &[keys, width], Role::Other);
            add("attn_v", &[keys, width], Role::Value(layer));
            add("attn_output", &[width, queries], Role::Other);
        }
        match self.states {
            None => add("ffn_norm", &[width], Role::Other),
            Some(_) => add("post_attention_norm", &[width], Role::Other),
        }
        match self.experts {
            None => {
                add("ffn_gate", &[inner, width], Role::Other);
                add("ffn_up", &[inner, width], Role::Other);
                add("ffn_down", &[width, inner], Role::Down(layer));
            }
            Some([count, _]) => {
                add("ffn_gate_inp", &[count, width], Role::Router);
                add("ffn_gate_exps", &[count, inner, width], Role::Other);
                add("ffn_up_exps", &[count, inner, width], Role::Other);
                add("ffn_down_exps", &[count, width, inner], Role::Down(layer));
            }
        }
        if let Some(inner) = self.states.and_then(|states| states.shared) {
            add("ffn_gate_inp_shexp", &[1, width], Role::Router);
            add("ffn_gate_shexp", &[inner, width], Role::Other);
            add("ffn_up_shexp", &[inner, width], Role::Other);
            add("ffn_down_shexp", &[width, inner], Role::Down(layer));
        }
        let gemma = self.architecture == Architecture::Gemma3;
        let attends = self.states.is_some() && states.is_none();
        if gemma || attends || self.architecture == Architecture::Qwen3Moe {
            add("attn_q_norm", &[dim], Role::Other);
            add("attn_k_norm", &[dim], Role::Other);
        }
        if gemma {
            add("post_attention_norm", &[width], Role::Other);
            add("post_ffw_norm", &[width], Role::Other);
        }
        if let Some(States { heads, .. }) = states {
            for part in ["ssm_a", "ssm_dt.bias"] {
                let name = format!("blk.{layer}.{part}");
                weights.push(Weight::new(name, &[heads], Role::Other));
            }
        }
    }

    /// The metadata as a GGUF file without tensors.
    pub(super) fn header(&self, name: &str) -> Result<Vec<u8>> {
        let mut writer = Writer::new();
        let family = self.architecture.name();
        writer.set("general.architecture", family)?;
        writer.set("general.name", format!("synthetic {name}"))?;
        let sizes = [
            ("block_count", self.layers),
            ("embedding_length", self.width),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
        ];
        let inner = match self.architecture {
            Architecture::Qwen3Moe | Architecture::Qwen35Moe | Architecture::Lfm2Moe => {
                "expert_feed_forward_length"
            }
            _ => "feed_forward_length",
        };
        let experts = self
            .experts
            .iter()
            .flat_map(|[count, used]| [("expert_count", *count), ("expert_used_count", *used)]);
        let feed_forward = [(inner, self.feed_forward)];
        let states = self.states.iter().flat_map(|states| {
            let shared = states.shared;
            let shared = shared.map(|inner| ("expert_shared_feed_forward_length", inner));
            let sizes = [
                ("full_attention_interval", INTERVAL),
                ("ssm.conv_kernel", TAPS),
                ("ssm.state_size", states.dim),
                ("ssm.group_count", states.key_heads),
                ("ssm.time_step_rank", states.heads),
                ("ssm.inner_size", states.heads * states.dim),
                // A quarter of the numbers of a head rotate.
                ("rope.dimension_count", self.head_dim / 4),
            ];
            sizes.into_iter().chain(shared)
        });
        let sizes = sizes.into_iter().chain(feed_forward).chain(experts);
        for (key, size) in sizes.chain(states) {
            writer.set(&format!("{family}.{key}"), size as u64)?;
        }
        let mut set = |key: &str, value: NewValue| writer.set(&format!("{family}.{key}"), value);
        set("context_length", self.context.into())?;
        set("rope.freq_base", self.rope_base.into())?;
        set("attention.layer_norm_rms_epsilon", self.norm_eps.into())?;
        if let Some(multipliers) = self.multipliers {
            set("embedding_scale", multipliers.embeddings.into())?;
            set("residual_scale", multipliers.residuals.into())?;
            set("attention.scale", multipliers.scores.into())?;
            set("logit_scale", multipliers.logits.into())?;
        }
        if let Some(unlike) = &self.unlike {
            for (key, value) in self.unlike_metadata(unlike) {
                set(key, value)?;
            }
        }
        if let Some(convolutions) = &self.convolutions {
            for (key, value) in self.convolving_metadata(convolutions) {
                set(key, value)?;
            }
        }
        if let Some(window) = self.window {
            set("attention.sliding_window", window.into())?;
        }
        self.vocabulary(&mut writer)?;
        Ok(writer.to_bytes())
    }

    /// The 256 bytes, and names that stand for nothing.
    fn vocabulary(&self, writer: &mut Writer<'_>) -> Result<()> {
        const BYTE: i32 = 6;
        const UNUSED: i32 = 5;
        let bytes = (0..=255).map(|byte: u8| format!("<0x{byte:02X}>"));
        let unused = (256..self.vocabulary).map(|id| format!("<unused{id}>"));
        let tokens: Vec<String> = bytes.chain(unused).take(self.vocabulary).collect();
        let kinds: Vec<i32> = (0..tokens.len())
            .map(|id| if id < 256 { BYTE } else { UNUSED })
            .collect();
        writer.set("tokenizer.ggml.model", "llama")?;
        writer.set("tokenizer.ggml.scores", vec![0.0f32; tokens.len()])?;
        writer.set("tokenizer.ggml.tokens", tokens)?;
        writer.set("tokenizer.ggml.token_type", kinds)?;
        writer.set("tokenizer.ggml.add_bos_token", false)?;
        Ok(())
    }
}
