"""Engines: many requests from threads and event loops."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import walsh

PROMPT = "The capital of France is"

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def idle(engine: walsh.Engine) -> bool:
    """Whether it comes to rest within some seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        status = engine.status
        if status["running"] == 0 and status["waiting"] == 0:
            return True
        time.sleep(0.01)
    return False


def test_an_engine_answers_as_a_session_does(model: walsh.Model, engine: walsh.Engine) -> None:
    whole = model.generate(PROMPT, max_tokens=8, temperature=0)
    answer = engine.generate(PROMPT, max_tokens=8, temperature=0)
    assert (answer, answer.tokens, answer.finish) == (whole, whole.tokens, "max_tokens")
    assert answer.figures["generated_tokens"] == 8


def test_threads_are_served_at_once(engine: walsh.Engine) -> None:
    prompts = [f"{number} and {number} is" for number in range(12)]
    alone = [engine.generate(prompt, max_tokens=6, temperature=0) for prompt in prompts]
    before = engine.status["steps"]
    with ThreadPoolExecutor(6) as pool:
        together = list(
            pool.map(lambda p: engine.generate(p, max_tokens=6, temperature=0), prompts)
        )
    # What is summed together may be rounded in another way, and is the same text nearly always.
    assert sum(a == b for a, b in zip(alone, together, strict=True)) >= 10
    assert engine.status["steps"] - before < 12 * 6
    assert idle(engine)


async def test_tasks_are_served_at_once(engine: walsh.Engine) -> None:
    prompts = [f"{number} and {number} is" for number in range(12)]
    answers = await asyncio.gather(
        *(engine.agenerate(prompt, max_tokens=6, temperature=0) for prompt in prompts)
    )
    assert all(0 < answer.figures["generated_tokens"] <= 6 for answer in answers)
    reply = engine.submit(PROMPT, max_tokens=6, temperature=0)
    pieces = [piece async for piece in reply]
    assert "".join(pieces).startswith(" Paris")


def test_letting_a_reply_go_ends_the_request(engine: walsh.Engine) -> None:
    reply = engine.submit(PROMPT, max_tokens=400, logit_bias={2: -100.0, 0: -100.0})
    next(reply)
    del reply
    gc.collect()
    assert idle(engine)
    with engine.submit(PROMPT, max_tokens=400) as reply:
        next(reply)
    assert idle(engine) and list(reply) == [] and reply.finish == "cancelled"


async def test_cancelling_a_task_ends_the_request(engine: walsh.Engine) -> None:
    task = asyncio.create_task(engine.agenerate(PROMPT, max_tokens=450, seed=1))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(idle, engine)


async def test_a_second_task_leaves_a_reply_to_the_first(engine: walsh.Engine) -> None:
    # A prompt that takes a while: the first task waits for it.
    reply = engine.submit("one two three " * 100, max_tokens=6, temperature=0)
    first = asyncio.create_task(reply.anext_piece())
    await asyncio.sleep(0)
    with pytest.raises(walsh.BusyError, match="two tasks"):
        await reply.anext_piece()
    assert await asyncio.wait_for(first, 30) is not None
    answer = await reply.aread()
    assert (len(answer.tokens), answer.finish) == (6, "max_tokens")


async def test_event_loops_come_and_go(engine: walsh.Engine) -> None:
    def apart() -> str:
        return asyncio.run(engine.agenerate(PROMPT, max_tokens=2, temperature=0))

    assert await asyncio.gather(*(asyncio.to_thread(apart) for _ in range(3))) == [" Paris."] * 3


def test_forms_are_kept(engine: walsh.Engine) -> None:
    assert engine.generate("Is the sky blue? ", regex="(yes|no)") in ("yes", "no")
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}
    assert len(json.loads(engine.generate("Two: ", json_schema=schema, temperature=0))) == 2


def test_log_probabilities(model: walsh.Model, engine: walsh.Engine) -> None:
    reply = engine.submit(PROMPT, max_tokens=2, temperature=0, logprobs=3, prompt_logprobs=1)
    pieces = []
    while (piece := reply.next_piece()) is not None:
        if piece.token is not None:
            pieces.append(piece)
    assert len(pieces) == 2
    for piece in pieces:
        assert piece.logprobs is not None and len(piece.logprobs.top) == 3
        assert piece.logprobs.top[0] == (piece.token, piece.logprobs.token)
        assert piece.logprobs.token < 0
    assert reply.prompt_logprobs is not None
    assert len(reply.prompt_logprobs) == len(model.tokenize(PROMPT)) - 1
    with model.session() as session:
        expected, _ = session.log_likelihoods(PROMPT)
    told = [one.token for one in reply.prompt_logprobs]
    assert all(math.isclose(a, b, abs_tol=0.2) for a, b in zip(told, expected, strict=True))


