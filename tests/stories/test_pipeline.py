"""Whole runs without Prefect: real files, the real SDKs over HTTP, both providers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import (
    BatchataError,
    CredentialsError,
    DeclinedError,
    InputError,
    LeaseError,
    TransientError,
    WrongLedgerError,
)
from batchata_tasks.common.money import usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.ledger import ChunkState, Ledger
from batchata_tasks.pipeline import spending
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.planning.summary import Options
from batchata_tasks.progress.listener import LineProgress
from tests.support.books import check_money, run_with, stopping_at
from tests.support.operations import preview
from tests.support.table import SCHEMA, TIME_TO_SEND

if TYPE_CHECKING:
    from batchata_tasks.pipeline.receipt import Receipt
    from tests.support.table import Table

pytestmark = pytest.mark.in_turn


def test_every_row_gets_its_own_answer(table: Table) -> None:
    """Each key has one row, with typed answer columns, the carried column and its own answer."""
    receipt = table.run()
    assert (receipt.result, receipt.exit_code, receipt.outcomes) == (
        "succeeded",
        0,
        {"succeeded": 20},
    )
    rows = table.rows()
    assert [row["id"] for row in rows] == sorted(value["id"] for value in table.values)
    assert all(row["note"] == "n" + row["id"][1:] and row["label"] in "xyz" for row in rows)
    table.check_answers()


def test_a_second_run_sends_nothing(table: Table) -> None:
    """Rows that landed and did not change cost nothing again."""
    table.run()
    before = table.ledger()
    receipt = table.run()
    assert receipt.plan["up_to_date"] == 20
    assert receipt.outcomes == {}
    assert table.ledger() == before


def test_a_changed_row_is_sent_again_alone_and_supersedes(table: Table) -> None:
    """Of 20 rows one changed: one request replaces its row, and the others stay."""
    table.run()
    before = {row["id"]: row for row in table.rows()}
    table.values[7]["text"] = "another text"
    table.write()
    receipt = table.run()
    assert receipt.plan["reasons"] == {"input": 1}
    after = {row["id"]: row for row in table.rows()}
    assert [key for key in after if after[key] != before[key]] == ["k7"]
    assert table.ledger()["requests_accepted"] == 21
    table.check_answers()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": "Say: {{ text }}"}, "prompt"),
        ({"max_tokens": 201}, "model"),
        (
            {
                "response_schema": {
                    "type": "object",
                    "properties": {"label": {"type": "string"}},
                    "required": ["label"],
                }
            },
            "schema",
        ),
    ],
)
def test_a_change_of_the_spec_is_named(table: Table, change: dict[str, Any], reason: str) -> None:
    """A changed prompt, model or schema sends all rows again, under its own name.

    `rerun_on` can forbid it.
    """
    table.run()
    others = [
        known
        for known in ("new", "input", "prompt", "model", "schema", "failed")
        if known != reason
    ]
    assert preview(table.spec(**change, rerun_on=others)).summary.not_asked == 20
    assert table.run(**change).plan["reasons"] == {reason: 20}
    assert table.run(**change).plan["up_to_date"] == 20
    table.rows()


def test_a_carried_column_changes_without_a_request(table: Table) -> None:
    """A carried column that changed is rewritten in place; nothing is sent."""
    table.run()
    sent = table.ledger()["requests_accepted"]
    table.values[3]["note"] = "changed"
    table.write()
    assert table.run().plan["carried"] == 1
    rows = {row["id"]: row for row in table.rows()}
    assert rows["k3"]["note"] == "changed"
    assert rows["k4"]["note"] == "n4"
    assert table.ledger()["requests_accepted"] == sent
    table.check_answers()


def test_a_new_carried_column_reaches_old_rows(table: Table) -> None:
    """`columns` may grow: parts of before get the column, without a request."""
    table.run(columns=[])
    table.run(columns=["note", "text"])
    assert {row["text"] for row in table.rows()} == {value["text"] for value in table.values}
    assert table.ledger()["requests_accepted"] == 20


def test_several_batches_at_a_time(table: Table) -> None:
    """Small batches run side by side; each request is in exactly one of them."""
    receipt = table.run(items_per_batch=3, max_parallel_batches=4)
    assert receipt.batches == 7
    assert table.ledger()["batches_accepted"] == 7
    assert table.ledger()["accepted_twice"]["number"] == 0
    table.check_answers()


def test_limit_takes_the_first_rows_that_need_work(table: Table) -> None:
    """Try 5 before 20: the first five go, then the next five, and the receipt says what remains."""
    assert table.run(limit=5).plan["over_limit"] == 15
    assert sorted(row["id"] for row in table.rows()) == sorted(f"k{i}" for i in range(5))
    table.run(limit=5)
    assert len(table.rows()) == 10


def test_where_keeps_rows_out(table: Table) -> None:
    """Rows for which `where` is false are neither sent nor landed."""
    receipt = table.run(where="id in ['k1', 'k2']")
    assert receipt.plan["filtered"] == 18
    assert [row["id"] for row in table.rows()] == ["k1", "k2"]


@pytest.mark.parametrize(
    ("fault", "outcome", "attempts"),
    [
        ("request_error", "errored", 3),
        ("request_invalid", "errored", 1),
        ("request_expired", "expired", 0),
        ("request_refusal", "refused", 1),
        ("request_truncated", "truncated", 3),
        ("request_invalid_answer", "invalid", 3),
        ("request_missing", "missing", 1),  # its retry is held: it may have been paid for
        ("request_broken_line", "errored", 3),
        ("request_duplicated", "succeeded", 1),
    ],
)
def test_every_row_ends_in_one_outcome(
    table: Table, fault: str, outcome: str, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens to one request, its row is there and says why; the others are untouched."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.1")
    table.emulator.control.faults(kind=fault, contains="row 4")
    receipt = table.run()
    rows = {row["id"]: row for row in table.rows()}
    assert len(rows) == 20
    assert rows["k4"]["_status"] == outcome
    assert (rows["k4"]["_error"] is None) is (outcome == "succeeded")
    assert rows["k4"]["_attempts"] == attempts
    assert sum(row["_status"] == "succeeded" for row in rows.values()) == (
        20 if outcome == "succeeded" else 19
    )
    assert receipt.exit_code == (0 if outcome == "succeeded" else 3)


@pytest.mark.parametrize(
    ("fault", "again"),
    [("request_error", True), ("request_expired", True), ("request_refusal", False)],
)
def test_failed_rows_are_sent_again_by_the_next_run(table: Table, fault: str, again: bool) -> None:
    """The next run takes failed rows alone; a refusal is final until somebody asks for it."""
    table.emulator.control.faults(kind=fault, contains="row 4")
    table.run(max_attempts=1)
    table.emulator.control.clear_faults()
    receipt = table.run()
    assert receipt.plan["reasons"] == ({"failed": 1} if again else {})
    assert receipt.exit_code == (0 if again else 3)
    if not again:
        assert table.run(Options(retry_failed=True)).outcomes == {"succeeded": 1}
    assert all(row["_status"] == "succeeded" for row in table.rows())


def test_attempts_are_counted_over_runs_and_end(table: Table) -> None:
    """After `max_attempts` a row is left alone; tokens and cost are sums over its attempts."""
    table.emulator.control.faults(kind="request_truncated", contains="row 4")
    costs = []
    for attempts in (1, 2, 3):
        table.run(max_attempts=attempts)
        row = next(row for row in table.rows() if row["id"] == "k4")
        assert row["_attempts"] == attempts
        costs.append(row["_cost_usd"])
    assert costs == [costs[0], 2 * costs[0], 3 * costs[0]]
    receipt = table.run()
    assert receipt.plan["exhausted"] == 1
    assert receipt.outcomes == {}


def test_refresh_sends_landed_rows_again(table: Table) -> None:
    """`--refresh` treats landed rows as not landed."""
    table.run()
    assert table.run(Options(refresh_before=now_us())).outcomes == {"succeeded": 20}
    assert len(table.rows()) == 20


@pytest.mark.parametrize(
    ("fault", "outcome", "attempts"),
    [
        ("request_expired", "expired", 0),
        ("request_error", "errored", 1),
        ("request_truncated", "truncated", 1),
        ("request_refusal", "refused", 1),
        ("request_invalid_answer", "invalid", 1),
    ],
)
def test_a_refresh_takes_no_answer_away(
    table: Table, fault: str, outcome: str, attempts: int
) -> None:
    """A row whose new attempt brought no usable answer keeps the one that it had.

    The receipt tells how the attempt ended; the row has its costs.
    """
    table.run(max_attempts=1)
    before = {row["id"]: row for row in table.rows()}
    table.emulator.control.faults(kind=fault, contains="row 4")
    receipt = table.run(Options(refresh_before=now_us()), max_attempts=1)
    assert receipt.outcomes == {outcome: 1, "succeeded": 19}
    told = "1 row kept the earlier answer: the new attempt brought none that can be used"
    assert told in receipt.warnings
    (row,) = (row for row in table.rows() if row["id"] == "k4")
    said = ("label", "confidence", "_response", "_status", "_error", "_fingerprint")
    assert all(row[name] == before["k4"][name] for name in said if name in row)
    assert (row["_status"], row["_attempts"]) == ("succeeded", 1 + attempts)
    commits = [
        json.loads(path.read_text()) for path in (table.output / "_batchata/commits").iterdir()
    ]
    (commit,) = (one for one in commits if one["kept"])
    # what the row no longer says is told, and known if its part is lost and written anew
    assert sum(commit["errors"].values()) == 1
    assert commit["invalid"] == ([row["_custom_id"]] if outcome == "invalid" else [])
    check_money(table)
    table.emulator.control.clear_faults()
    assert table.run(max_attempts=1).outcomes == {}


def test_a_refresh_that_is_stopped_takes_no_answer_away(table: Table) -> None:
    """Rows that a time limit cancelled keep their answers, however often they were sent before."""
    for _ in range(4):
        table.run(Options(refresh_before=now_us()))
    table.emulator.control.faults(kind="never_ends", share=0.5, count=1)
    receipt = table.run(Options(refresh_before=now_us()), time_limit=TIME_TO_SEND)
    assert receipt.outcomes == {"canceled": 10, "succeeded": 10}
    assert {row["_status"] for row in table.rows()} == {"succeeded"}
    assert sorted(row["_attempts"] for row in table.rows()) == [4] * 10 + [5] * 10
    table.check_answers()
    check_money(table)
    assert table.run().outcomes == {}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("lost", ["parts", "newest part", "folder"])
@pytest.mark.parametrize("fault", ["request_expired", "request_error", "request_invalid_answer"])
def test_an_answer_that_a_refresh_kept_outlives_its_part(
    table: Table, fault: str, lost: str
) -> None:
    """It comes back from the results that it was in, also if a second refresh kept it once more."""
    table.run(max_attempts=1)
    table.emulator.control.faults(kind=fault, contains="row 4")
    for _ in range(2):
        table.run(Options(refresh_before=now_us()), max_attempts=1)
    before = table.rows()
    parts = sorted((table.output / "data").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    if lost == "folder":
        shutil.rmtree(table.output)
    else:
        for path in parts[-1:] if lost == "newest part" else parts:
            path.unlink()
    receipt = table.run(max_attempts=1)
    assert (receipt.plan["requests"], receipt.plan["up_to_date"]) == (0, 20)
    said = ("id", "label", "words", "_response", "_status", "_error", "_attempts", "_cost_usd")
    if lost == "folder":  # what an attempt that never ran left is not asked for
        said = said[:-2]
    after = table.rows()
    assert [{k: row[k] for k in said} for row in after] == [
        {k: row[k] for k in said} for row in before
    ]
    if lost != "folder":
        assert after == before
    assert table.ledger()["requests_accepted"] == 60
    check_money(table)


def refreshed(table: Table, **limits: Any) -> Receipt:
    return table.run(Options(refresh_before=now_us()), items_per_batch=5, **limits)


def for_some(table: Table) -> dict[str, Any]:
    """Return a limit within which some of the rows fit, and not all."""
    bound = preview(table.spec(), Options(now_us())).to_json()["upper_bound_usd"]
    return {"cost_limit_usd": float(bound) / 12}


def test_a_refresh_goes_on_after_one_that_was_refused(table: Table) -> None:
    """A run that found bad input, and sent nothing, is none that began anew."""
    table.run()
    limits, begun = for_some(table), now_us()
    assert refreshed(table, **limits).result == "cost_limit_reached"
    done = sum(row["_enriched_at"] >= at(begun) for row in table.rows())
    table.values.append(table.values[0])
    table.write()
    with pytest.raises(InputError, match="key"):
        refreshed(table, **limits)
    table.values.pop()
    table.write()
    planned = preview(table.spec(**limits, items_per_batch=5), Options(now_us()))
    assert planned.summary.reasons == {"refresh": 20 - done}
    assert 0 < done < 20


def test_a_refresh_goes_on_after_one_that_was_declined(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A no at the terminal sends nothing, and begins nothing anew: the rest is what comes next."""
    table.run()
    limits, begun = for_some(table), now_us()
    assert refreshed(table, **limits).result == "cost_limit_reached"
    done = sum(row["_enriched_at"] >= at(begun) for row in table.rows())
    accepted = table.ledger()["requests_accepted"]
    progress = LineProgress(lambda _line: None)
    progress.ask = lambda _question: False
    monkeypatch.setattr(spending, "ASKED_ABOVE", 0)
    spec = table.spec(**limits, items_per_batch=5)
    with pytest.raises(DeclinedError):
        enrich(spec, Options(refresh_before=now_us()), progress=progress)
    assert table.ledger()["requests_accepted"] == accepted
    assert preview(spec, Options(now_us())).summary.reasons == {"refresh": 20 - done}
    assert 0 < done < 20
    assert refreshed(table).plan["reasons"] == {"refresh": 20 - done}


