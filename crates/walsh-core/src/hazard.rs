use std::collections::HashMap;

use crate::buffer::{BufferId, Span};

/// What an op reads and writes.
#[derive(Debug, Clone, Default)]
pub struct Accesses {
    /// The ranges that are read.
    pub reads: Vec<Span>,
    /// The ranges that are written.
    pub writes: Vec<Span>,
}

impl Accesses {
    /// Adds a range that is read.
    pub fn read(&mut self, span: Span) -> &mut Self {
        self.reads.push(span);
        self
    }

    /// Adds a range that is written.
    pub fn write(&mut self, span: Span) -> &mut Self {
        self.writes.push(span);
        self
    }
}

#[derive(Clone, Copy)]
struct Touched {
    start: u64,
    end: u64,
    written: bool,
}

/// Decides where barriers go.
///
/// Commands are added in order. A command that reads what an earlier one since
/// the last barrier wrote, or writes what one read or wrote, needs a barrier
/// before it; all others may run at the same time.
#[derive(Default)]
pub struct HazardTracker {
    touched: HashMap<BufferId, Vec<Touched>>,
}

impl HazardTracker {
    /// A tracker that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a command, and says whether a barrier is needed before it.
    pub fn add(&mut self, accesses: &Accesses) -> bool {
        let barrier = accesses
            .writes
            .iter()
            .any(|span| self.conflicts(span, true))
            || accesses
                .reads
                .iter()
                .any(|span| self.conflicts(span, false));
        if barrier {
            self.touched.clear();
        }
        for span in &accesses.reads {
            self.touch(span, false);
        }
        for span in &accesses.writes {
            self.touch(span, true);
        }
        barrier
    }

    fn conflicts(&self, span: &Span, write: bool) -> bool {
        if span.bytes == 0 {
            return false;
        }
        let end = span.offset + span.bytes;
        self.touched.get(&span.buffer.id()).is_some_and(|list| {
            list.iter()
                .any(|t| (t.written || write) && t.start < end && span.offset < t.end)
        })
    }

    fn touch(&mut self, span: &Span, written: bool) {
        if span.bytes > 0 {
            self.touched
                .entry(span.buffer.id())
                .or_default()
                .push(Touched {
                    start: span.offset,
                    end: span.offset + span.bytes,
                    written,
                });
        }
    }
}
