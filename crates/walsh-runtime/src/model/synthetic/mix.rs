//! Which tensor gets which type.

use std::fmt;

use walsh::DType;

/// The types of a model's matrices, under the names of llama.cpp's quantiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mix {
    /// One type for all.
    Pure(DType),
    /// One type for all but the matrix that makes logits, which is Q6_K.
    WithOutput(DType),
    /// Q4_K, with Q6_K for the logits and for half of those that errors come from most: values and the
    /// way back from the feed-forward part.
    Q4KM,
}

/// What a matrix does, as far as its type depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Makes logits; the embedding table too, where both are one.
    Output,
    /// Makes the values of this layer.
    Value(usize),
    /// Leads this layer's feed-forward part back to the stream.
    Down(usize),
    /// Chooses experts or convolves, with numbers as they are.
    Router,
    /// Anything else.
    Other,
}

impl Mix {
    pub(super) const NAMES: &'static [(&'static str, Mix)] = &[
        ("q4_k_m", Mix::Q4KM),
        ("q4_0", Mix::WithOutput(DType::Q4_0)),
        ("q5_0", Mix::WithOutput(DType::Q5_0)),
        ("q6_k", Mix::Pure(DType::Q6K)),
        ("q8_0", Mix::Pure(DType::Q8_0)),
        ("mxfp4", Mix::WithOutput(DType::MXFP4)),
        ("nvfp4", Mix::WithOutput(DType::NVFP4)),
        ("iq4_nl", Mix::WithOutput(DType::IQ4NL)),
        ("iq4_xs", Mix::WithOutput(DType::IQ4XS)),
        ("iq3_s", Mix::WithOutput(DType::IQ3S)),
        ("iq3_xxs", Mix::WithOutput(DType::IQ3XXS)),
        ("iq2_s", Mix::WithOutput(DType::IQ2S)),
        ("iq2_xs", Mix::WithOutput(DType::IQ2XS)),
        ("iq2_xxs", Mix::WithOutput(DType::IQ2XXS)),
        ("iq1_m", Mix::WithOutput(DType::IQ1M)),
        ("iq1_s", Mix::WithOutput(DType::IQ1S)),
        ("tq1_0", Mix::WithOutput(DType::TQ1_0)),
        ("tq2_0", Mix::WithOutput(DType::TQ2_0)),
        ("q1_0", Mix::WithOutput(DType::Q1_0)),
        ("q2_0", Mix::WithOutput(DType::Q2_0)),
        ("f16", Mix::Pure(DType::F16)),
        ("bf16", Mix::Pure(DType::BF16)),
    ];

    /// The type of a matrix with rows of `columns` numbers, in a model of `layers` layers.
    pub(super) fn dtype(self, role: Role, columns: u64, layers: usize) -> DType {
        let wanted = match (self, role) {
            (_, Role::Router) => DType::F32,
            (Mix::Pure(dtype), _) => dtype,
            (Mix::WithOutput(_) | Mix::Q4KM, Role::Output) => DType::Q6K,
            (Mix::WithOutput(dtype), _) => dtype,
            (Mix::Q4KM, Role::Value(layer) | Role::Down(layer)) if favoured(layer, layers) => {
                DType::Q6K
            }
            (Mix::Q4KM, _) => DType::Q4K,
        };
        if columns.is_multiple_of(wanted.block_len() as u64) {
            return wanted;
        }
        // Rows that are no whole blocks take a type with blocks of 32, of no fewer bits.
        match wanted {
            DType::Q6K => DType::Q8_0,
            _ => DType::Q5_0,
        }
    }
}

/// Whether a layer is among those that get more bits: the first and last eighth, and every third between.
fn favoured(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::NAMES.iter().find(|(_, mix)| mix == self);
        f.write_str(known.map_or("", |(name, _)| name))
    }
}
