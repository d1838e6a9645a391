//! The families of models, and what makes them differ.

use walsh::ops::HeadOrder;

/// The families of models that run, by `general.architecture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 1 to 3, Mistral, SmolLM and others of the same form.
    Llama,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3, dense.
    Qwen3,
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, text.
    Gemma3,
    /// Gemma 4, text.
    Gemma4,
    /// Qwen 3, mixtures of experts.
    Qwen3Moe,
    /// SmolLM 3.
    SmolLm3,
    /// OLMo 2.
    Olmo2,
    /// Phi 3 and 4, of contexts that need no stretch.
    Phi3,
    /// Granite 3 and 4, dense.
    Granite,
    /// Granite 3, mixtures of experts.
    GraniteMoe,
    /// gpt-oss.
    GptOss,
    /// Ministral 3.
    Mistral3,
    /// Qwen3-Next.
    Qwen3Next,
    /// Qwen 3.5 and 3.6, dense.
    Qwen35,
    /// Qwen 3.5 and 3.6, mixtures of experts.
    Qwen35Moe,
    /// LFM2 and LFM2.5, dense.
    Lfm2,
    /// LFM2, mixtures of experts.
    Lfm2Moe,
}

/// What norms of their own queries and keys have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadNorms {
    None,
    /// One for all heads, of each head's numbers.
    OfHeads,
    /// Of all heads' numbers together.
    OfRows,
}

