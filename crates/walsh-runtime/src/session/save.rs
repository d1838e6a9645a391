//! Sessions in files.
//!
//! The frame is that of [`container`](crate::container), the kind `SESS`,
//! version 2. A *number* is 8 bytes, a *text* a number of bytes and as many bytes
//! of UTF-8; all is little-endian. The sections, in their order:
//!
//! | tag | contents |
//! |---|---|
//! | `META` | numbers: context, chunk, how many tokens were read, how many the session holds, how far the caches have ever been filled, the size of the vocabulary; a text: the SPEC of the KV cache; a number n, and n numbers: the bytes of each part of the caches |
//! | `TOKN` | the tokens, 4 bytes each |
//! | `CALL` | the calls that read them, 4 bytes each: twice the number of tokens, plus 1 where they attended to each other unquantised |
//! | `LOGI` | the logits behind the latest token that was read, `f32`; zeros where they are not known |
//! | `RAND` | numbers: the seed of the stream of random numbers, and its state |
//! | `CACH` | the parts of the caches, layer after layer: of keys, then of values, the codes of each head, the scales of each, and the same of what overlays have; then what keys are prepared with. A row is a position, or of an overlay a slot. A sliding layer has the last positions, as many as its window and a chunk, each at the row that the remainder of its division by that number says; rows that nobody can need are zeros. Of layers that keep a state, that behind the latest token that was read |
//! | `CHAT` | of conversations alone: see [`Conversation`](crate::Conversation) |
//!
//! Version 1 has no section `RAND`: the stream starts anew there, from seed 0.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use walsh::KvSpec;

use super::fields::{Fields, FieldsReader};
use super::history::{Call, History};
use super::left::Part;
use super::{Logits, Session, SessionOptions};
use crate::container::{self, Kind, Section, Sections, Tag};
use crate::model::graph::Reading;
use crate::sampling::Random;
use crate::{Error, Model, Result, Watch};

/// Files of sessions, conversations among them.
pub(crate) const KIND: Kind = Kind {
    tag: *b"SESS",
    version: 2,
    oldest: 1,
    name: "a session",
};

const META: Tag = *b"META";
const TOKENS: Tag = *b"TOKN";
const CALLS: Tag = *b"CALL";
const LOGITS: Tag = *b"LOGI";
const RANDOM: Tag = *b"RAND";
const CACHES: Tag = *b"CACH";

/// How a saved session is taken up.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// How many tokens it can hold from now on: no fewer than its caches have held, and
    /// than it prefills at a time; 0 for as many as before.
    pub context: usize,
    /// The SPEC that it must have been saved with, where one is expected; of a budget either meaning will do, fitted to
    /// the model or not.
    pub kv: Option<KvSpec>,
    /// Setting it ends the reading of a large file.
    pub cancel: Arc<AtomicBool>,
}

impl Model {
    /// Takes up a session that [`Session::save`] wrote. On a device of the same kind,
    /// whose weights are [packed](Self::packed_bytes) or not as they were, it goes on
    /// exactly as the saved one would have.
    ///
    /// # Errors
    /// When the file cannot be read, was saved with another model or by another
    /// version, or is damaged; when `options` contradict it, or memory is
    /// missing, as for [`session`](Self::session).
    pub fn restore(&self, path: impl AsRef<Path>, options: RestoreOptions) -> Result<Session> {
        Session::restore(self, path.as_ref(), &options)
    }
}

