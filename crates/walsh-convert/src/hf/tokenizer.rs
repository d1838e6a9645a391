//! Tokenizers: `tokenizer.json`, or `tokenizer.model` where it is a SentencePiece model, as `tokenizer.ggml.*`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use walsh_formats::gguf::ValueType;
use walsh_formats::gguf::write::NewValue;

use super::config::{Pairs, Shape};
use super::family::Family;
use super::files::{SENTENCE_PIECE, TEMPLATE, TEMPLATE_JSON, TOKENIZER, TOKENIZER_CONFIG, read};
use super::json::Json;
use super::sentencepiece;
use crate::{Error, Result};

/// Kinds of tokens, as GGUF counts them.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const OWN: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The score of tokens that no merge makes.
const NEVER: f32 = -10_000.0;
const ADDED: f32 = -1000.0;

/// A vocabulary on the way.
struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<i32>,
    /// Of SentencePiece.
    scores: Vec<f32>,
}

/// The metadata of a folder's tokenizer.
///
/// # Errors
/// When there is none, it is damaged, or of a kind that GGUF's readers do not have.
pub(super) fn metadata(
    folder: &Path,
    config: &Json,
    (family, shape): (Family, &Shape),
) -> Result<Pairs> {
    let own = Json::open_optional(&folder.join(TOKENIZER_CONFIG))?;
    let own = own.unwrap_or_else(|| config.within("no such key"));
    let tokenizer = Json::open_optional(&folder.join(TOKENIZER))?;
    let sentences = folder.join(SENTENCE_PIECE);
    let count = shape.vocabulary as usize;
    let mut pairs = Pairs::new();
    let mut set = |key: &str, value: NewValue| pairs.push((format!("tokenizer.ggml.{key}"), value));
    let vocabulary;
    if sentences.is_file() {
        let mut found = of_sentence_piece(&sentences, count)?;
        add_tokens(&mut found, &own, (family, tokenizer.as_ref()))?;
        let prefix = match own.opt_bool("add_prefix_space")? {
            Some(prefix) => Some(prefix),
            // Its SentencePiece model was made without.
            None if family == Family::Gemma3 => Some(false),
            None => tokenizer.as_ref().map(has_prefix),
        };
        if let Some(prefix) = prefix {
            set("add_space_prefix", prefix.into());
        }
        set("model", "llama".into());
        set("pre", "default".into());
        vocabulary = found;
    } else {
        let Some(tokenizer) = &tokenizer else {
            return Err(Error::file(
                folder,
                "there is neither tokenizer.json nor tokenizer.model: download the whole folder",
            ));
        };
        let model = tokenizer.within("model");
        if model.opt_str("type")? != Some("BPE") {
            return Err(
                tokenizer.wrong("model.type is not BPE: other tokenizers are not converted")
            );
        }
        let mut found = of_json(tokenizer, &model, count)?;
        if model.opt_bool("byte_fallback")? == Some(true) {
            found.scores = scores(&model, &found)?;
            set("model", "llama".into());
            set("pre", "default".into());
            set("add_space_prefix", has_prefix(tokenizer).into());
        } else {
            set("model", "gpt2".into());
            set("pre", pre(tokenizer, &model)?.into());
            set(
                "merges",
                NewValue::Array(ValueType::String, merges(&model)?),
            );
        }
        add_tokens(&mut found, &own, (family, Some(tokenizer)))?;
        vocabulary = found;
    }
    for (key, value) in roles(config, &own, (&vocabulary, tokenizer.as_ref()))? {
        set(&key, value);
    }
    set("tokens", strings(vocabulary.tokens));
    set("token_type", vocabulary.kinds.into());
    if !vocabulary.scores.is_empty() {
        set("scores", vocabulary.scores.into());
    }
    if let Some(template) = template(folder, &own)? {
        pairs.push(("tokenizer.chat_template".to_owned(), template.into()));
    }
    Ok(pairs)
}

fn strings(texts: Vec<String>) -> NewValue {
    let values = texts.into_iter().map(NewValue::String).collect();
    NewValue::Array(ValueType::String, values)
}

/// A vocabulary of so many tokens that nothing is known of.
fn unused(count: usize) -> Vocabulary {
    Vocabulary {
        tokens: (0..count).map(|id| format!("[PAD{id}]")).collect(),
        kinds: vec![UNUSED; count],
        scores: Vec::new(),
    }
}

fn of_sentence_piece(path: &Path, count: usize) -> Result<Vocabulary> {
    let bytes = read(path)?;
    let pieces = sentencepiece::pieces(&bytes)
        .ok_or_else(|| Error::file(path, "it is no SentencePiece model: download it again"))?;
    let mut found = unused(count);
    found.scores = vec![NEVER; count];
    for (id, piece) in pieces.into_iter().take(count).enumerate() {
        found.tokens[id] = piece.text;
        found.scores[id] = piece.score;
        found.kinds[id] = match piece.kind {
            OWN => NORMAL,
            kind => kind,
        };
    }
    Ok(found)
}

