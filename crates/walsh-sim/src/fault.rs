//! What kernels do wrong, in words.

use std::fmt;

use crate::shadow::Kind;

/// A place in the grid and the group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) group: [u32; 3],
    pub(crate) thread: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([x, y, z], thread) = (self.group, self.thread);
        let (simd, lane) = (thread / 32, thread % 32);
        write!(
            f,
            "group [{x}, {y}, {z}], thread {thread} (simdgroup {simd}, lane {lane})"
        )
    }
}

/// A range of memory, as a kernel knows it.
#[derive(Debug, Clone)]
pub(crate) struct Where {
    /// The first byte, counted from the range's.
    pub(crate) byte: i64,
    /// The range's name and size.
    pub(crate) name: &'static str,
    pub(crate) bytes: usize,
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { byte, name, bytes } = self;
        write!(f, "byte {byte} of `{name}` ({bytes} bytes)")
    }
}

/// A collective or barrier, and the line that asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Meeting {
    pub(crate) word: &'static str,
    pub(crate) line: String,
}

impl fmt::Display for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in `{}`", self.word, self.line)
    }
}

/// What a thread did wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Outside everything that the dispatch may touch; the nearest range, if one is near.
    Outside(Kind, usize, Option<Where>),
    ReadOnly(usize, Where),
    Misaligned(usize, Option<Where>),
    Unwritten(usize, Where),
    Race {
        kind: Kind,
        bytes: usize,
        at: Where,
        other: Option<Place>,
        other_wrote: bool,
    },
    Apart {
        here: Meeting,
        other: u32,
        there: Meeting,
    },
    Missed {
        here: Meeting,
        other: u32,
        there: Option<Meeting>,
    },
    Lane {
        word: &'static str,
        operand: u32,
        line: String,
    },
    Masks(String),
    Index,
    Division,
    Shift,
    Endless(u64),
    Steps(u32),
}

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::Read => "reads",
        Kind::Write => "writes",
        Kind::Atomic => "changes",
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside(kind, bytes, near) => {
                write!(f, "{} {bytes} bytes out of bounds", verb(*kind))?;
                match near {
                    Some(near) => write!(f, ": {near}"),
                    None => write!(f, ", near none of its buffers"),
                }
            }
            Self::ReadOnly(bytes, at) => {
                write!(f, "writes {bytes} bytes at {at}, which it only reads")
            }
            Self::Misaligned(alignment, at) => {
                f.write_str("follows a pointer to ")?;
                match at {
                    Some(at) => write!(f, "{at}")?,
                    None => f.write_str("none of its buffers")?,
                }
                write!(f, ", whose address is no multiple of {alignment}")
            }
            Self::Unwritten(bytes, at) => {
                write!(f, "reads {bytes} bytes that nothing wrote at {at}")
            }
            Self::Race {
                kind,
                bytes,
                at,
                other,
                other_wrote,
            } => {
                let verb = verb(*kind);
                write!(f, "a race: it {verb} {bytes} bytes at {at}, which ")?;
                match other {
                    Some(place) => write!(f, "{place}")?,
                    None => f.write_str("another thread")?,
                }
                let did = if *other_wrote { "wrote" } else { "read" };
                write!(f, " {did} with no barrier between")
            }
            Self::Apart { here, other, there } => {
                write!(
                    f,
                    "threads part: it reaches {here}, thread {other} reaches {there}"
                )
            }
            Self::Missed { here, other, there } => {
                write!(
                    f,
                    "not all threads reach {here}, where it waits: thread {other} "
                )?;
                match there {
                    Some(there) => write!(f, "waits at {there}"),
                    None => f.write_str("returned"),
                }
            }
            Self::Lane {
                word,
                operand,
                line,
            } => {
                write!(f, "asks {word} for lane {operand} of 32 in `{line}`")
            }
            Self::Masks(line) => write!(f, "lanes pass different masks in `{line}`"),
            Self::Index => f.write_str("uses an index outside an array"),
            Self::Division => f.write_str("divides by zero"),
            Self::Shift => f.write_str("shifts by as many bits as the number has, or more"),
            Self::Endless(steps) => {
                write!(
                    f,
                    "does not end: {steps} loads, stores and collectives in one dispatch"
                )
            }
            Self::Steps(most) => {
                write!(
                    f,
                    "has {most} simdgroup barriers between two threadgroup barriers"
                )
            }
        }
    }
}
