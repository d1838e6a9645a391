//! Data at rest: GGML blocks, GGUF, KV-cache codecs, rotations and codebooks.
