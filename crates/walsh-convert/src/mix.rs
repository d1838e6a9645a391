//! Which type each tensor gets: the mixes that llama.cpp's users know by name.
//!
//! A mix has a type for most tensors, and rules by what a tensor does and in which layer it stands. The rules are those
//! of llama.cpp's `llama-quantize`, tensor for tensor: `tests/mixes.rs` compares with its tables.

use std::fmt;
use std::str::FromStr;

use walsh_formats::DType;

use crate::Error;
use crate::source::{Source, Tensor, layer};

/// Declares the mixes: name, other name, number in `general.file_type`, and the type of most tensors.
macro_rules! mixes {
    ($($variant:ident = $name:literal $(or $other:literal)?, $file_type:literal, $base:ident;)*) => {
        /// A choice of types, by llama.cpp's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // the variants are the names
        pub enum Mix {
            $($variant,)*
        }

        impl Mix {
            /// All of them.
            pub const ALL: &'static [Mix] = &[$(Mix::$variant),*];

            /// The name, in lower case.
            pub fn name(self) -> &'static str {
                match self { $(Mix::$variant => $name,)* }
            }

            fn other_name(self) -> Option<&'static str> {
                match self {
                    $(Mix::$variant => None$(.or(Some($other)))?,)*
                }
            }

            /// The number that files say it with, in `general.file_type`.
            pub(crate) fn file_type(self) -> u32 {
                match self { $(Mix::$variant => $file_type,)* }
            }

            /// The type of most tensors.
            pub fn base(self) -> DType {
                match self { $(Mix::$variant => DType::$base,)* }
            }
        }
    };
}

mixes! {
    F32 = "f32", 0, F32;
    F16 = "f16", 1, F16;
    BF16 = "bf16", 32, BF16;
    Q8_0 = "q8_0", 7, Q8_0;
    Q6K = "q6_k", 18, Q6K;
    Q5_1 = "q5_1", 9, Q5_1;
    Q5_0 = "q5_0", 8, Q5_0;
    Q5KM = "q5_k_m" or "q5_k", 17, Q5K;
    Q5KS = "q5_k_s", 16, Q5K;
    Q4_1 = "q4_1", 3, Q4_1;
    Q4_0 = "q4_0", 2, Q4_0;
    Q4KM = "q4_k_m" or "q4_k", 15, Q4K;
    Q4KS = "q4_k_s", 14, Q4K;
    IQ4NL = "iq4_nl", 25, IQ4NL;
    IQ4XS = "iq4_xs", 30, IQ4XS;
    MXFP4 = "mxfp4_moe" or "mxfp4", 38, MXFP4;
    Q3KL = "q3_k_l", 13, Q3K;
    Q3KM = "q3_k_m" or "q3_k", 12, Q3K;
    Q3KS = "q3_k_s", 11, Q3K;
    IQ3M = "iq3_m", 27, IQ3S;
    IQ3S = "iq3_s", 26, IQ3S;
    IQ3XS = "iq3_xs", 22, IQ3S;
    IQ3XXS = "iq3_xxs", 23, IQ3XXS;
    Q2K = "q2_k", 10, Q2K;
    Q2KS = "q2_k_s", 21, Q2K;
    IQ2M = "iq2_m", 29, IQ2S;
    IQ2S = "iq2_s", 28, IQ2XS;
    IQ2XS = "iq2_xs", 20, IQ2XS;
    IQ2XXS = "iq2_xxs", 19, IQ2XXS;
}

impl Mix {
    /// Whether it is one of the mixes of about two bits, which have rules of their own.
    fn is_tiny(self) -> bool {
        matches!(self, Mix::IQ2M | Mix::IQ2S | Mix::IQ2XS | Mix::IQ2XXS)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Mix, Error> {
        let is_it = |name: &str| name.eq_ignore_ascii_case(text);
        let mut all = Mix::ALL.iter().copied();
        all.find(|mix| is_it(mix.name()) || mix.other_name().is_some_and(is_it))
            .ok_or_else(|| {
                let names: Vec<&str> = Mix::ALL.iter().map(|mix| mix.name()).collect();
                Error::Asked(format!(
                    "unknown type {text:?}: use one of {}",
                    names.join(", ")
                ))
            })
    }
}

/// What a tensor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Output,
    Embedding,
    /// Values of attention, alone or beside queries and keys.
    Value,
    Key,
    Query,
    AttentionOutput,
    Up,
    Gate,
    Down,
    Other,
}

