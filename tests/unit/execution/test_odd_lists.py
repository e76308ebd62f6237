"""Lists, clocks, redirections and ids of servers that nobody knows: what was sent is sent once.

Each case is a server whose list, clock or ids are not what the official ones are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import TransientError
from batchata_tasks.emulator.core.fault_kinds import STYLES
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from batchata_tasks.providers import wire
from tests.support.books import check_money
from tests.support.operations import reconcile
from tests.support.table import APIS, MODELS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

pytestmark = pytest.mark.in_turn

ROWS = 5
YEAR = 365 * 86400.0
LOST = {"kind": "drop_after", "nth": 1}
NEVER_CAME = {"kind": "drop_before", "nth": 1}
UNPROVEN = {"kind": "lists_unproven"}
Fault = dict[str, Any]


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0.3")


@pytest.fixture(params=APIS)
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of five rows, for each API."""
    return Table(tmp_path, emulator, request.param, ROWS)


def strike(table: Table, *faults: Fault) -> None:
    for fault in faults:
        table.emulator.control.faults(**fault)


def creates(table: Table) -> int:
    return len(table.emulator.control.ledger()["creates"])


def check_once(table: Table, batches: int = 1, rows: int = ROWS) -> None:
    """Check that every row was accepted once, landed once, and was paid for once."""
    book = table.ledger()
    assert (book["batches_accepted"], book["requests_accepted"]) == (batches, rows)
    assert len(table.rows()) == rows
    table.check_answers()
    check_money(table)


def add_rows(table: Table, name: str = "new") -> None:
    table.values += [
        {"id": f"{name}{i}", "text": f"text of {name} row {i}", "note": ""} for i in range(ROWS)
    ]
    table.write()


def known_then_lost(table: Table, *faults: Fault) -> int:
    """Land a batch, then lose the answer to the create of another one under faults.

    Return how many rows are held.
    """
    assert table.run().outcomes == {"succeeded": ROWS}
    add_rows(table)
    strike(table, LOST, UNPROVEN, *faults)
    return table.run().held_rows


# --- redirections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 303, 307, 308])
def test_a_redirection_of_a_create_is_not_followed(table: Table, status: int) -> None:
    """It may lead to the same call once more: the batch is looked up instead."""
    strike(table, {"kind": "redirect", "status": status, "nth": 1})
    assert table.run().outcomes == {"succeeded": ROWS}
    assert creates(table) == 1
    check_once(table)


# --- lists ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["at_once", "never"])
def test_a_list_of_one_batch_a_page_is_read_to_ours(table: Table, status: Any) -> None:
    """Ours is found behind others of the same moment, however the list says that more follow."""
    control = table.emulator.control
    strike(table, {"kind": "list_short"}, LOST)
    control.freeze()
    control.foreign(table.provider, batches=12, requests=2, ends=status)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


def test_a_list_that_is_not_read_to_its_end_proves_nothing(table: Table) -> None:
    """Its first page has a batch that is known to exist, and hides ours: the rows are held."""
    control = table.emulator.control
    assert table.run().outcomes == {"succeeded": ROWS}
    control.foreign(table.provider, batches=120, requests=2, ends="at_once")
    add_rows(table)
    strike(table, LOST, {"kind": "list_old_first"}, {"kind": "list_repeats"})
    assert (table.run().held_rows, creates(table)) == (ROWS, 2)
    control.clear_faults()
    assert table.ledger()["accepted_twice"]["number"] == 0


@pytest.mark.parametrize(("limit", "most"), [("_MOST_PAGES", 5), ("LONGEST_LIST", 0.05)])
def test_a_list_without_end_proves_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch, limit: str, most: float
) -> None:
    """It is given up after so many pages, or so long; what it shows by then is not all."""
    monkeypatch.setattr(wire, limit, most)
    assert known_then_lost(table, {"kind": "list_endless"}) == ROWS
    read = sum(rule["strikes"] for rule in table.emulator.control.list_faults())
    assert (creates(table), read < 4_000) == (2, True)
    table.emulator.control.clear_faults()
    assert len(reconcile().adopted) == 1
    table.run()
    check_once(table, 2, 2 * ROWS)


def test_a_list_that_says_as_a_text_that_it_ends_proves_an_absence(table: Table) -> None:
    """A create that never came is made again by itself, where the list was read to its end."""
    assert table.run().outcomes == {"succeeded": ROWS}
    add_rows(table)
    strike(table, NEVER_CAME, {"kind": "list_short"})
    assert table.run().outcomes == {"succeeded": ROWS}
    assert creates(table) == 3
    check_once(table, 2, 2 * ROWS)


