//! `walsh quantize`.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{Seek, SeekFrom};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use serde_json::json;
use walsh_convert::{
    Adapter, Error, Files, Folder, Imatrix, Kept, Mix, Plan, PlanOptions, Source, WriteOptions,
    kept,
};
use walsh_runtime::{Lora, Replacement, check_writable};

use crate::args::{Making, Quantize};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Notes, Table, bytes, shown_path};
use crate::progress::Bar;
use crate::{convert, interrupt, models};

pub(crate) fn run(args: &Quantize) -> Outcome {
    let maker = Maker {
        making: &args.making,
        mix: Some(args.mix),
        allow_requantize: args.allow_requantize,
        adapters: &[],
        notes: Notes::for_figures(args.making.json),
        cancel: interrupt::on_interrupt()?,
    };
    // Before a model is fetched for it.
    maker.check_output()?;
    let given = Path::new(&args.input);
    if convert::is_folder(given) {
        return maker.of_folder(given);
    }
    let path = models::resolve(&args.input, &args.cache, &maker.notes, &maker.cancel)?;
    maker.of_file(&path)
}

/// What makes a file of a model, whatever it comes from.
pub(crate) struct Maker<'a> {
    pub(crate) making: &'a Making,
    /// Where none is given, a folder's weights get the type that most of them have, and a file's stay as they are.
    pub(crate) mix: Option<Mix>,
    pub(crate) allow_requantize: bool,
    /// What is added to the weights.
    pub(crate) adapters: &'a [Lora],
    pub(crate) notes: Notes,
    pub(crate) cancel: Arc<AtomicBool>,
}

impl Maker<'_> {
    /// Finds out whether the file can be written, if it is to be.
    pub(crate) fn check_output(&self) -> Outcome {
        match self.making.dry_run {
            true => Ok(()),
            false => Ok(check_writable(&self.making.output)?),
        }
    }

    fn check_inputs(&self, inputs: &[PathBuf]) -> Outcome {
        let output = &self.making.output;
        check_apart(output, self.making.imatrix.as_slice())?;
        let adapters = self.adapters.iter().map(|adapter| adapter.path.clone());
        check_apart(output, &adapters.collect::<Vec<_>>())?;
        check_apart(output, inputs)
    }

    /// Makes the file of a folder.
    pub(crate) fn of_folder(&self, path: &Path) -> Outcome {
        let folder = Folder::open(path)?;
        self.check_inputs(&Folder::files(path)?)?;
        let source = folder.source(false)?;
        let mix = self.mix.or_else(|| kept(&source));
        self.make(source, mix, &Folder::files(path)?)
    }

    /// Makes the file of a GGUF file.
    pub(crate) fn of_file(&self, path: &Path) -> Outcome {
        let files = Files::open(path)?;
        self.check_inputs(files.paths())?;
        self.make(files.source()?, self.mix, files.paths())
    }

    /// Plans the file, writes it unless that is not wanted, and reports.
    fn make(&self, mut source: Source<'_>, mix: Option<Mix>, inputs: &[PathBuf]) -> Outcome {
        let mut adapters = Vec::with_capacity(self.adapters.len());
        for Lora { path, scale } in self.adapters {
            adapters.push((Adapter::open(path, &source.base())?, *scale));
        }
        source.merge(adapters)?;
        let imatrix = self.making.imatrix.as_deref().map(Imatrix::open);
        let imatrix = imatrix.transpose()?;
        let options = PlanOptions {
            mix,
            overrides: &self.making.tensors,
            imatrix: imatrix.as_ref(),
            // Nothing is lost by looking.
            allow_requantize: self.allow_requantize || self.making.dry_run,
        };
        let plan = Plan::new(&source, &options)?;
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
                key: match self.adapters {
                    [] => key(inputs.iter().chain(&self.making.imatrix)),
                    // They may be folders.
                    _ => None,
                },
            };
            job.write(&self.making.output)?;
        }
        self.report(&plan, mix, started)
    }

    fn report(&self, plan: &Plan<'_>, mix: Option<Mix>, started: Instant) -> Outcome {
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
                "type": mix.map(Mix::name),
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

/// Refuses a file to write that is one of those that are read.
pub(crate) fn check_apart(output: &Path, inputs: &[PathBuf]) -> Outcome {
    // What is not there yet is none of them.
    let Ok(place) = fs::canonicalize(output) else {
        return Ok(());
    };
    let is_output = |input: &PathBuf| fs::canonicalize(input).is_ok_and(|input| input == place);
    match inputs.iter().any(is_output) {
        true => Err(Failure::Usage(format!(
            "{} is one of the files that are read: give another file to write",
            shown_path(output)
        ))),
        false => Ok(()),
    }
}

/// How many threads, where so many were asked for.
pub(crate) fn threads(asked: Option<NonZeroUsize>) -> usize {
    let threads = asked.or_else(|| thread::available_parallelism().ok());
    threads.map_or(1, usize::from)
}

/// What stands for the state of files, by which what is left of one that was made of them is known again; `None` where it
/// cannot be told.
fn key<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Option<u64> {
    let mut state = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), Folder::CONVERTER).hash(&mut state);
    for file in files {
        let place = fs::canonicalize(file).ok()?;
        let metadata = fs::metadata(file).ok()?;
        (place, metadata.len(), metadata.modified().ok()?).hash(&mut state);
    }
    Some(state.finish())
}

/// A file to be made.
pub(crate) struct Job<'a> {
    pub(crate) plan: &'a Plan<'a>,
    pub(crate) threads: usize,
    pub(crate) cancel: &'a Arc<AtomicBool>,
    pub(crate) notes: &'a Notes,
    /// What the file is made of, where a run that was killed may be taken up.
    pub(crate) key: Option<u64>,
}

impl Job<'_> {
    /// Writes the file, or what it lacks of one that a run has left, and puts it into its place when it is whole.
    pub(crate) fn write(&self, path: &Path) -> Outcome {
        let failed =
            |error| Failure::run(format_args!("cannot write {}: {error}", shown_path(path)));
        let mut file = match self.key {
            Some(key) => Replacement::take_up(path, key)?,
            None => Replacement::create(path)?,
        };
        let left = file.file();
        let length = left.metadata().map_err(failed)?.len();
        let kept = match length {
            0 => Kept::default(),
            length => self.plan.kept(left, length)?,
        };
        left.set_len(kept.bytes).map_err(failed)?;
        left.seek(SeekFrom::Start(kept.bytes)).map_err(failed)?;
        if kept.tensors > 0 {
            self.notes.note(format_args!(
                "a run that was killed has left {} of {} tensors, which are kept",
                kept.tensors,
                self.plan.tensors.len()
            ));
        }
        let mut bar = Bar::new(&path.display().to_string(), self.notes);
        let mut options = WriteOptions {
            threads: self.threads,
            cancel: self.cancel,
            progress: &mut |progress| bar.show("writing", progress.done, progress.total),
        };
        let written = self.plan.write_from(kept, file.file(), &mut options);
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