fn of_json(tokenizer: &Json, model: &Json, count: usize) -> Result<Vocabulary> {
    let mut found = unused(count);
    for (text, id) in model.object("vocab")? {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let id = id.filter(|id| *id < count).ok_or_else(|| {
            tokenizer.wrong(format!(
                "token {text:?} has a number that is not below config.json's vocab_size of {count}"
            ))
        })?;
        let is_byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
        found.tokens[id] = text.clone();
        found.kinds[id] = if is_byte { BYTE } else { NORMAL };
    }
    if found.kinds.iter().all(|kind| *kind == UNUSED) {
        return Err(tokenizer.wrong("it has no tokens"));
    }
    Ok(found)
}

/// The tokens that are found in texts before anything is cut.
fn add_tokens(
    found: &mut Vocabulary,
    own: &Json,
    (family, tokenizer): (Family, Option<&Json>),
) -> Result<()> {
    let mut added: Vec<(u64, String, bool)> = Vec::new();
    let mut add = |id: Option<u64>, value: &Value| {
        let content = value.get("content").and_then(Value::as_str);
        let is_special = value.get("special").and_then(Value::as_bool);
        if let (Some(id), Some(content)) = (id, content) {
            added.push((id, content.to_owned(), is_special.unwrap_or(false)));
        }
    };
    if let Some(tokenizer) = tokenizer.filter(|json| json.get("added_tokens").is_some()) {
        for value in tokenizer.array("added_tokens")? {
            add(value.get("id").and_then(Value::as_u64), value);
        }
    }
    if own.get("added_tokens_decoder").is_some() {
        for (id, value) in own.object("added_tokens_decoder")? {
            add(id.parse().ok(), value);
        }
    }
    for (id, content, is_special) in added {
        let id = usize::try_from(id).unwrap_or(usize::MAX);
        let Some(token) = found.tokens.get_mut(id) else {
            // Tokens beyond the model's embeddings are for others.
            continue;
        };
        // Phi's makers have marked all of theirs.
        let is_control = is_special || family != Family::Phi3 && looks_special(&content);
        *token = match is_control {
            true => content,
            false => content.replace('\u{2581}', " "),
        };
        found.kinds[id] = if is_control { CONTROL } else { OWN };
        if let Some(score) = found.scores.get_mut(id) {
            *score = ADDED;
        }
    }
    Ok(())
}

/// Names that stand for something in models whose makers did not mark them.
fn looks_special(token: &str) -> bool {
    let is_between = |start: &str, end: &str| token.starts_with(start) && token.ends_with(end);
    matches!(token, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || is_between("<|", "|>")
        || is_between("<\u{ff5c}", "\u{ff5c}>")
        || is_between("<unused", ">")
}

/// The two parts of each merge.
fn merge_parts(model: &Json) -> Result<Vec<(String, String)>> {
    let wrong = || model.wrong("model.merges has an entry that is no pair");
    let mut parts = Vec::new();
    for merge in model.array("merges")? {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) => match &pair[..] {
                [Value::String(left), Value::String(right)] => Some((&**left, &**right)),
                _ => None,
            },
            _ => None,
        };
        let (left, right) = pair.ok_or_else(wrong)?;
        parts.push((left.to_owned(), right.to_owned()));
    }
    Ok(parts)
}

fn merges(model: &Json) -> Result<Vec<NewValue>> {
    // GGUF's have a space between the parts; one within them is written as GPT-2's alphabet has it.
    let written = |part: String| part.replace(' ', "\u{120}");
    let parts = merge_parts(model)?.into_iter();
    Ok(parts
        .map(|(left, right)| NewValue::String(format!("{} {}", written(left), written(right))))
        .collect())
}

/// Scores in the order of the merges: SentencePiece merges what has the highest.
fn scores(model: &Json, found: &Vocabulary) -> Result<Vec<f32>> {
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, (left, right)) in merge_parts(model)?.into_iter().enumerate() {
        ranks.entry(left + &right).or_insert(rank);
    }
    let score = |token: &String| ranks.get(token).map_or(NEVER, |rank| -(*rank as f32));
    Ok(found.tokens.iter().map(score).collect())
}

/// Whether texts get a space in front.
fn has_prefix(tokenizer: &Json) -> bool {
    fn prepends(value: &Value) -> bool {
        let kind = value.get("type").and_then(Value::as_str);
        let scheme = value.get("prepend_scheme").and_then(Value::as_str);
        let list = ["normalizers", "pretokenizers"];
        let mut lists = list.iter().filter_map(|key| value.get(*key)?.as_array());
        kind == Some("Prepend")
            || kind == Some("Metaspace") && scheme.is_some_and(|scheme| scheme != "never")
            || lists.any(|list| list.iter().any(prepends))
    }
    ["normalizer", "pre_tokenizer"]
        .iter()
        .filter_map(|key| tokenizer.get(key))
        .any(prepends)
}

/// Expressions by which byte pairs are cut, and GGUF's names of them.
const EXPRESSIONS: [(&str, &str); 4] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "dbrx",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "tekken",
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "gpt-4o",
    ),
];

