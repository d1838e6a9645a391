"""The peer that Walsh is measured against: llama.cpp through llama-cpp-python's low-level interface.

Runs in a Python environment of its own that holds `llama-cpp-python==0.3.36` and `numpy`.
The weights are used as they are in the file; nothing of the peer is changed.
"""

import ctypes
import sys

import llama_cpp as ll
import numpy as np

FLASH = {"auto": -1, "off": 0, "on": 1}
KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q5_0": 6, "q8_0": 8}


@ll.llama_log_callback
def _quiet(_level, _text, _user):
    """Swallows the peer's log, which would drown the figures."""


class Peer:
    """A loaded model; contexts are made from it by `context`."""

    def __init__(self, path, vocab_only=False):
        ll.llama_log_set(_quiet, ctypes.c_void_p(0))
        ll.llama_backend_init()
        params = ll.llama_model_default_params()
        params.n_gpu_layers = 0
        params.vocab_only = vocab_only
        self.model = ll.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            sys.exit(f"{path}: the peer cannot load this model")
        self.vocab = ll.llama_model_get_vocab(self.model)
        self.n_vocab = ll.llama_vocab_n_tokens(self.vocab)
        self.bos = ll.llama_vocab_bos(self.vocab)
        self.add_bos = ll.llama_vocab_get_add_bos(self.vocab)

    def tokenize(self, text, add_special=True, parse_special=False):
        """The ids of `text` (str or bytes)."""
        data = text.encode() if isinstance(text, str) else text
        room = len(data) + 8
        ids = (ll.llama_token * room)()
        n = ll.llama_tokenize(self.vocab, data, len(data), ids, room, add_special, parse_special)
        if n < 0:
            sys.exit(f"the peer cannot tokenise {text!r}")
        return list(ids[:n])

    def piece(self, token, special=True):
        """The bytes of one token."""
        buffer = ctypes.create_string_buffer(512)
        n = ll.llama_token_to_piece(self.vocab, token, buffer, 512, 0, special)
        return buffer.raw[:n]

    def is_end(self, token):
        """Whether generation stops at this token."""
        return bool(ll.llama_vocab_is_eog(self.vocab, token))

    def chat_template(self):
        """The model's chat template, or None."""
        text = ll.llama_model_chat_template(self.model, None)
        return text.decode() if text else None

    def context(self, **options):
        """A new context; see `Context`."""
        return Context(self, **options)


class Context:
    """One sequence with its KV cache."""

    def __init__(self, peer, size, batch=2048, threads=2, kv="f16", flash="auto"):
        params = ll.llama_context_default_params()
        params.n_ctx = size
        params.n_batch = batch
        params.n_ubatch = min(batch, 512)
        params.n_seq_max = 1
        params.n_threads = threads
        params.n_threads_batch = threads
        params.type_k = KV_TYPES[kv]
        params.type_v = KV_TYPES[kv]
        params.flash_attn_type = FLASH[flash]
        self.peer = peer
        self.ctx = ll.llama_init_from_model(peer.model, params)
        if not self.ctx:
            sys.exit("the peer cannot make a context")
        self.batch_size = batch
        self.batch = ll.llama_batch_init(batch, 0, 1)
        self.position = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        ll.llama_batch_free(self.batch)
        ll.llama_free(self.ctx)

    def clear(self):
        """Forgets all tokens."""
        ll.llama_memory_clear(ll.llama_get_memory(self.ctx), True)
        self.position = 0

    def truncate(self, length):
        """Forgets the tokens from `length` on; False where the cache cannot (a window that has moved on)."""
        done = ll.llama_memory_seq_rm(ll.llama_get_memory(self.ctx), 0, length, -1)
        if done:
            self.position = length
        return bool(done)

    def feed(self, tokens, logits_from=None):
        """Evaluates `tokens`; returns the logits of those at index `logits_from` and later (default: the last)."""
        if logits_from is None:
            logits_from = len(tokens) - 1
        rows = []
        for start in range(0, len(tokens), self.batch_size):
            part = tokens[start : start + self.batch_size]
            self.batch.n_tokens = len(part)
            for i, token in enumerate(part):
                self.batch.token[i] = token
                self.batch.pos[i] = self.position + i
                self.batch.n_seq_id[i] = 1
                self.batch.seq_id[i][0] = 0
                self.batch.logits[i] = start + i >= logits_from
            if ll.llama_decode(self.ctx, self.batch) != 0:
                sys.exit("the peer cannot evaluate a batch")
            self.position += len(part)
            for i in range(max(logits_from - start, 0), len(part)):
                row = ll.llama_get_logits_ith(self.ctx, i)
                rows.append(np.ctypeslib.as_array(row, (self.peer.n_vocab,)).copy())
        return np.stack(rows) if rows else np.empty((0, self.peer.n_vocab), np.float32)

    def evaluate(self, tokens):
        """Evaluates one batch, waits for it and looks at no logits: what a benchmark times."""
        self.batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            self.batch.token[i] = token
            self.batch.pos[i] = self.position + i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = i + 1 == len(tokens)
        if ll.llama_decode(self.ctx, self.batch) != 0:
            sys.exit("the peer cannot evaluate a batch")
        ll.llama_synchronize(self.ctx)
        self.position += len(tokens)
