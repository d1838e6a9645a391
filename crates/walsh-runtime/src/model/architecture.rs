//! The families of models, and what makes them differ.

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
}

impl Architecture {
    /// Every architecture, with its name in GGUF files.
    pub const ALL: &'static [(&'static str, Architecture)] = &[
        ("llama", Architecture::Llama),
        ("qwen2", Architecture::Qwen2),
        ("qwen3", Architecture::Qwen3),
        ("gemma2", Architecture::Gemma2),
        ("gemma3", Architecture::Gemma3),
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
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    /// The period of sliding layers where a file states none: the last layer of each period attends globally.
    pub(super) fn window_period(self) -> Option<u64> {
        match self {
            Self::Gemma2 => Some(2),
            Self::Gemma3 => Some(6),
            _ => None,
        }
    }

    /// Whether queries and keys have norms of their own.
    pub(super) fn has_head_norms(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Gemma3)
    }

    /// Whether the outputs of attention and of the feed-forward part have norms of their own.
    pub(super) fn has_post_norms(self) -> bool {
        self.is_gemma()
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
        match self {
            Self::Llama => (ALL, false),
            Self::Qwen2 => (ATTENTION, true),
            Self::Qwen3 | Self::Gemma2 | Self::Gemma3 => (ATTENTION, false),
        }
    }

    /// Whether `rope_freqs.weight` divides the frequencies of its rotary embedding.
    pub(super) fn has_rope_factors(self) -> bool {
        self == Self::Llama
    }
}
