"""The plugin of the command ``llm``, found by its entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import llm
import pytest
from click.testing import CliRunner
from llm.cli import cli

NAME = "walsh/smollm2-135m"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's is read or written."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))


def test_the_command_answers() -> None:
    run = CliRunner().invoke(cli, ["-m", NAME, "-o", "max_tokens", "8", "-o", "temperature", "0", "Hi"])
    assert run.exit_code == 0, run.output
    whole = CliRunner().invoke(
        cli, ["-m", NAME, "--no-stream", "-o", "max_tokens", "8", "-o", "temperature", "0", "Hi"]
    )
    assert run.output.strip() and whole.output == run.output


def test_a_conversation_goes_on() -> None:
    model: Any = llm.get_model(NAME)
    talk = model.conversation()
    options = {"temperature": 0.0, "max_tokens": 8}
    first = talk.prompt("Say hello.", system="You are brief.", stream=False, **options)
    assert first.text()
    assert 0 < first.usage().output <= 8
    second = talk.prompt("Again.", **options)
    assert second.text()
    # Both messages and the answer were read.
    assert second.usage().input > first.usage().input + first.usage().output


def test_schemas_are_kept() -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = llm.get_model(NAME).prompt("Name a city.", schema=schema, seed=1)
    assert json.loads(answer.text())["city"] in ("Paris", "Rome")


def test_options_that_cannot_be_used_are_said() -> None:
    run = CliRunner().invoke(cli, ["-m", NAME, "-o", "temperature", "-1", "Hi"])
    assert run.exit_code != 0 and "temperature" in run.output
