//! What the plots show.

use walsh::formats::kv::{FloatCodec, KvCodec};
use walsh_runtime::PerplexityResult;

use crate::compare::ComparisonEntry;

/// How a point is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// One of Walsh's own codecs.
    Walsh,
    /// A block type of ggml, in Walsh, rotated or not.
    Ggml,
    /// What another engine measured.
    Engine,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Walsh, Self::Ggml, Self::Engine];

    /// The kind of a SPEC.
    pub(crate) fn of_spec(spec: &str) -> Self {
        let is_reference = |codec: &str| {
            let codec = codec.parse::<KvCodec>();
            codec.is_ok_and(|codec| codec.dense().is_some())
        };
        if codecs(spec).all(is_reference) {
            Self::Ggml
        } else {
            Self::Walsh
        }
    }
}

/// The parts of a SPEC, without their sides.
fn codecs(spec: &str) -> impl Iterator<Item = &str> {
    spec.split(',')
        .map(|part| part.strip_prefix("k=").unwrap_or(part))
        .map(|part| part.strip_prefix("v=").unwrap_or(part))
}

/// Whether a SPEC stores plain floats.
fn is_float(spec: &str) -> bool {
    let quantises_nothing = |codec: &str| matches!(codec.parse(), Ok(KvCodec::Dense(dtype)) if FloatCodec::of(dtype).is_some());
    codecs(spec).all(quantises_nothing)
}

/// A cache's place in the plots.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) bits: f64,
    pub(crate) kld: f64,
    pub(crate) kld_p99: Option<f64>,
    pub(crate) same_top: Option<f64>,
}

impl Point {
    pub(crate) fn of_result(result: &PerplexityResult) -> Self {
        Self {
            name: result.kv.clone(),
            kind: Kind::of_spec(&result.kv),
            bits: result.bits_per_value,
            kld: result.kld_mean,
            kld_p99: Some(result.kld_p99),
            same_top: Some(result.same_top),
        }
    }

    pub(crate) fn of_entry(entry: &ComparisonEntry) -> Self {
        Self {
            name: entry.name.clone(),
            kind: Kind::Engine,
            bits: entry.bits_per_value,
            kld: entry.kld_mean,
            kld_p99: entry.kld_p99,
            same_top: entry.same_top,
        }
    }

    /// Whether it has a place on a logarithmic axis and is not a plain float.
    pub(crate) fn is_plotted(&self) -> bool {
        self.kld > 0.0 && self.kld.is_finite() && self.bits.is_finite() && !is_float(&self.name)
    }
}

/// Which of Walsh's points no other one beats in both bits and `loss`, from the
/// fewest bits up.
pub(crate) fn pareto_front(points: &[Point], loss: impl Fn(&Point) -> Option<f64>) -> Vec<usize> {
    let own = points.iter().enumerate();
    let mut own: Vec<(usize, f64, f64)> = own
        .filter(|(_, point)| point.kind == Kind::Walsh)
        .filter_map(|(index, point)| loss(point).map(|loss| (index, point.bits, loss)))
        .collect();
    own.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.2.total_cmp(&b.2)));
    let mut best = f64::INFINITY;
    own.retain(|&(_, _, loss)| {
        let is_better = loss < best;
        best = best.min(loss);
        is_better
    });
    own.into_iter().map(|(index, ..)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str, bits: f64, kld: f64) -> Point {
        Point {
            name: name.to_owned(),
            kind: Kind::of_spec(name),
            bits,
            kld,
            kld_p99: None,
            same_top: None,
        }
    }

    #[test]
    fn block_types_are_references_and_codebooks_and_policies_are_walshs() {
        for spec in ["q4_0", "q8_0+rot", "k=q8_0,v=q4_0+rot", "k=f16,v=q4_0"] {
            assert_eq!(Kind::of_spec(spec), Kind::Ggml, "{spec}");
        }
        for spec in [
            "tq4",
            "4bit",
            "k=q8_0,v=tq4",
            "q4_0,recent=32",
            "q4_0+equalise",
        ] {
            assert_eq!(Kind::of_spec(spec), Kind::Walsh, "{spec}");
        }
    }

    #[test]
    fn floats_and_what_changes_nothing_are_not_plotted() {
        for (spec, kld, plotted) in [
            ("tq8", 1e-6, true),
            ("tq8", 0.0, false),
            ("f32", 1e-6, false),
            ("k=f16,v=bf16", 1e-6, false),
            ("k=f16,v=q8_0", 1e-6, true),
        ] {
            assert_eq!(point(spec, 8.0, kld).is_plotted(), plotted, "{spec} {kld}");
        }
    }

    #[test]
    fn the_front_leaves_out_what_another_beats_and_the_references() {
        let points = [
            point("tq8", 8.25, 0.001),
            point("tq4", 4.25, 0.04),
            point("q4_0", 4.0, 0.0001),
            point("k=tq5,v=tq3", 4.25, 0.03),
            point("tq6", 6.25, 0.05),
            point("tq3", 3.25, 0.2),
            point("tq5", 5.25, 0.03),
        ];
        let front = pareto_front(&points, |point| Some(point.kld));
        let names: Vec<&str> = front.iter().map(|&i| points[i].name.as_str()).collect();
        assert_eq!(names, ["tq3", "k=tq5,v=tq3", "tq8"]);
        assert!(pareto_front(&points, |_| None).is_empty());
    }
}