impl Role {
    fn of(name: &str) -> Role {
        let is = |part: &str| name.contains(part);
        match name {
            "output.weight" => Role::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Role::Embedding,
            _ if is("attn_qkv.weight") || is("attn_kv_b.weight") || is("attn_v.weight") => {
                Role::Value
            }
            _ if is("attn_k.weight") => Role::Key,
            _ if is("attn_q.weight") => Role::Query,
            _ if is("attn_output.weight") => Role::AttentionOutput,
            _ if is("ffn_up") => Role::Up,
            _ if is("ffn_gate") => Role::Gate,
            _ if is("ffn_down") => Role::Down,
            _ => Role::Other,
        }
    }
}

/// Names of tensors that stay as they are, in part.
const KEPT: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
];

/// Whether a tensor's type is a matter of choice at all: it is a matrix of weights, and not one of few numbers that much
/// hangs on.
pub(crate) fn is_chosen(tensor: &Tensor<'_>) -> bool {
    let name = tensor.name.as_str();
    tensor.dimensions() >= 2
        && tensor.dtype.is_real()
        && name.ends_with("weight")
        && !matches!(name, "position_embd.weight" | "token_types.weight")
        && !KEPT.iter().any(|part| name.contains(part))
}

/// Goes through a model's tensors in order and picks the type of each.
#[derive(Debug)]
pub(crate) struct Picker {
    mix: Mix,
    has_imatrix: bool,
    is_falcon: bool,
    is_70b: bool,
    experts: u64,
    /// How many query heads share keys and values.
    sharing: u64,
    layers: u64,
    values: u64,
    has_output: bool,
    /// How many of them there were.
    values_seen: u64,
    downs_seen: u64,
    ups_seen: u64,
    gates_seen: u64,
}

impl Picker {
    pub(crate) fn new(mix: Mix, source: &Source<'_>, has_imatrix: bool) -> Picker {
        let heads = source.number("attention.head_count").unwrap_or(0);
        let kv_heads = source.number("attention.head_count_kv").unwrap_or(heads);
        let layers = source.number("block_count").unwrap_or(0);
        let is_70b = match source.architecture() {
            "llama" => layers == 80 && heads != kv_heads,
            "qwen2" | "deci" | "olmo" => layers == 80,
            "jais2" => layers == 68,
            _ => false,
        };
        let roles = || source.tensors.iter().map(|tensor| Role::of(&tensor.name));
        Picker {
            mix,
            has_imatrix,
            is_falcon: source.architecture() == "falcon",
            is_70b,
            experts: source.number("expert_count").unwrap_or(0),
            sharing: heads.checked_div(kv_heads).unwrap_or(0),
            layers,
            values: roles().filter(|role| *role == Role::Value).count() as u64,
            has_output: roles().any(|role| role == Role::Output),
            values_seen: 0,
            downs_seen: 0,
            ups_seen: 0,
            gates_seen: 0,
        }
    }

