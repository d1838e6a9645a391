"""A class for programs that were written for llama-cpp-python's ``Llama``: the common part of it.

Names, defaults and the shape of what is returned are that package's; what is generated is Walsh's. What
is not here, such as LoRA or mirostat, is refused by an :class:`OptionError`, never left out silently.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ._arguments import Message
from ._closing import Closing
from ._engine import ChatReply, Engine
from ._errors import OptionError
from ._model import Model
from ._text import Piece, Reply
from .gguf import File

__all__ = ["Llama"]

#: The seed that stands for any.
_ANY_SEED = 0xFFFFFFFF

#: GGML's numbers of the types that a KV cache can have.
_KV_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 6: "q5_0", 8: "q8_0", 30: "bf16"}

#: How vectors of an embedding are pooled: as the model was trained for, not, their mean, the last.
_POOLINGS: dict[int, Literal["mean", "last"] | None] = {-1: None, 0: None, 1: "mean", 3: "last"}

#: Options of the class that change nothing here.
_WITHOUT_EFFECT = frozenset(
    {
        "flash_attn",
        "main_gpu",
        "n_threads_batch",
        "n_ubatch",
        "no_perf",
        "numa",
        "offload_kqv",
        "op_offload",
        "split_mode",
        "swa_full",
        "use_mlock",
        "use_mmap",
    }
)


def _refuse(**given: tuple[object, object]) -> None:
    """Refuses options that are not as they are where nothing is asked for."""
    for name, (value, usual) in given.items():
        if value is not None and value != usual:
            raise OptionError(f"{name} is not supported: leave it out, or give {usual!r}")


def _logit_bias(bias: Mapping[Any, float] | None) -> dict[int, float] | None:
    return None if bias is None else {int(token): float(value) for token, value in bias.items()}


class Llama(Closing):
    """A model that answers as llama-cpp-python's ``Llama`` does.

    ``model_path`` is a file, or a name as for :class:`walsh.Model`; ``n_gpu_layers`` other than 0 stands
    for the device ``cuda``. ``device`` and ``kv`` are Walsh's own. Calls from several threads are
    answered together, ``n_seq_max`` at a time.
    """

    def __init__(
        self,
        model_path: str,
        *,
        n_gpu_layers: int = 0,
        seed: int = _ANY_SEED,
        n_ctx: int = 512,
        n_batch: int = 512,
        n_seq_max: int = 4,
        n_threads: int | None = None,
        pooling_type: int = -1,
        logits_all: bool = False,
        embedding: bool = False,
        last_n_tokens_size: int = 64,
        chat_format: str | None = None,
        type_k: int | None = None,
        type_v: int | None = None,
        verbose: bool = True,
        device: str | None = None,
        kv: str | None = None,
        **others: Any,
    ) -> None:
        for name, value in others.items():
            if name not in _WITHOUT_EFFECT and value not in (None, False, 0, 0.0, -1, -1.0):
                raise OptionError(f"{name} is not supported: leave it out")
        _refuse(chat_format=(chat_format, None))
        if pooling_type not in _POOLINGS:
            raise OptionError(f"pooling_type is {pooling_type}: give -1, 0, 1 or 3")
        if kv is None and (type_k is not None or type_v is not None):
            names = [_KV_TYPES.get(1 if kind is None else kind) for kind in (type_k, type_v)]
            if None in names:
                numbers = ", ".join(map(str, _KV_TYPES))
                raise OptionError(f"type_k and type_v are numbers of GGML's types: {numbers}")
            kv = f"k={names[0]},v={names[1]}"
        if device is None:
            device = "cpu" if n_gpu_layers == 0 else "cuda"
        self.model_path = model_path
        self.verbose = verbose
        self._seed = seed
        self._window = last_n_tokens_size
        self._embeds = embedding
        self._logits_all = logits_all
        self._model = Model(
            model_path, device=device, threads=None if device != "cpu" else n_threads, kv=kv
        )
        self._pooling = self._model.pooling if pooling_type == -1 else _POOLINGS[pooling_type]
        try:
            self._engine = Engine(
                self._model,
                sequences=n_seq_max,
                context=n_ctx if n_ctx > 0 else self._model.context,
                chunk=n_batch,
            )
        except BaseException:
            self._model.close()
            raise
        self._metadata: dict[str, str] | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """The file's metadata as texts, lists left out."""
        if self._metadata is None:
            with File(self._model.path) as file:
                self._metadata = {
                    key: str(value).lower() if isinstance(value, bool) else str(value)
                    for key, value in file.metadata.items()
                    if not isinstance(value, list)
                }
        return self._metadata

    def n_ctx(self) -> int:
        """The most tokens of a text."""
        return self._engine.context

    def n_vocab(self) -> int:
        """How many tokens the vocabulary has."""
        return self._model.vocabulary

    def n_embd(self) -> int:
        """How many numbers a vector of the model has."""
        return self._model.width

    def token_bos(self) -> int:
        """The token that begins a text; -1 where there is none."""
        return -1 if self._model.bos is None else self._model.bos

    def token_eos(self) -> int:
        """The token that ends a text; -1 where there is none."""
        return -1 if self._model.eos is None else self._model.eos

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """The ids of a text's tokens."""
        return self._model.tokenize(text, whole=add_bos, special=special)

    def detokenize(
        self,
        tokens: Sequence[int],
        prev_tokens: Sequence[int] | None = None,
        special: bool = False,
    ) -> bytes:
        """The bytes of tokens; ``prev_tokens`` are those before them."""
        text = self._model.token_bytes(tokens, special=special)
        begins = not prev_tokens and len(tokens) > 0 and tokens[0] == self.token_bos()
        # The space that a vocabulary of SentencePiece puts in front of a whole text.
        return text[1:] if begins and text.startswith(b" ") else text

    def set_seed(self, seed: int) -> None:
        """What random numbers start from, of calls that do not say."""
        self._seed = seed

    def reset(self) -> None:
        """Nothing is to be reset: calls do not depend on each other."""

    def embed(
        self,
        input: str | list[str],
        normalize: bool = False,
        truncate: bool = True,
        return_count: bool = False,
    ) -> Any:
        """The vector of a text, or of each of several; of each token where ``pooling_type`` asks for
        none."""
        if not self._embeds:
            raise RuntimeError("embeddings need the option embedding=True")
        texts = [input] if isinstance(input, str) else input
        found: list[Any] = []
        count = 0
        for text in texts:
            tokens = self._model.tokenize(text, special=True)
            if truncate:
                tokens = tokens[: self._engine.context - 1]
            count += len(tokens)
            found.append(self._vectors(tokens, normalize))
        output = found[0] if isinstance(input, str) else found
        return (output, count) if return_count else output

    def _vectors(self, tokens: list[int], normalize: bool) -> Any:
        if self._pooling is None:
            with self._model.session(context=self._engine.context) as session:
                rows = session.hidden_states(tokens)
        else:
            rows = self._engine.embed(tokens, pooling=self._pooling, normalise=False)[np.newaxis]
        if normalize:
            rows = _normalised(rows)
        vectors: list[list[float]] = rows.tolist()
        return vectors if self._pooling is None else vectors[0]

    def create_embedding(
        self, input: str | list[str], model: str | None = None
    ) -> dict[str, Any]:
        """As :meth:`embed`, in the form of OpenAI's interface."""
        texts = input if isinstance(input, list) else [input]
        vectors, count = self.embed(texts, return_count=True)
        data = [
            {"object": "embedding", "embedding": vector, "index": index}
            for index, vector in enumerate(vectors)
        ]
        return {
            "object": "list",
            "data": data,
            "model": self.model_path if model is None else model,
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }

    def _options(self, **given: Any) -> dict[str, Any]:
        """Options of a request from those of this class."""
        seed = self._seed if given["seed"] is None else given["seed"]
        most = given["max_tokens"]
        options: dict[str, Any] = {
            "max_tokens": None if most is None or most <= 0 else most,
            "temperature": max(given["temperature"], 0.0),
            "top_p": given["top_p"],
            "top_k": max(given["top_k"], 0),
            "min_p": given["min_p"],
            "repetition_penalty": given["repeat_penalty"],
            "repetition_window": self._window,
            "presence_penalty": given["presence_penalty"],
            "frequency_penalty": given["frequency_penalty"],
            "stop": given["stop"] or None,
            "logit_bias": _logit_bias(given["logit_bias"]),
            "seed": None if seed in (_ANY_SEED, -1) else seed,
        }
        grammar = given["grammar"]
        if grammar is not None:
            if not isinstance(grammar, str):
                raise OptionError(
                    "grammar must be a text in llguidance's kind of Lark: give that, or response_format"
                )
            options["grammar"] = grammar
        return options

    def create_completion(
        self,
        prompt: str | list[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: str | list[str] | None = None,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: object = None,
        logits_processor: object = None,
        grammar: str | None = None,
        logit_bias: Mapping[Any, float] | None = None,
    ) -> Any:
        """Goes on with a text, or with tokens: a dictionary in the form of OpenAI's completions, or
        with ``stream`` an iterator of its parts."""
        _refuse(
            suffix=(suffix, None),
            typical_p=(typical_p, 1.0),
            tfs_z=(tfs_z, 1.0),
            mirostat_mode=(mirostat_mode, 0),
            stopping_criteria=(stopping_criteria, None),
            logits_processor=(logits_processor, None),
        )
        if logprobs is not None and not self._logits_all:
            raise ValueError("log-probabilities need the option logits_all=True")
        options = self._options(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            stop=stop,
            logit_bias=logit_bias,
            seed=seed,
            grammar=grammar,
        )
        tokens = self._model.tokenize(prompt, special=True) if isinstance(prompt, str) else prompt
        if not tokens and self._model.bos is not None:
            tokens = [self._model.bos]
        reply = self._engine.submit(tokens, logprobs=logprobs, **options)
        shown = prompt if isinstance(prompt, str) else self._model.detokenize(prompt)
        head = {
            "id": f"cmpl-{uuid.uuid4()}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.model_path if model is None else model,
        }
        parts = self._parts(reply, shown, echo=echo, logprobs=logprobs is not None)
        if stream:
            return ({**head, "choices": [choice]} for choice in parts)
        return self._whole(reply, head, list(parts), tokens)

    def _parts(
        self, reply: Reply, prompt: str, *, echo: bool, logprobs: bool
    ) -> Iterator[dict[str, Any]]:
        """The choices of a completion, part by part; the last says why it ended."""

        def part(text: str, columns: object, reason: str | None) -> dict[str, Any]:
            return {"text": text, "index": 0, "logprobs": columns, "finish_reason": reason}

        offset = len(prompt) if echo else 0
        if echo:
            yield part(prompt, None, None)
        try:
            while (piece := reply.next_piece()) is not None:
                columns = self._columns(piece, offset) if logprobs else None
                offset += len(piece.text)
                if piece.text or columns is not None:
                    yield part(piece.text, columns, None)
        finally:
            reply.close()
        yield part("", None, _reason(reply))

    def _columns(self, piece: Piece, offset: int) -> dict[str, list[Any]] | None:
        if piece.logprobs is None or piece.token is None:
            return None

        def name(token: int) -> str:
            return self._model.token_bytes([token], special=True).decode("utf-8", "replace")

        return {
            "tokens": [name(piece.token)],
            "text_offset": [offset],
            "token_logprobs": [piece.logprobs.token],
            "top_logprobs": [{name(token): value for token, value in piece.logprobs.top}],
        }

    def _whole(
        self, reply: Reply, head: dict[str, Any], parts: list[dict[str, Any]], prompt: list[int]
    ) -> dict[str, Any]:
        found = [part["logprobs"] for part in parts if part["logprobs"] is not None]
        columns: dict[str, list[Any]] | None = None
        if found:
            columns = {key: [value for one in found for value in one[key]] for key in found[0]}
        choice = {
            "text": "".join(part["text"] for part in parts),
            "index": 0,
            "logprobs": columns,
            "finish_reason": parts[-1]["finish_reason"],
        }
        return {**head, "choices": [choice], "usage": _usage(reply, len(prompt))}

    def __call__(self, prompt: str | list[int], *args: Any, **kwargs: Any) -> Any:
        """As :meth:`create_completion`."""
        return self.create_completion(prompt, *args, **kwargs)

    def create_chat_completion(
        self,
        messages: Sequence[Message],
        functions: object = None,
        function_call: object = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        logits_processor: object = None,
        grammar: str | None = None,
        logit_bias: Mapping[Any, float] | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
    ) -> Any:
        """Answers a conversation: a dictionary in the form of OpenAI's chat completions, or with
        ``stream`` an iterator of its parts."""
        _refuse(
            functions=(functions, None),
            function_call=(function_call, None),
            typical_p=(typical_p, 1.0),
            tfs_z=(tfs_z, 1.0),
            mirostat_mode=(mirostat_mode, 0),
            logits_processor=(logits_processor, None),
        )
        options = self._options(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            stop=stop,
            logit_bias=logit_bias,
            seed=seed,
            grammar=grammar,
        )
        if response_format is not None:
            schema = _schema(response_format)
            if schema is not None:
                options["json_schema"] = schema
        if logprobs:
            options["logprobs"] = top_logprobs or 0
        reply = self._engine.submit_chat(
            messages, tools=tools or (), tool_choice=_choice(tool_choice), **options
        )
        head = {
            "id": f"chatcmpl-{uuid.uuid4()}",
            "created": int(time.time()),
            "model": self.model_path if model is None else model,
        }
        if stream:
            head["object"] = "chat.completion.chunk"
            return self._chunks(reply, head)
        head["object"] = "chat.completion"
        return self._chat(reply, head, bool(logprobs))

    def _chat(self, reply: ChatReply, head: dict[str, Any], logprobs: bool) -> dict[str, Any]:
        told: list[dict[str, Any]] = []
        said: list[tuple[str, int, str]] = []
        piece: Piece | None = None
        while True:
            piece, now = reply.next_said()
            said += now
            if piece is None:
                break
            if logprobs:
                told += self._token(piece)
        text = "".join(part for kind, _, part in said if kind == "text")
        message: dict[str, Any] = {"role": "assistant", "content": text}
        thought = "".join(part for kind, _, part in said if kind == "reasoning")
        if thought:
            message["reasoning_content"] = thought
        calls = [_call(index, said) for kind, index, _ in said if kind == "call"]
        if calls:
            message["tool_calls"] = calls
            message["content"] = text or None
        choice = {
            "index": 0,
            "message": message,
            "logprobs": {"content": told, "refusal": None} if logprobs else None,
            "finish_reason": "tool_calls" if calls else _reason(reply),
        }
        return {**head, "choices": [choice], "usage": _usage(reply, 0)}

    def _token(self, piece: Piece) -> list[dict[str, Any]]:
        if piece.token is None or piece.logprobs is None:
            return []

        def one(token: int, value: float) -> dict[str, Any]:
            spelled = self._model.token_bytes([token], special=True)
            name = spelled.decode("utf-8", "replace")
            return {"token": name, "bytes": list(spelled), "logprob": value}

        top = [one(token, value) for token, value in piece.logprobs.top]
        return [{**one(piece.token, piece.logprobs.token), "top_logprobs": top}]

    def _chunks(self, reply: ChatReply, head: dict[str, Any]) -> Iterator[dict[str, Any]]:
        def chunk(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            return {**head, "choices": [choice]}

        called = False
        yield chunk({"role": "assistant"}, None)
        try:
            for kind, index, text in reply.said():
                called = called or kind == "call"
                yield chunk(_delta(kind, index, text), None)
        finally:
            reply.close()
        yield chunk({}, "tool_calls" if called else _reason(reply))

    def close(self) -> None:
        """Lets the model go."""
        self._engine.close()
        self._model.close()


def _normalised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=-1, keepdims=True)
    return cast("NDArray[np.float32]", (rows / np.where(lengths > 0, lengths, 1)).astype("f4"))


def _reason(reply: Reply) -> str:
    return "length" if reply.finish in ("max_tokens", "context_full") else "stop"


def _usage(reply: Reply, prompt: int) -> dict[str, int]:
    figures = reply.figures
    read = figures["prompt_tokens"] or prompt
    made = figures["generated_tokens"]
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def _schema(form: Mapping[str, Any]) -> str | None:
    """The schema that an answer is to have; None for any text."""
    kind = form.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return json.dumps(form.get("schema") or {"type": "object"})
    if kind == "json_schema" and "schema" in form.get("json_schema", {}):
        return json.dumps(form["json_schema"]["schema"])
    raise OptionError("response_format must be of type text, json_object or json_schema")


def _choice(choice: str | Mapping[str, Any] | None) -> str:
    if isinstance(choice, Mapping):
        return str(choice.get("function", {}).get("name", ""))
    return choice or "auto"


def _call(which: int, said: list[tuple[str, int, str]]) -> dict[str, Any]:
    name = "".join(text for kind, index, text in said if kind == "call" and index == which)
    arguments = "".join(
        text for kind, index, text in said if kind == "arguments" and index == which
    )
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{uuid.uuid4()}", "type": "function", "function": function}


def _delta(kind: str, index: int, text: str) -> dict[str, Any]:
    if kind == "text":
        return {"content": text}
    if kind == "reasoning":
        return {"reasoning_content": text}
    call: dict[str, Any] = {"index": index}
    if kind == "call":
        call |= {"id": f"call_{uuid.uuid4()}", "type": "function"}
        call["function"] = {"name": text, "arguments": ""}
    else:
        call["function"] = {"arguments": text}
    return {"tool_calls": [call]}
