"""Answers are deterministic, satisfy the schema, and never exceed their price bound."""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode
from io import BytesIO
from typing import Any

import pytest
from pypdf import PdfWriter

from batchata_tasks.emulator import answer_text
from batchata_tasks.emulator.answers.text import answer
from batchata_tasks.emulator.answers.tokens import input_tokens
from batchata_tasks.emulator.anthropic.citations import content_blocks
from tests.support.emulator_requests import SCHEMA, body, params, satisfies

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "born": {"type": "string", "format": "date"}},
    "required": ["name", "born"],
    "additionalProperties": False,
}
NODES: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "string", "enum": ["a", "b", "c"]},
    {"const": 7},
    {"type": "string", "minLength": 80, "maxLength": 90},
    {"type": "string", "maxLength": 3},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "email"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "uri"},
    {"type": "string", "format": "hostname"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "ipv6"},
    {"type": "string", "pattern": "^[A-Z]{2}-\\d{4}$"},
    {"type": "string", "pattern": "^(?:[a-z]+-)*[a-z]+$", "maxLength": 20},
    {"type": "string", "pattern": "^\\S+$", "minLength": 30, "maxLength": 32},
    {"type": "string", "pattern": "[^@\\s]+@[^@\\s]+\\.(com|org)"},
    {"type": "string", "pattern": "^(\\w)\\1[^\\W\\d]?$"},
    {"type": "string", "minLength": 1, "maxLength": 1},
    {"type": "integer"},
    {"type": "integer", "minimum": -3, "maximum": 3},
    {"type": "integer", "exclusiveMinimum": 4, "maximum": 6},
    {"type": "integer", "multipleOf": 5, "minimum": 1, "maximum": 30},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
    {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 5},
    {"type": "number", "maximum": -10},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["string", "null"]},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^\\d+$"}]},
    {"allOf": [{"$ref": "#/$defs/person"}]},
    {"$ref": "#/$defs/person"},
    {"$ref": "#/$defs/tree"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"$ref": "#/$defs/person"}},
    {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 2},
    {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 4},
    {"type": "array", "items": {"type": ["object", "null"], "properties": {"a": {"const": 1}}}},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {},
]
TREE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
    },
    "required": ["value", "children"],
}


