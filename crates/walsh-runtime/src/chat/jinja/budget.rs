//! What a template may use: steps, memory, depth.
//!
//! Whatever lives on the heap while a template runs is charged here before it is made and given back
//! when it is dropped, and every step is counted, with the bytes that it touches.

use std::cell::Cell;
use std::fmt::Display;
use std::rc::Rc;

/// Why a template cannot be rendered.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) message: String,
    /// Where in the template's source, counted from 1, once it is known.
    pub(super) line: Option<usize>,
}

pub(super) type Outcome<T> = Result<T, Fault>;

impl Fault {
    pub(super) fn new(message: impl Display) -> Fault {
        Fault {
            message: message.to_string(),
            line: None,
        }
    }

    /// The fault with a line, unless it has one.
    pub(super) fn at(mut self, line: usize) -> Fault {
        self.line.get_or_insert(line);
        self
    }
}

/// An error of this message.
pub(super) fn fail<T>(message: impl Display) -> Outcome<T> {
    Err(Fault::new(message))
}

/// How much one rendering may use. What a conversation brings along widens it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    steps: u64,
    memory: u64,
    output: usize,
}

/// How deeply lists and dictionaries may lie in each other.
pub(super) const MAX_NESTING: u32 = 256;

/// How deeply expressions, blocks and calls may lie in each other while a template runs.
const MAX_DEPTH: u32 = 6000;

/// The work of one step. Touching a byte is a work of 1.
const STEP: usize = 32;

impl Limits {
    /// Limits for a conversation of `bytes` bytes: far more than the templates of known models use.
    pub(super) fn new(bytes: usize) -> Limits {
        let wide = bytes as u64;
        Limits {
            steps: 5_000_000 + 64 * wide,
            memory: (48 << 20) + 24 * wide,
            output: (2 << 20) + 4 * bytes,
        }
    }

    /// How long the rendered text may be, in bytes.
    pub(super) fn output(&self) -> usize {
        self.output
    }
}

#[derive(Debug)]
struct Budget {
    limits: Limits,
    /// Steps and touched bytes.
    work: Cell<u64>,
    memory: Cell<u64>,
    depth: Cell<u32>,
}

/// Where the values of one rendering live.
#[derive(Clone, Debug)]
pub(super) struct Heap(Rc<Budget>);

impl Heap {
    pub(super) fn new(limits: Limits) -> Heap {
        Heap(Rc::new(Budget {
            limits,
            work: Cell::new(0),
            memory: Cell::new(0),
            depth: Cell::new(0),
        }))
    }

    pub(super) fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Counts steps.
    pub(super) fn step(&self, steps: usize) -> Outcome<()> {
        self.touch(steps.saturating_mul(STEP))
    }

    /// Counts the work of reading or writing some bytes.
    pub(super) fn touch(&self, bytes: usize) -> Outcome<()> {
        let budget = &*self.0;
        let total = budget.work.get().saturating_add(bytes as u64);
        budget.work.set(total);
        if total / STEP as u64 > budget.limits.steps {
            return fail(format!(
                "it takes more than {} steps, it may never end",
                budget.limits.steps
            ));
        }
        Ok(())
    }

    /// Charges memory that is about to be taken, and the work of filling it.
    pub(super) fn hold(&self, bytes: usize) -> Outcome<Charge> {
        let mut charge = Charge {
            heap: self.clone(),
            bytes: 0,
        };
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Runs something one level deeper.
    pub(super) fn enter(&self) -> Outcome<()> {
        let depth = self.0.depth.get() + 1;
        if depth > MAX_DEPTH {
            return fail("its blocks, expressions or calls are nested too deeply");
        }
        self.0.depth.set(depth);
        Ok(())
    }

    /// Ends what `enter` began.
    pub(super) fn leave(&self) {
        self.0.depth.set(self.0.depth.get() - 1);
    }
}

/// Memory that is charged until it is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    heap: Heap,
    bytes: u64,
}

impl Charge {
    pub(super) fn grow(&mut self, bytes: usize) -> Outcome<()> {
        let budget = &self.heap.0;
        let total = budget.memory.get().saturating_add(bytes as u64);
        if total > budget.limits.memory {
            return fail(format!(
                "it needs more than {} MB of memory",
                budget.limits.memory >> 20
            ));
        }
        budget.memory.set(total);
        self.bytes += bytes as u64;
        self.heap.touch(bytes)
    }

    pub(super) fn heap(&self) -> &Heap {
        &self.heap
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let memory = &self.heap.0.memory;
        memory.set(memory.get().saturating_sub(self.bytes));
    }
}
