//! One request on its way.

use std::ops::Range;
use std::time::Instant;

use super::EngineOptions;
use super::request::{Event, Logprobs, Outlet, Piece, Request};
use crate::constraint::Guide;
use crate::generate::Stops;
use crate::sampling::{Random, Sampler};
use crate::tokenizer::Decoder;
use crate::{Error, Figures, Finish, Model, Result};

/// A text, what of it was read, and how it goes on.
pub(super) struct Sequence {
    model: Model,
    request: Request,
    /// The prompt and what was generated.
    tokens: Vec<i32>,
    /// How many tokens the caches hold.
    read: usize,
    /// Where in the caches, once it has begun.
    pub(super) slot: Option<usize>,
    /// Its place in line: the lower came first.
    pub(super) number: u64,
    context: usize,
    chunk: usize,
    sampler: Sampler,
    random: Random,
    decoder: Decoder,
    stops: Stops,
    guide: Option<Guide>,
    outlet: Outlet,
    submitted: Instant,
    /// When it was first given a slot.
    begun: Option<Instant>,
    figures: Figures,
    prompt_read: Option<Instant>,
}

/// What a sequence's next tokens attend over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rows {
    /// One token, over what is stored.
    Decode(usize),
    /// Tokens of the prompt, over each other as they are.
    Prefill(Range<usize>),
}

impl Rows {
    /// Their positions.
    pub(super) fn positions(&self) -> Range<usize> {
        match self {
            Self::Decode(position) => *position..position + 1,
            Self::Prefill(positions) => positions.clone(),
        }
    }
}

impl Sequence {
    pub(super) fn new(
        model: &Model,
        options: &EngineOptions,
        request: Request,
        outlet: Outlet,
    ) -> Result<Self> {
        let (prompt, context) = (&request.prompt, options.context);
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if prompt.len() >= context {
            let needed = prompt.len() + 1;
            return Err(Error::ContextFull { needed, context });
        }
        let vocabulary = model.config().vocabulary;
        let known = |id: i32| usize::try_from(id).is_ok_and(|id| id < vocabulary);
        let biased = request.logit_bias.iter().map(|(id, _)| id);
        if let Some(id) = prompt.iter().chain(biased).find(|id| !known(**id)) {
            let expected = format_args!("below the vocabulary's {vocabulary}");
            return Err(Error::option("token", expected, id));
        }
        if let Some((_, bias)) = request.logit_bias.iter().find(|(_, bias)| bias.is_nan()) {
            return Err(Error::option("logit_bias", "a number", bias));
        }
        if let Some(count) = request.top_logprobs.filter(|count| *count > vocabulary) {
            let expected = format_args!("at most the vocabulary's {vocabulary}");
            return Err(Error::option("top_logprobs", expected, count));
        }
        Ok(Self {
            sampler: Sampler::new(&request.sampling)?,
            random: Random::new(request.seed),
            // A form begins with a whole character.
            decoder: match request.constraint {
                Some(_) => Decoder::new(),
                None => Decoder::after(model.tokenizer(), prompt),
            },
            stops: Stops::new(&request.stop, model.tokenizer())?,
            guide: request
                .constraint
                .as_ref()
                .map(|form| model.guide(form))
                .transpose()?,
            model: model.clone(),
            tokens: prompt.clone(),
            read: 0,
            slot: None,
            number: 0,
            context,
            chunk: options.chunk,
            outlet,
            submitted: Instant::now(),
            begun: None,
            figures: Figures {
                prompt_tokens: prompt.len(),
                ..Figures::default()
            },
            prompt_read: None,
            request,
        })
    }

    /// What comes first in line: a higher priority, then who came earlier.
    pub(super) fn turn(&self) -> (std::cmp::Reverse<i32>, u64) {
        (std::cmp::Reverse(self.request.priority), self.number)
    }

    /// All of its tokens.
    pub(super) fn tokens(&self) -> &[i32] {
        &self.tokens
    }

    /// What is to be read next. A prompt's chunks begin at multiples of their size, so that they are the same whoever
    /// else is served; what was generated is read token by token, again too.
    pub(super) fn next_rows(&self) -> Rows {
        match self.request.prompt.len() {
            prompt if self.read < prompt => {
                let chunk = self.chunk - self.read % self.chunk;
                Rows::Prefill(self.read..prompt.min(self.read + chunk))
            }
            _ => Rows::Decode(self.read),
        }
    }

    /// Notes that the next rows were read; whether a token is to be chosen behind them.
    pub(super) fn advance(&mut self) -> bool {
        self.read = self.next_rows().positions().end;
        self.read == self.tokens.len()
    }

    /// Lets it begin, or begin again, in a slot.
    pub(super) fn begin(&mut self, slot: usize) {
        self.slot = Some(slot);
        self.begun.get_or_insert_with(Instant::now);
    }

    /// Forgets what was read: it is to be read again.
    pub(super) fn put_off(&mut self) {
        self.slot = None;
        self.read = 0;
    }

    /// Why it is to end before another step, if it is.
    pub(super) fn due(&self, now: Instant) -> Option<Finish> {
        let late = self
            .request
            .deadline
            .is_some_and(|deadline| now >= deadline);
        (late || self.outlet.is_cancelled()).then_some(Finish::Cancelled)
    }

