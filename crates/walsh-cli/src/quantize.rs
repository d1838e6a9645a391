//! `walsh quantize`.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use serde_json::json;
use walsh_convert::{Error, Files, Imatrix, Mix, Plan, PlanOptions, Source, WriteOptions};
use walsh_runtime::{Replacement, check_writable};

use crate::args::{Making, Quantize};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Notes, Table, bytes, shown_path};
use crate::progress::Bar;
use crate::{interrupt, models};

pub(crate) fn run(args: &Quantize) -> Outcome {
    let notes = Notes::for_figures(args.making.json);
    let cancel = interrupt::on_interrupt()?;
    let path = models::resolve(&args.input, &args.cache, &notes, &cancel)?;
    let files = Files::open(&path)?;
    if files.contain(&args.making.output) {
        return Err(Failure::Usage(format!(
            "{} is the model that is read: give another file to write",
            shown_path(&args.making.output)
        )));
    }
    let maker = Maker {
        making: &args.making,
        mix: args.mix,
        allow_requantize: args.allow_requantize,
        notes,
        cancel,
    };
    maker.run(&files.source()?)
}

/// What makes a file of a model, whatever it comes from.
pub(crate) struct Maker<'a> {
    pub(crate) making: &'a Making,
    pub(crate) mix: Mix,
    pub(crate) allow_requantize: bool,
    pub(crate) notes: Notes,
    pub(crate) cancel: Arc<AtomicBool>,
}

impl Maker<'_> {
    /// Plans the file, writes it unless that is not wanted, and reports.
    pub(crate) fn run(&self, source: &Source<'_>) -> Outcome {
        if !self.making.dry_run {
            check_writable(&self.making.output)?;
        }
        let imatrix = self.making.imatrix.as_deref().map(Imatrix::open);
        let imatrix = imatrix.transpose()?;
        let options = PlanOptions {
            mix: self.mix,
            overrides: &self.making.tensors,
            imatrix: imatrix.as_ref(),
            // Nothing is lost by looking.
            allow_requantize: self.allow_requantize || self.making.dry_run,
        };
        let plan = Plan::new(source, &options)?;
        for note in &plan.notes {
            self.notes.note(format_args!("{note}"));
        }
        let started = Instant::now();
        if !self.making.dry_run {
            let job = Job {
                plan: &plan,
                threads: threads(self.making.threads),
                cancel: &self.cancel,
                notes: &self.notes,
            };
            job.write(&self.making.output)?;
        }
        self.report(&plan, started)
    }
}

/// How many threads, where so many were asked for.
pub(crate) fn threads(asked: Option<NonZeroUsize>) -> usize {
    let threads = asked.or_else(|| thread::available_parallelism().ok());
    threads.map_or(1, usize::from)
}

/// A file to be made.
pub(crate) struct Job<'a> {
    pub(crate) plan: &'a Plan<'a>,
    pub(crate) threads: usize,
    pub(crate) cancel: &'a Arc<AtomicBool>,
    pub(crate) notes: &'a Notes,
}

impl Job<'_> {
    /// Writes the file, and puts it into its place when it is whole.
    pub(crate) fn write(&self, path: &Path) -> Outcome {
        let mut file = Replacement::create(path)?;
        let mut bar = Bar::new(&path.display().to_string(), self.notes);
        let mut options = WriteOptions {
            threads: self.threads,
            cancel: self.cancel,
            progress: &mut |progress| bar.show("writing", progress.done, progress.total),
        };
        let written = self.plan.write(file.file(), &mut options);
        drop(bar);
        written.map_err(|error| match error {
            Error::Output(error) => Failure::run(format_args!(
                "cannot write {}: {error}; the file would take {}",
                shown_path(path),
                self.plan
                    .file_bytes()
                    .map_or_else(|_| "more".to_owned(), bytes)
            )),
            error => error.into(),
        })?;
        Ok(file.commit()?)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Interrupted,
            error => Self::run(error),
        }
    }
}

impl Maker<'_> {
    fn report(&self, plan: &Plan<'_>, started: Instant) -> Outcome {
        let making = self.making;
        let (before, after) = plan.bytes();
        let bits = |bytes: u64| 8.0 * bytes as f64 / plan.values().max(1) as f64;
        if making.json {
            let tensors = plan.tensors.iter().map(|tensor| {
                json!({
                    "name": tensor.name,
                    "shape": tensor.shape,
                    "from": tensor.from.name(),
                    "to": tensor.to.name(),
                    "bytes_from": tensor.bytes_from,
                    "bytes_to": tensor.bytes_to,
                    "weighted": tensor.is_weighted,
                })
            });
            return output::print_json(&json!({
                "type": self.mix.name(),
                "tensors": tensors.collect::<Vec<_>>(),
                "bytes_from": before,
                "bytes_to": after,
                "bits_per_weight": bits(after),
                "seconds": (!making.dry_run).then(|| started.elapsed().as_secs_f64()),
                "notes": self.notes.kept(),
            }));
        }
        let mut text = String::new();
        if making.dry_run {
            let mut table = Table::new(&["tensor", "shape", "from", "to", "size"]);
            for tensor in &plan.tensors {
                let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
                table.row(vec![
                    tensor.name.clone(),
                    shape.join("×"),
                    tensor.from.to_string(),
                    tensor.to.to_string(),
                    bytes(tensor.bytes_to),
                ]);
            }
            text = table.to_string();
        }
        let what = if making.dry_run { "would be" } else { "is" };
        text.push_str(&format!(
            "{} {what} {} of weights, {:.2} bits each, from {} and {:.2}\n",
            shown_path(&making.output),
            bytes(after),
            bits(after),
            bytes(before),
            bits(before)
        ));
        output::print(&text)
    }
}
