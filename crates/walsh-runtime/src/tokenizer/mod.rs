//! Tokenizers, made from the vocabulary in a GGUF file.
//!
//! Two kinds: byte-level byte-pair encoding (`tokenizer.ggml.model` = `gpt2`) and SentencePiece's
//! (`llama`). The ids equal llama.cpp's, also for text that is not UTF-8.

mod bpe;
mod decode;
mod special;
mod split;
mod spm;
mod vocab;

use std::borrow::Cow;

use walsh::formats::gguf::{Gguf, Metadata};

use crate::error::{Error, Result};
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
    add_bos: bool,
    add_eos: bool,
}

#[derive(Debug)]
enum Model {
    Bytes {
        split: Split,
        merges: bpe::Merges,
    },
    SentencePiece {
        scores: spm::Scores,
        space_prefix: bool,
    },
}

/// Tokens after which a model has nothing more to say, whatever else the file says of them.
const ENDS: [&str; 15] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
];

/// Tokens of infilling after which a model has nothing more to say: padding, repository, file.
const INFILL_ENDS: [&str; 11] = [
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Other tokens that steer infilling, which some files call ordinary text.
const INFILL: [&str; 15] = [
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
];

impl Tokenizer {
    /// The tokenizer of a model file.
    ///
    /// # Errors
    /// When the file has no vocabulary, or one that is damaged or of a kind that this version lacks.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Tokenizer> {
        let meta = gguf.metadata();
        let sentence_piece = match meta.str("tokenizer.ggml.model")? {
            "gpt2" => false,
            "llama" => true,
            other => {
                return Err(Error::tokenizer(format!(
                    "vocabularies of the kind {other:?} are not supported: use a model whose tokenizer.ggml.model is gpt2 or llama"
                )));
            }
        };
        let mut vocab = read_vocab(meta, !sentence_piece)?;
        let id = |key: &str| -> Result<Option<u32>> {
            let id = meta.opt_u32(key)?;
            Ok(id.filter(|&id| (id as usize) < vocab.len()))
        };
        let bos = id("tokenizer.ggml.bos_token_id")?;
        let eos = id("tokenizer.ggml.eos_token_id")?;
        let unknown = id("tokenizer.ggml.unknown_token_id")?;
        let mut ends = vec![eos];
        for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
            ends.push(id(key)?);
        }
        let (model, default_bos) = match sentence_piece {
            true => (read_sentence_piece(meta, &vocab, unknown)?, true),
            false => read_bytes(meta, &vocab)?,
        };
        let add_bos = meta
            .opt_bool("tokenizer.ggml.add_bos_token")?
            .unwrap_or(default_bos);
        let add_eos = meta
            .opt_bool("tokenizer.ggml.add_eos_token")?
            .unwrap_or(false);
        for (add, id, name) in [(add_bos, bos, "bos"), (add_eos, eos, "eos")] {
            if add && id.is_none() {
                return Err(Error::tokenizer(format!(
                    "texts are to have a {name} token but tokenizer.ggml.{name}_token_id names none: convert the model again"
                )));
            }
        }
        for name in ENDS.iter().chain(&INFILL_ENDS) {
            ends.push(control(&mut vocab, name));
        }
        for name in INFILL {
            control(&mut vocab, name);
        }
        let mut ends: Vec<i32> = ends.into_iter().flatten().map(|id| id as i32).collect();
        ends.sort_unstable();
        ends.dedup();
        let signed = |id: Option<u32>| id.map(|id| id as i32);
        Ok(Tokenizer {
            special: SpecialTokens::new(&vocab),
            vocab,
            model,
            bos: signed(bos),
            eos: signed(eos),
            unknown: signed(unknown),
            ends,
            add_bos,
            add_eos,
        })
    }

    /// The tokens of `text` alone, without the tokens for beginning and end.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<i32>> {
        self.encode_bytes(text.as_bytes(), special)
    }

    /// The tokens of `text` with the tokens for beginning and end that the model was trained to see.
    pub fn encode_prompt(&self, text: &str, special: Special) -> Result<Vec<i32>> {
        self.encode_prompt_bytes(text.as_bytes(), special)
    }

    /// As [`Tokenizer::encode_prompt`], for bytes that need not be UTF-8.
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

    /// The tokens of `text` where it goes on a text whose latest token is `previous`; where it begins one, there
    /// is none. Vocabularies that put a space in front of a text do so at its beginning and behind special tokens.
    pub fn encode_after(
        &self,
        previous: Option<i32>,
        text: &str,
        special: Special,
    ) -> Result<Vec<i32>> {
        let is_special = |id| self.vocab.kind(id).is_special();
        let begins = previous
            .and_then(|token| self.id(token))
            .is_none_or(is_special);
        self.encode_part(text.as_bytes(), special, begins)
    }

    /// The token that [`Tokenizer::encode_prompt`] puts last.
    pub(crate) fn last(&self) -> Option<i32> {
        self.eos.filter(|_| self.add_eos)
    }

    /// As [`Tokenizer::encode`], for bytes that need not be UTF-8: byte-level vocabularies see U+FFFD
    /// for each byte that is no part of a character, SentencePiece's see the bytes themselves.
    pub fn encode_bytes(&self, text: &[u8], special: Special) -> Result<Vec<i32>> {
        self.encode_part(text, special, true)
    }

    /// The tokens of a text, which begins one or stands behind a special token where `begins` says so.
    fn encode_part(&self, text: &[u8], special: Special, begins: bool) -> Result<Vec<i32>> {
        if text.len() > (u32::MAX / 4) as usize {
            return Err(Error::tokenizer(format!(
                "a text of {} bytes is too long: give at most 1 GiB at a time",
                text.len()
            )));
        }
        let mut out = Vec::with_capacity(text.len() / 3);
        let mut after_token = begins;
        for part in self.special.cut(&self.vocab, text, special) {
            match part {
                Part::Token(id) => out.push(id as i32),
                Part::Text(ref range) => {
                    let text = &text[range.clone()];
                    match &self.model {
                        Model::Bytes { split, merges } => {
                            let (readable, raw) = repair(text);
                            for piece in split.pieces(&readable)? {
                                merges.encode(&self.vocab, &raw[piece], &mut out);
                            }
                        }
                        Model::SentencePiece {
                            scores,
                            space_prefix,
                        } => {
                            let text = mark_spaces(text, *space_prefix && after_token);
                            scores.encode(&self.vocab, &text, &mut out);
                        }
                    }
                }
            }
            after_token = matches!(part, Part::Token(_));
        }
        Ok(out)
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
            (Kind::Normal, Model::SentencePiece { .. }) => unmark_spaces(text),
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

/// Marks the token of this name, if there is one, as a control token.
fn control(vocab: &mut Vocab, name: &str) -> Option<u32> {
    let id = vocab.find(name.as_bytes())?;
    vocab.set_kind(id, Kind::Control);
    Some(id)
}

fn read_vocab(meta: &Metadata<'_>, byte_level: bool) -> Result<Vocab> {
    let texts = meta.array("tokenizer.ggml.tokens")?;
    let mut kinds = match meta.opt_array("tokenizer.ggml.token_type")? {
        Some(kinds) if kinds.len() != texts.len() => {
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
        let kind = kinds
            .as_mut()
            .and_then(Iterator::next)
            .map_or(Kind::Normal, Kind::from_gguf);
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

/// The byte-level model, and whether prompts start with BOS where the file does not say.
fn read_bytes(meta: &Metadata<'_>, vocab: &Vocab) -> Result<(Model, bool)> {
    let split = Split::from_name(meta.opt_str("tokenizer.ggml.pre")?.unwrap_or("default"))?;
    // Llama 3's vocabulary has tokens that its merges do not reach.
    let llama3 = split == Split::Llama3;
    let merges = meta.array("tokenizer.ggml.merges")?;
    let merges = bpe::read(vocab, merges.strings()?, llama3)?;
    Ok((Model::Bytes { split, merges }, llama3))
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
/// They differ in surrogates only, which no `str` can hold: a byte-level vocabulary sees their three
/// bytes as they are, and for the cutting U+FFFD stands for them, as no letter, number or space either.
/// A longer form of a character than UTF-8 allows is taken for the character; any other byte out of place
/// becomes U+FFFD.
fn repair(text: &[u8]) -> (Cow<'_, str>, Cow<'_, [u8]>) {
    if let Ok(valid) = std::str::from_utf8(text) {
        return (Cow::Borrowed(valid), Cow::Borrowed(text));
    }
    let mut readable = String::with_capacity(text.len() + 16);
    let mut raw = Vec::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(&first) = rest.first() {
        let (code, len) = loose_char(rest).unwrap_or((0xfffd, 1));
        let shown = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        readable.push(shown);
        match code {
            0xd800..=0xdfff => raw.extend_from_slice(&rest[..3]),
            0..=0x7f if len == 1 => raw.push(first),
            _ => raw.extend_from_slice(shown.encode_utf8(&mut [0; 4]).as_bytes()),
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
