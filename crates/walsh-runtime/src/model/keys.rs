//! Every metadata key that may change what a model computes, and what becomes of it.
//!
//! The keys of an architecture's own prefix are known or refused: what a file states is heeded, or an error says that
//! it is not. Keys that belong to no architecture (`general.*`) describe the file, but for the few that are here; those
//! of `tokenizer.*` are the tokenizer's.

use std::path::Path;

use walsh::formats::gguf::{Metadata, Value};

use super::architecture::Architecture;
use crate::{Error, Result};

/// What becomes of a key.
enum Role {
    /// The configuration reads it.
    Read,
    /// Nothing that is computed here depends on it.
    Inert,
    /// It changes what is computed in ways that are not supported, but for these values.
    Only(&'static [Plain]),
}

/// A value that says what holds without it.
enum Plain {
    Bool(bool),
    /// Of any integer or floating-point type.
    Number(f64),
    Text(&'static str),
}

/// The value of any integer or floating-point type.
pub(crate) fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::F32(number) => Some(f64::from(*number)),
        Value::F64(number) => Some(*number),
        value => value.integer().map(|number| number as f64),
    }
}

impl Plain {
    fn is(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Bool(plain), Value::Bool(value)) => plain == value,
            (Self::Number(plain), value) => number(value) == Some(*plain),
            (Self::Text(plain), Value::String(value)) => plain == value,
            _ => false,
        }
    }
}

impl std::fmt::Display for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

use Architecture::{
    Gemma2, Gemma3, Gemma4, GptOss, Granite, GraniteMoe, Lfm2, Lfm2Moe, Llama, Mistral3, Olmo2,
    Phi3, Qwen2, Qwen3, Qwen3Moe, Qwen3Next, Qwen35, Qwen35Moe, SmolLm3,
};
use Plain::{Bool, Number, Text};
use Role::{Inert, Only, Read};

