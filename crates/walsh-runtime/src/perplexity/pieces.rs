//! Walks sessions through a chunk a few positions at a time and scores what
//! they predict.

use std::ops::Range;

use super::softmax::{Normaliser, divergence};
use super::stats::{Scored, Scores};
use crate::{Error, Result};

/// Logits of as many positions as fit into this many bytes are held at once.
const PIECE_BYTES: usize = 16 << 20;
/// Fewer rows would leave the matrix products at a fraction of their speed.
const MIN_ROWS: usize = 16;
const MAX_ROWS: usize = 256;

/// What is scored: a session, or a test's stand-in.
pub(super) trait Predictor {
    /// Forgets all tokens.
    fn reset(&mut self);

    /// Appends `tokens` and hands out the logits after each one from index
    /// `from` on, in order.
    fn score(
        &mut self,
        tokens: &[i32],
        from: usize,
        each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()>;
}

/// The logits of some successive positions.
struct Rows {
    vocabulary: usize,
    logits: Vec<f32>,
    normalisers: Vec<Normaliser>,
}

impl Rows {
    fn new(vocabulary: usize) -> Self {
        Self {
            vocabulary,
            logits: Vec::new(),
            normalisers: Vec::new(),
        }
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.logits[index * self.vocabulary..][..self.vocabulary]
    }

    /// Feeds `tokens` and keeps the logits after each.
    fn fill(&mut self, predictor: &mut impl Predictor, tokens: &[i32]) -> Result<()> {
        self.logits.clear();
        self.normalisers.clear();
        self.logits.reserve_exact(tokens.len() * self.vocabulary);
        let (vocabulary, logits) = (self.vocabulary, &mut self.logits);
        predictor.score(tokens, 0, &mut |index, row| {
            if row.len() != vocabulary || index * vocabulary != logits.len() {
                return Err(Error::measure(format!(
                    "position {index} of a piece gave {} logits out of order, expected {vocabulary}",
                    row.len()
                )));
            }
            logits.extend_from_slice(row);
            Ok(())
        })?;
        if self.logits.len() != tokens.len() * self.vocabulary {
            return Err(Error::measure(
                "the session scored fewer positions than it was given",
            ));
        }
        Ok(())
    }
}

/// The buffers of a run, kept from piece to piece.
pub(super) struct Pieces {
    reference: Rows,
    other: Rows,
    rows: usize,
    workers: usize,
}

impl Pieces {
    /// For rows of `vocabulary` logits, whose arithmetic `workers` threads share.
    pub(super) fn new(vocabulary: usize, workers: usize) -> Self {
        let row_bytes = vocabulary.max(1) * size_of::<f32>();
        Self {
            reference: Rows::new(vocabulary),
            other: Rows::new(vocabulary),
            rows: (PIECE_BYTES / row_bytes).clamp(MIN_ROWS, MAX_ROWS),
            workers: workers.max(1),
        }
    }

    /// Scores one chunk with every predictor; the first one is the reference.
    pub(super) fn score_chunk<P: Predictor>(
        &mut self,
        predictors: &mut [P],
        chunk: &[i32],
        scores: &mut [Scores],
    ) -> Result<()> {
        let first = chunk.len() / 2;
        for predictor in predictors.iter_mut() {
            predictor.reset();
            predictor.score(&chunk[..first], first, &mut |_, _| Ok(()))?;
        }
        // The last token only serves as a target.
        let scored = chunk.len() - 1;
        let mut start = first;
        while start < scored {
            let piece = start..(start + self.rows).min(scored);
            self.score_piece(predictors, (chunk, piece.clone()), scores)?;
            start = piece.end;
        }
        Ok(())
    }

