"""Batches that are told otherwise than they are, odd ids, odd lists, and answers that lead on."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any, Literal

import openai
import orjson
import pytest

from batchata_tasks.emulator import ControlError
from tests.support.emulator_requests import (
    ANTHROPIC_HEADERS,
    OPENAI_HEADERS,
    chats,
    entries,
    http,
    jsonl,
    line,
)
from tests.support.emulator_requests import body as chat

if TYPE_CHECKING:
    import anthropic

    from batchata_tasks.emulator import ControlClient, Emulator

Reply = tuple[int, dict[str, str], bytes]


def look(batches: Any, batch_id: str) -> dict[str, Any]:
    """Return a batch as it comes over the wire, which the SDK may not accept."""
    return orjson.loads(batches.with_raw_response.retrieve(batch_id).http_response.content)


def create(claude: anthropic.Anthropic) -> str:
    return claude.messages.batches.create(requests=entries("a", "b")).id


@pytest.mark.parametrize("reads", [None, 2])
def test_an_end_is_told_that_is_none(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, reads: int | None
) -> None:
    """As many reads as are set say ended or failed, with nothing to show; then the truth comes."""
    control.progress("reads", 5)
    control.faults(kind="false_end", **({} if reads is None else {"reads": reads}))
    one, other = create(claude), chats(gpt, "a", "b").id
    for _ in range(reads or 1):
        told = look(claude.messages.batches, one)
        assert (told["processing_status"], told["results_url"]) == ("ended", None)
        told = look(gpt.batches, other)
        assert (told["status"], told["errors"], told["output_file_id"]) == ("failed", None, None)
        assert told["request_counts"]["completed"] == 0
    assert look(claude.messages.batches, one)["processing_status"] == "in_progress"
    assert look(gpt.batches, other)["status"] == "in_progress"


def test_an_end_is_taken_back(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """The read after the end says that the batch goes on, without results; the next one ended."""
    control.faults(kind="end_taken_back")
    one, other = create(claude), chats(gpt, "a", "b").id
    words = [look(claude.messages.batches, one) for _ in range(3)]
    assert [told["processing_status"] for told in words] == ["ended", "in_progress", "ended"]
    assert words[1]["request_counts"]["processing"] == 2
    words = [look(gpt.batches, other) for _ in range(3)]
    assert [told["status"] for told in words] == ["completed", "in_progress", "completed"]
    assert (words[1]["output_file_id"], words[1]["completed_at"]) == (None, None)
    assert words[1]["request_counts"] == {"total": 2, "completed": 0, "failed": 0}


@pytest.mark.parametrize("message", [None, "no room on the disk"])
def test_a_batch_fails_after_its_work(
    gpt: openai.OpenAI, control: ControlClient, message: str | None
) -> None:
    """The counts say what ran and was billed; there is no file, and a reason only if it is set."""
    control.faults(kind="fails_billed", **({} if message is None else {"message": message}))
    batch = gpt.batches.retrieve(chats(gpt, "a", "b").id)
    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert batch.request_counts
    assert batch.request_counts.completed == 2
    reasons = [problem.message for problem in (batch.errors and batch.errors.data) or []]
    assert reasons == [message] * (message is not None)
    assert control.ledger()["openai"]["requests_billed"] == 2


@pytest.mark.parametrize("file", ["output", "error"])
def test_one_of_two_files_comes_late(
    gpt: openai.OpenAI, control: ControlClient, file: Literal["output", "error"]
) -> None:
    """The other one is named at the end."""
    control.faults(kind="late_files", reads=1, file=file)
    control.faults(kind="request_error", contains="a")
    batch_id = chats(gpt, "a", "b").id
    seen = [gpt.batches.retrieve(batch_id) for _ in range(2)]
    named = [(batch.output_file_id is None, batch.error_file_id is None) for batch in seen]
    assert named == [(file == "output", file == "error"), (False, False)]


def test_ids_of_other_styles(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """An id may be a number, very long, or another batch's; the batch is found by it."""
    control.faults(kind="odd_id", style="number", count=2)
    for batches, batch_id in (
        (claude.messages.batches, "1"),
        (gpt.batches, "2"),
    ):
        with pytest.raises(Exception, match="id"):  # the SDK checks types
            create(claude) if batch_id == "1" else chats(gpt, "a")
        assert look(batches, batch_id)["id"] == int(batch_id)
    control.clear_faults()
    control.faults(kind="odd_id", style="long", count=1)
    assert len(chats(gpt, "a").id) > 1_500
    control.faults(kind="odd_id", style="same")
    assert chats(gpt, "a").id == chats(gpt, "b").id == "batch_1"
    assert create(claude) == "batch_1"
    book = control.ledger()
    assert (book["openai"]["batches_accepted"], book["anthropic"]["batches_accepted"]) == (4, 2)


