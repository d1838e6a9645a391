//! Errors of KV specifications and codecs.

/// What can be wrong with a KV specification, a head size or a vector.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// A word of a specification means nothing.
    #[error("KV cache {given:?}: unknown {what} {word:?}; {possible}")]
    Unknown {
        /// The whole specification.
        given: String,
        /// What the word stands for.
        what: &'static str,
        /// The word.
        word: String,
        /// What would be understood.
        possible: String,
    },
    /// A specification is not of the form that [`KvSpec`](super::KvSpec) has.
    #[error(
        "KV cache {given:?}: {why}; write a budget such as 4bit, a codec such as tq4 or a pair such as k=tq5,v=tq4, and settings behind semicolons"
    )]
    Malformed {
        /// The whole specification.
        given: String,
        /// What is wrong.
        why: String,
    },
    /// A specification's layers are not a model's.
    #[error("KV cache {given:?}: {why}")]
    Layers {
        /// The whole specification.
        given: String,
        /// What is wrong.
        why: String,
    },
    /// A codec or rotation does not exist for a head size.
    #[error("head size {head_dim} does not suit {codec}: {why}")]
    HeadDim {
        /// Numbers per head.
        head_dim: usize,
        /// What was asked for.
        codec: String,
        /// Which sizes do.
        why: String,
    },
    /// A slice has the wrong length.
    #[error("a row of {codec} at head size {head_dim}: {what} takes {expected}, but has {found}")]
    Length {
        /// The codec.
        codec: String,
        /// Numbers per head.
        head_dim: usize,
        /// Which slice, and in what unit.
        what: &'static str,
        /// What the codec needs.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A vector holds NaN or an infinity.
    #[error("channel {channel} is {value}: only finite keys and values can be stored")]
    NotFinite {
        /// Where.
        channel: usize,
        /// What stands there.
        value: f32,
    },
    /// A vector is finite, but too large for what the codec stores.
    #[error(
        "a vector of magnitude {magnitude:e} is out of the range of {codec}: use f32 or a codec with +norm"
    )]
    OutOfRange {
        /// The vector's largest magnitude, or its root mean square.
        magnitude: f64,
        /// The codec.
        codec: String,
    },
}
