"""What goes wrong is an exception of a named class, and nothing else."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import walsh
from walsh import gguf, kv

PROMPT = "The capital of France is"

ZEROS = np.zeros((4, 64), np.float32)

#: What is not as it must be, and what the message says.
ARRAYS: list[tuple[Callable[[], Any], str]] = [
    (lambda: kv.encode(ZEROS.astype(np.float64), "tq4"), "float32"),
    (lambda: kv.encode(ZEROS.astype(np.int32), "tq4"), "float32"),
    (lambda: kv.encode(np.array(["x"] * 64, object), "tq4"), "float32"),
    (lambda: kv.encode(ZEROS.astype(">f4"), "tq4"), "float32"),
    (lambda: kv.encode(ZEROS.T, "tq4"), "contiguous"),
    (lambda: kv.encode(np.zeros((8, 64), np.float32)[::2], "tq4"), "contiguous"),
    (lambda: kv.encode(np.float32(1), "tq4"), "array"),  # type: ignore[arg-type]
    (lambda: kv.encode(np.zeros(()), "tq4"), "last axis"),  # type: ignore[arg-type]
    (lambda: kv.encode([1.0] * 64, "tq4"), "list"),  # type: ignore[arg-type]
    (lambda: kv.encode(None, "tq4"), "NoneType"),  # type: ignore[arg-type]
    (lambda: kv.rotate(ZEROS.astype(np.float16)), "float32"),
    (lambda: gguf.encode(ZEROS.astype(np.float64), "q8_0"), "float32"),
    (lambda: gguf.encode(np.zeros(33, np.float32), "q8_0"), "32 values"),
    (lambda: gguf.encode(np.zeros((2, 16), np.float32), "q8_0"), "32 values"),
    (lambda: gguf.decode(np.zeros(33, np.uint8), "q8_0"), "34 bytes"),
    (lambda: gguf.decode(np.zeros(34, np.int8), "q8_0"), "uint8"),
    (lambda: gguf.decode(np.zeros((1, 34), np.uint8), "q8_0"), "dimensions"),
    (
        lambda: kv.decode(kv.Encoded("tq4", 64, np.zeros((2, 31), np.uint8), None)),
        "float16",
    ),
    (
        lambda: kv.decode(
            kv.Encoded("tq4", 64, np.zeros((2, 31), np.uint8), np.zeros((2, 1), np.float16))
        ),
        "32 bytes",
    ),
    (
        lambda: kv.decode(
            kv.Encoded("tq4", 64, np.zeros((2, 32), np.uint8), np.zeros((3, 1), np.float16))
        ),
        "2 rows",
    ),
]


@pytest.mark.parametrize(("call", "says"), ARRAYS)
def test_arrays_that_cannot_be_used(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(walsh.ArrayError, match=says) as raised:
        call()
    assert isinstance(raised.value, TypeError) and isinstance(raised.value, walsh.Error)
    assert "\n" not in str(raised.value)


#: Arguments that cannot be used, and the class that says so.
ARGUMENTS: list[tuple[Callable[[walsh.Model], Any], type[BaseException]]] = [
    (lambda m: m.generate(PROMPT, temperature=-1), walsh.OptionError),
    (lambda m: m.generate(PROMPT, temperature=float("nan")), walsh.OptionError),
    (lambda m: m.generate(PROMPT, top_p=2), walsh.OptionError),
    (lambda m: m.generate(PROMPT, max_tokens=-5), walsh.OptionError),
    (lambda m: m.generate(PROMPT, seed=-1), walsh.OptionError),
    (lambda m: m.generate(PROMPT, seed=2**64), walsh.OptionError),
    (lambda m: m.generate(PROMPT, top_k=-2), walsh.OptionError),
    (lambda m: m.generate(PROMPT, stop=3), walsh.OptionError),  # type: ignore[call-overload]
    (lambda m: m.generate(PROMPT, tempreature=1), TypeError),  # type: ignore[call-overload]
    (lambda m: m.generate(PROMPT, temperature="hot"), TypeError),  # type: ignore[call-overload]
    (lambda m: m.generate(PROMPT, max_tokens="5"), TypeError),  # type: ignore[call-overload]
    (lambda m: m.generate(""), walsh.OptionError),
    (lambda m: m.generate([]), walsh.OptionError),
    (lambda m: m.generate([10**6]), walsh.OptionError),
    (lambda m: m.generate([-1]), walsh.OptionError),
    (lambda m: m.generate([2**40]), walsh.OptionError),
    (lambda m: m.generate([1.5]), walsh.OptionError),  # type: ignore[list-item]
    (lambda m: m.generate(5), walsh.OptionError),  # type: ignore[call-overload]
    (lambda m: m.generate(PROMPT, regex="("), walsh.ConstraintError),
    (lambda m: m.generate(PROMPT, grammar="start: nothing"), walsh.ConstraintError),
    (lambda m: m.generate(PROMPT, json_schema="{"), walsh.ConstraintError),
    (lambda m: m.generate(PROMPT, json_schema={"type": 5}), walsh.ConstraintError),
    (lambda m: m.generate(PROMPT, json_schema={"x": {1}}), walsh.OptionError),
    (lambda m: m.generate(PROMPT, regex="a", grammar="b"), walsh.OptionError),
    (lambda m: m.generate(PROMPT, kv="tq9"), walsh.FormatError),
    (lambda m: m.generate(PROMPT, context=-1), walsh.OptionError),
    (lambda m: m.generate(PROMPT, context=2**40), walsh.OptionError),
    (lambda m: m.generate("word " * 300, context=64), walsh.ContextError),
    (lambda m: m.chat([]), walsh.ChatError),
    (lambda m: m.chat([{"content": "x"}]), walsh.ChatError),  # type: ignore[typeddict-item]
    (lambda m: m.chat([{"role": "user", "content": 5}]), walsh.ChatError),  # type: ignore[typeddict-item]
    (lambda m: m.chat([5]), walsh.ChatError),  # type: ignore[list-item]
    (lambda m: m.chat("x", variables={"messages": 1}), walsh.ChatError),
    (lambda m: m.detokenize([10**6]), walsh.OptionError),
    (lambda m: m.tokenize(5), TypeError),  # type: ignore[arg-type]
    (lambda m: m.session(kv="nothing"), walsh.FormatError),
    (lambda m: walsh.Model("no-such-model"), walsh.StoreError),
    (lambda m: walsh.Model("hf:"), walsh.StoreError),
    (lambda m: walsh.Model(5), TypeError),  # type: ignore[arg-type]
    (lambda m: walsh.Model(m.path, device="gpu"), walsh.OptionError),
    (lambda m: walsh.Model(m.path, device="metal"), walsh.Error),
    (lambda m: walsh.Model(m.path, threads=0), walsh.OptionError),
    (lambda m: walsh.Model(m.path, kv="tq9"), walsh.FormatError),
    (lambda m: walsh.Model(__file__), walsh.ModelError),
    (lambda m: walsh.Engine(m, sequences=0), walsh.OptionError),
    (lambda m: walsh.Engine(m, look_up=99), walsh.OptionError),
    (lambda m: kv.encode(np.full((1, 64), np.nan, np.float32), "tq4"), walsh.FormatError),
    (lambda m: kv.encode(np.zeros((1, 63), np.float32), "tq4"), walsh.FormatError),
    (lambda m: kv.encode(ZEROS, "tq9"), walsh.FormatError),
    (lambda m: kv.rotate(np.zeros((1, 63), np.float32)), walsh.FormatError),
    (lambda m: kv.codebook(7), walsh.OptionError),
    (lambda m: kv.Cache("tq4", kv_heads=1, head_dim=64, capacity=8), walsh.OptionError),
    (lambda m: kv.Cache("f16", kv_heads=0, head_dim=64, capacity=8), walsh.OptionError),
    (lambda m: gguf.decode(b"", "q9_9"), walsh.OptionError),
    (lambda m: gguf.encode(np.full(32, np.inf, np.float32), "q8_0"), walsh.FormatError),
    (lambda m: gguf.encode(np.zeros(256, np.float32), "iq1_s"), walsh.FormatError),
    (lambda m: gguf.File(__file__), walsh.ModelError),
    (lambda m: gguf.File("/no/such/file"), walsh.FileError),
]


@pytest.mark.parametrize(("call", "kind"), ARGUMENTS)
def test_arguments_that_cannot_be_used(
    model: walsh.Model, call: Callable[[walsh.Model], Any], kind: type[BaseException]
) -> None:
    with pytest.raises(kind) as raised:
        call(model)
    assert "\n" not in str(raised.value)
    # Nothing is broken by it.
    assert model.generate(PROMPT, max_tokens=1, temperature=0) == " Paris"


def test_caches_say_what_they_cannot_take() -> None:
    cache = kv.Cache("q8_0", kv_heads=2, head_dim=64, capacity=4)
    good = np.zeros((3, 2, 64), np.float32)
    for keys, values in ((good[:, :1], good), (good[:2], good), (good[0], good[0])):
        with pytest.raises(walsh.ArrayError):
            cache.store(np.ascontiguousarray(keys), np.ascontiguousarray(values))
    with pytest.raises(walsh.ArrayError, match="are stored"):
        cache.attend(np.zeros((1, 2, 64), np.float32))
    cache.store(good, good)
    with pytest.raises(walsh.ContextError, match="larger"):
        cache.store(good, good)
    with pytest.raises(walsh.OptionError):
        cache.store(np.full((1, 2, 64), np.nan, np.float32), good[:1])
    for shape in ((1, 3, 64), (1, 2, 32), (0, 2, 64), (4, 2, 64)):
        with pytest.raises(walsh.ArrayError):
            cache.attend(np.zeros(shape, np.float32))
    with pytest.raises(walsh.OptionError):
        cache.attend(np.zeros((1, 2, 64), np.float32), window=0)
    assert len(cache) == 3


def test_use_after_close(own_model: walsh.Model) -> None:
    session = own_model.session()
    stream = own_model.generate(PROMPT, stream=True)
    next(stream)
    session.close()
    own_model.close()
    own_model.close()
    uses: list[Callable[[], Any]] = [
        lambda: own_model.generate(PROMPT),
        lambda: own_model.chat("x"),
        lambda: own_model.tokenize("x"),
        lambda: own_model.session(),
        lambda: walsh.Engine(own_model),
        lambda: walsh.perplexity(own_model, "x"),
        lambda: session.position,
        lambda: session.read("x"),
        lambda: session.generate("x"),
        lambda: session.fork(),
        lambda: session.logits,
        lambda: session.save("x"),
    ]
    for use in uses:
        with pytest.raises(walsh.ClosedError, match="closed"):
            use()
    assert own_model.closed and session.closed
    # A text that has begun ends as it would.
    assert stream.read()


def in_child(work: Callable[[], bool]) -> bool:
    """Whether it is true in a forked process, which ends as processes do, within some seconds."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_process_is_told_so(
    model: walsh.Model, engine: walsh.Engine, own_model: walsh.Model
) -> None:
    session = model.session()
    session.read(PROMPT)
    stream = own_model.generate(PROMPT, stream=True)
    next(stream)
    reply = engine.submit(PROMPT, max_tokens=None)
    next(reply)
    held = [session, stream, reply, own_model]

    def work() -> bool:
        uses: list[Callable[[], Any]] = [
            lambda: model.generate(PROMPT),
            lambda: model.tokenize("x"),
            lambda: session.read("x"),
            lambda: session.logits,
            lambda: next(stream),
            lambda: engine.submit("x"),
            lambda: next(reply),
            lambda: model.close(),
            lambda: session.close(),
        ]
        for use in uses:
            try:
                use()
            except walsh.ForkError:
                continue
            return False
        # What is let go is not waited for.
        held.clear()
        gc.collect()
        # What needs no device goes on.
        return kv.encode(ZEROS, "tq4").decode().shape == ZEROS.shape

    assert in_child(work)
    # And this process has lost nothing.
    assert session.generate(max_tokens=1, temperature=0) == " Paris"
    reply.close()
    stream.close()