impl Session {
    /// Writes the session to a file, from which [`Model::restore`] takes it up
    /// again: the tokens, the codes of their keys and values as they lie in
    /// memory, the logits. An earlier file is replaced once the new one is whole.
    ///
    /// # Errors
    /// When the file cannot be written; an earlier one is then as it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let origin = self.model.origin()?;
        container::write(path.as_ref(), KIND, origin, self.sections()?)
    }

    /// What a file of this session consists of.
    pub(crate) fn sections(&self) -> Result<Vec<Section<'_>>> {
        let parts = self.parts()?;
        let tokens = &self.history.tokens;
        let tokens = tokens.iter().flat_map(|token| token.to_le_bytes());
        let calls = self.history.calls.iter().map(Call::code);
        let logits = self.logits.iter().flat_map(|logit| logit.to_le_bytes());
        let mut random = Fields::default();
        random.u64(self.random.seed());
        random.u64(self.random.state());
        let cache_bytes = parts.iter().map(Part::bytes).sum();
        Ok(vec![
            Section::of(META, self.meta(&parts)),
            Section::of(TOKENS, tokens.collect()),
            Section::of(CALLS, calls.flat_map(u32::to_le_bytes).collect()),
            Section::of(LOGITS, logits.collect()),
            Section::of(RANDOM, random.finish()),
            Section::streamed(CACHES, cache_bytes, move |sink| {
                let mut buffer = Vec::new();
                for part in &parts {
                    for piece in part.pieces() {
                        piece.read(&self.device, &mut buffer)?;
                        sink.put(&buffer)?;
                    }
                }
                Ok(())
            }),
        ])
    }

    fn meta(&self, parts: &[Part]) -> Vec<u8> {
        let mut fields = Fields::default();
        for number in [
            self.options.context,
            self.options.chunk,
            self.options.scored,
            self.history.stored,
            self.position(),
            self.reached,
            self.logits.len(),
        ] {
            fields.u64(number as u64);
        }
        fields.text(&self.options.kv.to_string());
        fields.u64(parts.len() as u64);
        for part in parts {
            fields.u64(part.bytes());
        }
        fields.finish()
    }

    fn restore(model: &Model, path: &Path, options: &RestoreOptions) -> Result<Self> {
        let mut sections = container::read(path, KIND, model.origin()?)?;
        let session = restore_sections(model, &mut sections, options)?;
        sections.finish()?;
        Ok(session)
    }
}

impl Call {
    fn code(&self) -> u32 {
        // A call has no more tokens than a context, which is below 2^31.
        (self.rows as u32) << 1 | u32::from(self.reading == Reading::CodesAndFresh)
    }

    fn decode(code: u32) -> Self {
        let reading = match code & 1 {
            0 => Reading::Codes,
            _ => Reading::CodesAndFresh,
        };
        Self {
            reading,
            rows: (code >> 1) as usize,
        }
    }
}

/// Takes the session of a file up; sections behind it are left to be read.
pub(crate) fn restore_sections<R: Read>(
    model: &Model,
    sections: &mut Sections<R>,
    options: &RestoreOptions,
) -> Result<Session> {
    let meta = sections.bytes(META)?;
    let Some(meta) = Meta::read(&meta).filter(|meta| meta.is_sound(model)) else {
        return Err(sections.damaged("its section META"));
    };
    let kv = meta.spec(sections.path(), model, options)?;
    // A smaller context would change what lies where in a cache, or the calls that read what follows.
    let least = meta.reached.max(meta.chunk);
    if options.context != 0 && options.context < least {
        return Err(Error::saved(
            sections.path(),
            format!(
                "it needs a context of at least {least}, but {} was asked for",
                options.context
            ),
        ));
    }
    let history = meta.history(sections, model)?;
    let logits = read_words(sections, LOGITS, f32::from_le_bytes)?;
    if logits.len() != meta.vocabulary {
        return Err(sections.damaged("its section LOGI"));
    }
    let random = read_random(sections)?;
    let mut session = model.session(SessionOptions {
        context: match options.context {
            0 => meta.context,
            context => context,
        },
        kv,
        chunk: meta.chunk,
        scored: meta.scored,
    })?;
    session.history = history;
    session.note_states();
    session.reached = meta.reached;
    let lengths = (meta.reached, meta.chunk);
    session.place.hold(meta.stored, lengths);
    if logits.iter().any(|logit| *logit != 0.0) {
        session.logits = logits;
        session.newest_logits = Logits::Here;
    }
    session.random = random;
    session.fill_caches(sections, &meta, &Watch::cancelled_by(&options.cancel))?;
    Ok(session)
}

fn read_random<R: Read>(sections: &mut Sections<R>) -> Result<Random> {
    if !sections.has(RANDOM) {
        return Ok(Random::default());
    }
    let bytes = sections.bytes(RANDOM)?;
    let mut fields = FieldsReader::new(&bytes);
    let mut read = || {
        let (seed, state) = (fields.u64()?, fields.u64()?);
        Some(Random::at(seed, state))
    };
    let random = read();
    random
        .filter(|_| fields.end().is_some())
        .ok_or_else(|| sections.damaged("its section RAND"))
}

