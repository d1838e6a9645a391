//! Figures that were measured elsewhere.

use std::path::Path;

use serde::Deserialize;

use walsh_runtime::{Error, Result};

/// What a `--compare` file holds: caches of other engines, each against its own
/// unquantised cache.
///
/// ```
/// use walsh_report::Comparison;
/// let text = r#"{"context": 1024, "entries": [
///     {"name": "engine q4_0", "bits_per_value": 4.5, "kld_mean": 0.046, "source": "engine 1.0"}
/// ]}"#;
/// let comparison = Comparison::parse(text.as_bytes(), "engine.json".as_ref())?;
/// assert_eq!(comparison.entries[0].bits_per_value, 4.5);
/// # Ok::<(), walsh_runtime::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The model's file.
    pub model: Option<String>,
    /// The text's file.
    pub text: Option<String>,
    /// Tokens in a chunk.
    pub context: Option<usize>,
    /// Chunks scored.
    pub chunks: Option<usize>,
    /// One entry per cache.
    pub entries: Vec<ComparisonEntry>,
}

/// A cache of another engine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparisonEntry {
    /// What it is called.
    pub name: String,
    /// Bits for a number of a key or a value, scales included.
    pub bits_per_value: f64,
    /// Mean KL divergence in nats from the same engine's unquantised cache.
    pub kld_mean: f64,
    /// The divergence that 99 of 100 positions stay below.
    pub kld_p99: Option<f64>,
    /// The fraction of positions whose likeliest token stays the same.
    pub same_top: Option<f64>,
    /// The perplexity.
    pub ppl: Option<f64>,
    /// Who measured it, and how.
    pub source: String,
}

impl Comparison {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is not what [`parse`](Self::parse) takes.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::file(path, &error))?;
        Self::parse(&bytes, path)
    }

    /// Reads the contents of a file; `path` is for messages.
    ///
    /// # Errors
    /// When it is not JSON of this form, or a figure is out of its range.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let wrong = |why: String| Error::File {
            path: path.to_owned(),
            why,
        };
        let comparison: Self = serde_json::from_slice(bytes)
            .map_err(|error| wrong(format!("not figures to compare with: {error}")))?;
        for entry in &comparison.entries {
            for (name, value, range) in entry.figures() {
                if !(range.0..=range.1).contains(&value) {
                    return Err(wrong(format!(
                        "{name} of {:?} is {value}: expected a number from {} to {}",
                        entry.name, range.0, range.1
                    )));
                }
            }
        }
        Ok(comparison)
    }
}

impl ComparisonEntry {
    /// Each figure that is there, with its range.
    fn figures(&self) -> impl Iterator<Item = (&'static str, f64, (f64, f64))> {
        let all = [
            ("bits_per_value", Some(self.bits_per_value), (0.01, 64.0)),
            ("kld_mean", Some(self.kld_mean), (0.0, 1e6)),
            ("kld_p99", self.kld_p99, (0.0, 1e6)),
            ("same_top", self.same_top, (0.0, 1.0)),
            ("ppl", self.ppl, (1.0, 1e300)),
        ];
        all.into_iter()
            .filter_map(|(name, value, range)| value.map(|value| (name, value, range)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        let error = Comparison::parse(text.as_bytes(), "figures.json".as_ref());
        error.expect_err(text).to_string()
    }

    #[test]
    fn optional_figures_may_be_missing() {
        let text = r#"{"entries":[{"name":"a","bits_per_value":4.5,"kld_mean":0,"source":"b"}]}"#;
        let comparison = Comparison::parse(text.as_bytes(), "x".as_ref()).expect("good");
        assert_eq!(comparison.entries[0].kld_p99, None);
        assert_eq!(comparison.context, None);
    }

    #[test]
    fn errors_name_the_file_and_what_is_wrong() {
        let entry = |figures: &str| {
            format!(r#"{{"entries":[{{"name":"a","source":"b","kld_mean":0.1,{figures}}}]}}"#)
        };
        for (text, part) in [
            ("", "EOF"),
            ("[]", "figures.json"),
            (r#"{"entries":[]} x"#, "trailing"),
            (r#"{"entries":[{"name":"a"}]}"#, "bits_per_value"),
            (&entry(r#""bits_per_value":0"#), "bits_per_value of \"a\""),
            (
                &entry(r#""bits_per_value":4,"same_top":1.5"#),
                "from 0 to 1",
            ),
            (&entry(r#""bits_per_value":4,"kld_p99":-1"#), "kld_p99"),
            (&entry(r#""bits_per_value":4,"ppl":0"#), "ppl"),
            (&entry(r#""bits_per_value":4,"pll":1"#), "pll"),
        ] {
            let why = why(text);
            assert!(why.starts_with("figures.json: "), "{why}");
            assert!(why.contains(part), "{part:?} is not in {why:?}");
        }
    }
}
