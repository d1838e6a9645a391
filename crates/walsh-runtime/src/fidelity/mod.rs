//! What a KV codec changes about what users get: greedy answers, numbers recalled from long texts, sums, calls of tools.
//!
//! Questions are made from a seed. Each is put to the model once for each SPEC, the likeliest token is always taken, and
//! what comes of it is compared with what comes of the first SPEC.

mod answer;
mod cases;
mod report;
mod task;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use walsh::formats::kv::KvSpec;

use crate::chat::{Message, Template};
use crate::conversation::Prompt;
use crate::perplexity::warnings;
use crate::sampling::{Random, Sampler};
use crate::tokenizer::Special;
use crate::{
    Error, Finish, GenerateOptions, Model, Result, Sampling, Session, SessionOptions, Watch,
};
use answer::Expected;
use cases::{Case, Group};
use report::{Answer, compare, over_all};
pub use report::{
    EqualTokens, FidelityReport, FidelitySpec, Proportion, SpecFidelity, TaskFidelity,
};
pub use task::FidelityTask;

/// What to measure.
#[derive(Debug, Clone)]
pub struct FidelityOptions {
    /// The KV codecs, the one that others are compared with first.
    pub kv: Vec<KvSpec>,
    /// What is asked.
    pub tasks: Vec<FidelityTask>,
    /// How many questions each task has, `recall` for each length: from 1 to 2000. Its [own](FidelityTask::default_count)
    /// number when `None`.
    pub count: Option<usize>,
    /// What questions are made from.
    pub seed: u64,
    /// The most tokens of an answer of `greedy`.
    pub tokens: usize,
    /// Setting it ends the run before the next token, or the next few hundred of a question. Questions that were answered
    /// with all SPECs count.
    pub cancel: Arc<AtomicBool>,
}

impl FidelityOptions {
    /// The tokens of a greedy answer when nothing is said.
    pub const TOKENS: usize = 64;

    /// The most questions of a task: all are in memory before the first is asked.
    const MOST_COUNT: usize = 2000;
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FidelityProgress {
    /// Answers so far.
    pub done: usize,
    /// Answers in all, of all questions with all SPECs.
    pub total: usize,
    /// The task of the next answer.
    pub task: String,
    /// Its SPEC.
    pub kv: String,
}

/// A question, as the model is given it.
struct Prepared {
    tokens: Vec<i32>,
    expected: Expected,
    most_tokens: usize,
    /// The answers so far, in the order of the SPECs.
    answers: Vec<Answer>,
}

/// Asks a model the same questions with one session per codec.
///
/// Tasks take turns, in proportion to how many questions they have: a run that is ended early has figures of all of them.
///
/// # Errors
/// When there is no codec or task, an option is out of range, a task has no question that the model's context has room for, a session cannot be
/// started, or the model computes a number that is not finite. When it is cancelled before a question was answered with
/// all codecs.
pub fn fidelity(
    model: &Model,
    options: &FidelityOptions,
    progress: &mut dyn FnMut(&FidelityProgress),
) -> Result<FidelityReport> {
    if options.kv.is_empty() {
        return Err(Error::measure("there is no SPEC to ask with: give one"));
    }
    let most = FidelityOptions::MOST_COUNT;
    if let Some(count) = options.count.filter(|count| !(1..=most).contains(count)) {
        return Err(Error::option(
            "count",
            format_args!("from 1 to {most}"),
            count,
        ));
    }
    if options.tokens == 0 {
        return Err(Error::option("tokens", "at least 1", options.tokens));
    }
    let policies: Vec<KvSpec> = options
        .kv
        .iter()
        .map(|kv| model.kv_policy(kv))
        .collect::<Result<_>>()?;
    let asking = Asking::new(model)?;
    let (groups, left_out) = asking.groups(options)?;
    let mut asked = Vec::with_capacity(groups.len());
    for group in &groups {
        asked.push(asking.prepare(*group, options)?);
    }
    let context = asked.iter().flatten().map(Prepared::length).max();
    let mut sessions = Vec::with_capacity(policies.len());
    for kv in &policies {
        sessions.push(model.session(SessionOptions {
            context: context.unwrap_or(1),
            kv: kv.clone(),
            ..SessionOptions::default()
        })?);
    }
    let order = in_turns(&asked.iter().map(Vec::len).collect::<Vec<_>>());
    let total = order.len() * sessions.len();
    let (mut done, mut cancelled) = (0, false);
    'asking: for &(group, index) in &order {
        let case = &mut asked[group][index];
        for (session, kv) in sessions.iter_mut().zip(&options.kv) {
            progress(&FidelityProgress {
                done,
                total,
                task: groups[group].to_string(),
                kv: kv.to_string(),
            });
            match asking.answer(session, case, &options.cancel) {
                Err(Error::Cancelled) if done >= options.kv.len() => {
                    cancelled = true;
                    break 'asking;
                }
                answer => case.answers.push(answer?),
            }
            done += 1;
        }
    }
    let tasks: Vec<TaskFidelity> = groups
        .iter()
        .zip(&asked)
        .map(|(group, cases)| count(*group, cases, &options.kv))
        .collect();
    let mut specs = Vec::with_capacity(policies.len());
    for (index, (given, kv)) in options.kv.iter().zip(&policies).enumerate() {
        let (same_verdict, same_result) = over_all(&tasks, index);
        specs.push(FidelitySpec {
            kv: given.to_string(),
            policy: (kv != given).then(|| kv.to_string()),
            kv_bytes_per_token: model.kv_bytes_per_token(kv)?,
            bits_per_value: model.kv_bits_per_value(kv)?,
            same_verdict,
            same_result,
        });
    }
    Ok(FidelityReport {
        model: model.name().to_owned(),
        device: model.device().properties().to_string(),
        seed: options.seed,
        chat: asking.template.is_some(),
        specs,
        tasks,
        left_out,
        warnings: match cancelled {
            true => Vec::new(),
            false => warnings(model, &policies)?,
        },
        cancelled,
    })
}

