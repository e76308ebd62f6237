"""Upper bounds of tokens can be relied on."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.tokens import BASE_OVERHEAD, MESSAGE_OVERHEAD, SCHEMA_OVERHEAD, input_bound


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
def test_the_stated_overheads_are_the_ones_added(body: bytes, messages: int, schema: bool, bound: int) -> None:
    """Bytes of the body, 80 for the request with a system prompt, 16 for each message, 512 for a schema."""
    assert (BASE_OVERHEAD, MESSAGE_OVERHEAD, SCHEMA_OVERHEAD) == (80, 16, 512)
    assert input_bound(body, messages, schema=schema) == bound


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5), st.booleans())
@settings(deadline=None, max_examples=100, derandomize=True)
def test_no_byte_of_text_is_left_out(texts: list[str], schema: bool) -> None:
    """Whatever the text, the bound is at least one token for each byte of it, and more with a schema."""
    body = orjson.dumps({"messages": [{"role": "user", "content": text} for text in texts]})
    bound = input_bound(body, len(texts), schema=schema)
    assert bound >= sum(len(text.encode()) for text in texts) + MESSAGE_OVERHEAD * len(texts)
    assert input_bound(body, len(texts), schema=True) >= bound
