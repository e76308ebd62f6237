"""Opening a ledger: an invalid URL, file or server is one sentence, and nothing is overwritten."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from batchata_tasks.common.errors import BatchataError, LedgerError, SpecError, WrongLedgerError
from batchata_tasks.ledger import Ledger
from batchata_tasks.ledger.tables import SCHEMA_VERSION
from tests.support.commands import python_at_once
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ledgers import Databases
    from tests.support.postgres import Server

REMEDY = "move it away, then run `batchata status SPEC --rebuild`"
RUN: dict[str, Any] = {"name": "n", "spec": "{}", "spec_digest": "s" * 64}


def refusal(url: str, kind: type[BatchataError] = LedgerError) -> str:
    """Return the one sentence that refuses a ledger."""
    with pytest.raises(kind) as caught:
        Ledger(url)
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    return said


# --- any database ---------------------------------------------------------------------------------


def test_opening_again_is_one_read(databases: Databases) -> None:
    """A ledger of today's version is opened by one query, without Alembic."""
    url = databases.new()
    first = Ledger(url)
    first.close()
    code = f"""
import sys
from sqlalchemy import Engine, event
from batchata_tasks.ledger import Ledger
said = []
@event.listens_for(Engine, "before_cursor_execute")
def hear(connection, cursor, statement, *rest):
    said.append(statement.split()[0])
ledger = Ledger({url!r})
assert ledger.id == {first.id!r}
assert [one for one in said if one not in ("BEGIN", "BEGIN IMMEDIATE")] == ["SELECT"], said
assert not any(name.startswith("alembic") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_ledger_of_a_later_version_is_refused(databases: Databases) -> None:
    """Nothing is written to a newer program's ledger."""
    url = databases.new()
    Ledger(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE meta SET schema_version = 99"))
    engine.dispose()
    assert (
        f"has schema version 99, this program writes version {SCHEMA_VERSION}; update it"
        in refusal(url)
    )


def test_processes_that_open_a_new_ledger_at_once_get_the_same(databases: Databases) -> None:
    """The first process makes it; there is one id."""
    url = databases.new()
    code = f"from batchata_tasks.ledger import Ledger; print(Ledger({url!r}).id)"
    processes = python_at_once([code] * 4)
    assert [process.returncode for process in processes] == [0] * 4
    assert len({process.stdout for process in processes}) == 1


def test_an_emptied_meta_table_is_no_ledger(databases: Databases) -> None:
    """Tables without the row that names the ledger are refused.

    With a new id, their money could be spent again.
    """
    url = databases.new()
    Ledger(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM meta"))
    engine.dispose()
    refusal(url, WrongLedgerError)


def test_a_number_that_no_database_holds_is_told(databases: Databases) -> None:
    """A number of more than 63 bits is one sentence, and nothing is written."""
    ledger = Ledger(databases.new())
    lease = ledger.acquire_lease(ledger.dataset_id("file:///d", None), 3600)
    with pytest.raises(LedgerError):
        ledger.begin_run(lease, {**RUN, "cost_limit": 2**63})
    assert ledger.runs_of(None, 5) == []
    ledger.close()


# --- URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "ledger.db",
        "nope://x",
        "nope+driver://user:canary@host/db",
        "mysql://user:canary@host/db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite+aiosqlite:///x.db",
        "postgresql+asyncpg://user:canary@host/db",
        "postgresql+nope://user:canary@host/db",
        "postgresql+psycopg://user:canary@host:port/db",
        "postgresql+psycopg://user:canary@host",
        "://user:canary@host",
        "",
        "sqlite://user:canary@host/ledger.db",
        "sqlite:///ledger.db?timeout=canary",
        "sqlite:///ledger.db?uri=canary",
        "sqlite:///ledger.db?timeout=1&timeout=2",
    ],
)
def test_a_url_that_is_none_of_a_ledgers_is_refused(url: str) -> None:
    """The error names the setting and the two forms of a URL; it never shows a password."""
    said = refusal(url, SpecError)
    assert "BATCHATA_LEDGER_URL" in said
    assert "sqlite:////folder/ledger.db or postgresql+psycopg://user@host/name" in said
    assert "canary" not in said


