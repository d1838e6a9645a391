//! How the makers of a model would have its tokens chosen: the keys `general.sampling.*` of its file.

use std::path::Path;

use walsh::formats::gguf::{Metadata, Value};

use super::Sampling;
use crate::model::number;
use crate::{Error, Result};

/// What a model's file recommends for the choice of tokens; `None` where it says nothing.
///
/// The names and meanings of the keys are llama.cpp's. A session draws by what it is asked for: whoever asks decides
/// whether that is [`otherwise`](Self::otherwise).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecommendedSampling {
    /// `temp`.
    pub temperature: Option<f32>,
    /// `top_k`.
    pub top_k: Option<usize>,
    /// `top_p`.
    pub top_p: Option<f32>,
    /// `min_p`.
    pub min_p: Option<f32>,
    /// `penalty_repeat`.
    pub repetition_penalty: Option<f32>,
    /// `penalty_last_n`.
    pub repetition_window: Option<usize>,
    /// What it recommends besides, and cannot be had: keys with their values.
    pub unsupported: Vec<String>,
}

/// What a step of a choice is called, and what switches it off.
type Step = (&'static [&'static str], fn(&mut RecommendedSampling));

/// The steps that are here, in their order.
const STEPS: [Step; 5] = [
    (&["penalties"], |to| to.repetition_penalty = Some(1.0)),
    (&["top_k", "top-k", "topk"], |to| to.top_k = Some(0)),
    (&["top_p", "top-p", "topp", "nucleus"], |to| {
        to.top_p = Some(1.0)
    }),
    (&["min_p", "min-p", "minp"], |to| to.min_p = Some(0.0)),
    (&["temperature", "temp"], |to| to.temperature = Some(1.0)),
];

/// Steps that change nothing unless something else asks for them, which files cannot.
const IDLE: [&str; 8] = [
    "dry",
    "top_n_sigma",
    "top-n-sigma",
    "topnsigma",
    "typ_p",
    "typ-p",
    "typp",
    "typ",
];

impl RecommendedSampling {
    /// What is recommended, and where nothing is what answers are usually sampled by: a temperature of 0.7.
    #[must_use]
    pub fn or_usual(&self) -> Sampling {
        self.otherwise(Sampling {
            temperature: 0.7,
            ..Sampling::default()
        })
    }

    /// What is recommended, and `sampling` where nothing is.
    #[must_use]
    pub fn otherwise(&self, sampling: Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(sampling.temperature),
            top_k: self.top_k.unwrap_or(sampling.top_k),
            top_p: self.top_p.unwrap_or(sampling.top_p),
            min_p: self.min_p.unwrap_or(sampling.min_p),
            repetition_penalty: self
                .repetition_penalty
                .unwrap_or(sampling.repetition_penalty),
            repetition_window: self.repetition_window.unwrap_or(sampling.repetition_window),
        }
    }

    /// Reads what a file recommends.
    ///
    /// # Errors
    /// When a value is of the wrong type or out of range.
    pub(crate) fn read(path: &Path, metadata: &Metadata<'_>) -> Result<Self> {
        let mut found = Self::default();
        let mut sequence = None;
        for (key, value) in metadata.iter() {
            let Some(name) = key.strip_prefix("general.sampling.") else {
                continue;
            };
            let stated = Stated { path, key, value };
            match name {
                "temp" => found.temperature = Some(stated.zero_or_above()?),
                "top_k" => found.top_k = Some(stated.count()?.unwrap_or(0)),
                "top_p" => found.top_p = Some(stated.fraction()?),
                "min_p" => found.min_p = Some(stated.fraction()?),
                "penalty_repeat" => found.repetition_penalty = Some(stated.above_zero()?),
                "penalty_last_n" => {
                    found.repetition_window = Some(stated.count()?.unwrap_or(usize::MAX));
                }
                "sequence" => sequence = Some(stated.text()?),
                // They say how another step would work.
                "xtc_threshold" | "mirostat_tau" | "mirostat_eta" => {}
                "xtc_probability" | "mirostat" if stated.number()? == 0.0 => {}
                _ => found.unsupported.push(stated.to_string()),
            }
        }
        if let Some(sequence) = sequence {
            found.follow(sequence);
        }
        Ok(found)
    }

    /// Switches the steps off that are not among those of a sequence, such as `penalties;top_k;temperature`.
    fn follow(&mut self, sequence: &str) {
        let names = sequence.split(';').filter(|name| !IDLE.contains(name));
        // What another step does that is not asked for is nothing; if it is, that was noted.
        let names: Vec<&str> = names.filter(|name| *name != "xtc").collect();
        let mut left = names.as_slice();
        let mut absent = Vec::new();
        for (aliases, switch_off) in STEPS {
            match left.split_first() {
                Some((name, rest)) if aliases.contains(name) => left = rest,
                _ => absent.push(switch_off),
            }
        }
        if left.is_empty() {
            absent.into_iter().for_each(|switch_off| switch_off(self));
        } else {
            let sequence = sequence.chars().take(100).collect::<String>();
            self.unsupported
                .push(format!("general.sampling.sequence = {sequence:?}"));
        }
    }
}

/// A key and its value.
struct Stated<'a> {
    path: &'a Path,
    key: &'a str,
    value: &'a Value<'a>,
}

impl std::fmt::Display for Stated<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key: String = self.key.chars().take(100).collect();
        write!(f, "{} = ", key.escape_debug())?;
        match (self.value, self.number()) {
            (_, Ok(number)) => number.fmt(f),
            (Value::String(text), _) => {
                write!(f, "{:?}", text.chars().take(100).collect::<String>())
            }
            _ => f.write_str("a list or a truth value"),
        }
    }
}

impl<'a> Stated<'a> {
    fn must_be(&self, what: &str) -> Error {
        let what = format!("metadata key {self}, but must be {what}: use another model");
        Error::model(self.path, what)
    }

    fn number(&self) -> Result<f64> {
        number(self.value).ok_or_else(|| {
            Error::model(
                self.path,
                format!(
                    "metadata key {} must be a number: use another model",
                    self.key
                ),
            )
        })
    }

    /// A number that a rule holds for.
    fn checked(&self, holds: impl Fn(f64) -> bool, what: &str) -> Result<f32> {
        let number = self.number()?;
        match holds(number) && (number as f32).is_finite() {
            true => Ok(number as f32),
            false => Err(self.must_be(what)),
        }
    }

    fn zero_or_above(&self) -> Result<f32> {
        self.checked(|number| number >= 0.0, "0 or above")
    }

    fn above_zero(&self) -> Result<f32> {
        self.checked(|number| number as f32 > 0.0, "above 0")
    }

    fn fraction(&self) -> Result<f32> {
        self.checked(|number| (0.0..=1.0).contains(&number), "from 0 to 1")
    }

    /// How many; `None` for as many as there are, which is a number below 0.
    fn count(&self) -> Result<Option<usize>> {
        let number = self.number()?;
        if number.fract() != 0.0 || number.abs() > f64::from(i32::MAX) {
            return Err(self.must_be("a whole number of 32 bits"));
        }
        Ok((number >= 0.0).then_some(number as usize))
    }

    fn text(&self) -> Result<&'a str> {
        match self.value {
            Value::String(text) => Ok(text),
            _ => Err(self.must_be("a text")),
        }
    }
}
