//! `walsh chat`.

mod command;
mod input;
mod settings;

use std::io;

use walsh_runtime::tokenizer::Special;
use walsh_runtime::{Conversation, Error, GenerateOptions, Model, Reply, RestoreOptions, Watch};

use crate::args::Chat;
use crate::failure::{Failure, Outcome};
use crate::interrupt::Signals;
use crate::output::{self, Notes};
use crate::stream::{Ended, Page, print_pieces};
use crate::{models, progress, terminal};
use command::{Command, Said};
use input::{Entry, Input};
use settings::{Change, Settings};

pub(crate) fn run(args: &Chat) -> Outcome {
    models::check_files(&args.session)?;
    let signals = Signals::watch()?;
    let notes = Notes::for_figures(false);
    let model = models::open_adapted((&args.model, &args.lora), &notes, signals.cancel())?;
    models::say_unfitted(&model, &args.session.kv, &notes)?;
    let sampling = models::sampling(&args.sampling, &model, &notes);
    let mut chat = Chatting {
        conversation: models::conversation(&model, &args.session, &args.answer)?,
        model,
        input: Input::new(),
        signals,
        settings: Settings {
            sampling,
            max_tokens: args.max_tokens.0,
            wrap: !args.answer.no_word_wrap,
        },
        args,
    };
    if let Some(seed) = models::seed(&args.sampling, &args.session) {
        chat.conversation.set_seed(seed);
    }
    if chat.input.is_interactive() {
        match models::store(&args.model.cache) {
            Ok(store) => chat.input.keep_history(&store.history_file()),
            Err(_) => input::no_history("there is no folder for it, --cache-dir names one"),
        }
        chat.greet();
    }
    let ended = chat.hold();
    let Some(path) = &args.session.save else {
        return ended;
    };
    match chat.conversation.save(path) {
        Ok(()) => ended,
        // Both are worth knowing.
        Err(error) => {
            if let Err(Failure::Run(message)) = ended {
                output::note(format_args!("walsh: {}", output::one_line(&message)));
            }
            Err(error.into())
        }
    }
}

/// A conversation under way.
struct Chatting<'a> {
    model: Model,
    conversation: Conversation,
    input: Input,
    signals: Signals,
    settings: Settings,
    args: &'a Chat,
}

/// Whether a conversation goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Line,
    Quit,
}

