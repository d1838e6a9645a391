//! Tools that a model may call: how it is told of them, and what it writes to call one.

mod adapt;
mod calls;
mod coder;
mod constraint;
mod family;
mod form;
mod gemma;
mod harmony;
mod hermes;
mod json;
mod llama;
mod mistral;
mod output;
mod pythonic;
mod reasoning;
#[cfg(test)]
mod tests;
mod tool;

pub use constraint::ToolRequest;
pub use family::Delta;
pub(super) use form::Form;
pub use output::OutputParser;
pub(super) use tool::is_name;
pub use tool::{Tool, ToolChoice};
