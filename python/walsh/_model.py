"""Models, and sessions over them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from . import _walsh
from ._arguments import Adapter, Message, Progress, _adapter, _dumps, _ids, _size
from ._closing import Closing
from ._errors import ClosedError
from ._options import Options, knobs
from ._text import Answer, SessionText, Text

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Model(Closing):
    """A language model, ready to run.

    ``model`` is a name such as ``smollm2-135m`` (fetched when it is not here yet), the path of a GGUF
    file, or ``hf:OWNER/REPO[:QUANT]``; left out, the default model. ``device`` is ``cpu``, ``cuda:0``
    or either with settings, such as ``cpu:threads=2``. ``kv`` and ``context`` are what sessions are
    started with that do not say otherwise: how the KV cache is kept (``f16``, ``tq4``, ``4bit``,
    ``k=tq5,v=tq3``, ...), and how many tokens a text can have (0: the model's own context, at most
    4096). ``lora`` are LoRA adapters that are added to it: paths of GGUF files or of folders that PEFT has
    saved, or pairs of such a path and a scale. ``progress`` is called with bytes done and bytes in all while a model is fetched.

    A model can be used from several threads. It is closed by :meth:`close`, or as a context manager;
    sessions and engines over it stay open, and keep its weights in memory.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "cpu",
        threads: int | None = None,
        kv: str | None = None,
        context: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        lora: Iterable[Adapter] = (),
        progress: Progress | None = None,
    ) -> None:
        opening = {
            "model": _walsh.default_model() if model is None else os.fspath(model),
            "device": device,
            "threads": None if threads is None else _size("threads", threads),
            "cache_dir": cache_dir,
            "lora": [_adapter(given) for given in lora],
        }
        self._kv, self._context = kv, _size("context", context)
        self._native = _walsh.Model(opening, progress)
        if kv is not None:
            # What cannot be used is said now.
            self._native.kv_cost(kv)
        self._about = self._native.about()
        self._spare: list[_walsh.Session] = []

    def __repr__(self) -> str:
        return f"<walsh.Model {self.name!r} on {self.device}>"

    @property
    def name(self) -> str:
        """What its file calls it."""
        return str(self._about["name"])

    @property
    def path(self) -> str:
        """The file that was opened."""
        return str(self._about["path"])

    @property
    def architecture(self) -> str:
        """Its family."""
        return str(self._about["architecture"])

    @property
    def device(self) -> str:
        """The device that runs it."""
        return str(self._about["device"])

    @property
    def fingerprint(self) -> str:
        """What tells it from other models."""
        return str(self._about["fingerprint"])

    @property
    def file_bytes(self) -> int:
        """The size of its files in bytes."""
        return int(self._about["file_bytes"])

    @property
    def vocabulary(self) -> int:
        """How many tokens its vocabulary has."""
        return int(self._about["vocabulary"])

    @property
    def context(self) -> int:
        """The context that it was trained for, in tokens."""
        return int(self._about["context"])

    @property
    def width(self) -> int:
        """The width of its residual stream: how many numbers a vector of it has."""
        return int(self._about["width"])

    @property
    def layers(self) -> int:
        """How many layers it has."""
        return int(self._about["layers"])

    @property
    def heads(self) -> int:
        """Query heads of a layer."""
        return int(self._about["heads"])

    @property
    def kv_heads(self) -> int:
        """KV heads of a layer; of the first where layers differ."""
        return int(self._about["kv_heads"])

    @property
    def head_dim(self) -> int:
        """Numbers of a head; of the first layer where layers differ."""
        return int(self._about["head_dim"])

    @property
    def pooling(self) -> Literal["mean", "last"] | None:
        """How it makes one vector of a text, where it was trained for that: it makes no texts then."""
        pooling: Literal["mean", "last"] | None = self._about["pooling"]
        return pooling

    @property
    def bos(self) -> int | None:
        """The token that begins a text."""
        bos: int | None = self._about["bos"]
        return bos

    @property
    def eos(self) -> int | None:
        """The token that ends a text."""
        eos: int | None = self._about["eos"]
        return eos

    @property
    def ends(self) -> list[int]:
        """The tokens with which it ends a text, or its turn."""
        return list(self._about["ends"])

    @property
    def chats(self) -> bool:
        """Whether it has a chat template."""
        return bool(self._about["chats"])

    @property
    def sampling(self) -> dict[str, Any]:
        """How tokens are chosen where nothing is said: as its makers recommend."""
        return self._native.sampling()

    def tokenize(
        self, text: str | bytes, *, whole: bool = True, special: bool = False
    ) -> list[int]:
        """The ids of a text's tokens.

        ``whole`` puts what the model has before and after a whole text, ``special`` takes names of
        control tokens, such as ``<|im_end|>``, for the tokens.
        """
        given = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return self._native.tokenize(given, whole, special)

    def detokenize(self, tokens: Sequence[int] | NDArray[np.integer[Any]]) -> str:
        """The text of tokens, without control tokens."""
        return self._native.detokenize(_ids(tokens))

    def token_bytes(
        self, tokens: Sequence[int] | NDArray[np.integer[Any]], *, special: bool = False
    ) -> bytes:
        """The bytes of tokens as they are; with ``special`` the names of control tokens too."""
        return self._native.token_bytes(_ids(tokens), special)

    def kv_bytes_per_token(self, kv: str | None = None) -> int:
        """The bytes that a token takes in KV caches of this kind, over all layers."""
        return self._native.kv_cost(self._kv if kv is None else kv)[0]

    def kv_bits_per_value(self, kv: str | None = None) -> float:
        """The bits that KV caches of this kind spend on a number."""
        return self._native.kv_cost(self._kv if kv is None else kv)[1]

    def session(self, *, kv: str | None = None, context: int | None = None) -> Session:
        """Starts a session with caches of its own."""
        kv = self._kv if kv is None else kv
        size = self._context if context is None else _size("context", context)
        return Session(self, self._native.session(size, kv))

    def load(
        self,
        path: str | os.PathLike[str],
        *,
        kv: str | None = None,
        context: int | None = None,
    ) -> Session:
        """Takes up a session that :meth:`Session.save` wrote; ``kv`` is what it must have been saved
        with, where one is expected."""
        return Session(self, self._native.restore(path, _size("context", context), kv))

    def chat_prompt(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
        continues: bool = False,
    ) -> ChatPrompt:
        """What the chat template makes of a conversation, up to where the answer begins.

        ``variables`` are what the template may be set by, such as ``enable_thinking``; with
        ``continues`` the last message, an assistant's, is to be gone on with.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        talk = {
            "messages": _dumps("messages", list(messages)),
            "tools": _dumps("tools", list(tools)),
            "variables": _dumps("variables", dict(variables or {})),
            "continues": continues,
        }
        return ChatPrompt(*self._native.chat_prompt(talk))

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        stream: Literal[False] = False,
        special: bool = False,
        kv: str | None = None,
        context: int | None = None,
        **options: Unpack[Options],
    ) -> Answer: ...
    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        stream: Literal[True],
        special: bool = False,
        kv: str | None = None,
        context: int | None = None,
        **options: Unpack[Options],
    ) -> Text: ...
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        stream: bool = False,
        special: bool = False,
        kv: str | None = None,
        context: int | None = None,
        **options: Unpack[Options],
    ) -> Answer | Text:
        """Goes on with a text, or with tokens.

        Returns what follows, a ``str`` with more to it; with ``stream`` an iterator of its pieces,
        for ``for`` and ``async for``. The options are those of :class:`Options`.
        """
        given = knobs("generate", options)
        tokens = self._tokens_of(prompt, special)
        text = self._begin(tokens, given, (kv, context))
        return text if stream else text.read()

    @overload
    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        stream: Literal[False] = False,
        variables: Mapping[str, Any] | None = None,
        kv: str | None = None,
        context: int | None = None,
        **options: Unpack[Options],
    ) -> Answer: ...
    @overload
    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        stream: Literal[True],
        variables: Mapping[str, Any] | None = None,
        kv: str | None = None,
        context: int | None = None,
        **options: Unpack[Options],
    ) -> Text: ...
    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        stream: bool = False,
        variables: Mapping[str, Any] | None = None,
        kv: str | None = None,
        context: int | None = None,
        **options: Unpack[Options],
    ) -> Answer | Text:
        """Answers a question, or the messages of a conversation, as :meth:`generate` does.

        The whole conversation is read, and the answer is the text as the model writes it. An
        :class:`Engine` reads what it knows but once, and tells reasoning and calls of tools apart.
        """
        given = knobs("chat", options)
        prompt = self.chat_prompt(messages, variables=variables)
        text = self._begin(prompt.tokens, given, (kv, context))
        return text if stream else text.read()

    def _tokens_of(self, prompt: str | Sequence[int], special: bool) -> list[int]:
        if isinstance(prompt, str):
            return self._native.tokenize_after(None, prompt, special)
        return _ids(prompt)

    def _begin(
        self,
        tokens: list[int],
        given: dict[str, Any],
        own: tuple[str | None, int | None],
    ) -> SessionText:
        if self._native.closed:
            raise ClosedError("the model was closed: open it again")
        if own != (None, None):
            session = self.session(kv=own[0], context=own[1])._native
            return SessionText(session.generate(tokens, given), session.close)
        # A session that a text has left is taken again: it need not record its lists anew.
        try:
            session = self._spare.pop()
            session.reset()
        except (IndexError, ClosedError):
            session = self._native.session(self._context, self._kv)
        try:
            generation = session.generate(tokens, given)
        except BaseException:
            self._leave(session)
            raise
        return SessionText(generation, lambda: self._leave(session))

    def _leave(self, session: _walsh.Session) -> None:
        if self._spare or self._native.closed:
            session.close()
        else:
            self._spare.append(session)

    def close(self) -> None:
        """Lets its weights go. What is used of it afterwards raises :class:`ClosedError`."""
        self._native.close()
        while self._spare:
            self._spare.pop().close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._native.closed


class ChatPrompt:
    """What a chat template makes of a conversation."""

    def __init__(self, text: str, tokens: list[int], checkpoints: list[int]) -> None:
        #: The text, as the template writes it.
        self.text = text
        #: The ids of its tokens, of which none comes from a name in what somebody said.
        self.tokens = tokens
        #: Where in the tokens messages end.
        self.checkpoints = checkpoints

    def __repr__(self) -> str:
        return f"<walsh.ChatPrompt of {len(self.tokens)} tokens>"


class Session(Closing):
    """A text in the making: what was read of it lies in KV caches of its own.

    Sessions are made by :meth:`Model.session`. One thread at a time uses a session.
    """

    def __init__(self, model: Model, native: _walsh.Session) -> None:
        self._model = model
        self._native = native

    def __repr__(self) -> str:
        return f"<walsh.Session of {self._model.name!r}>"

    @property
    def model(self) -> Model:
        """The model."""
        return self._model

    @property
    def position(self) -> int:
        """How many tokens it holds."""
        return self._native.position

    def __len__(self) -> int:
        return self._native.position

    @property
    def tokens(self) -> list[int]:
        """The ids of the tokens that it holds."""
        return self._native.tokens

    @property
    def text(self) -> str:
        """The text that it holds, without control tokens."""
        return self._model.detokenize(self._native.tokens)

    @property
    def context(self) -> int:
        """How many tokens it can hold."""
        return self._native.context

    @property
    def kv(self) -> str:
        """How its KV cache is kept."""
        return self._native.kv

    @property
    def kv_bytes(self) -> int:
        """The bytes that its KV caches take when the context is full."""
        return self._native.kv_bytes

    def _tokens_of(self, text: str | Sequence[int], special: bool) -> list[int]:
        if isinstance(text, str):
            held = self._native.tokens
            return self._model._native.tokenize_after(held[-1] if held else None, text, special)
        return _ids(text)

    def read(self, text: str | Sequence[int], *, special: bool = False) -> None:
        """Appends a text, or tokens, in chunks: tokens of a chunk attend over its unquantised keys."""
        self._native.prefill(self._tokens_of(text, special))

    def decode(self, token: int) -> NDArray[np.float32]:
        """Appends one token; returns the logits behind it, ``[vocabulary]``."""
        self._native.decode(_ids([token])[0])
        return self._native.logits()

    def decode_likeliest(self, token: int) -> int:
        """Appends one token; returns the one that is likeliest to follow. It is faster than
        :meth:`decode`: no logits are kept."""
        return self._native.decode_likeliest(_ids([token])[0])

    @property
    def logits(self) -> NDArray[np.float32]:
        """The logits behind the latest token that was read, ``[vocabulary]``: an array of your own.
        Zeros where they are not known."""
        return self._native.logits()

    def score(
        self, text: str | Sequence[int], *, first: int = 0, special: bool = False
    ) -> NDArray[np.float32]:
        """Appends tokens as :meth:`decode` one after the other would, so that each attends over
        stored codes alone; returns the logits behind each from number ``first`` on,
        ``[n - first, vocabulary]``."""
        return self._native.score(self._tokens_of(text, special), _size("first", first))

    def log_likelihoods(
        self, text: str | Sequence[int], *, first: int = 1, special: bool = False
    ) -> tuple[NDArray[np.float64], list[bool]]:
        """Appends tokens as :meth:`score` does, all but the last; returns the natural logarithm of
        the probability of each from number ``first`` (at least 1) on behind those before it,
        ``[n - first]``, and whether each is the likeliest."""
        return self._native.likelihoods(self._tokens_of(text, special), _size("first", first))

    def hidden_states(
        self, text: str | Sequence[int], *, special: bool = False
    ) -> NDArray[np.float32]:
        """Appends a text as :meth:`read` does; returns the vector behind each token, the residual
        stream behind the output norm, ``[n, width]``."""
        return self._native.states(self._tokens_of(text, special))

    @overload
    def generate(
        self,
        prompt: str | Sequence[int] = ...,
        *,
        stream: Literal[False] = False,
        special: bool = False,
        **options: Unpack[Options],
    ) -> Answer: ...
    @overload
    def generate(
        self,
        prompt: str | Sequence[int] = ...,
        *,
        stream: Literal[True],
        special: bool = False,
        **options: Unpack[Options],
    ) -> Text: ...
    def generate(
        self,
        prompt: str | Sequence[int] = "",
        *,
        stream: bool = False,
        special: bool = False,
        **options: Unpack[Options],
    ) -> Answer | Text:
        """Reads a text, or tokens, and goes on with it; without one it goes on from where it is.

        Afterwards the session holds the text. With ``stream`` it is in use until the text has ended
        or is closed.
        """
        given = knobs("generate", options)
        tokens = self._tokens_of(prompt, special)
        text = SessionText(self._native.generate(tokens, given))
        return text if stream else text.read()

    def truncate(self, position: int) -> None:
        """Takes the tokens from number ``position`` on back."""
        self._native.truncate(_size("position", position))

    def reset(self) -> None:
        """Forgets all tokens."""
        self._native.reset()

    def fork(self) -> Session:
        """Another session that holds the same text."""
        return Session(self._model, self._native.fork())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a file, from which :meth:`Model.load` takes it up."""
        self._native.save(path)

    def close(self) -> None:
        """Lets its caches go."""
        self._native.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._native.closed