@pytest.mark.parametrize("counts", ["low_counts", "no_counts", "nonsense"])
def test_counts_in_a_list_hide_no_batch(table: Table, counts: str) -> None:
    """Where a list counts what has begun, or nothing, ours is told by its results or its name."""
    table.emulator.control.progress("seconds", 0.4)
    assert not known_then_lost(table, {"kind": "odd_objects", "style": counts, "route": "list"})
    check_once(table, 2, 2 * ROWS)


# --- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [70 * YEAR, 3600.0])
def test_a_batch_of_the_future_hides_none(table: Table, offset: float) -> None:
    """Somebody's batch with a date to come does not make ours look too old to be it."""
    table.emulator.control.foreign(table.provider, requests=2, ends="at_once", offset=offset)
    strike(table, LOST)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


@pytest.mark.parametrize("years", [-1, -50])
def test_a_server_whose_clock_falls_back_is_believed(table: Table, years: int) -> None:
    """A batch is found that is older, by the server's clock, than all that it could be."""
    assert table.run().outcomes == {"succeeded": ROWS}
    table.emulator.control.advance(years * YEAR)
    add_rows(table)
    strike(table, LOST, UNPROVEN)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table, 2, 2 * ROWS)


def test_results_of_a_server_with_a_wrong_clock_are_waited_for(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a batch ended years ago, by its server's clock, does not make its results old."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "2")
    table.emulator.control.advance(-50 * YEAR)
    route = "results" if table.provider == "anthropic" else "content"
    strike(table, {"kind": "cut_download", "after_bytes": 1200, "clean": True, "count": 1})
    strike(table, {"kind": "not_found", "route": route, "count": 1})
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


# --- looks that do not find the batch -------------------------------------------------------------


def test_a_batch_that_a_list_shows_is_not_gone(table: Table) -> None:
    """A server that knows no single batch by its id, but lists it: its results land."""
    strike(table, {"kind": "not_found"})
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


@pytest.mark.parametrize("faults", [[UNPROVEN, {"kind": "list_empty"}], [{"kind": "list_empty"}]])
def test_a_batch_that_nothing_shows_is_not_gone_for_sure(table: Table, faults: list[Fault]) -> None:
    """A batch that was never seen was not deleted: nothing is given up, and its rows are held."""
    strike(table, {"kind": "not_found"}, *faults)
    for _ in range(2):
        assert table.run().exit_code == 3
    table.emulator.control.clear_faults()
    assert table.run().exit_code == 0
    check_once(table)


def test_a_page_that_says_404_tells_nothing_of_a_batch(table: Table) -> None:
    """A proxy that answers for the API ends the run; the next one lands the batch."""
    strike(table, {"kind": "http_error", "route": "get", "status": 404, "html": True})
    strike(table, {"kind": "list_empty"})
    with pytest.raises(TransientError, match="HTTP 404"):
        table.run()
    table.emulator.control.clear_faults()
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("create", ["answered", "lost"])
@pytest.mark.parametrize("style", ["number", "long"])
def test_ids_of_any_style_are_kept(table: Table, style: str, create: str) -> None:
    """Numbers, and ids of any length, in the answer to a create as in a list."""
    strike(table, {"kind": "odd_id", "style": style}, *([LOST] if create == "lost" else []))
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


@pytest.mark.parametrize("create", ["answered", "lost"])
def test_an_id_that_comes_twice_lands_once(table: Table, create: str) -> None:
    """Nobody can tell two batches of one id apart: the second one's rows are held."""
    strike(table, {"kind": "odd_id", "style": "same"}, UNPROVEN)
    assert table.run().outcomes == {"succeeded": ROWS}
    add_rows(table)
    strike(table, *([LOST] if create == "lost" else []))
    for _ in range(2):
        receipt = table.run()
        assert (receipt.exit_code, receipt.held_rows) == (3, ROWS)
    assert len(table.rows()) == ROWS
    assert creates(table) == 2


def test_another_accounts_batch_of_the_same_id_proves_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that shows a known id, of another account's batch, is not known to show ours."""
    strike(table, {"kind": "odd_id", "style": "same"}, UNPROVEN)
    assert table.run().outcomes == {"succeeded": ROWS}
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "acct:other:key")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{table.folder / 'other.db'}")
        other = str(table.folder / "other")
        assert table.run(output=other).outcomes == {"succeeded": ROWS}
    add_rows(table)
    strike(table, NEVER_CAME)
    assert (table.run().held_rows, creates(table)) == (ROWS, 3)


