//! What an engine is asked for, and what comes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, Sender, channel};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::sampling::Sampling;
use crate::{Constraint, Error, Figures, Finish, Result};

/// A text to go on with.
#[derive(Debug, Clone)]
pub struct Request {
    /// The text so far, at least one token.
    pub prompt: Vec<i32>,
    /// The most tokens to generate; `None` until the model ends its text or the
    /// context is full.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What the random numbers start from that tokens are chosen with.
    pub seed: u64,
    /// What is added to tokens' logits before one is chosen.
    pub logit_bias: Vec<(i32, f32)>,
    /// The form that the text is to have.
    pub constraint: Option<Constraint>,
    /// How many of the likeliest tokens come with each, with their log-probabilities
    /// by the model's own logits; `None` for no log-probabilities.
    pub top_logprobs: Option<usize>,
    /// Texts that end the text where they begin, as in
    /// [`GenerateOptions`](crate::GenerateOptions::stop).
    pub stop: Vec<String>,
    /// Requests of a higher priority begin first, and give way last. Of equals the
    /// earlier does.
    pub priority: i32,
    /// When the text ends wherever it is.
    pub deadline: Option<Instant>,
    /// Positions of the prompt at which others that begin like it may part from it: the ends
    /// of messages, of a document. It is read in calls that end there, and a prompt that has
    /// the same tokens up to there goes on from there. Between them that is so behind each
    /// [chunk](super::EngineOptions::chunk). Those outside of the prompt count for nothing.
    pub checkpoints: Vec<usize>,
    /// Beginnings are shared with requests of the same salt alone.
    pub salt: Option<String>,
}

impl Request {
    /// What follows a prompt, by the default sampling.
    #[must_use]
    pub fn new(prompt: Vec<i32>) -> Self {
        Self {
            prompt,
            max_tokens: None,
            sampling: Sampling::default(),
            seed: 0,
            logit_bias: Vec::new(),
            constraint: None,
            top_logprobs: None,
            stop: Vec::new(),
            priority: 0,
            deadline: None,
            checkpoints: Vec::new(),
            salt: None,
        }
    }
}

/// A token of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The token; `None` of what was held back of the text until its end.
    pub token: Option<i32>,
    /// What is known of the text with it: whole characters, possibly none.
    pub text: String,
    /// Its log-probabilities, if they were asked for.
    pub logprobs: Option<Logprobs>,
}

/// Log-probabilities of a token, by the model's own logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// That of the token.
    pub token: f32,
    /// The likeliest tokens and theirs, the likeliest first.
    pub top: Vec<(i32, f32)>,
}

/// What an engine says about a request.
pub(super) enum Event {
    Piece(Piece),
    Ended(Finish, Figures),
    Failed(Error),
}

/// The engine's end of a stream.
pub(super) struct Outlet {
    events: Sender<Event>,
    cancelled: Arc<AtomicBool>,
}

impl Outlet {
    /// Whether nobody wants more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Says something; who is gone does not hear it.
    pub(super) fn say(&self, event: Event) {
        if self.events.send(event).is_err() {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }
}

/// The answer to a [`Request`], piece by piece. Dropping it ends the request within a step.
pub struct Stream {
    events: Receiver<Event>,
    cancelled: Arc<AtomicBool>,
    ended: Option<(Finish, Figures)>,
    over: bool,
}

impl Stream {
    pub(super) fn new() -> (Outlet, Self) {
        let (sender, events) = channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let outlet = Outlet {
            events: sender,
            cancelled: Arc::clone(&cancelled),
        };
        let stream = Self {
            events,
            cancelled,
            ended: None,
            over: false,
        };
        (outlet, stream)
    }

    /// Ends the text within a step. What was generated until then still comes.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Why the text ended; `None` while it goes on, and where an error ended it.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.ended.map(|(finish, _)| finish)
    }

    /// What it took, once it has ended.
    #[must_use]
    pub fn figures(&self) -> Option<&Figures> {
        self.ended.as_ref().map(|(_, figures)| figures)
    }

    /// All of the text that is still to come.
    ///
    /// # Errors
    /// As the iterator.
    pub fn text(&mut self) -> Result<String> {
        self.map(|piece| Ok(piece?.text)).collect()
    }

    /// The next piece, if it comes within some time.
    pub fn poll(&mut self, wait: Duration) -> Poll<Option<Result<Piece>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.events.recv_timeout(wait) {
            Ok(event) => Poll::Ready(self.hear(Ok(event))),
            Err(RecvTimeoutError::Timeout) => Poll::Pending,
            Err(RecvTimeoutError::Disconnected) => Poll::Ready(self.hear(Err(RecvError))),
        }
    }

    fn hear(&mut self, event: std::result::Result<Event, RecvError>) -> Option<Result<Piece>> {
        match event {
            Ok(Event::Piece(piece)) => return Some(Ok(piece)),
            Ok(Event::Ended(finish, figures)) => self.ended = Some((finish, figures)),
            Ok(Event::Failed(error)) => {
                self.over = true;
                return Some(Err(error));
            }
            Err(RecvError) => {
                self.over = true;
                let what = "it was shut down before the text had ended".into();
                return Some(Err(Error::Engine { what }));
            }
        }
        self.over = true;
        None
    }
}

impl Iterator for Stream {
    type Item = Result<Piece>;

    /// Waits for the next piece.
    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let event = self.events.recv();
        self.hear(event)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("finish", &self.finish())
            .finish_non_exhaustive()
    }
}
