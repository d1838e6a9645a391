//! Constraints of a text's form, by the crate `llguidance`.
//!
//! What may come next depends on the tokens so far alone, so that a thread works it out while the device runs the step
//! whose logits it is for.

mod names;
mod numbers;
mod said;
#[cfg(test)]
pub(crate) mod shapes;
#[cfg(test)]
pub(crate) mod tests;
mod trie;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value, json};

use self::names::Names;
use self::numbers::Numbers;
use self::said::one_line;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The most bytes of a schema, a pattern or a grammar.
const MOST_BYTES: usize = 4 << 20;

/// The space between two parts of JSON: a model that may put more of it goes on with it for ever.
const WHITESPACE: &str = r" |\n( {0,32}|\t{0,16})";

/// The form that a generated text is to have, from its first byte to its last: the prompt is no part of it, and the text
/// ends where the form allows nothing more. Where tokens are cut does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// JSON by a JSON schema. References are to parts of the schema itself (`#/...`). Numbers have at most 20 digits behind
    /// each other, and no object has a name twice, unless the schema asks for more. Between
    /// two parts of the JSON there is a space, a line's end with what the next line is indented by, or nothing.
    JsonSchema(String),
    /// What a regular expression matches as a whole, without looking around.
    Regex(String),
    /// What the rule `start` of a grammar in llguidance's kind of Lark derives.
    Lark(String),
}

impl Constraint {
    fn text(&self) -> &str {
        let (Self::JsonSchema(text) | Self::Regex(text) | Self::Lark(text)) = self;
        text
    }

    fn grammar(&self) -> Result<TopLevelGrammar> {
        if self.text().len() > MOST_BYTES {
            let what = format!("it has {} bytes: at most 4 MiB", self.text().len());
            return Err(Error::constraint(what));
        }
        match self {
            Self::JsonSchema(text) => {
                let schema = serde_json::from_str(text).map_err(|error| {
                    Error::constraint(format!("the schema is no JSON: {error}"))
                })?;
                Ok(TopLevelGrammar::from_json_schema(with_whitespace(schema)))
            }
            Self::Regex(text) => Ok(TopLevelGrammar::from_regex(text)),
            Self::Lark(text) => Ok(TopLevelGrammar::from_lark(text.clone())),
        }
    }
}

/// A schema with [`WHITESPACE`], unless it says something else itself.
pub(crate) fn with_whitespace(mut schema: Value) -> Value {
    if schema == Value::Bool(true) {
        schema = Value::Object(Map::new());
    }
    if let Value::Object(schema) = &mut schema {
        let options = schema.entry("x-guidance").or_insert_with(|| json!({}));
        if let Value::Object(options) = options
            && !options.contains_key("whitespace_flexible")
        {
            let pattern = options.entry("whitespace_pattern");
            pattern.or_insert_with(|| WHITESPACE.into());
        }
    }
    schema
}

/// What may come next, and what goes on from there.
type Next = Result<(Box<Matcher>, SimpleVob)>;

/// A token to go on with.
struct Job {
    matcher: Box<Matcher>,
    token: i32,
    next: Sender<Next>,
}

/// What a model's vocabulary is to constraints, and the thread that works out what may come next.
pub(crate) struct Guides {
    factory: ParserFactory,
    jobs: Sender<Job>,
    json: Arc<Words>,
}

/// Tokens of JSON.
struct Words {
    /// Those that begin with a digit.
    digits: SimpleVob,
    /// Those with quotes, with how many.
    quotes: Vec<(u32, usize, Box<[u8]>)>,
}

/// Where a text of JSON is.
struct Json {
    numbers: Numbers,
    names: Names,
    words: Arc<Words>,
}

impl Json {
    /// Tokens that are better not to follow, in sets of which the first counts most.
    fn unwanted(&self, allowed: &SimpleVob) -> Vec<SimpleVob> {
        let mut sets = Vec::new();
        let least = self.names.least_quotes();
        let quotes = self.words.quotes.iter();
        let quotes =
            quotes.filter(|(token, count, _)| *count >= least && allowed.is_allowed(*token));
        let mut doubled = SimpleVob::alloc(allowed.len());
        for (token, _, bytes) in quotes {
            if self.names.doubles(bytes) {
                doubled.allow_token(*token);
            }
        }
        sets.push(doubled);
        if self.numbers.is_long() {
            sets.push(self.words.digits.clone());
        }
        sets
    }
}

