use std::f64::consts::PI;
use std::fmt;

use walsh_formats::DType;

use super::check::Check;
use super::operation::Operation;
use crate::Result;
use crate::hazard::Accesses;
use crate::tensor::Tensor;

/// Which two numbers of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Numbers 2i and 2i + 1, as in the original paper and in GGUF files of
    /// the `llama` architecture.
    Pairwise,
    /// Numbers i and i + dims/2, as in GPT-NeoX, Qwen and Gemma.
    HalfSplit,
}

/// How frequencies are stretched to contexts longer than the training's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions divided by `factor` (arXiv 2306.15595).
    Linear {
        /// At least 1 to stretch.
        factor: f32,
    },
    /// Llama 3.1's rule: low frequencies divided by `factor`, high ones kept,
    /// a linear blend between.
    Llama3 {
        /// What low frequencies are divided by.
        factor: f32,
        /// Wavelengths above `original_context / low_frequency_factor` are low.
        low_frequency_factor: f32,
        /// Wavelengths below `original_context / high_frequency_factor` are high.
        high_frequency_factor: f32,
        /// The context of the training, in tokens.
        original_context: u32,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// The stretch of the context.
        factor: f32,
        /// The context of the training, in tokens.
        original_context: u32,
        /// The blend's weight: 1 for the paper's rule, 0 for plain linear.
        extrapolation: f32,
        /// A further factor on the rotated numbers.
        attention_factor: f32,
        /// Rotations over the training context above which a frequency is kept
        /// (the paper's 32).
        beta_fast: f32,
        /// Rotations below which it is fully stretched (the paper's 1).
        beta_slow: f32,
        /// Whether the blend begins and ends at whole pairs.
        rounded: bool,
    },
}

/// What numbers are multiplied by as positions grow: `1 + scale · ln(1 + ⌊position / context⌋)`.
/// Queries behind the context of the training stay as sharp as those within it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// How much a doubling of `position / context` adds, over ln 2.
    pub scale: f32,
    /// The positions before which nothing changes; above 0.
    pub context: u32,
}

impl Temperature {
    /// The factor at a position from 0 on.
    #[must_use]
    pub fn factor(self, position: i32) -> f64 {
        let times = f64::from(position.max(0).cast_unsigned() / self.context.max(1));
        1.0 + f64::from(self.scale) * times.ln_1p()
    }
}

/// The frequencies of a rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// How many leading numbers of a head rotate; even.
    pub dims: u64,
    /// The base of the frequencies (10,000 in the paper).
    pub base: f32,
    /// Which numbers rotate together.
    pub pairing: Pairing,
    /// The stretch for long contexts.
    pub scaling: RopeScaling,
    /// Divisors of the `dims / 2` frequencies, such as a model file's
    /// `rope_freqs.weight`.
    pub factors: Option<Vec<f32>>,
    /// What heads are multiplied by beside; all of their numbers rotate then.
    pub temperature: Option<Temperature>,
}

impl RopeConfig {
    /// The paper's frequencies, without a stretch.
    #[must_use]
    pub fn new(dims: u64, base: f32, pairing: Pairing) -> Self {
        Self {
            dims,
            base,
            pairing,
            scaling: RopeScaling::None,
            factors: None,
            temperature: None,
        }
    }

    /// The angle per position of each of the `dims / 2` pairs, in radians, and
    /// what the rotated numbers are multiplied by. Missing
    /// [`factors`](Self::factors) count as 1.
    #[must_use]
    pub fn frequencies(&self) -> (Vec<f64>, f64) {
        let dims = self.dims as f64;
        let base = f64::from(self.base);
        let frequencies = (0..self.dims / 2).map(|i| {
            let factor = self.factors.as_ref().and_then(|f| f.get(i as usize));
            let factor = factor.map_or(1.0, |factor| f64::from(*factor));
            let frequency = base.powf(-2.0 * i as f64 / dims) / factor;
            self.stretch(i as f64, frequency)
        });
        (frequencies.collect(), self.magnitude())
    }