def asking(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAI request for an answer of this schema."""
    form = {"name": "row", "schema": schema}
    return body(text, response_format={"type": "json_schema", "json_schema": form})


@pytest.mark.parametrize("node", NODES, ids=json.dumps)
def test_answers_satisfy_the_schema(node: dict[str, Any]) -> None:
    """The answer satisfies any schema a model may have, formats included."""
    schema = {
        "type": "object",
        "properties": {"x": node},
        "required": ["x"],
        "additionalProperties": False,
        "$defs": {"person": PERSON, "tree": TREE},
    }
    for number in range(60):
        text = answer_text("openai", asking(f"row {number}", schema))
        assert satisfies(text, schema), text


DESCRIBED: list[tuple[str, dict[str, Any]]] = [
    ("Its code. (pattern: ^[A-Z]{2}-\\d{4}$)", {"pattern": "^[A-Z]{2}-\\d{4}$"}),
    (
        "(maxLength: 9, minLength: 4, pattern: ^(a|b)[a-z, ]+$)",
        {"pattern": "^(a|b)[a-z, ]+$", "minLength": 4, "maxLength": 9},
    ),
    ("(pattern: ^x+$, minLength: 3)", {"pattern": "^x+$", "minLength": 3}),
    ("A text. (maxLength: 5)", {"maxLength": 5}),
]


@pytest.mark.parametrize(("text", "rules"), DESCRIBED, ids=str)
def test_what_a_description_asks_for_is_done(text: str, rules: dict[str, Any]) -> None:
    """Strict modes refuse such keywords, so clients tell the model of them in words."""
    node = {"type": "string", "description": text}
    schema = {"type": "object", "properties": {"x": node}, "required": ["x"]}
    checked = {**schema, "properties": {"x": {"type": "string", **rules}}}
    for number in range(60):
        answered = answer_text("openai", asking(f"row {number} of a long table", schema))
        assert satisfies(answered, checked), answered


def test_texts_are_words_of_the_prompt() -> None:
    """What people see looks like an answer; one number in it tells whose it is."""
    words = "Zstandard bindings for Python a fast lossless compression algorithm"
    properties = {name: {"type": "string"} for name in ("title", "about", "audience")}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    system = {"role": "system", "content": "Label it."}
    given = asking(words, schema)
    first, *others = json.loads(
        answer_text("openai", {**given, "messages": [system, *given["messages"]]})
    ).values()
    assert re.fullmatch(r"([A-Za-z ]+) \d{1,6}", first)
    for text in (first.rpartition(" ")[0], *others):
        assert text in words
    assert answer_text("anthropic", params(words)).endswith(" ".join(words.split()[:8]))


def test_an_answer_depends_on_the_text_and_on_nothing_else() -> None:
    """Another text or prompt changes an answer; the cap and other parameters do not."""
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    given = params("a", output_config=form)
    same = [given, {**given, "max_tokens": 7}, {**given, "metadata": {"user_id": "x"}}]
    assert len({answer_text("anthropic", item) for item in same}) == 1
    texts = [answer_text("anthropic", params(str(n), output_config=form)) for n in range(2_000)]
    assert len(set(texts)) == 2_000
    assert answer_text("anthropic", {**given, "system": "s"}) != answer_text("anthropic", given)


def test_a_plain_answer_echoes_the_prompt() -> None:
    """The answer begins with its prompt, so that a row can be traced."""
    text = answer_text("anthropic", params("The quick brown fox jumps over the lazy dog"))
    assert "The quick brown fox" in text
    assert text.startswith("Echo ")


@pytest.mark.parametrize("cap", [1, 2, 5, 1_000])
def test_the_cap_binds(cap: int) -> None:
    """An answer that needs more than its cap is cut, and bills exactly the cap."""
    full = answer("anthropic", params("é" * 50, max_tokens=100_000))
    cut = answer("anthropic", params("é" * 50, max_tokens=cap))
    assert cut.truncated is (full.output_tokens > cap)
    assert cut.output_tokens == min(cap, full.output_tokens)
    assert full.text.startswith(cut.text)


@pytest.mark.parametrize("text", ["", "a", "é" * 100, '\x00\x01\n"\\' * 50, "a" * 10_000])
def test_input_tokens_never_exceed_the_bytes(text: str) -> None:
    """A bound of one token per byte, eight per message and the schema's bytes always holds."""
    schema_bytes = len(json.dumps(SCHEMA, separators=(",", ":")))
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    messages = [{"role": "user", "content": text}, {"role": "user", "content": "x"}]
    plain = {"messages": messages, "system": "s"}
    assert input_tokens(plain) <= len(text.encode()) + 2 + 2 * 8
    tokens = input_tokens({**plain, "output_config": form})
    assert tokens <= len(text.encode()) + 2 + 2 * 8 + schema_bytes
    assert tokens > input_tokens(plain)


def pdf(pages: int) -> str:
    """Return an empty PDF with this number of pages, as base64."""
    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(72, 72)
    stream = BytesIO()
    writer.write(stream)
    return b64encode(stream.getvalue()).decode()


def document(data: str, **more: Any) -> dict[str, Any]:
    """Return an Anthropic PDF block."""
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    return {"type": "document", "source": source, **more}


def test_a_pdf_costs_by_the_page() -> None:
    """The bytes of a PDF are no text: three pages cost three times one page, on both sides."""
    one, three = (
        input_tokens({"messages": [{"role": "user", "content": [document(pdf(pages))]}]})
        for pages in (1, 3)
    )
    assert 1_500 <= one <= 3_000
    assert three - one == 2 * (one - 4)
    part = {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{pdf(3)}"}}
    assert input_tokens({"messages": [{"role": "user", "content": [part]}]}) == three
    broken = {"messages": [{"role": "user", "content": [document("no pdf")]}]}
    assert input_tokens(broken) == one


def test_a_pdf_citation_names_a_page_that_exists() -> None:
    """Pages count from 1 and the end is exclusive."""
    content = [document(pdf(3), citations={"enabled": True}, title="a.pdf")]
    given = params("x", messages=[{"role": "user", "content": content}])
    (block,) = [item for item in content_blocks(given, "Echo 1: text") if "citations" in item]
    (citation,) = block["citations"]
    assert citation["type"] == "page_location"
    assert 1 <= citation["start_page_number"] <= 3
    assert citation["end_page_number"] == citation["start_page_number"] + 1


def test_answers_are_cheap() -> None:
    """A hundred thousand requests take seconds, not minutes."""
    given = asking("row", SCHEMA)
    answer_text("openai", given)
    start = time.process_time()
    for _ in range(5_000):
        answer_text("openai", given)
    assert (time.process_time() - start) / 5_000 < 100e-6