impl Guides {
    /// # Errors
    /// When the vocabulary has no token that ends a text, or is too large.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie::of(tokenizer)?));
        let factory = ParserFactory::new_simple(&env);
        let mut factory = factory.map_err(|error| Error::constraint(one_line(error)))?;
        *factory.limits_mut() = ParserLimits {
            verbose_errors: false,
            ..ParserLimits::default()
        };
        factory.quiet();
        let (jobs, received) = channel::<Job>();
        let work = move || {
            for Job {
                mut matcher,
                token,
                next,
            } in received
            {
                // What is wrong with the token is said of what comes next; who is gone does not hear it.
                let _ = matcher.consume_token(token as u32);
                let _ = next.send(what_is_next(matcher));
            }
        };
        let thread = std::thread::Builder::new().name("walsh-constraints".into());
        thread
            .spawn(work)
            .map_err(|error| Error::constraint(format!("its thread cannot be started: {error}")))?;
        let json = Arc::new(Words {
            digits: numbers::digits(tokenizer),
            quotes: names::quotes(tokenizer),
        });
        Ok(Self {
            factory,
            jobs,
            json,
        })
    }

    /// Begins a text.
    ///
    /// # Errors
    /// When the constraint is malformed, beyond the limits, or allows no text.
    pub(crate) fn guide(&self, constraint: &Constraint) -> Result<Guide> {
        let parser = self.factory.create_parser(constraint.grammar()?);
        let parser = parser.map_err(|error| {
            let what = one_line(error);
            // A pattern is wrapped into a grammar, whose places say nothing.
            Error::constraint(match constraint {
                Constraint::Regex(_) => what.trim_start_matches("at 1(8): ").to_owned(),
                _ => what,
            })
        })?;
        let first = what_is_next(Box::new(Matcher::new(Ok(parser))))?;
        let (told, next) = channel();
        // Its other end is here.
        let _ = told.send(Ok(first));
        let is_json = matches!(constraint, Constraint::JsonSchema(_));
        let json = || Json {
            numbers: Numbers::default(),
            names: Names::default(),
            words: Arc::clone(&self.json),
        };
        Ok(Guide {
            json: is_json.then(json),
            jobs: self.jobs.clone(),
            next,
            matcher: None,
        })
    }
}

fn what_is_next(mut matcher: Box<Matcher>) -> Next {
    match matcher.compute_mask_or_eos() {
        Ok(allowed) => Ok((matcher, allowed)),
        Err(error) => Err(Error::constraint(match one_line(error) {
            // The reason is told by its name alone.
            reason if reason == StopReason::NoExtensionBias.to_string() => {
                "it allows neither a token nor the end here".into()
            }
            error => error,
        })),
    }
}

/// A text under a constraint: [`mask`](Self::mask) and [`accept`](Self::accept) in turns.
pub(crate) struct Guide {
    json: Option<Json>,
    jobs: Sender<Job>,
    next: Receiver<Next>,
    /// What goes on, once it is known what may come next.
    matcher: Option<Box<Matcher>>,
}

impl Guide {
    /// Makes the logits of tokens that may not come next −∞: where the text is complete, of all but those that end it.
    ///
    /// # Errors
    /// When no token is left, or telling which are takes more than the limits allow.
    pub(crate) fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
        let next = self.next.recv();
        let ended = |_| Error::constraint("the thread that tells what may come next has ended");
        let (matcher, allowed) = next.map_err(ended)??;
        self.matcher = Some(matcher);
        let mut without = vec![0; allowed.as_slice().len()];
        let unwanted = self.json.as_ref().map(|json| json.unwanted(&allowed));
        for set in unwanted.into_iter().flatten() {
            let both = without.iter().zip(set.as_slice()).map(|(a, b)| a | b);
            let both: Vec<u32> = both.collect();
            // Where nothing else may follow, they do.
            let mut pairs = allowed.as_slice().iter().zip(&both);
            if pairs.any(|(allowed, without)| allowed & !without != 0) {
                without = both;
            }
        }
        forbid(allowed.as_slice(), &without, logits);
        if logits.iter().all(|logit| *logit == f32::NEG_INFINITY) {
            return Err(Error::constraint(
                "of the tokens that it allows, logits and biases leave none",
            ));
        }
        Ok(())
    }

    /// Goes on with a token, of these bytes, that is allowed and does not end the text: what may follow is worked out beside what is done
    /// until it is asked for.
    pub(crate) fn accept(&mut self, token: i32, bytes: &[u8]) {
        if let Some(json) = &mut self.json {
            json.numbers.push(bytes);
            json.names.push(bytes);
        }
        if let Some(matcher) = self.matcher.take() {
            let (told, next) = channel();
            self.next = next;
            // Where the thread has ended, the next mask says so.
            let _ = self.jobs.send(Job {
                matcher,
                token,
                next: told,
            });
        }
    }
}

/// Makes logits −∞ where a set of tokens has none, or another has one.
fn forbid(allowed: &[u32], without: &[u32], logits: &mut [f32]) {
    let (allowed, without) = (allowed.iter().copied(), without.iter().copied());
    let sets = allowed.chain(std::iter::repeat(0));
    let without = without.chain(std::iter::repeat(0));
    let sets = sets.zip(without).map(|(set, without)| set & !without);
    for (logits, set) in logits.chunks_mut(u32::BITS as usize).zip(sets) {
        for (bit, logit) in logits.iter_mut().enumerate() {
            if set >> bit & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}
