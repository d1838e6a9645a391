//! What calls have left behind, and what that depends on.

/// A call and all before it, as a name.
pub(super) type Key = [u8; 32];

/// What a call has left behind.
pub(super) struct Left {
    pub(super) pages: Vec<u8>,
    pub(super) overlays: Vec<u8>,
}

/// What keys and values depend on besides the model, each with its name.
pub(super) type Home = Vec<(&'static str, String)>;