const ALL: &[Architecture] = &[
    Llama, Qwen2, Qwen3, Gemma2, Gemma3, Gemma4, Qwen3Moe, SmolLm3, Olmo2, Phi3, Granite,
    GraniteMoe, GptOss, Mistral3, Qwen3Next, Qwen35, Qwen35Moe, Lfm2, Lfm2Moe,
];
/// Those with layers of the gated delta rule.
const HYBRID: &[Architecture] = &[Qwen3Next, Qwen35, Qwen35Moe];
/// Those without.
const ATTENDING: &[Architecture] = &[
    Llama, Qwen2, Qwen3, Gemma2, Gemma3, Gemma4, Qwen3Moe, SmolLm3, Olmo2, Phi3, Granite,
    GraniteMoe, GptOss, Mistral3, Lfm2, Lfm2Moe,
];
/// Those with layers that are short convolutions.
const CONVOLVING: &[Architecture] = &[Lfm2, Lfm2Moe];
/// Those with an expert that all tokens share.
const SHARING: &[Architecture] = &[Qwen3Next, Qwen35Moe];
/// Those whose layers may slide.
const SLIDING: &[Architecture] = &[Gemma2, Gemma3, Gemma4, Phi3, GptOss];
/// Those whose sliding layers may have another base.
const BASES: &[Architecture] = &[Gemma2, Gemma3, Gemma4];
/// Those whose layers never do.
const GLOBAL: &[Architecture] = &[
    Llama, Qwen2, Qwen3, Qwen3Moe, SmolLm3, Olmo2, Granite, GraniteMoe, Mistral3, Qwen3Next,
    Qwen35, Qwen35Moe, Lfm2, Lfm2Moe,
];
/// Those with multipliers.
const SCALED: &[Architecture] = &[Granite, GraniteMoe];
/// Those without, and without one of embeddings either.
const UNSCALED: &[Architecture] = &[
    Llama, Qwen2, Qwen3, Qwen3Moe, SmolLm3, Olmo2, Phi3, GptOss, Mistral3, Qwen3Next, Qwen35,
    Qwen35Moe, Lfm2, Lfm2Moe,
];
const GEMMAS: &[Architecture] = &[Gemma2, Gemma3, Gemma4];
/// Those whose layers differ in more than their windows.
const UNLIKE: &[Architecture] = &[Gemma4];
/// Those whose queries have a temperature by position.
const WARM: &[Architecture] = &[Mistral3];
/// Those without.
const COLD: &[Architecture] = &[
    Llama, Qwen2, Qwen3, Gemma2, Gemma3, Gemma4, Qwen3Moe, SmolLm3, Olmo2, Phi3, Granite,
    GraniteMoe, GptOss, Qwen3Next, Qwen35, Qwen35Moe, Lfm2, Lfm2Moe,
];
/// Those with experts, whose width they state apart or as that of all.
const EXPERTS: &[Architecture] = &[Qwen3Moe, GraniteMoe, GptOss, Qwen3Next, Qwen35Moe, Lfm2Moe];
/// Those with some behind layers without.
const BEHIND: &[Architecture] = &[Lfm2Moe];
/// Those whose layers all have some or none.
const LED_BY_NONE: &[Architecture] = &[
    Llama, Qwen2, Qwen3, Gemma2, Gemma3, Gemma4, Qwen3Moe, SmolLm3, Olmo2, Phi3, Granite,
    GraniteMoe, GptOss, Mistral3, Qwen3Next, Qwen35, Qwen35Moe, Lfm2,
];
/// Those that may have some beside a feed-forward part.
const BESIDE: &[Architecture] = &[Gemma4];
const APART: &[Architecture] = &[Qwen3Moe, GptOss, Qwen3Next, Qwen35Moe];
const TOGETHER: &[Architecture] = &[
    Llama, Qwen2, Qwen3, Gemma2, Gemma3, Gemma4, SmolLm3, Olmo2, Phi3, Granite, GraniteMoe,
    Mistral3, Qwen35, Lfm2, Lfm2Moe,
];
const DENSE: &[Architecture] = &[
    Llama, Qwen2, Qwen3, Gemma2, Gemma3, SmolLm3, Olmo2, Phi3, Granite, Mistral3, Qwen35, Lfm2,
];

const NONE: &[Plain] = &[Number(0.0)];
/// Factors: some converters write 0 for none.
const NO_FACTOR: &[Plain] = &[Number(0.0), Number(1.0)];

