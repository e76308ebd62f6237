"""Keys stay secret: a canary is searched for in everything that runs leave behind.

The search knows the key as it is, in halves, in base64, hexadecimal and URL encoding, and looks
into compressed tables and databases as well as at the raw bytes of every file.
"""

from __future__ import annotations

import base64
import logging
import os
import pickle
import secrets
import socket
import sqlite3
import subprocess
import sys
import traceback
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import BatchataError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.contexts import context_of
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.providers import open_adapter, provider_type
from batchata_tasks.spec.loading import load_spec
from tests.support.paths import ROOT
from tests.support.prefect_server import give_database
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef
    from tests.support.block_store import BlockStore

HALVES = (secrets.token_hex(16), secrets.token_hex(16))
CANARY = "sk-canary/" + "+".join(HALVES)
PROVIDERS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
ROWS = 12


def _base64(text: str) -> Iterator[bytes]:
    """Yield the forms of `text` inside a longer text in base64, at each of the three offsets."""
    for offset in range(3):
        padded = b"\0" * offset + text.encode()
        # characters that hold bits of `text` alone
        core = slice(-(-offset * 4 // 3), len(padded) * 4 // 3)
        yield base64.b64encode(padded)[core]
        yield base64.urlsafe_b64encode(padded)[core]


NEEDLES = {
    *(text.encode() for text in (*HALVES, CANARY, quote(CANARY, safe=""), CANARY.encode().hex())),
    *_base64(CANARY),
    *(found for half in HALVES for found in _base64(half)),
}


def gives_away(content: bytes | str) -> bool:
    raw = content.encode() if isinstance(content, str) else content
    return any(needle in raw for needle in NEEDLES)


def contents(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, and its content that is compressed or spread over pages."""
    raw = path.read_bytes()
    yield raw
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield f"{table.schema.metadata} {table.to_pylist()}".encode()
    elif path.suffix == ".arrow":
        table = pa.ipc.open_file(raw).read_all()
        yield f"{table.schema.metadata} {table.to_pylist()}".encode()
    elif raw.startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(path)) as database:
            yield "\n".join(database.iterdump()).encode(errors="replace")


def files_that_give_away(root: Path) -> list[str]:
    """Return the files under `root` that hold the canary in any form.

    There must be files to search.
    """
    paths = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert paths
    names: list[str] = []
    for path in paths:
        with suppress(
            FileNotFoundError
        ):  # a database that is closed at this moment takes its log along
            if gives_away(str(path)) or any(map(gives_away, contents(path))):
                names.append(str(path))
    return names


@pytest.fixture
def project(tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one spec per provider, a home of its own, and the canary as key.

    Its ledger is at the default place.
    """
    root = tmp_path / "project"
    root.mkdir()
    (root / "rows.csv").write_text("name,text\n" + "".join(f"p{i},text {i}\n" for i in range(ROWS)))
    for provider, model in PROVIDERS.items():
        values = {
            "name": f"topics-{provider}",
            "source": "rows.csv",
            "key": "name",
            "model": model,
            "prompt": "{{ text }}",
            "max_tokens": 64,
            "output": f"out-{provider}",
            "cost_limit_usd": 1,
        }
        (root / f"{provider}.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(root)
    for name in ("HOME", "PREFECT_HOME", "XDG_DATA_HOME", "TMPDIR"):
        (root / name).mkdir()
        monkeypatch.setenv(name, str(root / name))
    monkeypatch.delenv("BATCHATA_LEDGER_URL", raising=False)
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0.2")
    monkeypatch.setenv("BATCHATA_PATIENCE", "1")
    use_key(CANARY, monkeypatch)
    return root


def use_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, key)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def run(*words: str) -> tuple[int, str]:
    """Run a command in this process; return its exit code and all that it printed or raised."""
    result = CliRunner().invoke(app, words)
    raised = "".join(traceback.format_exception(result.exception)) if result.exception else ""
    return result.exit_code, result.stdout + result.stderr + raised


_RUNS = """
import sys
from batchata_tasks.cli.commands import app

wanted = {wanted}
codes = [app(["run", *words], standalone_mode=False) for words in wanted]
sys.exit(0 if codes == list(wanted.values()) else f"exit codes {{codes}}")
"""
_DIRECTLY = _RUNS.format(wanted={("anthropic.yaml", "--direct"): 0, ("openai.yaml", "--direct"): 0})
_THROUGH_PREFECT = _RUNS.format(
    wanted={("anthropic.yaml",): 0, ("openai.yaml",): 0, ("openai.yaml", "--refresh"): 1}
)


def in_shell(code: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run commands one after the other in one process, so that Prefect starts once for all."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("form", ["raw", "base64", "quoted", "parquet", "arrow", "sqlite", "name"])
def test_the_search_finds_what_is_hidden(form: str, tmp_path: Path) -> None:
    """A canary planted in any of these places is found, so that finding none means something."""
    long = "x" * 5003 + CANARY + "y" * 5000  # over several pages of a database
    table = pa.table({"text": [long, long]})
    match form:
        case "raw":
            (tmp_path / "a.log").write_text(long)
        case "base64":
            (tmp_path / "a.log").write_bytes(base64.b64encode(f"Bearer {CANARY}".encode()))
        case "quoted":
            (tmp_path / "a.log").write_text(f"?key={quote(CANARY, safe='')}")
        case "parquet":
            pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
        case "arrow":
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            with pa.ipc.new_file(tmp_path / "a.arrow", table.schema, options=options) as writer:
                writer.write_table(table)
        case "sqlite":
            with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
                database.execute("CREATE TABLE t (text)")
                database.execute("INSERT INTO t VALUES (?)", (long,))
        case _:
            (tmp_path / HALVES[0]).write_text("nothing")
    assert len(files_that_give_away(tmp_path)) == 1
    (tmp_path / "innocent.log").write_text("sk-canary/ is only the beginning")
    assert len(files_that_give_away(tmp_path)) == 1


FAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    "rate-limit": {"kind": "http_429", "route": "create", "count": 1, "retry_after": 0.01},
    "server-error": {"kind": "http_500_before", "count": 1},
    "dropped": {"kind": "drop_before", "count": 1},
    "dropped-after-accepting": {"kind": "drop_after", "count": 1},
    "refused-request": {"kind": "http_error", "route": "create", "status": 400, "count": 1},
    "refused-access": {"kind": "http_error", "route": "create", "status": 403, "count": 1},
    "cut-download": {"kind": "cut_download", "after_bytes": 10, "count": 1},
}
STOPPED = {"refused-request": 1, "refused-access": 2}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_direct_runs_leave_no_key(
    provider: str,
    project: Path,
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs that succeed, fail in any way, are refused or find no server leave no key.

    It is in no file, line or log.
    """
    caplog.set_level(logging.DEBUG)
    printed: dict[str, str] = {}
    for fault, knobs in FAULTS.items():
        if knobs:
            emulator.control.faults(**knobs)
        code, printed[fault] = run("run", f"{provider}.yaml", "--direct", "--limit", "1")
        assert code == STOPPED.get(fault, 0), printed[fault]
        assert not knobs or emulator.control.list_faults()[-1]["strikes"] == 1
        emulator.control.clear_faults()
    for command in (("plan",), ("status",), ("show",)):
        code, printed[command[0]] = run(*command, f"{provider}.yaml")
        assert code == 0
    with monkeypatch.context() as patch:
        patch.setenv(f"{provider.upper()}_BASE_URL", f"http://127.0.0.1:{unused_port()}/api")
        code, printed["unreachable"] = run("run", f"{provider}.yaml", "--direct")
    assert code == 1
    assert "cannot reach" in printed["unreachable"]
    assert [name for name, text in printed.items() if gives_away(text)] == []
    assert not gives_away(caplog.text)
    assert (project / "XDG_DATA_HOME/batchata/ledger.db").exists()
    assert files_that_give_away(project) == []


@pytest.mark.slow
def test_the_sdks_own_debug_logs_hold_no_key(project: Path, emulator: Emulator) -> None:
    """With the SDKs' debug logging on, a process prints a lot, and not the key."""
    done = in_shell(_DIRECTLY, ANTHROPIC_LOG="debug", OPENAI_LOG="debug")
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed.decode()
    assert printed.count(b"Request options") > len(PROVIDERS)
    assert not gives_away(printed)
    assert files_that_give_away(project) == []


@pytest.mark.slow
def test_prefect_keeps_no_key(project: Path, emulator: Emulator, prefect_database: Path) -> None:
    """Runs through Prefect, one of them with an error, leave no key.

    It is not in the database, results or logs at DEBUG.
    """
    give_database(prefect_database, project / "PREFECT_HOME")
    emulator.control.faults(kind="http_error", route="get", status=500, count=2)
    emulator.control.faults(kind="http_error", route="create", status=400, provider="openai", nth=2)
    done = in_shell(_THROUGH_PREFECT, PREFECT_LOGGING_LEVEL="DEBUG")
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed.decode()[-3000:]
    assert b"enrich topics-openai" in printed
    databases = list((project / "PREFECT_HOME").rglob("*.db"))
    assert any(b"topics-openai" in content for path in databases for content in contents(path))
    assert not gives_away(printed)
    assert files_that_give_away(project) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nothing_in_a_live_run_shows_the_key(
    provider: str, project: Path, emulator: Emulator
) -> None:
    """No repr in a live run has the key.

    That is settings, run context, dataset, ledger, provider and its SDK client, in every step.
    """
    seen: list[str] = []

    def watched(step: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        def look(ref: RunRef, *more: str) -> dict[str, Any]:
            session = context_of(ref)
            (route,) = session.state.routes.values()
            client = vars(route.provider)
            for thing in (
                session,
                session.held,
                session.settings,
                session.ledger,
                route,
                route.provider,
                session.ref,
                vars(session)["table"],
                client,
                vars(session),
            ):
                seen.extend((repr(thing), str(thing)))
            value = step(ref, *more)
            seen.append(repr(value))
            return value

        return look

    steps = Steps()
    steps = replace(
        steps,
        **{
            name: watched(getattr(steps, name))
            for name in ("plan", "chunk", "submit", "poll", "collect")
        },
    )
    spec = load_spec(f"{provider}.yaml")
    receipt = enrich(spec, steps=steps)
    ready = prepare_run(spec, Settings())
    seen += [
        repr(receipt),
        repr(receipt.to_json()),
        repr(spec),
        repr(ready),
        repr(vars(ready)),
        repr(Settings()),
        str(Settings()),
    ]
    assert len(seen) > 80
    assert [text for text in seen if gives_away(text)] == []


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 429, 500, 529])
def test_errors_carry_no_key(provider: str, status: int, project: Path, emulator: Emulator) -> None:
    """An error of any status has no key.

    That holds for its causes, text, repr, traceback and pickle.
    """
    emulator.control.faults(kind="http_error", status=status)
    adapter = provider_type(provider)()
    adapter._client = adapter._client.with_options(max_retries=0)  # type: ignore[attr-defined]
    with pytest.raises(BatchataError) as caught:
        adapter.look("batch_of_mine")
    error = caught.value
    told = [str(error), repr(error), "".join(traceback.format_exception(error))]
    assert [text for text in told if gives_away(text)] == []
    assert not gives_away(pickle.dumps(error))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_key_that_no_header_takes_is_not_printed(
    provider: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key with a line end, as in some secret files, is refused without being shown."""
    use_key(CANARY + "\n", monkeypatch)
    code, printed = run("run", f"{provider}.yaml", "--direct")
    assert not gives_away(printed)
    assert files_that_give_away(project) == []
    assert code == 2


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [400, 401])
def test_a_provider_that_repeats_the_key_is_not_quoted(
    provider: str, status: int, project: Path, emulator: Emulator
) -> None:
    """If an error of the provider (or of a proxy before it) repeats the key, ours does not.

    That holds for what is printed and for what is stored.
    """
    message = f"Incorrect API key provided: {CANARY}. You can find yours in the console."
    emulator.control.faults(kind="http_error", status=status, message=message)
    code, printed = run("run", f"{provider}.yaml", "--direct")
    assert code == (1 if status == 400 else 2), printed
    assert not gives_away(printed)
    assert files_that_give_away(project) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_key_of_a_block_leaves_no_trace(
    provider: str,
    project: Path,
    emulator: Emulator,
    block_store: BlockStore,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is in no file, line, log or repr, nor is it quoted if a provider repeats it."""
    caplog.set_level(logging.DEBUG)
    use_key("some-key", monkeypatch)
    block_store.save("research", CANARY)
    with (project / f"{provider}.yaml").open("a") as spec:
        spec.write("credentials: research\n")
    message = f"Incorrect API key provided: {CANARY}. You can find yours in the console."
    emulator.control.faults(kind="http_error", status=400, message=message, count=1)
    code, printed = run("run", f"{provider}.yaml", "--direct")
    assert (code, "***" in printed) == (1, True), printed
    code, more = run("run", f"{provider}.yaml", "--direct")
    assert code == 0, more
    with closing(open_adapter(provider, block="research")) as adapter:
        assert adapter.secret == CANARY
        shown = [adapter, adapter.credentials, vars(adapter)]
        assert not gives_away("".join(map(repr, shown)) + "".join(map(str, shown)))
    assert not gives_away(printed + more + caplog.text)
    assert files_that_give_away(project) == []


def test_a_key_in_place_of_a_blocks_name_is_not_printed(project: Path) -> None:
    """Who writes the key itself into the spec is told, without the key."""
    code, printed = run("run", "openai.yaml", "--direct", "--set", f"credentials={CANARY}")
    assert (code, "a key belongs into the block" in printed) == (2, True), printed
    assert not gives_away(printed)


QUOTES: dict[str, list[dict[str, Any]]] = {
    "failure": [
        {"kind": "false_end", "reads": 99, "message": f"Incorrect API key provided: {CANARY}"}
    ],
    "status": [
        {"kind": "odd_objects", "style": "unknown_status", "word": f"x {CANARY}"},
        {"kind": "stuck_finalizing"},
    ],
    "line": [{"kind": "request_error", "message": f"Incorrect API key provided: {CANARY}"}],
    "header": [{"kind": "http_error", "status": 400, "message": f"unknown tenant {CANARY}"}],
}


@pytest.mark.parametrize(
    ("quote_in", "provider"),
    [
        (name, provider)
        for name in QUOTES
        for provider in PROVIDERS
        if (name, provider) != ("failure", "anthropic")
    ],
)
def test_a_batch_that_repeats_a_secret_is_not_quoted(
    quote_in: str,
    provider: str,
    project: Path,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not what a batch, its status or its lines repeat of the key, or of a custom header."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")
    if quote_in == "header":
        use_key("some-key", monkeypatch)
        monkeypatch.setenv(f"{provider.upper()}_CUSTOM_HEADERS", f"X-Tenant-Key: {CANARY}")
    for fault in QUOTES[quote_in]:
        emulator.control.faults(**fault)
    with (project / f"{provider}.yaml").open("a") as spec:
        spec.write("time_limit: 3s\n")  # planning is done by then, also on a busy machine
    code, printed = run("run", f"{provider}.yaml", "--direct")
    assert all(rule["strikes"] for rule in emulator.control.list_faults())
    assert (code in (1, 3, 5), "***" in printed) == (True, True), printed
    _, status = run("status", f"{provider}.yaml")
    assert not gives_away(printed + status)
    assert files_that_give_away(project) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://batchata:{}@127.0.0.1:{}/ledger",
        "postgresql+asyncpg://batchata:{}@127.0.0.1:{}/ledger",
        "nosuchdb://batchata:{}@127.0.0.1:{}/ledger",
        "postgresql//batchata:{}@127.0.0.1:{}/ledger",
    ],
    ids=["no-driver", "wrong-driver", "unknown", "malformed"],
)
def test_the_ledgers_password_is_not_printed(
    url: str, project: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a ledger that cannot be opened omits its URL, which may hold a password."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("BATCHATA_LEDGER_URL", url.format(quote(CANARY, safe=""), unused_port()))
    code, printed = run("run", "anthropic.yaml", "--direct")
    assert code in (1, 2)
    assert "Error: " in printed
    assert not gives_away(printed + caplog.text + repr(Settings()) + str(Settings()))
    assert files_that_give_away(project) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_password_in_the_address_is_not_printed(
    provider: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy's address may hold user and password: the error names only the host."""
    address = f"http://user:{quote(CANARY, safe='')}@127.0.0.1:{unused_port()}/api"
    monkeypatch.setenv(f"{provider.upper()}_BASE_URL", address)
    use_key("some-key", monkeypatch)
    code, printed = run("run", f"{provider}.yaml", "--direct")
    assert code == 1
    assert not gives_away(printed)
    assert files_that_give_away(project) == []
