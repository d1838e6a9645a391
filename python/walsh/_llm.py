"""A plugin of the command ``llm``: Walsh's models by the names ``walsh/NAME``.

``pip install walsh[llm]`` installs both; ``llm -m walsh/smollm2-135m "Why is the sky blue?"`` answers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import llm
import llm.parts
from pydantic import Field

import walsh

#: The models that are open, by their names: a command asks one once, a program again and again.
_open: dict[str, walsh.Engine] = {}
_lock = threading.Lock()


def _engine(name: str) -> walsh.Engine:
    with _lock:
        engine = _open.get(name)
        if engine is None or engine.closed:
            engine = _open[name] = walsh.Engine(name)
        return engine


def _message(message: Any) -> walsh.Message:
    """A message of llm's. What is not text, such as a picture, is refused by llm before."""
    parts = (part.text for part in message.parts if isinstance(part, llm.parts.TextPart))
    return {"role": message.role, "content": "".join(parts)}


class WalshModel(llm.Model):  # type: ignore[misc, unused-ignore]
    """A model that answers on this machine."""

    can_stream = True
    supports_schema = True
    needs_key = None

    class Options(llm.Options):  # type: ignore[misc, unused-ignore]
        """What ``-o`` can say; what it does not is as the model's makers recommend."""

        max_tokens: int | None = Field(default=None, description="The most tokens; -1 for any")
        temperature: float | None = Field(default=None, description="0 takes the likeliest token")
        top_p: float | None = Field(default=None, description="From 0 to 1; 1 keeps all tokens")
        top_k: int | None = Field(default=None, description="0 keeps all tokens")
        min_p: float | None = Field(default=None, description="From 0 to 1; 0 keeps all tokens")
        repetition_penalty: float | None = Field(default=None, description="1 changes nothing")
        seed: int | None = Field(default=None, description="What random numbers start from")

    def __init__(self, name: str) -> None:
        self.model_id = f"walsh/{name}"
        self._name = name

    def execute(
        self,
        prompt: Any,
        stream: bool,
        response: Any,
        conversation: Any = None,
    ) -> Iterator[str]:
        """Answers, piece by piece."""
        messages: list[walsh.Message] = [_message(message) for message in prompt.messages]
        given = prompt.options.model_dump(exclude_none=True)
        given.setdefault("max_tokens", None)
        if prompt.schema:
            given["json_schema"] = prompt.schema
        reply = _engine(self._name).submit_chat(messages, **given)
        if stream:
            yield from (text for kind, _, text in reply.said() if kind == "text")
        else:
            yield reply.answer().text
        figures = reply.figures
        response.set_usage(input=figures["prompt_tokens"], output=figures["generated_tokens"])


@llm.hookimpl  # type: ignore[untyped-decorator, unused-ignore]
def register_models(register: Callable[..., None]) -> None:
    """Tells ``llm`` of the models that Walsh knows by name."""
    for name in walsh.models():
        register(WalshModel(name))