    /// The type of the next tensor whose type is the mix's to choose.
    pub(crate) fn pick(&mut self, tensor: &Tensor<'_>) -> DType {
        let base = self.mix.base();
        if !base.is_quantised() {
            return base;
        }
        let role = Role::of(&tensor.name);
        let is_output = role == Role::Output || role == Role::Embedding && !self.has_output;
        if is_output {
            return self.output(tensor);
        }
        if self.mix == Mix::MXFP4 {
            let is_stack = tensor.matrices() > 1;
            return if is_stack { DType::MXFP4 } else { DType::Q8_0 };
        }
        let count = match role {
            Role::Value => &mut self.values_seen,
            Role::Down => &mut self.downs_seen,
            Role::Up => &mut self.ups_seen,
            Role::Gate => &mut self.gates_seen,
            _ => &mut 0,
        };
        let seen = *count;
        *count += 1;
        if self.mix.is_tiny() && role != Role::Embedding {
            return self.tiny(role, seen);
        }
        // Experts of a layer may be tensors of their own.
        let named = layer(&tensor.name).filter(|_| self.experts > 1);
        let at = named.unwrap_or(seen);
        match role {
            Role::Embedding => self.embedding(),
            Role::Value => self.value(seen),
            Role::Key if self.experts == 8 => DType::Q8_0,
            Role::Key | Role::Query => match self.mix {
                Mix::IQ3XS => DType::IQ3XXS,
                Mix::IQ3XXS => DType::IQ2S,
                _ => base,
            },
            Role::Up | Role::Gate if self.mix == Mix::IQ3XS => {
                let is_inner = at >= self.layers / 8 && at < 7 * self.layers / 8;
                if is_inner { DType::IQ3XXS } else { base }
            }
            Role::Down => self.down(at),
            Role::AttentionOutput => self.attention_output(),
            _ => base,
        }
    }

    /// In mixes of about two bits: values, the output of attention and what the first layers write get more.
    fn tiny(&self, role: Role, seen: u64) -> DType {
        let more = match self.mix {
            Mix::IQ2S | Mix::IQ2M => DType::IQ3S,
            _ => DType::Q2K,
        };
        match role {
            Role::Value if self.sharing >= 4 || self.experts >= 4 => DType::Q4K,
            Role::Value => more,
            Role::Key if self.experts == 8 => DType::Q4K,
            Role::Down if seen < self.layers / 8 => more,
            Role::AttentionOutput if self.experts == 8 => DType::Q5K,
            Role::AttentionOutput if more == DType::IQ3S => more,
            _ => self.mix.base(),
        }
    }

    fn embedding(&self) -> DType {
        match self.mix {
            Mix::IQ2XXS | Mix::IQ2XS => DType::Q2K,
            Mix::IQ2S | Mix::IQ2M | Mix::IQ3XXS => DType::IQ3S,
            mix => mix.base(),
        }
    }

    fn output(&self, tensor: &Tensor<'_>) -> DType {
        let base = self.mix.base();
        let is_whole = tensor.columns().is_multiple_of(base.block_len() as u64);
        if self.mix == Mix::MXFP4 || base == DType::Q8_0 || self.is_falcon || !is_whole {
            DType::Q8_0
        } else if self.mix.is_tiny() || self.mix == Mix::IQ3XXS {
            DType::Q5K
        } else {
            DType::Q6K
        }
    }

    fn value(&self, seen: u64) -> DType {
        let all = self.values;
        let shares_much = self.sharing >= 4;
        let picked = match self.mix {
            Mix::Q2K if shares_much => DType::Q4K,
            Mix::Q2K => DType::Q3K,
            Mix::Q2KS | Mix::IQ3XXS | Mix::IQ3XS | Mix::IQ3S if shares_much => DType::Q4K,
            Mix::IQ3XXS if !self.has_imatrix => DType::IQ3S,
            Mix::IQ3M => DType::Q4K,
            Mix::Q3KM if seen < 2 => DType::Q5K,
            Mix::Q3KM => DType::Q4K,
            Mix::Q3KL => DType::Q5K,
            Mix::IQ4NL | Mix::IQ4XS if shares_much => DType::Q5K,
            Mix::Q4KM | Mix::Q5KM if matters_more(seen, all) => DType::Q6K,
            Mix::Q4KS if seen < 4 => DType::Q5K,
            mix => mix.base(),
        };
        match picked {
            _ if self.experts == 8 => DType::Q8_0,
            DType::Q3K | DType::Q4K if self.is_70b => DType::Q5K,
            picked => picked,
        }
    }