/// The keys below an architecture's prefix: what they are called, whose they are, and what becomes of them.
const OF_ARCHITECTURES: &[(&str, &[Architecture], Role)] = &[
    // Shape.
    ("block_count", ALL, Read),
    ("context_length", ALL, Read),
    ("embedding_length", ALL, Read),
    ("feed_forward_length", TOGETHER, Read),
    // Of layers without experts, of which these have none.
    ("feed_forward_length", APART, Inert),
    ("expert_feed_forward_length", APART, Read),
    ("expert_feed_forward_length", BESIDE, Read),
    ("expert_feed_forward_length", BEHIND, Read),
    ("embedding_length_per_layer_input", UNLIKE, Read),
    ("attention.head_count", ALL, Read),
    ("attention.head_count_kv", ALL, Read),
    ("attention.key_length", ALL, Read),
    ("attention.value_length", ALL, Read),
    ("attention.key_length_swa", SLIDING, Read),
    ("attention.value_length_swa", SLIDING, Read),
    ("attention.shared_kv_layers", UNLIKE, Read),
    ("embedding_length_out", ALL, Read),
    // The embedding table says how many rows it has.
    ("vocab_size", ALL, Inert),
    (
        "tensor_data_layout",
        ALL,
        Only(&[Text("reference"), Text("Meta AI original pth")]),
    ),
    // Norms, scales and bounds.
    ("attention.layer_norm_rms_epsilon", ALL, Read),
    // Every norm here is a root mean square.
    ("attention.layer_norm_epsilon", ALL, Inert),
    ("attention.scale", ALL, Read),
    ("attn_logit_softcapping", ALL, Read),
    ("final_logit_softcapping", ALL, Read),
    ("attention.clamp_kqv", ALL, Only(NONE)),
    ("attention.max_alibi_bias", ALL, Only(NONE)),
    ("attention.output_scale", ALL, Only(NO_FACTOR)),
    ("attention.value_scale", ALL, Only(NO_FACTOR)),
    ("attention.temperature_length", WARM, Read),
    ("attention.temperature_length", COLD, Only(NONE)),
    ("attention.temperature_scale", WARM, Read),
    ("attention.temperature_scale", COLD, Only(NONE)),
    ("logit_scale", SCALED, Read),
    ("logit_scale", UNSCALED, Only(NO_FACTOR)),
    ("logit_scale", GEMMAS, Only(NO_FACTOR)),
    ("residual_scale", SCALED, Read),
    ("residual_scale", UNSCALED, Only(NO_FACTOR)),
    ("residual_scale", GEMMAS, Only(NO_FACTOR)),
    ("embedding_scale", SCALED, Read),
    ("embedding_scale", UNSCALED, Only(NO_FACTOR)),
    ("use_parallel_residual", ALL, Only(&[Bool(false)])),
    // Who sees whom.
    ("attention.causal", ALL, Only(&[Bool(true)])),
    ("attention.sliding_window", SLIDING, Read),
    ("attention.sliding_window", GLOBAL, Only(NONE)),
    ("attention.sliding_window_pattern", SLIDING, Read),
    // Rotary embeddings.
    ("rope.dimension_count", ALL, Read),
    ("rope.dimension_count_swa", SLIDING, Read),
    ("rope.freq_base", ALL, Read),
    ("rope.freq_base_swa", BASES, Read),
    ("rope.scale_linear", ALL, Read),
    ("rope.scaling.type", ALL, Read),
    ("rope.scaling.factor", ALL, Read),
    ("rope.scaling.attn_factor", ALL, Read),
    ("rope.scaling.original_context_length", ALL, Read),
    ("rope.scaling.yarn_ext_factor", ALL, Read),
    ("rope.scaling.yarn_beta_fast", ALL, Read),
    ("rope.scaling.yarn_beta_slow", ALL, Read),
    ("rope.scaling.yarn_attn_factor", ALL, Only(&[Number(1.0)])),
    ("rope.scaling.yarn_log_multiplier", WARM, Read),
    ("rope.scaling.yarn_log_multiplier", COLD, Only(NONE)),
    ("rope.scaling.alpha", ALL, Only(NO_FACTOR)),
    // How the model was trained, not how it runs.
    ("rope.scaling.finetuned", ALL, Inert),
    // Where positions are of images: those of a text are one number.
    ("rope.dimension_sections", HYBRID, Inert),
    // Layers that keep a state.
    ("attention.recurrent_layers", HYBRID, Read),
    ("full_attention_interval", HYBRID, Read),
    ("shortconv.l_cache", CONVOLVING, Read),
    ("ssm.conv_kernel", HYBRID, Read),
    ("ssm.state_size", HYBRID, Read),
    ("ssm.inner_size", HYBRID, Read),
    ("ssm.group_count", HYBRID, Read),
    ("ssm.time_step_rank", HYBRID, Read),
    // Layers behind the last that guess further tokens: what the model itself computes does not depend on them.
    ("nextn_predict_layers", HYBRID, Read),
    // Experts.
    ("expert_shared_feed_forward_length", SHARING, Read),
    ("expert_count", EXPERTS, Read),
    ("expert_count", BESIDE, Read),
    ("expert_used_count", EXPERTS, Read),
    ("expert_used_count", BESIDE, Read),
    (
        "expert_weights_norm",
        &[Qwen3Moe, Qwen3Next, Qwen35Moe],
        Read,
    ),
    (
        "expert_weights_norm",
        &[GraniteMoe, GptOss, Gemma4, Lfm2Moe],
        Only(&[Bool(true)]),
    ),
    ("expert_weights_scale", EXPERTS, Only(NO_FACTOR)),
    ("expert_weights_scale", BESIDE, Only(NO_FACTOR)),
    // Softmax of all logits, and of those chosen; sigmoids.
    (
        "expert_gating_func",
        &[Qwen3Moe, GraniteMoe, Qwen3Next, Qwen35Moe, Gemma4],
        Only(&[Number(0.0), Number(1.0)]),
    ),
    (
        "expert_gating_func",
        &[GptOss],
        Only(&[Number(0.0), Number(3.0)]),
    ),
    ("expert_gating_func", BEHIND, Only(&[Number(2.0)])),
    ("leading_dense_block_count", BEHIND, Read),
    // Parts that these models lack.
    ("expert_count", DENSE, Only(NONE)),
    ("expert_used_count", DENSE, Only(NONE)),
    ("expert_shared_count", ALL, Only(NONE)),
    ("expert_group_count", ALL, Only(NONE)),
    ("expert_group_used_count", ALL, Only(NONE)),
    ("leading_dense_block_count", LED_BY_NONE, Only(NONE)),
    ("nextn_predict_layers", ATTENDING, Only(NONE)),
    ("pooling_type", ALL, Read),
];