    /// Whether the choice is the likeliest token by the model's own logits, and nothing else of them is wanted.
    pub(super) fn takes_likeliest(&self) -> bool {
        let Request {
            sampling,
            logit_bias,
            top_logprobs,
            ..
        } = &self.request;
        let free = logit_bias.is_empty() && self.guide.is_none();
        sampling.takes_likeliest() && free && top_logprobs.is_none()
    }

    /// Chooses the next token by logits, which biases are added to, among those that the constraint allows.
    pub(super) fn choose(&mut self, logits: &mut [f32]) -> Result<(i32, Option<Logprobs>)> {
        let wanted = self.request.top_logprobs;
        let known = wanted.map(|count| LogSoftmax::of(logits, count));
        for (token, bias) in &self.request.logit_bias {
            logits[*token as usize] += bias;
        }
        if let Some(guide) = &mut self.guide {
            guide.mask(logits)?;
        }
        let token = self
            .sampler
            .sample(logits, &self.tokens, &mut self.random)?;
        let of_it = self
            .request
            .logit_bias
            .iter()
            .filter(|(id, _)| *id == token);
        let bias: f32 = of_it.map(|(_, bias)| bias).sum();
        let logprobs = known.map(|known| Logprobs {
            token: logits[token as usize] - bias - known.log_sum,
            top: known.top,
        });
        Ok((token, logprobs))
    }

    /// Takes the chosen token; why the text ends with it, if it does.
    pub(super) fn push(&mut self, token: i32, logprobs: Option<Logprobs>) -> Option<Finish> {
        let now = Instant::now();
        if self.prompt_read.is_none() {
            self.figures.prompt_time = now - self.begun.unwrap_or(self.submitted);
            self.figures.first_token_time = now - self.submitted;
        }
        let prompt_read = *self.prompt_read.get_or_insert(now);
        self.figures.generated_tokens += 1;
        self.figures.generated_time = now - prompt_read;
        if self.stops.is_stop(token) {
            return Some(Finish::Stop);
        }
        if self.model.tokenizer().is_end(token) {
            return Some(Finish::End);
        }
        if let Some(guide) = &mut self.guide {
            guide.accept(token);
        }
        let text = self.decoder.push(self.model.tokenizer(), token);
        let stopped = self.stops.push(&text).is_some();
        let text = match stopped {
            true => self.stops.take_all(),
            false => self.stops.take(),
        };
        self.append(token);
        self.outlet.say(Event::Piece(Piece {
            token: Some(token),
            text,
            logprobs,
        }));
        let generated = self.tokens.len() - self.request.prompt.len();
        if stopped {
            Some(Finish::Stop)
        } else if self
            .request
            .max_tokens
            .is_some_and(|most| generated >= most)
        {
            Some(Finish::MaxTokens)
        } else {
            (self.tokens.len() >= self.context).then_some(Finish::ContextFull)
        }
    }

    /// Goes on with a token.
    pub(super) fn append(&mut self, token: i32) {
        self.tokens.push(token);
    }

    /// Takes back what lies behind the token that follows the first `read` ones.
    pub(super) fn rewind(&mut self, read: usize) {
        self.tokens.truncate(read + 1);
        self.read = read.min(self.tokens.len());
    }

    /// Whether nothing is to be generated.
    pub(super) fn wants_nothing(&self) -> bool {
        self.request.max_tokens == Some(0)
    }

    /// Ends it.
    pub(super) fn end(mut self, finish: Finish) {
        // A character that is broken off is not handed out.
        let rest = match finish {
            Finish::MaxTokens | Finish::Cancelled => String::new(),
            Finish::End | Finish::Stop | Finish::ContextFull => self.decoder.finish(),
        };
        let stopped = self.stops.push(&rest).is_some();
        let text = self.stops.take_all();
        if !text.is_empty() {
            self.outlet.say(Event::Piece(Piece {
                token: None,
                text,
                logprobs: None,
            }));
        }
        let finish = if stopped { Finish::Stop } else { finish };
        self.outlet.say(Event::Ended(finish, self.figures));
    }

    /// Ends it with an error.
    pub(super) fn fail(self, error: Error) {
        self.outlet.say(Event::Failed(error));
    }
}

/// The logarithm of a softmax's denominator, and the likeliest tokens' log-probabilities.
struct LogSoftmax {
    log_sum: f32,
    top: Vec<(i32, f32)>,
}

impl LogSoftmax {
    fn of(logits: &[f32], count: usize) -> Self {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|x| f64::from(x - most).exp()).sum();
        let log_sum = most + sum.ln() as f32;
        let mut order: Vec<usize> = (0..logits.len()).collect();
        let by_logit = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
        if count < order.len() && count > 0 {
            order.select_nth_unstable_by(count - 1, by_logit);
        }
        order.truncate(count);
        order.sort_unstable_by(by_logit);
        let top = order
            .into_iter()
            .map(|id| (id as i32, logits[id] - log_sum));
        Self {
            log_sum,
            top: top.collect(),
        }
    }
}
