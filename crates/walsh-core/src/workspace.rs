use std::any::Any;
use std::sync::Arc;

use crate::Result;
use crate::buffer::{Buffer, Span};

/// What a buffer is derived from its sources for: all that decides its contents beside the
/// sources' bytes, as a value of a type of its own.
///
/// Every type that can be compared is one.
pub trait Purpose: Any + Send + Sync {
    /// Whether the other value is of the same type, and equal.
    fn is(&self, other: &dyn Any) -> bool;
}

impl<T: Any + Send + Sync + PartialEq> Purpose for T {
    fn is(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }
}

#[derive(Clone)]
struct Derived {
    purpose: Arc<dyn Purpose>,
    sources: Vec<Span>,
    buffer: Buffer,
}

/// The workspace of a list that a backend lowers: buffers that serve one op after the
/// other, and *derived* ones.
///
/// Work that several ops share, such as the quantised form of an input of three
/// products, is a derived buffer: it is computed once, and its memory serves again when
/// a source is overwritten. A clone shares the buffers and keeps its own account of
/// which are in use, so that an op that cannot be lowered leaves no trace in the list's.
#[derive(Clone, Default)]
pub struct Workspace {
    free: Vec<Buffer>,
    derived: Vec<Derived>,
}

impl Workspace {
    /// A buffer of at least `bytes`, new where none that is free is of a fitting size.
    /// Its contents are unspecified.
    ///
    /// # Errors
    /// What `allocate` says.
    pub fn take(
        &mut self,
        bytes: u64,
        allocate: impl FnOnce(u64) -> Result<Buffer>,
    ) -> Result<Buffer> {
        let fits = |buffer: &Buffer| (bytes..=bytes.saturating_mul(2)).contains(&buffer.bytes());
        match self.free.iter().position(fits) {
            Some(index) => Ok(self.free.swap_remove(index)),
            None => allocate(bytes),
        }
    }

    /// Gives a buffer back for later work. Hazards keep those that use it now apart from
    /// that.
    pub fn release(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    /// The buffer derived from `sources` for `purpose`, if it is there already.
    #[must_use]
    pub fn known(&self, purpose: &impl Purpose, sources: &[Span]) -> Option<Buffer> {
        let same = |d: &Derived| {
            let mut pairs = d.sources.iter().zip(sources);
            d.sources.len() == sources.len() && pairs.all(|(one, other)| one.same(other))
        };
        let known = |d: &&Derived| same(d) && d.purpose.is(purpose);
        self.derived.iter().find(known).map(|d| d.buffer.clone())
    }

    /// Keeps a buffer that is computed from `sources`, until one of them is overwritten.
    pub fn keep(&mut self, purpose: impl Purpose, sources: Vec<Span>, buffer: Buffer) {
        self.derived.push(Derived {
            purpose: Arc::new(purpose),
            sources,
            buffer,
        });
    }

    /// Forgets what was derived from a range that is overwritten.
    pub fn invalidate(&mut self, written: &Span) {
        let stale = |d: &mut Derived| d.sources.iter().any(|source| source.overlaps(written));
        let old = self.derived.extract_if(.., stale);
        self.free.extend(old.map(|d| d.buffer));
    }
}
