"""The source changes while a run waits or is dead: what it has not sent is planned anew."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import InputError
from batchata_tasks.common.money import PICO
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError
from batchata_tasks.ledger import RunEnd, StopReason, opened_ledger
from batchata_tasks.operations.forget import forget
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.pipeline.start import refresh_mark
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.plan import preview
from tests.support.books import billed
from tests.support.jobs import sent
from tests.support.table import APIS, Table, finish_all, open_batches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.reports.preview import Preview
    from batchata_tasks.spec.enrichment import EnrichmentSpec

ONE_AT_A_TIME: dict[str, Any] = {"items_per_batch": 3, "max_parallel_batches": 1}


def start(
    spec: EnrichmentSpec,
    *before: str,
    waits: bool = True,
    options: Options | None = None,
    log: Callable[[str], None] = lambda _text: None,
) -> Receipt:
    """Start a run, which comes back to those that it let go of `before`, or waits for none."""
    return run_prepared(
        prepare_run(spec, Settings()),
        options,
        progress=LineProgress(log),
        letting_go=LettingGo(60 if waits else 0, frozenset(before), is_watched=True),
    )


def suspended(spec: EnrichmentSpec, *before: str, options: Options | None = None) -> str:
    """Start a run that lets go once its next batch is at the provider; return its id."""
    with pytest.raises(SuspendedRunError) as found:
        start(spec, *before, waits=False, options=options)
    return found.value.run_id


def plan(spec: EnrichmentSpec) -> Preview:
    return preview(spec, Settings())


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("comes_back", [True, False], ids=["resumed", "next start"])
def test_rows_that_changed_are_sent_as_they_are_now(
    emulator: Emulator, tmp_path: Path, api: str, *, comes_back: bool
) -> None:
    """Of 12 rows 3 were sent, and 9 are corrected: each is paid once, as `plan` said."""
    table = Table(tmp_path, emulator, api, rows=12)
    spec = table.spec(**ONE_AT_A_TIME)
    with open_batches(emulator):
        run_id = suspended(spec)
    for row in table.values[3:]:
        row["text"] = f"corrected {row['id']}"
    table.write()
    told, before = list[str](), plan(spec).summary
    assert (before.requests, before.in_flight) == (9, 3)
    receipt = start(spec, *([run_id] if comes_back else []), log=told.append)
    assert any("9 rows that were not sent yet changed or left the source" in text for text in told)
    assert (receipt.outcomes, sent(emulator)) == ({"succeeded": 9}, 12)
    table.check_answers()
    with opened_ledger(Settings().ledger_url) as ledger:
        assert ledger.run(run_id).result == RunEnd.OUTDATED
    assert table.run(**ONE_AT_A_TIME).plan["requests"] == 0


@pytest.mark.parametrize("comes_back", [True, False], ids=["resumed", "next start"])
def test_rows_that_left_the_source_are_not_sent(
    emulator: Emulator, tmp_path: Path, *, comes_back: bool
) -> None:
    """What nobody wants any more costs nothing."""
    table = Table(tmp_path, emulator, "anthropic", rows=12)
    spec = table.spec(**ONE_AT_A_TIME)
    with open_batches(emulator):
        run_id = suspended(spec)
    del table.values[3:]
    table.write()
    assert plan(spec).summary.requests == 0
    start(spec, *([run_id] if comes_back else []))
    assert sent(emulator) == len(table.rows()) == 3


def test_a_source_that_is_as_it_was_changes_nothing(emulator: Emulator, tmp_path: Path) -> None:
    """The run goes on with its plan, next to the batches that it has at the provider."""
    table = Table(tmp_path, emulator, "anthropic", rows=12)
    spec = table.spec(**ONE_AT_A_TIME | {"max_parallel_batches": 2})
    with open_batches(emulator):
        run_id = suspended(spec)
        assert suspended(spec, run_id) == suspended(spec) == run_id
    for comes_back in ([run_id], []):
        receipt = start(spec, *comes_back)
        assert (receipt.run_id == run_id) is bool(comes_back)
        assert sent(emulator) == 12


def test_new_rows_are_for_the_next_start(emulator: Emulator, tmp_path: Path) -> None:
    """A run that comes back sends what it planned; one that is started sends them as well."""
    table = Table(tmp_path, emulator, "anthropic", rows=6)
    spec = table.spec(**ONE_AT_A_TIME)
    with open_batches(emulator):
        run_id = suspended(spec)
    table.values += [{"id": f"n{i}", "text": f"new {i}", "note": ""} for i in range(3)]
    table.write()
    with open_batches(emulator):
        assert suspended(spec, run_id) == run_id
    assert plan(spec).summary.requests == 6
    receipt = start(spec)
    assert (receipt.plan["source_rows"], receipt.outcomes) == (9, {"succeeded": 6})
    assert sent(emulator) == len(table.rows()) == 9


@pytest.mark.parametrize("between", ["a death", "a refusal"])
def test_the_limit_holds_for_both_runs(emulator: Emulator, tmp_path: Path, between: str) -> None:
    """What the outdated run spent is gone from `cost_limit_usd`, whatever comes in between."""
    table = Table(tmp_path, emulator, "anthropic", rows=90)
    row = float(plan(table.spec()).to_json()["upper_bound_usd"]) / 90
    spec = table.spec(**ONE_AT_A_TIME, cost_limit_usd=round(4 * row, 9))
    with open_batches(emulator):
        run_id = suspended(spec)
    table.values[20]["text"] = "corrected"
    table.write()
    ahead = plan(spec).to_json()["limits"]
    assert float(ahead["used_usd"]) > 0

    def die(text: str) -> None:
        if "goes on as a run that was planned anew" in text:
            message = "the process is lost"
            raise RuntimeError(message)

    if between == "a death":
        with pytest.raises(RuntimeError, match="is lost"):
            start(spec, log=die)
    else:
        table.values[70]["id"] = "k0"
        table.write()
        with pytest.raises(InputError, match="have the same key"):
            start(spec)
        table.values[70]["id"] = "k70"
        table.write()
    receipt = start(spec)
    assert receipt.run_id != run_id
    assert receipt.result == "cost_limit_reached"
    assert billed(table) <= 4 * row * PICO
    assert receipt.cost_limit_usd is not None
    assert float(receipt.cost_limit_usd) < 4 * row


def test_a_row_limit_holds_for_both_runs(emulator: Emulator, tmp_path: Path) -> None:
    """`limit: 6` sends six rows, whatever the source is between them."""
    table = Table(tmp_path, emulator, "anthropic", rows=12)
    spec = table.spec(**ONE_AT_A_TIME, limit=6)
    with open_batches(emulator):
        run_id = suspended(spec)
    table.values[4]["text"] = "corrected"
    table.write()
    assert plan(spec).summary.requests == 3
    start(spec, run_id)
    assert sent(emulator) == len(table.rows()) == 6


def test_another_attempt_is_within_the_row_limit(emulator: Emulator, tmp_path: Path) -> None:
    """Failed rows of a dead run are sent again, and `plan` counts them, whatever `limit` is."""
    table = Table(tmp_path, emulator, "anthropic", rows=12)
    spec = table.spec(items_per_batch=6, limit=6)
    emulator.control.faults(kind="request_invalid_answer", share=1.0, times=1)

    def die(text: str) -> None:
        if text.endswith("landed"):
            message = "the process is lost"
            raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="is lost"):
        start(spec, log=die)
    summary = plan(spec).summary
    assert (summary.reasons, summary.over_limit) == ({"failed": 6}, 6)
    start(spec)
    assert (sent(emulator), len(table.rows())) == (12, 6)


@pytest.mark.parametrize("comes_back", [True, False], ids=["resumed", "next start"])
@pytest.mark.parametrize("asked", ["refresh", "retry_failed"])
def test_what_was_asked_for_once_is_done_once(
    emulator: Emulator, tmp_path: Path, asked: str, *, comes_back: bool
) -> None:
    """A refresh, or another try of failed rows, goes on: `plan` counts the rest, and it is sent."""
    table = Table(tmp_path, emulator, "anthropic", rows=12)
    if asked == "retry_failed":
        emulator.control.faults(kind="request_refusal", share=1.0)
    table.run(**ONE_AT_A_TIME)
    spec = table.spec(**ONE_AT_A_TIME)
    options = Options(refresh_mark(refresh=asked == "refresh"), retry_failed=asked != "refresh")
    with open_batches(emulator):
        run_id = suspended(spec, options=options)
    assert plan(spec).summary.requests == 9
    table.values[6]["text"] = "corrected"
    table.write()
    assert plan(spec).summary.requests == 9
    start(spec, *([run_id] if comes_back else []), options=options if comes_back else None)
    assert sent(emulator) == 24
    assert plan(spec).summary.requests == 0


def test_failed_rows_keep_their_attempts(emulator: Emulator, tmp_path: Path) -> None:
    """A row that failed in the outdated run has that attempt behind it in the next one."""
    table = Table(tmp_path, emulator, "anthropic", rows=6)
    spec = table.spec(**ONE_AT_A_TIME, max_attempts=2)
    emulator.control.faults(kind="request_invalid_answer", share=1.0)
    with open_batches(emulator):
        run_id = suspended(spec)
    table.values[5]["text"] = "corrected"
    table.write()
    start(spec, run_id)
    assert {row["_attempts"] for row in table.rows()} == {2}
    assert sent(emulator) == 12


def test_what_stops_a_run_stops_the_one_in_its_place(emulator: Emulator, tmp_path: Path) -> None:
    """Answers that landed and are all of no use keep the rest from being sent, edited or not."""
    table = Table(tmp_path, emulator, "anthropic", rows=60)
    spec = table.spec(items_per_batch=30, max_parallel_batches=1)
    emulator.control.faults(kind="request_invalid_answer", share=1.0)
    with open_batches(emulator):
        run_id = suspended(spec)
    table.values[50]["text"] = "corrected"
    table.write()
    for _ in range(2):
        receipt = start(spec, run_id)
        assert (receipt.result, receipt.run_id) == ("no_usable_answer", run_id)
        assert sent(emulator) == 30


@pytest.mark.parametrize("holds", [True, False])
def test_a_pilot_counts_for_the_one_in_its_place(
    emulator: Emulator, tmp_path: Path, *, holds: bool
) -> None:
    """A pilot that landed decides on today's rows: no second one is sent, and none if it failed."""
    table = Table(tmp_path, emulator, "anthropic", rows=12)
    spec = table.spec(items_per_batch=3, pilot={"rows": 4, "max_invalid_share": 0.1})
    if not holds:
        emulator.control.faults(kind="request_invalid_answer", share=1.0)
    with open_batches(emulator):
        run_id = suspended(spec)
    table.values[9]["text"] = "corrected"
    table.write()
    assert plan(spec).summary.pilot == 0
    told = list[str]()
    receipt = start(spec, run_id, log=told.append)
    assert receipt.result == ("succeeded" if holds else "pilot_failed")
    assert sent(emulator) == (12 if holds else 4)
    assert not any("first" in text for text in told if "about to send" in text)


