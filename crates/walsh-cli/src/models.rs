//! From arguments to models: `walsh pull`, `walsh list`, and what every other
//! command opens.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use walsh::formats::kv::Budget;
use walsh::{Device, KvSpec};
use walsh_runtime::chat::Template;
use walsh_runtime::sampling::drawn_seed;
use walsh_runtime::store::{Catalogue, State, Store, StoreOptions};
use walsh_runtime::{
    CalibrationNotice, CalibrationOptions, Conversation, Error, Fit, Model, RestoreOptions,
    Sampling, Session, SessionOptions, Watch, check_readable, check_writable,
};

use crate::args::{
    AnswerArgs, Cache, DeviceArgs, List, LoraArgs, ModelArgs, Pull, Remove, SamplingArgs, Seed,
    SessionArgs,
};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Notes, Table};
use crate::progress::Bar;
use crate::{convert, input, interrupt};

/// The store in the folder that the arguments name.
pub(crate) fn store(cache: &Cache) -> Outcome<Store> {
    let options = StoreOptions {
        folder: cache.cache_dir.clone(),
        ..StoreOptions::default()
    };
    Store::open(options).map_err(|error| Failure::run(format_args!("{error} with --cache-dir DIR")))
}

/// The file of a model, fetched first if need be. `cancel` ends that.
pub(crate) fn resolve(
    model: &str,
    cache: &Cache,
    notes: &Notes,
    cancel: &Arc<AtomicBool>,
) -> Outcome<PathBuf> {
    let store = match store(cache) {
        // A file needs no store, nor the home folder that is to hold one.
        Err(_) if Path::new(model).is_file() => return Ok(PathBuf::from(model)),
        store => store?,
    };
    if convert::is_folder(Path::new(model)) {
        return convert::resolve(Path::new(model), &store, notes, cancel);
    }
    let mut bar = Bar::new(model, notes);
    let watch = Watch::cancelled_by(cancel);
    let resolved = store.resolve(model, &watch, &mut |progress| bar.pull(progress));
    drop(bar);
    or_kept(resolved, model, &store, notes)
}

