//! What was typed before, in a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::system::{private_file, private_folder};

/// How many texts are kept.
const MOST: usize = 1000;
/// The longest text that is kept, in bytes.
const LONGEST: usize = 16 << 10;
/// As much as is read of a file.
const FILE_BYTES: u64 = 2 * (MOST * LONGEST) as u64;

/// Texts that were typed, the latest last. In the file, each is a line, as JSON
/// has strings.
#[derive(Debug, Default)]
pub(crate) struct History {
    texts: Vec<String>,
    file: Option<PathBuf>,
}

impl History {
    /// The history that a file holds, and goes on in. Only its owner may read the
    /// file, which may hold anything that people say.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut history = Self::default();
        let mut text = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(FILE_BYTES).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let lines = text.split(|&byte| byte == b'\n');
        // A line that is none of ours, or not whole, is passed over.
        let texts: Vec<String> = lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        let is_long = texts.len() > 2 * MOST;
        history.texts = texts;
        history.trim();
        history.file = Some(path.to_owned());
        if is_long {
            history.rewrite(path)?;
        }
        Ok(history)
    }

    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Adds a text, unless it was the latest anyway.
    ///
    /// # Errors
    /// When it cannot be written to the file, which is left alone from then on.
    pub(crate) fn add(&mut self, text: &str) -> io::Result<()> {
        if text.trim().is_empty()
            || text.len() > LONGEST
            || self.texts.last().is_some_and(|latest| latest == text)
        {
            return Ok(());
        }
        self.texts.push(text.to_owned());
        self.trim();
        let Some(path) = self.file.take() else {
            return Ok(());
        };
        append(&path, text)?;
        self.file = Some(path);
        Ok(())
    }

    fn trim(&mut self) {
        let more = self.texts.len().saturating_sub(MOST);
        self.texts.drain(..more);
    }

    /// Puts the texts in the place of a file that has grown long.
    fn rewrite(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        let _ = fs::remove_file(&beside);
        let mut file =
            private_file(OpenOptions::new().write(true).create_new(true)).open(&beside)?;
        let lines: String = self.texts.iter().map(|text| json_line(text)).collect();
        file.write_all(lines.as_bytes())?;
        fs::rename(&beside, path)
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        private_folder(fs::DirBuilder::new().recursive(true)).create(folder)?;
    }
    let mut file = private_file(OpenOptions::new().append(true).create(true)).open(path)?;
    file.write_all(json_line(text).as_bytes())
}

fn json_line(text: &str) -> String {
    format!("{}\n", serde_json::Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_with_their_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walsh/history");
        let mut history = History::open(&path).unwrap();
        for text in ["one", "two\nlines \u{1f642}", "two\nlines \u{1f642}", " "] {
            history.add(text).unwrap();
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let again = History::open(&path).unwrap();
        assert_eq!(again.texts(), ["one", "two\nlines \u{1f642}"]);
    }

    #[test]
    fn damaged_lines_are_passed_over_and_the_file_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let mut lines = String::from("not json\n\"cut");
        lines.push('\n');
        for number in 0..2 * MOST + 1 {
            lines.push_str(&json_line(&number.to_string()));
        }
        fs::write(&path, lines).unwrap();
        let history = History::open(&path).unwrap();
        assert_eq!(history.texts().len(), MOST);
        let again = History::open(&path).unwrap();
        assert_eq!(again.texts(), history.texts());
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), MOST);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_said_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::open(&folder.path().join("history")).unwrap();
        history.file = Some(folder.path().to_owned());
        assert!(history.add("one").is_err());
        assert!(history.add("two").is_ok());
        assert_eq!(history.texts(), ["one", "two"]);
    }
}
