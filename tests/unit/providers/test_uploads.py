"""What goes up to providers: creates and request files with a length, lists of files that end."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import BatchataError, TransientError
from batchata_tasks.providers import provider_type
from batchata_tasks.providers.openai.files import TIDY
from batchata_tasks.providers.request_file import write_request_file
from tests.support.answering import answering
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.providers import Adapter
    from tests.support.answering import Answer, Answering, Asked

TOKEN = "t" * 20
MADE = 1_800_000_000


def adapter(name: str, server: Answering, monkeypatch: pytest.MonkeyPatch) -> Adapter:
    monkeypatch.setenv(f"{name.upper()}_API_KEY", "test-key")
    tail = "/v1" if name == "openai" else ""
    monkeypatch.setenv(f"{name.upper()}_BASE_URL", server.url + tail)
    return provider_type(name)()


def batch(asked: Asked) -> tuple[int, Any]:
    """Answer uploads and creates of both APIs."""
    if asked.path.endswith("/files"):
        return 200, {"id": "file-1", "object": "file", "bytes": 1, "created_at": MADE}
    if asked.path == "/v1/batches":
        return 200, {"id": "batch_1", "status": "validating", "created_at": MADE}
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    return 200, {
        "id": "msgbatch_1",
        "processing_status": "in_progress",
        "request_counts": counts,
        "created_at": "2027-01-15T08:00:00Z",
        "expires_at": "2027-01-16T08:00:00Z",
    }


def requests_of(provider: Adapter, path: Path, count: int) -> Path:
    """Write a request file of more bytes than one block has."""
    bodies = ((f"{i:024}", b'{"text":"' + b"x" * 1000 + b'"}') for i in range(count))
    write_request_file(path, provider.framing, TOKEN, bodies)
    return path


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_what_is_sent_has_its_length(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Creates and uploads say how long they are: a server need not take bodies in chunks.

    The file still goes out block by block, and the gate is asked before each.
    """
    gate: list[int] = []
    with answering(batch) as server:
        provider = adapter(name, server, monkeypatch)
        path = requests_of(provider, tmp_path / f"{TOKEN}.jsonl", 300)
        provider.create(path, provider.upload(path), TOKEN, lambda: gate.append(1))
    for asked in server.of("POST", ""):
        assert int(asked.headers["content-length"]) == len(asked.body) > 0
        assert "transfer-encoding" not in asked.headers
    upload = server.asked[0]
    assert path.read_bytes() in upload.body
    if name == "anthropic":
        assert upload.body == path.read_bytes()
        assert len(gate) >= len(upload.body) / (1 << 16)


def test_an_upload_has_its_name_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A request file is called by its chunk, and no folder of this machine is named."""
    with answering(batch) as server:
        provider = adapter("openai", server, monkeypatch)
        provider.upload(requests_of(provider, tmp_path / f"{TOKEN}.jsonl", 1))
    (upload,) = server.asked
    assert f'filename="{TOKEN}.jsonl"'.encode() in upload.body
    assert str(tmp_path).encode() not in upload.body


# --- lists of files -------------------------------------------------------------------------------


def files(count: int, start: int = 0, **changes: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"file-{n}", "filename": f"{n}.jsonl", "created_at": MADE - n, **changes}
        for n in range(start, start + count)
    ]


def pages(asked: Asked) -> tuple[int, Any]:
    """Give 250 files by pages, as the API does."""
    after = asked.query.get("after")
    start = 0 if after is None else int(after.removeprefix("file-")) + 1
    rest = min(250 - start, int(asked.query["limit"]))
    return 200, {"object": "list", "data": files(rest, start), "has_more": start + rest < 250}


def always(status: int, body: Any) -> Callable[[Asked], Answer]:
    return lambda _asked: (status, body)


def listed(
    answer: Callable[[Asked], Answer], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], Answering]:
    with answering(answer) as server:
        found = adapter("openai", server, monkeypatch).uploads(0.0)
        return [file_id for file_id, _ in found], server


def test_files_are_listed_by_a_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is larger than servers allow that imitate the API, and all files are found."""
    ids, server = listed(pages, monkeypatch)
    assert ids == [f"file-{n}" for n in range(250)]
    assert {asked.query["limit"] for asked in server.asked} == {"100"}
    assert len(server.asked) == 3


ODD_LISTS: dict[str, Any] = {
    "the same page for ever": {"data": files(3), "has_more": True},
    "nothing about more": {"data": files(3)},
    "ids of null": {"data": [*files(3), {"id": None, "filename": "x"}], "has_more": True},
    "no times": {"data": files(3, created_at=None), "has_more": False},
    "times as text": {"data": files(3, created_at="2027"), "has_more": False},
}


@pytest.mark.parametrize("page", ODD_LISTS.values(), ids=ODD_LISTS.keys())
def test_lists_of_files_end(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that brings no new file is the last one, whatever else the server says."""
    ids, server = listed(always(200, page), monkeypatch)
    assert ids == ["file-0", "file-1", "file-2"]
    assert len(server.asked) <= 2


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"error": {"message": "no such route"}}),
        (405, {"detail": "Method Not Allowed"}),
        (501, {"error": {"message": "not implemented"}}),
        (200, "<html>hello</html>"),
        (200, {"files": []}),
        (200, {"data": None}),
        (200, []),
    ],
)
def test_a_server_that_lists_no_files_has_none_to_show(
    answer: tuple[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all servers list files: then nothing is found, and nothing is wrong."""
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)
    assert listed(always(*answer), monkeypatch)[0] == []


def test_a_list_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused key is no empty list."""
    with pytest.raises(BatchataError):
        listed(always(401, {"error": {"message": "no"}}), monkeypatch)


def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """No row waits for a file to be deleted or listed: both are given up soon, and asked once."""
    released = Event()
    monkeypatch.setitem(TIDY, "timeout", 0.1)

    def silent(_: Asked) -> Answer:
        def nothing() -> Iterator[bytes]:
            released.wait(PATIENCE)
            yield b""

        return nothing()

    with answering(silent) as server:
        openai = adapter("openai", server, monkeypatch)
        try:
            with pytest.raises(TransientError):
                openai.discard_upload("file-1")
            with pytest.raises(TransientError):
                list(openai.uploads(0.0))
        finally:
            released.set()
    assert [one.method for one in server.asked] == ["DELETE", "GET"]