impl Session {
    fn fill_caches<R: Read>(
        &self,
        sections: &mut Sections<R>,
        meta: &Meta<'_>,
        watch: &Watch,
    ) -> Result<()> {
        let parts = self.parts()?;
        let bytes = parts.iter().map(Part::bytes);
        if !bytes.eq(meta.parts.iter().copied()) {
            return Err(Error::saved(
                sections.path(),
                format!(
                    "this Walsh lays a KV cache of {} out in another way: read the text anew",
                    meta.kv
                ),
            ));
        }
        sections.stream(CACHES, &mut |body| {
            let mut buffer = Vec::new();
            for part in &parts {
                for piece in part.pieces() {
                    watch.check()?;
                    buffer.resize(piece.bytes() as usize, 0);
                    body.take(&mut buffer)?;
                    piece.write(&self.device, &buffer)?;
                }
            }
            Ok(())
        })
    }
}

/// The section `META`.
struct Meta<'a> {
    context: usize,
    chunk: usize,
    scored: usize,
    stored: usize,
    position: usize,
    reached: usize,
    vocabulary: usize,
    kv: &'a str,
    parts: Vec<u64>,
}

impl<'a> Meta<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = FieldsReader::new(bytes);
        let mut meta = Self {
            context: fields.size()?,
            chunk: fields.size()?,
            scored: fields.size()?,
            stored: fields.size()?,
            position: fields.size()?,
            reached: fields.size()?,
            vocabulary: fields.size()?,
            kv: fields.text()?,
            parts: Vec::new(),
        };
        for _ in 0..fields.count(size_of::<u64>())? {
            meta.parts.push(fields.u64()?);
        }
        fields.end()?;
        Some(meta)
    }

    /// Whether a session over this model can be like that.
    fn is_sound(&self, model: &Model) -> bool {
        (1..=self.context).contains(&self.chunk)
            && (1..=self.chunk).contains(&self.scored)
            && self.stored <= self.reached
            && self.reached <= self.context
            && (0..=1).contains(&self.position.wrapping_sub(self.stored))
            && self.vocabulary == model.config().vocabulary
    }

    fn spec(&self, path: &Path, model: &Model, options: &RestoreOptions) -> Result<KvSpec> {
        let saved: KvSpec = self.kv.parse().map_err(|error| {
            Error::saved(
                path,
                format!("this Walsh does not know its KV cache ({error}): read the text anew"),
            )
        })?;
        match &options.kv {
            Some(expected) if *expected != saved && model.kv_policy(expected)? != saved => {
                Err(Error::saved(
                    path,
                    format!(
                        "it was saved with the KV cache {saved}, not {expected}: ask for that or none"
                    ),
                ))
            }
            // Whatever fits have come since.
            _ => Ok(saved.spelled_out()),
        }
    }

    fn history<R: Read>(&self, sections: &mut Sections<R>, model: &Model) -> Result<History> {
        let tokens = read_words(sections, TOKENS, i32::from_le_bytes)?;
        let vocabulary = model.config().vocabulary;
        let known = |id: &i32| usize::try_from(*id).is_ok_and(|id| id < vocabulary);
        if tokens.len() != self.position || !tokens.iter().all(known) {
            return Err(sections.damaged("its section TOKN"));
        }
        let calls = read_words(sections, CALLS, u32::from_le_bytes)?;
        let calls: Vec<Call> = calls.into_iter().map(Call::decode).collect();
        let rows: usize = calls.iter().map(|call| call.rows).sum();
        let fits = |call: &Call| (1..=self.chunk).contains(&call.rows);
        if rows != self.stored || !calls.iter().all(fits) {
            return Err(sections.damaged("its section CALL"));
        }
        Ok(History {
            tokens,
            calls,
            stored: self.stored,
        })
    }
}

/// A section of numbers of 4 bytes.
fn read_words<R: Read, T>(
    sections: &mut Sections<R>,
    tag: Tag,
    number: impl Fn([u8; 4]) -> T,
) -> Result<Vec<T>> {
    let bytes = sections.bytes(tag)?;
    let (words, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(sections.damaged("a section of numbers"));
    }
    Ok(words.iter().map(|word| number(*word)).collect())
}
