"""How batches end unexpectedly: expired, cancelled by others, late, gone, or never."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from batchata_tasks.emulator import ControlError
from tests.support.emulator_requests import chats, entries, rows

if TYPE_CHECKING:
    from anthropic.types.messages import MessageBatch
    from openai.types import Batch

    from batchata_tasks.emulator import ControlClient

TEXTS = [f"row {number}" for number in range(8)]


def created(claude: anthropic.Anthropic, *texts: str) -> str:
    """Create an Anthropic batch and return its id."""
    return claude.messages.batches.create(requests=entries(*(texts or TEXTS))).id


def ended(claude: anthropic.Anthropic, batch_id: str) -> tuple[MessageBatch, list[str]]:
    """Return a batch that has ended, and the sorted types of its results."""
    batch = claude.messages.batches.retrieve(batch_id)
    assert batch.processing_status == "ended"
    return batch, sorted(item.result.type for item in claude.messages.batches.results(batch_id))


def codes(gpt: openai.OpenAI, batch: Batch) -> list[str]:
    """Return the error codes of what never ran."""
    return [row["error"]["code"] for row in rows(gpt, batch.error_file_id).values()]


def billed(control: ControlClient, provider: str) -> int:
    """Return how many requests the provider billed."""
    return control.ledger()[provider]["requests_billed"]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_whole_batch_expires_without_a_day_passing(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, share: float
) -> None:
    """What ran is there and billed, the rest is `expired` and free, long before `expires_at`."""
    control.faults(kind="batch_expires", share=share)
    ran = int(8 * share)
    batch, kinds = ended(claude, created(claude))
    assert (batch.request_counts.succeeded, batch.request_counts.expired) == (ran, 8 - ran)
    assert (kinds.count("succeeded"), kinds.count("expired")) == (ran, 8 - ran)
    assert batch.cancel_initiated_at is None
    other = gpt.batches.retrieve(chats(gpt, *TEXTS).id)
    assert (other.status, bool(other.expired_at), other.completed_at) == ("expired", True, None)
    assert len(rows(gpt, other.output_file_id)) == ran
    assert codes(gpt, other) == ["batch_expired"] * (8 - ran)
    assert (other.output_file_id is None, other.error_file_id is None) == (ran == 0, ran == 8)
    assert billed(control, "anthropic") == billed(control, "openai") == ran
    assert control.now() < other.created_at + 3_600


def test_somebody_else_cancels_a_batch_at_its_creation(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """The nth batch ends cancelled with half of its answers; the one before it is untouched."""
    control.faults(kind="batch_cancelled", provider="anthropic", nth=2)
    control.faults(kind="batch_cancelled", provider="openai", nth=2)
    first, second = created(claude), created(claude, *"abcd")
    assert ended(claude, first)[1] == ["succeeded"] * 8
    batch, kinds = ended(claude, second)
    assert kinds == ["canceled"] * 2 + ["succeeded"] * 2
    assert batch.cancel_initiated_at is not None
    assert gpt.batches.retrieve(chats(gpt, *TEXTS).id).status == "completed"
    other = gpt.batches.retrieve(chats(gpt, *"abcd").id)
    assert (other.status, codes(gpt, other)) == ("cancelled", ["batch_cancelled"] * 2)
    assert len(rows(gpt, other.output_file_id)) == 2
    assert billed(control, "anthropic") == billed(control, "openai") == 10


def test_a_fated_batch_looks_like_any_other_until_its_end(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """It runs at the set pace, is never `finalizing`, and can be seen being cancelled."""
    control.progress("reads", 3)
    control.faults(kind="batch_cancelled", share=0.5)
    batch_id, other_id = created(claude), chats(gpt, *TEXTS).id
    seen = [claude.messages.batches.retrieve(batch_id).processing_status for _ in range(5)]
    assert seen == ["in_progress"] * 3 + ["canceling"] * 2
    assert claude.messages.batches.retrieve(batch_id).processing_status == "ended"
    states = [gpt.batches.retrieve(other_id).status for _ in range(6)]
    assert states == ["in_progress"] * 3 + ["cancelling"] * 2 + ["cancelled"]
    counts = gpt.batches.retrieve(other_id).request_counts
    assert counts
    assert (counts.total, counts.completed, counts.failed) == (8, 4, 4)


def test_a_batch_never_ends_until_it_is_cancelled(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Neither reads nor days end it; a cancellation keeps and bills what ran."""
    control.faults(kind="never_ends", share=0.75)
    batch_id, other_id = created(claude), chats(gpt, *TEXTS).id
    for _ in range(3):
        assert claude.messages.batches.retrieve(batch_id).processing_status == "in_progress"
        assert gpt.batches.retrieve(other_id).status == "in_progress"
        control.advance(86_400)
    counts = gpt.batches.retrieve(other_id).request_counts
    assert counts
    assert (counts.total, counts.completed) == (8, 6)
    claude.messages.batches.cancel(batch_id)
    gpt.batches.cancel(other_id)
    assert ended(claude, batch_id)[1] == ["canceled"] * 2 + ["succeeded"] * 6
    other = gpt.batches.retrieve(other_id)
    assert (other.status, len(rows(gpt, other.output_file_id))) == ("cancelled", 6)
    assert billed(control, "anthropic") == billed(control, "openai") == 6


