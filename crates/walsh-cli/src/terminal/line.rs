//! A text under the cursor.

use unicode_segmentation::UnicodeSegmentation;

/// A way from the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Back,
    Forward,
    WordBack,
    WordForward,
    LineStart,
    LineEnd,
}

/// A text and a place in it, between two of its characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line {
    text: String,
    cursor: usize,
}

impl Line {
    /// A text with the cursor behind it.
    pub(crate) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            cursor: text.len(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// The bytes before the cursor.
    pub(crate) fn cursor(&self) -> usize {
        self.cursor
    }

    pub(crate) fn insert(&mut self, text: &str) {
        self.text.insert_str(self.cursor, text);
        self.cursor += text.len();
    }

    /// Takes the text from the cursor to where a step leads, and returns it.
    pub(crate) fn delete(&mut self, step: Step) -> String {
        let other = self.target(step);
        let (start, end) = (other.min(self.cursor), other.max(self.cursor));
        self.cursor = start;
        self.text.drain(start..end).collect()
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.cursor = self.target(step);
    }

    fn target(&self, step: Step) -> usize {
        let (before, after) = self.text.split_at(self.cursor);
        match step {
            Step::Back => before
                .grapheme_indices(true)
                .next_back()
                .map_or(0, |(at, _)| at),
            Step::Forward => self.cursor + after.graphemes(true).next().map_or(0, str::len),
            Step::WordBack => before
                .unicode_word_indices()
                .next_back()
                .map_or(0, |(at, _)| at),
            Step::WordForward => after
                .unicode_word_indices()
                .next()
                .map_or(self.text.len(), |(at, word)| self.cursor + at + word.len()),
            Step::LineStart => before.rfind('\n').map_or(0, |at| at + 1),
            Step::LineEnd => self.cursor + after.find('\n').unwrap_or(after.len()),
        }
    }

    /// To the same column of the line above; false where there is none.
    pub(crate) fn up(&mut self) -> bool {
        let start = self.target(Step::LineStart);
        let Some(end) = start.checked_sub(1) else {
            return false;
        };
        let above = self.text[..end].rfind('\n').map_or(0, |at| at + 1);
        self.cursor = self.column_of(above, end, start);
        true
    }

    /// To the same column of the line below; false where there is none.
    pub(crate) fn down(&mut self) -> bool {
        let (start, end) = (self.target(Step::LineStart), self.target(Step::LineEnd));
        if end == self.text.len() {
            return false;
        }
        let below = end + 1;
        let stop = self.text[below..]
            .find('\n')
            .map_or(self.text.len(), |at| below + at);
        self.cursor = self.column_of(below, stop, start);
        true
    }

    /// The place in a line from `first` to `end` with as many characters before it
    /// as the cursor has in its own, which starts at `start`.
    fn column_of(&self, first: usize, end: usize, start: usize) -> usize {
        let column = self.text[start..self.cursor].graphemes(true).count();
        let other = &self.text[first..end];
        let mut places = other.grapheme_indices(true).map(|(at, _)| at);
        first + places.nth(column).unwrap_or(other.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_what_people_take_for_one() {
        let mut line = Line::new("ae\u{301}👩\u{200d}🚀");
        assert_eq!(line.delete(Step::Back), "👩\u{200d}🚀");
        line.step(Step::Back);
        assert_eq!(line.cursor(), 1);
        assert_eq!(line.delete(Step::Forward), "e\u{301}");
        assert_eq!(line.text(), "a");
        assert_eq!(line.delete(Step::Forward), "");
    }

    #[test]
    fn words_and_ends() {
        let mut line = Line::new("one two, three");
        assert_eq!(line.delete(Step::WordBack), "three");
        line.step(Step::WordBack);
        line.insert("x");
        assert_eq!(line.text(), "one xtwo, ");
        line.step(Step::LineStart);
        line.step(Step::WordForward);
        assert_eq!(line.delete(Step::LineEnd), " xtwo, ");
        line.step(Step::WordForward);
        assert_eq!(line.delete(Step::LineStart), "one");
        assert_eq!(line, Line::default());
    }

    #[test]
    fn lines_above_and_below() {
        let mut line = Line::new("first\nx\nthird");
        assert!(line.up());
        assert_eq!(line.cursor(), 7);
        assert!(line.up());
        assert_eq!(line.cursor(), 1);
        assert!(!line.up());
        line.step(Step::LineEnd);
        assert!(line.down() && line.down() && !line.down());
        assert_eq!(line.cursor(), 9);
        line.step(Step::LineStart);
        assert_eq!(line.delete(Step::LineEnd), "third");
    }
}
