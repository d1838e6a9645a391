//! What clients are told.

use axum::response::sse::Event;
use serde_json::{Value, json};
use walsh_runtime::Finish;
use walsh_runtime::chat::Delta;

use crate::answer::{Answers, Ended, Said, Whole};
use crate::error::{ApiError, Result};
use crate::events::{Writer, named};
use crate::new_id;

/// Why an answer ended, in Anthropic's words.
fn stop_reason(ended: &Ended) -> &'static str {
    match ended.finish {
        Finish::MaxTokens | Finish::Cancelled => "max_tokens",
        Finish::ContextFull => "model_context_window_exceeded",
        Finish::Stop if ended.stop.is_some() => "stop_sequence",
        Finish::End | Finish::Stop if ended.called => "tool_use",
        Finish::End | Finish::Stop => "end_turn",
    }
}

fn usage(ended: &Ended) -> Value {
    let figures = &ended.figures;
    json!({
        "input_tokens": figures.prompt_tokens - figures.reused_tokens,
        "cache_read_input_tokens": figures.reused_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": figures.generated_tokens,
    })
}

/// A whole answer.
pub(super) fn message(id: &str, model: &str, whole: &Whole) -> Result<Value> {
    let mut content = Vec::new();
    if !whole.reasoning.is_empty() {
        content.push(json!({ "type": "thinking", "thinking": whole.reasoning, "signature": "" }));
    }
    if !whole.text.is_empty() {
        content.push(json!({ "type": "text", "text": whole.text }));
    }
    for call in &whole.calls {
        // One that was broken off is none: the reason for the end says so.
        if let Ok(input @ Value::Object(_)) = serde_json::from_str(&call.arguments) {
            content.push(json!({
                "type": "tool_use",
                "id": new_id("toolu_"),
                "name": call.name,
                "input": input,
            }));
        }
    }
    let ended = whole.ended()?;
    Ok(json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason(ended),
        "stop_sequence": ended.stop,
        "usage": usage(ended),
    }))
}

/// The kind of the block that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Call,
}

/// An answer as it comes.
pub(super) struct MessageWriter {
    id: String,
    model: String,
    prompt_tokens: usize,
    open: Option<Kind>,
    /// The block's number.
    index: usize,
}

impl MessageWriter {
    pub(super) fn new(id: String, model: String, answers: &Answers) -> Self {
        Self {
            id,
            model,
            prompt_tokens: answers.prompt_tokens,
            open: None,
            index: 0,
        }
    }

    fn begin_block(&mut self, kind: Kind, block: &Value, events: &mut Vec<Event>) {
        self.close(events);
        events.push(named(&json!({
            "type": "content_block_start",
            "index": self.index,
            "content_block": block,
        })));
        self.open = Some(kind);
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        if self.open.take().is_some() {
            events.push(named(
                &json!({ "type": "content_block_stop", "index": self.index }),
            ));
            self.index += 1;
        }
    }

    fn delta(&mut self, delta: Delta, events: &mut Vec<Event>) {
        let (kind, begin, delta) = match delta {
            Delta::Text(text) => (
                Kind::Text,
                json!({ "type": "text", "text": "" }),
                json!({ "type": "text_delta", "text": text }),
            ),
            Delta::Reasoning(text) => (
                Kind::Thinking,
                json!({ "type": "thinking", "thinking": "", "signature": "" }),
                json!({ "type": "thinking_delta", "thinking": text }),
            ),
            Delta::Call { name, .. } => {
                let id = new_id("toolu_");
                let block = json!({ "type": "tool_use", "id": id, "name": name, "input": {} });
                return self.begin_block(Kind::Call, &block, events);
            }
            Delta::Arguments { text, .. } => (
                Kind::Call,
                Value::Null,
                json!({ "type": "input_json_delta", "partial_json": text }),
            ),
        };
        if self.open != Some(kind) && kind != Kind::Call {
            self.begin_block(kind, &begin, events);
        }
        events.push(named(&json!({
            "type": "content_block_delta",
            "index": self.index,
            "delta": delta,
        })));
    }
}

impl Writer for MessageWriter {
    fn begin(&mut self) -> Vec<Event> {
        vec![named(&json!({
            "type": "message_start",
            "message": {
                "id": self.id,
                "type": "message",
                "role": "assistant",
                "model": self.model,
                "content": [],
                "stop_reason": null,
                "stop_sequence": null,
                "usage": { "input_tokens": self.prompt_tokens, "output_tokens": 0 },
            },
        }))]
    }

    fn said(&mut self, _: usize, said: Said) -> Vec<Event> {
        let mut events = Vec::new();
        match said {
            Said::Piece(piece) => {
                for delta in piece.deltas {
                    self.delta(delta, &mut events);
                }
            }
            Said::Prompt(_) => {}
            Said::End(ended) => {
                self.close(&mut events);
                events.push(named(&json!({
                    "type": "message_delta",
                    "delta": {
                        "stop_reason": stop_reason(&ended),
                        "stop_sequence": ended.stop,
                    },
                    "usage": usage(&ended),
                })));
            }
        }
        events
    }

    fn end(&mut self) -> Vec<Event> {
        vec![named(&json!({ "type": "message_stop" }))]
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Event> {
        vec![named(&error.anthropic_body())]
    }
}
