"""Answers that come in drips, and lists that do not end: each is given up after a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from batchata_tasks.common.errors import TransientError, UnclearError
from batchata_tasks.providers import Adapter, BatchLook, pace, provider_type, sdk, wire
from batchata_tasks.providers.request_file import write_request_file
from tests.support.answering import answering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from tests.support.answering import Answer, Asked

TOKEN = "t" * 20
_TURNS = [{"role": "user", "content": "x"}]
BODIES = {
    "anthropic": {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": _TURNS},
    "openai": {"model": "gpt-6-luna", "max_completion_tokens": 9, "messages": _TURNS},
}


@pytest.fixture(params=BODIES)
def provider(
    request: pytest.FixtureRequest, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> Adapter:
    """Return each adapter; it tries a call once, and reads an answer for a moment."""
    monkeypatch.setattr(sdk, "READ_RETRIES", 0)
    monkeypatch.setattr(pace, "SECONDS", 0.15)
    return provider_type(request.param)()


def make(provider: Adapter, folder: Path) -> BatchLook:
    path = folder / "requests.jsonl"
    rows = [("0" * 24, orjson.dumps(BODIES[provider.name]))]
    write_request_file(path, provider.framing, TOKEN, rows)
    return provider.create(path, provider.upload(path), TOKEN, lambda: None)


def test_an_answer_that_drips_is_given_up(
    provider: Adapter, emulator: Emulator, tmp_path: Path
) -> None:
    """Each call ends when its answer keeps coming without an end; a create is unclear then."""
    look = provider.look(make(provider, tmp_path).batch_id)
    emulator.control.faults(kind="never_ends", count=1)
    running = make(provider, tmp_path).batch_id
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: provider.look(look.batch_id),
        "list": lambda: list(provider.recent(0.0)),
        "cancel": lambda: provider.cancel(running),
        "content": lambda: provider.download(look, tmp_path, "r"),
        "results": lambda: provider.download(look, tmp_path, "r"),
        "upload": lambda: provider.upload(tmp_path / "requests.jsonl"),
        "list_files": lambda: list(provider.uploads(0.0)),
    }
    elsewhere = {"anthropic": ("content", "upload", "list_files"), "openai": ("results",)}
    for route, call in calls.items():
        if route not in elsewhere[provider.name]:
            emulator.control.faults(kind="drip", route=route, seconds=60, count=1)
            with pytest.raises(TransientError, match="and more were to come"):
                call()
    emulator.control.faults(kind="drip", seconds=60, route="create", count=1)
    with pytest.raises(UnclearError, match="and more were to come"):
        make(provider, tmp_path)
    assert emulator.control.ledger()[provider.name]["batches_accepted"] == 3


def test_an_answer_after_blanks_is_an_answer(
    provider: Adapter, emulator: Emulator, tmp_path: Path
) -> None:
    """Proxies send blanks to keep a connection alive; the answer that follows them counts."""
    emulator.control.faults(kind="drip", seconds=0.2)
    look = provider.look(make(provider, tmp_path).batch_id)
    (path,) = provider.download(look, tmp_path, "r")
    (answer,) = provider.answers(path)
    assert answer.custom_id == f"{TOKEN}-{'0' * 24}"


def drips(start: bytes, drop: bytes) -> Iterator[bytes]:
    """Yield the start of an answer, and then a drop every few hundredths of a second, for ever."""
    yield start
    while True:
        time.sleep(0.03)
        yield drop


HEADS = {
    "hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "header": (b"HTTP/1.1 200 OK\r\nX-Drop: ", b"x"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-Drop: x\r\n"),
    "chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", b"x"),
    "trailer": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Drop: ", b"x"),
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("api", BODIES)
def test_a_head_without_an_end_is_given_up(
    api: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Provisional answers and drips of a head end like silence: a read passes, a create is unclear.

    So on a connection that served other calls before.
    """
    monkeypatch.setattr(pace, "WHOLE", 0.1)
    monkeypatch.setattr(sdk, "READ_RETRIES", 0)
    monkeypatch.setenv(f"{api.upper()}_API_KEY", "test-key")

    def answer(asked: Asked) -> Answer:
        if asked.path.endswith("/files"):
            return 200, {"id": "file_1", "object": "file"}
        if asked.query:
            return 200, {"data": [], "has_more": False}
        return drips(*HEADS[kind])

    with answering(answer) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        provider = provider_type(api)()
        assert list(provider.recent(0.0)) == []
        with pytest.raises(TransientError):
            provider.look("batch_1")
        with pytest.raises(UnclearError):
            make(provider, tmp_path)
        assert list(provider.recent(0.0)) == []
        provider.close()


def test_a_hint_before_an_answer_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provisional answer, or a head in two parts, is followed by the answer, which counts."""
    body = b'{"data":[],"has_more":false}'
    parts = [
        HEADS["hints"][1],
        b"HTTP/1.1 200 OK\r\n",
        b"Content-Length: %d\r\n\r\n" % len(body),
        body,
    ]
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    with answering(lambda _asked: iter(parts)) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        assert list(provider_type("anthropic")().recent(0.0)) == []


def test_a_list_without_an_end_proves_nothing(
    provider: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that is not read to its end within minutes shows what it showed, and no absence."""
    known = {make(provider, tmp_path).batch_id for _ in range(2)}
    monkeypatch.setattr(wire, "LONGEST_LIST", -1.0)
    monkeypatch.setattr(
        "batchata_tasks.providers.anthropic.adapter._PAGE"
        if provider.name == "anthropic"
        else "batchata_tasks.providers.openai.chat._PAGE",
        1,
    )
    assert {look.batch_id for look in provider.recent(0.0)} < known
    assert not provider.lists_end
    monkeypatch.setattr(wire, "LONGEST_LIST", 60.0)
    assert {look.batch_id for look in provider.recent(0.0)} == known
    assert provider.lists_end