impl Prepared {
    /// Its tokens with those of the longest answer.
    fn length(&self) -> usize {
        self.tokens.len() + self.most_tokens
    }
}

/// How questions are put to a model.
struct Asking<'a> {
    model: &'a Model,
    /// Without one, questions are texts to go on with.
    template: Option<Template>,
}

impl<'a> Asking<'a> {
    fn new(model: &'a Model) -> Result<Self> {
        let template = match model.has_chat_template()? {
            true => Some(model.chat_template()?),
            false => None,
        };
        Ok(Self { model, template })
    }

    /// What is asked, and what of it the model's context is too short for.
    fn groups(&self, options: &FidelityOptions) -> Result<(Vec<Group>, Vec<String>)> {
        let context = self.model.config().context;
        let (mut groups, mut left_out) = (Vec::new(), Vec::new());
        for task in FidelityTask::ALL {
            if !options.tasks.contains(&task) {
                continue;
            }
            let all = Group::of(task, options.tokens);
            let fits = |group: &&Group| group.length().is_none_or(|length| length <= context);
            let fitting: Vec<Group> = all.iter().filter(fits).copied().collect();
            if fitting.is_empty() {
                return Err(too_short(task, FidelityTask::LENGTHS[0], context));
            }
            left_out.extend(
                all.iter().filter(|group| !fits(group)).map(|group| {
                    format!("{group}: left out, since the model's context is {context}")
                }),
            );
            groups.extend(fitting);
        }
        match groups.is_empty() {
            true => Err(Error::measure("there is no task to ask: give one")),
            false => Ok((groups, left_out)),
        }
    }

    /// The questions of a group.
    fn prepare(&self, group: Group, options: &FidelityOptions) -> Result<Vec<Prepared>> {
        let context = self.model.config().context;
        let count = options.count.unwrap_or(group.task().default_count());
        let measure = |case: &Case| Ok(self.tokens(case)?.len());
        let mut prepared = Vec::with_capacity(count);
        for index in 0..count {
            Watch::cancelled_by(&options.cancel).check()?;
            let case = group.case(options.seed, index, &measure)?;
            let question = Prepared {
                tokens: self.tokens(&case)?,
                expected: case.expected,
                most_tokens: case.most_tokens,
                answers: Vec::with_capacity(options.kv.len()),
            };
            if question.length() > context {
                return Err(too_short(group.task(), question.length(), context));
            }
            prepared.push(question);
        }
        Ok(prepared)
    }

    /// The tokens of a question.
    fn tokens(&self, case: &Case) -> Result<Vec<i32>> {
        let tokenizer = self.model.tokenizer();
        match &self.template {
            Some(template) => {
                let messages = [Message::user(case.question.as_str())];
                Prompt::render(template, &messages, tokenizer, Special::Text)?
                    .first_tokens(tokenizer)
            }
            None => {
                let text = format!("{}{}", case.question, case.cue);
                tokenizer.encode_prompt(&text, Special::Text)
            }
        }
    }

