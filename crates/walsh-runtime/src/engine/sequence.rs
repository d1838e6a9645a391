//! One request on its way.

mod drafts;
mod slot;
mod told;

use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::kin::Kin;
use super::left::Key;
use super::logprobs::LogSoftmax;
use super::look_up::LookUp;
use super::options::EngineOptions;
use super::prefixes::NodeId;
use super::request::{Event, Logprobs, Outlet, Piece, Request};
use crate::constraint::Guide;
use crate::generate::Stops;
use crate::model::graph::Reading;
use crate::sampling::{Random, Sampler};
use crate::tokenizer::Decoder;
use crate::{Error, Figures, Finish, Model, Result};

/// A text, what of it was read, and how it goes on.
pub(super) struct Sequence {
    model: Model,
    request: Request,
    kin: Kin,
    /// The prompt and what was generated.
    tokens: Vec<i32>,
    /// How many tokens the caches hold.
    read: usize,
    /// Up to here it is read by itself.
    alone_until: usize,
    /// The calls that have read it so far. Where some of it is to be read again, it is by the same.
    calls: Vec<Call>,
    /// Where calls of the prompt end, in ascending order, besides at multiples of the chunk behind them.
    marks: Vec<usize>,
    /// Whether only what this text's own calls would have left is gone on from.
    exact: bool,
    /// A hash of the calls up to a position.
    hashed: (usize, Sha256),
    /// What of it is kept for others: the node, and its end.
    pub(super) kept: Option<(NodeId, usize)>,
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
    /// What may follow the text so far: tokens that are read with its last.
    drafts: Vec<i32>,
    look_up: LookUp,
    /// How many tokens were looked up for this step.
    looked_up: usize,
    /// How often the answer has each of its tokens, where that is penalised.
    counts: HashMap<i32, u32>,
    /// What is told of the prompt, as far as it was read.
    prompt_logprobs: Vec<Logprobs>,
    pooled: Vec<f64>,
    is_told: bool,
}

/// What a sequence's next tokens attend over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rows {
    /// A token, over what is stored, and those that are looked up behind it.
    Decode(Range<usize>),
    /// Tokens of the prompt, over each other as they are.
    Prefill(Range<usize>),
}

/// A call that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    reading: Reading,
    /// Behind its last token.
    end: usize,
}