impl Architecture {
    /// Every architecture, with its name in GGUF files.
    pub const ALL: &'static [(&'static str, Architecture)] = &[
        ("llama", Architecture::Llama),
        ("qwen2", Architecture::Qwen2),
        ("qwen3", Architecture::Qwen3),
        ("gemma2", Architecture::Gemma2),
        ("gemma3", Architecture::Gemma3),
        ("gemma4", Architecture::Gemma4),
        ("qwen3moe", Architecture::Qwen3Moe),
        ("smollm3", Architecture::SmolLm3),
        ("olmo2", Architecture::Olmo2),
        ("phi3", Architecture::Phi3),
        ("granite", Architecture::Granite),
        ("granitemoe", Architecture::GraniteMoe),
        ("gpt-oss", Architecture::GptOss),
        ("mistral3", Architecture::Mistral3),
        ("qwen3next", Architecture::Qwen3Next),
        ("qwen35", Architecture::Qwen35),
        ("qwen35moe", Architecture::Qwen35Moe),
        ("lfm2", Architecture::Lfm2),
        ("lfm2moe", Architecture::Lfm2Moe),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, architecture)| *architecture)
    }

    /// The name in GGUF files.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, architecture)| *architecture == self)
            .map_or("", |(name, _)| name)
    }

    pub(super) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3 | Self::Gemma4)
    }

    /// The period of sliding layers where a file states none: the last layer of each period attends globally.
    pub(super) fn window_period(self) -> Option<u64> {
        match self {
            Self::Gemma2 => Some(2),
            Self::Gemma3 | Self::Gemma4 => Some(6),
            Self::GptOss => Some(2),
            // All layers slide.
            Self::Phi3 => Some(0),
            _ => None,
        }
    }

    /// The norms of queries and keys.
    pub(super) fn head_norms(self) -> HeadNorms {
        match self {
            Self::Qwen3 | Self::Qwen3Moe | Self::Gemma3 | Self::Gemma4 => HeadNorms::OfHeads,
            _ if self.is_hybrid() || self.has_convolutions() => HeadNorms::OfHeads,
            Self::Olmo2 => HeadNorms::OfRows,
            _ => HeadNorms::None,
        }
    }

    /// Whether attention and the feed-forward part take the norm of the stream, rather than the stream.
    pub(super) fn has_pre_norms(self) -> bool {
        self != Self::Olmo2
    }

    /// What the norm before the feed-forward part is called.
    pub(super) fn feed_forward_norm(self) -> &'static str {
        match self {
            Self::GptOss => "post_attention_norm",
            _ if self.is_hybrid() => "post_attention_norm",
            _ => "ffn_norm",
        }
    }

    /// What the norm behind the last layer is called.
    pub(super) fn output_norm(self) -> &'static str {
        match self.has_convolutions() {
            true => "token_embd_norm",
            false => "output_norm",
        }
    }

    /// Whether feed-forward parts are mixtures of experts, but those of the first layers where some are dense.
    pub(super) fn has_experts(self) -> bool {
        matches!(
            self,
            Self::Qwen3Moe | Self::GraniteMoe | Self::GptOss | Self::Lfm2Moe
        ) || self.has_shared_expert()
    }

    /// Whether experts are chosen by sigmoids with a bias that no weight knows.
    pub(super) fn chooses_by_bias(self) -> bool {
        self == Self::Lfm2Moe
    }

    /// Whether layers that slide have heads of a size and number of their own, keys may be values as well, the last layers
    /// may attend to what earlier ones have stored, tokens may have an embedding for each layer, and a mixture of experts
    /// may stand beside the feed-forward part.
    pub(super) fn has_unlike_layers(self) -> bool {
        self == Self::Gemma4
    }

    /// Whether every token goes to one more expert, by a gate of its own.
    pub(super) fn has_shared_expert(self) -> bool {
        matches!(self, Self::Qwen3Next | Self::Qwen35Moe)
    }

    /// Whether some layers follow the gated delta rule instead of attending, and what the others attend to passes a gate.
    pub(super) fn is_hybrid(self) -> bool {
        matches!(self, Self::Qwen3Next | Self::Qwen35 | Self::Qwen35Moe)
    }

    /// Whether the layers that have no KV heads are gated short convolutions.
    pub(super) fn has_convolutions(self) -> bool {
        matches!(self, Self::Lfm2 | Self::Lfm2Moe)
    }

    /// Which key head belongs to a head of a layer with a state, as converters order them.
    pub(super) fn head_order(self) -> HeadOrder {
        match self {
            Self::Qwen3Next => HeadOrder::Grouped,
            _ => HeadOrder::Tiled,
        }
    }

    /// Whether the weights of queries, keys and values are one tensor, and those of the gate and what it passes.
    pub(crate) fn is_fused(self) -> bool {
        self == Self::Phi3
    }

    /// Whether each head has a logit that only takes weight away.
    pub(super) fn has_sinks(self) -> bool {
        self == Self::GptOss
    }

    /// Whether a layer's queries and keys rotate.
    pub(super) fn rotates(self, layer: usize) -> bool {
        self != Self::SmolLm3 || !(layer + 1).is_multiple_of(4)
    }

    /// Whether numbers rotate in pairs of neighbours, as converters lay them out for the families of Llama's form.
    pub(super) fn rotates_pairwise(self) -> bool {
        matches!(
            self,
            Self::Llama | Self::SmolLm3 | Self::Granite | Self::GraniteMoe | Self::Mistral3
        )
    }

    /// Whether the outputs of attention and of the feed-forward part have norms of their own.
    pub(super) fn has_post_norms(self) -> bool {
        self.is_gemma() || self == Self::Olmo2
    }

    /// The products of a block that may have a bias, and whether the output's may.
    pub(super) fn biases(self) -> (&'static [&'static str], bool) {
        const ATTENTION: &[&str] = &["attn_q", "attn_k", "attn_v"];
        const ALL: &[&str] = &[
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_gate",
            "ffn_up",
            "ffn_down",
        ];
        const WITH_OUTPUT: &[&str] = &["attn_q", "attn_k", "attn_v", "attn_output"];
        const EXPERTS: &[&str] = &[
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_gate_inp",
            "ffn_gate_exps",
            "ffn_up_exps",
            "ffn_down_exps",
        ];
        match self {
            Self::Llama | Self::SmolLm3 | Self::Granite => (ALL, false),
            Self::Qwen2 => (ATTENTION, true),
            Self::Qwen3 | Self::Gemma2 | Self::Gemma3 => (ATTENTION, false),
            Self::Qwen3Moe | Self::GraniteMoe => (WITH_OUTPUT, false),
            Self::GptOss => (EXPERTS, false),
            Self::Olmo2 | Self::Phi3 | Self::Mistral3 | Self::Gemma4 => (&[], false),
            Self::Qwen3Next | Self::Qwen35 | Self::Qwen35Moe => (&[], false),
            Self::Lfm2 | Self::Lfm2Moe => (&[], false),
        }
    }

    /// Whether `rope_freqs.weight` divides the frequencies of its rotary embedding.
    pub(super) fn has_rope_factors(self) -> bool {
        matches!(self, Self::Llama | Self::Gemma4)
    }
}
