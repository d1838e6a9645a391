//! Chat templates: from a conversation to the text that the model was trained to see.
//!
//! A template is a Jinja program in the model file's metadata. It is run as Hugging Face's libraries run
//! it, with all that Python makes of it, and within bounds: a file from a stranger can make rendering
//! fail, and nothing else.

mod context;
mod dialogue;
#[cfg(test)]
mod golden;
mod jinja;
mod marking;
mod message;
mod template;
mod tools;
mod wrong;

pub(crate) use context::Context;
pub use dialogue::{ChatPrompt, Dialogue};
pub use message::Message;
pub use template::Template;
pub use tools::{Delta, OutputParser, Tool, ToolChoice, ToolRequest};
