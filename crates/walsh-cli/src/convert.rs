//! `walsh convert`, and folders in the place of models.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
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
    let notes = Notes::for_figures(args.making.json);
    let cancel = interrupt::on_interrupt()?;
    let folder = Folder::open(&args.folder)?;
    let source = folder.source()?;
    let maker = Maker {
        making: &args.making,
        mix: args.mix.unwrap_or_else(|| kept(&source)),
        allow_requantize: false,
        notes,
        cancel,
    };
    maker.run(&source)
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
    let kept_in = store.folder().join("converted");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{name}-{:016x}.gguf", state(path)?);
    let target = kept_in.join(name);
    if target.is_file() {
        return Ok(target);
    }
    let folder = Folder::open(path)?;
    let source = folder.source()?;
    let options = PlanOptions {
        mix: kept(&source),
        overrides: &[],
        imatrix: None,
        allow_requantize: false,
    };
    let plan = Plan::new(&source, &options)?;
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
    };
    job.write(&target)?;
    notes.note(format_args!(
        "{} is converted to {}, which is kept",
        shown_path(path),
        shown_path(&target)
    ));
    Ok(target)
}

/// A number that changes with the folder's place and with the names, sizes and times of its files.
fn state(path: &Path) -> Outcome<u64> {
    let failed = |error| Failure::run(format_args!("cannot read {}: {error}", shown_path(path)));
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Behind links, of which caches of hubs are full.
        let metadata = fs::metadata(entry.path()).map_err(failed)?;
        let changed = metadata.modified().map_err(failed)?;
        files.push((entry.file_name(), metadata.len(), changed));
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    fs::canonicalize(path).map_err(failed)?.hash(&mut hasher);
    files.hash(&mut hasher);
    Ok(hasher.finish())
}
