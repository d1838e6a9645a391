//! What `llguidance` says is wrong, on one line.

use std::fmt::Display;

/// The longest message, in characters: some list all that would be right.
const LONGEST: usize = 400;

/// What lies behind the message: nothing, or a trace of calls.
const ENDS: [&str; 2] = ["<non-verbose/>", "<backtrace>"];

/// How far `regex-syntax` indents a pattern.
const INDENT: usize = 4;

/// An error and what caused it. Lines of a grammar that show a place are left out, for its numbers tell it; of a pattern,
/// what is marked is told by its place.
pub(super) fn one_line(error: impl Display) -> String {
    let text = format!("{error:#}");
    let lines = text.lines().take_while(|line| !ENDS.contains(line));
    let (mut words, mut listed): (Vec<String>, bool) = (Vec::new(), false);
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let is_mark = line.trim().chars().all(|c| c == '^');
        if !is_mark {
            listed = is_listed(line);
        }
        match (listed, is_mark) {
            (true, _) => {}
            (false, true) => {
                let before = line.chars().take_while(|c| *c == ' ').count();
                words.push(format!(
                    "(at character {})",
                    before.saturating_sub(INDENT) + 1
                ));
            }
            (false, false) => words.push(line.trim().to_owned()),
        }
    }
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Whether it is a line of a grammar, by its number.
fn is_listed(line: &str) -> bool {
    let number = line.trim_start().split_once(" | ");
    number.is_some_and(|(number, _)| number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn places_stay_and_listings_go() {
        let error =
            "at 2(3): unknown name: \"b\"\n   1 | start: \"a\" |\n   2 |   b\n         ^\n\n";
        assert_eq!(one_line(error), "at 2(3): unknown name: \"b\"");
        let error =
            "regex parse error:\n    ab{3,1}\n      ^^^^^\nerror: backwards\n<backtrace>\nmain";
        assert_eq!(
            one_line(error),
            "regex parse error: ab{3,1} (at character 3) error: backwards"
        );
        assert_eq!(one_line("ä".repeat(500)).chars().count(), 401);
    }
}
