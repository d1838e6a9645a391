//! What only a run can know of positions and sequences, checked alike by every backend.

use std::collections::HashMap;
use std::ops::Range;

/// Positions of a page of a [`CacheKind::Paged`](crate::CacheKind::Paged) cache.
pub const PAGE: u64 = 64;

/// What positions and sequences stay within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLimits {
    /// Positions end below this, in a cache that does not forget.
    pub capacity: Option<u64>,
    /// How many sequences there are.
    pub sequences: u64,
    /// The most tokens of a sequence, where there is a bound.
    pub most: Option<u64>,
    /// What the page table must have, in a cache of pages.
    pub pages: Option<PageLimits>,
}

/// What a page table must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// How many pages the cache has.
    pub pages: u64,
    /// Entries of the table per sequence.
    pub per_sequence: u64,
    /// What the op does with pages.
    pub used: PageUse,
}

/// Which pages an op touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageUse {
    /// It stores its tokens.
    Stored,
    /// Its tokens see what is stored.
    Seen {
        /// How many positions a query sees, its own included; `None` for all.
        window: Option<u32>,
        /// Whether the tokens themselves are stored too.
        own: bool,
    },
}

impl PageUse {
    /// The entries of a sequence's row that tokens at positions `first` to `last` need.
    fn entries(self, first: i32, last: i32) -> Range<usize> {
        let (first, last) = (first as u64, last as u64);
        let positions = match self {
            Self::Stored => first..last + 1,
            Self::Seen { window, own } => {
                let window = window.map_or(u64::MAX, u64::from);
                let start = (first + 1).saturating_sub(window);
                start..if own { last + 1 } else { first }
            }
        };
        match positions.is_empty() {
            true => 0..0,
            false => (positions.start / PAGE) as usize..positions.end.div_ceil(PAGE) as usize,
        }
    }
}

impl TokenLimits {
    /// What is wrong with an op's tokens, if anything is: positions ascend by one within a sequence, from zero or
    /// above; the tokens of a sequence follow each other. In a cache of pages with this table, every page that is
    /// touched is one, and no two of those that are stored into are the same.
    #[must_use]
    pub fn complaint(
        &self,
        positions: &[i32],
        sequences: Option<&[i32]>,
        table: Option<&[i32]>,
    ) -> Option<String> {
        let mut stored = HashMap::new();
        let Some(sequences) = sequences else {
            // Validation has seen to the number of tokens of a single sequence.
            return wrong(positions, self.capacity)
                .or_else(|| self.wrong_pages((positions, 0), table?, &mut stored));
        };
        let mut seen = vec![false; self.sequences as usize];
        let mut start = 0;
        while start < sequences.len() {
            let sequence = sequences[start];
            let Some(seen) = usize::try_from(sequence).ok().and_then(|s| seen.get_mut(s)) else {
                return Some(format!(
                    "sequence {sequence} is not one of the cache's {}",
                    self.sequences
                ));
            };
            if std::mem::replace(seen, true) {
                return Some(format!(
                    "the tokens of sequence {sequence} do not follow each other"
                ));
            }
            let count = sequences[start..]
                .iter()
                .take_while(|s| **s == sequence)
                .count();
            if let Some(most) = self.most.filter(|most| count as u64 > *most) {
                return Some(format!(
                    "sequence {sequence} has {count} tokens, more than the {most} that the cache allows at once",
                ));
            }
            let own = &positions[start..start + count];
            let found = wrong(own, self.capacity)
                .or_else(|| self.wrong_pages((own, sequence as usize), table?, &mut stored));
            if let Some(found) = found {
                return Some(format!("sequence {sequence}: {found}"));
            }
            start += count;
        }
        None
    }

    /// What is wrong with the pages of one sequence's tokens, if anything is. `stored` has who stores into which page.
    fn wrong_pages(
        &self,
        (positions, sequence): (&[i32], usize),
        table: &[i32],
        stored: &mut HashMap<i32, (usize, usize)>,
    ) -> Option<String> {
        let limits = self.pages?;
        let (first, last) = (*positions.first()?, *positions.last()?);
        let row = &table[sequence * limits.per_sequence as usize..];
        for entry in limits.used.entries(first, last) {
            let from = entry as u64 * PAGE;
            let page = row[entry];
            if page < 0 {
                return Some(format!("position {from} and those behind it have no page"));
            }
            if page as u64 >= limits.pages {
                return Some(format!(
                    "page {page} of position {from} is not one of the cache's {}",
                    limits.pages
                ));
            }
            if limits.used != PageUse::Stored {
                continue;
            }
            if let Some((other, at)) = stored.insert(page, (sequence, entry)) {
                return Some(format!(
                    "page {page} of position {from} is stored into as that of position {} of sequence {other} too",
                    at as u64 * PAGE
                ));
            }
        }
        None
    }
}