impl Chatting<'_> {
    fn greet(&self) {
        let session = self.conversation.session();
        output::note(format_args!(
            "{}; {}; /help lists the commands",
            output::shown(self.model.name()),
            models::growth(session)
        ));
        if session.position() > 0 {
            output::note(format_args!("{} tokens were said", session.position()));
        }
        if self.settings.sampling.temperature > 0.0 {
            output::note(format_args!("seed {}", session.seed()));
        }
    }

    /// Takes lines until they end, or something ends the conversation.
    fn hold(&mut self) -> Outcome {
        let mut was_interrupted = false;
        loop {
            let entry = self.input.next(&self.signals)?;
            let done = match &entry {
                Entry::End => return Ok(()),
                Entry::Interrupt if was_interrupted || !self.input.is_interactive() => {
                    return Err(Failure::Interrupted);
                }
                Entry::Interrupt => {
                    output::note(format_args!("press Ctrl-C again or Ctrl-D to leave"));
                    was_interrupted = true;
                    continue;
                }
                Entry::Block(text) if text.trim().is_empty() => Ok(Next::Line),
                Entry::Block(text) => self.say(text),
                Entry::Line(line) => {
                    self.signals.clear();
                    let watch = self.watch();
                    self.conversation.set_watch(watch);
                    self.line(line)
                }
            };
            was_interrupted = false;
            match done {
                Err(Failure::Interrupted) => output::note(format_args!("[interrupted]")),
                Ok(Next::Quit) => return Ok(()),
                Ok(Next::Line) => {}
                Err(Failure::Run(message)) if self.input.is_interactive() => {
                    output::note(format_args!("walsh: {}", output::one_line(&message)));
                }
                Err(failure) => return Err(failure),
            }
            // The Ctrl-C that ended an answer is not one at the prompt as well.
            let was_ended = self.signals.take_interrupt();
            let is_over = was_ended && !self.input.is_interactive();
            if is_over || self.signals.is_ending() {
                return Err(Failure::Interrupted);
            }
        }
    }

    /// Does what a line asks for. A failure ends the conversation where nobody is
    /// there to read it.
    fn line(&mut self, line: &str) -> Outcome<Next> {
        let command = match command::parse(line) {
            Ok(Said::Nothing) => return Ok(Next::Line),
            Ok(Said::Message(message)) => return self.say(message),
            Ok(Said::Command(command)) => command,
            Err(error) => {
                output::note(format_args!("walsh: {}", output::one_line(&error)));
                return Ok(Next::Line);
            }
        };
        match command {
            Command::Quit => return Ok(Next::Quit),
            Command::Help => {
                let help = command::help(terminal::columns(io::stderr()));
                output::note(format_args!("{help}"));
            }
            Command::Undo if !self.conversation.undo()? => nothing_said(),
            Command::Undo => {}
            Command::Regenerate => return self.regenerate(),
            Command::Reset => self.conversation.reset(),
            Command::System("") => match self.conversation.system() {
                Some(text) => output::note(format_args!("{}", output::shown(text))),
                None => output::note(format_args!("there is no system message")),
            },
            Command::System("\"\"") => self.conversation.set_system(None),
            Command::System(text) => self.conversation.set_system(Some(text)),
            Command::Set("", _) => {
                let session = self.conversation.session();
                let list = self.settings.list(session);
                output::note(format_args!("{list}"));
            }
            Command::Set(name, value) => self.set(name, value)?,
            Command::Show => self.show(),
            Command::Save("") => return Err(Failure::run("/save needs a file: /save FILE")),
            Command::Load("") => return Err(Failure::run("/load needs a file: /load FILE")),
            Command::Save(path) => self.conversation.save(path)?,
            Command::Load(path) => {
                let template = models::template(&self.model, &self.args.answer)?;
                let options = RestoreOptions::default();
                self.conversation =
                    Conversation::restore_with_template(&self.model, template, path, options)?;
                let tokens = self.conversation.session().position();
                output::note(format_args!("{tokens} tokens were said"));
            }
        }
        Ok(Next::Line)
    }

    fn set(&mut self, name: &str, value: &str) -> Outcome {
        let mut options = self.conversation.session().options().clone();
        match self.settings.set(name, value).map_err(Failure::Run)? {
            Change::Settings => return Ok(()),
            Change::Seed(seed) => {
                self.conversation.set_seed(seed);
                return Ok(());
            }
            Change::Kv(kv) => {
                models::say_unfitted(&self.model, [&kv], &Notes::for_figures(false))?;
                options.kv = self.model.kv_policy(&kv)?;
            }
            Change::Context(context) => options.context = context,
        }
        if options != *self.conversation.session().options() {
            self.conversation.reopen(options)?;
        }
        Ok(())
    }

    fn show(&self) {
        let session = self.conversation.session();
        output::note(format_args!(
            "{}: {} of {} tokens, up to {} of KV cache, {} messages\n{}",
            output::shown(self.model.name()),
            session.position(),
            session.context(),
            output::bytes(session.kv_bytes()),
            self.conversation.messages().len(),
            self.settings.list(session)
        ));
    }

    fn say(&mut self, message: &str) -> Outcome<Next> {
        let options = self.options();
        let reply = self.conversation.say(message, options).map_err(explain)?;
        answer(reply, self.settings.wrap)
    }

    fn regenerate(&mut self) -> Outcome<Next> {
        let options = self.options();
        match self.conversation.regenerate(options).map_err(explain)? {
            Some(reply) => answer(reply, self.settings.wrap),
            None => {
                nothing_said();
                Ok(Next::Line)
            }
        }
    }

    /// How the next answer is generated.
    fn options(&self) -> GenerateOptions {
        self.signals.clear();
        GenerateOptions {
            max_tokens: self.settings.max_tokens,
            sampling: self.settings.sampling,
            special: match self.args.answer.special {
                true => Special::Parse,
                false => Special::Text,
            },
            constraint: None,
            stop: self.args.answer.stop.clone(),
            watch: self.watch(),
        }
    }

    /// What ends an answer, or what else takes long.
    fn watch(&self) -> Watch {
        progress::reading(self.signals.cancel(), &Notes::for_figures(false))
    }
}

/// Prints an answer, and what it took.
fn answer(mut reply: Reply<'_>, wrap: bool) -> Outcome<Next> {
    print_pieces(&mut reply, Page::new(wrap))?;
    let ended = Ended {
        figures: *reply.figures(),
        finish: reply.finish(),
    };
    output::note(format_args!("[{}]", ended.summary()));
    Ok(Next::Line)
}

fn nothing_said() {
    output::note(format_args!("nothing was said"));
}

fn explain(error: Error) -> Failure {
    match error {
        Error::ContextFull { needed, context } => Failure::run(format_args!(
            "the conversation would have {needed} tokens and the context holds {context}: /set context {needed} or more makes it larger, /reset starts anew"
        )),
        other => other.into(),
    }
}