def test_lists_of_one_a_page(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Whether more follow is said as a text; cursors work."""
    ids = [chats(gpt, "a").id for _ in range(2)]
    control.faults(kind="list_short")
    first = orjson.loads(gpt.batches.with_raw_response.list(limit=50).http_response.content)
    assert ([item["id"] for item in first["data"]], first["has_more"]) == (ids[1:], "true")
    second = gpt.batches.with_raw_response.list(after=ids[1]).http_response.content
    assert orjson.loads(second)["has_more"] == "false"
    create(claude)
    told = claude.messages.batches.with_raw_response.list().http_response.content
    assert orjson.loads(told)["has_more"] == "false"


def test_lists_without_end(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Each page has the oldest batch and one that nobody can find, and more follow."""
    control.faults(kind="list_endless")
    oldest = {create(claude), chats(gpt, "a").id}
    create(claude)
    chats(gpt, "b")
    for batches in (claude.messages.batches, gpt.batches):
        ids = list[str]()
        after = "after_id" if batches is claude.messages.batches else "after"
        for _ in range(3):
            cursor = {after: ids[-1]} if ids else {}
            page = orjson.loads(batches.with_raw_response.list(**cursor).http_response.content)
            assert page["has_more"] is True
            first, other = page["data"]
            assert first["id"] in oldest
            ids.append(other["id"])
        assert len(set(ids)) == 3
        with pytest.raises(Exception, match="404"):
            batches.retrieve(ids[0])


def _create_raw(emulator: Emulator, provider: str) -> Reply:
    """Create a batch without an SDK, which would follow a redirection."""
    if provider == "anthropic":
        content = {"requests": entries("a")}
        return http(
            emulator.anthropic_url,
            "POST",
            "/v1/messages/batches",
            headers=ANTHROPIC_HEADERS,
            content=content,
        )
    with openai.OpenAI(api_key="some-key", base_url=emulator.openai_url) as client:
        given = ("in.jsonl", jsonl(line("r0", chat("a"))))
        file_id = client.files.create(file=given, purpose="batch").id
    content = {
        "input_file_id": file_id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    return http(emulator.openai_url, "POST", "/batches", headers=OPENAI_HEADERS, content=content)


@pytest.mark.parametrize("status", [None, 301, 303, 308])
@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_create_leads_elsewhere(
    emulator: Emulator, control: ControlClient, provider: str, status: int | None
) -> None:
    """The batch is there; the redirection leads to it, or to one more create."""
    control.faults(kind="redirect", **({} if status is None else {"status": status}))
    answered, headers, content = _create_raw(emulator, provider)
    assert (answered, content) == (status or 307, b"")
    (created,) = control.ledger()["creates"]
    place = headers["location"]
    if status in (None, 308):
        assert place.endswith("/batches?again=1")
    else:
        assert place.endswith(f"/batches/{created['batch_id']}")


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_an_answer_is_packed_and_cut(
    emulator: Emulator, control: ControlClient, provider: str
) -> None:
    """It says that it is gzip, and ends in the middle."""
    control.faults(kind="garbled_answer", gzip=True)
    status, headers, content = _create_raw(emulator, provider)
    assert (status, headers["content-encoding"]) == (200, "gzip")
    with pytest.raises(EOFError):
        gzip.decompress(content)
    assert control.ledger()[provider]["batches_accepted"] == 1


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_create_names_a_job(emulator: Emulator, control: ControlClient, provider: str) -> None:
    """The answer has an id, which is not the batch's."""
    control.faults(kind="create_names_job")
    status, _, content = _create_raw(emulator, provider)
    told = orjson.loads(content)
    assert (status, set(told)) == (200, {"id", "status"})
    (created,) = control.ledger()["creates"]
    assert told["id"] != created["batch_id"]


def test_objects_that_mean_nothing(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Ids and statuses alone can be read; low counts count one request."""
    one, other = create(claude), chats(gpt, "a", "b").id
    claude.messages.batches.retrieve(one)
    gpt.batches.retrieve(other)
    control.faults(kind="odd_objects", style="low_counts")
    assert look(claude.messages.batches, one)["request_counts"]["succeeded"] == 1
    assert look(gpt.batches, other)["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    control.faults(kind="odd_objects", style="nonsense")
    for told in (look(claude.messages.batches, one), look(gpt.batches, other)):
        assert told["request_counts"] == told["metadata"] == [1]
        assert told["created_at"] == told["expires_at"] == {"s": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "odd_id"},
        {"kind": "odd_id", "style": "blank"},
        {"kind": "late_files", "file": "input"},
        {"kind": "redirect", "status": 400},
    ],
)
def test_settings_that_do_not_exist_are_refused(
    control: ControlClient, wrong: dict[str, Any]
) -> None:
    """The refusal names what there is."""
    with pytest.raises(ControlError, match="must be"):
        control.faults(**wrong)
