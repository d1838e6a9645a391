//! Tokenizers, made from the vocabulary in a GGUF file.
//!
//! Two kinds: byte-pair encoding by merges (`tokenizer.ggml.model` = `gpt2` or `gemma4`), with every pre-tokenizer
//! that llama.cpp knows, and SentencePiece's (`llama`). The ids equal llama.cpp's, also for text that is
//! not UTF-8.

mod bpe;
mod decode;
mod guard;
mod keys;
mod pre;
mod roles;
mod special;
mod split;
mod spm;
mod vocab;

use std::borrow::Cow;

use walsh::formats::gguf::{Gguf, Metadata};

use crate::error::{Error, Result};
use pre::{Alphabet, Pre};
use roles::Roles;
use special::{Part, SpecialTokens};
use split::Split;
use vocab::{Kind, Vocab};

pub use decode::Decoder;

/// What becomes of the names of control tokens, such as `<|im_end|>`, that occur in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// They become the control tokens: for text from a chat template.
    Parse,
    /// They stay text: for what a user wrote.
    Text,
}

/// What a model that was trained to fill gaps reads in front of the parts of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Infill {
    /// Before what stands in front of the gap.
    pub prefix: i32,
    /// Before what stands behind it.
    pub suffix: i32,
    /// Before what fills it.
    pub middle: i32,
    /// Before each file, where there are several.
    pub file: Option<i32>,
}

/// Puts text into a model's tokens and back.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    special: SpecialTokens,
    model: Model,
    bos: Option<i32>,
    eos: Option<i32>,
    unknown: Option<i32>,
    ends: Vec<i32>,
    infill: Option<Infill>,
    add_bos: bool,
    add_eos: bool,
}

#[derive(Debug)]
enum Model {
    Merges {
        split: Split,
        merges: bpe::Merges,
        alphabet: Alphabet,
    },
    SentencePiece {
        scores: spm::Scores,
        space_prefix: bool,
    },
}

