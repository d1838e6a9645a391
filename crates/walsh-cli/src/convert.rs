//! `walsh convert`, and folders in the place of models.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use walsh_convert::{Folder, Plan, PlanOptions, kept};
use walsh_runtime::store::Store;

use crate::args::Convert;
use crate::failure::{Failure, Outcome};
use crate::interrupt;
use crate::output::{Notes, shown_path};
use crate::quantize::{Job, Maker, threads};

pub(crate) fn run(args: &Convert) -> Outcome {
    let maker = Maker {
        making: &args.making,
        mix: args.mix,
        // Whoever asks for a type, or an adapter, is told what it costs.
        allow_requantize: !args.lora.is_empty() || args.mix.is_some(),
        adapters: &args.lora,
        notes: Notes::for_figures(args.making.json),
        cancel: interrupt::on_interrupt()?,
    };
    maker.check_output()?;
    match args.input.is_file() {
        true if args.lora.is_empty() => Err(Failure::Usage(format!(
            "{} is a file: a folder is converted, or with --lora a GGUF file; 'walsh quantize' makes one of other types",
            shown_path(&args.input)
        ))),
        true => maker.of_file(&args.input),
        false => maker.of_folder(&args.input),
    }
}

/// Whether a path leads to a folder of the kind that is converted.
pub(crate) fn is_folder(path: &Path) -> bool {
    path.join("config.json").is_file()
}

/// The file that a folder is converted to, which is kept beside the store's models and made anew when the folder has
/// changed.
pub(crate) fn resolve(
    path: &Path,
    store: &Store,
    notes: &Notes,
    cancel: &Arc<AtomicBool>,
) -> Outcome<PathBuf> {
    let kept_in = store.converted_folder();
    let Name { of_path, whole } = Name::of(path)?;
    let target = kept_in.join(&whole);
    if target.is_file() {
        return Ok(target);
    }
    let folder = Folder::open(path)?;
    let source = folder.source(true)?;
    let options = PlanOptions {
        mix: kept(&source),
        overrides: &[],
        imatrix: None,
        allow_requantize: false,
    };
    let plan = Plan::new(&source, &options)?;
    for note in &plan.notes {
        notes.note(format_args!("{note}"));
    }
    let failed = |error| {
        let folder = shown_path(&kept_in);
        Failure::run(format_args!("cannot make the folder {folder}: {error}"))
    };
    fs::create_dir_all(&kept_in).map_err(failed)?;
    let job = Job {
        plan: &plan,
        threads: threads(None),
        cancel,
        notes,
        key: None,
    };
    job.write(&target)?;
    if let Err(error) = remove_older(&kept_in, &of_path, &whole) {
        notes.note(format_args!(
            "what the folder was converted to earlier cannot be removed from {}: {error}",
            shown_path(&kept_in)
        ));
    }
    notes.note(format_args!(
        "{} is converted to {}, which is kept",
        shown_path(path),
        shown_path(&target)
    ));
    Ok(target)
}

/// The name of the file that a folder is converted to.
struct Name {
    /// What it starts with whatever the folder's state is.
    of_path: String,
    whole: String,
}

impl Name {
    /// It changes with the folder's place, with what converts, and with the sizes and times of the files that are read.
    fn of(path: &Path) -> Outcome<Name> {
        /// Names of files have 255 bytes at most.
        const MOST: usize = 200;
        let failed = |path: &Path, error| {
            Failure::run(format_args!("cannot read {}: {error}", shown_path(path)))
        };
        let place = fs::canonicalize(path).map_err(|error| failed(path, error))?;
        let mut state = DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), Folder::CONVERTER).hash(&mut state);
        for file in Folder::files(path)? {
            // Behind links, of which caches of hubs are full.
            let metadata = fs::metadata(&file).map_err(|error| failed(&file, error))?;
            let changed = metadata.modified().map_err(|error| failed(&file, error))?;
            (file.file_name(), metadata.len(), changed).hash(&mut state);
        }
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let name = &name[..name.floor_char_boundary(MOST)];
        let mut of_place = DefaultHasher::new();
        place.hash(&mut of_place);
        let of_path = format!("{name}-{:016x}-", of_place.finish());
        Ok(Name {
            whole: format!("{of_path}{:016x}.gguf", state.finish()),
            of_path,
        })
    }
}

/// Removes what a folder was converted to in states that it is no longer in.
fn remove_older(kept_in: &Path, of_path: &str, current: &str) -> io::Result<()> {
    for entry in fs::read_dir(kept_in)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_of_path = name.strip_prefix(of_path).is_some_and(|state| {
            let state = state.strip_suffix(".gguf").unwrap_or_default();
            u64::from_str_radix(state, 16).is_ok()
        });
        if is_of_path && name != current {
            match fs::remove_file(entry.path()) {
                // Another process has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}
