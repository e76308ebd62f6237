"""Fixtures for all tests: no test can reach a paid API, and one emulator serves them."""

from __future__ import annotations

import gc
import os
import re
import shutil
import socket
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from zlib import crc32

import anthropic
import certifi
import openai
import pytest
import typer.testing
from hypothesis import settings

from batchata_tasks.emulator import Emulator
from batchata_tasks.ledger import engine
from batchata_tasks.providers import blocks, registry
from tests.support.block_store import BlockStore
from tests.support.by_day import EVERY_CASE, drawn, examples
from tests.support.dialect import sharing_one_dialect
from tests.support.launcher import FOLDER
from tests.support.ledgers import Databases, PostgresDatabases, SqliteFiles
from tests.support.postgres import LazyServer, Server
from tests.support.prefect_server import Server as PrefectServer
from tests.support.prefect_server import migrated_database
from tests.support.table import MODELS, Table

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_OURS = ("ANTHROPIC_", "OPENAI_", "HOUSE_", "BATCHATA_", "PREFECT_")
_END = "-----END CERTIFICATE-----"
# nothing listens there: a test that forgets the emulator gets a refused connection, never a bill
_NOWHERE = "http://127.0.0.1:9"
_ROOM = 4 << 30  # bytes; the tests' files take half a gigabyte
_TURNS = re.compile(r"(?<=[\[-])(anthropic|openai|responses|sqlite|postgres)(?=[-\]])")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' files in memory if there is room: no test is about a machine that stops.

    A run syncs each file that counts, and thousands of runs would wait for the disk. The processes
    that share the tests also share the launchers of runs.
    """
    if config.getoption("--every-case"):
        os.environ[EVERY_CASE] = "1"
    # a busy machine is no error
    settings.register_profile("any_machine", deadline=None, max_examples=examples(100))
    settings.load_profile("any_machine")
    if FOLDER not in os.environ:
        folder = TemporaryDirectory()
        config.add_cleanup(folder.cleanup)
        os.environ[FOLDER] = folder.name
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-case",
        action="store_true",
        help="run each provider's case of tests marked `in_turn`, each case of tests marked "
        "`sampled`, and all examples of Hypothesis",
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no cycles while tests are collected, nor ever among what was made by then.

    Modules and tests are a million objects that stay, and each look would walk over all of them.
    Afterwards looks are rarer than Python's own: those took a tenth of the suite's time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep one case of each test marked `in_turn`, and some of each marked `sampled`."""
    if config.getoption("--every-case"):
        return
    chosen = _some_of_each(_whose_turn_it_is(items))
    if left_out := set(items).difference(chosen):
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = chosen


def _whose_turn_it_is(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the items without the other cases of tests that take turns; the test's name draws."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        marked = isinstance(item, pytest.Function) and item.get_closest_marker("in_turn")
        cases.setdefault(_TURNS.sub("", item.nodeid) if marked else item.nodeid, []).append(item)
    chosen = {each[crc32(test.encode()) % len(each)] for test, each in cases.items()}
    return [item for item in items if item in chosen]


def _some_of_each(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the items with as many cases of each sampled test as its mark says."""
    sampled: dict[tuple[str, int], dict[str, pytest.Item]] = {}
    for item in items:
        mark = item.get_closest_marker("sampled")
        if mark and mark.args and not item.get_closest_marker("nights"):
            test = item.nodeid.partition("[")[0], int(mark.args[0])
            sampled.setdefault(test, {})[item.nodeid] = item
    left_out = {
        item
        for (_, number), cases in sampled.items()
        for item in set(cases.values()).difference(drawn(cases, number))
    }
    return [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def _isolated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Give each test an environment and folders of its own."""
    if request.node.get_closest_marker("live"):
        return
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        if name != "PREFECT_API_URL" or "prefect_server" not in request.fixturenames:
            monkeypatch.delenv(name)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", _NOWHERE)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{_NOWHERE}/v1")
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    monkeypatch.setenv("BATCHATA_POLL_INTERVAL", "0.05")
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0.3")
    monkeypatch.setenv("BATCHATA_PATIENCE", "5")


@pytest.fixture(autouse=True, scope="session")
def _few_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have every client of a test read one certificate authority instead of all.

    Reading them takes longer than most tests, and nothing here uses TLS.
    """
    first, mark, _ = Path(certifi.where()).read_text(encoding="utf-8").partition(_END)
    one = tmp_path_factory.mktemp("authorities") / "one.pem"
    one.write_text(first + mark + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(one))
        yield


@pytest.fixture(autouse=True, scope="session")
def _quick_retries() -> Iterator[None]:
    """Have the SDKs and the program try again soon: no promise rests on the first wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchata_tasks.execution.context.FIRST_PAUSE", 0.05)
        patch.setattr("batchata_tasks.execution.download._FIRST_PAUSE", 0.05)
        patch.setattr("batchata_tasks.execution.unclear._FIRST_PAUSE", 0.1)
        for sdk in (anthropic, openai):
            patch.setattr(sdk._base_client, "INITIAL_RETRY_DELAY", 0.01)
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_command_line() -> Iterator[None]:
    """Have typer build the commands once, not at each call: that took half of a refusal's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", cache(typer.testing._get_command))
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_dialect() -> Iterator[None]:
    """Have all SQLite ledgers of the session compile each statement once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "create_engine", sharing_one_dialect())
        yield


