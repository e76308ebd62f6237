"""A shared account, a clock that is off, and books that show what remains at the provider."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import openai
import pytest

from batchata_tasks.emulator import ControlError
from tests.support.emulator_requests import chats, entries, params, rows

if TYPE_CHECKING:
    import anthropic

    from batchata_tasks.emulator import ControlClient, Emulator


def test_a_thousand_batches_of_another_program_fill_the_lists(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Our batch is found among pages of others of its size, listed in order of creation."""
    control.freeze()
    mine = claude.messages.batches.create(requests=entries("a", "b", "c")).id
    other = chats(gpt, "a", "b", "c").id
    older = control.foreign("anthropic", batches=500, requests=3, offset=-600, every=1)
    newer = control.foreign("anthropic", batches=500, requests=3, offset=1, every=0.001)
    listed = list(claude.messages.batches.list(limit=100))
    assert [batch.id for batch in listed] == [*newer[::-1], mine, *older[::-1]]
    assert {batch.request_counts.succeeded for batch in listed} == {3}
    assert listed[-1].created_at.timestamp() == pytest.approx(control.now() - 600)
    assert (listed[501].created_at - listed[-1].created_at).total_seconds() == pytest.approx(499)
    ids = control.foreign("openai", batches=1_000, requests=3, offset=-5)
    found = list(gpt.batches.list(limit=100))
    assert (len(found), found[0].id, {batch.id for batch in found[1:]}) == (1_001, other, {*ids})
    assert {batch.request_counts.total for batch in found if batch.request_counts} == {3}
    assert all(batch.metadata is None for batch in found)


@pytest.mark.parametrize(
    ("ends", "states"),
    [
        ("pace", ("in_progress", "in_progress")),
        ("never", ("in_progress", "in_progress")),
        ("at_once", ("ended", "completed")),
    ],
)
def test_other_programs_batches_end_as_they_are_told(
    claude: anthropic.Anthropic,
    gpt: openai.OpenAI,
    control: ControlClient,
    ends: Any,
    states: tuple[str, str],
) -> None:
    """They end by the pace, never, or at once, with results under others' custom_ids."""
    control.progress("reads", 2)
    control.faults(kind="request_error")
    (batch_id,) = control.foreign("anthropic", requests=4, ends=ends)
    (other_id,) = control.foreign("openai", requests=4, ends=ends)
    batch, other = claude.messages.batches.retrieve(batch_id), gpt.batches.retrieve(other_id)
    assert (batch.processing_status, other.status) == states
    for _ in range(3):
        batch, other = claude.messages.batches.retrieve(batch_id), gpt.batches.retrieve(other_id)
    assert (batch.processing_status == "ended", other.status == "completed") == (
        ends != "never",
        ends != "never",
    )
    if ends == "never":
        return
    names = {f"job-{number}" for number in range(4)}
    results = {
        item.custom_id: item.result.type for item in claude.messages.batches.results(batch_id)
    }
    # Faults are for the program under test: others' requests do not get them.
    assert results == dict.fromkeys(names, "succeeded")
    assert rows(gpt, other.output_file_id).keys() == names


