//! Many prompts from a file of JSON lines, and their answers in the same order.

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::chat::{Context, Message, Template};
use crate::conversation::Prompt;
use crate::engine::{Engine, Request, Stream};
use crate::tokenizer::Special;
use crate::{Constraint, Error, Finish, Result};

/// The most bytes of a line: no prompt that fits a context comes near.
const LONGEST_LINE: u64 = 64 << 20;

/// How many requests the engine is given beyond those that it serves at once, so that none of it waits for a line.
const AHEAD: usize = 2;

/// How often a run that waits for an answer looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// What an answer adds to its line.
const ADDED: [&str; 5] = [
    "text",
    "finish",
    "prompt_tokens",
    "generated_tokens",
    "error",
];

/// How a batch is answered.
#[derive(Clone)]
pub struct BatchOptions {
    /// What holds where a line says nothing else; its prompt is not looked at.
    pub defaults: Request,
    /// Setting it ends the run: what was written stays.
    pub cancel: Arc<AtomicBool>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchReport {
    /// Lines that were answered before.
    pub resumed: usize,
    /// Lines that were answered now, those with an error too.
    pub answered: usize,
    /// Lines of both whose answer is an error.
    pub failed: usize,
    /// Tokens of the prompts that were answered now.
    pub prompt_tokens: usize,
    /// Those of them that were not read, because another prompt began with them.
    pub reused_tokens: usize,
    /// Tokens that were generated now.
    pub generated_tokens: usize,
    /// Whether the run was ended early.
    pub cancelled: bool,
}

/// What is read of a line; other fields are kept as they are.
#[derive(Deserialize)]
struct Line {
    prompt: Option<String>,
    messages: Option<Vec<Said>>,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Option<Stop>,
    priority: Option<i32>,
    salt: Option<String>,
    lora: Option<Vec<Share>>,
    json_schema: Option<Value>,
    regex: Option<String>,
    grammar: Option<String>,
}

impl Line {
    /// The constraint that it asks for, if it does; none where it asks for several.
    fn constraint(&mut self) -> Option<Option<Constraint>> {
        let schema = self.json_schema.take().map(|schema| schema.to_string());
        let asked = [
            schema.map(Constraint::JsonSchema),
            self.regex.take().map(Constraint::Regex),
            self.grammar.take().map(Constraint::Lark),
        ];
        let mut asked = asked.into_iter().flatten();
        let constraint = asked.next();
        asked.next().is_none().then_some(constraint)
    }
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
}

/// How much a line takes of an adapter.
#[derive(Deserialize)]
struct Share {
    id: usize,
    scale: f32,
}

/// One stop text, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

/// A line on its way: its fields, and its answer's stream or what is wrong with it.
struct Asked {
    fields: Map<String, Value>,
    stream: Result<Stream>,
}

/// Answers the prompts of `questions`, a file of JSON lines, into another.
///
/// A line has `"prompt"`, a text to go on with, or `"messages"`, an array of `{"role", "content"}`
/// for the model's chat template; and, as it likes, `"max_tokens"`, `"temperature"`, `"top_k"`,
/// `"top_p"`, `"min_p"`, `"repetition_penalty"`, `"seed"`, `"stop"` (a text or several),
/// `"priority"`, `"salt"` (only lines of the same share beginnings of prompts), `"lora"` (objects of
/// the `"id"` of an [adapter](crate::Model::adapters) and its `"scale"`) and one of
/// `"json_schema"` (a schema), `"regex"` and `"grammar"` (texts; see [`Constraint`]). Its answer
/// is the same object with `"text"`, `"finish"` (`"end"`, `"stop"`,
/// `"max_tokens"` or `"context_full"`), `"prompt_tokens"` and `"generated_tokens"`, or with
/// `"error"`. Answers come in the order of the lines, whoever is done first.
///
/// Where `answers` has answers already, they are those of the first lines, and the run goes
/// on behind them. `each` is told how many lines have their answer.
///
/// # Errors
/// When a file cannot be read or written, or `answers` has others than those of these lines;
/// nothing is written then.
pub fn batch(
    engine: &Engine,
    questions: &Path,
    answers: &mut Answers,
    options: &BatchOptions,
    each: &mut dyn FnMut(usize),
) -> Result<BatchReport> {
    let mut lines = Lines::open(questions)?;
    let mut report = answers.skip_answered(&mut lines)?;
    let template = engine.model().chat_template();
    let mut asked: VecDeque<Asked> = VecDeque::new();
    let most = AHEAD * engine.options().sequences + 1;
    each(report.resumed);
    loop {
        while asked.len() < most && !options.cancel.load(Ordering::Relaxed) {
            let Some((number, line)) = lines.next()? else {
                break;
            };
            asked.push_back(ask(engine, template.as_ref(), (number, &line), options));
        }
        let Some(first) = asked.pop_front() else {
            break;
        };
        match answer(first, options, &mut report) {
            Some(fields) => answers.write(&Value::Object(fields))?,
            None => {
                report.cancelled = true;
                break;
            }
        }
        report.answered += 1;
        each(report.resumed + report.answered);
    }
    report.cancelled |= options.cancel.load(Ordering::Relaxed);
    Ok(report)
}

/// Hands a line to the engine.
fn ask(
    engine: &Engine,
    template: std::result::Result<&Template, &Error>,
    (number, line): (usize, &str),
    options: &BatchOptions,
) -> Asked {
    let wrong = |what: String| Error::Text {
        name: format!("line {number}"),
        what,
    };
    let fields = match serde_json::from_str::<Map<String, Value>>(line) {
        Ok(fields) => fields,
        Err(error) => {
            return Asked {
                fields: Map::new(),
                stream: Err(wrong(format!("it is no JSON object: {error}"))),
            };
        }
    };
    let request = || -> Result<Request> {
        if let Some(name) = ADDED.iter().find(|name| fields.contains_key(**name)) {
            return Err(wrong(format!(
                "it has {name:?} already, which an answer adds"
            )));
        }
        let mut line: Line = serde_json::from_value(Value::Object(fields.clone()))
            .map_err(|error| wrong(error.to_string()))?;
        let constraint = line.constraint().ok_or_else(|| {
            let several = "give one of \"json_schema\", \"regex\" and \"grammar\", not several";
            wrong(several.into())
        })?;
        let tokenizer = engine.model().tokenizer();
        let mut checkpoints = Vec::new();
        let prompt = match (&line.prompt, line.messages) {
            (Some(text), None) => tokenizer.encode_after(None, text, Special::Text)?,
            (None, Some(messages)) => {
                let message = |said: Said| Message {
                    role: said.role,
                    content: said.content,
                };
                let messages: Vec<Message> = messages.into_iter().map(message).collect();
                let template = template.map_err(|error| wrong(error.to_string()))?;
                let context = Context::of(&messages, true);
                let prompt = Prompt::of(template, &context, tokenizer, Special::Text)?
                    .first_tokens(tokenizer)?;
                checkpoints = Prompt::ends_of_messages(template, &context, tokenizer, &prompt);
                prompt
            }
            _ => return Err(wrong("give \"prompt\" or \"messages\", one of them".into())),
        };
        let mut request = Request {
            prompt,
            checkpoints,
            salt: line.salt,
            ..options.defaults.clone()
        };
        if let Some(shares) = line.lora {
            let scales = shares.iter().map(|share| (share.id, share.scale));
            request.adapters = Some(scales.collect());
        }
        request.constraint = constraint.or(request.constraint);
        request.max_tokens = line.max_tokens.or(request.max_tokens);
        request.seed = line.seed.unwrap_or(request.seed);
        request.priority = line.priority.unwrap_or(request.priority);
        match line.stop {
            Some(Stop::One(text)) => request.stop = vec![text],
            Some(Stop::Several(texts)) => request.stop = texts,
            None => {}
        }
        let sampling = &mut request.sampling;
        sampling.temperature = line.temperature.unwrap_or(sampling.temperature);
        sampling.top_k = line.top_k.unwrap_or(sampling.top_k);
        sampling.top_p = line.top_p.unwrap_or(sampling.top_p);
        sampling.min_p = line.min_p.unwrap_or(sampling.min_p);
        let penalty = line.repetition_penalty;
        sampling.repetition_penalty = penalty.unwrap_or(sampling.repetition_penalty);
        Ok(request)
    };
    Asked {
        stream: request().and_then(|request| engine.submit(request)),
        fields,
    }
}

/// Waits for an answer: the line with what is added to it, or nothing where the run is ended before.
fn answer(
    asked: Asked,
    options: &BatchOptions,
    report: &mut BatchReport,
) -> Option<Map<String, Value>> {
    let Asked { mut fields, stream } = asked;
    let mut text = String::new();
    let answered = stream.and_then(|mut stream| {
        loop {
            if options.cancel.load(Ordering::Relaxed) {
                return Ok(None);
            }
            match stream.poll(LOOK) {
                Poll::Pending => {}
                Poll::Ready(Some(piece)) => text.push_str(&piece?.text),
                Poll::Ready(None) => return Ok(stream.finish().zip(stream.figures().copied())),
            }
        }
    });
    match answered {
        Ok(None | Some((Finish::Cancelled, _))) => return None,
        Ok(Some((finish, figures))) => {
            report.prompt_tokens += figures.prompt_tokens;
            report.reused_tokens += figures.reused_tokens;
            report.generated_tokens += figures.generated_tokens;
            fields.insert("text".into(), text.into());
            fields.insert("finish".into(), finish.name().into());
            fields.insert("prompt_tokens".into(), figures.prompt_tokens.into());
            fields.insert("generated_tokens".into(), figures.generated_tokens.into());
        }
        Err(error) => {
            report.failed += 1;
            fields.insert("error".into(), error.to_string().into());
        }
    }
    Some(fields)
}

/// The lines of a file that are not empty, with their numbers.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: usize,
    /// Bytes so far.
    read: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::file(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            number: 0,
            read: 0,
        })
    }

    fn next(&mut self) -> Result<Option<(usize, String)>> {
        loop {
            let mut line = Vec::new();
            let mut limited = self.reader.by_ref().take(LONGEST_LINE);
            let read = limited
                .read_until(b'\n', &mut line)
                .map_err(|error| Error::file(&self.path, &error))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.read += read as u64;
            let wrong = |what: &str| Error::Text {
                name: format!("{}, line {}", self.path.display(), self.number),
                what: what.into(),
            };
            if read as u64 == LONGEST_LINE && line.last() != Some(&b'\n') {
                return Err(wrong("it is longer than 64 MiB"));
            }
            let line = String::from_utf8(line).map_err(|_| wrong("it is not UTF-8"))?;
            if !line.trim().is_empty() {
                return Ok(Some((self.number, line)));
            }
        }
    }
}

