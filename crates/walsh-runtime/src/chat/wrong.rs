//! What is wrong with what clients send.

use serde_json::Value;

use crate::Error;

pub(super) fn wrong(what: impl Into<String>) -> Error {
    Error::Dialogue { what: what.into() }
}

/// A value in a message of an error.
pub(super) fn shown(value: Option<&Value>) -> String {
    const LONGEST: usize = 60;
    let Some(value) = value else {
        return "absent".into();
    };
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
