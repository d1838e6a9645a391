//! What can be set in a conversation.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::str::FromStr;

use walsh::KvSpec;
use walsh_runtime::sampling::Sampler;
use walsh_runtime::{Sampling, Session};

/// How answers are generated and shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) sampling: Sampling,
    /// The most tokens of an answer; none where it may be as long as the context.
    pub(crate) max_tokens: Option<usize>,
    pub(crate) wrap: bool,
}

/// What a setting changes.
#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    /// The settings.
    Settings,
    /// What random numbers start from.
    Seed(u64),
    /// The session's cache.
    Kv(KvSpec),
    /// The session's context.
    Context(usize),
}

const NAMES: &str = "kv, context, temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens and wordwrap";

impl Settings {
    /// Changes a setting; what of the session it would change is left to the caller.
    ///
    /// # Errors
    /// When there is none of that name, or the value cannot be it. Nothing is
    /// changed then.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<Change, String> {
        let name = name.replace('-', "_");
        let mut new = self.clone();
        let sampling = &mut new.sampling;
        let number = "a number";
        let mut change = Change::Settings;
        match name.as_str() {
            "kv" => change = Change::Kv(parsed(&name, value, "a SPEC as --kv has it")?),
            "context" => {
                let context: NonZeroUsize = parsed(&name, value, "a number of tokens from 1")?;
                change = Change::Context(context.get());
            }
            "temperature" | "temp" => sampling.temperature = parsed(&name, value, number)?,
            "top_k" => sampling.top_k = parsed(&name, value, "a number of tokens, 0 for all")?,
            "top_p" => sampling.top_p = parsed(&name, value, number)?,
            "min_p" => sampling.min_p = parsed(&name, value, number)?,
            "repetition_penalty" => sampling.repetition_penalty = parsed(&name, value, number)?,
            "seed" => {
                change = Change::Seed(match value {
                    "-1" => walsh_runtime::sampling::drawn_seed(),
                    _ => parsed(&name, value, "a whole number, or -1 for one that is drawn")?,
                });
            }
            "max_tokens" => {
                new.max_tokens = match value {
                    "-1" => None,
                    _ => {
                        let wanted = "a number of tokens from 1, or -1 for no limit";
                        Some(parsed::<NonZeroUsize>(&name, value, wanted)?.get())
                    }
                }
            }
            "wordwrap" => {
                new.wrap = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(expected(&name, "on or off", value)),
                }
            }
            _ => return Err(format!("there is no setting {name}; there are {NAMES}")),
        }
        Sampler::new(&new.sampling).map_err(|error| error.to_string())?;
        *self = new;
        Ok(change)
    }

    /// All settings, a line each.
    pub(crate) fn list(&self, session: &Session) -> String {
        self.lines((&session.options().kv, session.context(), session.seed()))
    }

    fn lines(&self, (kv, context, seed): (&KvSpec, usize, u64)) -> String {
        let sampling = &self.sampling;
        let limit = self
            .max_tokens
            .map_or("-1".to_owned(), |most| most.to_string());
        let lines: [(&str, &dyn Display); 10] = [
            ("kv", kv),
            ("context", &context),
            ("temperature", &sampling.temperature),
            ("top_k", &sampling.top_k),
            ("top_p", &sampling.top_p),
            ("min_p", &sampling.min_p),
            ("repetition_penalty", &sampling.repetition_penalty),
            ("seed", &seed),
            ("max_tokens", &limit),
            ("wordwrap", if self.wrap { &"on" } else { &"off" }),
        ];
        let lines = lines.map(|(name, value)| format!("{name:20}{value}"));
        lines.join("\n")
    }
}

fn parsed<T: FromStr>(name: &str, value: &str, wanted: &str) -> Result<T, String>
where
    T::Err: Display,
{
    if value.is_empty() {
        return Err(format!("/set {name} needs a value: {wanted}"));
    }
    value
        .parse()
        .map_err(|error: T::Err| format!("{}; {error}", expected(name, wanted, value)))
}

fn expected(name: &str, wanted: &str, value: &str) -> String {
    format!("{name} must be {wanted}, but is {value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            sampling: Sampling::default(),
            max_tokens: Some(10),
            wrap: true,
        }
    }

    #[test]
    fn values_are_taken() {
        let mut set = settings();
        for (name, value) in [
            ("temperature", "0"),
            ("top-k", "7"),
            ("top_p", "0.5"),
            ("min_p", "0.1"),
            ("repetition_penalty", "1.5"),
            ("max_tokens", "-1"),
            ("wordwrap", "off"),
        ] {
            assert_eq!(set.set(name, value), Ok(Change::Settings), "{name}");
        }
        assert_eq!(set.set("seed", "17"), Ok(Change::Seed(17)));
        assert_eq!(set.set("context", "64"), Ok(Change::Context(64)));
        let kv: KvSpec = "tq4".parse().unwrap();
        assert_eq!(set.set("kv", "tq4"), Ok(Change::Kv(kv.clone())));
        let list = set.lines((&kv, 64, 17));
        for line in [
            "kv                  tq4",
            "top_k               7",
            "max_tokens          -1",
            "seed                17",
        ] {
            assert!(list.contains(line), "{list}");
        }
    }

    #[test]
    fn what_cannot_be_set_changes_nothing() {
        let mut set = settings();
        for (name, value, part) in [
            ("temperature", "hot", "a number"),
            ("temperature", "-1", "0 or above"),
            ("temperature", "NaN", "0 or above"),
            ("top_p", "2", "from 0 to 1"),
            ("max_tokens", "0", "from 1"),
            ("context", "0", "from 1"),
            ("kv", "q9", "SPEC"),
            ("kv", "", "needs a value"),
            ("seed", "x", "whole number"),
            ("wordwrap", "maybe", "on or off"),
            ("colour", "red", "repetition_penalty"),
        ] {
            let error = set.set(name, value).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(set, settings());
    }
}
