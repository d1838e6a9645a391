//! `walsh perplexity`.

use walsh_report::{Comparison, Provenance, ReportFile, ReportPage};
use walsh_runtime::{Model, PerplexityOptions, PerplexityReport, TextReader, perplexity};

use crate::args::Perplexity;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Notes, Table, shown};
use crate::progress::Steps;
use crate::{interrupt, models};

/// The page that the run ends with, whose files were looked at before it begins.
struct Page {
    file: ReportFile,
    comparisons: Vec<Comparison>,
}

impl Page {
    fn prepare(args: &Perplexity) -> Outcome<Option<Self>> {
        let Some(path) = &args.report else {
            return Ok(None);
        };
        let comparisons = args.compare.iter().map(|path| Comparison::read(path));
        Ok(Some(Self {
            comparisons: comparisons.collect::<Result<_, _>>()?,
            file: ReportFile::prepare(path)?,
        }))
    }

    fn write(&self, report: &PerplexityReport, args: &Perplexity, model: &Model) -> Outcome {
        let page = ReportPage {
            report,
            provenance: &Provenance::new(model, std::env::args_os()),
            text: &args.file,
            comparisons: &self.comparisons,
        };
        Ok(self.file.write(&page.to_html()?)?)
    }
}

pub(crate) fn run(args: &Perplexity) -> Outcome {
    let mut text = TextReader::open(&args.file)?;
    let page = Page::prepare(args)?;
    let notes = Notes::for_figures(args.json);
    let cancel = interrupt::on_interrupt()?;
    let model = models::open_adapted((&args.model, &args.lora), &notes, &cancel)?;
    models::say_unfitted(&model, &args.kv, &notes)?;
    let options = PerplexityOptions {
        context: args.context,
        chunks: args.chunks.map(usize::from),
        kv: args.kv.clone(),
        cancel,
    };
    let steps = Steps::new("chunks", &notes);
    let report = perplexity(&model, &mut text, &options, &mut |progress| {
        steps.show(progress.chunk, progress.chunks);
        let figures: Vec<String> = args
            .kv
            .iter()
            .zip(&progress.perplexities)
            .map(|(kv, ppl)| format!("{kv} {ppl:.4}"))
            .collect();
        let figures = figures.join("  ");
        match steps.is_hidden() {
            true => steps.note(format_args!(
                "[{}/{}] {figures}",
                progress.chunk, progress.chunks
            )),
            false => steps.message(figures),
        }
    })?;
    drop(steps);
    for warning in &report.warnings {
        output::note(format_args!("warning: {warning}"));
    }
    print(&report, args)?;
    if report.cancelled {
        // A page would take the place of one of a whole run.
        notes.note(format_args!(
            "interrupted: the figures are those of the first {} chunks",
            report.chunks
        ));
        return Err(Failure::Interrupted);
    }
    page.map_or(Ok(()), |page| page.write(&report, args, &model))
}

fn print(report: &PerplexityReport, args: &Perplexity) -> Outcome {
    if args.json {
        return output::print_json(report);
    }
    let mut table = Table::new(&[
        "kv",
        "bits",
        "perplexity",
        "±",
        "kld mean",
        "±",
        "kld 99%",
        "same top",
        "KV bytes/token",
    ]);
    for result in &report.results {
        table.row(vec![
            result.kv.clone(),
            format!("{:.2}", result.bits_per_value),
            format!("{:.4}", result.ppl),
            format!("{:.4}", result.ppl_stderr),
            format!("{:.6}", result.kld_mean),
            format!("{:.6}", result.kld_stderr),
            format!("{:.6}", result.kld_p99),
            format!("{:.2}%", 100.0 * result.same_top),
            result.kv_bytes_per_token.to_string(),
        ]);
    }
    let fitted = report.results.iter().filter_map(|result| {
        let policy = result.policy.as_ref()?;
        Some(format!("{}, fitted to the model: {policy}\n", result.kv))
    });
    output::print(&format!(
        "{} on {}, {} chunks of {} tokens; kld in nats and same top against {}\n{table}{}",
        shown(&report.model),
        report.device,
        report.chunks,
        report.context,
        args.kv[0],
        fitted.collect::<String>()
    ))
}