impl Tokenizer {
    /// The tokenizer of a model file.
    ///
    /// # Errors
    /// When the file has no vocabulary, or one that is damaged or of a kind that this version lacks.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Tokenizer> {
        let meta = gguf.metadata();
        let pre = match meta.str("tokenizer.ggml.model")? {
            "gpt2" => Some(Pre::find(
                meta.opt_str("tokenizer.ggml.pre")?.unwrap_or("default"),
            )?),
            // A name of its own for byte pairs of marked text.
            "gemma4" => Some(Pre::find("gemma4")?),
            "llama" => None,
            other => {
                return Err(Error::tokenizer(format!(
                    "vocabularies of the kind {other:?} are not supported: use a model whose tokenizer.ggml.model is gpt2, gemma4 or llama"
                )));
            }
        };
        keys::check(meta)?;
        let byte_level = pre.is_some_and(|pre| pre.alphabet == Alphabet::Bytes);
        let mut vocab = read_vocab(meta, byte_level)?;
        let roles = Roles::read(meta, &mut vocab, pre.is_none())?;
        let model = match pre {
            Some(pre) => read_merges(meta, &vocab, pre)?,
            None => read_sentence_piece(meta, &vocab, roles.unknown)?,
        };
        let add_bos = meta
            .opt_bool("tokenizer.ggml.add_bos_token")?
            .unwrap_or(pre.is_none_or(|pre| pre.add_bos))
            || pre.is_some_and(|pre| pre.always_bos);
        let add_eos = meta
            .opt_bool("tokenizer.ggml.add_eos_token")?
            .unwrap_or(false);
        for (add, id, name) in [(add_bos, roles.bos, "bos"), (add_eos, roles.eos, "eos")] {
            if add && id.is_none() {
                return Err(Error::tokenizer(format!(
                    "texts are to have a {name} token but tokenizer.ggml.{name}_token_id names none: convert the model again"
                )));
            }
        }
        let signed = |id: Option<u32>| id.map(|id| id as i32);
        Ok(Tokenizer {
            special: SpecialTokens::new(&vocab),
            vocab,
            model,
            bos: signed(roles.bos),
            eos: signed(roles.eos),
            unknown: signed(roles.unknown),
            ends: roles.ends.into_iter().map(|id| id as i32).collect(),
            infill: roles.infill.map(|[prefix, suffix, middle]| Infill {
                prefix: prefix as i32,
                suffix: suffix as i32,
                middle: middle as i32,
                file: roles.file.map(|id| id as i32),
            }),
            add_bos,
            add_eos,
        })
    }

    /// The tokens of `text` alone, as a text's beginning but without the token for it.
    ///
    /// # Errors
    /// When the text is longer than 1 GiB.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<i32>> {
        self.encode_bytes(text.as_bytes(), special)
    }

    /// The tokens of `text`, a whole one, with the tokens for beginning and end that the model was
    /// trained to see.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str, special: Special) -> Result<Vec<i32>> {
        self.encode_prompt_bytes(text.as_bytes(), special)
    }

    /// As [`Tokenizer::encode_prompt`], for bytes that need not be UTF-8.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt_bytes(&self, text: &[u8], special: Special) -> Result<Vec<i32>> {
        let mut tokens = self.encode_bytes(text, special)?;
        if self.add_bos {
            tokens.splice(0..0, self.bos);
        }
        if self.add_eos {
            tokens.extend(self.eos);
        }
        Ok(tokens)
    }

    /// The tokens of `text` where it goes on after the token `previous`, or begins a text that is to go
    /// on where there is none: a beginning has the token for it, and none of these has the one for the
    /// end. The space that SentencePiece puts before a text is put only where the text begins, or after
    /// a special token.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_after(
        &self,
        previous: Option<i32>,
        text: &str,
        special: Special,
    ) -> Result<Vec<i32>> {
        let mut tokens = self.encode_parts(text.as_bytes(), special, previous, None)?;
        if previous.is_none() && self.add_bos {
            tokens.splice(0..0, self.bos);
        }
        Ok(tokens)
    }

    /// The token that [`Tokenizer::encode_prompt`] puts last.
    pub(crate) fn last(&self) -> Option<i32> {
        self.eos.filter(|_| self.add_eos)
    }

    /// As [`Tokenizer::encode`], for bytes that need not be UTF-8: vocabularies with merges see U+FFFD
    /// for each byte that is no part of a character, SentencePiece's see the bytes themselves.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_bytes(&self, text: &[u8], special: Special) -> Result<Vec<i32>> {
        self.encode_parts(text, special, None, None)
    }

    /// The tokens of what lies after `previous`. No control token is found right after `marker`, or
    /// around it, and it is no part of the text.
    fn encode_parts(
        &self,
        text: &[u8],
        special: Special,
        previous: Option<i32>,
        marker: Option<char>,
    ) -> Result<Vec<i32>> {
        if text.len() > (u32::MAX / 4) as usize {
            return Err(Error::tokenizer(format!(
                "a text of {} bytes is too long: give at most 1 GiB at a time",
                text.len()
            )));
        }
        let mut buffer = [0; 4];
        let marker = marker.map(|marker| marker.encode_utf8(&mut buffer).as_bytes());
        let mut out = Vec::with_capacity(text.len() / 3);
        let mut after_token = previous
            .and_then(|token| self.id(token))
            .is_none_or(|id| self.vocab.kind(id).is_special());
        for part in self.special.cut(&self.vocab, text, special, marker) {
            match part {
                Part::Token(id) => {
                    out.push(id as i32);
                    after_token = true;
                }
                Part::Text(range) => {
                    let text = guard::without(&text[range], marker);
                    if !text.is_empty() {
                        self.encode_text(&text, after_token, &mut out);
                        after_token = false;
                    }
                }
            }
        }
        Ok(out)
    }

    /// Appends the tokens of text without special tokens.
    fn encode_text(&self, text: &[u8], after_token: bool, out: &mut Vec<i32>) {
        match &self.model {
            Model::Merges {
                split,
                merges,
                alphabet,
            } => {
                let marked = match alphabet {
                    Alphabet::MarkedText => Cow::Owned(mark_spaces(text, false)),
                    Alphabet::Bytes | Alphabet::Text => Cow::Borrowed(text),
                };
                let (readable, raw) = repair(&marked);
                for piece in split.pieces(&readable) {
                    merges.encode(&self.vocab, &raw[piece], out);
                }
            }
            Model::SentencePiece {
                scores,
                space_prefix,
            } => {
                let text = mark_spaces(text, *space_prefix && after_token);
                scores.encode(&self.vocab, &text, out);
            }
        }
    }

    /// The text of `tokens`; control tokens are left out, bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[i32]) -> String {
        let mut bytes = Vec::new();
        for &token in tokens {
            if !self.is_control(token) {
                bytes.extend_from_slice(&self.token_bytes(token));
            }
        }
        let text = match &self.model {
            // The space that encoding put in front.
            Model::SentencePiece {
                space_prefix: true, ..
            } => bytes.strip_prefix(b" ").unwrap_or(&bytes),
            _ => &bytes,
        };
        String::from_utf8_lossy(text).into_owned()
    }

    /// The bytes that `token` stands for; the name of a control token; nothing for an id that is unused
    /// or outside the vocabulary.
    pub fn token_bytes(&self, token: i32) -> Cow<'_, [u8]> {
        let Some(id) = self.id(token) else {
            return Cow::Borrowed(&[]);
        };
        let text = self.vocab.text(id);
        match (self.vocab.kind(id), &self.model) {
            (Kind::Unused, _) => Cow::Borrowed(&[]),
            (Kind::Byte, _) => match byte_of_name(text) {
                Some(byte) => Cow::Owned(vec![byte]),
                None => Cow::Borrowed(text),
            },
            (
                Kind::Normal,
                Model::SentencePiece { .. }
                | Model::Merges {
                    alphabet: Alphabet::MarkedText,
                    ..
                },
            ) => unmark_spaces(text),
            _ => Cow::Borrowed(text),
        }
    }

    /// The token with exactly this text, such as `<|im_end|>`.
    pub fn token(&self, text: &str) -> Option<i32> {
        self.vocab.find(text.as_bytes()).map(|id| id as i32)
    }

    /// Whether `token` steers the model rather than being part of the text.
    pub fn is_control(&self, token: i32) -> bool {
        self.id(token)
            .is_some_and(|id| self.vocab.kind(id).is_markup())
    }

    /// Whether the model has ended its text, or its turn, with this token.
    pub fn is_end(&self, token: i32) -> bool {
        self.ends.contains(&token)
    }

    /// The tokens with which a model ends its text, or its turn, in order.
    pub fn ends(&self) -> &[i32] {
        &self.ends
    }

    /// The tokens of a model that was trained to fill gaps.
    pub fn infill(&self) -> Option<Infill> {
        self.infill
    }

    /// Whether the vocabulary has a token of this number.
    pub fn has(&self, token: i32) -> bool {
        self.id(token).is_some()
    }

    /// What a token is called: its text, as far as that is UTF-8, or the name of a control token.
    pub fn token_name(&self, token: i32) -> String {
        String::from_utf8_lossy(&self.token_bytes(token)).into_owned()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<i32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<i32> {
        self.eos
    }

    /// The token for what has no token.
    pub fn unknown(&self) -> Option<i32> {
        self.unknown
    }

    /// Whether a prompt starts with [`Tokenizer::bos`]. True only where there is one.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// The number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    fn id(&self, token: i32) -> Option<u32> {
        u32::try_from(token)
            .ok()
            .filter(|&id| (id as usize) < self.vocab.len())
    }
}

