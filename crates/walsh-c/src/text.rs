//! Text to tokens, and back.

use std::ffi::c_char;

use serde::Deserialize;
use serde_json::{Map, Value};
use walsh_runtime::chat::Dialogue;
use walsh_runtime::tokenizer::Special;

use crate::error::{Failure, WalshStatus, call};
use crate::model::WalshModel;
use crate::pointers::{Room, reference, text, values};

/// The tokens of a text, of which `count` is the number, whatever has room in `tokens`. The text need not be UTF-8. With
/// `whole`, it is a text's beginning, and has the token that the model was trained to see there; with `special`, names of
/// control tokens such as `<|im_end|>` become those tokens (never let it be set for what users type).
///
/// # Safety
/// `model` is null or open; `text` is null or has `bytes` bytes; `tokens` is null or has room for `capacity` numbers; `count` is
/// null or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_tokenize(
    model: *const WalshModel,
    text: *const c_char,
    bytes: usize,
    whole: bool,
    special: bool,
    tokens: *mut i32,
    capacity: usize,
    count: *mut usize,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let (model, text) = unsafe {
            let text = values(text.cast::<u8>(), bytes, "text")?;
            (reference(model, "model")?, text)
        };
        let special = match special {
            true => Special::Parse,
            false => Special::Text,
        };
        let tokenizer = model.0.tokenizer();
        let found = match whole {
            true => tokenizer.encode_prompt_bytes(text, special)?,
            false => tokenizer.encode_bytes(text, special)?,
        };
        let to = tokens;
        let room = Room {
            to,
            capacity,
            count,
        };
        // SAFETY: as the caller says.
        unsafe { room.fill(&found, "tokens") }
    })
}

/// The bytes that a token stands for, of which `count` is the number, whatever has room in `bytes`; the name of a control
/// token. A character can take several tokens: join bytes before they are shown.
///
/// # Safety
/// `model` is null or open; `bytes` is null or has room for `capacity` bytes; `count` is null or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_token_bytes(
    model: *const WalshModel,
    token: i32,
    bytes: *mut c_char,
    capacity: usize,
    count: *mut usize,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let model = unsafe { reference(model, "model") }?;
        let tokenizer = model.0.tokenizer();
        if !tokenizer.has(token) {
            let most = tokenizer.vocab_size();
            let what = format!("token {token} is none of the vocabulary, which has {most}");
            return Err(Failure::argument(what));
        }
        let room = Room {
            to: bytes.cast::<u8>(),
            capacity,
            count,
        };
        // SAFETY: as the caller says.
        unsafe { room.fill(&tokenizer.token_bytes(token), "bytes") }
    })
}

/// A conversation, as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Talk {
    messages: Vec<Map<String, Value>>,
    #[serde(default)]
    tools: Vec<Value>,
    #[serde(default)]
    variables: Map<String, Value>,
    #[serde(default)]
    continues: bool,
}

/// The tokens of a conversation by the model's chat template, which end where the answer begins: `count` is their number,
/// whatever has room in `tokens`. The conversation is JSON, `{"messages": [{"role": "user", "content": "Hello"}]}`; besides,
/// `tools` (as OpenAI has them), `variables` of the template, and `continues`, where the last message is an answer to go on
/// with. What messages say never becomes a control token.
///
/// # Safety
/// `model` is null or open; `dialogue` is null or ends with a zero; `tokens` is null or has room for `capacity` numbers; `count`
/// is null or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_chat_prompt(
    model: *const WalshModel,
    dialogue: *const c_char,
    tokens: *mut i32,
    capacity: usize,
    count: *mut usize,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let (model, json) = unsafe { (reference(model, "model")?, text(dialogue, "dialogue")?) };
        let talk: Talk = serde_json::from_str(json)
            .map_err(|error| Failure::argument(format!("dialogue: {error}")))?;
        let dialogue = Dialogue {
            messages: talk.messages,
            tools: talk.tools,
            variables: talk.variables,
            continues: talk.continues,
        };
        let template = model.0.chat_template()?;
        let prompt = template.prompt(&dialogue, model.0.tokenizer())?;
        let room = Room {
            to: tokens,
            capacity,
            count,
        };
        // SAFETY: as the caller says.
        unsafe { room.fill(&prompt.tokens, "tokens") }
    })
}
