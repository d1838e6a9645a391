//! What signals ask of a conversation.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Flags that signals set.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// To end an answer: any signal.
    pub(crate) cancel: Arc<AtomicBool>,
    /// To end the program.
    pub(crate) ending: Arc<AtomicBool>,
    /// Ctrl-C.
    pub(crate) interrupted: Arc<AtomicBool>,
}