@pytest.fixture(scope="session")
def _one_emulator() -> Iterator[Emulator]:
    with Emulator(anonymous=True) as emulator:
        yield emulator


@pytest.fixture
def emulator(_one_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Return an emulator that knows nothing yet, with both SDKs pointed at it."""
    _one_emulator.control.reset()
    for name, value in _one_emulator.env().items():
        monkeypatch.setenv(name, value)
    return _one_emulator


@pytest.fixture
def block_store(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockStore]:
    """Let blocks of credentials be read from memory; there are none to begin with."""
    monkeypatch.setattr(blocks, "_BLOCKS", BlockStore.__module__)
    store = BlockStore(emulator)
    yield store
    store.clear()


@pytest.fixture(params=MODELS)
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of the test module's ROWS (else 20), for each provider."""
    return _table_of(request, emulator, tmp_path, request.param)


@pytest.fixture(name="anthropic")
def anthropic_table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return such a table for Anthropic, whose batches carry no name."""
    return _table_of(request, emulator, tmp_path, "anthropic")


@pytest.fixture(name="openai")
def openai_table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return such a table for OpenAI, which keeps files."""
    return _table_of(request, emulator, tmp_path, "openai")


def _table_of(
    request: pytest.FixtureRequest, emulator: Emulator, folder: Path, provider: str
) -> Table:
    return Table(folder, emulator, provider, getattr(request.module, "ROWS", 20))


@pytest.fixture
def house(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Make a third provider known for one test, with its prices; return the name of its model."""
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    from tests.support.house import HouseProvider  # registers, when it is first imported

    registry.register(HouseProvider, models="^house-")
    monkeypatch.setenv("HOUSE_BASE_URL", emulator.openai_url)
    monkeypatch.setenv("HOUSE_API_KEY", "acct:house:key")
    prices = tmp_path / "house-prices.toml"
    prices.write_text(
        '[house."house-luna"]\ninput = 1.5\noutput = 3\nas_of = 2026-11-01\nsource = "the house"\n'
    )
    monkeypatch.setenv("BATCHATA_PRICES", str(prices))
    return "house-luna"


@pytest.fixture(scope="session")
def free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return an empty database of Prefect, which all workers share; tests copy it."""
    base = tmp_path_factory.getbasetemp()
    return migrated_database(base if worker_id == "master" else base.parent)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, prefect_database: Path
) -> Iterator[PrefectServer]:
    """Run a Prefect server for the module."""
    with PrefectServer(tmp_path_factory.mktemp("prefect"), prefect_database) as running:
        yield running


@pytest.fixture(scope="session")
def _postgres() -> Iterator[LazyServer]:
    lazy = LazyServer()
    yield lazy
    lazy.close()


@pytest.fixture
def postgres(_postgres: LazyServer) -> Server:
    """Return the session's Postgres; skips the test if there can be none."""
    return _postgres.server


@pytest.fixture(params=["sqlite", "postgres"])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Databases]:
    """Return the place of a test's ledgers; the test runs once for each kind of database."""
    if request.param == "sqlite":
        yield SqliteFiles(tmp_path)
        return
    made = PostgresDatabases(request.getfixturevalue("postgres"))
    yield made
    made.close()
