//! What can be seen of an engine from outside.

/// What an engine is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Requests that have not begun, or were put off.
    pub waiting: usize,
    /// Texts that are being read or written.
    pub running: usize,
    /// Pages of texts that are being read or written, of all kinds of layers.
    pub pages_used: usize,
    /// Those of them that more than one of these texts has.
    pub pages_shared: usize,
    /// Pages that are kept of other texts, until somebody needs them.
    pub pages_kept: usize,
    /// Pages in all.
    pub pages: usize,
    /// Steps so far.
    pub steps: u64,
    /// Tokens of prompts that were read, again too.
    pub read: u64,
    /// Tokens of prompts that were not read, because they were kept of another text.
    pub reused: u64,
    /// Tokens that were chosen.
    pub generated: u64,
    /// Tokens that were looked up, and read before they were chosen.
    pub looked_up: u64,
    /// Those of them that were chosen then.
    pub found: u64,
    /// How often a text gave way to others.
    pub put_off: u64,
}
