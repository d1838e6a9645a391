//! What single tokens are for: which begin a text, which end one, which steer infilling.
//!
//! A file states them by id or not at all; what it does not state is told by the tokens' names, as
//! llama.cpp does.

use walsh::formats::gguf::Metadata;

use super::vocab::{Kind, Vocab};
use crate::error::{Error, Result};

/// The tokens with a role.
#[derive(Debug)]
pub(super) struct Roles {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    /// Those after which a model has nothing more to say, in order.
    pub(super) ends: Vec<u32>,
    /// Those before the text in front of a gap, before the text behind it, and before what fills it; only where all three
    /// are there.
    pub(super) infill: Option<[u32; 3]>,
    /// That before each file of several.
    pub(super) file: Option<u32>,
}

/// Tokens after which a model has nothing more to say, whatever else the file says of them.
const ENDS: [&str; 23] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    // FunctionGemma's, with which it would go on to what a tool says.
    "<start_function_response>",
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
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// A part that a token plays in infilling.
struct Infill {
    keys: &'static [&'static str],
    /// What such tokens are called where the file states none.
    names: &'static [&'static str],
    /// Whether they end a text.
    ends: bool,
}

const INFILL: [Infill; 6] = [
    Infill {
        keys: &["fim_pre_token_id", "prefix_token_id"],
        names: &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        ends: false,
    },
    Infill {
        keys: &["fim_suf_token_id", "suffix_token_id"],
        names: &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        ends: false,
    },
    Infill {
        keys: &["fim_mid_token_id", "middle_token_id"],
        names: &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        ends: false,
    },
    Infill {
        keys: &["fim_pad_token_id"],
        names: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
        ends: true,
    },
    Infill {
        keys: &["fim_rep_token_id"],
        names: &[
            "<|fim_repo|>",
            "<|repo_name|>",
            "<fim-repo>",
            "<REPO>",
            "<reponame>",
        ],
        ends: true,
    },
    Infill {
        keys: &["fim_sep_token_id"],
        names: &["<|file_sep|>"],
        ends: true,
    },
];

impl Roles {
    /// Reads the roles, and makes control tokens of those in `vocab` that are told by their names.
    ///
    /// # Errors
    /// When an id that is stated is not in the vocabulary.
    pub(super) fn read(
        meta: &Metadata<'_>,
        vocab: &mut Vocab,
        sentence_piece: bool,
    ) -> Result<Roles> {
        let stated = |vocab: &Vocab, key: &str| stated(meta, vocab, key);
        // Where the file states none, SentencePiece's own ids, if such tokens are there.
        let or = |id: Option<u32>, default: u32, kind: Kind| {
            let is = |&id: &u32| (id as usize) < vocab.len() && vocab.kind(id) == kind;
            id.or(Some(default).filter(is).filter(|_| sentence_piece))
        };
        let bos = or(stated(vocab, "bos_token_id")?, 1, Kind::Control);
        let eos = or(stated(vocab, "eos_token_id")?, 2, Kind::Control);
        let unknown = or(stated(vocab, "unknown_token_id")?, 0, Kind::Unknown);
        let mut ends = vec![eos];
        for key in ["eot_token_id", "eom_token_id"] {
            ends.push(stated(vocab, key)?);
        }
        let (mut parts, mut file) = (Vec::new(), None);
        for infill in &INFILL {
            let mut ids = Vec::new();
            for key in infill.keys {
                ids.extend(stated(vocab, key)?);
            }
            if ids.is_empty() {
                ids.extend(infill.names.iter().filter_map(|name| control(vocab, name)));
            }
            if infill.keys == ["fim_sep_token_id"] {
                file = ids.first().copied();
            }
            if !infill.ends {
                parts.extend(ids.first().copied());
            } else {
                ends.extend(ids.into_iter().map(Some));
            }
        }
        ends.extend(ENDS.iter().map(|name| control(vocab, name)));
        let mut ends: Vec<u32> = ends.into_iter().flatten().collect();
        ends.sort_unstable();
        ends.dedup();
        go_on(vocab, &mut ends);
        Ok(Roles {
            bos,
            eos,
            unknown,
            ends,
            infill: parts.try_into().ok(),
            file,
        })
    }
}

/// The id under `tokenizer.ggml.KEY`; none where it is all ones, which some converters write for none.
fn stated(meta: &Metadata<'_>, vocab: &Vocab, key: &str) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{key}");
    let id = meta.opt_u32(&key)?.filter(|&id| id != u32::MAX);
    match id {
        Some(id) if id as usize >= vocab.len() => Err(Error::tokenizer(format!(
            "{key} is {id}, but the vocabulary has {} tokens: convert the model again",
            vocab.len()
        ))),
        id => Ok(id),
    }
}

/// Marks the token of this name, if there is one, as a control token.
fn control(vocab: &mut Vocab, name: &str) -> Option<u32> {
    let id = vocab.find(name.as_bytes())?;
    vocab.set_kind(id, Kind::Control);
    Some(id)
}

/// Leaves out what ends a text in other vocabularies only: `<|end|>` ends but a part of an answer where
/// whole answers have ends of their own, and `</s>` is ordinary text where tools' answers have a token.
fn go_on(vocab: &mut Vocab, ends: &mut Vec<u32>) {
    let among = |ends: &[u32], name: &str| {
        let mut ids = ends.iter().copied();
        ids.find(|&id| vocab.text(id) == name.as_bytes())
    };
    let has = |name: &str| among(ends, name).is_some();
    let called = has("<|call|>") || has("<|calls|>");
    let part = (called && (has("<|return|>") || has("<|flush|>"))).then_some("<|end|>");
    let plain = (has("<|tool_response>") || has("<|plamo:eos|>")).then_some("</s>");
    let part = part.and_then(|name| among(ends, name));
    let plain = plain.and_then(|name| among(ends, name));
    ends.retain(|&id| Some(id) != part && Some(id) != plain);
    if let Some(id) = plain {
        vocab.set_kind(id, Kind::Normal);
    }
}
