"""Answers that do not tell whether a call took effect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
import pytest

from tests.support.emulator_requests import (
    ANTHROPIC_HEADERS,
    CHAT,
    OPENAI_HEADERS,
    body,
    chats,
    entries,
    http,
    jsonl,
    line,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.emulator import ControlClient, Emulator


def create(client: anthropic.Anthropic) -> Any:
    """Create a batch of one request."""
    return client.messages.batches.create(requests=entries("a"))


def upload(client: openai.OpenAI) -> str:
    """Upload an input file of one line and return its id."""
    content = jsonl(line("r0", body("a")))
    return client.files.create(file=("in.jsonl", content), purpose="batch").id


def accepted(control: ControlClient) -> dict[str, int]:
    """Return how many batches each provider accepted."""
    book = control.ledger()
    return {name: book[name]["batches_accepted"] for name in ("anthropic", "openai")}


@pytest.mark.parametrize(("kind", "batches"), [("http_error", 0), ("http_error_after", 1)])
@pytest.mark.parametrize("status", [400, 408, 409, 425, 499, 500, 502])
def test_any_status_before_or_after_acceptance(
    claude: anthropic.Anthropic,
    gpt: openai.OpenAI,
    control: ControlClient,
    status: int,
    kind: str,
    batches: int,
) -> None:
    """Both SDKs raise the error of the status; the books say whether there is a batch."""
    control.faults(kind=kind, route="create", status=status)
    with pytest.raises(anthropic.APIStatusError) as seen:
        create(claude)
    with pytest.raises(openai.APIStatusError) as also:
        chats(gpt, "a")
    assert seen.value.status_code == also.value.status_code == status
    assert accepted(control) == {"anthropic": batches, "openai": batches}


def test_a_call_that_took_effect_is_answered_408(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """The status is 408 unless the rule says otherwise, and other routes are left alone."""
    control.faults(kind="http_error_after", count=1)
    with pytest.raises(anthropic.APIStatusError) as seen:
        create(claude)
    assert seen.value.status_code == 408
    assert seen.value.body["error"]["message"] == "Error."  # type: ignore[index]
    assert len(claude.messages.batches.list().data) == 1


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"html": True}, b"<html><body><h1>502 Error</h1></body></html>"),
        ({"empty": True}, b""),
        ({"body": '{"detail": "gateway"}'}, b'{"detail": "gateway"}'),
    ],
)
@pytest.mark.parametrize("kind", ["http_error", "http_error_after"])
def test_an_error_is_a_page_or_nothing_or_a_text(
    emulator: Emulator, control: ControlClient, kind: str, form: dict[str, Any], expected: bytes
) -> None:
    """What a proxy answers instead of the API's JSON."""
    control.faults(kind=kind, route="create", status=502, **form)
    status, headers, content = http(
        emulator.anthropic_url,
        "POST",
        "/v1/messages/batches",
        headers=ANTHROPIC_HEADERS,
        content={"requests": entries("a")},
    )
    assert (status, content) == (502, expected)
    assert headers["content-length"] == str(len(expected))


