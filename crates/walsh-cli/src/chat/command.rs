//! What can be done in a conversation beside saying something.

use crate::terminal::width;

/// A command, with what stands behind its name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'l> {
    Help,
    Undo,
    Regenerate,
    Reset,
    System(&'l str),
    Set(&'l str, &'l str),
    Show,
    Save(&'l str),
    Load(&'l str),
    Quit,
}

/// A line of a conversation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'l> {
    Nothing,
    Message(&'l str),
    Command(Command<'l>),
}

/// Commands as the help shows them; other names of some follow below.
const COMMANDS: &[(&str, &str)] = &[
    ("/help", "this list"),
    ("/undo", "take back the latest message and its answer"),
    ("/regenerate", "answer the latest message again"),
    ("/reset", "forget the conversation"),
    (
        "/system [TEXT]",
        "show or change the system message; \"\" for none",
    ),
    (
        "/set [NAME VALUE]",
        "show or change a setting, such as kv or temperature",
    ),
    ("/show", "the model, the context and what is set"),
    ("/save FILE", "keep the conversation, for /load and --load"),
    ("/load FILE", "go on with a conversation that was kept"),
    ("/quit", "leave; so do /exit, /bye and Ctrl-D"),
];

const MORE: &[&str] = &[
    "//TEXT says a text that begins with a slash. \"\"\" begins and ends a text of several lines. \
     Ctrl-C ends an answer. Anything else is a message to the model.",
];

/// Reads a line: a message, or a command with what it takes.
///
/// # Errors
/// When it begins with a slash and is no command, with the list of commands.
pub(crate) fn parse(line: &str) -> Result<Said<'_>, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(Said::Nothing);
    }
    let Some(rest) = line.strip_prefix('/') else {
        return Ok(Said::Message(line));
    };
    if rest.starts_with('/') {
        return Ok(Said::Message(rest));
    }
    let (name, rest) = match rest.split_once(char::is_whitespace) {
        Some((name, rest)) => (name, rest.trim()),
        None => (rest, ""),
    };
    let command = match name {
        "system" => Command::System(rest),
        "set" => match rest.split_once(char::is_whitespace) {
            Some((name, value)) => Command::Set(name, value.trim()),
            None => Command::Set(rest, ""),
        },
        "save" => Command::Save(rest),
        "load" => Command::Load(rest),
        _ => {
            let command = match name {
                "help" | "?" => Command::Help,
                "undo" => Command::Undo,
                "regenerate" => Command::Regenerate,
                "reset" | "clear" => Command::Reset,
                "show" => Command::Show,
                "quit" | "exit" | "bye" => Command::Quit,
                _ => return Err(format!("there is no /{name}; {}", list())),
            };
            if !rest.is_empty() {
                return Err(format!("nothing goes behind /{name}; {}", list()));
            }
            command
        }
    };
    Ok(Said::Command(command))
}

/// All commands in a line.
fn list() -> String {
    let names: Vec<&str> = COMMANDS
        .iter()
        .filter_map(|(form, _)| form.split(' ').next())
        .collect();
    format!(
        "the commands are {}; //TEXT says a text that begins with a slash",
        names.join(" ")
    )
}

/// The commands and what they do, for a terminal of so many columns.
pub(crate) fn help(columns: usize) -> String {
    let indent = COMMANDS
        .iter()
        .map(|(form, _)| form.len())
        .max()
        .unwrap_or(0)
        + 2;
    let mut lines = Vec::new();
    for (form, about) in COMMANDS {
        // Where two columns have no room, the second goes below the first.
        if columns < indent + 20 {
            lines.push((*form).to_owned());
            lines.extend(wrapped(about, columns, 2));
            continue;
        }
        for (index, line) in wrapped(about, columns, indent).into_iter().enumerate() {
            let form = if index == 0 { *form } else { "" };
            lines.push(format!("{form:indent$}{}", line.trim_start()));
        }
    }
    for paragraph in MORE {
        lines.extend(wrapped(paragraph, columns, 0));
    }
    lines.join("\n")
}

/// A text in lines that begin with some spaces and end before the last column.
fn wrapped(text: &str, columns: usize, indent: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut column = usize::MAX;
    for word in text.split(' ') {
        let size: usize = word.chars().map(width).sum();
        match lines.last_mut() {
            Some(line) if column + 1 + size < columns => {
                line.push(' ');
                line.push_str(word);
                column += 1 + size;
            }
            _ => {
                lines.push(format!("{:indent$}{word}", ""));
                column = indent + size;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_commands() {
        let command = |line| match parse(line) {
            Ok(Said::Command(command)) => command,
            other => panic!("{other:?}"),
        };
        assert_eq!(parse("  "), Ok(Said::Nothing));
        assert_eq!(parse(" Hello /undo "), Ok(Said::Message("Hello /undo")));
        assert_eq!(parse("//usr is"), Ok(Said::Message("/usr is")));
        assert_eq!(command("/undo "), Command::Undo);
        assert_eq!(command("/clear"), Command::Reset);
        assert_eq!(command("/save a b"), Command::Save("a b"));
        assert_eq!(
            command("/set kv tq4; recent=4"),
            Command::Set("kv", "tq4; recent=4")
        );
        assert_eq!(command("/set kv"), Command::Set("kv", ""));
        assert_eq!(command("/set"), Command::Set("", ""));
        assert_eq!(command("/system"), Command::System(""));
        assert_eq!(command("/system Be\nbrief."), Command::System("Be\nbrief."));
    }

    #[test]
    fn what_is_no_command_is_refused_with_the_list() {
        for line in [
            "/nonsense",
            "/nonsense foo",
            "/undo 2",
            "/etc/passwd",
            "/",
            "/quit now",
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains("/regenerate"), "{error}");
            assert!(error.contains("//TEXT"), "{error}");
        }
    }

    #[test]
    fn help_fits() {
        for columns in [20, 40, 60, 80, 200] {
            for line in help(columns).lines() {
                assert!(line.len() < columns, "{columns}: {line:?}");
            }
        }
        assert!(help(80).lines().count() < 16);
    }
}
