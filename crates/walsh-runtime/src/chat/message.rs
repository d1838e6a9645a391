//! Messages of plain conversations.

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// Instructions for the whole conversation.
    pub fn system(content: impl Into<String>) -> Message {
        Message {
            role: "system".to_string(),
            content: content.into(),
        }
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Message {
        Message {
            role: "user".to_string(),
            content: content.into(),
        }
    }

    /// What the model says.
    pub fn assistant(content: impl Into<String>) -> Message {
        Message {
            role: "assistant".to_string(),
            content: content.into(),
        }
    }
}