@pytest.mark.filterwarnings("ignore:This process")
def test_a_process_is_forked_while_a_thread_reads(model: walsh.Model) -> None:
    stream = model.generate(PROMPT, max_tokens=400, temperature=0, stream=True)

    def read() -> None:
        while stream.finish is None:
            with suppress(walsh.BusyError, StopIteration):
                next(stream)

    def is_read() -> bool:
        try:
            next(stream)
        except walsh.BusyError:
            return True
        return False

    def work() -> bool:
        uses: list[Callable[[], Any]] = [stream.close, lambda: next(stream)]
        for use in uses:
            try:
                use()
            except walsh.ForkError:
                continue
            return False
        return True

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    for _ in range(5):
        # The thread holds what it reads, and in the child nobody lets that go.
        while not is_read():
            pass
        assert in_child(work)
    assert stream.finish is None
    stream.cancel()
    thread.join(30)
    assert stream.finish == "cancelled"


@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_process_can_open_a_model_of_its_own(model: walsh.Model) -> None:
    path = model.path

    def work() -> bool:
        with walsh.Model(path) as own:
            return own.generate(PROMPT, max_tokens=1, temperature=0) == " Paris"

    assert in_child(work)


def interrupted(call: Callable[[], Any], after: float = 0.3) -> float:
    """How long a call goes on behind Ctrl-C, in seconds."""
    sent: list[float] = []

    def send() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(after, send)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        return time.monotonic() - sent[0]
    finally:
        timer.join()