    fn stretch(&self, pair: f64, frequency: f64) -> f64 {
        match self.scaling {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / f64::from(factor),
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor,
                high_frequency_factor,
                original_context,
            } => {
                let (low, high) = (
                    f64::from(low_frequency_factor),
                    f64::from(high_frequency_factor),
                );
                let rotations = f64::from(original_context) * frequency / (2.0 * PI);
                let keep = ((rotations - low) / (high - low)).clamp(0.0, 1.0);
                frequency * (keep + (1.0 - keep) / f64::from(factor))
            }
            RopeScaling::Yarn {
                factor,
                original_context,
                extrapolation,
                beta_fast,
                beta_slow,
                rounded,
                ..
            } => {
                // The pair whose frequency turns `rotations` times over the
                // training context.
                let pair_of = |rotations: f32| {
                    let context = f64::from(original_context);
                    self.dims as f64 * (context / (f64::from(rotations) * 2.0 * PI)).ln()
                        / (2.0 * f64::from(self.base).ln())
                };
                let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
                if rounded {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, high) = (low.max(0.0), high.min(self.dims as f64 - 1.0));
                let ramp = ((pair - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                let keep = (1.0 - ramp) * f64::from(extrapolation);
                frequency * (keep + (1.0 - keep) / f64::from(factor))
            }
        }
    }

    fn magnitude(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn {
                factor,
                attention_factor,
                extrapolation,
                ..
            } if extrapolation != 0.0 => {
                f64::from(attention_factor) * (1.0 + 0.1 * f64::from(factor).ln())
            }
            RopeScaling::Yarn {
                attention_factor, ..
            } => f64::from(attention_factor),
            _ => 1.0,
        }
    }

    fn validate(&self, check: Check, head_dim: u64) -> Result<()> {
        if self.dims == 0 || !self.dims.is_multiple_of(2) || self.dims > head_dim {
            return check.fail(
                "config.dims",
                format_args!("even, from 2 to the head size {head_dim}"),
                self.dims,
            );
        }
        check.positive("config.base", self.base)?;
        if let Some(Temperature { scale, context }) = self.temperature {
            check.finite("config.temperature.scale", scale)?;
            check.positive("config.temperature.context", context as f32)?;
            if self.dims != head_dim {
                let expected = format!("the head size {head_dim} with a temperature");
                return check.fail("config.dims", expected, self.dims);
            }
        }
        if let Some(factors) = &self.factors {
            if factors.len() as u64 != self.dims / 2 {
                return check.fail(
                    "config.factors",
                    format_args!("{} numbers", self.dims / 2),
                    factors.len(),
                );
            }
            for factor in factors {
                check.positive("config.factors", *factor)?;
            }
        }
        match self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => check.positive("config.scaling.factor", factor),
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor,
                high_frequency_factor,
                ..
            } => {
                check.positive("config.scaling.factor", factor)?;
                check.positive(
                    "config.scaling.high_frequency_factor",
                    high_frequency_factor - low_frequency_factor,
                )
            }
            RopeScaling::Yarn {
                factor,
                original_context,
                extrapolation,
                attention_factor,
                beta_fast,
                beta_slow,
                ..
            } => {
                check.positive("config.scaling.factor", factor)?;
                check.positive("config.scaling.original_context", original_context as f32)?;
                check.finite("config.scaling.extrapolation", extrapolation)?;
                check.positive("config.scaling.attention_factor", attention_factor)?;
                check.positive("config.scaling.beta_fast", beta_fast)?;
                check.positive("config.scaling.beta_slow", beta_slow)
            }
        }
    }
}

/// Rotary position embedding (Su et al., arXiv 2104.09864) of the heads of
/// each token. Numbers past `config.dims` are copied.
#[derive(Debug, Clone)]
pub struct Rope {
    /// `f32 [n, heads, head_dim]`.
    pub input: Tensor,
    /// `i32 [n]`: each token's position.
    pub positions: Tensor,
    /// The frequencies.
    pub config: RopeConfig,
    /// `f32`, the input's shape; may be the input in place.
    pub output: Tensor,
}

impl Operation for Rope {
    const NAME: &'static str = "Rope";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check.rank("input", &self.input, 3)?;
        check.size("input", &self.input)?;
        check.dtype("input", &self.input, DType::F32)?;
        check.dtype("positions", &self.positions, DType::I32)?;
        check.shape("positions", &self.positions, &self.input.shape()[..1])?;
        self.config.validate(check, self.input.row_len())?;
        check.f32("output", &self.output, self.input.shape())?;
        check.in_place_or_disjoint("output", &self.output, &[&self.input])?;
        check.disjoint("output", &self.output, &[&self.positions])
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: vec![self.input.span(), self.positions.span()],
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.input, self.output)
    }
}