def test_a_refresh_that_a_limit_stopped_goes_on(table: Table) -> None:
    """With a limit each night, one after the other gets to all rows; then it begins anew.

    Runs without `--refresh` between them change nothing, nor does another limit.
    """
    table.run()
    limits, nights = for_some(table), list[set[str]]()
    for _ in range(20):
        begun = now_us()
        receipt = refreshed(table, **limits)
        nights.append({row["id"] for row in table.rows() if row["_enriched_at"] >= at(begun)})
        table.run()
        if receipt.exit_code == 0:
            break
        assert receipt.result == "cost_limit_reached"
        planned = preview(table.spec(**limits, items_per_batch=5), Options(now_us()))
        assert planned.summary.reasons == {"refresh": 20 - len(set[str]().union(*nights))}
        assert any("has not got to all rows, goes on" in text for text in planned.notes)
        limits["cost_limit_usd"] *= 1.1
    assert sum(map(len, nights)) == len(set[str]().union(*nights)) == 20
    assert len(nights) > 1
    assert table.ledger()["requests_accepted"] == 40
    planned = preview(table.spec(**limits, items_per_batch=5), Options(now_us()))
    assert (planned.summary.reasons, planned.notes) == ({"refresh": 20}, ())
    check_money(table)


def at(moment: int) -> datetime:
    return datetime.fromtimestamp(moment / 1e6, UTC)


