//! What a file may state at most, and what holds where it states nothing.

/// The alignment of tensor data in a file that does not state one.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// The most dimensions that a GGML tensor has.
pub const MAX_DIMENSIONS: u32 = 4;

/// How deeply arrays may be nested: an array of arrays of … has at most this many levels.
pub const MAX_ARRAY_DEPTH: usize = 4;