def test_options_of_requests(engine: walsh.Engine) -> None:
    paris = engine.model.tokenize(" Paris")[0]
    answer = engine.generate(PROMPT, max_tokens=1, temperature=0, logit_bias={paris: -100.0})
    assert answer.tokens != [paris]
    stopped = engine.submit(PROMPT, max_tokens=20, temperature=0, stop=["."])
    assert stopped.read() == " Paris" and stopped.stopped_by == "."
    timed = engine.generate(PROMPT, max_tokens=None, timeout=0.0)
    assert timed.finish == "cancelled"


def test_beginnings_are_read_once(model: walsh.Model, text: str) -> None:
    with walsh.Engine(model, context=2048) as engine:
        prompt = model.tokenize(text)[:600]
        first = engine.generate(prompt, max_tokens=2, temperature=0)
        second = engine.generate(prompt, max_tokens=2, temperature=0)
        assert first.figures["reused_tokens"] == 0
        assert second.figures["reused_tokens"] >= 512


def test_tools_are_called(engine: walsh.Engine) -> None:
    answer = engine.chat(
        "How is the weather in Rome?",
        tools=[WEATHER],
        tool_choice="required",
        max_tokens=120,
        temperature=0,
    )
    assert {call.name for call in answer.calls} == {"weather"}
    assert isinstance(json.loads(answer.calls[0].arguments)["city"], str)
    plain = engine.chat("Hi", tools=[WEATHER], tool_choice="none", max_tokens=8, temperature=0)
    assert plain.text and not plain.calls


async def test_conversations_in_event_loops(engine: walsh.Engine) -> None:
    answer = await engine.achat("Hi", max_tokens=8, temperature=0)
    assert answer.text == engine.chat("Hi", max_tokens=8, temperature=0).text
    assert answer.tokens and answer.figures is not None


def test_closing_an_engine_ends_its_requests(model: walsh.Model) -> None:
    engine = walsh.Engine(model, context=512)
    reply = engine.submit(PROMPT, max_tokens=None, logit_bias={2: -100.0, 0: -100.0})
    next(reply)
    engine.close()
    with pytest.raises(walsh.EngineError):
        reply.read()
    for use in (lambda: engine.submit("x"), lambda: engine.status, lambda: engine.kv):
        with pytest.raises(walsh.ClosedError):
            use()
    engine.close()
    assert engine.closed


def test_an_engine_is_started_by_a_name() -> None:
    with walsh.Engine("smollm2-135m", sequences=1, context=64) as engine:
        assert engine.generate(PROMPT, max_tokens=1, temperature=0) == " Paris"
        assert engine.context == 64


def test_slots_are_saved_and_restored(model: walsh.Model, tmp_path: Path) -> None:
    prompt = PROMPT + " a city that " * 20
    path = tmp_path / "slot.bin"
    with walsh.Engine(model, sequences=2, context=512) as engine:
        answer = engine.generate(prompt, max_tokens=4, temperature=0, slot=1)
        assert idle(engine)
        more = model.tokenize(prompt) + answer.tokens
        assert [slot["request"] for slot in engine.slots] == [None, None]
        assert engine.slots[0]["tokens"] == 0
        saved = engine.save_slot(1, path)
        assert saved["tokens"] > 60
        assert saved["bytes"] == path.stat().st_size
        assert engine.erase_slot(1) > 0
        with pytest.raises(walsh.Error, match="no text"):
            engine.save_slot(1, path)
        for wrong in (-1, True, "1", None):
            with pytest.raises(walsh.OptionError, match="slot"):
                engine.erase_slot(wrong)  # type: ignore[arg-type]
        with pytest.raises(walsh.Error, match="from 0 on"):
            engine.erase_slot(2)
        with pytest.raises(walsh.Error, match="slot"):
            engine.generate(prompt, max_tokens=1, slot=2)
        with pytest.raises(walsh.OptionError, match="slot"):
            engine.generate(prompt, max_tokens=1, slot=-1)
    with walsh.Engine(model, sequences=2, context=512) as engine:
        assert engine.restore_slot(0, path) == saved
        assert engine.generate(more, max_tokens=2, temperature=0, slot=0).tokens
        assert engine.status["reused"] > 60
        with pytest.raises(walsh.Error):
            engine.restore_slot(0, tmp_path / "none.bin")
