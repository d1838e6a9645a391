//! What single values of options may be.

use std::num::NonZeroUsize;
use std::time::Duration;

use walsh_runtime::{FidelityTask, Fit};

/// Positions in a text are 32-bit numbers with a sign.
const MOST_TOKENS: usize = i32::MAX as usize;

/// The most tokens to generate; none for as many as there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaxTokens(pub(crate) Option<usize>);

/// What a run's random choices start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seed {
    /// A number of each run's own.
    Drawn,
    /// This number.
    Given(u64),
}

fn number(text: &str, accepted: impl Fn(f32) -> bool, expected: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() && accepted(value) => Ok(value),
        _ => Err(format!("expected {expected}")),
    }
}

pub(super) fn non_negative(text: &str) -> Result<f32, String> {
    number(text, |value| value >= 0.0, "a number from 0")
}

pub(super) fn positive(text: &str) -> Result<f32, String> {
    number(text, |value| value > 0.0, "a number above 0")
}

pub(super) fn fraction(text: &str) -> Result<f32, String> {
    number(
        text,
        |value| (0.0..=1.0).contains(&value),
        "a number from 0 to 1",
    )
}

pub(super) fn fitted_bits(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(bits) if Fit::BITS.contains(&bits) => Ok(bits),
        _ => Err(format!(
            "expected bits per value from {} to {}",
            Fit::BITS.start(),
            Fit::BITS.end()
        )),
    }
}

pub(super) fn fidelity_task(text: &str) -> Result<FidelityTask, String> {
    text.parse().map_err(|_| {
        let names = FidelityTask::ALL.map(FidelityTask::name);
        format!("expected one of {}", names.join(", "))
    })
}

/// A number of things from `least` on.
fn whole(text: &str, least: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (least..=MOST_TOKENS).contains(&value) => Ok(value),
        _ => Err(format!(
            "expected a whole number from {least} to {MOST_TOKENS}"
        )),
    }
}

pub(super) fn count(text: &str) -> Result<NonZeroUsize, String> {
    let value = whole(text, 1)?;
    NonZeroUsize::new(value).ok_or_else(|| "expected a whole number from 1".to_owned())
}

/// A size in bytes, with a unit of powers of ten (KB) or of two (KiB) if it has one.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1048576.0,
        "gib" => 1073741824.0,
        "tib" => 1099511627776.0,
        _ => 0.0,
    };
    let size = digits.parse::<f64>().map_or(0.0, |number| number * unit);
    match (1.0..9e18).contains(&size) {
        true => Ok(size as u64),
        false => Err("give a size such as 512MB, 2GB or 1.5GiB".to_owned()),
    }
}

/// A time such as 30s, 5m or 2h.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    let seconds = digits
        .parse::<f64>()
        .map_or(f64::NAN, |number| number * unit);
    match (0.0..1e9).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("give a time such as 30s, 5m or 2h".to_owned()),
    }
}

/// A time that is not none.
pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("give a time above 0".to_owned()),
        time => Ok(time),
    }
}

/// A name and its part of the memory.
pub(super) fn share(text: &str) -> Result<(String, u64), String> {
    match text.rsplit_once('=') {
        Some((name, size)) if !name.is_empty() => Ok((name.to_owned(), bytes(size)?)),
        _ => Err("give a model's name and a size, such as coder=2GB".to_owned()),
    }
}

pub(super) fn count_or_none(text: &str) -> Result<usize, String> {
    whole(text, 0)
}

/// How many tokens are looked up: with the next, as many as are read in a step.
pub(super) fn looked_up(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if value <= 7 => Ok(value),
        _ => Err("expected a whole number from 0 to 7".to_owned()),
    }
}

pub(super) fn max_tokens(text: &str) -> Result<MaxTokens, String> {
    match text {
        "-1" => Ok(MaxTokens(None)),
        _ => match whole(text, 1) {
            Ok(most) => Ok(MaxTokens(Some(most))),
            Err(expected) => Err(format!("{expected}, or -1 for no limit")),
        },
    }
}

pub(super) fn seed(text: &str) -> Result<Seed, String> {
    match (text, text.parse()) {
        ("-1", _) => Ok(Seed::Drawn),
        (_, Ok(seed)) => Ok(Seed::Given(seed)),
        _ => Err(format!(
            "expected a whole number from 0 to {}, or -1 for one drawn anew",
            u64::MAX
        )),
    }
}

pub(super) fn stop_text(text: &str) -> Result<String, String> {
    match text {
        "" => Err("expected at least one character".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

pub(super) fn op_name(text: &str) -> Result<&'static str, String> {
    walsh_bench::op_named(text)
        .ok_or_else(|| format!("expected one of {}", walsh_bench::ops().join(", ")))
}

pub(super) fn chunk_tokens(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(tokens) if (4..=MOST_TOKENS).contains(&tokens) => Ok(tokens),
        _ => Err(format!(
            "expected a number of tokens from 4 to {MOST_TOKENS}"
        )),
    }
}
