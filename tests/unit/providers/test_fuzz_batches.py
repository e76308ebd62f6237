"""Batch objects and lists in any shape: read without an error that nobody foresaw, never misread.

Shapes are those of the documented objects, with fields dropped, renamed and given other types.
Set BATCHATA_FUZZ to the number of examples for each reader, 20,000 say.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchata_tasks.providers.anthropic.batches import look_of as anthropic_look
from batchata_tasks.providers.openai.batches import TOKEN
from batchata_tasks.providers.openai.batches import look_of as openai_look
from batchata_tasks.providers.wire import batch_in, is_api_error, pages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchata_tasks.providers import BatchLook

EXAMPLES = int(os.environ.get("BATCHATA_FUZZ", "60"))
OPENAI: dict[str, Any] = {
    "id": "batch_a1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "model": "gpt-6-luna",
    "errors": {"object": "list", "data": [{"code": "x", "message": "No.", "line": 2}]},
    "input_file_id": "file-1",
    "completion_window": "24h",
    "status": "completed",
    "output_file_id": "file-2",
    "error_file_id": None,
    "created_at": 1_795_000_000,
    "expires_at": 1_795_086_400,
    "completed_at": 1_795_000_900,
    "request_counts": {"total": 3, "completed": 2, "failed": 1},
    "metadata": {TOKEN: "t" * 20},
}
ANTHROPIC: dict[str, Any] = {
    "id": "msgbatch_a1",
    "type": "message_batch",
    "processing_status": "ended",
    "request_counts": {"processing": 0, "succeeded": 2, "errored": 1, "canceled": 0, "expired": 0},
    "created_at": "2026-11-22T18:37:24.100435Z",
    "expires_at": "2026-11-23T18:37:24.100435Z",
    "ended_at": None,
    "cancel_initiated_at": None,
    "archived_at": None,
    "results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_a1/results",
}
SHAPES: dict[str, tuple[dict[str, Any], Callable[..., BatchLook]]] = {
    "openai": (OPENAI, openai_look),
    "anthropic": (ANTHROPIC, anthropic_look),
}
ENDED = {"openai": {"completed", "failed", "expired", "cancelled"}, "anthropic": {"ended"}}
STATUS = {"openai": "status", "anthropic": "processing_status"}

WORDS = ("", " ", "3", "3.0", "1e400", "NaN", "COMPLETED", "Ended", "in progress", "PROGRESS")

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**1100), 2**1100),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from([*WORDS, "2026-11-28T09:00:00.000Z", "1795000000000", "\x1b[2J", "x" * 300]),
    st.lists(st.one_of(st.none(), st.text(max_size=5), st.dictionaries(st.text(), st.text()))),
    st.dictionaries(st.sampled_from(["data", "message", "code", "total", "id", TOKEN]), st.text()),
)


@st.composite
def objects(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Draw a batch object in another shape."""
    made = dict(SHAPES[name][0])
    for field in draw(st.sets(st.sampled_from(sorted(made)), max_size=8)):
        match draw(st.sampled_from(["drop", "retype", "retype", "rename", "inside"])):
            case "drop":
                del made[field]
            case "retype":
                made[field] = draw(odd)
            case "rename":
                made[field.upper()] = made.pop(field)
            case _ if isinstance(made[field], dict):
                inner = dict(made[field])
                inner[draw(st.sampled_from(sorted(inner)))] = draw(odd)
                made[field] = inner
            case _:
                made[field] = [made[field]]
    return made


def fuzzed(test: Callable[..., None]) -> Callable[..., None]:
    return settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))(
        test
    )


def check_look(name: str, batch: Mapping[str, Any], look: BatchLook) -> None:
    """Check that what was read can be kept and printed, and says what the object says."""
    assert 0 < len(look.batch_id) <= 2000
    assert look.status == look.status.lower()
    assert len(look.status) <= 32
    assert look.status.isprintable()
    for moment in (look.created_at, look.expires_at):
        assert moment is None or (math.isfinite(moment) and 0 < moment < 1e11)
    assert look.requests is None or look.requests > 0
    assert look.done is None or look.done >= 0
    assert all(isinstance(file, str) and file.strip() for file in look.files)
    assert look.token is None or isinstance(look.token, str)
    assert all(isinstance(reason, str) for reason in (look.error or "", *look.bad_lines.values()))
    word = batch.get(STATUS[name])
    if isinstance(word, str) and word.strip().lower() in ENDED[name]:
        assert look.ended
    if not look.known and look.files:
        assert look.ended


@pytest.mark.parametrize("name", SHAPES)
def test_a_batch_in_any_shape_is_read_or_refused(name: str) -> None:
    """Only an id is needed; what else is odd is left out, and an ended batch is never missed."""
    read = SHAPES[name][1]

    @fuzzed
    @given(objects(name))
    def check(batch: dict[str, Any]) -> None:
        check_look(name, batch, read(batch, "asked"))
        try:
            look = read(batch)
        except ValueError:
            assert batch.get("id") != SHAPES[name][0]["id"]
        else:
            check_look(name, batch, look)
            if isinstance(batch.get("id"), str):
                assert look.batch_id == batch["id"]

    check()


@pytest.mark.parametrize("name", SHAPES)
def test_an_answer_to_a_create_is_a_batch_or_says_nothing(name: str) -> None:
    """Whole or cut off, with any status: an intact answer with the id is always recognised."""

    @fuzzed
    @given(objects(name), st.sampled_from([200, 201, 202, 408, 500, 502]), st.integers(0, 2000))
    def check(batch: dict[str, Any], status: int, cut: int) -> None:
        body = json.dumps(batch).encode()
        answer = httpx2.Response(status, content=body)
        given_id = SHAPES[name][0]["id"]
        kind = {"openai": "object", "anthropic": "type"}[name]
        is_whole = batch.get("id") == given_id and batch.get(kind) == SHAPES[name][0][kind]
        found = batch_in(answer)
        if is_whole or (status < 300 and batch.get("id") == given_id and "error" not in batch):
            assert found is not None
            assert found["id"] == given_id
        half = batch_in(httpx2.Response(status, content=body[:cut]))
        assert half is None or half["id"] in (batch.get("id"), str(batch.get("id")))
        is_api_error(httpx2.Response(status, content=body[:cut]))

    check()


@pytest.mark.parametrize("name", SHAPES)
def test_a_list_in_any_shape_ends(name: str) -> None:
    """Pages that repeat, have no ids, or are no pages: each id comes once, then an end."""
    lists = st.lists(objects(name), max_size=4)
    wrapped = st.builds(lambda data, more: {"data": data, "has_more": more}, lists, odd)

    @fuzzed
    @given(st.lists(st.one_of(wrapped, lists, odd), min_size=1, max_size=4))
    def check(answers: list[Any]) -> None:
        asked = list[str | None]()

        def fetch(after: str | None) -> httpx2.Response:
            answer = answers[min(len(asked), len(answers) - 1)]
            asked.append(after)
            body = json.dumps(answer).encode()
            return httpx2.Response(200, content=body, request=httpx2.Request("GET", "http://h/x"))

        ids = list[str]()
        try:
            for page in pages(fetch):
                assert page
                ids += [str(item["id"]) for item in page]
        except (ValueError, TypeError):
            pass
        assert len(asked) <= len(answers) + 1
        for item in ids:
            assert item.strip()

    check()
