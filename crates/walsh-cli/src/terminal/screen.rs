//! Where an edited text lies on a terminal.

use super::line::Line;
use super::visible::{push_visible, tab, width};

/// Lines below the first begin with as many columns as a prompt of two has.
const INDENT: &str = "  ";

/// How large a terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// Rows of a text, and the place of the cursor among them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rows {
    rows: Vec<Row>,
    cursor: (usize, usize),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    text: String,
    /// Whether the terminal goes on to it by itself when the row above is full.
    continues: bool,
}

impl Rows {
    fn new(prompt: &str, line: &Line, columns: usize) -> Self {
        let mut rows = Rows {
            rows: vec![Row::default()],
            cursor: (0, 0),
        };
        let mut column = 0;
        for character in prompt.chars() {
            rows.put(character, &mut column, columns);
        }
        let mut shown = String::new();
        for (at, character) in line.text().char_indices() {
            if at == line.cursor() {
                rows.cursor = rows.place(&mut column, columns);
            }
            shown.clear();
            match character {
                '\n' => {
                    rows.rows.push(Row::default());
                    column = 0;
                    shown.push_str(INDENT);
                }
                '\t' => shown.extend(std::iter::repeat_n(' ', tab(column))),
                _ => push_visible(character, &mut shown),
            }
            for character in shown.chars() {
                rows.put(character, &mut column, columns);
            }
        }
        if line.cursor() == line.text().len() {
            rows.cursor = rows.place(&mut column, columns);
        }
        rows
    }

    fn put(&mut self, character: char, column: &mut usize, columns: usize) {
        if *column + width(character) > columns {
            self.continue_below(column);
        }
        if let Some(row) = self.rows.last_mut() {
            row.text.push(character);
        }
        *column += width(character);
    }

    /// Where the next character goes.
    fn place(&mut self, column: &mut usize, columns: usize) -> (usize, usize) {
        if *column >= columns {
            self.continue_below(column);
        }
        (self.rows.len() - 1, *column)
    }

    fn continue_below(&mut self, column: &mut usize) {
        self.rows.push(Row {
            text: String::new(),
            continues: true,
        });
        *column = 0;
    }
}

/// What is on the terminal of an edited text.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    /// The cursor's row, from the first one that is shown.
    row: usize,
}

impl Screen {
    /// What to print so that the terminal shows the text, as much of it as has room
    /// around the cursor.
    pub(crate) fn draw(&mut self, prompt: &str, line: &Line, size: Size) -> String {
        let all = Rows::new(prompt, line, size.columns);
        let room = size.rows.max(1);
        let (row, column) = all.cursor;
        let first = (row + 1).saturating_sub(room);
        let last = all.rows.len().min(first + room) - 1;
        let mut out = self.start_over();
        for (index, shown) in all.rows[first..=last].iter().enumerate() {
            let goes_on = shown.continues && !shown.text.is_empty();
            if index > 0 && !goes_on {
                out.push_str("\r\n");
            }
            out.push_str(&shown.text);
        }
        if last > row {
            out.push_str(&format!("\x1b[{}A", last - row));
        }
        out.push('\r');
        if column > 0 {
            out.push_str(&format!("\x1b[{column}C"));
        }
        self.row = row - first;
        out
    }

    /// The terminal has a new size, and moved what it showed accordingly.
    pub(crate) fn resized(&mut self, prompt: &str, line: &Line, size: Size) {
        let row = Rows::new(prompt, line, size.columns).cursor.0;
        self.row = row.min(size.rows.saturating_sub(1));
    }

    /// What to print so that the cursor is behind the text, on a row of its own.
    pub(crate) fn leave(&mut self, prompt: &str, line: &Line, size: Size) -> String {
        let mut out = self.draw(prompt, &Line::new(line.text()), size);
        out.push_str("\r\n");
        self.row = 0;
        out
    }

    fn start_over(&mut self) -> String {
        let mut out = String::from("\r");
        if self.row > 0 {
            out.push_str(&format!("\x1b[{}A", self.row));
        }
        out.push_str("\x1b[J");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(line: &Line, columns: usize) -> (Vec<String>, (usize, usize)) {
        let rows = Rows::new("> ", line, columns);
        let texts = rows.rows.into_iter().map(|row| row.text).collect();
        (texts, rows.cursor)
    }

    #[test]
    fn rows_break_at_the_edge_and_between_lines() {
        let texts = |texts: &[&str]| -> Vec<String> { texts.iter().map(|&t| t.into()).collect() };
        let line = Line::new("abcdefgh");
        assert_eq!(rows(&line, 80), (texts(&["> abcdefgh"]), (0, 10)));
        assert_eq!(rows(&line, 10), (texts(&["> abcdefgh", ""]), (1, 0)));
        assert_eq!(rows(&line, 6), (texts(&["> abcd", "efgh"]), (1, 4)));
        // A wide character does not fit into the last column.
        assert_eq!(
            rows(&Line::new("a漢b"), 4),
            (texts(&["> a", "漢b"]), (1, 3))
        );
        assert_eq!(
            rows(&Line::new("a\nb\x1b"), 80),
            (texts(&["> a", "  b\\u{1b}"]), (1, 9))
        );
        let mut line = Line::new("a\nb");
        line.up();
        assert_eq!(rows(&line, 80).1, (0, 3));
    }

    #[test]
    fn a_text_is_drawn_over_what_was_drawn_before() {
        let size = Size {
            columns: 6,
            rows: 24,
        };
        let mut screen = Screen::default();
        let drawn = screen.draw("> ", &Line::new("abcdef"), size);
        assert_eq!(drawn, "\r\x1b[J> abcdef\r\x1b[2C");
        let drawn = screen.draw("> ", &Line::new("x"), size);
        assert_eq!(drawn, "\r\x1b[1A\x1b[J> x\r\x1b[3C");
    }

    #[test]
    fn a_text_that_is_higher_than_the_terminal_is_shown_around_the_cursor() {
        let size = Size {
            columns: 20,
            rows: 2,
        };
        let mut screen = Screen::default();
        let drawn = screen.draw("> ", &Line::new("a\nb\nc"), size);
        assert_eq!(drawn, "\r\x1b[J  b\r\n  c\r\x1b[3C");
        screen.resized(
            "> ",
            &Line::new("a\nb\nc"),
            Size {
                columns: 2,
                rows: 2,
            },
        );
        assert_eq!(screen.row, 1);
    }
}
