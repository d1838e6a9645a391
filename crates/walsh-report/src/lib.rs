//! Runs of perplexity and of fidelity as pages that others can read: one HTML file
//! that needs no script and no other file.

mod axis;
mod compare;
mod fidelity;
mod file;
mod html;
mod labels;
mod plot;
mod points;
mod tables;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;

pub use compare::{Comparison, ComparisonEntry};
pub use fidelity::FidelityPage;
pub use file::ReportFile;

use walsh_runtime::{Model, PerplexityReport, Result};

use html::escape;
use points::Point;

/// Where a run's figures come from: what is needed to measure them again.
#[derive(Debug, Clone, PartialEq)]
pub struct Provenance {
    /// The command line, word by word.
    pub command: Vec<String>,
    /// The model's family.
    pub architecture: String,
    /// The model's file, without its folder.
    pub model_file: String,
    /// The size of the model's files in bytes.
    pub model_bytes: u64,
    /// What identifies the model's contents, where that is known.
    pub fingerprint: Option<String>,
    /// The device, what its kernels were chosen for, and its threads.
    pub device: String,
}

impl Provenance {
    /// That of a run on `model`, asked for by `command`.
    #[must_use]
    pub fn new(model: &Model, command: impl IntoIterator<Item = OsString>) -> Self {
        let device = model.device().properties();
        Self {
            command: command
                .into_iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            architecture: model.config().architecture.name().to_owned(),
            model_file: file_name(model.path()),
            model_bytes: model.file_bytes(),
            fingerprint: model.fingerprint().ok().map(|found| found.to_string()),
            device: format!(
                "{} ({}), threads: {}",
                device.backend, device.architecture, device.parallelism
            ),
        }
    }
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// A page about a run. The same page always has the same bytes.
#[derive(Debug, Clone, Copy)]
pub struct ReportPage<'a> {
    /// What was measured.
    pub report: &'a PerplexityReport,
    /// How.
    pub provenance: &'a Provenance,
    /// On which text: the path of its file.
    pub text: &'a Path,
    /// What was measured elsewhere and is shown beside it.
    pub comparisons: &'a [Comparison],
}

impl ReportPage<'_> {
    /// The page as HTML that is well-formed XML but for its first line.
    ///
    /// # Errors
    /// When a plot cannot be drawn.
    pub fn to_html(&self) -> Result<String> {
        let points = self.points();
        let mut body = tables::warnings(&self.report.warnings);
        body.push_str(&tables::figures(self.report));
        if points.is_empty() {
            body.push_str(
                "<section>\n<h2>Plots</h2>\n<p>There is nothing to plot: a plot shows what quantised caches change, and this run has none.</p>\n</section>\n",
            );
        } else {
            body.push_str(&self.plots(&points)?);
        }
        body.push_str(&tables::others(self.report, self.comparisons));
        body.push_str(&tables::measured(self));
        Ok(html::page(
            ("KV cache report", &self.report.model),
            &self.lede(),
            &body,
        ))
    }

    /// What is plotted: whatever differs from its reference, plain floats aside,
    /// whose bits would squeeze all else into a corner.
    fn points(&self) -> Vec<Point> {
        let own = self.report.results.iter().skip(1).map(Point::of_result);
        let others = self
            .comparisons
            .iter()
            .flat_map(|comparison| comparison.entries.iter().map(Point::of_entry));
        own.chain(others).filter(Point::is_plotted).collect()
    }

    fn lede(&self) -> String {
        let report = self.report;
        let against = match report.results.as_slice() {
            [first, _, ..] => format!(
                " Each cache&#8217;s predictions are compared with those of <code>{}</code>.",
                escape(&first.kv)
            ),
            _ => String::new(),
        };
        format!(
            "What storing keys and values in fewer bits changes, over {} of {} tokens of <em>{}</em>.{against}",
            html::count(report.chunks, "chunk"),
            report.context,
            escape(&file_name(self.text))
        )
    }

    fn plots(&self, points: &[Point]) -> Result<String> {
        let reference = self.report.results.first().map_or("", |first| &first.kv);
        let mut out = String::from("<section>\n<h2>Plots</h2>\n");
        out.push_str(&html::legend(points));
        for plot in [
            plot::divergence(points)?,
            plot::same_top(points)?,
            plot::spread(points)?,
        ]
        .into_iter()
        .flatten()
        {
            out.push_str(&html::figure(&plot, reference));
        }
        out.push_str("</section>\n");
        Ok(out)
    }
}
