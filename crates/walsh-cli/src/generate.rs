//! `walsh generate`.

use std::io::Read;

use walsh_runtime::{Conversation, Finish, GenerateOptions};

use crate::args::Generate;
use crate::failure::{Failure, Outcome};
use crate::stream::{Ended, Run, print_pieces};
use crate::{interrupt, models};

pub(crate) fn run(args: &Generate) -> Outcome {
    let prompt = prompt(&args.prompt)?;
    let model = models::open(&args.model)?;
    let session = models::session_options(&args.session);
    let options = GenerateOptions {
        max_tokens: Some(args.max_tokens.get()),
        sampling: models::sampling(&args.sampling),
        cancel: interrupt::on_interrupt()?,
        ..GenerateOptions::default()
    };
    let mut run = Run {
        seed: options.sampling.seed,
        greedy: options.sampling.temperature == 0.0,
        session: session.clone(),
        kv_bytes: 0,
    };
    let (ended, printed) = if args.chat {
        let mut conversation = Conversation::new(&model, session, args.system.as_deref())?;
        run.kv_bytes = conversation.session().kv_bytes();
        let mut reply = conversation.say(&prompt, options)?;
        let printed = print_pieces(&mut reply);
        (
            Ended {
                figures: *reply.figures(),
                finish: reply.finish(),
            },
            printed,
        )
    } else {
        let mut session = model.session(session)?;
        run.kv_bytes = session.kv_bytes();
        let mut text = session.generate(&prompt, options)?;
        let printed = print_pieces(&mut text);
        (
            Ended {
                figures: *text.figures(),
                finish: text.finish(),
            },
            printed,
        )
    };
    printed?;
    ended.report(&run, args.json);
    match ended.finish {
        Some(Finish::Cancelled) => Err(Failure::Interrupted),
        _ => Ok(()),
    }
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