/// Says of a pull that was ended what is kept of it.
fn or_kept<T>(
    pulled: walsh_runtime::Result<T>,
    name: &str,
    store: &Store,
    notes: &Notes,
) -> Outcome<T> {
    if matches!(pulled, Err(Error::Cancelled)) {
        let listed = store.list()?;
        // A repository alone stands for whichever of its models is asked for by default.
        let is_meant = |listed: &str| {
            let rest = listed.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        for model in listed.iter().filter(|model| is_meant(&model.name)) {
            if let State::Partial { done } = model.state {
                notes.note(format_args!(
                    "{}: {} are kept, and the next pull goes on from there",
                    output::shown(&model.name),
                    output::bytes(done)
                ));
            }
        }
    }
    Ok(pulled?)
}

/// `walsh pull`.
pub(crate) fn pull(args: &Pull) -> Outcome {
    let store = store(&args.cache)?;
    let watch = Watch::cancelled_by(&interrupt::on_interrupt()?);
    let notes = Notes::for_figures(false);
    for name in &args.names {
        let mut bar = Bar::new(name, &notes);
        let pulled = store.pull(name, &watch, &mut |progress| bar.pull(progress));
        let path = match pulled {
            Ok(path) if args.verify => {
                store.verify(name, &watch, &mut |progress| bar.pull(progress))?;
                path
            }
            pulled => {
                drop(bar);
                or_kept(pulled, name, &store, &notes)?
            }
        };
        output::print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

/// `walsh list`.
pub(crate) fn list(args: &List) -> Outcome {
    let store = store(&args.cache)?;
    let models = store.list()?;
    let word = |state| match state {
        State::Missing => "not fetched",
        State::Partial { .. } => "partial",
        State::Ready => "ready",
        State::Damaged => "damaged",
    };
    if args.json {
        let models: Vec<_> = models
            .iter()
            .map(|model| {
                let done = match model.state {
                    State::Partial { done } => Some(done),
                    _ => None,
                };
                json!({
                    "name": model.name,
                    "about": model.entry.map(|entry| &entry.about),
                    "licence": model.entry.map(|entry| &entry.licence),
                    "bytes": model.bytes,
                    "bytes_here": done,
                    "default": model.name == Catalogue::DEFAULT,
                    "state": word(model.state),
                    "path": model.path.display().to_string(),
                })
            })
            .collect();
        return output::print_json(&json!({
            "folder": store.folder().display().to_string(),
            "models": models,
        }));
    }
    let mut table = Table::new(&["name", "size", "state", "licence"]);
    for model in &models {
        let state = match model.state {
            State::Partial { done } => format!("{} here", output::bytes(done)),
            state => word(state).to_owned(),
        };
        table.row(vec![
            output::shown(&model.name).into_owned(),
            output::bytes(model.bytes),
            state,
            model
                .entry
                .map_or_else(String::new, |entry| entry.licence.clone()),
        ]);
    }
    let about: String = models
        .iter()
        .filter_map(|model| model.entry)
        .map(|entry| format!("{}: {}\n", entry.name, entry.about))
        .collect();
    output::print(&format!(
        "{table}\n{about}Folder: {}\n",
        output::shown_path(store.folder())
    ))
}

/// `walsh rm`.
pub(crate) fn remove(args: &Remove) -> Outcome {
    let store = store(&args.cache)?;
    for name in &args.names {
        let removed = store.remove(name)?;
        output::print(&format!(
            "removed {}, {}\n",
            output::shown_path(&removed.path),
            output::bytes(removed.bytes)
        ))?;
    }
    Ok(())
}

/// Opens the model that the arguments name, and fetches it first if need be; `cancel` ends that.
pub(crate) fn open(args: &ModelArgs, notes: &Notes, cancel: &Arc<AtomicBool>) -> Outcome<Model> {
    // Before a model is fetched for a device that is not there.
    let device = device(&args.on, &args.cache)?;
    let path = resolve(&args.model, &args.cache, notes, cancel)?;
    let calibrations = calibrations(kept_folder(&args.cache), notes);
    let model = Model::open_with(&device, path, calibrations)?;
    match cancel.load(Ordering::Relaxed) {
        true => Err(Failure::Interrupted),
        false => Ok(model),
    }
}

/// The same with adapters.
pub(crate) fn open_adapted(
    (args, adapters): (&ModelArgs, &LoraArgs),
    notes: &Notes,
    cancel: &Arc<AtomicBool>,
) -> Outcome<Model> {
    Ok(open(args, notes, cancel)?.with_adapters(&adapters.lora)?)
}

/// Where calibrations are kept, if they are, and what is said of them.
pub(crate) fn calibrations(folder: Option<PathBuf>, notes: &Notes) -> CalibrationOptions {
    let (notes, is_kept) = (notes.clone(), folder.is_some());
    CalibrationOptions {
        folder,
        notice: Some(Arc::new(move |notice: CalibrationNotice<'_>| {
            calibration_notice(&notes, notice, is_kept);
        })),
        ..CalibrationOptions::default()
    }
}

/// Where what is found about models is kept. Without a home folder nothing is, which is said when there is something to
/// keep.
pub(crate) fn kept_folder(cache: &Cache) -> Option<PathBuf> {
    Some(store(cache).ok()?.calibration_folder())
}

/// Says of budgets that could be fitted to a model, and are not.
pub(crate) fn say_unfitted<'a>(
    model: &Model,
    kv: impl IntoIterator<Item = &'a KvSpec>,
    notes: &Notes,
) -> Outcome {
    let budgets = kv.into_iter().filter_map(KvSpec::budget);
    let names: Vec<&str> = budgets
        .filter(|budget| Fit::has(*budget))
        .map(Budget::name)
        .collect();
    if !names.is_empty() && model.fit()?.is_none() {
        let names = names.join(", ");
        match Fit::why_not(model) {
            Some(why) => notes.note(format_args!("{names}: all layers alike; {why}")),
            None => notes.note(format_args!(
                "{names}: all layers alike, since no fit of this model is kept; 'walsh fit' makes one"
            )),
        }
    }
    Ok(())
}

/// The device that the arguments ask for.
pub(crate) fn device(args: &DeviceArgs, cache: &Cache) -> Outcome<Device> {
    let mut device = args.device.clone();
    // Without a home folder, kernels are compiled each time.
    if let Ok(store) = store(cache) {
        device = device.with_kernel_cache(&store.kernel_folder());
    }
    if let Some(threads) = args.threads {
        device = device.with_threads(threads.get())?;
    }
    Ok(device.open()?)
}

/// Says that a model's keys are looked at, which takes a moment the first time.
fn calibration_notice(notes: &Notes, notice: CalibrationNotice<'_>, is_kept: bool) {
    let once = match is_kept {
        true => "once for this model",
        false => {
            "each time, since there is no home folder to keep it in: --cache-dir DIR gives one"
        }
    };
    match notice {
        CalibrationNotice::Measuring { done: 1, layers } => notes.note(format_args!(
            "looking at the keys of {layers} layers on a built-in text, {once}"
        )),
        CalibrationNotice::Measuring { .. } => {}
        CalibrationNotice::NotKept(error) => notes.note(format_args!(
            "what was found about the model's keys cannot be kept for the next time: {}",
            output::one_line(&error.to_string())
        )),
    }
}

/// Finds out what can be known about a session's files before a model is fetched.
pub(crate) fn check_files(args: &SessionArgs) -> Outcome {
    if let Some(path) = &args.load {
        check_readable(path)?;
    }
    if let Some(path) = &args.save {
        check_writable(path)?;
    }
    Ok(())
}

/// What a session's cache can grow to, and what is free.
pub(crate) fn growth(session: &Session) -> String {
    let free = session.model().device().available_bytes();
    let free = free.map_or(String::new(), |free| {
        format!(", {} of memory free", output::bytes(free))
    });
    format!(
        "KV cache {}: up to {} for {} tokens{free}",
        session.options().kv,
        output::bytes(session.kv_bytes()),
        session.context(),
    )
}

/// The session that the arguments ask for: a new one, or the one of a file.
pub(crate) fn session(model: &Model, args: &SessionArgs) -> Outcome<Session> {
    Ok(match &args.load {
        Some(path) => model.restore(path, restore_options(args))?,
        None => model.session(session_options(args))?,
    })
}

/// The conversation that the arguments ask for: a new one, or the one of a file.
pub(crate) fn conversation(
    model: &Model,
    args: &SessionArgs,
    answer: &AnswerArgs,
) -> Outcome<Conversation> {
    let template = template(model, answer)?;
    Ok(match &args.load {
        Some(path) => {
            Conversation::restore_with_template(model, template, path, restore_options(args))?
        }
        None => {
            let (options, system) = (session_options(args), answer.system.as_deref());
            Conversation::with_template(model, template, options, system)?
        }
    })
}

/// The chat template that the arguments ask for.
pub(crate) fn template(model: &Model, answer: &AnswerArgs) -> Outcome<Template> {
    Ok(match &answer.template {
        Some(path) => Template::from_source(&input::file(path)?, model.tokenizer())?,
        None => model.chat_template()?,
    })
}

fn session_options(args: &SessionArgs) -> SessionOptions {
    let defaults = SessionOptions::default();
    SessionOptions {
        context: args.context.map_or(0, usize::from),
        kv: args.kv.clone().unwrap_or(defaults.kv),
        ..defaults
    }
}

fn restore_options(args: &SessionArgs) -> RestoreOptions {
    RestoreOptions {
        context: args.context.map_or(0, usize::from),
        kv: args.kv.clone(),
        ..RestoreOptions::default()
    }
}

/// The sampling that the arguments ask for, where they say nothing the model's file, and where that says nothing ours.
pub(crate) fn sampling(args: &SamplingArgs, model: &Model, notes: &Notes) -> Sampling {
    let recommended = model.recommended_sampling();
    if !recommended.unsupported.is_empty() {
        notes.note(format_args!(
            "the model's file recommends {}, which is not supported and left out",
            output::one_line(&recommended.unsupported.join(", "))
        ));
    }
    let otherwise = recommended.or_usual();
    Sampling {
        temperature: args.temperature.unwrap_or(otherwise.temperature),
        top_k: args.top_k.unwrap_or(otherwise.top_k),
        top_p: args.top_p.unwrap_or(otherwise.top_p),
        min_p: args.min_p.unwrap_or(otherwise.min_p),
        repetition_penalty: args
            .repetition_penalty
            .unwrap_or(otherwise.repetition_penalty),
        repetition_window: otherwise.repetition_window,
    }
}

/// What a session's random numbers are to start from: what the arguments say, or
/// drawn; none where it goes on with those of a file.
pub(crate) fn seed(sampling: &SamplingArgs, session: &SessionArgs) -> Option<u64> {
    match sampling.seed {
        Some(Seed::Given(seed)) => Some(seed),
        None if session.load.is_some() => None,
        Some(Seed::Drawn) | None => Some(drawn_seed()),
    }
}
