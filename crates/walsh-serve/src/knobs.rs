//! What requests of all interfaces can say about how a text is generated.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use walsh_runtime::Request;
use walsh_runtime::sampling::drawn_seed;
use walsh_runtime::tokenizer::Tokenizer;

use crate::Asked;
use crate::error::{ApiError, Result};
use crate::models::{Lent, Served};

/// The most answers to one prompt.
pub(crate) const MOST_ANSWERS: usize = 128;

/// The most of the likeliest tokens that come with each.
pub(crate) const MOST_TOP: usize = 20;

/// The most texts that end a text.
const MOST_STOPS: usize = 64;

/// A text or several.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(untagged, expecting = "expected a text or an array of texts")]
pub(crate) enum Texts {
    One(String),
    Several(Vec<String>),
}

impl Texts {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Several(texts) => texts,
        }
    }
}

/// Fields of a request that go into its sampling.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub(crate) struct Knobs {
    #[schema(minimum = 0)]
    temperature: Option<f32>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    #[schema(minimum = -1)]
    top_k: Option<i64>,
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f32>,
    #[serde(alias = "repeat_penalty")]
    #[schema(minimum = 0.01, maximum = 100)]
    repetition_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f32>,
    seed: Option<i64>,
    #[serde(alias = "stop_sequences")]
    stop: Option<Texts>,
    logit_bias: Option<Map<String, Value>>,
    ignore_eos: Option<bool>,
    /// Whether tokens are looked up in the text so far; as the server was started if absent.
    look_up: Option<bool>,
    priority: Option<Value>,
    /// Who asks, as OpenAI's clients say it.
    user: Option<String>,
    /// Which requests share beginnings of prompts.
    #[serde(alias = "cache_salt")]
    salt: Option<String>,
    /// Which of the model's adapters it takes, in the place of what is set for all requests; none of them where the list is
    /// empty.
    lora: Option<Vec<LoraScale>>,
    /// Which of the model's slots it is to have; −1 for any.
    #[schema(minimum = -1)]
    id_slot: Option<i64>,
    /// Seconds after which the text ends wherever it is.
    #[schema(exclusive_minimum = 0)]
    timeout: Option<f64>,
}

/// How much a request takes of an adapter.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
pub(crate) struct LoraScale {
    /// Its number in the list of `GET /lora-adapters`.
    #[schema(minimum = 0)]
    id: i64,
    scale: f32,
}

/// What requests take of a model's adapters.
pub(crate) fn scales(name: &str, given: &[LoraScale], served: &Lent) -> Result<Vec<(usize, f32)>> {
    let count = served.engine.model().adapters().len();
    let mut scales: Vec<(usize, f32)> = Vec::with_capacity(given.len());
    for (place, LoraScale { id, scale }) in given.iter().enumerate() {
        let wrong = |what: String| ApiError::field(name, format!("{name}[{place}]: {what}"));
        let known = usize::try_from(*id).ok().filter(|id| *id < count);
        let id = known.ok_or_else(|| {
            wrong(match count {
                0 => "the model has no adapters: start the server with --lora".to_owned(),
                count => format!("id is {id}: give a number below {count}"),
            })
        })?;
        if !scale.is_finite() {
            return Err(wrong(format!("scale is {scale}: give a finite number")));
        }
        if scales.iter().any(|(other, _)| *other == id) {
            return Err(wrong(format!("id {id} is there twice")));
        }
        scales.push((id, *scale));
    }
    Ok(scales)
}

/// What the fields of a request are together: those of its interface, and these.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes what is read in two parts")]
pub(crate) struct With<T: utoipa::ToSchema> {
    #[serde(flatten)]
    own: T,
    #[serde(flatten)]
    knobs: Knobs,
}

/// Reads a part of a request's body. Fields that it does not know are somebody else's.
pub(crate) fn read<T: DeserializeOwned>(body: &Value) -> Result<T> {
    serde_path_to_error::deserialize(body).map_err(|error| {
        let path = error.path().to_string();
        let what = error.inner().to_string();
        // What is missing has no path of its own.
        let missing = what.strip_prefix("missing field `");
        if let Some(name) = missing.and_then(|rest| rest.strip_suffix('`')) {
            let at = match path.as_str() {
                "." => name.to_owned(),
                path => format!("{path}.{name}"),
            };
            return ApiError::field(at.clone(), format!("{at} is missing"));
        }
        let message = format!("{path}: {what}");
        match path.as_str() {
            "." => ApiError::bad(what),
            _ => ApiError::field(path, message),
        }
    })
}

