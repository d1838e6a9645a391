//! How a command ends other than well.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::output;

/// Why a command stops early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line asks for something that cannot be: exit status 2.
    Usage(String),
    /// Something went wrong while running: exit status 1.
    Run(String),
    /// Whoever read standard output has gone: nothing to say, and no fault.
    ClosedOutput,
    /// The user ended it: the exit status is the signal's, 130 for Ctrl-C.
    Interrupted,
}

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A run-time failure with a message of one line.
    pub(crate) fn run(message: impl std::fmt::Display) -> Self {
        Self::Run(message.to_string())
    }

    /// Says what happened and gives the exit status.
    pub(crate) fn report(self) -> ExitCode {
        let status = match &self {
            Self::ClosedOutput => return ExitCode::SUCCESS,
            Self::Interrupted => return ExitCode::from(crate::interrupt::status()),
            Self::Usage(_) => 2,
            Self::Run(_) => 1,
        };
        output::note(format_args!("walsh: {self}"));
        ExitCode::from(status)
    }
}

/// What happened, on one line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Run(message) => f.write_str(&output::one_line(message)),
            Self::ClosedOutput => f.write_str("nobody reads standard output"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl From<walsh_runtime::Error> for Failure {
    fn from(error: walsh_runtime::Error) -> Self {
        match error {
            walsh_runtime::Error::Cancelled => Self::Interrupted,
            walsh_runtime::Error::Output(error) => error.into(),
            error => Self::run(error),
        }
    }
}

impl From<walsh_convert::Error> for Failure {
    fn from(error: walsh_convert::Error) -> Self {
        match error {
            walsh_convert::Error::Cancelled => Self::Interrupted,
            error => Self::run(error),
        }
    }
}

impl From<walsh::Error> for Failure {
    fn from(error: walsh::Error) -> Self {
        Self::run(error)
    }
}

/// Only writes to standard output are converted: other I/O names its file.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedOutput
        } else {
            Self::Run(format!(
                "cannot write to standard output: {error}; check where it is directed to"
            ))
        }
    }
}

/// What clap has to say: help and version as they are, a wrong command line in
/// one line.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match error.kind() {
        // Other programs' flags may begin with the letter of help.
        ErrorKind::DisplayHelp if !arguments.iter().any(is_help) => {
            Failure::Usage(usage_line("", &arguments)).report()
        }
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            match output::print(&error.render().to_string()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => failure.report(),
            }
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::note(format_args!("{}", error.render()));
            ExitCode::from(2)
        }
        ErrorKind::InvalidUtf8 => Failure::Usage(not_utf8(&arguments)).report(),
        _ => {
            let message = usage_line(&error.render().to_string(), &arguments);
            Failure::Usage(message).report()
        }
    }
}

fn not_utf8(arguments: &[OsString]) -> String {
    let which = arguments.iter().find(|word| word.to_str().is_none());
    let which = which.map_or_else(String::new, |word| {
        output::shown_bytes(word.as_encoded_bytes())
    });
    format!("the argument \"{which}\" is not UTF-8: texts, names and models are given in UTF-8")
}

fn is_help(word: &OsString) -> bool {
    word == "-h" || word == "--help"
}

/// clap's paragraphs as one line: the error, its tips, where to read more. Of
/// another program's flag, what to write instead.
fn usage_line(rendered: &str, arguments: &[OsString]) -> String {
    if let Some(advice) = crate::args::advice(arguments) {
        return advice;
    }
    let mut parts: Vec<String> = Vec::new();
    for paragraph in rendered.split("\n\n") {
        let lines: Vec<&str> = paragraph.split_whitespace().collect();
        let text = lines.join(" ");
        let is_known = text.starts_with("Usage: ") || text.starts_with("For more information");
        if !text.is_empty() && !is_known {
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            parts.push(text.strip_prefix("tip: ").unwrap_or(text).to_owned());
        }
    }
    let command = crate::args::Cli::command();
    let named = arguments
        .iter()
        .find_map(|word| command.find_subcommand(word));
    let help = named.map_or(String::new(), |named| format!(" {}", named.get_name()));
    parts.push(format!("'walsh{help} --help' tells more"));
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn usage(arguments: &[&str]) -> String {
        let words = std::iter::once("walsh").chain(arguments.iter().copied());
        let error = crate::args::Cli::try_parse_from(words).expect_err("a wrong command line");
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        usage_line(&error.render().to_string(), &arguments)
    }

    #[test]
    fn the_command_line_is_consistent() {
        crate::args::Cli::command().debug_assert();
    }

    #[test]
    fn wrong_command_lines_are_one_line_that_says_where_help_is() {
        for (arguments, expected) in [
            (&["rm"][..], "<NAME>"),
            (&["generate", "--tempreature", "1", "x"], "--temperature"),
            (&["generate", "--kv", "tq9", "x"], "tq8"),
            (&["generate", "--temperature", "-1", "x"], "from 0"),
            (&["generate", "--threads", "0", "x"], "--threads"),
            (&["generate", "--device", "cuda:x", "x"], "cuda:N"),
            (&["generate", "--device", "metal", "x"], "Metal"),
            (&["perplexity", "--context", "2", "--file", "x"], "from 4"),
        ] {
            let line = usage(arguments);
            assert!(line.contains(expected), "{line}");
            assert!(!line.contains('\n'), "{line}");
            assert!(
                line.contains(&format!("walsh {} --help", arguments[0])),
                "{line}"
            );
        }
        assert!(usage(&["frobnicate"]).contains("frobnicate"));
    }

    #[test]
    fn flags_of_other_programs_say_what_to_write_instead() {
        for (arguments, expected) in [
            (&["generate", "-ngl", "99", "x"][..], "--device cuda:0"),
            (&["generate", "--n-gpu-layers=99", "x"], "--device cuda:0"),
            (&["chat", "-ctk", "q8_0"], "--kv k=CODEC"),
            (&["generate", "-fa", "x"], "leave it out"),
            (&["chat", "--mirostat", "2"], "--top-k"),
            (&["generate", "-cnv", "x"], "walsh chat"),
            (&["ps"], "/metrics"),
            (&["generate", "-r", "User:", "x"], "--stop"),
        ] {
            let line = usage(arguments);
            assert!(line.contains(expected), "{line}");
        }
    }
}