/// How many prompts a file has.
///
/// # Errors
/// When it cannot be read as lines of text.
pub fn count_lines(path: &Path) -> Result<usize> {
    let mut lines = Lines::open(path)?;
    let mut count = 0;
    while lines.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Where answers go.
pub struct Answers(Place);

enum Place {
    Stream(Box<dyn Write>),
    /// A file that may hold some already.
    File(PathBuf, File),
}

impl Answers {
    /// To a stream.
    #[must_use]
    pub fn to(out: Box<dyn Write>) -> Self {
        Self(Place::Stream(out))
    }

    /// To a file, behind the answers that it has.
    ///
    /// # Errors
    /// When the file cannot be read or written, or another run writes there.
    pub fn in_file(path: &Path) -> Result<Self> {
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options
            .open(path)
            .map_err(|error| Error::file(path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(Place::File(path.to_owned(), file))),
            Err(TryLockError::Error(error)) => Err(Error::file(path, &error)),
            Err(TryLockError::WouldBlock) => Err(Error::Text {
                name: path.display().to_string(),
                what: "another run writes its answers there: wait for it, or give another file"
                    .into(),
            }),
        }
    }

    /// Passes the lines that have their answers. A last answer that is not whole, for the run was killed, is taken back;
    /// nothing else in the file is touched, and nothing at all where it is not one of answers to these lines.
    fn skip_answered(&mut self, lines: &mut Lines) -> Result<BatchReport> {
        let mut report = BatchReport::default();
        let Place::File(path, file) = &mut self.0 else {
            return Ok(report);
        };
        let mut answers = Lines::open(path)?;
        let mut whole = 0;
        while let Some((number, answer)) = answers.next()? {
            let wrong = |what: &str| Error::Text {
                name: format!("{}, line {number}", path.display()),
                what: format!("{what}: give another file, or remove this one"),
            };
            let fields = serde_json::from_str::<Map<String, Value>>(&answer);
            if fields.is_err() && !answer.ends_with('\n') && answer.starts_with('{') {
                break;
            }
            let mut fields = fields.map_err(|_| wrong("it is no answer"))?;
            let failed = fields.contains_key("error");
            let line = lines.next()?;
            let (_, line) = line.ok_or_else(|| wrong("there are more answers than questions"))?;
            for name in ADDED {
                fields.remove(name);
            }
            // A line that was no object has left nothing but its error.
            let question = serde_json::from_str::<Map<String, Value>>(&line).unwrap_or_default();
            let kept = question
                .into_iter()
                .filter(|(name, _)| !ADDED.contains(&name.as_str()));
            if fields != kept.collect::<Map<_, _>>() {
                return Err(wrong("it is the answer to another question"));
            }
            whole = answers.read;
            report.resumed += 1;
            report.failed += usize::from(failed);
            if !answer.ends_with('\n') {
                // All but its end was written.
                let ended = file
                    .seek(SeekFrom::End(0))
                    .and_then(|_| file.write_all(b"\n"));
                ended.map_err(|error| Error::file(path, &error))?;
                whole += 1;
            }
        }
        let cut = file
            .set_len(whole)
            .and_then(|()| file.seek(SeekFrom::End(0)));
        cut.map_err(|error| Error::file(path, &error))?;
        Ok(report)
    }

    fn write(&mut self, answer: &Value) -> Result<()> {
        let line = format!("{answer}\n");
        match &mut self.0 {
            Place::Stream(out) => {
                let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
                written.map_err(Error::Output)
            }
            Place::File(path, file) => {
                let written = file.write_all(line.as_bytes());
                written.map_err(|error| Error::file(path, &error))
            }
        }
    }
}
