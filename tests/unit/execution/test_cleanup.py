"""What remains at the provider: no request files of ours, and results until they are deleted.

Results are deleted only on request, and nothing of others is touched.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import BatchataError
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.providers import provider_type
from tests.support.books import check_money, run_with, stopping_at
from tests.support.unclear import leave_in_doubt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.pipeline.receipt import Receipt
    from tests.support.table import Table

pytestmark = pytest.mark.in_turn

ROWS = 6


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.2")


def ended(receipt: Receipt) -> dict[str, int]:
    return {name: rows for name, rows in receipt.outcomes.items() if rows}


def files(table: Table, purpose: str) -> list[dict[str, Any]]:
    """Return the files of ours that the provider still keeps."""
    return [file for file in table.ledger()["files"] if file["purpose"] == purpose]


def foreign_files(table: Table) -> int:
    """Return how many files are kept in all, by the provider's own list."""
    provider = provider_type("openai")()
    return sum(1 for _ in provider.uploads(0.0))


# --- request files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"items_per_batch": 2, "max_parallel_batches": 3}, {"raw_files": False}]
)
def test_a_run_leaves_no_request_file_behind(openai: Table, changes: dict[str, Any]) -> None:
    """Uploads are deleted once their rows have landed; results stay, since nobody asked."""
    openai.run(**changes)
    assert files(openai, "batch") == []
    assert files(openai, "batch_output") != []


FAULTS: list[dict[str, Any]] = [
    {"kind": "request_error", "contains": "row 4"},
    {"kind": "request_invalid_line", "contains": "row 4"},
    {"kind": "batch_expires", "share": 0.5, "count": 1},
    {"kind": "token_limit", "count": 2},
    {"kind": "drop_after", "count": 1},
    {"kind": "http_500_before", "count": 1},
    {"kind": "http_429", "route": "create", "count": 1, "retry_after": 0.01},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault["kind"]))
