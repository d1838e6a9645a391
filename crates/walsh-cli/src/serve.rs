//! `walsh serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use walsh::Device;
use walsh_runtime::{Lora, Model};
use walsh_serve::{Limits, Notice, Offer, ServeOptions};

use crate::args::{EngineArgs, Log, Serve};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Notes};
use crate::{batch, interrupt, models};

pub(crate) fn run(args: &Serve) -> Outcome {
    let keys = keys(args)?;
    if !args.host.is_loopback() && keys.is_empty() && !args.no_auth {
        return Err(Failure::Usage(format!(
            "anybody who reaches {} could use the server: give --api-key-file FILE, or --no-auth if that is meant",
            args.host
        )));
    }
    check_shares(args)?;
    if !args.lora.is_empty() && args.model.len() > 1 {
        return Err(Failure::Usage(
            "--lora is of one model, and there are several: start a server for each".to_owned(),
        ));
    }
    let notes = Notes::for_figures(false);
    let cancel = interrupt::on_interrupt()?;
    // Before a model is fetched for a device that is not there.
    let device = models::device(&args.on, &args.cache)?;
    let mut offers = Vec::new();
    for model in &args.model {
        let (name, reference) = named(model);
        let path = models::resolve(reference, &args.cache, &notes, &cancel)?;
        offers.push(offer(args, (name, path), &device, &notes));
    }
    if cancel.load(Ordering::Relaxed) {
        return Err(Failure::Interrupted);
    }
    start_log(args.log);
    let options = ServeOptions {
        address: SocketAddr::new(args.host, args.port),
        offers,
        engine: batch::options(&args.engine),
        keys,
        origins: args.cors.clone(),
        limits: Limits {
            body: usize::try_from(args.max_body).unwrap_or(usize::MAX),
            queue: args.queue,
            connections: args.max_connections.get(),
            request_time: args.request_timeout,
            read_time: args.read_timeout,
            write_time: args.write_timeout,
            ..Limits::default()
        },
        grace: args.grace,
        close_after: args.close_after,
        slot_folder: args.slot_folder.clone(),
        log_texts: args.log_texts,
    };
    let served = walsh_serve::serve(options, &mut |notice| match notice {
        Notice::Listening(address) => notes.note(format_args!("listening on http://{address}")),
        Notice::Ending => notes.note(format_args!("ending when requests that run have")),
        Notice::BrokenOff => notes.note(format_args!("what still runs is broken off")),
    });
    served.map_err(Failure::run)
}

/// Whether each part of the memory is that of a model, once.
fn check_shares(args: &Serve) -> Outcome {
    let names: Vec<String> = args.model.iter().map(|model| named(model).0).collect();
    for (place, (name, _)) in args.kv_share.iter().enumerate() {
        if !names.contains(name) {
            return Err(Failure::Usage(format!(
                "--kv-share: there is no model {name:?}, but {}",
                names.join(", ")
            )));
        }
        if args.kv_share[..place]
            .iter()
            .any(|(other, _)| other == name)
        {
            return Err(Failure::Usage(format!(
                "--kv-share: {name:?} has two parts: give it one"
            )));
        }
    }
    Ok(())
}

/// What requests call a model, and what it is: a name before `=`, or else the reference or its file's name.
fn named(model: &str) -> (String, &str) {
    let is_name = |name: &str| !name.is_empty() && !name.contains(['/', '.', ':']);
    match model.split_once('=') {
        Some((name, reference)) if is_name(name) && !Path::new(model).exists() => {
            (name.to_owned(), reference)
        }
        _ if Path::new(model).is_file() => {
            let stem = Path::new(model).file_stem().unwrap_or_default();
            (stem.to_string_lossy().into_owned(), model)
        }
        _ => (model.to_owned(), model),
    }
}

fn offer(args: &Serve, model: (String, PathBuf), device: &Device, notes: &Notes) -> Offer {
    let (name, path) = model;
    let (device, notes) = (device.clone(), notes.clone());
    let folder = models::kept_folder(&args.cache);
    let EngineArgs { kv, .. } = &args.engine;
    let (kv, adapters) = (kv.clone(), args.lora.clone());
    let is_first = AtomicBool::new(true);
    let open = move || -> walsh_runtime::Result<Model> {
        let model = Model::open_with(&device, &path, models::calibrations(folder.clone(), &notes))?;
        let model = model.with_adapters(&adapters)?;
        if is_first.swap(false, Ordering::Relaxed) {
            // What cannot be said is found out again, and told, when caches are made.
            let _ = models::say_unfitted(&model, [&kv], &notes);
        }
        Ok(model)
    };
    let own = args.kv_share.iter().find(|(of, _)| *of == name);
    Offer {
        kv_memory: own.map(|(_, memory)| *memory),
        name,
        adapters: args.lora.iter().map(Lora::name).collect(),
        open: Box::new(open),
    }
}

/// The keys that requests may have.
fn keys(args: &Serve) -> Outcome<Vec<String>> {
    let mut keys = args.api_key.clone();
    if let Some(path) = &args.api_key_file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::run(format_args!("{}: {error}", output::shown_path(path))))?;
        let lines = text.lines().map(str::trim);
        let before = keys.len();
        keys.extend(
            lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned),
        );
        if keys.len() == before {
            return Err(Failure::run(format_args!(
                "{}: it has no key: give one in a line",
                output::shown_path(path)
            )));
        }
    }
    let wrong = |key: &&String| key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic());
    if keys.iter().any(|key| wrong(&key)) {
        return Err(Failure::Usage(
            "a key has to be of letters, digits and signs of ASCII, without spaces, as it is sent in a header".to_owned(),
        ));
    }
    Ok(keys)
}

fn start_log(log: Log) {
    walsh_serve::log(match log {
        Log::Text => walsh_serve::LogKind::Text,
        Log::Json => walsh_serve::LogKind::Json,
        Log::Off => walsh_serve::LogKind::Off,
    });
}