    fn score_piece<P: Predictor>(
        &mut self,
        predictors: &mut [P],
        (chunk, piece): (&[i32], Range<usize>),
        scores: &mut [Scores],
    ) -> Result<()> {
        let tokens = &chunk[piece.clone()];
        let targets = &chunk[piece.start + 1..piece.end + 1];
        let workers = self.workers;
        for (index, (predictor, scores)) in predictors.iter_mut().zip(scores).enumerate() {
            let rows = if index == 0 {
                &mut self.reference
            } else {
                &mut self.other
            };
            rows.fill(predictor, tokens)?;
            rows.normalisers = in_parallel(tokens.len(), workers, |row| {
                Normaliser::new(rows.row(row)).ok_or_else(|| not_finite(piece.start + row))
            })?;
            let (reference, rows) = match index {
                0 => (None, &self.reference),
                _ => (Some(&self.reference), &self.other),
            };
            let scored = in_parallel(tokens.len(), workers, |row| {
                score_row(rows, reference, (row, targets[row]))
            })?;
            scored.into_iter().for_each(|scored| scores.add(scored));
        }
        Ok(())
    }
}

/// The error for logits that hold NaN or infinity.
fn not_finite(position: usize) -> Error {
    Error::measure(format!(
        "the logits at position {position} of a chunk are not finite: the model file is damaged, or the KV codec cannot hold its keys"
    ))
}

fn score_row(rows: &Rows, reference: Option<&Rows>, (row, target): (usize, i32)) -> Result<Scored> {
    let (logits, normaliser) = (rows.row(row), &rows.normalisers[row]);
    let logit = usize::try_from(target)
        .ok()
        .and_then(|target| logits.get(target))
        .ok_or_else(|| {
            Error::measure(format!(
                "token {target} of the text is not among the model's {} logits",
                logits.len()
            ))
        })?;
    let (divergence, same_top) = match reference {
        None => (0.0, true),
        Some(reference) => {
            let theirs = &reference.normalisers[row];
            let divergence = divergence((reference.row(row), theirs), (logits, normaliser));
            (divergence, theirs.top == normaliser.top)
        }
    };
    Ok(Scored {
        loss: -normaliser.log_probability(*logit),
        divergence,
        same_top,
    })
}

/// `work(0)`, …, `work(count − 1)` by a few threads, in order.
pub(crate) fn in_parallel<T: Send>(
    count: usize,
    workers: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let share = count.div_ceil(workers).max(1);
    let parts = std::thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = (share..count)
            .step_by(share)
            .map(|start| {
                let range = start..(start + share).min(count);
                scope.spawn(move || range.map(work).collect::<Result<Vec<T>>>())
            })
            .collect();
        let mine = (0..share.min(count)).map(work).collect::<Result<Vec<T>>>();
        let mut parts = vec![mine];
        parts.extend(others.into_iter().map(|other| {
            other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }));
        parts
    });
    let mut all = Vec::with_capacity(count);
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: usize = 300_000;

    /// Predicts `favourite + last token` with a given logit and all else with 0.
    struct Fake {
        fed: Vec<i32>,
        resets: usize,
        logit: f32,
    }

    impl Predictor for Fake {
        fn reset(&mut self) {
            self.fed.clear();
            self.resets += 1;
        }

        fn score(
            &mut self,
            tokens: &[i32],
            from: usize,
            each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
        ) -> Result<()> {
            for (index, &token) in tokens.iter().enumerate() {
                self.fed.push(token);
                if index >= from {
                    let mut row = vec![0.0; VOCABULARY];
                    row[token as usize + 1] = self.logit;
                    each(index, &row)?;
                }
            }
            Ok(())
        }
    }

    fn fake(logit: f32) -> Fake {
        Fake {
            fed: Vec::new(),
            resets: 0,
            logit,
        }
    }

    #[test]
    fn scores_the_second_half_but_for_the_last_token() {
        // A chunk of successive ids: every prediction's target has the logit.
        let chunk: Vec<i32> = (0..80).collect();
        let mut predictors = [fake(10.0), fake(12.0)];
        let mut scores = vec![Scores::default(); 2];
        for workers in [1, 2, 3] {
            let mut pieces = Pieces::new(VOCABULARY, workers);
            assert_eq!(pieces.rows, MIN_ROWS);
            pieces
                .score_chunk(&mut predictors, &chunk, &mut scores)
                .expect("scored");
        }
        let sum = |logit: f64| VOCABULARY as f64 - 1.0 + logit.exp();
        for (scores, logit) in scores.iter().zip([10.0f64, 12.0]) {
            let loss = sum(logit).ln() - logit;
            assert!((scores.perplexity() / loss.exp() - 1.0).abs() < 1e-5);
        }
        // 39 equal losses a chunk.
        assert!(scores[0].standard_error() < 1e-3 * scores[0].perplexity());
        let p = 10f64.exp() / sum(10.0);
        let want = p * (10.0 - 12.0) + sum(12.0).ln() - sum(10.0).ln();
        assert!((scores[1].mean_divergence() - want).abs() < 1e-6);
        assert_eq!(scores[1].same_top(), 1.0);
        assert_eq!(predictors[1].resets, 3);
        assert_eq!(predictors[1].fed, chunk[..79]);
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error_that_names_the_position() {
        let chunk: Vec<i32> = (0..8).collect();
        let error = Pieces::new(VOCABULARY, 2)
            .score_chunk(&mut [fake(f32::NAN)], &chunk, &mut [Scores::default()])
            .expect_err("NaN");
        assert!(error.to_string().contains("position 4"), "{error}");
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_an_error() {
        let chunk = [0, 1, 2, VOCABULARY as i32];
        let error = Pieces::new(VOCABULARY, 2)
            .score_chunk(&mut [fake(1.0)], &chunk, &mut [Scores::default()])
            .expect_err("target");
        assert!(error.to_string().contains("300000"), "{error}");
    }
}
