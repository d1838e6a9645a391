//! `walsh generate`.

use std::io::Read;
use std::path::Path;

use walsh_runtime::{Finish, GenerateOptions};

use crate::args::Generate;
use crate::failure::{Failure, Outcome};
use crate::stream::{Ended, Run, print_pieces};
use crate::{interrupt, models};

pub(crate) fn run(args: &Generate) -> Outcome {
    let prompt = prompt(&args.prompt)?;
    models::check_files(&args.session)?;
    let model = models::open(&args.model)?;
    let options = GenerateOptions {
        max_tokens: Some(args.max_tokens.get()),
        sampling: models::sampling(&args.sampling),
        cancel: interrupt::on_interrupt()?,
        ..GenerateOptions::default()
    };
    let sampling = options.sampling;
    let save = args.session.save.as_deref();
    let (ended, run) = if args.chat {
        let mut conversation = models::conversation(&model, &args.session, args.system.as_deref())?;
        let mut reply = conversation.say(&prompt, options)?;
        let printed = print_pieces(&mut reply);
        let ended = Ended {
            figures: *reply.figures(),
            finish: reply.finish(),
        };
        drop(reply);
        keep(printed, save, |path| conversation.save(path))?;
        (ended, Run::new(conversation.session(), &sampling))
    } else {
        let mut session = models::session(&model, &args.session)?;
        let mut text = session.generate(&prompt, options)?;
        let printed = print_pieces(&mut text);
        let ended = Ended {
            figures: *text.figures(),
            finish: text.finish(),
        };
        drop(text);
        keep(printed, save, |path| session.save(path))?;
        (ended, Run::new(&session, &sampling))
    };
    ended.report(&run, args.json);
    match ended.finish {
        Some(Finish::Cancelled) => Err(Failure::Interrupted),
        _ => Ok(()),
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

/// The prompt itself, or what standard input holds. Bytes that are not UTF-8
/// become replacement characters.
fn prompt(argument: &str) -> Outcome<String> {
    let text = if argument == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .map_err(|error| {
                Failure::run(format_args!(
                    "cannot read the prompt from standard input: {error}"
                ))
            })?;
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        argument.to_owned()
    };
    if text.is_empty() {
        return Err(Failure::Usage(
            "the prompt is empty: give the text to continue, or - to read it from standard input"
                .to_owned(),
        ));
    }
    Ok(text)
}
