"""Answers without an end: each is given up once no honest one can be so large."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pytest

from batchata_tasks.common.errors import TerminalError, TransientError, UnclearError
from batchata_tasks.providers import Adapter, BatchLook, provider_type, sdk, sizes
from batchata_tasks.providers.request_file import write_request_file
from tests.support.answering import answering
from tests.support.books import check_money, money
from tests.support.operations import preview
from tests.support.table import APIS, MODELS, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

TOKEN, ROWS = "t" * 20, 3
RESULTS = {"anthropic": "results", "openai": "content"}
packed = pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])


@pytest.fixture(params=MODELS)
def provider(
    request: pytest.FixtureRequest, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> Adapter:
    """Return each adapter; it tries a call once, and reads half a megabyte at most."""
    del emulator
    monkeypatch.setattr(sdk, "READ_RETRIES", 0)
    monkeypatch.setattr(sizes, "WHOLE", 500_000)
    return provider_type(request.param)()


def make(provider: Adapter, folder: Path) -> BatchLook:
    path = folder / "requests.jsonl"
    turns = [{"role": "user", "content": "x"}]
    body = {"model": MODELS[provider.name], provider.cap_param: 9, "messages": turns}
    write_request_file(path, provider.framing, TOKEN, [("0" * 24, orjson.dumps(body))])
    return provider.create(path, provider.upload(path), TOKEN, lambda: None)


@packed
def test_an_answer_that_is_read_whole_has_a_largest_size(
    provider: Adapter, emulator: Emulator, tmp_path: Path, packed: bool
) -> None:
    """Each call but a create ends as one whose answer cannot be read; a create is unclear."""
    look = provider.look(make(provider, tmp_path).batch_id)
    emulator.control.faults(kind="never_ends", count=1)
    running = make(provider, tmp_path).batch_id
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: provider.look(look.batch_id),
        "list": lambda: list(provider.recent(0.0)),
        "cancel": lambda: provider.cancel(running),
    }
    if provider.name == "openai":
        calls["upload"] = lambda: provider.upload(tmp_path / "requests.jsonl")
        calls["list_files"] = lambda: list(provider.uploads(0.0))
    for route, call in calls.items():
        emulator.control.faults(kind="endless", gzip=packed, route=route, count=1)
        with pytest.raises(TransientError, match=r"cannot be read \(it is longer than 0.5 MB\)"):
            call()
    emulator.control.faults(kind="endless", gzip=packed, route="create", count=1)
    with pytest.raises(UnclearError, match=r"cannot be read \(it is longer than 0.5 MB\)"):
        make(provider, tmp_path)
    assert emulator.control.ledger()[provider.name]["batches_accepted"] == 3


@pytest.mark.parametrize("call", ["create", "download"])
def test_an_error_without_an_end_is_no_answer(
    provider: Adapter, emulator: Emulator, tmp_path: Path, call: str
) -> None:
    """The page of an error is read whole, also where results are asked for."""
    look = provider.look(make(provider, tmp_path).batch_id)
    route = "create" if call == "create" else RESULTS[provider.name]
    emulator.control.faults(kind="http_error", status=400, body="no " * 300_000, route=route)
    what: Callable[[], Any] = partial(make, provider, tmp_path)
    if call == "download":
        what = partial(provider.download, look, tmp_path, "r")
    with pytest.raises((TransientError, UnclearError), match="it is longer"):
        what()


def test_results_are_larger_than_what_is_read_whole(
    provider: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are streamed: what bounds other answers does not bound them."""
    look = provider.look(make(provider, tmp_path).batch_id)
    monkeypatch.setattr(sizes, "WHOLE", 10)
    (path,) = provider.download(look, tmp_path, "r")
    (answer,) = provider.answers(path)
    assert answer.custom_id == f"{TOKEN}-{'0' * 24}"


def blanks() -> Iterator[bytes]:
    """Yield an answer that is one line without an end."""
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while True:
        yield b"x" * 65536


@pytest.mark.parametrize("api", MODELS)
def test_results_that_are_one_line_without_an_end(
    api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is read that no request can have; whose batch it is stays unknown."""
    monkeypatch.setattr(sizes, "WHOLE", 500_000)
    monkeypatch.setattr(sizes, "PER_REQUEST", 10**6)
    monkeypatch.setenv(f"{api.upper()}_API_KEY", "test-key")
    with answering(lambda _asked: blanks()) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        provider = provider_type(api)()
        look = BatchLook("batch_1", "completed", True, None, requests=10**6, files=("file_1",))
        with pytest.raises(TerminalError, match="a line of the results took more than"):
            provider.download(look, tmp_path, "r")
        assert list(tmp_path.iterdir()) == []
        assert provider.owns(look, TOKEN) is None
        provider.close()


class Case(NamedTuple):
    """Results without an end, what is told of them, and what is set for that."""

    told: str
    faults: dict[str, Any]
    per_request: int = 10**6
    free: int = 0


CASES = {
    "plain": Case("the results took more than 4.0 MB", {}),
    "gzip": Case("the results took more than 4.0 MB", {"gzip": True}),
    "disk": Case("make room on it", {}, 10**9, 2**62),
}


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("api", APIS)
def test_results_without_an_end_are_set_aside(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str, kind: str
) -> None:
    """They leave nothing on the disk; their rows are held, new rows go on, none is sent twice."""
    table, case = Table(tmp_path, emulator, api, ROWS), CASES[kind]
    monkeypatch.setattr(sizes, "PER_REQUEST", case.per_request)
    monkeypatch.setattr(sizes, "_STEP", 1 << 20)
    usage = shutil.disk_usage(tmp_path)
    if case.free:  # as if other programs had filled the disk meanwhile
        frees = iter([usage.free])

        def shrinking(folder: Path) -> object:
            del folder
            return usage._replace(free=next(frees, 10**6))

        monkeypatch.setattr("batchata_tasks.providers.sizes.shutil.disk_usage", shrinking)
    bound = preview(table.spec()).summary.bound
    emulator.control.faults(kind="endless", route=RESULTS[table.provider], **case.faults)
    receipt = table.run()
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    assert (receipt.held_rows, receipt.exit_code) == (ROWS, 3)
    assert case.told in receipt.warnings[0]
    assert batch in receipt.warnings[0]
    assert money(table).reserved == bound
    responses = table.output / "_batchata" / "responses"
    assert sum(path.stat().st_size for path in responses.iterdir()) == 0
    emulator.control.clear_faults()
    receipt = table.run()
    assert (receipt.plan["up_to_date"], table.ledger()["batches_accepted"]) == (ROWS, 1)
    check_money(table)
