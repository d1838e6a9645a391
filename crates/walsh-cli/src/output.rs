//! Printing: text and tables to standard output, remarks to standard error.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
pub(crate) use walsh_runtime::shown::{shown, shown_bytes, shown_path};
pub(crate) use walsh_runtime::size_text as bytes;

use crate::failure::{Failure, Outcome};

/// Writes a remark to standard error. There is nobody to tell when that fails.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Remarks of a run: printed as they come, or kept for its JSON.
#[derive(Debug, Clone)]
pub(crate) struct Notes(Option<Arc<Mutex<Vec<String>>>>);

impl Notes {
    /// Remarks for people where figures are, and kept where they are JSON.
    pub(crate) fn for_figures(json: bool) -> Self {
        Self(json.then(Arc::default))
    }

    /// Whether somebody may be reading along.
    pub(crate) fn are_printed(&self) -> bool {
        self.0.is_none()
    }

    /// Makes a remark.
    pub(crate) fn note(&self, text: fmt::Arguments<'_>) {
        match &self.0 {
            None => note(text),
            Some(kept) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push(text.to_string());
            }
        }
    }

    /// The remarks that were kept.
    pub(crate) fn kept(&self) -> Vec<String> {
        self.0.as_ref().map_or_else(Vec::new, |kept| {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.clone()
        })
    }
}

/// A message on one line that people can read at once: of a long one, what is in
/// the middle is left out, since it says first what is wrong and last what to do.
pub(crate) fn one_line(message: &str) -> String {
    const START: usize = 300;
    const END: usize = 100;
    let line = shown(message.trim());
    let count = line.chars().count();
    if count <= START + END {
        return line.into_owned();
    }
    let start: String = line.chars().take(START).collect();
    let end: String = line.chars().skip(count - END).collect();
    format!("{start} … {end}")
}

/// Writes text to standard output and hands it over at once.
pub(crate) fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a report as JSON to standard output.
pub(crate) fn print_json(report: &impl serde::Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(report)
        .map_err(|error| Failure::run(format_args!("cannot put the report into JSON: {error}")))?;
    print(&format!("{text}\n"))
}

/// Columns under headings; the first is aligned to the left, the others to the
/// right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(ToString::to_string).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        let shown = cells.iter().map(|cell| shown(cell).into_owned());
        self.rows.push(shown.collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    line.push_str(&format!("  {cell:<width$}"));
                } else {
                    line.push_str(&format!("  {cell:>width$}"));
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A metadata value for people: long ones shortened.
pub(crate) fn abridged(value: &Value) -> String {
    const MOST: usize = 60;
    let text = match value {
        Value::String(text) => format!("{text:?}"),
        other => shown(&other.to_string()).into_owned(),
    };
    if text.chars().count() <= MOST {
        return text;
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whose_ends_are_kept() {
        assert_eq!(one_line(" what: do this\n"), "what: do this");
        let long = format!("first{}last", "ü\n".repeat(5000));
        let line = one_line(&long);
        assert!(line.starts_with("first") && line.ends_with("last"));
        assert!(line.chars().count() < 410 && !line.contains('\n'));
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["kv", "bytes"]);
        table.row(vec!["f16".into(), "23040".into()]);
        table.row(vec!["tq4".into(), "6".into()]);
        assert_eq!(
            table.to_string(),
            "  kv   bytes\n  f16  23040\n  tq4      6\n"
        );
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let value = Value::String("ü".repeat(100));
        assert_eq!(abridged(&value).chars().count(), 61);
        assert_eq!(abridged(&Value::from(7)), "7");
    }
}