def test_a_cancel_holds_for_the_one_in_its_place(emulator: Emulator, tmp_path: Path) -> None:
    """A run that is cancelled while it is found outdated sends nothing of today's rows."""
    table = Table(tmp_path, emulator, "anthropic", rows=12)
    spec = table.spec(**ONE_AT_A_TIME)
    with open_batches(emulator):
        run_id = suspended(spec)
    table.values[6]["text"] = "corrected"
    table.write()

    def cancelling(text: str) -> None:
        if "planned anew" in text:
            with opened_ledger(Settings().ledger_url) as ledger:
                ledger.request_stop(run_id, StopReason.CANCEL)

    receipt = start(spec, log=cancelling)
    assert (receipt.result, receipt.run_id) == ("cancelled", run_id)
    assert sent(emulator) == 3


@pytest.mark.parametrize("rounds", [1, 2], ids=["before it is planned", "after"])
def test_another_attempt_asks_what_the_source_has_by_then(
    emulator: Emulator, tmp_path: Path, rounds: int
) -> None:
    """Failed rows that were corrected, or taken out, while their batch was open go as they are."""
    table = Table(tmp_path, emulator, "anthropic", rows=6)
    spec = table.spec(items_per_batch=3, max_parallel_batches=2 if rounds == 1 else 1)
    emulator.control.faults(kind="request_invalid_answer", share=1.0)
    emulator.control.progress("reads", 10**6)
    before = suspended(spec)
    for _ in range(rounds if rounds > 1 else 0):  # until the second round is half sent
        finish_all(emulator)
        assert suspended(spec, before) == before
    assert sent(emulator) == (6 if rounds == 1 else 9)
    finish_all(emulator)
    emulator.control.clear_faults()
    emulator.control.progress("immediate")
    table.values[0]["text"] = table.values[4]["text"] = "corrected"
    del table.values[5]
    table.write()
    start(spec, before)
    rows = {row["id"]: row for row in table.rows()}
    for row in table.values:
        found = rows[row["id"]]
        assert found["_status"] == "succeeded"
        assert f'"{row["text"]}"' in json.dumps(table.bodies()[found["_custom_id"]])
    texts = "".join(json.dumps(body) for body in table.bodies().values())
    assert texts.count("text of row 4") == texts.count("text of row 5") == 1


