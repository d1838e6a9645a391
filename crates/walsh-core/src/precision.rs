//! In which precision products read their input.

use std::fmt;
use std::str::FromStr;

/// The precision in which products with block-quantised weights read their input, the activations, and attention its
/// queries where it reads codes as integers.
///
/// Products with floating-point weights read their input as it is in either case. Attention over codes of 2 to 6 bits is
/// in integers where a backend has kernels for it, and in single precision with [`Activations::F32`]; a plan says which.
/// All other ops compute in single precision or better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// 8 bits, with a scale for each 32 values: products run on integers, at the speed of memory with one row of input.
    /// Each result is off by about 0.5% of the root of its summed squares, so that whatever changes the last bits of an
    /// input, be it the order of a sum, moves a model's logits by about 0.1. For generation.
    #[default]
    Int8,
    /// Single precision: weights are decoded, exactly, to single precision as well. Results are those of a sum in single
    /// precision. They take about three times as long as with [`Activations::Int8`]. For measurements: what differs between two runs is then what was changed, not the rounding of products.
    F32,
}

impl Activations {
    /// Both, the default first.
    pub const ALL: &'static [Activations] = &[Activations::Int8, Activations::F32];

    /// The name that [`FromStr`] reads: `int8` or `f32`.
    pub fn name(self) -> &'static str {
        match self {
            Activations::Int8 => "int8",
            Activations::F32 => "f32",
        }
    }
}

impl fmt::Display for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no precision of [`Activations`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown precision of activations '{name}': expected int8 or f32")]
pub struct UnknownActivations {
    /// The name that was given.
    pub name: String,
}

impl FromStr for Activations {
    type Err = UnknownActivations;

    fn from_str(name: &str) -> Result<Self, UnknownActivations> {
        Activations::ALL
            .iter()
            .copied()
            .find(|activations| activations.name() == name)
            .ok_or_else(|| UnknownActivations {
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for &activations in Activations::ALL {
            assert_eq!(activations.name().parse(), Ok(activations));
        }
        assert!("f16".parse::<Activations>().is_err());
    }
}
