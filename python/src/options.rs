//! What Python says about how a text is generated: dictionaries, whose keys the package's own functions have checked.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use walsh::KvSpec;
use walsh_runtime::sampling::drawn_seed;
use walsh_runtime::tokenizer::Special;
use walsh_runtime::{
    Constraint, GenerateOptions, Model, Pooling, Request, Sampling, SessionOptions, Watch,
};

use crate::errors::{Failure, Result};

/// How a text is generated.
#[derive(Debug, Default, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Knobs {
    max_tokens: Option<i64>,
    #[pyo3(default)]
    temperature: Option<f32>,
    #[pyo3(default)]
    top_k: Option<i64>,
    #[pyo3(default)]
    top_p: Option<f32>,
    #[pyo3(default)]
    min_p: Option<f32>,
    #[pyo3(default)]
    repetition_penalty: Option<f32>,
    #[pyo3(default)]
    repetition_window: Option<i64>,
    #[pyo3(default)]
    seed: Option<i128>,
    #[pyo3(default)]
    stop: Option<Vec<String>>,
    #[pyo3(default)]
    json_schema: Option<String>,
    #[pyo3(default)]
    regex: Option<String>,
    #[pyo3(default)]
    grammar: Option<String>,
    #[pyo3(default)]
    logit_bias: Option<Vec<(i32, f32)>>,
    #[pyo3(default)]
    presence_penalty: Option<f32>,
    #[pyo3(default)]
    frequency_penalty: Option<f32>,
    #[pyo3(default)]
    top_logprobs: Option<usize>,
    #[pyo3(default)]
    prompt_logprobs: Option<usize>,
    #[pyo3(default)]
    pooling: Option<String>,
    #[pyo3(default)]
    show_control: Option<bool>,
    #[pyo3(default)]
    priority: Option<i32>,
    #[pyo3(default)]
    client: Option<String>,
    #[pyo3(default)]
    timeout: Option<f64>,
    #[pyo3(default)]
    checkpoints: Option<Vec<usize>>,
    #[pyo3(default)]
    salt: Option<String>,
    #[pyo3(default)]
    slot: Option<usize>,
    #[pyo3(default)]
    look_up: Option<bool>,
}

/// A number that is −1 for no bound, or 0 or more.
fn count(name: &str, given: Option<i64>) -> Result<Option<usize>> {
    match given {
        None | Some(-1) => Ok(None),
        Some(given) => usize::try_from(given).map(Some).map_err(|_| {
            Failure::option(format!(
                "{name} is {given}: give 0 or more, or -1 for no bound"
            ))
        }),
    }
}

impl Knobs {
    fn sampling(&self, model: &Model) -> Result<Sampling> {
        let usual = model.recommended_sampling().or_usual();
        let whole = |name, given: Option<i64>, none: usize, usual: usize| match given {
            None => Ok(usual),
            given => Ok::<_, Failure>(count(name, given)?.unwrap_or(none)),
        };
        let window = usual.repetition_window;
        Ok(Sampling {
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_k: whole("top_k", self.top_k, 0, usual.top_k)?,
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(usual.repetition_penalty),
            repetition_window: whole(
                "repetition_window",
                self.repetition_window,
                usize::MAX,
                window,
            )?,
        })
    }

    /// What random numbers start from, where it is said.
    pub(crate) fn given_seed(&self) -> Result<Option<u64>> {
        match self.seed {
            None => Ok(None),
            Some(seed) => u64::try_from(seed).map(Some).map_err(|_| {
                Failure::option(format!("seed is {seed}: give a number from 0 to 2**64 - 1"))
            }),
        }
    }

    fn constraint(&self) -> Result<Option<Constraint>> {
        let forms = [
            self.json_schema.clone().map(Constraint::JsonSchema),
            self.regex.clone().map(Constraint::Regex),
            self.grammar.clone().map(Constraint::Lark),
        ];
        let mut given = forms.into_iter().flatten();
        match (given.next(), given.next()) {
            (_, Some(_)) => Err(Failure::option(
                "json_schema, regex and grammar are three forms of an answer: give one of them",
            )),
            (form, None) => Ok(form),
        }
    }

    /// For what a session generates.
    pub(crate) fn generate(
        &self,
        model: &Model,
        cancel: &Arc<AtomicBool>,
    ) -> Result<GenerateOptions> {
        Ok(GenerateOptions {
            max_tokens: count("max_tokens", self.max_tokens)?,
            sampling: self.sampling(model)?,
            special: Special::Text,
            constraint: self.constraint()?,
            stop: self.stop.clone().unwrap_or_default(),
            watch: Watch::cancelled_by(cancel),
        })
    }

    /// For what an engine generates.
    pub(crate) fn request(&self, model: &Model, prompt: Vec<i32>) -> Result<Request> {
        let pooling = self.pooling.as_deref().map(|name| {
            let what = || format!("pooling is {name:?}: give \"mean\" or \"last\"");
            Pooling::named(name).ok_or_else(|| Failure::option(what()))
        });
        let deadline = self.timeout.map(|seconds| {
            let time = Duration::try_from_secs_f64(seconds).ok();
            let end = time.and_then(|time| Instant::now().checked_add(time));
            end.ok_or_else(|| Failure::option(format!("timeout is {seconds}: give seconds from 0")))
        });
        Ok(Request {
            max_tokens: count("max_tokens", self.max_tokens)?,
            sampling: self.sampling(model)?,
            seed: self.given_seed()?.unwrap_or_else(drawn_seed),
            logit_bias: self.logit_bias.clone().unwrap_or_default(),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            constraint: self.constraint()?,
            look_up: self.look_up.unwrap_or(false),
            top_logprobs: self.top_logprobs,
            prompt_logprobs: self.prompt_logprobs,
            pooling: pooling.transpose()?,
            stop: self.stop.clone().unwrap_or_default(),
            show_control: self.show_control.unwrap_or(false),
            priority: self.priority.unwrap_or(0),
            client: self.client.clone(),
            deadline: deadline.transpose()?,
            checkpoints: self.checkpoints.clone().unwrap_or_default(),
            salt: self.salt.clone(),
            slot: self.slot,
            ..Request::new(prompt)
        })
    }
}

/// How a KV cache is kept; as the library does where nothing is said.
pub(crate) fn spec(kv: Option<&str>) -> Result<KvSpec> {
    match kv {
        None => Ok(SessionOptions::default().kv),
        Some(kv) => Ok(kv.parse::<KvSpec>().map_err(walsh::Error::from)?),
    }
}

/// How a session is started.
pub(crate) fn session(context: usize, kv: Option<&str>) -> Result<SessionOptions> {
    Ok(SessionOptions {
        context,
        kv: spec(kv)?,
        ..SessionOptions::default()
    })
}
