"""Ledgers of older versions are migrated in place, wholly or not at all, and every row stays.

Several programs may open one at the same moment.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, inspect, text

from batchata_tasks.common.errors import LedgerError
from batchata_tasks.ledger import (
    ChunkState,
    Intent,
    Ledger,
    OutcomeTotals,
    RemainingBudget,
    ledger_exists,
    migrations,
)
from batchata_tasks.ledger.engine import make_engine, parse_url
from batchata_tasks.ledger.tables import SCHEMA_VERSION, metadata
from tests.support.commands import python, python_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tests.support.ledgers import Databases

FIRST = (Path(__file__).parent / "ledger_v1.sql").read_text()


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Yield a transaction in a ledger's database, without opening the ledger."""
    engine = make_engine(parse_url(url))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def old(databases: Databases) -> str:
    """Return the URL of a ledger of the first release.

    It has an open run, a batch in flight and an unclear create.
    """
    url = databases.new()
    with connected(url) as connection:
        for statement in FIRST.split(";\n"):
            if statement.strip():
                connection.execute(text(statement.replace(":", r"\:")))
    return url


def content(url: str) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of all tables, with the columns that they have."""
    with connected(url) as connection:
        return {
            name: [
                dict(row)
                for row in connection.execute(
                    text(f"SELECT * FROM {name} ORDER BY 1, 2")
                ).mappings()
            ]
            for name in sorted(inspect(connection).get_table_names())
        }


def schema(url: str) -> Any:
    """Return tables, columns, keys and indexes, in any order of columns."""
    with connected(url) as connection:
        look = inspect(connection)
        return {
            name: (
                {
                    column["name"]: (str(column["type"]), column["nullable"], column["default"])
                    for column in look.get_columns(name)
                },
                look.get_pk_constraint(name)["constrained_columns"],
                sorted(
                    (str(index["name"]), *map(str, index["column_names"]))
                    for index in look.get_indexes(name)
                ),
                [one["column_names"] for one in look.get_unique_constraints(name)],
            )
            for name in look.get_table_names()
        }


def test_every_version_has_its_revision() -> None:
    """Every version has a migration that leads to it."""
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert [step.revision for step in script.walk_revisions()] == [
        str(number) for number in range(SCHEMA_VERSION, 0, -1)
    ]


def test_an_old_ledger_keeps_every_row(old: str) -> None:
    """Each value of each row is what it was; new columns are empty; the ledger's id is the same."""
    before = content(old)
    ledger = Ledger(old)
    assert ledger.id == "1" * 40
    ledger.close()
    after = content(old)
    assert after["meta"][0].pop("schema_version") == SCHEMA_VERSION
    assert before["meta"][0].pop("schema_version") == 1
    added = ("budgets", "corrections", "forgotten", "pauses", "queue_limits", "queue_places")
    assert [after.pop(name) for name in (*added, "passes", "rereads", "untold")] == [[]] * 9
    new = {
        name: {key for row in rows for key in row} - {key for row in before[name] for key in row}
        for name, rows in after.items()
    }
    assert {name: found for name, found in new.items() if found} == {
        "chunks": {"emptied", "expected", "resends", "tokens"},
        "datasets": {"worked_by"},
        "runs": {"stop", "rehearsal"},
        "intents": {"mark", "scope"},
        "outcomes": {"retried", "cache_write_tokens", "list_cost"},
        "reservations": {"budget", "period"},
    }
    # nobody had noted whose parts were emptied, so none is looked for
    assert {(row["state"] == "landed", row.pop("emptied")) for row in after["chunks"]} == {
        (True, 1),
        (False, 0),
    }
    new["chunks"].discard("emptied")
    assert {row[key] for name, keys in new.items() for row in after[name] for key in keys} == {
        None,
        0,
    }
    assert {
        name: [{key: row[key] for key in row if key not in new[name]} for row in rows]
        for name, rows in after.items()
    } == before


