"""Engines: many requests at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _walsh
from ._arguments import Message, _dumps, _ids, _size
from ._closing import Closing
from ._errors import OptionError
from ._model import Model
from ._options import RequestOptions, knobs, slot_number
from ._text import Answer, Figures, Piece, Reply

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: Whether tools may or must be called: ``none``, ``auto``, ``required``, or a tool's name.
ToolChoice = str

#: Of an answer: what it is (``text``, ``reasoning``, ``call`` or ``arguments``), of which call, and the
#: text or the tool's name.
Said = tuple[str, int, str]


@dataclass
class ToolCall:
    """A call of a tool."""

    #: The tool's name.
    name: str
    #: The JSON of its arguments.
    arguments: str = ""


@dataclass
class ChatAnswer:
    """An answer, told apart into what was said, thought and called."""

    #: What was said.
    text: str = ""
    #: What the model thought before.
    reasoning: str = ""
    #: What it called.
    calls: list[ToolCall] = field(default_factory=list)
    #: Why it ended.
    finish: str | None = None
    #: The ids of its tokens.
    tokens: list[int] = field(default_factory=list)
    #: What it took.
    figures: Figures | None = None

    def _hear(self, said: list[Said]) -> None:
        for kind, index, text in said:
            if kind == "text":
                self.text += text
            elif kind == "reasoning":
                self.reasoning += text
            elif kind == "call":
                self.calls.append(ToolCall(text))
            else:
                self.calls[index].arguments += text


class ChatReply(Reply):
    """An answer in a conversation: iterating it gives the text as the model writes it, with the
    marks of calls and reasoning; :meth:`answer` tells them apart."""

    def __init__(self, stream: _walsh.Stream, parser: _walsh.Parser, keep: object) -> None:
        super().__init__(stream, keep)
        self._parser = parser

    def next_said(self) -> tuple[Piece | None, list[Said]]:
        """The next token, waited for, and what is certain of the answer by it; at the end no token,
        and the rest."""
        piece = self.next_piece()
        return piece, self._parser.finish() if piece is None else self._parser.push(piece.text)

    async def anext_said(self) -> tuple[Piece | None, list[Said]]:
        """As :meth:`next_said`, within an event loop."""
        piece = await self.anext_piece()
        return piece, self._parser.finish() if piece is None else self._parser.push(piece.text)

    def said(self) -> Iterator[Said]:
        """What is said, thought and called, as it comes."""
        piece: Piece | None = None
        while True:
            piece, said = self.next_said()
            yield from said
            if piece is None:
                return

    def answer(self) -> ChatAnswer:
        """The whole answer, waited for."""
        answer = ChatAnswer()
        while True:
            piece, said = self.next_said()
            answer._hear(said)
            if piece is None:
                return self._end(answer)

    async def aanswer(self) -> ChatAnswer:
        """As :meth:`answer`, within an event loop."""
        answer = ChatAnswer()
        while True:
            piece, said = await self.anext_said()
            answer._hear(said)
            if piece is None:
                return self._end(answer)

    def _end(self, answer: ChatAnswer) -> ChatAnswer:
        answer.finish, answer.tokens, answer.figures = self.finish, self.tokens, self.figures
        return answer


class Engine(Closing):
    """Serves many requests at once with one model, from any threads and event loops.

    ``sequences`` is the most texts at once, ``context`` the most tokens of a text (0: the model's
    own, at most 4096), ``kv`` how the KV cache is kept, ``kv_memory`` its bytes (0: as many as it can
    use, at most half of what is free), ``chunk`` the most tokens of prompts that are read in a step,
    ``prefix_folder`` where what was read of prompts is kept, ``look_up`` the most tokens that are
    looked up, ``deterministic`` whether an answer must not depend on what else is served.
    """

    def __init__(
        self,
        model: Model | str | os.PathLike[str] | None = None,
        *,
        sequences: int = 16,
        context: int = 0,
        kv: str | None = None,
        kv_memory: int = 0,
        chunk: int = 256,
        keep_prefixes: bool = True,
        prefix_folder: str | os.PathLike[str] | None = None,
        look_up: int = 0,
        deterministic: bool = False,
    ) -> None:
        self._model = model if isinstance(model, Model) else Model(model)
        starting: dict[str, Any] = {
            "sequences": _size("sequences", sequences),
            "context": _size("context", context),
            "kv_memory": _size("kv_memory", kv_memory),
            "chunk": _size("chunk", chunk),
            "keep_prefixes": keep_prefixes,
            "look_up": _size("look_up", look_up),
            "deterministic": deterministic,
        }
        kv = self._model._kv if kv is None else kv
        if kv is not None:
            starting["kv"] = kv
        if prefix_folder is not None:
            starting["prefix_folder"] = prefix_folder
        self._native = _walsh.Engine(self._model._native, starting)

    def __repr__(self) -> str:
        return f"<walsh.Engine of {self._model.name!r}>"

    @property
    def model(self) -> Model:
        """The model."""
        return self._model

    @property
    def context(self) -> int:
        """The most tokens of a text."""
        return self._native.context

    @property
    def kv(self) -> str:
        """How its KV cache is kept."""
        return self._native.kv

    @property
    def status(self) -> dict[str, int]:
        """What it is doing: texts that wait and run, pages, steps and tokens so far."""
        return self._native.status()

    @property
    def slots(self) -> list[dict[str, int | None]]:
        """Its slots, of which a request has one from its beginning to its end: the number of that
        request, and how many ``tokens`` of its text, or of the last one's, were read."""
        return [{"request": request, "tokens": tokens} for request, tokens in self._native.slots()]

    def save_slot(self, slot: int, path: str | os.PathLike[str]) -> dict[str, int]:
        """Writes to a file what a slot's last text has left behind, to be restored by an engine that
        is started alike: its ``tokens`` and ``bytes``. Where a request has the slot, it is waited for."""
        tokens, size = self._native.save_slot(slot_number(slot), path)
        return {"tokens": tokens, "bytes": size}

    def restore_slot(self, slot: int, path: str | os.PathLike[str]) -> dict[str, int]:
        """Puts what was saved among the beginnings of texts that are kept: a prompt that begins like
        it is not read again, as long as nobody needs its pages."""
        tokens, size = self._native.restore_slot(slot_number(slot), path)
        return {"tokens": tokens, "bytes": size}

    def erase_slot(self, slot: int) -> int:
        """Forgets a slot's text: how many of its tokens no other text has in common with it."""
        return self._native.erase_slot(slot_number(slot))

    def _tokens_of(self, prompt: str | Sequence[int], special: bool) -> list[int]:
        if isinstance(prompt, str):
            return self._model.tokenize(prompt, special=special)
        return _ids(prompt)

    def submit(
        self,
        prompt: str | Sequence[int],
        *,
        special: bool = False,
        **options: Unpack[RequestOptions],
    ) -> Reply:
        """Hands it a text, or tokens, to go on with; the answer comes by what is returned, for
        ``for`` and ``async for``. Letting that go ends the request."""
        given = knobs("submit", options, engine=True)
        return Reply(self._native.submit(self._tokens_of(prompt, special), given), self)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        special: bool = False,
        **options: Unpack[RequestOptions],
    ) -> Answer:
        """Goes on with a text: what follows, waited for."""
        return self.submit(prompt, special=special, **options).read()

    async def agenerate(
        self,
        prompt: str | Sequence[int],
        *,
        special: bool = False,
        **options: Unpack[RequestOptions],
    ) -> Answer:
        """As :meth:`generate`, within an event loop."""
        reply = self.submit(prompt, special=special, **options)
        try:
            return await reply.aread()
        finally:
            reply.close()

    def submit_chat(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: ToolChoice = "auto",
        variables: Mapping[str, Any] | None = None,
        **options: Unpack[RequestOptions],
    ) -> ChatReply:
        """Hands it a conversation to answer, with tools that the model may call, as OpenAI has them:
        ``{"type": "function", "function": {...}}``."""
        given = knobs("submit_chat", options, engine=True)
        tools = [] if tool_choice == "none" else list(tools)
        prompt = self._model.chat_prompt(messages, tools=tools, variables=variables)
        calls: dict[str, Any] = {
            "prompt": prompt.text,
            "tools": _dumps("tools", tools),
            "choice": tool_choice
            if tool_choice in ("none", "auto", "required")
            else f"={tool_choice}",
            "answer": given.get("json_schema"),
        }
        parser = _walsh.Parser(self._model._native, calls)
        form = parser.form
        if form is not None:
            if "regex" in given or "grammar" in given:
                raise OptionError(
                    "regex and grammar cannot be kept together with tools: give json_schema, or no tools"
                )
            given.pop("json_schema", None)
            given[form[0]] = form[1]
        given["show_control"] = parser.shows_control
        given["checkpoints"] = prompt.checkpoints
        return ChatReply(self._native.submit(prompt.tokens, given), parser, self)

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: ToolChoice = "auto",
        variables: Mapping[str, Any] | None = None,
        **options: Unpack[RequestOptions],
    ) -> ChatAnswer:
        """Answers a conversation, waited for."""
        return self.submit_chat(
            messages, tools=tools, tool_choice=tool_choice, variables=variables, **options
        ).answer()

    async def achat(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: ToolChoice = "auto",
        variables: Mapping[str, Any] | None = None,
        **options: Unpack[RequestOptions],
    ) -> ChatAnswer:
        """As :meth:`chat`, within an event loop."""
        reply = self.submit_chat(
            messages, tools=tools, tool_choice=tool_choice, variables=variables, **options
        )
        try:
            return await reply.aanswer()
        finally:
            reply.close()

    def embed(
        self,
        text: str | Sequence[int],
        *,
        pooling: Literal["mean", "last"] | None = None,
        normalise: bool = True,
    ) -> NDArray[np.float32]:
        """What the model makes of a text: its vectors' mean, or the last of them, ``[width]``, of
        length 1 unless ``normalise`` is false. Without ``pooling`` it is what the model was trained
        for, and the mean with others."""
        pooling = pooling or self.model.pooling or "mean"
        reply = self.submit(text, max_tokens=0, pooling=pooling)
        reply.read()
        vector = np.asarray(reply.embedding, dtype=np.float32)
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if normalise and length > 0:
            vector = (vector.astype(np.float64) / length).astype(np.float32)
        return vector

    def close(self) -> None:
        """Ends it, and its requests with it."""
        self._native.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._native.closed
