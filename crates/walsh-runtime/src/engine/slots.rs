//! The slots of an engine, one by one: which text each has, and files of such texts.
//!
//! A file holds what a slot's last text has left behind. The frame is that of [`container`](crate::container), the kind
//! `SLOT`, with the sections `HOME` (lines of what keys and values depend on besides the model), `SALT` (the salt's texts
//! share what is kept), `LORA` (of each adapter that the text takes, what tells it from others, 16 bytes, and its scale, `f32`; version 1
//! has no such section, and no adapters), `TEXT` (the tokens, `i32`), `CALL` (of each call that has read some of them: how, a byte; how many,
//! `u32`; whether an overlay or a state is kept behind it, a byte), `PAGE` (of each layer's keys, then values, the codes and then the
//! scales of each KV head, in pages that a token behind the text sees) and `OVER` (those
//! overlays and states).

use std::path::Path;

use super::kin::Kin;
use super::left::{Home, Left};
use crate::container::{self, Kind, Section, Tag};
use crate::model::Selection;
use crate::model::graph::Reading;
use crate::{Error, Model, Result};

const KIND: Kind = Kind {
    tag: *b"SLOT",
    version: 2,
    oldest: 1,
    name: "the text of a slot",
};
const HOME: Tag = *b"HOME";
const SALT: Tag = *b"SALT";
const ADAPTERS: Tag = *b"LORA";
const TEXT: Tag = *b"TEXT";
const CALLS: Tag = *b"CALL";
const PAGES: Tag = *b"PAGE";
const OVERLAYS: Tag = *b"OVER";

/// The bytes of a call in a file.
const CALL_BYTES: usize = 6;

/// A slot of an engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotStatus {
    /// The number of the request that has it: the first of an engine has 0. It has it until it ends, also while it
    /// gives way to others.
    pub request: Option<u64>,
    /// How many tokens of its request's text were read, or, where it has none, of the last one's.
    pub tokens: usize,
}

/// What a file of a slot's text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotFile {
    /// How many tokens need not be read again.
    pub tokens: usize,
    /// The length of the file.
    pub bytes: u64,
}

/// A text that a slot had last, as far as it was read.
pub(super) struct Held {
    pub(super) kin: Kin,
    pub(super) tokens: Vec<i32>,
    /// How many of them were its prompt.
    pub(super) prompt: usize,
}

/// A call of a text, or a run of tokens that were read one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) reading: Reading,
    pub(super) tokens: usize,
    /// Whether an overlay is kept behind it.
    pub(super) overlay: bool,
}

/// A text and what its calls have left behind.
pub(super) struct SlotText {
    pub(super) kin: Kin,
    pub(super) tokens: Vec<i32>,
    pub(super) links: Vec<Link>,
    pub(super) left: Left,
}

impl SlotText {
    /// Writes a file, and says how long it is.
    pub(super) fn write(self, path: &Path, model: &Model, home: &Home) -> Result<SlotFile> {
        let tokens = self.tokens.len();
        let lines = home
            .iter()
            .map(|(name, value)| format!("{name}\t{value}\n"));
        let Kin { salt, adapters } = self.kin;
        let salt = salt.map(|salt| [&[1], salt.as_bytes()].concat());
        let adapters = model.rack().map(|rack| adapters.bytes(rack));
        let calls = self.links.iter().flat_map(|link| {
            let [a, b, c, d] = (link.tokens as u32).to_le_bytes();
            let fresh = link.reading == Reading::CodesAndFresh;
            [u8::from(fresh), a, b, c, d, u8::from(link.overlay)]
        });
        let sections = vec![
            Section::of(HOME, lines.collect::<String>().into_bytes()),
            Section::of(SALT, salt.unwrap_or_else(|| vec![0])),
            Section::of(ADAPTERS, adapters.unwrap_or_default()),
            Section::of(
                TEXT,
                self.tokens
                    .iter()
                    .flat_map(|token| token.to_le_bytes())
                    .collect(),
            ),
            Section::of(CALLS, calls.collect()),
            Section::of(PAGES, self.left.pages),
            Section::of(OVERLAYS, self.left.overlays),
        ];
        container::write(path, KIND, model.origin()?, sections)?;
        let data = std::fs::metadata(path).map_err(|error| Error::file(path, &error))?;
        let bytes = data.len();
        Ok(SlotFile { tokens, bytes })
    }

    /// Reads a file that was written by an engine that keeps its caches as this one does.
    pub(super) fn read(path: &Path, model: &Model, home: &Home) -> Result<(Self, u64)> {
        let mut sections = container::read(path, KIND, model.origin()?)?;
        let lines = String::from_utf8(sections.bytes(HOME)?);
        let lines = lines.map_err(|_| sections.damaged("where it is from"))?;
        let mut lines = lines.lines().map(|line| line.split_once('\t'));
        for (name, own) in home {
            let (_, found) = lines
                .next()
                .flatten()
                .filter(|(found, _)| found == name)
                .ok_or_else(|| sections.damaged("where it is from"))?;
            if found != own {
                let what = format!(
                    "it was saved with the {name} {found}, and this engine has {own}: start one that is alike, or save anew"
                );
                return Err(Error::saved(path, what));
            }
        }
        let salt = sections.bytes(SALT)?;
        let salt = match salt.split_first() {
            Some((0, [])) => None,
            Some((1, salt)) => Some(String::from_utf8(salt.to_vec())),
            _ => return Err(sections.damaged("its salt")),
        };
        let salt = salt.transpose().map_err(|_| sections.damaged("its salt"))?;
        let adapters = match sections.has(ADAPTERS) {
            true => sections.bytes(ADAPTERS)?,
            false => Vec::new(),
        };
        let adapters = Selection::from_bytes(&adapters, model.rack().map(|rack| &**rack));
        let adapters = adapters.ok_or_else(|| {
            Error::saved(
                path,
                "its text was read with adapters that this model has not: open the model with the same ones",
            )
        })?;
        let tokens = sections.bytes(TEXT)?;
        let calls = sections.bytes(CALLS)?;
        let left = Left {
            pages: sections.bytes(PAGES)?,
            overlays: sections.bytes(OVERLAYS)?,
        };
        let links = links(&calls).filter(|links| {
            let all = links.iter().map(|link| link.tokens).sum::<usize>();
            tokens.len() == all * size_of::<i32>()
        });
        let links = links.ok_or_else(|| sections.damaged("what it says of its calls"))?;
        let text = Self {
            kin: Kin { salt, adapters },
            tokens: tokens
                .as_chunks()
                .0
                .iter()
                .map(|bytes| i32::from_le_bytes(*bytes))
                .collect(),
            links,
            left,
        };
        sections.finish()?;
        let data = std::fs::metadata(path).map_err(|error| Error::file(path, &error))?;
        Ok((text, data.len()))
    }
}

/// The calls of a file, if they can be some.
fn links(bytes: &[u8]) -> Option<Vec<Link>> {
    let (calls, rest) = bytes.as_chunks::<CALL_BYTES>();
    let link = |&[fresh, a, b, c, d, overlay]: &[u8; CALL_BYTES]| {
        let tokens = u32::from_le_bytes([a, b, c, d]) as usize;
        let reading = match fresh {
            0 => Reading::Codes,
            1 => Reading::CodesAndFresh,
            _ => return None,
        };
        (overlay < 2 && tokens > 0).then_some(Link {
            reading,
            tokens,
            overlay: overlay == 1,
        })
    };
    let links = calls.iter().map(link).collect::<Option<Vec<Link>>>()?;
    (rest.is_empty() && !links.is_empty()).then_some(links)
}