    fn down(&self, at: u64) -> DType {
        let layers = self.layers;
        let is_early = at < layers / 8;
        match self.mix {
            Mix::Q2K => DType::Q3K,
            Mix::Q2KS if is_early => DType::Q4K,
            Mix::IQ3XXS if !self.has_imatrix => {
                if is_early {
                    DType::Q4K
                } else {
                    DType::Q3K
                }
            }
            Mix::IQ3M if is_early || self.experts == 8 && matters_more(at, layers) => DType::Q4K,
            Mix::Q3KM if at < layers / 16 => DType::Q5K,
            Mix::Q3KM if !self.is_falcon || matters_more(at, layers) => DType::Q4K,
            Mix::Q3KL if self.is_falcon => DType::Q4K,
            Mix::Q3KL => DType::Q5K,
            Mix::Q4KM if self.is_falcon && at < layers / 16 => DType::Q6K,
            Mix::Q4KM if matters_more(at, layers) => {
                if self.is_falcon {
                    DType::Q5K
                } else {
                    DType::Q6K
                }
            }
            Mix::IQ4NL | Mix::IQ4XS if is_early && !self.has_imatrix => DType::Q5K,
            Mix::Q5KM if matters_more(at, layers) => DType::Q6K,
            Mix::Q4KS if is_early && !self.is_falcon => DType::Q5K,
            Mix::Q4_0 if is_early && self.has_imatrix => DType::Q4_1,
            Mix::Q5_0 if is_early && self.has_imatrix => DType::Q5_1,
            mix => mix.base(),
        }
    }

    fn attention_output(&self) -> DType {
        match self.mix {
            Mix::Q3KL if self.is_falcon => DType::Q4K,
            mix if self.is_falcon => mix.base(),
            Mix::Q2K | Mix::Q3KS | Mix::Q3KM | Mix::IQ4NL | Mix::IQ4XS | Mix::Q4KS | Mix::Q4KM
                if self.experts == 8 =>
            {
                DType::Q5K
            }
            Mix::IQ3XXS | Mix::IQ3XS | Mix::IQ3S | Mix::IQ3M if self.experts == 8 => DType::Q5K,
            mix if self.experts == 8 => mix.base(),
            Mix::Q2K => DType::Q3K,
            Mix::IQ3XXS => DType::IQ3S,
            Mix::IQ3M | Mix::Q3KM => DType::Q4K,
            Mix::Q3KL => DType::Q5K,
            mix => mix.base(),
        }
    }
}

/// Whether a layer is of the first or last eighth, or every third one between.
fn matters_more(at: u64, layers: u64) -> bool {
    let eighth = layers / 8;
    at < eighth || at >= 7 * layers / 8 || (at - eighth) % 3 == 2
}

/// A type for rows of so many values that is near to `wanted`, whose blocks may not fit them.
pub(crate) fn fitting(wanted: DType, columns: u64) -> DType {
    let fits = |dtype: DType| columns.is_multiple_of(dtype.block_len() as u64);
    let near = match wanted {
        _ if fits(wanted) => wanted,
        DType::IQ4XS | DType::IQ3S | DType::IQ3XXS => DType::IQ4NL,
        DType::IQ2S | DType::IQ2XS | DType::IQ2XXS => DType::IQ4NL,
        DType::Q2K | DType::Q3K => DType::Q4_0,
        DType::Q4K => DType::Q5_0,
        DType::Q5K => DType::Q5_1,
        DType::Q6K => DType::Q8_0,
        other => other,
    };
    if fits(near) { near } else { DType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_in_either_case() {
        for &mix in Mix::ALL {
            assert_eq!(mix.name().parse::<Mix>().unwrap(), mix);
            assert_eq!(mix.name().to_uppercase().parse::<Mix>().unwrap(), mix);
        }
        assert_eq!("Q4_K".parse::<Mix>().unwrap(), Mix::Q4KM);
        let error = "q4_k_x".parse::<Mix>().unwrap_err().to_string();
        assert!(
            error.contains("q4_k_x") && error.contains("q4_k_m"),
            "{error}"
        );
    }

    #[test]
    fn rows_that_do_not_fit_get_smaller_blocks() {
        assert_eq!(fitting(DType::Q4K, 256), DType::Q4K);
        assert_eq!(fitting(DType::Q4K, 96), DType::Q5_0);
        assert_eq!(fitting(DType::Q6K, 96), DType::Q8_0);
        assert_eq!(fitting(DType::Q6K, 40), DType::F16);
        assert_eq!(fitting(DType::Q4_0, 40), DType::F16);
    }
}
