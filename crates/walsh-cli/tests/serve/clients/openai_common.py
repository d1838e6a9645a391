"""Clients of PyPI `openai`, and what several of its cases ask for."""

import functools

import openai

from suite import TIMEOUT, same


@functools.cache
def client(server, **options):
    """A client that asks once, so that an error is not hidden behind a second try."""
    settings = {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0, "timeout": TIMEOUT}
    return openai.OpenAI(**{**settings, **options})


def user(text):
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def adds_up(usage):
    """The tokens of a usage, which have to add up."""
    same(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total tokens")
    return usage.prompt_tokens, usage.completion_tokens