def test_a_cancellation_ends_after_the_day_is_over_as_well(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """Reads of a batch that is being cancelled count, also past its `expires_at`."""
    control.progress("reads", 3)
    batch_id = created(claude)
    claude.messages.batches.cancel(batch_id)
    control.advance(86_401)
    assert claude.messages.batches.retrieve(batch_id).processing_status == "canceling"
    assert ended(claude, batch_id)[1] == ["canceled"] * 8


def test_a_fate_does_not_depend_on_what_the_create_call_meets(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """A batch whose create got no answer can be one that expires, too."""
    control.faults(kind="drop_after", nth=1)
    control.faults(kind="batch_expires", share=0)
    with pytest.raises(anthropic.APIConnectionError):
        created(claude)
    (batch,) = claude.messages.batches.list().data
    assert ended(claude, batch.id)[1] == ["expired"] * 8


def test_file_ids_come_late_by_the_clock(gpt: openai.OpenAI, control: ControlClient) -> None:
    """The batch is `completed` with its counts, and names its files some set seconds later."""
    control.freeze()
    control.faults(kind="late_files", seconds=30, nth=1)
    control.faults(kind="request_error", contains="row 0")
    late, usual = chats(gpt, *TEXTS).id, chats(gpt, *TEXTS).id
    for _ in range(3):
        batch = gpt.batches.retrieve(late)
        assert (batch.status, batch.output_file_id, batch.error_file_id) == (
            "completed",
            None,
            None,
        )
        assert batch.request_counts
        assert (batch.request_counts.completed, batch.request_counts.failed) == (7, 1)
        assert gpt.batches.list().data[1].output_file_id is None
        control.advance(9.9)
    assert gpt.batches.retrieve(usual).output_file_id
    control.advance(0.5)
    batch = gpt.batches.retrieve(late)
    assert (len(rows(gpt, batch.output_file_id)), len(rows(gpt, batch.error_file_id))) == (7, 1)


def test_file_ids_come_late_by_reads(gpt: openai.OpenAI, control: ControlClient) -> None:
    """The first reads of the ended batch, as many as set, do not name its files."""
    control.freeze()
    control.faults(kind="late_files", reads=2)
    for seconds in (0, 3_600):
        batch_id = chats(gpt, *TEXTS).id
        control.advance(seconds)
        assert [gpt.batches.retrieve(batch_id).output_file_id for _ in range(2)] == [None, None]
        assert gpt.batches.list().data[0].output_file_id is None
        assert gpt.batches.retrieve(batch_id).output_file_id


def test_results_are_archived_at_once(claude: anthropic.Anthropic, control: ControlClient) -> None:
    """The batch keeps its counts and gets `archived_at`; its results are a 404.

    Other batches keep their results.
    """
    gone, kept = created(claude), created(claude)
    control.archive(gone)
    batch = claude.messages.batches.retrieve(gone)
    assert (batch.archived_at is not None, batch.request_counts.succeeded) == (True, 8)
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.results(gone)
    assert ended(claude, kept)[0].archived_at is None
    control.progress("reads", 1)
    with pytest.raises(ControlError, match="has not ended"):
        control.archive(created(claude))


def test_output_files_are_deleted(gpt: openai.OpenAI, control: ControlClient) -> None:
    """The batch still names its files, which are a 404; its input file stays."""
    control.faults(kind="request_error", contains="row 0")
    batch_id = chats(gpt, *TEXTS).id
    control.delete_outputs(batch_id)
    batch = gpt.batches.retrieve(batch_id)
    for file_id in (batch.output_file_id, batch.error_file_id):
        assert file_id
        with pytest.raises(openai.NotFoundError):
            gpt.files.content(file_id)
        with pytest.raises(openai.NotFoundError):
            gpt.files.retrieve(file_id)
    assert [file.id for file in gpt.files.list()] == [batch.input_file_id]


def test_a_batch_vanishes_whatever_its_state(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Running or ended, it is a 404 and in no list; the emulator's books still have it."""
    control.progress("reads", 2)
    running, other = created(claude), chats(gpt, *TEXTS).id
    control.progress("immediate")
    done = created(claude)
    assert ended(claude, done)
    kept = created(claude)
    for batch_id in (running, done, other):
        control.vanish(batch_id)
    for batch_id in (running, done):
        with pytest.raises(anthropic.NotFoundError):
            claude.messages.batches.retrieve(batch_id)
        with pytest.raises(anthropic.NotFoundError):
            claude.messages.batches.cancel(batch_id)
    with pytest.raises(openai.NotFoundError):
        gpt.batches.retrieve(other)
    assert [batch.id for batch in claude.messages.batches.list()] == [kept]
    assert gpt.batches.list().data == []
    lines = {line["id"]: line["deleted"] for line in control.ledger()["anthropic"]["batches"]}
    assert lines == {running: True, done: True, kept: False}


@pytest.mark.parametrize(("share", "ran"), [(None, 0), (0.5, 4), (1.0, 8)])
def test_somebody_else_cancels_a_batch_later(
    claude: anthropic.Anthropic,
    gpt: openai.OpenAI,
    control: ControlClient,
    share: float | None,
    ran: int,
) -> None:
    """It happens after the set part has run, which is kept; an ended batch is refused."""
    batch_id, other_id = created(claude), chats(gpt, *TEXTS).id
    control.cancel(batch_id, share=share)
    control.cancel(other_id, share=share)
    kinds = ended(claude, batch_id)[1]
    assert kinds == ["canceled"] * (8 - ran) + ["succeeded"] * ran
    other = gpt.batches.retrieve(other_id)
    assert (other.status, len(rows(gpt, other.output_file_id))) == ("cancelled", ran)
    assert billed(control, "anthropic") == billed(control, "openai") == ran
    for one in (batch_id, other_id):
        with pytest.raises(ControlError, match="already ended"):
            control.cancel(one)
    with pytest.raises(ControlError, match="no batch"):
        control.cancel("batch_unknown")


def test_what_a_provider_does_not_have_is_refused(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Archiving an OpenAI batch, or deleting an Anthropic one's files, would test nothing."""
    calls: list[tuple[Any, str]] = [
        (control.archive, chats(gpt, "a").id),
        (control.delete_outputs, created(claude)),
    ]
    for call, batch_id in calls:
        with pytest.raises(ControlError, match="only"):
            call(batch_id)


def test_a_fate_that_could_not_be_heeded_is_refused(control: ControlClient) -> None:
    """Whole batches are not selected by a text, and no more than all of their requests run."""
    for knobs in ({"contains": "x"}, {"times": 1}, {"share": 1.5}, {"share": -0.1}):
        with pytest.raises(ControlError):
            control.faults(kind="batch_expires", **knobs)
    assert control.list_faults() == []