def test_a_connection_breaks_in_the_middle_of_an_answer(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """The status and half of the body arrive; the batch exists."""
    control.faults(kind="drop_mid_answer")
    with pytest.raises((anthropic.APIConnectionError, httpx2.RemoteProtocolError)):
        create(claude)
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
        chats(gpt, "a")
    assert accepted(control) == {"anthropic": 1, "openai": 1}


def test_a_download_breaks_in_the_middle(gpt: openai.OpenAI, control: ControlClient) -> None:
    """A file's content is cut like any other answer; the next download is whole."""
    batch = gpt.batches.retrieve(chats(gpt, *map(str, range(50))).id)
    whole = gpt.files.content(str(batch.output_file_id)).content
    control.faults(kind="drop_mid_answer", route="content", count=1)
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
        gpt.files.content(str(batch.output_file_id))
    assert gpt.files.content(str(batch.output_file_id)).content == whole


@pytest.mark.parametrize(
    ("form", "begins"),
    [({}, '{"id":"msgbatch_'), ({"html": True}, "<html>"), ({"empty": True}, ""),
     ({"body": "ok"}, "ok")],
)  # fmt: skip
def test_a_200_is_not_what_the_api_sends(
    claude: anthropic.Anthropic, control: ControlClient, form: dict[str, Any], begins: str
) -> None:
    """The batch exists, and its object cannot be read."""
    control.faults(kind="garbled_answer", **form)
    raw = claude.messages.batches.with_raw_response.create(requests=entries("a"))
    assert raw.status_code == 200
    assert raw.text()[: len(begins) or 1] == begins
    with pytest.raises(json.JSONDecodeError):
        json.loads(raw.text())
    assert accepted(control)["anthropic"] == 1


@pytest.mark.parametrize(
    ("settings", "status", "code"),
    [({}, 400, "invalidPayload"), ({"status": 404}, 404, "not_found")],
)
def test_an_input_file_is_not_ready_at_first(
    gpt: openai.OpenAI,
    claude: anthropic.Anthropic,
    control: ControlClient,
    settings: dict[str, int],
    status: int,
    code: str,
) -> None:
    """So many creates are refused and accept nothing; the next is a batch. Anthropic has none."""
    control.faults(kind="file_not_ready", count=2, **settings)
    create(claude)
    file_id = upload(gpt)
    for _ in range(2):
        with pytest.raises(openai.APIStatusError, match=file_id) as seen:
            gpt.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
        assert (seen.value.status_code, seen.value.code) == (status, code)
    gpt.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    assert accepted(control)["openai"] == 1


def test_a_server_wants_a_length(
    emulator: Emulator, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Calls in chunks are answered 411; those with a length are not."""
    control.faults(kind="length_required")
    chats(gpt, "a")

    def chunks() -> Iterator[bytes]:
        yield json.dumps({"requests": entries("a")}).encode()

    url = f"{emulator.anthropic_url}/v1/messages/batches"
    assert httpx2.post(url, content=chunks(), headers=ANTHROPIC_HEADERS).status_code == 411
    whole = b"".join(chunks())
    assert httpx2.post(url, content=whole, headers=ANTHROPIC_HEADERS).status_code == 200
    assert accepted(control) == {"anthropic": 1, "openai": 1}


def test_a_cancel_is_a_conflict(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """A 409 each time, and the batch goes on."""
    control.progress("reads", 2)
    control.faults(kind="cancel_conflict")
    first, second = create(claude).id, chats(gpt, "a").id
    for _ in range(2):
        with pytest.raises(anthropic.ConflictError):
            claude.messages.batches.cancel(first)
        with pytest.raises(openai.ConflictError):
            gpt.batches.cancel(second)
    for _ in range(2):
        claude.messages.batches.retrieve(first)
        gpt.batches.retrieve(second)
    seen, also = claude.messages.batches.retrieve(first), gpt.batches.retrieve(second)
    assert (seen.processing_status, also.status) == ("ended", "completed")
    assert seen.cancel_initiated_at is None


def test_a_server_has_no_list(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Any status for a route that a server does not know."""
    control.faults(kind="http_error", route="list", status=405)
    for listing in (claude.messages.batches.list, gpt.batches.list):
        with pytest.raises((anthropic.APIStatusError, openai.APIStatusError)) as seen:
            listing()
        assert seen.value.status_code == 405  # type: ignore[union-attr]


def test_a_list_of_files_is_at_most_so_long(
    gpt: openai.OpenAI, emulator: Emulator, control: ControlClient
) -> None:
    """A server that lists at most 100 files refuses to list more."""
    control.limits(openai_listed_files=100)
    upload(gpt)
    assert len(gpt.files.list(limit=100).data) == 1
    status, _, _ = http(emulator.openai_url, "GET", "/files?limit=101", headers=OPENAI_HEADERS)
    assert status == 400