fn read_vocab(meta: &Metadata<'_>, byte_level: bool) -> Result<Vocab> {
    let texts = meta.array("tokenizer.ggml.tokens")?;
    let mut kinds = match meta.opt_array("tokenizer.ggml.token_type")? {
        Some(kinds) if kinds.len() < texts.len() => {
            return Err(Error::tokenizer(format!(
                "{} token types for {} tokens: convert the model again",
                kinds.len(),
                texts.len()
            )));
        }
        Some(kinds) => Some(kinds.i32s()?),
        None => None,
    };
    let mut vocab = Vocab::with_capacity(texts.len());
    let mut decoded = Vec::new();
    for text in texts.byte_strings()? {
        let kind = match kinds.as_mut().and_then(Iterator::next) {
            Some(number) => Kind::from_gguf(number).ok_or_else(|| {
                Error::tokenizer(format!(
                    "token {} is of the type {number}, and types are 0 to 6: convert the model again",
                    vocab.len()
                ))
            })?,
            None => Kind::Normal,
        };
        // Control tokens are written as they are, not in the alphabet of bytes.
        let encoded = byte_level && !kind.is_special() && kind != Kind::Byte;
        let bytes = match std::str::from_utf8(text) {
            Ok(text) if encoded && bpe::bytes_of_text(text, &mut decoded) => &decoded,
            _ => text,
        };
        vocab.push(bytes, kind)?;
    }
    if vocab.len() == 0 {
        return Err(Error::tokenizer(
            "the vocabulary is empty: use another model",
        ));
    }
    Ok(vocab)
}

