//! The families of models that are converted.

use super::json::Json;
use crate::Result;

/// Declares the families: the class in transformers, the architecture in GGUF.
macro_rules! families {
    ($($variant:ident = $class:literal, $architecture:literal;)*) => {
        /// A family.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Family { $($variant,)* }

        impl Family {
            const ALL: &'static [(&'static str, Family)] = &[$(($class, Family::$variant)),*];

            /// The architecture's name in GGUF.
            pub(super) fn architecture(self) -> &'static str {
                match self { $(Family::$variant => $architecture,)* }
            }
        }
    };
}

families! {
    Llama = "LlamaForCausalLM", "llama";
    Mistral = "MistralForCausalLM", "llama";
    Qwen2 = "Qwen2ForCausalLM", "qwen2";
    Qwen3 = "Qwen3ForCausalLM", "qwen3";
    Qwen3Moe = "Qwen3MoeForCausalLM", "qwen3moe";
    Gemma3 = "Gemma3ForCausalLM", "gemma3";
    Phi3 = "Phi3ForCausalLM", "phi3";
    SmolLm3 = "SmolLM3ForCausalLM", "smollm3";
    Olmo2 = "Olmo2ForCausalLM", "olmo2";
}

impl Family {
    /// The family that a configuration names.
    pub(super) fn of(config: &Json) -> Result<Family> {
        let class = match config.get("architectures").and_then(|list| list.get(0)) {
            Some(class) => class.as_str().unwrap_or_default(),
            None => {
                return Err(config.wrong("architectures is missing: it names the model's family"));
            }
        };
        let all = Family::ALL.iter();
        if let Some((_, family)) = all.clone().find(|(known, _)| *known == class) {
            return Ok(*family);
        }
        let nearest = all.clone().max_by_key(|(known, _)| alike(known, class));
        let names: Vec<&str> = all.map(|(known, _)| *known).collect();
        let nearest = nearest.filter(|(known, _)| alike(known, class) >= 4);
        let nearest = nearest.map_or(String::new(), |(known, _)| format!(" (nearest: {known})"));
        let class: String = class.chars().take(60).collect();
        Err(config.wrong(format!(
            "the architecture {class:?} is not converted{nearest}: use one of {}",
            names.join(", ")
        )))
    }

    /// A family that names its products as models of an architecture do, and has rows of queries and keys in their order.
    pub(super) fn of_architecture(architecture: &str) -> Option<Family> {
        let mut all = Family::ALL.iter().map(|(_, family)| *family);
        match architecture {
            "granite" => Some(Family::Llama),
            "gemma2" => Some(Family::Gemma3),
            _ => all.find(|family| family.architecture() == architecture),
        }
    }

    /// Whether rotary embeddings turn neighbours in GGUF, for which rows of queries and keys are put in another order.
    pub(super) fn turns_neighbours(self) -> bool {
        matches!(self, Family::Llama | Family::Mistral | Family::SmolLm3)
    }

    /// Whether norms are stored as what is added to one.
    pub(super) fn has_shifted_norms(self) -> bool {
        self == Family::Gemma3
    }

    /// Whether parts have a norm behind them, and what the norm in front of the feed-forward part is called.
    pub(super) fn norm(self, name: &str) -> Option<&'static str> {
        Some(match (self, name) {
            (Family::Olmo2, "post_attention_layernorm") => "post_attention_norm",
            (Family::Olmo2, "post_feedforward_layernorm") => "post_ffw_norm",
            (Family::Olmo2, _) => return None,
            (_, "input_layernorm") => "attn_norm",
            (Family::Gemma3, "post_attention_layernorm") => "post_attention_norm",
            (Family::Gemma3, "pre_feedforward_layernorm") => "ffn_norm",
            (Family::Gemma3, "post_feedforward_layernorm") => "post_ffw_norm",
            (Family::Gemma3, _) => return None,
            (_, "post_attention_layernorm") => "ffn_norm",
            _ => return None,
        })
    }

    /// The activation of the feed-forward part, by the names that configurations have for it.
    pub(super) fn activations(self) -> &'static [&'static str] {
        match self {
            Family::Gemma3 => &["gelu_pytorch_tanh"],
            _ => &["silu", "swish"],
        }
    }
}

/// How many characters two names have alike at their beginnings.
fn alike(a: &str, b: &str) -> usize {
    let pairs = a.chars().zip(b.chars());
    pairs.take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count()
}
