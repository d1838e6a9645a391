//! What only a run can know of positions and sequences, checked alike by every backend.

/// What positions and sequences stay within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLimits {
    /// Positions end below this, in a global cache.
    pub capacity: Option<u64>,
    /// How many sequences there are.
    pub sequences: u64,
    /// The most tokens of a sequence, where there is a bound.
    pub most: Option<u64>,
}

impl TokenLimits {
    /// What is wrong with an op's tokens, if anything is: positions ascend by one within a sequence, from zero or
    /// above; the tokens of a sequence follow each other.
    #[must_use]
    pub fn complaint(&self, positions: &[i32], sequences: Option<&[i32]>) -> Option<String> {
        match sequences {
            // Validation has seen to the number of tokens of a single sequence.
            None => wrong(positions, self.capacity),
            Some(sequences) => wrong_sequences(positions, sequences, *self),
        }
    }
}

/// What is wrong with the tokens of several sequences, if anything is.
fn wrong_sequences(positions: &[i32], sequences: &[i32], limits: TokenLimits) -> Option<String> {
    let mut seen = vec![false; limits.sequences as usize];
    let mut start = 0;
    while start < sequences.len() {
        let sequence = sequences[start];
        let Some(seen) = usize::try_from(sequence).ok().and_then(|s| seen.get_mut(s)) else {
            return Some(format!(
                "sequence {sequence} is not one of the cache's {}",
                limits.sequences
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
        if limits.most.is_some_and(|most| count as u64 > most) {
            return Some(format!(
                "sequence {sequence} has {count} tokens, more than the {} that the cache allows at once",
                limits.most.unwrap_or_default()
            ));
        }
        if let Some(found) = wrong(&positions[start..start + count], limits.capacity) {
            return Some(format!("sequence {sequence}: {found}"));
        }
        start += count;
    }
    None
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
        };
        let wrong =
            |positions: &[i32], sequences: &[i32]| wrong_sequences(positions, sequences, limits);
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
}
