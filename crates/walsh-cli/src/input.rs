//! The text of a command: an argument, a file, or standard input.

use std::io::Read;
use std::path::Path;

use crate::args::InputArgs;
use crate::failure::{Failure, Outcome};

/// The text that the arguments give, `-` being standard input; `None` where they
/// give none.
pub(crate) fn text(argument: Option<&str>, args: &InputArgs) -> Outcome<Option<String>> {
    if let Some(path) = &args.file {
        return Ok(Some(file(path)?));
    }
    match (&args.prompt, argument) {
        (Some(text), _) => Ok(Some(text.clone())),
        (None, Some("-")) => Ok(Some(standard_input()?)),
        (None, argument) => Ok(argument.map(str::to_owned)),
    }
}

/// The text of a file.
pub(crate) fn file(path: &Path) -> Outcome<String> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::run(format_args!("cannot read {}: {error}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn standard_input() -> Outcome<String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|error| Failure::run(format_args!("cannot read from standard input: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
