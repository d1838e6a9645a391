//! Axes: their ranges, ticks and the words under them.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// An axis in the coordinates that it is drawn in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    pub(crate) title: &'static str,
    pub(crate) range: Range<f64>,
    pub(crate) ticks: Vec<f64>,
    pub(crate) scale: Scale,
}

/// What a coordinate stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// The number itself.
    Linear,
    /// Its decimal logarithm.
    Log,
}

impl Axis {
    /// Covers `values`, which are finite, with some air around them.
    pub(crate) fn linear(title: &'static str, values: impl Iterator<Item = f64>) -> Self {
        let span = span(values);
        let width = (span.end - span.start).max(0.01 * span.end.abs()).max(1e-3);
        let padded = span.start - 0.06 * width..span.end + 0.06 * width;
        let step = step(width / 6.0);
        let first = (padded.start / step).floor();
        let last = (padded.end / step).ceil();
        Self {
            title,
            range: first * step..last * step,
            ticks: multiples(step, first, last),
            scale: Scale::Linear,
        }
    }

    /// Ends right above `most`, which no value passes.
    pub(crate) fn up_to(mut self, most: f64) -> Self {
        let air = 0.04 * (self.range.end - self.range.start);
        self.range.end = self.range.end.min(most + air);
        self.ticks.retain(|&tick| tick <= most);
        self
    }

    /// Covers `values`, which are positive.
    pub(crate) fn log(title: &'static str, values: impl Iterator<Item = f64>) -> Self {
        let span = span(values.map(f64::log10));
        let width = span.end - span.start;
        // At least 0.8 decades, so that two ticks of 1, 2 and 5 lie within.
        let padding = (0.06 * width).max(0.4 - width / 2.0);
        let range = span.start - padding..span.end + padding;
        let decades = range.end - range.start;
        let within: &[f64] = match decades {
            d if d < 2.2 => &[1.0, 2.0, 5.0],
            d if d < 4.0 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let stride = (decades / 10.0).ceil().max(1.0) as usize;
        let mut ticks = Vec::new();
        for decade in (range.start.floor() as i32..=range.end.ceil() as i32).step_by(stride) {
            for multiple in within {
                let tick = f64::from(decade) + multiple.log10();
                if range.contains(&tick) {
                    ticks.push(tick);
                }
            }
        }
        Self {
            title,
            range,
            ticks,
            scale: Scale::Log,
        }
    }

    /// Where a value lies.
    pub(crate) fn coordinate(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        }
    }

    /// The text of a tick.
    pub(crate) fn label(&self, tick: f64) -> String {
        match self.scale {
            Scale::Linear => {
                let step = match self.ticks.as_slice() {
                    [a, b, ..] => b - a,
                    _ => 1.0,
                };
                let decimals = (-step.log10() - 1e-9).ceil().clamp(0.0, 6.0) as usize;
                format!("{tick:.decimals$}")
            }
            Scale::Log => power(tick),
        }
    }
}

/// The axis as plotters draws it: grid lines and labels where its ticks are.
impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        start + (part * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, tick: &f64) -> String {
        self.label(*tick)
    }
}

/// 10^`exponent` as a number with one digit that counts.
fn power(exponent: f64) -> String {
    let decade = (exponent + 1e-9).floor();
    let digit = 10f64.powf(exponent - decade).round();
    if (-4.0..4.0).contains(&decade) {
        let decimals = (-decade).max(0.0) as usize;
        format!("{:.decimals$}", digit * 10f64.powf(decade))
    } else {
        format!("{digit}e{decade}")
    }
}

fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let span = values.fold(f64::INFINITY..f64::NEG_INFINITY, |span, value| {
        span.start.min(value)..span.end.max(value)
    });
    if span.start <= span.end {
        span
    } else {
        0.0..1.0
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `least`.
fn step(least: f64) -> f64 {
    let decade = 10f64.powf(least.log10().floor());
    let multiple = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|multiple| multiple * decade >= least);
    multiple.unwrap_or(10.0) * decade
}

fn multiples(step: f64, first: f64, last: f64) -> Vec<f64> {
    let count = (last - first).clamp(0.0, 64.0) as usize;
    (0..=count).map(|i| (first + i as f64) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|&tick| axis.label(tick)).collect()
    }

    #[test]
    fn linear_ticks_are_round_and_cover_the_values() {
        let axis = Axis::linear("bits", [2.25, 8.5].into_iter());
        assert_eq!(labels(&axis), ["0", "2", "4", "6", "8", "10"]);
        let axis = Axis::linear("share", [98.61, 99.43].into_iter());
        assert!(axis.range.start < 98.61 && axis.range.end > 99.43);
        assert_eq!(labels(&axis)[0], "98.4");
        for value in [0.0, 4.25, 100.0] {
            let axis = Axis::linear("one", [value].into_iter());
            assert!(axis.range.contains(&value), "{axis:?}");
            assert!((2..12).contains(&axis.ticks.len()), "{axis:?}");
        }
    }

    #[test]
    fn an_axis_of_shares_ends_at_the_whole() {
        let axis = Axis::linear("share", [62.0, 98.8].into_iter()).up_to(100.0);
        assert_eq!(labels(&axis).last().map(String::as_str), Some("100"));
        assert!((100.0..104.0).contains(&axis.range.end), "{axis:?}");
        let lower = Axis::linear("share", [30.0, 60.0].into_iter());
        assert_eq!(lower.clone().up_to(100.0), lower);
    }

    #[test]
    fn logarithmic_ticks_fit_the_number_of_decades() {
        let axis = Axis::log("kld", [0.0011, 0.045].into_iter());
        let wanted = ["0.001", "0.002", "0.005", "0.01", "0.02", "0.05"];
        assert_eq!(labels(&axis), wanted);
        let axis = Axis::log("kld", [2e-7, 3.0].into_iter());
        let wanted = [
            "1e-7", "1e-6", "1e-5", "0.0001", "0.001", "0.01", "0.1", "1",
        ];
        assert_eq!(labels(&axis), wanted);
        for values in [[1e-300, 1e6], [0.01, 0.01], [3e-5, 4e-5]] {
            let axis = Axis::log("kld", values.into_iter());
            assert!((2..12).contains(&axis.ticks.len()), "{axis:?}");
            assert!(values.iter().all(|v| axis.range.contains(&v.log10())));
        }
    }
}
