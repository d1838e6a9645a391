//! Memory that moves between engines of one budget.

use super::Worker;
use crate::Result;
use crate::engine::budget::Sought;
use crate::engine::sequence::Sequence;

/// Whether an engine waits for memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Seeking {
    #[default]
    No,
    /// For the answer of another engine.
    Waits,
    /// It was answered, and makes its next step with what it has.
    Answered,
}

impl Seeking {
    /// It was woken.
    pub(super) fn hear(&mut self) {
        if *self == Self::Waits {
            *self = Self::Answered;
        }
    }
}

impl Worker {
    /// Gives others what it was asked for, if it was.
    pub(super) fn give(&mut self) {
        let Some(asked) = self.runner.part.asked() else {
            return;
        };
        match self.runner.shrink(asked, &self.running) {
            Ok(given) => {
                // Who hears of it finds it so.
                self.show();
                self.runner.part.give(given);
            }
            Err(error) => self.break_down(&error),
        }
    }

    /// Whether the next step waits for another engine's memory. What is there to be taken is taken.
    pub(super) fn waits_for_memory(&mut self) -> Result<bool> {
        let answered = std::mem::take(&mut self.seeking) == Seeking::Answered;
        if self.runner.part.is_alone() {
            return Ok(false);
        }
        let next = self.next_waiting();
        let next: Option<&Sequence> = next.map(|place| &self.waiting[place]);
        let Some(lack) = self.runner.lack(&self.running, next) else {
            self.runner.part.is_content();
            return Ok(false);
        };
        let sought = match answered {
            // Nobody is asked again before a step was made.
            true => self.runner.part.take(lack),
            false => self.runner.part.seek(lack),
        };
        match sought {
            Sought::Nothing => Ok(false),
            Sought::Wait => {
                self.seeking = Seeking::Waits;
                Ok(true)
            }
            Sought::Taken(_) => {
                if let Err(error) = self.runner.grow() {
                    self.break_down(&error);
                }
                Ok(!self.open)
            }
        }
    }

    /// Ends with an error: caches that have not become what they were to be cannot be used.
    fn break_down(&mut self, error: &crate::Error) {
        self.fail_all(error);
        self.open = false;
    }
}