/// GGUF's name of the way in which texts are cut.
fn pre(tokenizer: &Json, model: &Json) -> Result<&'static str> {
    let mut steps = Vec::new();
    if let Some(step) = tokenizer.get("pre_tokenizer") {
        match step.get("pretokenizers").and_then(Value::as_array) {
            Some(list) => steps.extend(list.iter()),
            None => steps.push(step),
        }
    }
    let kind = |step: &Value| {
        step.get("type")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let flag = |step: &Value, key: &str| step.get(key).and_then(Value::as_bool).unwrap_or(true);
    let kinds: Vec<String> = steps.iter().map(|step| kind(step)).collect();
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let is_whole = model.opt_bool("ignore_merges")? == Some(true);
    let name = match &kinds[..] {
        ["ByteLevel"] if flag(steps[0], "use_regex") => Some("gpt-2"),
        ["Digits", "ByteLevel"]
            if flag(steps[0], "individual_digits") && flag(steps[1], "use_regex") =>
        {
            Some("smollm")
        }
        ["Split", "ByteLevel"] if !flag(steps[1], "use_regex") => {
            let expression = steps[0]
                .get("pattern")
                .and_then(|pattern| pattern.get("Regex"));
            let expression = expression.and_then(Value::as_str).unwrap_or("");
            let mut all = EXPRESSIONS.iter();
            let name = all.find(|(known, _)| *known == expression);
            name.map(|(_, name)| match (*name, is_whole) {
                // The same cuts, and pieces that are tokens are taken whole.
                ("dbrx", true) => "llama-bpe",
                (name, _) => name,
            })
        }
        _ => None,
    };
    name.ok_or_else(|| {
        tokenizer.wrong(format!(
            "its pre-tokenizer ({}) is none that is known: those of GPT-2, Llama 3, Qwen 2, SmolLM, Mistral's Tekken and GPT-4o are",
            kinds.join(", ")
        ))
    })
}

/// The numbers of the tokens with roles, and which are added to texts.
fn roles(
    config: &Json,
    own: &Json,
    (found, tokenizer): (&Vocabulary, Option<&Json>),
) -> Result<Vec<(String, NewValue)>> {
    let mut pairs = Vec::new();
    let named = |role: &str| -> Option<String> {
        let value = own.get(&format!("{role}_token"))?;
        let content = value.get("content").unwrap_or(value);
        content.as_str().map(str::to_owned)
    };
    for (role, key) in [
        ("bos", "bos"),
        ("eos", "eos"),
        ("unk", "unknown"),
        ("pad", "padding"),
    ] {
        let by_name = named(role).and_then(|name| {
            let mut tokens = found.tokens.iter();
            tokens.position(|token| *token == name)
        });
        let by_number = config.get(&format!("{role}_token_id")).and_then(|value| {
            let first = value.get(0).unwrap_or(value);
            usize::try_from(first.as_u64()?).ok()
        });
        if let Some(id) = by_name.or(by_number).filter(|id| *id < found.tokens.len()) {
            pairs.push((format!("{key}_token_id"), (id as u32).into()));
        }
    }
    let post = tokenizer.and_then(|tokenizer| tokenizer.get("post_processor"));
    for (role, is_first) in [("bos", true), ("eos", false)] {
        let adds = post.and_then(|post| adds(post, is_first, named(role).as_deref()));
        let adds = match adds {
            Some(adds) => Some(adds),
            None => own.opt_bool(&format!("add_{role}_token"))?,
        };
        if let Some(adds) = adds {
            pairs.push((format!("add_{role}_token"), adds.into()));
        }
    }
    Ok(pairs)
}

/// Whether a post-processor puts a token at the beginning of a text, or at its end; `None` where it does not say.
fn adds(post: &Value, is_first: bool, token: Option<&str>) -> Option<bool> {
    let single = std::slice::from_ref(post);
    let list = post.get("processors").and_then(Value::as_array);
    let steps = list.map_or(single, Vec::as_slice);
    let mut says = None;
    for step in steps {
        match step.get("type").and_then(Value::as_str) {
            Some("ByteLevel") => says = says.or(Some(false)),
            Some("TemplateProcessing") => {
                let template = step.get("single").and_then(Value::as_array)?;
                let end = if is_first {
                    template.first()
                } else {
                    template.last()
                };
                let special = end.and_then(|end| end.get("SpecialToken")?.get("id")?.as_str());
                match special {
                    Some(special) => says = Some(token.is_none_or(|token| token == special)),
                    None if template.len() > 1 => says = says.or(Some(false)),
                    None => {}
                }
            }
            _ => {}
        }
    }
    says
}

/// The chat template, from wherever it is.
fn template(folder: &Path, own: &Json) -> Result<Option<String>> {
    if let Some(Value::String(template)) = own.get("chat_template") {
        return Ok(Some(template.clone()));
    }
    let path = folder.join(TEMPLATE);
    if path.is_file() {
        let text = String::from_utf8(read(&path)?).map_err(|error| Error::file(&path, error))?;
        return Ok(Some(text));
    }
    let json = Json::open_optional(&folder.join(TEMPLATE_JSON))?;
    Ok(match json {
        Some(json) => json.opt_str("chat_template")?.map(str::to_owned),
        None => None,
    })
}
