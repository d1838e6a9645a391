//! What an engine is asked for, and what comes of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::pooling::Pooling;
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
    /// What is taken from the logits of tokens that the answer has already: once each.
    pub presence_penalty: f32,
    /// The same for each time that the answer has them.
    pub frequency_penalty: f32,
    /// The form that the text is to have.
    pub constraint: Option<Constraint>,
    /// Whether tokens are looked up in the text so far, if the [engine](super::EngineOptions::look_up)
    /// does that: the answer comes sooner where it repeats what was said, and is the same as far
    /// as that says.
    pub look_up: bool,
    /// How many of the likeliest tokens come with each, with their log-probabilities
    /// by the model's own logits; `None` for no log-probabilities.
    pub top_logprobs: Option<usize>,
    /// The same for the tokens of the prompt, the first excepted, which all of it is read for: see
    /// [`Stream::prompt_logprobs`].
    pub prompt_logprobs: Option<usize>,
    /// Whether what the model makes of the prompt is wanted as a vector: see [`Stream::embedding`].
    pub pooling: Option<Pooling>,
    /// Texts that end the text where they begin, as in
    /// [`GenerateOptions`](crate::GenerateOptions::stop).
    pub stop: Vec<String>,
    /// Whether control tokens are part of the text, by their names.
    pub show_control: bool,
    /// Requests of a higher priority begin first, and give way last. Of equals the
    /// earlier does.
    pub priority: i32,
    /// Who asks: of those that wait, the client begins whose requests have taken the fewest tokens
    /// since it came.
    pub client: Option<String>,
    /// When the text ends wherever it is.
    pub deadline: Option<Instant>,
    /// Positions of the prompt at which others that begin like it may part from it: the ends
    /// of messages, of a document. It is read in calls that end there, and a prompt that has
    /// the same tokens up to there goes on from there. Between them that is so behind each
    /// [chunk](super::EngineOptions::chunk). Those outside of the prompt count for nothing.
    pub checkpoints: Vec<usize>,
    /// Beginnings are shared with requests of the same salt alone.
    pub salt: Option<String>,
    /// The model's [adapters](crate::Model::adapters) that it takes, by their places, and how much of each, in the place of what
    /// texts take that say nothing. Beginnings are shared with requests that take the same.
    pub adapters: Option<Vec<(usize, f32)>>,
    /// The slot that it is to have, below the engine's number of sequences: it waits until nobody
    /// has it. Otherwise that of the conversation that it goes on, or else one whose text was of
    /// use the longest ago.
    pub slot: Option<usize>,
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
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            constraint: None,
            look_up: false,
            top_logprobs: None,
            prompt_logprobs: None,
            pooling: None,
            stop: Vec::new(),
            show_control: false,
            priority: 0,
            client: None,
            deadline: None,
            checkpoints: Vec::new(),
            salt: None,
            adapters: None,
            slot: None,
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
    /// Of the prompt, once all of it was read.
    Prompt {
        logprobs: Option<Vec<Logprobs>>,
        embedding: Option<Vec<f32>>,
    },
    Piece(Piece),
    /// Why, what it took, and the stop text that came up.
    Ended(Finish, Figures, Option<String>),
    Failed(Error),
}

/// What both ends of a stream see.
#[derive(Default)]
struct Line {
    cancelled: AtomicBool,
    /// The number of its slot behind 0, which is for none.
    slot: AtomicUsize,
    /// Who is to be told of the next event.
    waker: Mutex<Option<Waker>>,
}

