//! Answers as they come from an engine: what a model says, told apart into text, reasoning and calls of tools.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use walsh_runtime::chat::{Delta, OutputParser};
use walsh_runtime::{Figures, Finish, Logprobs, Request, Stream};

use crate::App;
use crate::error::{ApiError, Result};
use crate::models::{Lent, Place};

/// What an answer says next.
pub(crate) enum Said {
    /// What was asked of the prompt's tokens, from the second on.
    Prompt(Vec<Logprobs>),
    /// A piece of it, possibly an empty one.
    Piece(Piece),
    /// It has ended.
    End(Ended),
}

/// A piece of an answer.
pub(crate) struct Piece {
    pub(crate) deltas: Vec<Delta>,
    /// Its token and what is known of it, if that was asked for.
    pub(crate) token: Option<(i32, Logprobs)>,
}

impl Piece {
    /// Its text, where there are no tools.
    pub(crate) fn text(&self) -> String {
        let texts = self.deltas.iter().filter_map(|delta| match delta {
            Delta::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }
}

/// How an answer has ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) finish: Finish,
    pub(crate) figures: Figures,
    /// The stop text that came up.
    pub(crate) stop: Option<String>,
    /// Whether it has calls of tools.
    pub(crate) called: bool,
    /// How many of its tokens were reasoning.
    pub(crate) reasoning: usize,
    /// Which slot it had.
    pub(crate) slot: Option<usize>,
}

/// An answer on its way.
pub(crate) struct Answer {
    app: Arc<App>,
    pub(crate) served: Arc<Lent>,
    pub(crate) stream: Stream,
    parser: Option<OutputParser>,
    is_prompt_told: bool,
    /// Whether it is calls of tools alone: what was broken off before one is complete is no text then.
    calls_only: bool,
    called: bool,
    reasoning: usize,
    asked: Instant,
    /// When the latest token came.
    latest: Option<Instant>,
    /// What the parser made of the last piece, and how it ended.
    rest: VecDeque<Said>,
    over: bool,
}

impl Answer {
    /// Asks an engine. With the parser goes whether the answer is calls of tools alone.
    pub(crate) fn new(
        app: &Arc<App>,
        served: &Arc<Lent>,
        request: Request,
        parser: Option<(OutputParser, bool)>,
    ) -> Result<Self> {
        app.metrics.requests.get_or_create(&served.of).inc();
        let failed = || app.metrics.failed.get_or_create(&served.of).inc();
        let stream = served.engine.submit(request).inspect_err(|_| {
            failed();
        })?;
        Ok(Self {
            app: Arc::clone(app),
            served: Arc::clone(served),
            stream,
            calls_only: parser.as_ref().is_some_and(|(_, only)| *only),
            parser: parser.map(|(parser, _)| parser),
            is_prompt_told: false,
            called: false,
            reasoning: 0,
            asked: Instant::now(),
            latest: None,
            rest: VecDeque::new(),
            over: false,
        })
    }

    /// What comes next; nothing behind an end or an error.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Said>>> {
        if let Some(said) = self.rest.pop_front() {
            return Poll::Ready(Some(Ok(said)));
        }
        if self.over {
            return Poll::Ready(None);
        }
        let next = self.stream.poll_next(context);
        if let Poll::Ready(next) = next {
            return Poll::Ready(self.hear(next));
        }
        Poll::Pending
    }

    /// What the engine says, as clients are told it.
    fn hear(
        &mut self,
        next: Option<walsh_runtime::Result<walsh_runtime::Piece>>,
    ) -> Option<Result<Said>> {
        let told = self
            .stream
            .prompt_logprobs()
            .filter(|_| !self.is_prompt_told);
        let told = told.map(<[Logprobs]>::to_vec);
        let said = self.said(next);
        match told {
            None => said,
            Some(told) => {
                self.is_prompt_told = true;
                match said {
                    Some(Ok(said)) => self.rest.push_front(said),
                    said => return said,
                }
                Some(Ok(Said::Prompt(told)))
            }
        }
    }

    fn said(
        &mut self,
        next: Option<walsh_runtime::Result<walsh_runtime::Piece>>,
    ) -> Option<Result<Said>> {
        let piece = match next {
            None => return self.end(),
            Some(Err(error)) => {
                self.over = true;
                let metrics = &self.app.metrics;
                metrics.failed.get_or_create(&self.served.of).inc();
                return Some(Err(error.into()));
            }
            Some(Ok(piece)) => piece,
        };
        if piece.token.is_some() {
            let (of, now) = (&self.served.of, Instant::now());
            match self.latest.replace(now) {
                None => self.app.metrics.first_token(of, now - self.asked),
                Some(latest) => self.app.metrics.next_token(of, now - latest),
            }
        }
        let deltas = match &mut self.parser {
            Some(parser) => parser.push(&piece.text),
            None if piece.text.is_empty() => Vec::new(),
            None => vec![Delta::Text(piece.text)],
        };
        self.note(&deltas);
        Some(Ok(Said::Piece(Piece {
            deltas,
            token: piece.token.zip(piece.logprobs),
        })))
    }

    fn note(&mut self, deltas: &[Delta]) {
        self.called |= deltas
            .iter()
            .any(|delta| matches!(delta, Delta::Call { .. }));
        let reasoning = deltas
            .iter()
            .any(|delta| matches!(delta, Delta::Reasoning(_)));
        self.reasoning += usize::from(reasoning);
    }