impl Rows {
    /// Their positions.
    pub(super) fn positions(&self) -> Range<usize> {
        match self {
            Self::Decode(positions) | Self::Prefill(positions) => positions.clone(),
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
        if request.max_tokens != Some(0) {
            model.check_generates()?;
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
        for (name, count) in [
            ("top_logprobs", request.top_logprobs),
            ("prompt_logprobs", request.prompt_logprobs),
        ] {
            if let Some(count) = count.filter(|count| *count > vocabulary) {
                let expected = format_args!("at most the vocabulary's {vocabulary}");
                return Err(Error::option(name, expected, count));
            }
        }
        if let Some(slot) = request.slot.filter(|slot| *slot >= options.sequences) {
            let expected = format_args!("below the engine's {} sequences", options.sequences);
            return Err(Error::option("slot", expected, slot));
        }
        if request.look_up && options.look_up == 0 {
            let expected = "false, since the engine was started without";
            return Err(Error::option("look_up", expected, true));
        }
        for (name, penalty) in [
            ("presence_penalty", request.presence_penalty),
            ("frequency_penalty", request.frequency_penalty),
        ] {
            if !penalty.is_finite() {
                return Err(Error::option(name, "a finite number", penalty));
            }
        }
        let kin = Kin::of(&request, model)?;
        let mut marks = request.checkpoints.clone();
        marks.retain(|mark| (1..prompt.len()).contains(mark));
        marks.sort_unstable();
        marks.dedup();
        Ok(Self {
            sampler: Sampler::new(&request.sampling)?,
            random: Random::new(request.seed),
            // A form begins with a whole character.
            decoder: match (request.show_control, &request.constraint) {
                (true, _) => Decoder::showing_control(),
                (false, Some(_)) => Decoder::new(),
                (false, None) => Decoder::after(model.tokenizer(), prompt),
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
            alone_until: 0,
            calls: Vec::new(),
            marks,
            exact: options.deterministic,
            hashed: (0, kin.hash(model)),
            kin,
            kept: None,
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
            drafts: Vec::new(),
            look_up: LookUp::new(options.look_up),
            looked_up: 0,
            counts: HashMap::new(),
            prompt_logprobs: Vec::new(),
            pooled: Vec::new(),
            is_told: false,
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

    /// Whose texts it may share beginnings with.
    pub(super) fn kin(&self) -> &Kin {
        &self.kin
    }

    /// Whether more than one of its tokens are still to be read.
    pub(super) fn is_being_read(&self) -> bool {
        self.tokens.len() - self.read > 1
    }

    /// What comes first of those that are to read some of their prompts: a higher priority, then what is read soonest.
    pub(super) fn shortest(&self) -> (std::cmp::Reverse<i32>, usize, u64) {
        let left = self.tokens.len() - self.read;
        (std::cmp::Reverse(self.request.priority), left, self.number)
    }

    /// Who asks for it.
    pub(super) fn client(&self) -> &Option<String> {
        &self.request.client
    }

    /// The call that reads the token at a position, if one begins there: how, and up to where. A prompt's chunks begin at
    /// multiples of their size behind a mark, so that they are the same whoever else is served; what was generated is read
    /// token by token, again too.
    fn call_at(&self, position: usize) -> Option<Call> {
        let made = self.calls.partition_point(|call| call.end <= position);
        if let Some(call) = self.calls.get(made) {
            let start = made
                .checked_sub(1)
                .map_or(0, |before| self.calls[before].end);
            return (start == position).then_some(*call);
        }
        let prompt = self.request.prompt.len();
        if position >= prompt {
            let (reading, end) = (Reading::Codes, position + 1);
            return Some(Call { reading, end });
        }
        let next = self.marks.partition_point(|mark| *mark <= position);
        let before = next.checked_sub(1).map_or(0, |before| self.marks[before]);
        let chunk = self.chunk - (position - before) % self.chunk;
        let end = self.marks.get(next).map_or(prompt, |mark| *mark);
        Some(Call {
            reading: Reading::CodesAndFresh,
            end: end.min(position + chunk),
        })
    }

    /// What is to be read next.
    pub(super) fn next_rows(&self) -> Rows {
        match self.call_at(self.read) {
            Some(Call {
                reading: Reading::CodesAndFresh,
                end,
            }) => Rows::Prefill(self.read..end),
            _ => Rows::Decode(self.read..self.read + 1 + self.drafts.len()),
        }
    }

    /// Notes that the next rows were read; whether a token is to be chosen behind them.
    pub(super) fn advance(&mut self) -> bool {
        let call = self.call_at(self.read);
        if self.calls.last().is_none_or(|last| last.end <= self.read) {
            self.calls.extend(call);
        }
        self.read = call.map_or(self.read, |call| call.end);
        self.read == self.tokens.len()
    }

    /// How many of some tokens it has from a position on, if they were read as it would read them. Where it need not be
    /// exact, what others have generated is as good as what they were asked.
    pub(super) fn fits(&self, position: usize, reading: Reading, tokens: &[i32]) -> usize {
        let rest = self.tokens.get(position..).unwrap_or_default();
        let alike = rest.iter().zip(tokens).take_while(|(a, b)| a == b);
        let alike = alike.count();
        if !self.exact && self.calls.is_empty() {
            return alike;
        }
        let is_call = |position, end| self.call_at(position) == Some(Call { reading, end });
        match reading {
            Reading::Codes => (position..position + alike)
                .take_while(|position| is_call(*position, position + 1))
                .count(),
            Reading::CodesAndFresh if is_call(position, position + tokens.len()) => alike,
            Reading::CodesAndFresh => 0,
        }
    }

    /// Goes on behind what others have read by calls of so many tokens.
    pub(super) fn go_on(&mut self, calls: &[(Reading, usize)], kept: (NodeId, usize)) {
        self.kept = Some(kept);
        self.read = kept.1;
        if !self.calls.is_empty() {
            return;
        }
        let mut end = 0;
        for &(reading, tokens) in calls {
            let ends = match reading {
                Reading::Codes => end + 1..end + tokens + 1,
                Reading::CodesAndFresh => end + tokens..end + tokens + 1,
            };
            self.calls.extend(ends.map(|end| Call { reading, end }));
            end += tokens;
        }
        self.mark(end);
    }

    /// Lets a call of the prompt end at a position.
    fn mark(&mut self, position: usize) {
        if let Err(place) = self.marks.binary_search(&position) {
            self.marks.insert(place, position);
        }
    }

    /// Notes that so much of the prompt was not read.
    pub(super) fn note_reused(&mut self) -> usize {
        self.figures.reused_tokens = self.read;
        self.read
    }

    /// The name of all calls up to the one that ends at a position.
    pub(super) fn key(&mut self, end: usize) -> Key {
        if self.hashed.0 > end {
            self.hashed = (0, self.kin.hash(&self.model));
        }
        while let Some(call) = self.call_at(self.hashed.0).filter(|call| call.end <= end) {
            let (start, hash) = &mut self.hashed;
            hash.update([u8::from(call.reading == Reading::CodesAndFresh)]);
            hash.update(((call.end - *start) as u64).to_le_bytes());
            for token in &self.tokens[*start..call.end] {
                hash.update(token.to_le_bytes());
            }
            *start = call.end;
        }
        self.hashed.1.clone().finalize().into()
    }

    /// Lets a call end where another text was seen to part from this one, so that the next that does so finds it.
    pub(super) fn part(&mut self, position: usize) {
        let least = self.read + Self::LEAST_CALL;
        if !self.exact && (least..self.request.prompt.len()).contains(&position) {
            self.mark(position);
        }
    }

    /// Fewer tokens are not worth a call.
    const LEAST_CALL: usize = 32;

    /// The tokens that were read and are not kept, and how they were: of one call, or of several of one token each.
    pub(super) fn unkept(&self) -> Option<(NodeId, Reading, Range<usize>)> {
        let (node, start) = self.kept?;
        let made = self.calls.partition_point(|call| call.end <= start);
        let done = self.calls.partition_point(|call| call.end <= self.read);
        let calls = self.calls.get(made..done)?;
        let reading = calls.first()?.reading;
        let alike = calls.iter().all(|call| call.reading == reading);
        let one = reading == Reading::Codes || calls.len() == 1;
        (alike && one).then_some((node, reading, start..self.read))
    }

    /// Lets it begin in a slot; whether it does so again.
    pub(super) fn begin(&mut self, slot: usize) -> bool {
        self.slot = Some(slot);
        self.outlet.say_slot(slot);
        self.begun
            .replace(self.begun.unwrap_or_else(Instant::now))
            .is_some()
    }

    /// Forgets what was read: it is to be read again.
    pub(super) fn put_off(&mut self) {
        self.kept = None;
        self.read = 0;
        self.drafts.clear();
        self.prompt_logprobs.clear();
        self.pooled.clear();
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
        let free = logit_bias.is_empty() && self.guide.is_none() && !self.is_penalised();
        sampling.takes_likeliest() && free && top_logprobs.is_none()
    }

    fn is_penalised(&self) -> bool {
        self.request.presence_penalty != 0.0 || self.request.frequency_penalty != 0.0
    }

    /// Chooses the next token by logits, which biases are added to, among those that the constraint allows.
    pub(super) fn choose(&mut self, logits: &mut [f32]) -> Result<(i32, Option<Logprobs>)> {
        let wanted = self.request.top_logprobs;
        let known = wanted.map(|count| LogSoftmax::of(logits, count));
        // Of what is changed below, as it was.
        let biased = self.request.logit_bias.iter().map(|(token, _)| *token);
        let changed = biased.chain(self.counts.keys().copied());
        let own: Vec<(i32, f32)> = match &known {
            Some(_) => changed
                .map(|token| (token, logits[token as usize]))
                .collect(),
            None => Vec::new(),
        };
        for (token, bias) in &self.request.logit_bias {
            logits[*token as usize] += bias;
        }
        let (once, each) = (
            self.request.presence_penalty,
            self.request.frequency_penalty,
        );
        for (token, count) in &self.counts {
            logits[*token as usize] -= once + each * *count as f32;
        }
        if let Some(guide) = &mut self.guide {
            guide.mask(logits)?;
        }
        let sampled = self.sampler.sample(logits, &self.tokens, &mut self.random);
        let token = sampled.map_err(|error| {
            let mut biases = self.request.logit_bias.iter();
            let is_biased = biases.any(|(_, bias)| *bias == f32::NEG_INFINITY);
            let is_none = logits.iter().all(|logit| *logit == f32::NEG_INFINITY);
            match is_biased && is_none {
                true => Error::option(
                    "logit_bias",
                    "such that a token is left",
                    "one that forbids all",
                ),
                false => error,
            }
        })?;
        let logprobs = known.map(|known| {
            let logit = own.iter().find(|(id, _)| *id == token);
            let logit = logit.map_or(logits[token as usize], |(_, logit)| *logit);
            Logprobs {
                token: logit - known.log_sum,
                top: known.top,
            }
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
            guide.accept(token, &self.model.tokenizer().token_bytes(token));
        }
        if self.is_penalised() {
            *self.counts.entry(token).or_default() += 1;
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
        self.calls.retain(|call| call.end <= read);
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
        let stop = self.stops.found().map(str::to_owned);
        self.outlet.say(Event::Ended(finish, self.figures, stop));
    }

    /// Ends it with an error.
    pub(super) fn fail(self, error: Error) {
        self.outlet.say(Event::Failed(error));
    }
}