def test_an_option_that_sqlite_would_not_get_is_refused(tmp_path: Path) -> None:
    """It would have no effect; with `uri=true` it has. Nothing else is printed."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    for options in ("mode=rwc", "uri=0&mode=rwc", "timeout=5&mode=rwc"):
        said = refusal(f"{url}?{options}", SpecError)
        assert said.startswith("BATCHATA_LEDGER_URL: SQLite gets the option 'mode' only by")
    assert list(tmp_path.iterdir()) == []
    Ledger(f"{url}?timeout=5").close()
    Ledger(f"sqlite:///file:{tmp_path / 'other.db'}?mode=rwc&uri=true").close()
    assert (tmp_path / "other.db").exists()


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres needs an extra; the sentence names it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'batchata-flows[postgres]'" in refusal(
        "postgresql+psycopg://user:canary@host/db", SpecError
    )


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_the_usual_forms_of_a_postgres_url_are_understood(postgres: Server, scheme: str) -> None:
    """The URLs that hosters give out work as they are."""
    name = postgres.create()
    Ledger(postgres.url(name).replace("postgresql+psycopg", scheme)).close()
    postgres.drop(name)


# --- files ----------------------------------------------------------------------------------------


def test_the_folder_of_a_ledger_is_made(tmp_path: Path) -> None:
    """The user's data folder is made if it is missing."""
    Ledger(f"sqlite:///{tmp_path / 'a' / 'b' / 'l.db'}").close()
    assert (tmp_path / "a" / "b" / "l.db").exists()


@pytest.mark.parametrize("url", ["sqlite:///{file}/x.db", "sqlite:///{folder}"])
def test_a_path_that_cannot_be_a_file_is_told(tmp_path: Path, url: str) -> None:
    """A file in place of a folder, or a folder in place of the file: the path and the reason."""
    (tmp_path / "file").write_text("x")
    said = refusal(url.format(file=tmp_path / "file", folder=tmp_path), WrongLedgerError)
    assert str(tmp_path) in said
    assert "cannot be opened" in said


def made(path: Path) -> bytes:
    """Make a ledger with some hundred runs, closed and checkpointed; return its bytes."""
    ledger = Ledger(f"sqlite:///{path}")
    lease = ledger.acquire_lease(ledger.dataset_id("file:///d", None), 3600)
    for _ in range(100):
        ledger.begin_run(lease, {**RUN, "spec": "x" * 1000})
    ledger.close()
    return path.read_bytes()


