//! The text of a command: an argument, a file, or standard input.

use std::path::Path;

use walsh_runtime::TextReader;

use crate::args::InputArgs;
use crate::failure::Outcome;

/// No context holds a text as long.
const MOST_BYTES: usize = 16 << 20;

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
    Ok(TextReader::open(path)?.read_all(MOST_BYTES)?)
}

fn standard_input() -> Outcome<String> {
    let text = TextReader::new("standard input", std::io::stdin().lock());
    Ok(text.read_all(MOST_BYTES)?)
}