def test_a_refresh_that_goes_on_sends_what_was_cancelled(table: Table) -> None:
    """Rows that a time limit cancelled were not asked anew, so that they come next."""
    table.run()
    table.emulator.control.faults(kind="never_ends", share=0.5, count=1)
    stopped = table.run(Options(refresh_before=now_us()), time_limit=TIME_TO_SEND)
    assert stopped.outcomes == {"canceled": 10, "succeeded": 10}
    assert table.run(Options(refresh_before=now_us())).plan["reasons"] == {"refresh": 10}
    assert sorted(row["_attempts"] for row in table.rows()) == [2] * 20
    assert table.run(Options(refresh_before=now_us())).plan["reasons"] == {"refresh": 20}


def test_a_refresh_with_another_question_begins_anew(table: Table) -> None:
    """What a limit left of the last one was another spec's, if more than a limit changed."""
    table.run()
    assert refreshed(table, **for_some(table)).result == "cost_limit_reached"
    described = {**SCHEMA, "description": "A label for the text."}
    assert refreshed(table, response_schema=described).plan["reasons"] == {"refresh": 20}


@pytest.mark.parametrize("limit", [{}, {"cost_limit_usd": 0.5}], ids=["no limit", "limit"])
def test_a_refresh_is_not_lost_to_a_run_that_died(table: Table, limit: dict[str, Any]) -> None:
    """`--refresh` after a dead run without it lands that run's rows, and sends all others again.

    A refresh that is carried on sends none twice.
    """
    table.run(**limit)
    table.values.append({"id": "k-new", "text": "text of a new row", "note": "n"})
    table.write()
    for options, sent in ((None, 21), (Options(refresh_before=now_us()), 41)):
        steps = stopping_at(
            "submit",
            lambda chunk: chunk.state == ChunkState.PLANNED,
            KeyboardInterrupt(),
            after=True,
        )
        with pytest.raises(KeyboardInterrupt):
            run_with(table, steps, options, **limit)
        assert table.ledger()["requests_accepted"] == sent
    receipt = table.run(Options(refresh_before=now_us()), **limit)
    assert (receipt.continued, receipt.exit_code) == (True, 0)
    assert table.ledger()["requests_accepted"] == 41
    assert len(table.rows()) == 21