def test_control_c_ends_every_call_that_takes_long(
    model: walsh.Model, engine: walsh.Engine, text: str
) -> None:
    ends = {token: -100.0 for token in model.ends}
    session = model.session(context=8192)
    many = (model.tokenize(text) * 4)[:8000]
    vectors = np.random.default_rng(1).standard_normal((500_000, 64), np.float32)
    for call in (
        lambda: model.generate(PROMPT, max_tokens=4000, regex="[a-z ]{3000}", temperature=2),
        lambda: engine.generate(PROMPT, max_tokens=None, logit_bias=ends),
        lambda: session.read(many),
        lambda: session.score(many, first=7999),
        lambda: session.hidden_states(many),
        lambda: walsh.perplexity(model, text * 20),
        # On any machine the call that runs then is one of many.
        lambda: [kv.encode(vectors, "tq4") for _ in range(1000)],
    ):
        assert interrupted(call) < 5
        session.reset()
        assert model.generate(PROMPT, max_tokens=1, temperature=0) == " Paris"
    session.close()


def test_control_c_ends_a_calibration(model: walsh.Model, tmp_path: Path) -> None:
    def kept() -> list[Path]:
        return [path for path in tmp_path.rglob("*") if path.is_file()]

    # With one thread it takes long on any machine.
    with walsh.Model(model.path, threads=1, cache_dir=tmp_path) as own:
        calls: list[Callable[[], Any]] = [
            lambda: kv.calibrate(own, 0),
            lambda: own.session(kv="4bit"),
            lambda: walsh.Engine(own, kv="4bit"),
            lambda: walsh.perplexity(own, PROMPT * 100, kv=["4bit"], context=64),
        ]
        for call in calls:
            assert interrupted(call, 0.02) < 5
            # What was measured to the end would be kept.
            assert not kept()
        assert kv.calibrate(own, 0).key_mean.shape == (3, 64)
        assert len(kept()) == 1