    /// What a session answers to a question alone. Where there is an answer of the first SPEC, it is read as far as the
    /// session agrees with it, many tokens at a time, which is faster than choosing them one by one and the same but for
    /// the last bits of logits.
    fn answer(
        &self,
        session: &mut Session,
        case: &Prepared,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Answer> {
        session.reset();
        session.set_watch(Watch::cancelled_by(cancel));
        session.prefill(&case.tokens)?;
        let mut tokens = Vec::new();
        if let Some(first) = case.answers.first() {
            let equal = agreeing(session, &first.tokens)?;
            if equal == first.tokens.len() {
                return Ok(first.clone());
            }
            tokens.extend_from_slice(&first.tokens[..equal]);
            if case.expected == Expected::Anything {
                // What comes behind the first difference does not count.
                return Ok(Answer {
                    tokens,
                    verdict: None,
                });
            }
        }
        self.go_on(session, case, &mut tokens, cancel)?;
        let text = self.model.tokenizer().decode(&tokens);
        let answer = match self.is_line(case) {
            true => text.lines().next().unwrap_or_default(),
            false => &text,
        };
        Ok(Answer {
            verdict: case.expected.judge(answer),
            tokens,
        })
    }

    /// Generates the rest of an answer, of which the session has read the tokens so far.
    fn go_on(
        &self,
        session: &mut Session,
        case: &Prepared,
        tokens: &mut Vec<i32>,
        cancel: &Arc<AtomicBool>,
    ) -> Result<()> {
        let mut generation = session.generate_from(
            &[],
            GenerateOptions {
                max_tokens: Some(case.most_tokens - tokens.len()),
                sampling: Sampling::greedy(),
                watch: Watch::cancelled_by(cancel),
                ..GenerateOptions::default()
            },
        )?;
        for piece in generation.by_ref() {
            if piece?.contains('\n') && self.is_line(case) {
                break;
            }
        }
        tokens.extend_from_slice(generation.tokens());
        match generation.finish() {
            Some(Finish::Cancelled) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    /// Whether an answer ends with its line: where there are no turns, nothing else says that it is over.
    fn is_line(&self, case: &Prepared) -> bool {
        self.template.is_none() && case.expected != Expected::Anything
    }
}

/// How many tokens of an answer a session that has read the question chooses as well. It has read these then.
fn agreeing(session: &mut Session, answer: &[i32]) -> Result<usize> {
    /// Read at a time: what comes behind a difference was read in vain.
    const BLOCK: usize = 16;
    let mut sampler = Sampler::new(&Sampling::greedy())?;
    let mut likeliest = |logits: &[f32]| sampler.sample(logits, &[], &mut Random::default());
    let start = session.position();
    let mut next = likeliest(session.logits())?;
    let mut equal = 0;
    for block in answer.chunks(BLOCK) {
        let begun = equal;
        if next != block[0] {
            break;
        }
        equal += 1;
        session.score(block, 0, &mut |index, logits| {
            // The tokens up to here are the session's own.
            if equal == begun + index + 1 {
                next = likeliest(logits)?;
                equal += usize::from(block.get(index + 1) == Some(&next));
            }
            Ok(())
        })?;
        if equal < begun + block.len() {
            session.truncate(start + equal)?;
            break;
        }
    }
    Ok(equal)
}

/// What was answered with all SPECs, counted.
fn count(group: Group, cases: &[Prepared], kv: &[KvSpec]) -> TaskFidelity {
    let answered: Vec<&[Answer]> = cases
        .iter()
        .map(|case| case.answers.as_slice())
        .filter(|answers| answers.len() == kv.len())
        .collect();
    let results = kv.iter().enumerate().map(|(index, kv)| {
        let pairs = answered
            .iter()
            .map(|answers| (&answers[index], &answers[0]));
        compare(group.task(), &kv.to_string(), &pairs.collect::<Vec<_>>())
    });
    TaskFidelity {
        task: group.task(),
        length: group.length(),
        cases: answered.len(),
        planned: cases.len(),
        results: results.collect(),
    }
}

/// An order of the questions of all groups, by group and number, in which those of each are spread evenly.
fn in_turns(counts: &[usize]) -> Vec<(usize, usize)> {
    let all = counts.iter().enumerate();
    let mut order: Vec<(usize, usize)> = all
        .flat_map(|(group, &count)| (0..count).map(move |index| (group, index)))
        .collect();
    let place = |&(group, index): &(usize, usize)| (index as f64 + 0.5) / counts[group] as f64;
    order.sort_by(|a, b| place(a).total_cmp(&place(b)));
    order
}

fn too_short(task: FidelityTask, needed: usize, context: usize) -> Error {
    let others: Vec<String> = FidelityTask::ALL
        .into_iter()
        .filter(|other| *other != task)
        .map(|other| format!("--task {other}"))
        .collect();
    Error::measure(format!(
        "{task} takes {needed} tokens, and the model has a context of {context}: ask for other tasks ({})",
        others.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_take_turns_in_proportion() {
        let order = in_turns(&[1, 4, 2]);
        assert_eq!(order.len(), 7);
        let groups: Vec<usize> = order.iter().map(|(group, _)| *group).collect();
        assert_eq!(groups, [1, 2, 1, 0, 1, 2, 1]);
        for group in 0..3 {
            let own = order.iter().filter(|(of, _)| *of == group);
            assert!(own.map(|(_, index)| *index).is_sorted());
        }
    }
}
