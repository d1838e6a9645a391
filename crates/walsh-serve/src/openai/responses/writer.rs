//! A response as it comes, event by event.

use axum::response::sse::Event;
use serde_json::{Value, json};
use walsh_runtime::chat::Delta;

use super::{Head, call_item, message_item, reasoning_item, text_part};
use crate::answer::Said;
use crate::error::ApiError;
use crate::events::{Writer, named};
use crate::new_id;

/// The item that is being written.
enum Open {
    Reasoning {
        id: String,
        text: String,
    },
    Message {
        id: String,
        text: String,
        logprobs: Vec<Value>,
    },
    Call {
        ids: (String, String),
        name: String,
        arguments: String,
    },
}

fn empty_message() -> Open {
    Open::Message {
        id: new_id("msg_"),
        text: String::new(),
        logprobs: Vec::new(),
    }
}

pub(super) struct ResponseWriter {
    head: Head,
    open: Option<Open>,
    output: Vec<Value>,
    /// Of tokens whose text has not come.
    logprobs: Vec<Value>,
    sequence: u64,
}

impl ResponseWriter {
    pub(super) fn new(head: Head) -> Self {
        Self {
            head,
            open: None,
            output: Vec::new(),
            logprobs: Vec::new(),
            sequence: 0,
        }
    }

    fn event(&mut self, kind: &str, mut value: Value) -> Event {
        value["type"] = kind.into();
        value["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        named(&value)
    }

    /// An event about the item that is being written.
    fn item_event(&mut self, kind: &str, id: &str, mut value: Value) -> Event {
        value["item_id"] = id.into();
        value["output_index"] = self.output.len().into();
        self.event(kind, value)
    }

    /// Begins an item.
    fn begin_item(&mut self, open: Open, events: &mut Vec<Event>) {
        self.close(events);
        let item = match &open {
            Open::Reasoning { id, .. } => {
                json!({ "id": id, "type": "reasoning", "summary": [], "content": [] })
            }
            Open::Message { id, .. } => message_item(id, None),
            Open::Call { ids, name, .. } => call_item(ids, name, None),
        };
        let place = self.output.len();
        events.push(self.event(
            "response.output_item.added",
            json!({ "output_index": place, "item": item }),
        ));
        if let Open::Message { id, .. } = &open {
            let part = json!({ "content_index": 0, "part": text_part("", Vec::new()) });
            events.push(self.item_event("response.content_part.added", id, part));
        }
        self.open = Some(open);
    }

    /// Ends the item that is being written.
    fn close(&mut self, events: &mut Vec<Event>) {
        let Some(open) = self.open.take() else {
            return;
        };
        let item = match open {
            Open::Reasoning { id, text } => {
                let done = json!({ "content_index": 0, "text": text });
                events.push(self.item_event("response.reasoning_text.done", &id, done));
                reasoning_item(&id, &text)
            }
            Open::Message {
                id,
                text,
                mut logprobs,
            } => {
                logprobs.append(&mut self.logprobs);
                let done = json!({ "content_index": 0, "text": text, "logprobs": logprobs });
                events.push(self.item_event("response.output_text.done", &id, done));
                let part = text_part(&text, logprobs);
                let done = json!({ "content_index": 0, "part": part });
                events.push(self.item_event("response.content_part.done", &id, done));
                message_item(&id, Some(part))
            }
            Open::Call {
                ids,
                name,
                arguments,
            } => {
                let done = json!({ "name": name, "arguments": arguments });
                events.push(self.item_event("response.function_call_arguments.done", &ids.0, done));
                call_item(&ids, &name, Some(&arguments))
            }
        };
        let done = json!({ "output_index": self.output.len(), "item": item });
        events.push(self.event("response.output_item.done", done));
        self.output.push(item);
    }

    fn delta(&mut self, delta: Delta, events: &mut Vec<Event>) {
        match delta {
            Delta::Text(more) => {
                if !matches!(self.open, Some(Open::Message { .. })) {
                    self.begin_item(empty_message(), events);
                }
                if let Some(Open::Message { id, text, logprobs }) = &mut self.open {
                    text.push_str(&more);
                    let new = std::mem::take(&mut self.logprobs);
                    logprobs.extend_from_slice(&new);
                    let id = id.clone();
                    let value = json!({ "content_index": 0, "delta": more, "logprobs": new });
                    events.push(self.item_event("response.output_text.delta", &id, value));
                }
            }
            Delta::Reasoning(more) => {
                if !matches!(self.open, Some(Open::Reasoning { .. })) {
                    let (id, text) = (new_id("rs_"), String::new());
                    self.begin_item(Open::Reasoning { id, text }, events);
                }
                if let Some(Open::Reasoning { id, text }) = &mut self.open {
                    text.push_str(&more);
                    let id = id.clone();
                    let value = json!({ "content_index": 0, "delta": more });
                    events.push(self.item_event("response.reasoning_text.delta", &id, value));
                }
            }
            Delta::Call { name, .. } => {
                let ids = (new_id("fc_"), new_id("call_"));
                let arguments = String::new();
                self.begin_item(
                    Open::Call {
                        ids,
                        name,
                        arguments,
                    },
                    events,
                );
            }
            Delta::Arguments { text: more, .. } => {
                if let Some(Open::Call { ids, arguments, .. }) = &mut self.open {
                    arguments.push_str(&more);
                    let id = ids.0.clone();
                    let value = json!({ "delta": more });
                    events.push(self.item_event(
                        "response.function_call_arguments.delta",
                        &id,
                        value,
                    ));
                }
            }
        }
    }
}

impl Writer for ResponseWriter {
    fn begin(&mut self) -> Vec<Event> {
        let response = json!({ "response": self.head.object });
        vec![
            self.event("response.created", response.clone()),
            self.event("response.in_progress", response),
        ]
    }

    fn said(&mut self, _: usize, said: Said) -> Vec<Event> {
        let mut events = Vec::new();
        match said {
            Said::Piece(piece) => {
                if let Some(token) = &piece.token {
                    self.logprobs.push(self.head.logprobs(token));
                }
                for delta in piece.deltas {
                    self.delta(delta, &mut events);
                }
            }
            Said::Prompt(_) => {}
            Said::End(ended) => {
                if self.open.is_none() && self.output.is_empty() {
                    // An answer without a word is a message, too.
                    self.begin_item(empty_message(), &mut events);
                }
                self.close(&mut events);
                let response = self.head.ended(&ended, std::mem::take(&mut self.output));
                let kind = match response["status"].as_str() {
                    Some("incomplete") => "response.incomplete",
                    _ => "response.completed",
                };
                events.push(self.event(kind, json!({ "response": response })));
            }
        }
        events
    }

    fn end(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Event> {
        let mut response = self.head.object.clone();
        response["status"] = "failed".into();
        response["error"] = json!({ "code": "server_error", "message": error.message });
        vec![self.event("response.failed", json!({ "response": response }))]
    }
}
