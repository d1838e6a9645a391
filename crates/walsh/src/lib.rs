//! Compute on quantised weights and a quantised KV cache without expanding them to memory.