def test_no_request_file_is_left_whatever_happened(
    openai: Table, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After rounds, failed or repeated batches and unclear creates, each upload is deleted."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "5")
    openai.emulator.control.faults(**fault)
    openai.run()
    assert files(openai, "batch") == []


DEATHS = [
    ("submit", False),
    ("submit", True),
    ("poll", True),
    ("collect", False),
    ("collect", True),
]


@pytest.mark.parametrize(("step", "after"), DEATHS)
def test_no_request_file_is_left_by_a_run_that_died(openai: Table, step: str, after: bool) -> None:
    """When carried on, a run deletes what it uploaded before it died, too."""
    with pytest.raises(KeyboardInterrupt):
        run_with(
            openai,
            stopping_at(step, lambda chunk: chunk.start > 0, KeyboardInterrupt(), after=after),
            items_per_batch=3,
        )
    assert openai.run(items_per_batch=3).continued
    assert files(openai, "batch") == []
    check_money(openai)


@contextmanager
def dying_after_upload() -> Iterator[None]:
    """Let the process die between an upload and the intent to create."""

    def newest(_self: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(provider_type("openai"), "newest", newest)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_an_upload_whose_create_never_came_to_be_is_found_by_its_name(openai: Table) -> None:
    """An upload whose id was never written down is found by the chunk that names it.

    The run that carries on deletes it.
    """
    with dying_after_upload():
        openai.run()
    (orphan,) = files(openai, "batch")
    assert openai.run().continued
    assert orphan["id"] not in {file["id"] for file in openai.ledger()["files"]}
    assert files(openai, "batch") == []
    assert openai.ledger()["requests_accepted"] == ROWS


def test_an_upload_of_a_run_that_is_given_up_is_deleted(openai: Table) -> None:
    """An upload that a changed spec will never send is deleted after a crash, too."""
    with dying_after_upload():
        openai.run()
    assert len(files(openai, "batch")) == 1
    assert ended(openai.run(prompt="Now: {{ text }}")) == {"succeeded": ROWS}
    assert files(openai, "batch") == []


def test_an_upload_that_a_stop_left_unsent_is_deleted(openai: Table) -> None:
    """A chunk that waits for the queue until the time limit is dropped with its files."""
    openai.emulator.control.faults(kind="token_limit")
    openai.emulator.control.foreign("openai", requests=5, ends="never")
    receipt = openai.run(time_limit="1s")
    assert (receipt.exit_code, receipt.unsent_rows) == (5, ROWS)
    assert files(openai, "batch") == []


# --- results --------------------------------------------------------------------------------------


def results_left(table: Table) -> int:
    """Return how many batches' results the provider still keeps."""
    if table.provider == "anthropic":
        return sum(not batch["deleted"] for batch in table.ledger()["batches"])
    return len(files(table, "batch_output"))


@pytest.mark.parametrize("delete", [False, True])
def test_results_are_deleted_where_the_spec_asks_for_it(table: Table, delete: bool) -> None:
    """With `delete_results` no answers of the run remain at the provider, error files included.

    Without it, all of them remain.
    """
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    receipt = table.run(items_per_batch=3, delete_results=delete)
    assert ended(receipt) == {"succeeded": ROWS}
    assert (results_left(table) == 0) is delete
    table.check_answers()
    check_money(table)
    assert table.run(items_per_batch=3, delete_results=delete).plan["up_to_date"] == ROWS


def test_results_are_not_deleted_before_they_are_landed(table: Table) -> None:
    """A run that dies during the download deletes nothing; the next one does, once it has them."""
    with pytest.raises(KeyboardInterrupt):
        run_with(
            table,
            stopping_at("collect", lambda _chunk: True, KeyboardInterrupt()),
            delete_results=True,
        )
    assert table.ledger()["batches"][0]["deleted"] is False
    assert table.run(delete_results=True).outcomes == {"succeeded": ROWS}
    assert results_left(table) == 0


def test_results_of_a_run_that_died_right_after_landing_are_deleted(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run dies after the landing and before the deletion: the next one deletes."""
    from batchata_tasks.execution import land

    def dying(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(land, "discard", dying)
        with pytest.raises(KeyboardInterrupt):
            table.run(delete_results=True)
    table.run(delete_results=True)
    assert results_left(table) == 0


# --- when it fails, and others' things ------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_deletion_that_fails_does_not_fail_the_run(table: Table, status: int) -> None:
    """Whatever the provider answers, the run succeeds and reports that something remains there."""
    table.emulator.control.faults(kind="http_error", status=status, route="delete")
    table.emulator.control.faults(kind="http_error", status=status, route="delete_file")
    notes: list[str] = []
    receipt = enrich(table.spec(delete_results=True), progress=LineProgress(notes.append))
    assert (receipt.exit_code, receipt.outcomes) == (0, {"succeeded": ROWS})
    strikes = sum(rule["strikes"] for rule in table.emulator.control.list_faults())
    assert strikes >= 1
    if status != 404:
        assert any("at the provider until it deletes them" in text for text in notes)


@pytest.mark.parametrize("status", [404, 405, 501])
@pytest.mark.parametrize("fault", [None, {"kind": "token_limit", "count": 2}])
def test_files_need_not_be_listed(openai: Table, fault: dict[str, Any] | None, status: int) -> None:
    """Where files cannot be listed, nothing is left behind, and there is nothing to say about it.

    A run that went from its begin to its end knows what it uploaded, and asks for no list.
    """
    openai.emulator.control.faults(kind="http_error", status=status, route="list_files")
    if fault is not None:
        openai.emulator.control.faults(**fault)
    notes: list[str] = []
    assert enrich(openai.spec(), progress=LineProgress(notes.append)).exit_code == 0
    assert files(openai, "batch") == []
    assert not any("file" in note or "upload" in note for note in notes)
    lists = [
        rule for rule in openai.emulator.control.list_faults() if rule["route"] == "list_files"
    ]
    assert [rule["strikes"] for rule in lists] == [0]


def test_what_a_refused_create_uploaded_is_deleted_at_once(openai: Table) -> None:
    """A run that an error stopped leaves no upload to a next run, which may never come."""
    openai.emulator.control.faults(kind="http_error", status=400, route="create", count=1)
    with pytest.raises(BatchataError):
        openai.run()
    assert files(openai, "batch") == []
    assert openai.run().outcomes == {"succeeded": ROWS}


def test_an_upload_that_may_be_in_use_is_not_deleted(
    openai: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as a create is in doubt, its batch may need the file, whatever stopped the run."""
    leave_in_doubt(openai, monkeypatch)
    assert len(files(openai, "batch")) == 1
    assert openai.run().outcomes == {"succeeded": ROWS}
    assert files(openai, "batch") == []


@pytest.mark.parametrize("status", [404, 500])
def test_a_list_of_files_that_fails_does_not_fail_the_run(openai: Table, status: int) -> None:
    """A failed search for leftovers is told in whole sentences, and the run ends well."""
    with dying_after_upload():
        openai.run()
    openai.emulator.control.faults(kind="http_error", status=status, route="list_files")
    notes: list[str] = []
    receipt = enrich(openai.spec(), progress=LineProgress(notes.append))
    assert (receipt.continued, receipt.exit_code) == (True, 0)
    told = [note for note in notes if "Request files that were uploaded" in note]
    assert len(told) == (status == 500)
    assert all(re.search(r"[.!] Request files", note) for note in told)


def test_files_and_batches_of_others_are_untouched(table: Table) -> None:
    """Other programs' uploads and batches of the same account stay, with `delete_results` too."""
    control = table.emulator.control
    control.foreign(table.provider, batches=3, requests=ROWS, ends="at_once", offset=-5)
    control.foreign(table.provider, batches=1, requests=ROWS, ends="never")
    before = foreign_files(table)
    control.faults(kind="drop_after", nth=1)
    with pytest.raises(KeyboardInterrupt):
        run_with(
            table,
            stopping_at("poll", lambda _chunk: True, KeyboardInterrupt()),
            delete_results=True,
        )
    assert table.run(delete_results=True).outcomes == {"succeeded": ROWS}
    assert foreign_files(table) == before
    assert {batch["deleted"] for batch in table.ledger()["foreign"]} == {False}


def test_another_dataset_s_uploads_are_untouched(openai: Table) -> None:
    """Of two datasets of one account, neither deletes what the other has yet to send."""
    with dying_after_upload():
        openai.run(output=str(openai.folder / "other"))
    (theirs,) = files(openai, "batch")
    openai.run()
    assert files(openai, "batch") == [theirs]