@pytest.mark.parametrize("create", ["answered", "lost"])
def test_an_id_from_before_a_restart_is_another_batch(table: Table, create: str) -> None:
    """A server that forgot its batches and counts anew proves nothing by an id that was known."""
    strike(table, {"kind": "odd_id", "style": "same"}, UNPROVEN)
    assert table.run().outcomes == {"succeeded": ROWS}
    add_rows(table)
    strike(table, {"kind": "forgets", "route": "list", "nth": 1})
    strike(table, *([LOST] if create == "lost" else []))
    for _ in range(2):
        receipt = table.run()
        assert (receipt.exit_code, receipt.held_rows, creates(table)) == (3, ROWS, 2)


@pytest.mark.parametrize("more", [[], [{"kind": "http_error", "route": "get", "status": 400}]])
def test_a_batch_is_found_that_its_create_did_not_name(table: Table, more: list[Fault]) -> None:
    """A create that is answered with a job's id: the list, or the results, show which it is."""
    strike(table, {"kind": "create_names_job"}, *({**fault, "count": 1} for fault in more))
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)
    (batch,) = table.ledger()["batches"]
    assert {row["_batch_id"] for row in table.rows()} == {batch["id"]}
    assert not reconcile().strays


def test_a_batch_that_its_create_did_not_name_is_waited_for(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as only its results can tell which it is, the run waits for its end."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.01")
    table.emulator.control.progress("seconds", 0.7)
    strike(table, {"kind": "create_names_job"})
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


def never_found(table: Table) -> str:
    """Send a batch that nothing shows, and that its create did not name; return its chunk."""
    strike(table, {"kind": "create_names_job", "nth": 1}, {"kind": "list_empty"})
    receipt = table.run()
    assert (receipt.exit_code, creates(table)) == (3, 1)
    (overdue,) = reconcile().overdue
    return overdue.chunk


def test_a_batch_that_is_never_found_stops_no_other(table: Table) -> None:
    """Its rows are held, new ones are sent, and it lands as soon as a list shows it."""
    never_found(table)
    add_rows(table)
    assert table.run().outcomes == {"succeeded": ROWS}
    table.emulator.control.clear_faults()
    table.run()
    assert creates(table) == 2
    check_once(table, 2, 2 * ROWS)


def test_a_later_run_finds_a_batch_whose_id_is_refused(table: Table) -> None:
    """A server that calls a job's id invalid, rather than not found, is asked for its list, too."""
    never_found(table)
    table.emulator.control.clear_faults()
    strike(table, {"kind": "http_error", "route": "get", "status": 400, "count": 1})
    assert table.run().exit_code == 0
    check_once(table)


def test_a_person_names_the_batch_of_a_create_that_did_not(table: Table) -> None:
    """It is not called sent twice; `--adopt` takes it for the chunk, whose rows land."""
    chunk = never_found(table)
    table.emulator.control.clear_faults()
    (stray,) = reconcile().strays
    assert (stray.twice, stray.may_be) == (None, chunk)
    report = reconcile(ReconcileRequest(adopt={chunk: stray.batch_id}))
    assert (report.adopted, report.strays) == ({chunk: stray.batch_id}, [])
    assert table.run().exit_code == 0
    check_once(table)


@pytest.mark.parametrize("name", ["..", ".", "batch_1\\ud83d"])
@pytest.mark.parametrize("api", MODELS)
def test_what_no_address_can_hold_is_no_id(
    emulator: Emulator, tmp_path: Path, api: str, name: str
) -> None:
    """Dots alone, and half a character, lead to no batch: it is looked up by what else it says."""
    table = Table(tmp_path, emulator, api, ROWS)
    kind = "type" if api == "anthropic" else "object"
    word = "message_batch" if api == "anthropic" else "batch"
    body = f'{{"id": "{name}", "{kind}": "{word}", "status": "validating"}}'
    strike(table, {"kind": "garbled_answer", "body": body, "nth": 1})
    assert table.run().outcomes == {"succeeded": ROWS}
    assert creates(table) == 1
    check_once(table)


# --- objects --------------------------------------------------------------------------------------


@pytest.mark.sampled(6)
@pytest.mark.parametrize("style", STYLES)
def test_a_lost_create_is_found_whatever_its_batch_looks_like(table: Table, style: str) -> None:
    """Complete lists whose objects are odd prove no absence by a size, a name or a time."""
    strike(table, {"kind": "odd_objects", "style": style}, LOST)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)