fn read_merges(meta: &Metadata<'_>, vocab: &Vocab, pre: &Pre) -> Result<Model> {
    let merges = meta.array("tokenizer.ggml.merges")?;
    Ok(Model::Merges {
        split: Split::new(pre.stages)?,
        merges: bpe::read(vocab, merges.strings()?, pre)?,
        alphabet: pre.alphabet,
    })
}

fn read_sentence_piece(meta: &Metadata<'_>, vocab: &Vocab, unknown: Option<u32>) -> Result<Model> {
    let scores = meta.array("tokenizer.ggml.scores")?.f32s()?.collect();
    Ok(Model::SentencePiece {
        scores: spm::Scores::new(vocab, scores, unknown)?,
        space_prefix: meta
            .opt_bool("tokenizer.ggml.add_space_prefix")?
            .unwrap_or(true),
    })
}

fn mark_spaces(text: &[u8], prefix: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 2);
    if prefix {
        out.extend_from_slice(spm::SPACE);
    }
    for &byte in text {
        match byte {
            b' ' => out.extend_from_slice(spm::SPACE),
            _ => out.push(byte),
        }
    }
    out
}

fn unmark_spaces(text: &[u8]) -> Cow<'_, [u8]> {
    if !text
        .windows(spm::SPACE.len())
        .any(|window| window == spm::SPACE)
    {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(&first) = rest.first() {
        if let Some(after) = rest.strip_prefix(spm::SPACE) {
            out.push(b' ');
            rest = after;
        } else {
            out.push(first);
            rest = &rest[1..];
        }
    }
    Cow::Owned(out)
}

/// The byte that `<0x41>` names.
fn byte_of_name(name: &[u8]) -> Option<u8> {
    let digits = name.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    match digits.len() {
        2 => u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok(),
        _ => None,
    }
}

/// Text to cut and, of the same length, the bytes to encode.
///
/// They differ in surrogates only, which no `str` can hold: vocabularies with merges see their three
/// bytes as they are, and for the cutting U+E000 stands for them, as no letter, number, sign or space
/// either, and next to them in the order of characters.
/// A longer form of a character than UTF-8 allows is taken for the character; any other byte out of place
/// becomes U+FFFD.
fn repair(text: &[u8]) -> (Cow<'_, str>, Cow<'_, [u8]>) {
    if let Ok(valid) = std::str::from_utf8(text) {
        return (Cow::Borrowed(valid), Cow::Borrowed(text));
    }
    let mut readable = String::with_capacity(text.len() + 16);
    let mut raw = Vec::with_capacity(text.len() + 16);
    let mut rest = text;
    while !rest.is_empty() {
        let (code, len) = loose_char(rest).unwrap_or((0xfffd, 1));
        match code {
            0xd800..=0xdfff => {
                readable.push('\u{e000}');
                raw.extend_from_slice(&rest[..3]);
            }
            _ => {
                let shown = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                readable.push(shown);
                raw.extend_from_slice(shown.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        rest = &rest[len..];
    }
    (Cow::Owned(readable), Cow::Owned(raw))
}

/// The code point that `bytes` starts with, by the bit pattern of UTF-8 alone, and its length.
fn loose_char(bytes: &[u8]) -> Option<(u32, usize)> {
    let first = *bytes.first()?;
    let (len, bits) = match first {
        0..=0x7f => (1, u32::from(first)),
        0xc0..=0xdf => (2, u32::from(first & 0x1f)),
        0xe0..=0xef => (3, u32::from(first & 0x0f)),
        0xf0..=0xf7 => (4, u32::from(first & 0x07)),
        _ => return None,
    };
    let mut code = bits;
    for &byte in bytes.get(1..len)? {
        if byte & 0xc0 != 0x80 {
            return None;
        }
        code = code << 6 | u32::from(byte & 0x3f);
    }
    Some((code, len))
}
