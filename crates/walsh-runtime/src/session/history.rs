//! What a session has read, and in which calls.

use std::ops::Range;

use crate::model::graph::Reading;

/// One run of the model over consecutive tokens.
///
/// How a token was fed decides its keys and values to the last bit: products of
/// one row and of many round differently, and a prefilled token sees those
/// before it in its chunk unquantised. So reading a text again, to the bit, takes
/// the same calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) reading: Reading,
    pub(super) rows: usize,
}

/// A session's tokens, and how they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Those that were read, and behind them those that wait.
    pub(super) tokens: Vec<i32>,
    /// What read them; the rows add up to `stored`.
    pub(super) calls: Vec<Call>,
    /// How many tokens were read: their keys and values are stored.
    pub(super) stored: usize,
}

impl History {
    /// The tokens that wait to be read.
    pub(super) fn waiting(&self) -> &[i32] {
        self.tokens.get(self.stored..).unwrap_or_default()
    }

    /// Drops the tokens that wait.
    pub(super) fn drop_waiting(&mut self) {
        self.tokens.truncate(self.stored);
    }

    /// Notes a call that has read waiting tokens.
    pub(super) fn note(&mut self, call: Call) {
        self.calls.push(call);
        self.stored += call.rows;
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes tokens back: `position` are left, of which those from the start of
    /// some call on wait to be read again. Returns the calls that do it.
    ///
    /// A call that is cut counts as the shorter one, so it is run again. So is what
    /// follows the longest beginning that can be returned to; nothing always can.
    pub(super) fn cut(&mut self, position: usize, returns: &dyn Fn(usize) -> bool) -> Vec<Call> {
        let Range { start, end } = self.calls_around(position, returns);
        let mut again = self.calls[start..end].to_vec();
        let kept: usize = self.calls[..start].iter().map(|call| call.rows).sum();
        let rows: usize = again.iter().map(|call| call.rows).sum();
        if let Some(last) = again.last_mut() {
            last.rows -= (kept + rows).saturating_sub(position);
        }
        self.calls.truncate(start);
        self.tokens.truncate(position);
        self.stored = kept;
        again
    }

    /// The calls that are to be run again for `position` tokens to be left.
    fn calls_around(&self, position: usize, returns: &dyn Fn(usize) -> bool) -> Range<usize> {
        // Where a call ends at or before the position, and where the first one
        // ends at or behind it.
        let (mut start, mut end, mut tokens) = (0, 0, 0);
        while tokens < position && end < self.calls.len() {
            tokens += self.calls[end].rows;
            end += 1;
            if tokens <= position && returns(tokens) {
                start = end;
            }
        }
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(reading: Reading, rows: usize) -> Call {
        Call { reading, rows }
    }

    /// Ten tokens: a prompt of five in chunks of four, three decoded, two scored.
    fn history() -> History {
        let mut history = History {
            tokens: (0..11).collect(),
            ..History::default()
        };
        for (reading, rows) in [
            (Reading::CodesAndFresh, 4),
            (Reading::CodesAndFresh, 1),
            (Reading::Codes, 1),
            (Reading::Codes, 1),
            (Reading::Codes, 1),
            (Reading::Codes, 2),
        ] {
            history.note(call(reading, rows));
        }
        history
    }

    #[test]
    fn at_the_end_of_a_call_nothing_is_read_again() {
        for (position, calls) in [(0, 0), (4, 1), (5, 2), (6, 3), (8, 5), (10, 6)] {
            let mut cut = history();
            assert_eq!(cut.cut(position, &|_| true), []);
            assert_eq!(cut.calls, history().calls[..calls]);
            assert_eq!(cut.stored, position);
            assert_eq!(cut.tokens, history().tokens[..position]);
        }
    }

    #[test]
    fn a_call_that_is_cut_is_run_again_shorter() {
        let mut cut = history();
        assert_eq!(cut.cut(9, &|_| true), [call(Reading::Codes, 1)]);
        assert_eq!((cut.stored, cut.waiting()), (8, &[8][..]));
        let mut cut = history();
        assert_eq!(cut.cut(3, &|_| true), [call(Reading::CodesAndFresh, 3)]);
        assert_eq!((cut.stored, cut.waiting()), (0, &[0, 1, 2][..]));
    }

    #[test]
    fn what_follows_the_latest_state_is_read_again() {
        let mut cut = history();
        let again = cut.cut(9, &|length| length == 5);
        assert_eq!(again[..3], history().calls[2..5]);
        assert_eq!(again[3..], [call(Reading::Codes, 1)]);
        assert_eq!((cut.stored, cut.waiting().len()), (5, 4));
        let mut cut = history();
        assert_eq!(cut.cut(5, &|length| length == 5), []);
    }

    #[test]
    fn what_was_overwritten_is_read_from_the_start() {
        let mut cut = history();
        let again = cut.cut(9, &|length| length >= 9);
        assert_eq!(again.len(), 6);
        assert_eq!(again[..5], history().calls[..5]);
        assert_eq!(again[5], call(Reading::Codes, 1));
        assert_eq!((cut.stored, cut.waiting().len()), (0, 9));
        let mut cut = history();
        assert_eq!(cut.cut(9, &|length| length >= 8).len(), 1);
        let mut cut = history();
        assert_eq!(cut.cut(0, &|length| length >= 9), []);
        assert_eq!(cut, History::default());
    }
}
