//! `walsh batch`.

use std::io;
use std::time::Instant;

use walsh_runtime::{Answers, BatchOptions, Engine, EngineOptions, Request, batch};

use crate::args::{Batch, EngineArgs, Seed};
use crate::failure::{Failure, Outcome};
use crate::output::Notes;
use crate::progress::Steps;
use crate::{interrupt, models};

pub(crate) fn run(args: &Batch) -> Outcome {
    // Before a model is opened for nothing.
    let mut answers = match &args.output {
        Some(path) => Answers::in_file(path)?,
        None => Answers::to(Box::new(io::stdout())),
    };
    let total = walsh_runtime::count_lines(&args.file)?;
    let notes = Notes::for_figures(false);
    let cancel = interrupt::on_interrupt()?;
    let model = models::open_adapted((&args.model, &args.lora), &notes, &cancel)?;
    models::say_unfitted(&model, [&args.engine.kv], &notes)?;
    let defaults = Request {
        max_tokens: args.max_tokens.0,
        sampling: models::sampling(&args.sampling, &model, &notes),
        seed: match args.sampling.seed {
            Some(Seed::Given(seed)) => seed,
            Some(Seed::Drawn) | None => walsh_runtime::sampling::drawn_seed(),
        },
        look_up: args.engine.look_up > 0,
        ..Request::new(Vec::new())
    };
    if defaults.sampling.temperature > 0.0 {
        notes.note(format_args!("seed {} where a line has none", defaults.seed));
    }
    let engine = Engine::new(model, options(&args.engine))?;
    let started = Instant::now();
    let steps = Steps::new("prompts", &notes);
    let options = BatchOptions { defaults, cancel };
    let report = batch(&engine, &args.file, &mut answers, &options, &mut |done| {
        steps.show(done, total);
    })?;
    drop(steps);
    let seconds = started.elapsed().as_secs_f64();
    let status = engine.status();
    notes.note(format_args!(
        "{} of {total} prompts answered{}, {} with an error: {} tokens generated in {seconds:.1} s ({:.1} a second) behind {} of prompts, {} of which were read before; {} steps, {} texts put off",
        report.resumed + report.answered,
        match report.resumed {
            0 => String::new(),
            before => format!(" ({before} before)"),
        },
        report.failed,
        report.generated_tokens,
        report.generated_tokens as f64 / seconds.max(1e-9),
        report.prompt_tokens,
        report.reused_tokens,
        status.steps,
        status.put_off,
    ));
    if status.looked_up > 0 {
        notes.note(format_args!(
            "{} tokens looked up, {} of them found",
            status.looked_up, status.found
        ));
    }
    if let Some(trouble) = engine.folder_trouble() {
        notes.note(format_args!("beginnings of prompts: {trouble}"));
    }
    match report {
        report if report.cancelled => Err(Failure::Interrupted),
        report if report.failed > 0 => Err(Failure::Run(format!(
            "{} of the answers are errors: they say what is wrong with their lines",
            report.failed
        ))),
        _ => Ok(()),
    }
}

/// What an engine is started with.
pub(crate) fn options(args: &EngineArgs) -> EngineOptions {
    EngineOptions {
        sequences: args.sequences.get(),
        context: args.context.map_or(0, usize::from),
        kv: args.kv.clone(),
        kv_memory: args.kv_memory.unwrap_or(0),
        look_up: args.look_up,
        deterministic: args.deterministic,
        prefix_folder: args.prefix_folder.clone(),
        prefix_folder_bytes: args.prefix_folder_size,
        ..EngineOptions::default()
    }
}
