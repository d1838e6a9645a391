"""What all tests use: one model, opened once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import walsh

MODEL = "smollm2-135m"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--peer",
        action="store_true",
        help="run what tests Llama with llama-cpp-python's class too, which must be installed",
    )


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """What a shell runs behind ``&`` ignores Ctrl-C, and Python leaves that as it finds it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def model() -> Iterator[walsh.Model]:
    with walsh.Model(MODEL) as model:
        yield model


@pytest.fixture(scope="session")
def engine(model: walsh.Model) -> Iterator[walsh.Engine]:
    with walsh.Engine(model, sequences=4, context=512) as engine:
        yield engine


@pytest.fixture
def own_model(model: walsh.Model) -> Iterator[walsh.Model]:
    """A model that a test may close."""
    with walsh.Model(model.path) as own:
        yield own


@pytest.fixture(scope="session")
def text() -> str:
    """A text of some length."""
    return (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text("utf-8")
