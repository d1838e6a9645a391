//! What waiting for standard input comes to.

/// What came first.
#[derive(Debug)]
pub(crate) enum Got<'s> {
    Bytes(&'s [u8]),
    /// There are no more, or the terminal is gone.
    End,
    Signal,
    /// The time is over.
    Nothing,
}