def damaged(content: bytes) -> dict[str, bytes]:
    """Return what a file may look like after a bad copy, a bad disk or a wrong name."""
    random.seed(1)
    return {
        "random": random.randbytes(20_000),
        "few": random.randbytes(50),
        "text": b"no database, whatever it is called\n" * 100,
        "cut in the middle": content[: len(content) // 2],
        "cut at a page": content[: 4096 * 5],
        "cut in the first page": content[:1000],
        "cut in the header": content[:60],
        "first page overwritten": random.randbytes(4096) + content[4096:],
        "all but the header overwritten": content[:100] + random.randbytes(len(content) - 100),
    }


@pytest.mark.parametrize("how", damaged(bytes(5000)).keys())
def test_a_damaged_file_is_refused_and_kept(tmp_path: Path, how: str) -> None:
    """The sentence names the file and the remedy; not a byte of the file changes."""
    path = tmp_path / "ledger.db"
    content = damaged(made(path))[how]
    path.write_bytes(content)
    said = refusal(f"sqlite:///{path}", WrongLedgerError)
    assert str(path) in said
    assert REMEDY in said
    assert path.read_bytes() == content


def test_damage_that_is_met_later_is_told(tmp_path: Path) -> None:
    """A ledger with intact first pages opens.

    The query that reads the damage names the file and the remedy.
    """
    path = tmp_path / "ledger.db"
    content = made(path)
    path.write_bytes(content[: len(content) // 2] + b"\xff" * (len(content) - len(content) // 2))
    ledger = Ledger(f"sqlite:///{path}")
    with pytest.raises(LedgerError, match="damaged") as caught:
        ledger.runs_of(None, 1000)
    assert str(path) in str(caught.value)
    assert REMEDY in str(caught.value)
    ledger.close()


@pytest.mark.parametrize(
    "tables",
    [
        "CREATE TABLE photos (id INTEGER)",
        "CREATE TABLE meta (name TEXT)",
        "CREATE TABLE runs (id TEXT); CREATE TABLE chunks (id TEXT)",
    ],
)
def test_a_database_of_something_else_is_refused_and_kept(tmp_path: Path, tables: str) -> None:
    """That also holds if some names are the same: nothing is added, and the journal mode stays."""
    path = tmp_path / "photos.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(tables)
    content = path.read_bytes()
    said = refusal(f"sqlite:///{path}", WrongLedgerError)
    assert str(path) in said
    assert REMEDY in said
    assert path.read_bytes() == content
    assert [one.name for one in tmp_path.iterdir()] == ["photos.db"]


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """Give a folder of an ordinary user, and be that user: nothing is read-only for root."""
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), os.geteuid() == 0
        folder.chmod(0o777)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            folder.chmod(0o700) if not root else None
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("what", ["file", "folder", "new file"])
def test_what_may_only_be_read_is_told(what: str) -> None:
    """A read-only file or folder is one sentence with the path.

    It comes at the latest when the first run needs the dataset.
    """
    with ordinary_user() as home:
        folder = home / "folder"
        folder.mkdir()
        path = folder / "ledger.db"
        if what != "new file":
            made(path)
        (path if what == "file" else folder).chmod(0o500)
        kinds = (LedgerError, WrongLedgerError)  # the latter if there is no file yet
        with pytest.raises(kinds, match="cannot be opened for writing") as caught:
            Ledger(f"sqlite:///{path}").dataset_id("file:///other", None)
        folder.chmod(0o700)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


# --- servers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("PORT", "1"), "Connection refused"),
        (("PASSWORD", "canary"), 'password authentication failed for user "tester"'),
        (("NAME", "nowhere"), 'database "nowhere" does not exist'),
        (("127.0.0.1", "nowhere.invalid"), "nowhere.invalid"),
        (("tester", "nobody"), "authentication failed"),
        (("/NAME", "/NAME?sslmode=require"), "SSL"),
    ],
)
def test_a_server_that_does_not_let_us_in_is_told(
    postgres: Server, change: tuple[str, str], words: str
) -> None:
    """Host, port and reason in one sentence, at once, and no password."""
    url = "postgresql+psycopg://tester:PASSWORD@127.0.0.1:PORT/NAME".replace(*change)
    said = refusal(
        url.replace("PASSWORD", postgres.password)
        .replace("PORT", str(postgres.port))
        .replace("NAME", "postgres")
    )
    assert words in said
    assert "BATCHATA_LEDGER_URL" in said
    assert "canary" not in said
    assert postgres.password not in said


def test_an_option_that_the_driver_does_not_know_is_told(postgres: Server) -> None:
    """An unknown option is an invalid setting, not a server's refusal."""
    assert 'invalid connection option "nope"' in refusal(
        f"{postgres.url('postgres')}?nope=1", SpecError
    )


def test_a_ledger_lives_beside_other_tables_of_a_server(postgres: Server) -> None:
    """A database may hold other things, unless a name is taken."""
    name = postgres.create()
    postgres.run("CREATE TABLE photos (id int)", database=name)
    Ledger(postgres.url(name)).close()
    other = postgres.create()
    postgres.run("CREATE TABLE runs (id int)", database=other)
    assert "another program" in refusal(postgres.url(other), WrongLedgerError)
    assert postgres.run(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=other
    ) == [("runs",)]
    for one in (name, other):
        postgres.drop(one)


def test_a_user_without_rights_is_told(postgres: Server) -> None:
    """A user who may not make tables reads that."""
    name = postgres.create()
    postgres.run("CREATE ROLE {} LOGIN PASSWORD 'canary'", f"guest_{name}")
    said = refusal(
        postgres.url(name).replace(f"tester:{postgres.password}", f"guest_{name}:canary")
    )
    assert "permission denied for schema public" in said
    postgres.drop(name)
