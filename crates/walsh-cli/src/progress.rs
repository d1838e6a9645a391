//! A bar on standard error while something is fetched.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use walsh_runtime::store::Progress;

use crate::output;

/// Shows how far a pull is: a bar that is drawn over itself on a terminal, a
/// line per stage elsewhere.
pub(crate) struct Bar {
    name: String,
    is_terminal: bool,
    stage: &'static str,
    drawn: Option<Instant>,
}

impl Bar {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_terminal: io::stderr().is_terminal(),
            stage: "",
            drawn: None,
        }
    }

    /// Shows a pull's progress.
    pub(crate) fn pull(&mut self, progress: Progress) {
        match progress {
            Progress::Waiting => self.show("waiting for another pull of it", 0, 0),
            Progress::Fetching { done, total } => self.show("fetching", done, total),
            Progress::Unpacking { done, total } => self.show("unpacking and checking", done, total),
        }
    }

    /// Shows `done` of `total` bytes of a stage; a `total` of 0 is unknown.
    pub(crate) fn show(&mut self, stage: &'static str, done: u64, total: u64) {
        let is_new = stage != self.stage;
        self.stage = stage;
        if !self.is_terminal {
            if is_new {
                let size = if total > 0 {
                    format!(", {}", output::bytes(total))
                } else {
                    String::new()
                };
                output::note(format_args!("{}: {stage}{size}", self.name));
            }
            return;
        }
        let recent = self
            .drawn
            .is_some_and(|at| at.elapsed() < Duration::from_millis(100));
        if recent && !is_new && done < total {
            return;
        }
        self.drawn = Some(Instant::now());
        let line = if total > 0 {
            const WIDTH: u64 = 24;
            let full = (done.min(total) as u128 * u128::from(WIDTH) / u128::from(total)) as usize;
            format!(
                "{}: {stage} [{}{}] {} of {}",
                self.name,
                "#".repeat(full),
                "-".repeat(WIDTH as usize - full),
                output::bytes(done),
                output::bytes(total)
            )
        } else {
            format!("{}: {stage}", self.name)
        };
        let mut out = io::stderr().lock();
        // A terminal that takes no more has nobody to tell.
        let _ = write!(out, "\r\x1b[K{line}").and_then(|()| out.flush());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
