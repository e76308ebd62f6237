"""Answers that quote: what of any text counts as fields and as quotes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from batchata_tasks.common.text import is_unicode
from batchata_tasks.schema.quotes import fields_text, quotes_in
from batchata_tasks.schema.response import ResponseSchema

NAMES = st.sampled_from(["fields", "quotes", "field", "quote", "page"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec=None)),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["fields", "quotes", "field", "quote", "page"]), inner)
    ),
)


class Answer(BaseModel):  # noqa: D101
    name: str
    number: int


def schema() -> ResponseSchema:
    return ResponseSchema.from_model(Answer, "response_model", quoted=True)


@given(JSON | st.text())
def test_any_answer(value: Any) -> None:
    """Nothing is raised; quotes are texts that columns hold."""
    text = value if isinstance(value, str) else json.dumps(value)
    fields_text(text)
    for one in quotes_in(text):
        assert is_unicode(one.text)
        assert one.page is None or one.page > 0
    schema().parse(text)


@pytest.mark.parametrize("number", [5, 10**17])
def test_fields_are_read_as_without_quotes(number: int) -> None:
    """The columns, the parsed answer and the errors are those of the fields alone."""
    fields = {"name": "a \u2028 b", "number": number}
    text = json.dumps({"fields": fields, "quotes": [{"field": "name", "quote": "q", "page": 2}]})
    assert schema().parse(text) == (fields, "")
    assert schema().answer(text) == Answer(**fields)
    wrong = json.dumps({"fields": {"name": "a"}, "quotes": []})
    assert schema().parse(wrong)[1].startswith("number: ")


def test_it_is_stored_as_one_that_quotes() -> None:
    """What a ledger keeps of it reads back as the same, under the same identity."""
    plain = ResponseSchema.from_model(Answer, "response_model")
    again = ResponseSchema.from_json_schema(json.loads(json.dumps(schema().stored)), "x")
    assert (again.quoted, again.wire) == (True, schema().wire)
    assert again.canonical == plain.canonical
    assert plain.wire != again.wire