def test_failed_rows_are_not_lost_to_a_run_that_died(table: Table) -> None:
    """`--retry-failed` after a run that died without it sends those that failed for good."""
    table.emulator.control.faults(kind="request_refusal", contains="row 3")
    assert table.run().outcomes == {"refused": 1, "succeeded": 19}
    table.values.append({"id": "k-new", "text": "text of a new one", "note": "n"})
    table.write()
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("submit", lambda _: True, KeyboardInterrupt(), after=True))
    table.emulator.control.clear_faults()
    assert table.run(Options(retry_failed=True)).outcomes == {"succeeded": 1}
    assert {row["_status"] for row in table.rows()} == {"succeeded"}


def test_an_oversized_row_fails_only_itself(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request beyond the provider's limit lands as an error; it is not sent, the others are."""
    from batchata_tasks.planning import planner as plan

    table.values[4]["text"] = "long " * 2000
    table.write()
    monkeypatch.setattr(plan.Packer, "fits_alone", lambda _self, size, _route=0: size < 5000)
    receipt = table.run()
    rows = {row["id"]: row for row in table.rows()}
    assert rows["k4"]["_status"] == "errored"
    assert rows["k4"]["_error"].startswith("too_large:")
    assert rows["k4"]["_batch_id"] is None
    assert receipt.outcomes == {"errored": 1, "succeeded": 19}
    assert table.ledger()["requests_accepted"] == 19


def test_costs_add_up(table: Table) -> None:
    """The sums of dataset, ledger and receipt are equal, to the last digit."""
    receipt = table.run(items_per_batch=6)
    total = sum(row["_cost_usd"] for row in table.rows())
    ledger = Ledger(Settings().ledger_url)
    settled, in_flight = ledger.money(receipt.run_id)
    ledger.close()
    assert receipt.cost_usd is not None
    assert total == Decimal(receipt.cost_usd) == usd(settled)
    assert in_flight == 0


def test_a_cost_limit_is_never_exceeded_and_is_used(table: Table) -> None:
    """With half of the worst case as the limit, batches are split.

    As money is freed, more is sent.
    """
    bound = preview(table.spec()).summary.bound
    assert bound is not None
    limit = float(usd(bound)) / 2
    receipt = table.run(cost_limit_usd=limit)
    assert receipt.cost_usd is not None
    assert Decimal(receipt.cost_usd) <= Decimal(str(limit))
    assert receipt.batches > 1
    assert receipt.outcomes == {"succeeded": 20}


def test_a_reached_cost_limit_is_an_outcome(table: Table) -> None:
    """Too little for one row: nothing is sent, exit code 4; a later run with more continues."""
    receipt = table.run(cost_limit_usd=0.000001)
    assert (receipt.result, receipt.exit_code, receipt.unsent_rows) == ("cost_limit_reached", 4, 20)
    assert table.ledger()["requests_accepted"] == 0
    told = dict(receipt.lines())["Not sent"]
    assert told.startswith(
        "20 rows: the limit leaves too little for any of them: the cheapest may cost $0.000"
    )
    ahead = dict(preview(table.spec(cost_limit_usd=0.000001)).lines())["Limits"]
    assert "too little for any row, of which the cheapest may cost $0.000" in ahead
    assert table.run(cost_limit_usd=1).outcomes == {"succeeded": 20}


def test_an_unpriced_model_has_no_cost_but_null(table: Table) -> None:
    """Without a limit an unpriced model runs; its cost is unknown, never zero."""
    model = {"anthropic": "claude-unheard-of-9", "openai": "gpt-6.2-sol"}[table.provider]
    receipt = table.run(model=model)
    assert receipt.cost_usd is None
    assert {row["_cost_usd"] for row in table.rows()} == {None}


@pytest.mark.parametrize(
    "fault", ["http_500_before", "http_500_after", "drop_before", "drop_after"]
)
def test_an_unclear_create_is_resolved_by_looking(table: Table, fault: str) -> None:
    """A create whose answer is lost is adopted, or sent again once proven absent: never twice."""
    table.emulator.control.faults(kind=fault, count=1)
    receipt = table.run()
    assert receipt.outcomes == {"succeeded": 20}
    assert table.ledger()["accepted_twice"]["number"] == 0
    assert table.ledger()["requests_accepted"] == 20
    table.check_answers()


def test_rate_limits_are_ridden_out(table: Table) -> None:
    """Passing 429s slow a run down and change nothing else."""
    table.emulator.control.faults(kind="http_429", route="create", count=2, retry_after=0.1)
    assert table.run().outcomes == {"succeeded": 20}
    assert table.ledger()["requests_accepted"] == 20


def test_a_cut_download_is_fetched_again(table: Table) -> None:
    """A results stream that breaks, or ends cleanly too early, is downloaded again."""
    table.emulator.control.faults(kind="cut_download", after_bytes=700, count=1)
    table.emulator.control.faults(kind="cut_download", after_bytes=700, clean=True, count=1)
    assert table.run().outcomes == {"succeeded": 20}
    table.check_answers()


def test_a_run_that_stopped_is_carried_on(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error half-way, the next start lands what was sent and sends only the rest."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0")
    for call in (3, 4):  # a queue that seems empty is tried once more
        table.emulator.control.faults(kind="http_429", route="create", nth=call)
    with pytest.raises(TransientError):
        table.run(items_per_batch=5, max_parallel_batches=1)
    table.emulator.control.clear_faults()
    receipt = table.run(items_per_batch=5, max_parallel_batches=1)
    assert receipt.continued
    assert receipt.outcomes == {"succeeded": 20}
    assert table.ledger()["requests_accepted"] == 20
    table.check_answers()


def test_a_dead_run_of_an_older_spec_lands_first(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spec changed while batches were out.

    They land under the old one, then the new one plans.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0")
    for call in (2, 3):
        table.emulator.control.faults(kind="http_429", route="create", nth=call)
    with pytest.raises(BatchataError):
        table.run(items_per_batch=10, max_parallel_batches=1)
    table.emulator.control.clear_faults()
    receipt = table.run(prompt="Now: {{ text }}")
    assert receipt.plan["reasons"] == {"new": 10, "prompt": 10}
    assert len(table.rows()) == 20
    table.check_answers()


def test_only_one_run_at_a_time(table: Table) -> None:
    """While another run holds the dataset, a second one is refused and sends nothing."""
    table.run(limit=1)
    ledger = Ledger(Settings().ledger_url)
    owner = Ledger(Settings().ledger_url)
    dataset_id = ledger.dataset_id(table.output.resolve().as_uri(), None)
    lease = owner.acquire_lease(dataset_id, 30)
    with pytest.raises(LeaseError, match="another run holds this dataset"):
        table.run()
    owner.release_lease(lease)
    assert table.run().outcomes == {"succeeded": 19}
    ledger.close()
    owner.close()


def test_another_ledger_is_refused(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset names the ledger that knows what was paid for; with another one nothing is sent."""
    table.run()
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{table.folder / 'other.db'}")
    with pytest.raises(WrongLedgerError, match="belongs to another ledger"):
        table.run()


def test_a_refused_key_sends_nothing_and_loses_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a 401 the same run continues with a valid key."""
    variable = f"{table.provider.upper()}_API_KEY"
    monkeypatch.setenv(variable, "invalid")
    with pytest.raises(CredentialsError, match="key"):
        table.run()
    monkeypatch.setenv(variable, "good")
    assert table.run().outcomes == {"succeeded": 20}


def test_raw_files_can_be_left_out(table: Table) -> None:
    """With `raw_files: false` request and response files are gone after the run; intents stay."""
    table.run(raw_files=False)
    own = table.output / "_batchata"
    assert list((own / "requests").iterdir()) == []
    assert list((own / "responses").iterdir()) == []
    assert list((own / "intents").glob("*.json"))


def test_a_plan_writes_and_sends_nothing(table: Table) -> None:
    """A preview leaves no dataset and no request behind."""
    plan = preview(table.spec(cost_limit_usd=1))
    assert plan.summary.reasons == {"new": 20}
    assert not table.output.exists()
    assert table.ledger()["requests_accepted"] == 0


def test_direct_runs_load_no_prefect(table: Table) -> None:
    """The pipeline works without importing Prefect."""
    code = (
        "import sys, batchata_tasks.pipeline.runner, batchata_tasks.cli.commands; "
        "sys.exit('prefect' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def sent_as(notes: list[str]) -> list[int]:
    """Return the numbers of batches at the provider, in the order of the reports."""
    return [int(text.split()[1]) for text in notes if text.endswith(": at the provider")]


def test_batches_are_numbered_as_they_are_sent(table: Table) -> None:
    """Batches are numbered from 1 without a gap.

    That also holds if a limit splits batches and leaves rows out; when carried on, a run counts on.
    """
    notes = list[str]()
    table.values[4]["text"] = "dear " * 20_000
    table.write()
    limit = float(usd(preview(table.spec(where="id != 'k4'")).summary.bound or 0))
    changes: dict[str, Any] = {
        "items_per_batch": 3,
        "cost_limit_usd": limit,
        "max_parallel_batches": 1,
    }
    second = stopping_at("poll", lambda chunk: chunk.start >= 3, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        enrich(table.spec(**changes), steps=second, progress=LineProgress(notes.append))
    assert sent_as(notes) == [1, 2]
    notes.clear()
    receipt = enrich(table.spec(**changes), progress=LineProgress(notes.append))
    assert (receipt.continued, receipt.unsent_rows) == (True, 1)
    assert sent_as(notes) == list(range(2, receipt.batches + 1))