/// The keys that belong to no architecture and say how the file is to be read; the others describe it.
const GENERAL: &[(&str, Role)] = &[
    ("general.architecture", Read),
    ("general.alignment", Read),
    ("general.type", Only(&[Text("model")])),
    ("general.quantization_version", Only(&[Number(2.0)])),
];

/// Refuses metadata that states what the configuration does not heed.
///
/// # Errors
/// Names the first such key, its value, and what is supported.
pub(super) fn check(
    path: &Path,
    metadata: &Metadata<'_>,
    architecture: Architecture,
) -> Result<()> {
    for (key, value) in metadata.iter() {
        let below = key
            .strip_prefix(architecture.name())
            .and_then(|rest| rest.strip_prefix('.'));
        let role = match below {
            Some(name) => Some(of_architecture(name, architecture).ok_or_else(|| {
                Error::model(
                    path,
                    format!(
                        "metadata key {} is {}, which is not known for {} models and may change what they compute: use a model without it",
                        short(&key.escape_debug().to_string()),
                        shown(value),
                        architecture.name()
                    ),
                )
            })?),
            None => GENERAL
                .iter()
                .find(|(known, _)| *known == key)
                .map(|(_, role)| role),
        };
        if let Some(Only(plain)) = role
            && !plain.iter().any(|plain| plain.is(value))
        {
            let supported: Vec<_> = plain.iter().map(Plain::to_string).collect();
            return Err(Error::model(
                path,
                format!(
                    "metadata key {key} is {}, but only {} is supported: use another model",
                    shown(value),
                    supported.join(" or ")
                ),
            ));
        }
    }
    Ok(())
}

/// Whether the configuration of an architecture may read a key: what it reads is in the table.
pub(super) fn is_read(name: &str, architecture: Architecture) -> bool {
    matches!(of_architecture(name, architecture), Some(Read))
}

fn of_architecture(name: &str, architecture: Architecture) -> Option<&'static Role> {
    let row = OF_ARCHITECTURES
        .iter()
        .find(|(known, whose, _)| *known == name && whose.contains(&architecture));
    row.map(|(_, _, role)| role)
}

/// A value in a form that is safe in a message of one line.
pub(super) fn shown(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => short(&format!("{text:?}")),
        other => other.to_string(),
    }
}

fn short(text: &str) -> String {
    const LONGEST: usize = 80;
    text.chars().take(LONGEST).collect()
}