def test_a_source_that_cannot_be_planned_loses_nothing(emulator: Emulator, tmp_path: Path) -> None:
    """What was sent lands; the error names the rows, and nothing more is sent."""
    table = Table(tmp_path, emulator, "anthropic", rows=6)
    spec = table.spec(**ONE_AT_A_TIME)
    with open_batches(emulator):
        run_id = suspended(spec)
    table.values[5]["id"] = "k0"
    table.write()
    with pytest.raises(InputError, match="have the same key"):
        start(spec, run_id)
    assert sent(emulator) == len(table.rows()) == 3


def test_a_row_that_was_not_sent_can_be_forgotten(emulator: Emulator, tmp_path: Path) -> None:
    """Taken out of the source and forgotten while its run waits, it is never sent.

    The next start sends what the plan says.
    """
    table = Table(tmp_path, emulator, "anthropic", rows=12)
    spec = table.spec(**ONE_AT_A_TIME)
    with open_batches(emulator):
        run_id = suspended(spec)
    table.values = [row for row in table.values if row["id"] != "k9"]
    table.write()
    forget(spec, ["k9"], Settings())
    assert plan(spec).summary.requests == 8
    assert b"text of row 9" not in b"".join(
        path.read_bytes() for path in table.output.rglob("*") if path.is_file()
    )
    start(spec, run_id)
    assert sent(emulator) == len(table.rows()) == 11


