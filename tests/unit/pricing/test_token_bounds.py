"""Upper bounds of tokens can be relied on."""

from __future__ import annotations

from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.pricing.token_bounds import (
    BASE_OVERHEAD,
    MESSAGE_OVERHEAD,
    SCHEMA_OVERHEAD,
    input_bound,
)
from batchata_tasks.providers import provider_type
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.types.request import Message, Request
from tests.support.by_day import examples


@pytest.mark.parametrize(
    ("body", "messages", "schema", "bound"),
    [
        (b"", 0, False, 80),
        (b"x", 1, False, 1 + 80 + 16),
        (b"x" * 1000, 2, False, 1000 + 80 + 32),
        (b"x" * 1000, 2, True, 1000 + 80 + 32 + 512),
        ("ü🦊".encode(), 1, False, 6 + 80 + 16),
    ],
)
def test_the_stated_overheads_are_the_ones_added(
    body: bytes, messages: int, schema: bool, bound: int
) -> None:
    """The bound is the bytes of the body and fixed additions.

    They are 80 for the request with a system prompt, 16 for each message and 512 for a schema.
    """
    assert (BASE_OVERHEAD, MESSAGE_OVERHEAD, SCHEMA_OVERHEAD) == (80, 16, 512)
    assert input_bound(len(body), messages, schema=schema) == bound


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
TURNS = st.lists(
    st.tuples(
        st.sampled_from(["system", "user", "assistant"]),
        TEXTS | st.lists(TEXTS, min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=4,
)
SCHEMA = ResponseSchema.from_json_schema(
    {"type": "object", "properties": {"ü🦊": {"enum": ["ä", "b"]}}, "required": ["ü🦊"]}, "x"
)


@pytest.mark.parametrize(
    "api", [("anthropic", "chat"), ("openai", "chat"), ("openai", "responses")], ids="-".join
)
@given(TURNS, st.booleans())
@settings(deadline=None, max_examples=examples(60), derandomize=True)
def test_bodies_hold_all_that_a_model_is_told(
    api: tuple[str, str], turns: list[tuple[str, str | list[str]]], structured: bool
) -> None:
    """At each endpoint every byte of text and schema is in the body, and so in the bound.

    The markers of each turn come on top.
    """
    adapter = object.__new__(provider_type(*api))  # bodies need no key
    messages = tuple(
        Message(cast("Any", role), text if isinstance(text, str) else tuple(text))
        for role, text in turns
    )
    body = adapter.body(Request("gpt-6-luna", messages, 200, {}, SCHEMA if structured else None))
    told = sum(
        len(text.encode())
        for _, texts in turns
        for text in ([texts] if isinstance(texts, str) else texts)
    )
    if structured:
        told += len(orjson.dumps(SCHEMA.wire))
    count = len(body[adapter.turns_param])
    assert count == (
        len(turns) if api[0] == "openai" else sum(role != "system" for role, _ in turns)
    )
    assert (
        input_bound(len(orjson.dumps(body)), count, schema=structured)
        >= told + BASE_OVERHEAD + MESSAGE_OVERHEAD * count
    )


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5), st.booleans())
@settings(deadline=None, max_examples=examples(100), derandomize=True)
def test_no_byte_of_text_is_left_out(texts: list[str], schema: bool) -> None:
    """The bound is at least one token for each byte of any text, and more with a schema."""
    body = orjson.dumps({"messages": [{"role": "user", "content": text} for text in texts]})
    bound = input_bound(len(body), len(texts), schema=schema)
    assert bound >= sum(len(text.encode()) for text in texts) + MESSAGE_OVERHEAD * len(texts)
    assert input_bound(len(body), len(texts), schema=True) >= bound
