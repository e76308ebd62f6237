"""A run that lets go while its batches are at the provider, and is carried on once they ended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import (
    CancelledRunError,
    LettingGo,
    SuspendedRunError,
    hold_dataset,
)
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.operations.cancel import cancel, request_cancel
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.pipeline.start import refresh_mark
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.plan import preview
from tests.support.jobs import sent
from tests.support.table import APIS, SCHEMA, Table, open_batches

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.spec.enrichment import EnrichmentSpec


# no age, since it is read long after it was written
WAITING = r"^waiting for {}, the oldest sent 20\d\d-\d\d-\d\d \d\d:\d\d UTC$"


def started(
    spec: EnrichmentSpec,
    lets_go_after: float = 0,
    *before: str,
    options: Options | None = None,
    told: list[str] | None = None,
) -> Receipt:
    """Start a run that lets go; runs that the same work let go of `before` are its own.

    What it says is `told`.
    """
    letting_go = LettingGo(lets_go_after, frozenset(before))
    progress = None if told is None else LineProgress(told.append)
    ready = prepare_run(spec, Settings())
    return run_prepared(ready, options, progress=progress, letting_go=letting_go)


@pytest.mark.parametrize("api", APIS)
def test_it_lets_go_and_is_carried_on(emulator: Emulator, tmp_path: Path, api: str) -> None:
    """While batches are open nobody holds the dataset; each row is sent once, and lands.

    What it waits for is told in words that stay true however long that takes.
    """
    table = Table(tmp_path, emulator, api, rows=9)
    spec = table.spec(items_per_batch=3)
    with open_batches(emulator):
        for _ in range(2):
            with pytest.raises(SuspendedRunError, match=WAITING.format("3 of 3 batches")):
                started(spec)
            assert sent(emulator) == 9
            with hold_dataset(spec.output, Settings()):
                pass  # it is free
    receipt = started(spec)
    assert receipt.outcomes == {"succeeded": 9}
    assert receipt.continued
    assert sent(emulator) == 9


@pytest.mark.parametrize("api", APIS)
def test_a_silent_provider_is_waited_for_without_a_process(
    emulator: Emulator, tmp_path: Path, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that tells nothing of a batch fails no run that may let go; it goes on later."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0")
    spec = Table(tmp_path, emulator, api, rows=3).spec()
    emulator.control.faults(kind="http_error", status=503, route="get")
    with pytest.raises(SuspendedRunError, match=WAITING.format("1 of 1 batch")):
        started(spec)
    emulator.control.clear_faults()
    assert started(spec).outcomes == {"succeeded": 3}
    assert sent(emulator) == 3


def test_batches_that_are_awaited_count_as_under_way(emulator: Emulator, tmp_path: Path) -> None:
    """No more than `max_parallel_batches` are at the provider, however often it is carried on."""
    table = Table(tmp_path, emulator, "anthropic", rows=9)
    spec = table.spec(items_per_batch=3, max_parallel_batches=2)
    with open_batches(emulator):
        for _ in range(2):
            with pytest.raises(SuspendedRunError, match=r"^waiting for 2 of 3 batches"):
                started(spec)
        assert sent(emulator) == 6
    assert started(spec, lets_go_after=60).outcomes == {"succeeded": 9}
    assert sent(emulator) == 9


def test_a_batch_keeps_its_number(emulator: Emulator, tmp_path: Path) -> None:
    """Whichever batches landed before, each process calls a batch what the first one called it."""
    table = Table(tmp_path, emulator, "anthropic", rows=12)
    spec = table.spec(items_per_batch=3, max_parallel_batches=3)
    told = list[str]()
    progress = LineProgress(told.append)

    def go_on(after: float) -> None:
        ready = prepare_run(spec, Settings())
        run_prepared(ready, progress=progress, letting_go=LettingGo(after))

    with open_batches(emulator):
        with pytest.raises(SuspendedRunError) as let_go:
            go_on(0)
        with opened_ledger(Settings().ledger_url) as ledger:
            second = ledger.chunks(let_go.value.run_id)[1]
        assert second.batch_id is not None
        emulator.control.finish(second.batch_id)
        with pytest.raises(SuspendedRunError):
            go_on(0)
    go_on(60)
    first, *others = [line.split()[1] for line in told if line.endswith(": landed")]
    assert (first, sorted(others)) == ("2", ["1", "3", "4"])


def test_money_under_way_is_awaited(emulator: Emulator, tmp_path: Path) -> None:
    """What the limit leaves no room for is sent once a batch under way gave its money back."""
    table = Table(tmp_path, emulator, "anthropic", rows=4)
    spec = table.spec(items_per_batch=2)
    bound = preview(spec, Settings()).to_json()["upper_bound_usd"]
    spec = table.spec(items_per_batch=2, cost_limit_usd=float(bound) * 0.75)
    with open_batches(emulator), pytest.raises(SuspendedRunError, match=r"^waiting for 2 of 3"):
        started(spec)
    assert sent(emulator) == 3
    assert started(spec, lets_go_after=60).outcomes == {"succeeded": 4}
    assert sent(emulator) == 4


def test_ones_own_run_is_not_carried_on(emulator: Emulator, tmp_path: Path) -> None:
    """To go on with a run that the same work let go of is no news, and its receipt is whole."""
    spec = Table(tmp_path, emulator, "anthropic", rows=3).spec()
    with open_batches(emulator), pytest.raises(SuspendedRunError) as let_go:
        started(spec)
    receipt = started(spec, 0, let_go.value.run_id)
    assert (receipt.continued, receipt.outcomes) == (False, {"succeeded": 3})
    assert not any("This start" in label for label, _ in receipt.lines())


OTHER_SCHEMA = {**SCHEMA, "properties": {**SCHEMA["properties"], "label": {"enum": ["x", "y"]}}}
WHAT_CHANGED = {
    "prompt": "the prompt",
    "model": "the model or a parameter",
    "schema": "the response model",
    "input": "the input",
}


def edited(table: Table, what: str) -> dict[str, Any]:
    """Change what all rows ask; return what changes in the spec."""
    if what == "input":
        for value in table.values:
            value["text"] = f"another {value['text']}"
        table.write()
    changes: dict[str, dict[str, Any]] = {
        "prompt": {"prompt": "Anew: {{ text }}"},
        "model": {"model": "claude-sonnet-5-5"},
        "schema": {"response_schema": OTHER_SCHEMA},
    }
    return changes.get(what, {})


@pytest.mark.parametrize("what", WHAT_CHANGED)
def test_what_an_edit_sends_again_is_told_while_it_is_suspended(
    emulator: Emulator, tmp_path: Path, what: str
) -> None:
    """What is in flight lands, and is sent again as it is asked by now: for what the plan says.

    The log says why. What nobody wants for that reason is not sent, and not told.
    """
    table = Table(tmp_path, emulator, "anthropic", rows=9)
    batches = {"items_per_batch": 3, "max_parallel_batches": 2}
    with open_batches(emulator), pytest.raises(SuspendedRunError) as let_go:
        started(table.spec(**batches, limit=6))
    changes = {**batches, **edited(table, what)}
    others = [reason for reason in ("new", *WHAT_CHANGED) if reason != what]
    unasked = preview(table.spec(**changes, rerun_on=others), Settings()).summary
    assert (unasked.requests, unasked.in_flight) == (3, 6)
    spec = table.spec(**changes)
    found = preview(spec, Settings())
    plan, told = found.summary, dict(found.lines())
    assert plan.reasons == {what: 6, "new": 3}
    assert (plan.requests, plan.in_flight, plan.asked_anew) == (9, 0, 6)
    changed = WHAT_CHANGED[what]
    text = f"6 of the requests are for rows that are in flight: {changed} changed since they were "
    assert told["Sent again"].startswith(text)

    lines = list[str]()
    receipt = started(spec, 60, let_go.value.run_id, told=lines)
    assert sent(emulator) == 6 + plan.requests
    assert receipt.upper_bound_usd == found.to_json()["upper_bound_usd"]
    assert receipt.outcomes == {"succeeded": 9}
    (line,) = (line for line in lines if "sent again" in line)
    pattern = rf"^{changed} changed since 20\d\d-.* UTC: 6 rows are sent again, though their "
    assert re.match(pattern, line)
    assert preview(spec, Settings()).summary.requests == 0


def test_rows_in_flight_whose_source_changed_are_told(emulator: Emulator, tmp_path: Path) -> None:
    """The run that was suspended is carried on as it was planned; the one after it sends them."""
    table = Table(tmp_path, emulator, "anthropic", rows=6)
    spec = table.spec(items_per_batch=3)
    with open_batches(emulator), pytest.raises(SuspendedRunError) as let_go:
        started(spec)
    for value in table.values[2:4]:
        value["text"] = "another text"
    table.write()
    plan = preview(spec, Settings()).summary
    assert (plan.reasons, plan.in_flight, plan.asked_anew) == ({"input": 2}, 4, 2)
    lines = list[str]()
    started(spec, 60, let_go.value.run_id, told=lines)
    assert sent(emulator) == 6
    assert not any("sent again" in line for line in lines)
    started(spec, 60, told=lines)
    assert "the input changed: 2 rows are sent again." in lines
    assert sent(emulator) == 8


EDITED: list[dict[str, Any]] = [
    {},
    {"cost_limit_usd": 1},
    {"time_limit": "2h"},
    {"max_parallel_batches": 3},
    {"fail_if": {"failed_share": 0.9}},
]
"""What may be edited in a spec while its run is suspended, though nothing is to be sent for it."""


@pytest.mark.sampled(7)
@pytest.mark.parametrize("edited", EDITED, ids=lambda edited: "".join(edited) or "nothing")
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "open"])
@pytest.mark.parametrize("asked", ["refresh", "retry_failed"])
def test_what_was_asked_once_is_paid_once(
    emulator: Emulator, tmp_path: Path, asked: str, edited: dict[str, Any], *, finished: bool
) -> None:
    """Resumed, a run asks nothing anew, whoever finished it, and whatever limit was edited."""
    table = Table(tmp_path, emulator, "anthropic", rows=3)
    spec = table.spec(max_attempts=1)
    emulator.control.faults(kind="request_refusal", contains="row 1")
    table.run(max_attempts=1)

    def options() -> Options:
        again = asked == "refresh"
        return Options(refresh_mark(again), retry_failed=not again)

    with open_batches(emulator), pytest.raises(SuspendedRunError) as let_go:
        started(spec, options=options())
    if finished:
        started(spec)
    before, spec = sent(emulator), table.spec(max_attempts=1, **edited)
    started(spec, 60, let_go.value.run_id, options=options())
    assert sent(emulator) == before
    started(spec, 60, options=options())  # asked again, it is done again
    assert sent(emulator) > before


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "asked"])
@pytest.mark.parametrize("edited", EDITED, ids=lambda edited: "".join(edited) or "nothing")
def test_an_edited_spec_undoes_no_cancel(
    emulator: Emulator, tmp_path: Path, edited: dict[str, Any], *, ended: bool
) -> None:
    """What a person cancelled while it was suspended sends nothing more, also as another text."""
    table = Table(tmp_path, emulator, "anthropic", rows=9)
    spec = table.spec(items_per_batch=3, max_parallel_batches=1)
    with open_batches(emulator), pytest.raises(SuspendedRunError) as let_go:
        started(spec)
    if ended:
        cancel(spec, Settings())
    else:
        request_cancel(spec, Settings())
    spec = table.spec(**{"items_per_batch": 3, "max_parallel_batches": 1, **edited})
    if edited or ended:
        with pytest.raises(CancelledRunError):
            started(spec, 60, let_go.value.run_id)
    else:  # it is carried on, which ends it
        assert started(spec, 60, let_go.value.run_id).result == "cancelled"
    assert sent(emulator) == 3


def test_what_was_cancelled_meanwhile_sends_nothing_more(
    emulator: Emulator, tmp_path: Path
) -> None:
    """`batchata cancel` ends a run that was let go of; resumed, it knows, and a new start sends."""
    spec = Table(tmp_path, emulator, "anthropic", rows=9).spec(
        items_per_batch=3, max_parallel_batches=1
    )
    with open_batches(emulator), pytest.raises(SuspendedRunError) as let_go:
        started(spec)
    assert cancel(spec, Settings()).result == "cancelled"
    assert sent(emulator) == 3
    with pytest.raises(CancelledRunError, match="cancelled while it was suspended"):
        started(spec, 0, let_go.value.run_id)
    assert sent(emulator) == 3
    assert started(spec, 60).outcomes == {"succeeded": 9}