impl Knobs {
    /// The request for what follows a prompt, by the model's own sampling where this says nothing. The prompt is empty.
    pub(crate) fn request(&self, served: &Lent, asked: &Asked) -> Result<Request> {
        let mut sampling = served.sampling;
        let set = |to: &mut f32, from: Option<f32>| *to = from.unwrap_or(*to);
        set(&mut sampling.temperature, self.temperature);
        set(&mut sampling.top_p, self.top_p);
        set(&mut sampling.min_p, self.min_p);
        set(&mut sampling.repetition_penalty, self.repetition_penalty);
        if let Some(top_k) = self.top_k {
            // −1 is how some clients say that all are taken.
            sampling.top_k = match top_k {
                -1 => 0,
                top_k => usize::try_from(top_k).map_err(|_| {
                    ApiError::field("top_k", format!("top_k is {top_k}: give 0 or more"))
                })?,
            };
        }
        let stop = self.stop.clone().map(Texts::into_vec).unwrap_or_default();
        if stop.len() > MOST_STOPS {
            let message = format!("{} texts to stop at: at most {MOST_STOPS}", stop.len());
            return Err(ApiError::field("stop", message));
        }
        let mut logit_bias = Vec::new();
        let tokenizer = served.engine.model().tokenizer();
        for (token, bias) in self.logit_bias.iter().flatten() {
            logit_bias.push(self::bias(token, bias, tokenizer)?);
        }
        if self.ignore_eos == Some(true) {
            logit_bias.extend(tokenizer.ends().iter().map(|end| (*end, f32::NEG_INFINITY)));
        }
        let priority = match &self.priority {
            // Words are OpenAI's, and about prices.
            None | Some(Value::Null | Value::String(_)) => 0,
            Some(priority) => {
                let number = priority.as_i64().and_then(|p| i32::try_from(p).ok());
                let wrong =
                    || ApiError::field("priority", "priority is no whole number of 32 bits");
                number.ok_or_else(wrong)?
            }
        };
        let deadline = self.timeout.map(|seconds| {
            let wrong = || {
                let message = format!("timeout is {seconds:e}: give seconds above 0");
                ApiError::field("timeout", message)
            };
            let time = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
            if time.is_zero() {
                return Err(wrong());
            }
            Instant::now().checked_add(time).ok_or_else(wrong)
        });
        Ok(Request {
            sampling,
            seed: self
                .seed
                .filter(|seed| *seed != -1)
                .map_or_else(drawn_seed, |seed| seed as u64),
            logit_bias,
            presence_penalty: penalty("presence_penalty", self.presence_penalty)?,
            frequency_penalty: penalty("frequency_penalty", self.frequency_penalty)?,
            stop,
            priority,
            client: self.user.clone().or_else(|| asked.client.clone()),
            deadline: deadline
                .transpose()?
                .into_iter()
                .chain(asked.deadline)
                .min(),
            salt: self.salt.clone(),
            adapters: match &self.lora {
                Some(given) => Some(scales("lora", given, served)?),
                None => served.adapters.clone(),
            },
            slot: self.slot(served)?,
            look_up: self.look_up.unwrap_or(served.engine.options().look_up > 0),
            ..Request::new(Vec::new())
        })
    }
}

impl Knobs {
    fn slot(&self, served: &Served) -> Result<Option<usize>> {
        let slots = served.engine.options().sequences;
        match self.id_slot.filter(|slot| *slot != -1) {
            None => Ok(None),
            Some(id) => match usize::try_from(id) {
                Ok(slot) if slot < slots => Ok(Some(slot)),
                _ => {
                    let message = format!("id_slot is {id}: give -1, or a number below {slots}");
                    Err(ApiError::field("id_slot", message))
                }
            },
        }
    }
}

fn penalty(name: &'static str, given: Option<f32>) -> Result<f32> {
    let penalty = given.unwrap_or(0.0);
    match (-2.0..=2.0).contains(&penalty) {
        true => Ok(penalty),
        false => {
            let message = format!("{name} is {penalty}: give a number from -2 to 2");
            Err(ApiError::field(name, message))
        }
    }
}

/// An entry of `logit_bias`. As far down as it goes, a token cannot come.
fn bias(token: &str, bias: &Value, tokenizer: &Tokenizer) -> Result<(i32, f32)> {
    let wrong =
        |what: &str| ApiError::field("logit_bias", format!("logit_bias: {token:?}: {what}"));
    let id: Option<i32> = token.parse().ok();
    let id = id.filter(|id| tokenizer.has(*id));
    let id = id.ok_or_else(|| wrong("the name is the number of no token"))?;
    let number = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
    let number = number.ok_or_else(|| wrong("give a number from -100 to 100"))?;
    match number <= -100.0 {
        true => Ok((id, f32::NEG_INFINITY)),
        false => Ok((id, number as f32)),
    }
}

/// How many answers a request wants.
pub(crate) fn answers(n: Option<usize>) -> Result<usize> {
    match n.unwrap_or(1) {
        n @ 1..=MOST_ANSWERS => Ok(n),
        n => Err(ApiError::field(
            "n",
            format!("n is {n}: give 1 to {MOST_ANSWERS}"),
        )),
    }
}

/// How many of the likeliest tokens a request wants.
pub(crate) fn top(name: &'static str, count: usize) -> Result<usize> {
    match count <= MOST_TOP {
        true => Ok(count),
        false => Err(ApiError::field(
            name,
            format!("{name} is {count}: give 0 to {MOST_TOP}"),
        )),
    }
}

/// The most tokens of an answer: −1 stands for no limit, as llama-server has it.
pub(crate) fn most_tokens(name: &'static str, most: Option<i64>) -> Result<Option<usize>> {
    match most {
        None | Some(-1) => Ok(None),
        Some(most) => match usize::try_from(most) {
            Ok(most) => Ok(Some(most)),
            Err(_) => Err(ApiError::field(
                name,
                format!("{name} is {most}: give 0 or more"),
            )),
        },
    }
}
