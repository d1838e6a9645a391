//! Models as lists of ops, tokenizers, sampling, sessions, perplexity and model downloads.
