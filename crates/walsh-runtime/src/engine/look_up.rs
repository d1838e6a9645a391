//! Speculation without a second model: what followed the latest tokens when they came before is likely to follow again.
//!
//! After Saxena, "Prompt Lookup Decoding" (2023). What is looked up is read together with the next token, in rows of one
//! step, and chosen as if it had been read token by token: a token that the choice does not confirm, and those behind it,
//! are as if they had not been read.

/// How many of the latest tokens have to have come before.
const SUFFIX: usize = 3;

/// The longest pause after tokens that were not found, in steps.
const LONGEST_PAUSE: usize = 32;

/// What is looked up for a text, and how well that went.
#[derive(Debug, Default)]
pub(super) struct LookUp {
    /// The most tokens at once; 0 for none.
    most: usize,
    /// How many are looked up next.
    next: usize,
    /// Steps until some are.
    pause: usize,
    /// The latest pause.
    paused: usize,
}

impl LookUp {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            next: most.div_ceil(2),
            pause: 0,
            paused: 0,
        }
    }

    /// What may follow a text.
    pub(super) fn find(&mut self, tokens: &[i32], room: usize) -> Vec<i32> {
        let count = self.next.min(room);
        if self.pause > 0 || count == 0 {
            self.pause = self.pause.saturating_sub(1);
            return Vec::new();
        }
        find(tokens, count).to_vec()
    }

    /// So many of the tokens that were looked up were chosen.
    pub(super) fn note(&mut self, looked_up: usize, chosen: usize) {
        if chosen == looked_up {
            self.next = (self.next * 2).min(self.most);
            self.paused = 0;
        } else if chosen == 0 {
            self.next = 1;
            self.paused = (self.paused * 2).clamp(1, LONGEST_PAUSE);
            self.pause = self.paused;
        } else {
            self.next = chosen;
            self.paused = 0;
        }
    }
}

/// What followed the latest tokens where they came before, at the latest place where enough did.
fn find(tokens: &[i32], count: usize) -> &[i32] {
    let Some(before) = tokens.len().checked_sub(SUFFIX) else {
        return &[];
    };
    let suffix = &tokens[before..];
    let places = (0..before)
        .rev()
        .filter(|start| tokens[*start..].starts_with(suffix));
    let follows = |start: usize| {
        let from = start + SUFFIX;
        &tokens[from..(from + count).min(tokens.len())]
    };
    let mut best: &[i32] = &[];
    for found in places.map(follows) {
        if found.len() > best.len() {
            best = found;
        }
        if best.len() == count {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_place_that_says_enough_is_gone_on_from() {
        assert_eq!(find(&[1, 2, 3, 4, 5, 1, 2, 3], 2), [4, 5]);
        assert_eq!(find(&[1, 2, 3, 4, 1, 2, 3, 9, 1, 2, 3], 2), [9, 1]);
        assert_eq!(find(&[7, 7, 7, 7], 3), [7]);
        assert_eq!(find(&[7; 9], 3), [7; 3]);
        for nothing in [&[][..], &[1, 2], &[1, 2, 3], &[1, 2, 3, 4, 5]] {
            assert!(find(nothing, 4).is_empty());
        }
    }

    #[test]
    fn who_finds_nothing_looks_more_seldom() {
        let text = [7; 20];
        let mut look_up = LookUp::new(7);
        assert_eq!(look_up.find(&text, 100).len(), 4);
        look_up.note(4, 4);
        assert_eq!(look_up.find(&text, 100).len(), 7);
        assert_eq!(look_up.find(&text, 3).len(), 3);
        look_up.note(7, 2);
        assert_eq!(look_up.find(&text, 100).len(), 2);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            look_up.note(2, 0);
            pauses.push(
                (0..100)
                    .take_while(|_| look_up.find(&text, 100).is_empty())
                    .count(),
            );
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
        assert!(LookUp::new(0).find(&text, 100).is_empty());
    }
}
