"""Batches and lists of other shapes, as other servers give them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import openai
import orjson
import pytest

from batchata_tasks.emulator import ControlError
from batchata_tasks.emulator.core.fault_kinds import STYLES
from tests.support.emulator_requests import chats, entries, line, submit

if TYPE_CHECKING:
    import anthropic

    from batchata_tasks.emulator import ControlClient


def create(client: anthropic.Anthropic) -> str:
    """Create a batch of one request and return its id."""
    return client.messages.batches.create(requests=entries("a")).id


def sent(raw: Any) -> dict[str, Any]:
    """Return what came over the wire, which the SDK may not accept."""
    return orjson.loads(raw.http_response.content)


def both(claude: anthropic.Anthropic, gpt: openai.OpenAI, *ids: str) -> list[dict[str, Any]]:
    """Return Anthropic's and OpenAI's batch as they are on the wire."""
    first = claude.messages.batches.with_raw_response.retrieve(ids[0])
    return [sent(first), sent(gpt.batches.with_raw_response.retrieve(ids[1]))]


@pytest.fixture
def ids(claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient) -> tuple[str, str]:
    """Create a batch at each provider, which ends at the second read."""
    control.progress("reads", 1)
    return create(claude), chats(gpt, "a", metadata={"k": "v"}).id


def test_a_create_says_little_else_than_an_id(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Later looks at the batch show all of it."""
    control.faults(kind="bare_create")
    bare = sent(claude.messages.batches.with_raw_response.create(requests=entries("a")))
    assert set(bare) == {"id", "type", "processing_status"}
    file = gpt.files.create(file=("in.jsonl", orjson.dumps({})), purpose="batch")
    given: Any = {
        "input_file_id": file.id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    other = sent(gpt.batches.with_raw_response.create(**given))
    assert set(other) == {"id", "object", "status", *given}
    assert claude.messages.batches.retrieve(bare["id"]).created_at
    assert gpt.batches.retrieve(other["id"]).created_at


def test_statuses_in_capitals(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, ids: tuple[str, str]
) -> None:
    """The words are the provider's own; `progress` is Together's for one of them."""
    fresh = chats(gpt, "b").id
    control.faults(kind="odd_objects", style="capitals", count=2)
    first, second = both(claude, gpt, *ids)
    assert (first["processing_status"], second["status"]) == ("IN_PROGRESS", "IN_PROGRESS")
    control.faults(kind="odd_objects", style="progress")
    assert both(claude, gpt, *ids)[1]["status"] == "COMPLETED"
    assert sent(gpt.batches.with_raw_response.retrieve(fresh))["status"] == "PROGRESS"


@pytest.mark.parametrize("style", ["iso_times", "ms_times", "float_times"])
def test_times_of_another_kind(
    claude: anthropic.Anthropic,
    gpt: openai.OpenAI,
    control: ControlClient,
    ids: tuple[str, str],
    style: str,
) -> None:
    """The moment is the same, within a second; times that are unset stay null."""
    moments = [
        claude.messages.batches.retrieve(ids[0]).created_at.timestamp(),
        gpt.batches.retrieve(ids[1]).created_at,
    ]
    control.faults(kind="odd_objects", style=style)
    for batch, moment in zip(both(claude, gpt, *ids), moments, strict=True):
        given: Any = batch["created_at"]
        if style == "iso_times":
            assert given.endswith("Z")
            given = datetime.fromisoformat(given).timestamp()
        elif style == "ms_times":
            assert isinstance(given, int)
            given /= 1_000
        else:
            assert isinstance(given, float)
        assert given == pytest.approx(moment, abs=1)
        assert batch.get("archived_at", batch.get("failed_at", 0)) is None


@pytest.mark.parametrize(
    ("style", "claudes", "gpts"),
    [
        ("no_times", {"created_at": ...}, {"created_at": ..., "expires_at": ...}),
        ("null_times", {"created_at": None}, {"created_at": None, "expires_at": None}),
        (
            "blank",
            {"results_url": "", "request_counts": None},
            {"errors": "", "error_file_id": "", "request_counts": None, "metadata": {"k": "v"}},
        ),
        ("no_counts", {"request_counts": ...}, {"request_counts": ...}),
        ("no_metadata", {"metadata": None}, {"metadata": None}),
        ("errors_list", {"errors": ...}, {"errors": []}),
        ("unknown_status", {"processing_status": "warming"}, {"status": "warming"}),
        ("unknown_end", {"processing_status": "warming"}, {"status": "warming"}),
    ],
)
def test_fields_that_others_write_otherwise(
    claude: anthropic.Anthropic,
    gpt: openai.OpenAI,
    control: ControlClient,
    style: str,
    claudes: dict[str, Any],
    gpts: dict[str, Any],
) -> None:
    """Each style changes its fields of a batch that runs; an ellipsis stands for no field."""
    control.progress("reads", 5)
    metadata = {"metadata": {"k": "v"}}
    made = (
        create(claude),
        submit(gpt, line("r0", {"model": "gpt-6-luna", "messages": []}), **metadata).id,
    )
    control.faults(kind="odd_objects", style=style, word="warming")
    for batch, expected in zip(both(claude, gpt, *made), (claudes, gpts), strict=True):
        assert {name: batch.get(name, ...) for name in expected} == expected


def test_counts_are_text(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, ids: tuple[str, str]
) -> None:
    """Every count is a text of digits."""
    control.faults(kind="odd_objects", style="text_counts")
    first, second = both(claude, gpt, *ids)
    assert first["request_counts"]["processing"] == "1"
    assert second["request_counts"] == {"total": "1", "completed": "0", "failed": "0"}


def test_an_unknown_word_lasts_or_not(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, ids: tuple[str, str]
) -> None:
    """One style gives the word up at the end, the other keeps it although results are there."""
    both(claude, gpt, *ids)
    control.faults(kind="odd_objects", style="unknown_status")
    first, second = both(claude, gpt, *ids)
    assert (first["processing_status"], second["status"]) == ("ended", "completed")
    control.faults(kind="odd_objects", style="unknown_end")
    first, second = both(claude, gpt, *ids)
    assert first["processing_status"] == second["status"] == "preparing_results"
    assert first["results_url"]
    assert second["output_file_id"]


def test_errors_are_a_list_of_texts(gpt: openai.OpenAI, control: ControlClient) -> None:
    """A batch that failed its validation names each error in words alone."""
    control.faults(kind="token_limit", nth=1)
    control.faults(kind="odd_objects", style="errors_list")
    file = gpt.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    made = gpt.batches.with_raw_response.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    batch_id = sent(made)["id"]
    failed = sent(gpt.batches.with_raw_response.retrieve(batch_id))
    (problem,) = failed["errors"]
    assert problem.startswith("Enqueued token limit reached")


def test_shapes_add_up_and_a_lost_answer_beside_them(
    gpt: openai.OpenAI, control: ControlClient
) -> None:
    """All rules for answers apply at once, in lists too, whatever else strikes the call."""
    control.faults(kind="drop_after", count=1, provider="openai")
    for style in ("no_metadata", "no_times"):
        control.faults(kind="odd_objects", style=style)
    with pytest.raises(openai.APIConnectionError):
        chats(gpt, "a")
    listed = sent(gpt.batches.with_raw_response.list())
    (batch,) = listed["data"]
    assert batch["metadata"] is None
    assert "created_at" not in batch
    assert {"first_id", "last_id", "has_more"} <= set(listed)


def test_a_list_is_one_page_without_marks(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Parameters are ignored, even those that a server with pages refuses."""
    for _ in range(3):
        create(claude)
        chats(gpt, "a")
    control.faults(kind="list_flat")
    for raw in (
        claude.messages.batches.with_raw_response.list(limit=1, after_id="gone"),
        gpt.batches.with_raw_response.list(limit=1, after="gone"),
    ):
        listed = sent(raw)
        assert len(listed["data"]) == 3
        assert not {"first_id", "last_id", "has_more"} & set(listed)


def test_a_list_is_empty_or_the_wrong_way_round(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """The batches exist all the same."""
    made = [create(claude) for _ in range(3)]
    others = [chats(gpt, "a").id for _ in range(3)]
    control.faults(kind="list_old_first")
    assert [batch.id for batch in claude.messages.batches.list(limit=2)] == made
    assert [batch.id for batch in gpt.batches.list(limit=2)] == others
    control.faults(kind="list_empty")
    assert claude.messages.batches.list().data == gpt.batches.list().data == []
    assert gpt.batches.retrieve(others[0]).id == others[0]


def test_a_list_repeats_its_first_page(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """There is more for ever, and it is always the same."""
    for _ in range(3):
        create(claude)
        chats(gpt, "a")
    control.faults(kind="list_repeats")
    page: Any
    for page in (claude.messages.batches.list(limit=2), gpt.batches.list(limit=2)):
        first = [batch.id for batch in page.data]
        following = page.get_next_page()
        assert [batch.id for batch in following.data] == first
        assert following.has_more


@pytest.mark.parametrize("kind", ["lists_unproven", "list_empty", "list_repeats"])
def test_a_list_says_whether_it_shows_all(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, kind: str
) -> None:
    """The emulator's lists do, by a header; those of gateways, and those that hide, do not."""
    for expected in ("exact", None):
        for batches in (claude.messages.batches, gpt.batches):
            headers = batches.with_raw_response.list().headers
            assert headers.get("x-batchata-lists") == expected
        control.faults(kind=kind)


def test_the_list_of_files_has_shapes_too(gpt: openai.OpenAI, control: ControlClient) -> None:
    """A rule that names the route changes it."""
    file = gpt.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    control.faults(kind="odd_objects", style="iso_times", route="list_files")
    control.faults(kind="list_flat", route="list_files")
    listed = sent(gpt.files.with_raw_response.list(limit=10_000))
    assert listed["data"][0]["id"] == file.id
    assert listed["data"][0]["created_at"].endswith("Z")
    assert "has_more" not in listed


def test_a_style_is_one_of_those_that_exist(control: ControlClient) -> None:
    """Every style is accepted; a missing or misspelt one, route or provider is refused."""
    for style in STYLES:
        control.faults(kind="odd_objects", style=style)
    for wrong in (
        {"kind": "odd_objects"},
        {"kind": "odd_objects", "style": "capital"},
        {"kind": "http_429", "route": "creates"},
        {"kind": "http_429", "provider": "claude"},
    ):
        with pytest.raises(ControlError, match="must be one of"):
            control.faults(**cast("dict[str, Any]", wrong))
