//! Perplexity, and its report.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pyo3::prelude::*;
use walsh_report::{Provenance, ReportPage};
use walsh_runtime::{PerplexityOptions, PerplexityReport, TextReader};

use crate::errors::{Failure, Result};
use crate::model::{Listener, PyModel};
use crate::options::spec;

/// What is measured.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Measuring {
    /// The text itself, or else the file that has it.
    text: Option<String>,
    path: Option<PathBuf>,
    context: usize,
    chunks: Option<usize>,
    kv: Vec<String>,
}

/// What was measured.
#[pyclass(frozen, module = "walsh._walsh", name = "Report")]
pub(crate) struct PyReport {
    report: PerplexityReport,
    provenance: Provenance,
    text: PathBuf,
}

/// Measures the perplexity of a text.
#[pyfunction]
pub(crate) fn perplexity(
    py: Python<'_>,
    model: &PyModel,
    measuring: Measuring,
    progress: Option<Py<PyAny>>,
) -> Result<PyReport> {
    let measured = model.get()?;
    let cancel = Arc::new(AtomicBool::new(false));
    let kv = measuring.kv.iter().map(|kv| spec(Some(kv)));
    let options = PerplexityOptions {
        context: measuring.context,
        chunks: measuring.chunks,
        kv: kv.collect::<Result<_>>()?,
        cancel: Arc::clone(&cancel),
    };
    let listener = Listener::new(progress, &cancel);
    let report = model.wait(py, Some(&cancel), || {
        let mut text = match (&measuring.text, &measuring.path) {
            (Some(text), _) => TextReader::new("the text", text.as_bytes()),
            (None, path) => TextReader::open(path.as_deref().unwrap_or(Path::new("")))?,
        };
        walsh_runtime::perplexity(&measured, &mut text, &options, &mut |progress| {
            if let Some(listener) = &listener.told {
                listener(walsh_runtime::Progress {
                    done: progress.chunk,
                    total: progress.chunks,
                });
            }
        })
    })?;
    listener.check()?;
    Ok(PyReport {
        report: report.or_signal()??,
        provenance: Provenance::new(&measured, ["walsh.perplexity".into()]),
        text: measuring.path.unwrap_or("a text".into()),
    })
}

#[pymethods]
impl PyReport {
    /// Its figures, as JSON.
    fn json(&self) -> Result<String> {
        serde_json::to_string(&self.report)
            .map_err(|error| Failure::internal(format!("figures that are no JSON: {error}")))
    }

    /// A page with tables and plots.
    fn html(&self) -> Result<String> {
        let page = ReportPage {
            report: &self.report,
            provenance: &self.provenance,
            text: &self.text,
            comparisons: &[],
        };
        Ok(page.to_html()?)
    }
}