/// What is wrong with positions, if anything is.
fn wrong(positions: &[i32], capacity: Option<u64>) -> Option<String> {
    let (first, last) = (*positions.first()?, *positions.last()?);
    if first < 0 {
        return Some(format!("position {first} is negative"));
    }
    let step = |pair: &&[i32]| i64::from(pair[1]) != i64::from(pair[0]) + 1;
    if let Some(pair) = positions.windows(2).find(step) {
        return Some(format!(
            "positions must ascend by one, but {} follows {}",
            pair[1], pair[0]
        ));
    }
    let capacity = capacity.filter(|capacity| last as u64 >= *capacity)?;
    Some(format!(
        "position {last} does not fit the cache, which holds {capacity} positions"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_must_ascend_and_fit() {
        assert_eq!(wrong(&[3, 4, 5], Some(6)), None);
        assert_eq!(wrong(&[i32::MAX - 1, i32::MAX], None), None);
        for (positions, capacity, part) in [
            (
                &[3, 4, 5][..],
                Some(5),
                "position 5 does not fit the cache, which holds 5",
            ),
            (&[-1, 0], None, "position -1 is negative"),
            (&[3, 5], None, "5 follows 3"),
            (&[i32::MAX, i32::MIN], None, "ascend by one"),
        ] {
            assert!(wrong(positions, capacity).unwrap().contains(part));
        }
    }

    #[test]
    fn sequences_must_be_known_and_together() {
        let limits = TokenLimits {
            capacity: Some(9),
            sequences: 3,
            most: Some(2),
            pages: None,
        };
        let wrong = |positions: &[i32], sequences: &[i32]| {
            limits.complaint(positions, Some(sequences), None)
        };
        assert_eq!(wrong(&[3, 4, 0, 8], &[2, 2, 0, 1]), None);
        for (positions, sequences, part) in [
            (
                &[0, 1][..],
                &[0, 3][..],
                "sequence 3 is not one of the cache's 3",
            ),
            (&[0, 1], &[-1, 0], "sequence -1 is not"),
            (&[0, 1, 1], &[0, 1, 0], "sequence 0 do not follow"),
            (&[0, 5, 7], &[0, 1, 1], "sequence 1: positions must ascend"),
            (&[0, 9], &[0, 1], "sequence 1: position 9 does not fit"),
            (&[0, 1, 2], &[1, 1, 1], "has 3 tokens, more than the 2"),
        ] {
            let found = wrong(positions, sequences).expect("a complaint");
            assert!(found.contains(part), "{found}");
        }
    }

    #[test]
    fn pages_must_be_there_and_stored_into_by_one() {
        let limits = |used| TokenLimits {
            capacity: Some(256),
            sequences: 2,
            most: None,
            pages: Some(PageLimits {
                pages: 6,
                per_sequence: 4,
                used,
            }),
        };
        let table = [3, 5, -1, 9, 3, 0, 5, 1];
        let wrong = |used, positions: &[i32], sequences: &[i32]| {
            limits(used).complaint(positions, Some(sequences), Some(&table))
        };
        let seen = |window, own| PageUse::Seen { window, own };
        assert_eq!(wrong(PageUse::Stored, &[127, 127], &[0, 1]), None);
        assert_eq!(wrong(seen(None, true), &[255, 127], &[1, 0]), None);
        // What a chunk follows must be there, and its own need not; nor what lies before the window.
        assert_eq!(wrong(seen(None, false), &[128, 129], &[0, 0]), None);
        assert_eq!(wrong(seen(Some(1), false), &[255], &[0]), None);
        for (used, positions, sequences, part) in [
            (
                PageUse::Stored,
                &[127, 128][..],
                &[0, 0][..],
                "sequence 0: position 128 and those behind it have no page",
            ),
            (
                PageUse::Stored,
                &[192],
                &[0],
                "page 9 of position 192 is not one of the cache's 6",
            ),
            (
                PageUse::Stored,
                &[70, 128],
                &[0, 1],
                "page 5 of position 128 is stored into as that of position 64 of sequence 0 too",
            ),
            (seen(None, true), &[128], &[0], "position 128 and"),
            (seen(None, false), &[129], &[0], "position 128 and"),
            (seen(Some(2), false), &[193], &[0], "page 9 of position 192"),
        ] {
            let found = wrong(used, positions, sequences).expect("a complaint");
            assert!(found.contains(part), "{found}");
        }
    }
}
