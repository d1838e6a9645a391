//! Bars on standard error while something takes time: on a terminal alone, and
//! never beside JSON.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use walsh_runtime::{Progress, Watch, store};

use crate::output::{self, Notes};

/// How often a bar is drawn, per second.
const DRAWN: u8 = 10;

/// A bar that is drawn, if anybody may look at it.
fn bar(notes: &Notes, template: &str) -> ProgressBar {
    let target = match notes.are_printed() {
        true => ProgressDrawTarget::stderr_with_hz(DRAWN),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(None, target);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("#>-")),
        // A plain bar says as much.
        Err(_) => bar,
    }
}

/// Shows how far a pull is: a bar on a terminal, a line per stage elsewhere.
pub(crate) struct Bar {
    name: String,
    notes: Notes,
    stage: &'static str,
    bar: ProgressBar,
}

impl Bar {
    pub(crate) fn new(name: &str, notes: &Notes) -> Self {
        Self {
            name: output::shown(name).into_owned(),
            notes: notes.clone(),
            stage: "",
            bar: bar(
                notes,
                "{msg} [{bar:24}] {decimal_bytes} of {decimal_total_bytes}, \
                 {decimal_bytes_per_sec}, {eta} left",
            ),
        }
    }

    /// Shows a pull's progress.
    pub(crate) fn pull(&mut self, progress: store::Progress) {
        match progress {
            store::Progress::Waiting => self.show("waiting for another pull of it", 0, 0),
            store::Progress::Checking { done, total } => self.show("checking", done, total),
            store::Progress::Fetching { done, total } => self.show("fetching", done, total),
            store::Progress::Unpacking { done, total } => {
                self.show("unpacking and checking", done, total)
            }
        }
    }

    /// Shows `done` of `total` bytes of a stage; a `total` of 0 is unknown.
    pub(crate) fn show(&mut self, stage: &'static str, done: u64, total: u64) {
        if stage != self.stage {
            self.stage = stage;
            self.bar.reset();
            self.bar.set_message(format!("{}: {stage}", self.name));
            if self.bar.is_hidden() {
                let size = match total {
                    0 => String::new(),
                    total => format!(", {}", output::bytes(total)),
                };
                let name = &self.name;
                self.notes.note(format_args!("{name}: {stage}{size}"));
            }
        }
        if total > 0 {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Shows how much of something is done, once it has taken two seconds.
pub(crate) struct Steps {
    bar: ProgressBar,
    notes: Notes,
    started: Instant,
}

impl Steps {
    /// Work that is counted in `unit`s, such as tokens.
    pub(crate) fn new(unit: &str, notes: &Notes) -> Self {
        let template =
            format!("[{{bar:24}}] {{pos}} of {{len}} {unit}, {{per_sec}}, {{eta}} left  {{msg}}");
        Self {
            bar: bar(notes, &template),
            notes: notes.clone(),
            started: Instant::now(),
        }
    }

    /// `done` of `total` are done.
    pub(crate) fn show(&self, done: usize, total: usize) {
        if self.is_due() {
            // Setting it draws the bar as it was.
            if self.bar.length() != Some(total as u64) {
                self.bar.set_length(total as u64);
            }
            self.bar.set_position(done as u64);
        }
        if done >= total {
            self.bar.finish_and_clear();
        }
    }

    /// What stands behind the bar.
    pub(crate) fn message(&self, text: String) {
        if self.is_due() {
            self.bar.set_message(text);
        }
    }

    /// Whether notes are all there is to see.
    pub(crate) fn is_hidden(&self) -> bool {
        self.bar.is_hidden()
    }

    /// Says something that stays, above the bar.
    pub(crate) fn note(&self, text: std::fmt::Arguments<'_>) {
        match self.is_due() {
            true => self.bar.suspend(|| self.notes.note(text)),
            false => self.notes.note(text),
        }
    }

    fn is_due(&self) -> bool {
        const PATIENCE: Duration = Duration::from_secs(2);
        self.started.elapsed() >= PATIENCE
    }
}

/// A watch that a flag ends, and that shows how much of a prompt is read.
pub(crate) fn reading(cancel: &Arc<AtomicBool>, notes: &Notes) -> Watch {
    let steps = Steps::new("tokens of the prompt", notes);
    Watch {
        cancel: Arc::clone(cancel),
        progress: Some(Arc::new(move |read: Progress| {
            steps.show(read.done, read.total);
        })),
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