impl Line {
    fn waker(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's end of a stream.
pub(super) struct Outlet {
    /// There until this is dropped.
    events: Option<Sender<Event>>,
    line: Arc<Line>,
}

impl Outlet {
    /// Whether nobody wants more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.line.cancelled.load(Ordering::Relaxed)
    }

    /// Says which slot it has.
    pub(super) fn say_slot(&self, slot: usize) {
        self.line.slot.store(slot + 1, Ordering::Relaxed);
    }

    /// Says something; who is gone does not hear it.
    pub(super) fn say(&self, event: Event) {
        let sent = self.events.as_ref().map(|events| events.send(event));
        if !matches!(sent, Some(Ok(()))) {
            self.line.cancelled.store(true, Ordering::Relaxed);
        }
        self.wake();
    }

    fn wake(&self) {
        let waker = self.line.waker().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // Who is woken finds the channel closed.
        self.events = None;
        self.wake();
    }
}

/// The answer to a [`Request`], piece by piece. Dropping it ends the request within a step.
pub struct Stream {
    events: Receiver<Event>,
    line: Arc<Line>,
    prompt: (Option<Vec<Logprobs>>, Option<Vec<f32>>),
    ended: Option<(Finish, Figures)>,
    stopped_by: Option<String>,
    over: bool,
}

impl Stream {
    pub(super) fn new() -> (Outlet, Self) {
        let (sender, events) = channel();
        let line = Arc::<Line>::default();
        let outlet = Outlet {
            events: Some(sender),
            line: Arc::clone(&line),
        };
        let stream = Self {
            events,
            line,
            prompt: (None, None),
            ended: None,
            stopped_by: None,
            over: false,
        };
        (outlet, stream)
    }

    /// Ends the text within a step. What was generated until then still comes.
    pub fn cancel(&self) {
        self.line.cancelled.store(true, Ordering::Relaxed);
    }

    /// Which slot of the engine it has or had; `None` while it has not begun. It is the same until its end.
    #[must_use]
    pub fn slot(&self) -> Option<usize> {
        self.line.slot.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The log-probabilities of the prompt's tokens from the second on, if they were asked for and all of it was read.
    #[must_use]
    pub fn prompt_logprobs(&self) -> Option<&[Logprobs]> {
        self.prompt.0.as_deref()
    }

    /// The vector of the prompt, of as many numbers as the model's embeddings have, if it was asked for and all of the
    /// prompt was read. It is not normalised.
    #[must_use]
    pub fn embedding(&self) -> Option<&[f32]> {
        self.prompt.1.as_deref()
    }

    /// Why the text ended; `None` while it goes on, and where an error ended it.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.ended.map(|(finish, _)| finish)
    }

    /// Which [stop text](Request::stop) ended it, if one did.
    #[must_use]
    pub fn stopped_by(&self) -> Option<&str> {
        self.stopped_by.as_deref()
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
        let end = Instant::now() + wait;
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            let left = end.saturating_duration_since(Instant::now());
            let event = match self.events.recv_timeout(left) {
                Ok(event) => Ok(event),
                Err(RecvTimeoutError::Timeout) => return Poll::Pending,
                Err(RecvTimeoutError::Disconnected) => Err(RecvError),
            };
            if let Some(heard) = self.hear(event) {
                return Poll::Ready(heard);
            }
        }
    }

    /// The next piece, if it is there; otherwise the task of `context` is woken with it.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            // Before it is looked for: what comes in between wakes the task.
            *self.line.waker() = Some(context.waker().clone());
            let event = match self.events.try_recv() {
                Ok(event) => Ok(event),
                Err(TryRecvError::Empty) => return Poll::Pending,
                Err(TryRecvError::Disconnected) => Err(RecvError),
            };
            if let Some(heard) = self.hear(event) {
                return Poll::Ready(heard);
            }
        }
    }

    /// What an event is to who iterates, if it is anything.
    fn hear(
        &mut self,
        event: std::result::Result<Event, RecvError>,
    ) -> Option<Option<Result<Piece>>> {
        match event {
            Ok(Event::Piece(piece)) => return Some(Some(Ok(piece))),
            Ok(Event::Prompt {
                logprobs,
                embedding,
            }) => {
                self.prompt = (logprobs, embedding);
                return None;
            }
            Ok(Event::Ended(finish, figures, stop)) => {
                self.ended = Some((finish, figures));
                self.stopped_by = stop;
            }
            Ok(Event::Failed(error)) => {
                self.over = true;
                return Some(Some(Err(error)));
            }
            Err(RecvError) => {
                self.over = true;
                let what = "it was shut down before the text had ended".into();
                return Some(Some(Err(Error::Engine { what })));
            }
        }
        self.over = true;
        Some(None)
    }
}

impl Iterator for Stream {
    type Item = Result<Piece>;

    /// Waits for the next piece.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.over {
                return None;
            }
            let event = self.events.recv();
            if let Some(heard) = self.hear(event) {
                return heard;
            }
        }
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