def test_trouble_of_the_account_is_tried_by_one_batch(emulator: Emulator, tmp_path: Path) -> None:
    """While there is no credit each start sends one batch, whatever the source has by then."""
    table = Table(tmp_path, emulator, "anthropic", rows=12)
    spec = table.spec(items_per_batch=3)
    emulator.control.faults(kind="request_no_credit", share=1.0)
    assert start(spec).result == "account_trouble"
    for night in range(2):
        table.values.append({"id": f"new{night}", "text": f"new {night}", "note": ""})
        table.write()
        before = len(table.ledger()["batches"])
        assert start(spec).result == "account_trouble"
        assert len(table.ledger()["batches"]) == before + 1
    emulator.control.clear_faults()
    for _ in range(2):
        start(spec)
    assert {row["_status"] for row in table.rows()} == {"succeeded"}
    assert len(table.rows()) == 14


@pytest.mark.parametrize("seed", range(6))
def test_nothing_outdated_is_sent(emulator: Emulator, tmp_path: Path, seed: int) -> None:
    """Whatever happens to the source between starts, each request is what it has at that moment.

    No request is paid twice, and in the end the dataset is as the source.
    """
    random = Random(seed)
    table = Table(tmp_path, emulator, random.choice(APIS), rows=random.randint(6, 20))
    spec = table.spec(items_per_batch=random.randint(1, 4), max_parallel_batches=2)
    known, before = set[str](), list[str]()
    for step in range(8):
        with open_batches(emulator):
            try:
                start(spec, *before, waits=False)
            except SuspendedRunError as error:
                before = [error.run_id] if random.random() < 0.6 else []
        fresh = table.bodies().keys() - known
        now = {row["text"] for row in table.values}
        asked = [json.dumps(table.bodies()[name]) for name in fresh]
        assert all(any(f'"{text}"' in body for text in now) for body in asked), step
        known |= fresh
        edit(table, random, step)
    for _ in range(2):
        start(spec)
    assert plan(spec).summary.requests == 0
    everything = [json.dumps(body) for body in table.bodies().values()]
    assert len(everything) == len(set(everything)) == sent(emulator)
    rows = {row["id"]: row for row in table.rows()}
    assert all(rows[row["id"]]["_status"] == "succeeded" for row in table.values)


def edit(table: Table, random: Random, step: int) -> None:
    """Correct a row, take one out, or add one; or leave the source as it is."""
    place = random.randrange(len(table.values))
    done = random.choice(["correct", "remove", "add", "nothing"])
    values: list[dict[str, Any]] = table.values
    if done == "correct":
        values[place]["text"] = f"corrected in step {step}"
    elif done == "remove" and len(values) > 3:
        del values[place]
    elif done == "add":
        values.append({"id": f"new{step}", "text": f"added in step {step}", "note": ""})
    table.write()