def test_an_old_ledger_works(old: str) -> None:
    """A run of the first release is finished.

    What that release did not have works, too: unclear creates, rounds and stops.
    """
    ledger = Ledger(old)
    run = ledger.open_run("d1")
    assert run is not None
    lease = ledger.acquire_lease("d1", 3600)
    assert (run.id, lease.fence) == ("r2", 4)
    sent, doubtful, planned = ledger.chunks("r2")
    assert [sent.state, doubtful.state, planned.state] == [
        ChunkState.SUBMITTED,
        ChunkState.UNCLEAR,
        ChunkState.PLANNED,
    ]
    assert ledger.money("r1") == (40, 0)
    assert ledger.money("r2") == (0, 100)
    assert ledger.outcomes("r1") == {
        "succeeded": OutcomeTotals(9, 90, 9, 3, 40),
        "expired": OutcomeTotals(1),
    }
    assert ledger.intent("c4") == Intent("c4", "account", 10, 3, 1790000000000033, "file-4", None)
    assert ledger.reserve(lease, planned, 150) == RemainingBudget(50, None)
    ledger.collect(lease, sent, {"succeeded": OutcomeTotals(10, cost=20)}, 0, {"invalid": 1})
    ledger.land(lease, sent.id, 0)
    ledger.hold(lease, doubtful.id)
    ledger.adopt_held(lease, doubtful, "b4", "account", "ended")
    ledger.request_stop("r2", "cancel")
    assert ledger.stop_reason("r2") == "cancel"
    assert [chunk.state for chunk in ledger.chunks("r2")] == [
        ChunkState.LANDED,
        ChunkState.SUBMITTED,
        ChunkState.PLANNED,
    ]
    assert ledger.outcomes("r2")["invalid"] == OutcomeTotals(-1)
    ledger.close()


@pytest.mark.parametrize("way", ["migrated", "created", "by revisions alone"])
def test_there_is_one_schema(way: str, old: str, databases: Databases) -> None:
    """A migrated ledger, a new one and one made by all revisions have the same tables."""
    url = old if way == "migrated" else databases.new()
    if way == "by revisions alone":
        with connected(url) as connection:
            migrations.migrate(connection, migrations.BASE, SCHEMA_VERSION)
    else:
        Ledger(url).close()
    with connected(url) as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert (
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        )
    fresh = databases.new()
    Ledger(fresh).close()
    assert schema(url) == schema(fresh)


OPEN = "from batchata_tasks.ledger import Ledger; Ledger({url!r}).close()"


def test_processes_that_migrate_at_once_do_it_once(old: str) -> None:
    """Each process finds it complete, whoever migrated; no row is changed twice."""
    processes = python_at_once([OPEN.format(url=old)] * 4)
    assert [(process.stderr, process.returncode) for process in processes] == [("", 0)] * 4
    ledger = Ledger(old)
    assert ledger.runs_of(None, 9)[0].stop is None
    ledger.close()
    assert content(old)["meta"][0]["schema_version"] == SCHEMA_VERSION


# kills the process after the given number of statements that change the schema
KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
left = [{number}]
def count(connection, cursor, statement, *rest):
    if statement.startswith(("ALTER", "UPDATE meta")):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
event.listen(Engine, "after_cursor_execute", count)
"""


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_kill_in_the_middle_leaves_the_old_ledger(old: str, number: int) -> None:
    """A migration is one transaction: if it dies after any statement, nothing of it remains.

    The next opening migrates.
    """
    before = content(old)
    killed = python(KILLED.format(number=number) + OPEN.format(url=old))
    assert killed.returncode == -signal.SIGKILL
    assert content(old) == before
    Ledger(old).close()
    assert content(old)["meta"][0]["schema_version"] == SCHEMA_VERSION


def test_a_migration_that_fails_leaves_the_old_ledger(old: str) -> None:
    """An error in the last statement undoes the others.

    It is one sentence, and the ledger is as it was.
    """
    before = content(old)

    def refuse(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("UPDATE meta"):
            cursor.execute("SELECT * FROM nowhere")

    from sqlalchemy import Engine

    event.listen(Engine, "before_cursor_execute", refuse)
    try:
        with pytest.raises(LedgerError, match="nowhere"):
            Ledger(old)
    finally:
        event.remove(Engine, "before_cursor_execute", refuse)
    assert content(old) == before


def test_the_first_ledgers_do_not_know_alembic(old: str) -> None:
    """Only `meta` has the version: there is no second truth in a table of Alembic's."""
    Ledger(old).close()
    assert sorted(content(old)) == sorted(metadata.tables)
    engine = create_engine(old)
    assert not inspect(engine).has_table("alembic_version")
    engine.dispose()


def test_looking_migrates_nothing(old: str) -> None:
    """A program that only reads leaves an older ledger as it is, and says what migrates it.

    An older run may be using it.
    """
    before = content(old)
    assert ledger_exists(old)
    with pytest.raises(
        LedgerError,
        match=(
            "^the ledger is of an older version than this program, "
            r".*`batchata status` migrates it, [^.]*\.$"
        ),
    ):
        Ledger(old, read_only=True)
    assert content(old) == before
    Ledger(old).close()
    Ledger(old, read_only=True).close()


def test_looking_makes_nothing(databases: Databases) -> None:
    """An empty database or file is no ledger, and a read does not make one of it."""
    url = databases.new()
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).touch()
    assert not ledger_exists(url)
    assert content(url) == {}
