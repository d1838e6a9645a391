"""Errors, as the package's own classes."""

import openai

from openai_common import client, user
from suite import TOPIC, Cases, check, refused, same

cases = Cases()


def ask(server, messages=None, **options):
    """A short answer."""
    settings = {"model": server.model, "max_tokens": 4, **options}
    return client(server).chat.completions.create(messages=messages or user(TOPIC), **settings)


def wrong(server, options, param, kind=openai.BadRequestError):
    """Checks that options are refused, and which of them the error names."""
    messages = options.get("messages", user(TOPIC))
    settings = {"model": server.model, "max_tokens": 4, **options, "messages": messages}
    error = refused(kind, lambda: client(server).chat.completions.create(**settings))
    same((error.status_code, error.type), (400, "invalid_request_error"), f"status and type of {options}")
    same(error.param, param, f"param of {options}")
    check(error.message and "panic" not in error.message, "message", error.message)
    check(error.request_id, "request_id", error.request_id)


@cases
def an_unknown_model_is_not_found(server):
    asks, model = client(server), "no-such-model"
    for call in (
        lambda: asks.chat.completions.create(model=model, messages=user(TOPIC)),
        lambda: asks.chat.completions.create(model=model, messages=user(TOPIC), stream=True),
        lambda: asks.completions.create(model=model, prompt="a"),
        lambda: asks.embeddings.create(model=model, input="a"),
        lambda: asks.responses.create(model=model, input="a"),
    ):
        error = refused(openai.NotFoundError, call)
        same((error.code, error.param), ("model_not_found", "model"), "code, param")
        check(server.model in error.message, "the message names what is there", error.message)


@cases
def numbers_out_of_range_are_refused(server):
    for name, value in (
        ("temperature", -1), ("top_p", 2), ("top_p", -0.5), ("n", 0), ("n", 100_000), ("max_tokens", -5),
        ("max_completion_tokens", -7), ("presence_penalty", 3), ("frequency_penalty", -3),
    ):
        wrong(server, {name: value}, name)
    wrong(server, {"logprobs": True, "top_logprobs": 99}, "top_logprobs")
    wrong(server, {"top_logprobs": 3}, "top_logprobs")
    wrong(server, {"logit_bias": {"no number": 1}}, "logit_bias")
    wrong(server, {"logit_bias": {"5": 1000}}, "logit_bias")
    wrong(server, {"logit_bias": {"999999999": 1}}, "logit_bias")
    wrong(server, {"stop": ["a"] * 1000}, "stop")


@cases
def values_of_wrong_types_are_refused(server):
    for name, value in (
        ("temperature", "hot"), ("n", 1.5), ("max_tokens", "many"), ("stop", 5), ("stream", "yes"), ("tools", "all"),
        ("seed", "s"), ("logit_bias", [1]), ("messages", "hello"), ("model", 5),
    ):
        wrong(server, {name: value}, name)


@cases
def messages_that_are_none_are_refused(server):
    wrong(server, {"messages": []}, "messages")
    for message, param in (
        ({"role": "captain", "content": "a"}, "messages[0].role"),
        ({"content": "a"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}, "messages[0].content[0]"),
    ):
        wrong(server, {"messages": [message]}, param)


@cases
def forms_that_are_none_are_refused(server):
    for form, param in (
        ({"type": "poem"}, "response_format"),
        ({"type": "json_schema"}, "response_format"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "no such type"}}}, "response_format"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#/nowhere"}}}, "response_format"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "string", "pattern": "("}}},
         "response_format"),
    ):
        wrong(server, {"response_format": form}, param)


@cases
def a_prompt_that_is_too_long_is_told_apart(server):
    asks, text = client(server), "lighthouse " * 10_000
    for call in (
        lambda: asks.chat.completions.create(model=server.model, messages=user(text)),
        lambda: asks.chat.completions.create(model=server.model, messages=user(text), stream=True),
        lambda: asks.completions.create(model=server.model, prompt=text),
        lambda: asks.responses.create(model=server.model, input=text),
        lambda: asks.embeddings.create(model=server.model, input=text),
    ):
        error = refused(openai.BadRequestError, call)
        same(error.code, "context_length_exceeded", "code")


@cases
def a_path_that_is_not_there_is_not_found(server):
    refused(openai.NotFoundError, lambda: client(server).get("/no/such/path", cast_to=object))


@cases
def unknown_fields_do_no_harm(server):
    answer = ask(server, extra_body={"field_of_somebody_else": {"a": [1]}}, metadata={"a": "b"}, store=False)
    check(answer.choices, "an answer")


@cases
def an_error_leaves_the_connection_usable(server):
    for _ in range(3):
        refused(openai.BadRequestError, lambda: ask(server, temperature=-1))
        check(ask(server).choices[0].message.content, "it says nothing")


def keyed(server, key):
    """A client of the server that needs a key."""
    return client(server, base_url=f"{server.keyed.rstrip('/')}/v1", api_key=key)


@cases.keyed
def a_wrong_key_is_refused(server):
    asks = keyed(server, "a-key-of-nothing")
    for call in (
        lambda: asks.chat.completions.create(model=server.model, messages=user(TOPIC)),
        lambda: asks.chat.completions.create(model=server.model, messages=user(TOPIC), stream=True),
        lambda: asks.models.list(),
        lambda: asks.embeddings.create(model=server.model, input="a"),
        lambda: asks.responses.create(model=server.model, input="a"),
    ):
        error = refused(openai.AuthenticationError, call)
        same((error.status_code, error.code), (401, "invalid_api_key"), "status, code")
        check(server.key not in error.message, "the message tells the key")


@cases.keyed
def the_right_key_is_let_in(server):
    asks = keyed(server, server.key)
    check(server.model in [model.id for model in asks.models.list()], "models")
    answer = asks.chat.completions.create(model=server.model, messages=user(TOPIC), max_tokens=2)
    check(answer.choices[0].message.content, "it says nothing")