    fn end(&mut self) -> Option<Result<Said>> {
        self.over = true;
        self.served.tell_trouble();
        let (finish, figures) = self.stream.finish().zip(self.stream.figures().copied())?;
        let mut deltas = match &mut self.parser {
            Some(parser) => parser.finish(),
            None => Vec::new(),
        };
        deltas.retain(|delta| !self.calls_only || !matches!(delta, Delta::Text(_)));
        self.note(&deltas);
        let end = Said::End(Ended {
            finish,
            figures,
            stop: self.stream.stopped_by().map(str::to_owned),
            called: self.called,
            reasoning: self.reasoning,
            slot: self.stream.slot(),
        });
        if deltas.is_empty() {
            return Some(Ok(end));
        }
        self.rest.push_back(end);
        let token = None;
        Some(Ok(Said::Piece(Piece { deltas, token })))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // What the stream does then ends the text within a step.
        if !self.over {
            let metrics = &self.app.metrics;
            metrics.cancelled.get_or_create(&self.served.of).inc();
        }
    }
}

/// The answers to a request.
pub(crate) struct Answers {
    pub(crate) answers: Vec<Answer>,
    /// Which is asked first, so that none waits for others.
    turn: usize,
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: usize,
    _place: Place,
}

impl Answers {
    pub(crate) fn new(answers: Vec<Answer>, prompt_tokens: usize, place: Place) -> Self {
        Self {
            answers,
            turn: 0,
            prompt_tokens,
            _place: place,
        }
    }

    /// What one of them says next, and which; nothing when all have ended.
    ///
    /// # Errors
    /// When one of them ends with an error; the others are of no use then.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<(usize, Said)>>> {
        let count = self.answers.len();
        let mut waits = false;
        for place in (0..count).map(|place| (self.turn + place) % count) {
            match self.answers[place].poll(context) {
                Poll::Pending => waits = true,
                Poll::Ready(None) => {}
                Poll::Ready(Some(said)) => {
                    self.turn = (place + 1) % count;
                    return Poll::Ready(Some(said.map(|said| (place, said))));
                }
            }
        }
        match waits {
            true => Poll::Pending,
            false => Poll::Ready(None),
        }
    }

    /// As [`poll`](Self::poll).
    pub(crate) async fn next(&mut self) -> Option<Result<(usize, Said)>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// All of what the only one says.
    pub(crate) async fn only(self) -> Result<Whole> {
        let missing = || ApiError::internal("there is no answer, which is a fault of Walsh");
        self.whole().await?.pop().ok_or_else(missing)
    }

    /// All of what they say.
    pub(crate) async fn whole(mut self) -> Result<Vec<Whole>> {
        let mut wholes: Vec<Whole> = self.answers.iter().map(|_| Whole::default()).collect();
        while let Some(said) = self.next().await {
            let (place, said) = said?;
            wholes[place].take(said);
        }
        for (whole, answer) in wholes.iter_mut().zip(&self.answers) {
            whole.embedding = answer.stream.embedding().map(<[f32]>::to_vec);
        }
        Ok(wholes)
    }
}

/// A call of a tool.
#[derive(Debug, Default, Clone)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// JSON.
    pub(crate) arguments: String,
}

/// An answer that has ended.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) tokens: Vec<(i32, Logprobs)>,
    pub(crate) ended: Option<Ended>,
    pub(crate) embedding: Option<Vec<f32>>,
    /// Of the prompt's tokens from the second on.
    pub(crate) prompt: Option<Vec<Logprobs>>,
}

impl Whole {
    fn take(&mut self, said: Said) {
        match said {
            Said::Prompt(logprobs) => self.prompt = Some(logprobs),
            Said::End(ended) => self.ended = Some(ended),
            Said::Piece(piece) => {
                self.tokens.extend(piece.token);
                for delta in piece.deltas {
                    match delta {
                        Delta::Text(text) => self.text.push_str(&text),
                        Delta::Reasoning(text) => self.reasoning.push_str(&text),
                        Delta::Call { index, name } => {
                            self.calls.resize_with(index + 1, Call::default);
                            self.calls[index].name = name;
                        }
                        Delta::Arguments { index, text } => {
                            if let Some(call) = self.calls.get_mut(index) {
                                call.arguments.push_str(&text);
                            }
                        }
                    }
                }
            }
        }
    }

    /// How it has ended.
    ///
    /// # Errors
    /// When it has not.
    pub(crate) fn ended(&self) -> Result<&Ended> {
        let missing = || ApiError::internal("an answer has not ended, which is a fault of Walsh");
        self.ended.as_ref().ok_or_else(missing)
    }
}

/// What requests took, together: tokens of the prompt once, and of all answers.
pub(crate) fn sum<'a>(ended: impl IntoIterator<Item = &'a Ended>) -> Usage {
    let mut usage = Usage::default();
    for Ended {
        figures, reasoning, ..
    } in ended
    {
        usage.prompt = figures.prompt_tokens;
        usage.cached = usage.cached.max(figures.reused_tokens);
        usage.generated += figures.generated_tokens;
        usage.reasoning += reasoning;
    }
    usage
}

/// Tokens of a request.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) prompt: usize,
    /// Those of the prompt that were not read.
    pub(crate) cached: usize,
    pub(crate) generated: usize,
    /// Those of them that were reasoning.
    pub(crate) reasoning: usize,
}
