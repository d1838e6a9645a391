"""Texts as they come."""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from . import _walsh
from ._closing import Closing
from ._errors import BusyError

if TYPE_CHECKING:
    from typing_extensions import Self


class Figures(TypedDict):
    """What a text took."""

    #: Tokens that were read before the first was generated.
    prompt_tokens: int
    #: How many of them were known from another text.
    reused_tokens: int
    #: How long reading them took.
    prompt_seconds: float
    #: Tokens that were generated, the one that ended the text included.
    generated_tokens: int
    #: From the end of the prompt to the latest token.
    generated_seconds: float
    #: From the call to the first token.
    first_token_seconds: float


class Answer(str):
    """A whole text: a ``str`` that knows how it came about.

    ``finish`` says why it ended (``end``, ``stop``, ``max_tokens``, ``context_full`` or
    ``cancelled``), ``tokens`` has the ids of its tokens, ``figures`` what it took.
    """

    finish: str | None
    tokens: list[int]
    figures: Figures

    def __new__(cls, text: str, finish: str | None, tokens: list[int], figures: Figures) -> Self:
        answer = super().__new__(cls, text)
        answer.finish = finish
        answer.tokens = tokens
        answer.figures = figures
        return answer

    def __getnewargs__(self) -> tuple[str, str | None, list[int], Figures]:  # type: ignore[override]
        return (str(self), self.finish, self.tokens, self.figures)


class Text(Closing, Iterator[str], AsyncIterator[str]):
    """A text that comes piece by piece, for ``for`` and ``async for``.

    Pieces are of whole characters. Closing it, or letting it go, ends the text.
    """

    @abstractmethod
    def _pull(self) -> str | None:
        """The next piece, waited for; None at the end."""

    @abstractmethod
    async def _apull(self) -> str | None:
        """The same within an event loop."""

    @property
    @abstractmethod
    def finish(self) -> str | None:
        """Why it ended; None while it goes on."""

    @property
    @abstractmethod
    def tokens(self) -> list[int]:
        """The ids of its tokens so far."""

    @property
    @abstractmethod
    def figures(self) -> Figures:
        """What it took so far."""

    @abstractmethod
    def cancel(self) -> None:
        """Ends it before the next token; what was held back of it still comes."""

    @abstractmethod
    def close(self) -> None:
        """Ends it at once."""

    def read(self) -> Answer:
        """All of it that is still to come."""
        text = "".join(self)
        return Answer(text, self.finish, self.tokens, self.figures)

    async def aread(self) -> Answer:
        """As :meth:`read`, within an event loop."""
        text = "".join([piece async for piece in self])
        return Answer(text, self.finish, self.tokens, self.figures)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        while (piece := self._pull()) is not None:
            if piece:
                return piece
        raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            try:
                piece = await self._apull()
            except asyncio.CancelledError:
                self.cancel()
                raise
            if piece is None:
                raise StopAsyncIteration
            if piece:
                return piece


class SessionText(Text):
    """What a session generates; the session is its own until it ends."""

    def __init__(
        self, generation: _walsh.Generation, ended: Callable[[], None] | None = None
    ) -> None:
        self._generation = generation
        # It is called once, whether the text ends, is closed or is let go.
        self._finalizer = None if ended is None else weakref.finalize(self, _end, generation, ended)
        if self._finalizer is not None:
            self._finalizer.atexit = False

    def _pull(self) -> str | None:
        try:
            piece = self._generation.next()
        except BusyError:
            # The text is another thread's, and goes on.
            raise
        except BaseException:
            self.close()
            raise
        if piece is None:
            self.close()
        return piece

    async def _apull(self) -> str | None:
        return await asyncio.get_running_loop().run_in_executor(None, self._pull)

    @property
    def finish(self) -> str | None:
        return self._generation.finish

    @property
    def tokens(self) -> list[int]:
        return self._generation.tokens

    @property
    def figures(self) -> Figures:
        figures: Figures = self._generation.figures  # type: ignore[assignment]
        return figures

    def cancel(self) -> None:
        self._generation.cancel()

    def close(self) -> None:
        if self._finalizer is None:
            self._generation.close()
        else:
            self._finalizer()


def _end(generation: _walsh.Generation, ended: Callable[[], None]) -> None:
    generation.close()
    ended()


@dataclass(frozen=True)
class Logprobs:
    """Log-probabilities (natural) of a token, by the model's own logits."""

    #: That of the token.
    token: float
    #: The likeliest tokens' ids and theirs, the likeliest first.
    top: list[tuple[int, float]]


