//! `walsh generate`, and `walsh run`.

use std::path::Path;

use walsh_runtime::tokenizer::Special;
use walsh_runtime::{Constraint, Finish, GenerateOptions};

use crate::args::{FormArgs, Generate, InputArgs, Run};
use crate::failure::{Failure, Outcome};
use crate::output::Notes;
use crate::stream::{self, Ended, Page, print_pieces};
use crate::{chat, input, interrupt, models, progress};

/// A conversation with a model, or with a question the answer to it.
pub(crate) fn run_model(args: Run) -> Outcome {
    let mut chat = args.chat;
    if let Some(target) = args.target {
        chat.model.model = target;
    }
    if args.question.is_empty() {
        return chat::run(&chat);
    }
    run(&Generate {
        text: Some(args.question.join(" ")),
        input: InputArgs::default(),
        max_tokens: chat.max_tokens,
        chat: true,
        json: false,
        form: FormArgs::default(),
        answer: chat.answer,
        sampling: chat.sampling,
        model: chat.model,
        lora: chat.lora,
        session: chat.session,
    })
}

pub(crate) fn run(args: &Generate) -> Outcome {
    let prompt = prompt(args)?;
    let constraint = constraint(&args.form)?;
    models::check_files(&args.session)?;
    let notes = Notes::for_figures(args.json);
    let cancel = interrupt::on_interrupt()?;
    let model = models::open_adapted((&args.model, &args.lora), &notes, &cancel)?;
    models::say_unfitted(&model, &args.session.kv, &notes)?;
    let options = GenerateOptions {
        max_tokens: args.max_tokens.0,
        sampling: models::sampling(&args.sampling, &model, &notes),
        special: match args.answer.special {
            true => Special::Parse,
            false => Special::Text,
        },
        constraint,
        stop: args.answer.stop.clone(),
        watch: progress::reading(&cancel, &notes),
    };
    let sampling = options.sampling;
    let save = args.session.save.as_deref();
    let (ended, run) = if args.chat {
        let mut conversation = models::conversation(&model, &args.session, &args.answer)?;
        if let Some(seed) = models::seed(&args.sampling, &args.session) {
            conversation.set_seed(seed);
        }
        let growth = models::growth(conversation.session());
        let mut reply = conversation.say(&prompt, options)?;
        say_start(&growth, &notes);
        let printed = print_pieces(&mut reply, Page::new(!args.answer.no_word_wrap));
        let ended = Ended {
            figures: *reply.figures(),
            finish: reply.finish(),
        };
        drop(reply);
        keep(printed, save, |path| conversation.save(path))?;
        (ended, stream::Run::new(conversation.session(), &sampling))
    } else {
        let mut session = models::session(&model, &args.session)?;
        if let Some(seed) = models::seed(&args.sampling, &args.session) {
            session.set_seed(seed);
        }
        let growth = models::growth(&session);
        let mut text = session.generate(&prompt, options)?;
        say_start(&growth, &notes);
        let printed = print_pieces(&mut text, Page::new(!args.answer.no_word_wrap));
        let ended = Ended {
            figures: *text.figures(),
            finish: text.finish(),
        };
        drop(text);
        keep(printed, save, |path| session.save(path))?;
        (ended, stream::Run::new(&session, &sampling))
    };
    ended.report(&run, &notes);
    match ended.finish {
        Some(Finish::Cancelled) => Err(Failure::Interrupted),
        _ => Ok(()),
    }
}

/// The form that the text is to have.
fn constraint(args: &FormArgs) -> Outcome<Option<Constraint>> {
    Ok(match args {
        FormArgs {
            json_schema: Some(given),
            ..
        } => Some(Constraint::JsonSchema(match given.trim_start() {
            schema if schema.starts_with('{') => schema.to_owned(),
            _ => input::file(Path::new(given))?,
        })),
        FormArgs {
            regex: Some(regex), ..
        } => Some(Constraint::Regex(regex.clone())),
        FormArgs {
            grammar: Some(path),
            ..
        } => Some(Constraint::Lark(input::file(path)?)),
        _ => None,
    })
}

/// Says what a run begins with, once it has begun: figures in JSON have it among them.
fn say_start(growth: &str, notes: &Notes) {
    if notes.are_printed() {
        notes.note(format_args!("{growth}"));
    }
}

/// Saves what was generated, unless generating it failed: also when nobody reads
/// it any more.
fn keep(
    printed: Outcome,
    path: Option<&Path>,
    save: impl FnOnce(&Path) -> walsh_runtime::Result<()>,
) -> Outcome {
    if let (Ok(()) | Err(Failure::ClosedOutput), Some(path)) = (&printed, path) {
        save(path)?;
    }
    printed
}

/// The text to continue, which may be none where there is a session to go on
/// from.
fn prompt(args: &Generate) -> Outcome<String> {
    let text = input::text(args.text.as_deref(), &args.input)?;
    let goes_on = args.session.load.is_some() && !args.chat;
    match text {
        Some(text) if goes_on || !text.trim().is_empty() => Ok(text),
        None if goes_on => Ok(String::new()),
        Some(_) => Err(Failure::Usage(
            "the prompt is empty: give the text to continue, or - to read it from standard input"
                .to_owned(),
        )),
        None => Err(Failure::Usage(
            "there is no prompt: give PROMPT, --prompt TEXT or --file FILE, or - to read standard input"
                .to_owned(),
        )),
    }
}
