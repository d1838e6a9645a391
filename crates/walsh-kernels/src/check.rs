//! What only a run can know, and how a device reports it.
//!
//! A check is a kernel that looks at ids, positions or numbers. When it finds one that its op cannot take, it lowers two
//! words of the list's status buffer: the first, to its own number, and its own, to where it found it. Kernels that must
//! not run on such values look at the first word. After the run the host reads the words, looks at the values again and
//! says what is wrong.

use walsh_core::{Error, Result, Span, TokenLimits};

/// What a word of the status buffer holds when nothing is wrong.
pub const CHECK_PASSED: u32 = u32::MAX;

/// A check of a list.
#[derive(Debug, Clone)]
pub struct Check {
    pub(crate) op: &'static str,
    pub(crate) kind: CheckKind,
}

#[derive(Debug, Clone)]
pub(crate) enum CheckKind {
    /// Positions and sequences, `i32`.
    Tokens {
        positions: Span,
        sequences: Option<Span>,
        /// The page table, of a cache of pages.
        table: Option<Span>,
        limits: TokenLimits,
    },
    /// Ids of a table with so many rows, `i32`.
    Ids { ids: Span, rows: u64 },
    /// Keys and values to be stored: the word holds side · 2³¹ + (token · kv_heads + head).
    Vectors {
        positions: Span,
        kv_heads: u64,
        codecs: [String; 2],
    },
    /// A row of numbers to choose from; the word holds the row.
    Row,
    /// The experts of slots, `i32`.
    Experts { ids: Span, experts: u64 },
    /// The logits of experts; the word holds the row.
    Logits,
}

/// The error that the words of a status buffer tell of.
pub(crate) fn outcome(
    backend: &'static str,
    checks: &[Check],
    words: &[u32],
    read: &dyn Fn(&Span, &mut [u8]) -> Result<()>,
) -> Result<()> {
    let Some(&failed) = words.first().filter(|word| **word != CHECK_PASSED) else {
        return Ok(());
    };
    let detail = words
        .get(1 + failed as usize)
        .copied()
        .unwrap_or(CHECK_PASSED);
    let Some(Check { op, kind }) = checks.get(failed as usize) else {
        return Err(Error::Device {
            device: backend.into(),
            message: format!("a kernel reported check {failed} of {}", checks.len()),
        });
    };
    let numbers = |span: &Span| -> Result<Vec<i32>> {
        let mut bytes = vec![0; span.bytes as usize];
        read(span, &mut bytes)?;
        Ok(bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| i32::from_le_bytes(*b))
            .collect())
    };
    let message = match kind {
        CheckKind::Tokens {
            positions,
            sequences,
            table,
            limits,
        } => {
            let positions = numbers(positions)?;
            let sequences = sequences.as_ref().map(numbers).transpose()?;
            let table = table.as_ref().map(numbers).transpose()?;
            limits
                .complaint(&positions, sequences.as_deref(), table.as_deref())
                .unwrap_or_else(|| "the positions changed while the list ran".into())
        }
        CheckKind::Ids { ids, rows } => {
            let ids = numbers(ids)?;
            match ids.get(detail as usize) {
                Some(id) => format!("id {id} is outside the table of {rows} rows"),
                None => format!("an id is outside the table of {rows} rows"),
            }
        }
        CheckKind::Vectors {
            positions,
            kv_heads,
            codecs,
        } => {
            let (side, item) = ((detail >> 31) as usize, u64::from(detail & 0x7fff_ffff));
            let positions = numbers(positions)?;
            let position = positions
                .get((item / kv_heads) as usize)
                .copied()
                .unwrap_or(-1);
            format!(
                "{} of position {position}, head {}: it holds a number that is not finite or too large for {}",
                ["key", "value"][side],
                item % kv_heads,
                codecs[side],
            )
        }
        CheckKind::Experts { ids, experts } => {
            let ids = numbers(ids)?;
            match ids.get(detail as usize) {
                Some(id) => format!("id {id} is none of {experts} experts"),
                None => format!("an id is none of {experts} experts"),
            }
        }
        CheckKind::Logits => {
            format!("row {detail} of the logits or the bias holds a number that is not finite")
        }
        CheckKind::Row => format!("row {detail} of the input holds a NaN"),
    };
    Err(Error::Value { op, message })
}