@dataclass(frozen=True)
class Piece:
    """A token of an engine's answer."""

    #: The token's id; None of what was held back of the text until its end.
    token: int | None
    #: What is known of the text with it: whole characters, possibly none.
    text: str
    #: Its log-probabilities, if they were asked for.
    logprobs: Logprobs | None


#: A piece as the native part tells it; None at the end.
_Native = tuple[int | None, str, tuple[float, list[tuple[int, float]]] | None] | None


class _Hub:
    """Tells the tasks of an event loop of pieces that have come."""

    def __init__(self) -> None:
        self.bell = _walsh.Bell()
        self.waiting: dict[int, asyncio.Future[None]] = {}
        self.tags = itertools.count()

    def rung(self) -> None:
        for tag in self.bell.heard():
            future = self.waiting.get(tag)
            if future is not None and not future.done():
                future.set_result(None)

    async def next(self, stream: _walsh.Stream) -> _Native:
        loop, tag = asyncio.get_running_loop(), next(self.tags)
        try:
            while True:
                # Before it is looked for: what comes in between rings.
                future: asyncio.Future[None] = loop.create_future()
                self.waiting[tag] = future
                there, piece = stream.try_next(self.bell, tag)
                if there:
                    return piece
                await future
        finally:
            self.waiting.pop(tag, None)


_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Hub] = weakref.WeakKeyDictionary()


def _hub() -> _Hub:
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _Hub()
        loop.add_reader(hub.bell.fileno(), hub.rung)
        _hubs[loop] = hub
    return hub


class Reply(Text):
    """The answer to a request of an engine.

    Letting it go ends the request within a step.
    """

    def __init__(self, stream: _walsh.Stream, keep: object = None) -> None:
        self._stream: _walsh.Stream | None = stream
        self._keep = keep
        # Held by the task that waits for a piece: the engine wakes but one.
        self._awaited = threading.Lock()
        self._tokens: list[int] = []
        self._finish: str | None = None
        self._figures: Figures = {
            "prompt_tokens": 0,
            "reused_tokens": 0,
            "prompt_seconds": 0.0,
            "generated_tokens": 0,
            "generated_seconds": 0.0,
            "first_token_seconds": 0.0,
        }
        self._stopped_by: str | None = None
        self._prompt_logprobs: list[Logprobs] | None = None
        self._embedding: list[float] | None = None

    def _heard(self, piece: _Native) -> Piece | None:
        if piece is None:
            self._note_end()
            return None
        token, text, logprobs = piece
        if token is not None:
            self._tokens.append(token)
        return Piece(token, text, None if logprobs is None else Logprobs(*logprobs))

    def _note_end(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        self._finish = stream.finish
        self._stopped_by = stream.stopped_by
        figures = stream.figures
        if figures is not None:
            self._figures = figures  # type: ignore[assignment]
        told = stream.prompt_logprobs
        if told is not None:
            self._prompt_logprobs = [Logprobs(*one) for one in told]
        self._embedding = stream.embedding

    def next_piece(self) -> Piece | None:
        """The next token with what is known of it, waited for; None at the end."""
        if self._stream is None:
            return None
        return self._heard(self._stream.next())

    async def anext_piece(self) -> Piece | None:
        """As :meth:`next_piece`, within an event loop."""
        if self._stream is None:
            return None
        if not self._awaited.acquire(blocking=False):
            raise BusyError("two tasks want the next piece of a text: let one of them read it")
        try:
            return self._heard(await self._anext(self._stream))
        finally:
            self._awaited.release()

    async def _anext(self, stream: _walsh.Stream) -> _Native:
        try:
            hub = _hub()
        except NotImplementedError:
            # A loop that watches no sockets.
            return await asyncio.get_running_loop().run_in_executor(None, stream.next)
        return await hub.next(stream)

    def _pull(self) -> str | None:
        piece = self.next_piece()
        return None if piece is None else piece.text

    async def _apull(self) -> str | None:
        piece = await self.anext_piece()
        return None if piece is None else piece.text

    @property
    def finish(self) -> str | None:
        return self._finish

    @property
    def stopped_by(self) -> str | None:
        """Which stop text ended it, if one did."""
        return self._stopped_by

    @property
    def tokens(self) -> list[int]:
        return list(self._tokens)

    @property
    def figures(self) -> Figures:
        return self._figures

    @property
    def prompt_logprobs(self) -> list[Logprobs] | None:
        """Log-probabilities of the prompt's tokens from the second on, once the text has ended, if
        they were asked for."""
        return self._prompt_logprobs

    @property
    def embedding(self) -> list[float] | None:
        """The vector of the prompt, not normalised, once the text has ended, if it was asked for."""
        return self._embedding

    def cancel(self) -> None:
        if self._stream is not None:
            self._stream.cancel()

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
            self._finish = "cancelled"