def test_other_programs_batches_are_no_entries_of_our_books(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """They are listed apart, with their state, so that a cancellation or deletion is visible."""
    ids = control.foreign("anthropic", batches=2, requests=5, ends="never")
    (other,) = control.foreign("openai", requests=5, ends="at_once")
    claude.messages.batches.cancel(ids[0])
    claude.messages.batches.retrieve(ids[0])
    book = control.ledger(detail=True)
    for provider in ("anthropic", "openai"):
        assert book[provider]["batches"] == []
        assert book[provider]["contents"] == {}
        assert book[provider]["requests_accepted"] == book[provider]["requests_billed"] == 0
        assert book[provider]["accepted_twice"]["number"] == 0
    states = {line["id"]: line["ending"] for line in book["anthropic"]["foreign"]}
    assert states == {ids[0]: "cancelled", ids[1]: None}
    assert [line["id"] for line in book["openai"]["foreign"]] == [other]
    assert book["openai"]["files"] == book["creates"] == []
    assert len(gpt.files.list().data) == 2


def test_other_programs_batches_take_up_the_queue(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, emulator: Emulator
) -> None:
    """A queue is an account's, whoever filled it; other accounts see nothing of it."""
    control.limits(anthropic_queued_requests=10, openai_enqueued_tokens=400)
    control.foreign("anthropic", requests=100, ends="never", account="other")
    claude.messages.batches.create(requests=entries("a"))
    assert len(claude.messages.batches.list().data) == 1
    (blocking,) = control.foreign("openai", requests=50, ends="never")
    assert gpt.batches.retrieve(blocking).status == "in_progress"
    assert gpt.batches.retrieve(chats(gpt, *"abcdefghij").id).status == "failed"
    control.vanish(blocking)
    assert gpt.batches.retrieve(chats(gpt, *"abcdefghij").id).status == "completed"
    for knobs in ({"ends": "sometimes"}, {"requests": 0}, {"batches": 0}):
        with pytest.raises(ControlError):
            control.foreign("anthropic", **knobs)  # type: ignore[arg-type]


@pytest.mark.parametrize("skew", [-7_200, 7_200])
def test_a_provider_s_clock_is_off(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, skew: float
) -> None:
    """`created_at` and `expires_at` follow the provider's clock; work goes on as usual."""
    control.advance(skew)
    batch = claude.messages.batches.create(requests=entries("a"))
    other = chats(gpt, "a")
    for created_at, expires_at in (
        (batch.created_at.timestamp(), batch.expires_at.timestamp()),
        (other.created_at, other.expires_at or 0),
    ):
        assert created_at == pytest.approx(time.time() + skew, abs=300)
        assert expires_at - created_at == pytest.approx(86_400, abs=1)
    assert claude.messages.batches.retrieve(batch.id).processing_status == "ended"
    assert gpt.batches.retrieve(other.id).status == "completed"


def test_a_clock_that_is_set_back_hides_nothing(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Older batches stay in get and list, with a `created_at` in the future."""
    batch_id = claude.messages.batches.create(requests=entries("a")).id
    other_id = chats(gpt, "a").id
    control.advance(-3_600)
    assert claude.messages.batches.retrieve(batch_id).created_at.timestamp() > control.now() + 3_000
    later = claude.messages.batches.create(requests=entries("b")).id
    assert [batch.id for batch in claude.messages.batches.list()] == [batch_id, later]
    assert gpt.batches.retrieve(other_id).status == "completed"
    assert [batch.id for batch in gpt.batches.list()] == [other_id]
    assert control.ledger()["openai"]["requests_billed"] == 1


def test_the_books_name_account_and_state(
    claude: anthropic.Anthropic, control: ControlClient, emulator: Emulator
) -> None:
    """Each batch has its account and its state in its provider's words, and no key."""
    control.progress("reads", 1)
    claude.messages.batches.create(requests=entries("a"))
    with openai.OpenAI(api_key="acct:team:secret", base_url=emulator.openai_url) as gpt:
        gpt.batches.cancel(chats(gpt, "a").id)
    book = control.ledger()
    (line,), (other,) = book["anthropic"]["batches"], book["openai"]["batches"]
    assert (line["account"], line["status"]) == ("default", "in_progress")
    assert (other["account"], other["status"]) == ("team", "cancelling")
    assert "secret" not in str(book)


def test_the_books_show_files_that_are_left_behind(
    gpt: openai.OpenAI, control: ControlClient
) -> None:
    """They list every stored file of an account until it is deleted or has expired."""
    control.freeze()
    batch = gpt.batches.retrieve(chats(gpt, "a").id)
    size = len(gpt.files.content(batch.input_file_id).content)
    files = {file["id"]: file for file in control.ledger()["openai"]["files"]}
    assert files.keys() == {batch.input_file_id, batch.output_file_id}
    assert files[batch.input_file_id] == {
        "id": batch.input_file_id,
        "account": "default",
        "purpose": "batch",
        "filename": "in.jsonl",
        "bytes": size,
    }
    gpt.files.delete(batch.input_file_id)
    (remaining,) = control.ledger()["openai"]["files"]
    assert (remaining["id"], remaining["purpose"]) == (batch.output_file_id, "batch_output")
    control.advance(30 * 86_400)
    assert control.ledger()["openai"]["files"] == []


def test_the_books_tell_accepted_twice_from_billed_twice(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """A content counts as billed twice when it ran twice, also within one batch."""
    control.faults(kind="batch_expires", share=0, nth=1)
    for _ in range(2):
        claude.messages.batches.create(requests=entries("a"))
    book = control.ledger()["anthropic"]
    assert (book["accepted_twice"]["number"], book["billed_twice"]["number"]) == (1, 0)
    sent: Any = [{"custom_id": name, "params": params("b")} for name in ("x", "y")]
    claude.messages.batches.create(requests=sent)
    book = control.ledger()["anthropic"]
    assert (book["accepted_twice"]["number"], book["billed_twice"]["number"]) == (1, 1)
    claude.messages.batches.create(requests=entries("a"))
    book = control.ledger(detail=True)["anthropic"]
    assert (book["accepted_twice"]["number"], book["billed_twice"]["number"]) == (1, 2)
    billed = {tuple(item["custom_ids"]): item["billed"] for item in book["contents"].values()}
    assert billed == {("r0",) * 3: 2, ("x", "y"): 2}
    assert all(name in book["contents"] for name in book["billed_twice"]["examples"])