def test_a_model_whose_file_is_deleted_goes_on(model: walsh.Model, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    shutil.copy(model.path, path)
    with walsh.Model(path) as own:
        path.unlink()
        assert own.generate(PROMPT, max_tokens=2, temperature=0) == " Paris."
    with pytest.raises(walsh.StoreError, match="no model or file"):
        walsh.Model(path)


def test_arrays_may_be_changed_while_they_are_read() -> None:
    x = np.ones((400_000, 64), np.float32)
    done = threading.Event()

    def change() -> None:
        number = 1.0
        while not done.is_set():
            number = -number
            x[:] = number

    thread = threading.Thread(target=change)
    thread.start()
    try:
        back = kv.encode(x, "q8_0").decode()
    finally:
        done.set()
        thread.join()
    assert np.allclose(np.abs(back), 1, atol=0.02)


def test_threads_that_share_a_session_are_told_so(model: walsh.Model) -> None:
    session = model.session()
    session.read(PROMPT)
    found: list[str] = []

    def use() -> None:
        for _ in range(20):
            try:
                session.generate(" x", max_tokens=1)
                found.append("done")
            except walsh.BusyError:
                found.append("busy")

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80 and "done" in found
    session.close()


def test_threads_that_share_a_cache_do_not_wait_for_ever() -> None:
    cache = kv.Cache("tq4+plain", kv_heads=4, head_dim=128, capacity=4096)
    rows = np.ones((64, 4, 128), np.float32)
    stored: list[int] = []

    def use() -> None:
        for _ in range(10):
            try:
                cache.store(rows, rows)
                stored.append(64)
                cache.attend(rows[:1])
            except walsh.BusyError:
                pass

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert len(cache) == sum(stored) > 0


def test_a_request_is_cancelled_from_another_thread(engine: walsh.Engine) -> None:
    ends = {token: -100.0 for token in engine.model.ends}
    reply = engine.submit(PROMPT, max_tokens=None, logit_bias=ends)
    threading.Timer(0.2, reply.cancel).start()
    start = time.monotonic()
    assert reply.read().finish == "cancelled" and time.monotonic() - start < 5


def test_what_a_listener_raises_ends_the_call(model: walsh.Model, text: str) -> None:
    def refuse(done: int, total: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        walsh.perplexity(model, text, context=64, progress=refuse)


def test_more_than_there_is_memory_for(model: walsh.Model) -> None:
    with model.session(context=8192) as session:
        limit = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), limit[1]))
        try:
            with pytest.raises(walsh.OutOfMemoryError, match="no memory"):
                session.score([1] * 8000)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limit)
        assert session.position == 0


def test_other_threads_go_on_while_a_model_computes(model: walsh.Model) -> None:
    counted: list[int] = []
    done = threading.Event()

    def count() -> None:
        number = 0
        while not done.wait(0.001):
            number += 1
        counted.append(number)

    thread = threading.Thread(target=count)
    thread.start()
    start = time.monotonic()
    model.generate(PROMPT, max_tokens=100, temperature=0)
    took = time.monotonic() - start
    done.set()
    thread.join()
    assert counted[0] > took * 100
