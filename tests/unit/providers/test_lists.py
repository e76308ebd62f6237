"""Lists of batches and answers to creates, in the shapes that servers give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import TransientError
from batchata_tasks.providers import provider_type
from tests.support.answering import answering

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.providers import Adapter

BATCH = {"id": "batch_1", "status": "in_progress", "processing_status": "in_progress"}


@pytest.fixture(params=["anthropic", "openai"])
def api(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a provider, whose key is set."""
    monkeypatch.setenv(f"{request.param.upper()}_API_KEY", "test-key")
    return request.param


def made(api: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Adapter:
    monkeypatch.setenv(f"{api.upper()}_BASE_URL", url)
    return provider_type(api)()


@pytest.mark.parametrize(
    ("page", "ids"),
    [
        ({"object": "list", "data": None}, []),
        ({"data": None, "has_more": False, "first_id": None}, []),
        ({"batches": [BATCH]}, ["batch_1"]),
        ({"items": [BATCH], "has_more": False}, ["batch_1"]),
        ({"data": {"data": [BATCH]}}, ["batch_1"]),
        ([BATCH], ["batch_1"]),
    ],
)
def test_a_list_is_read_in_any_shape(
    page: Any, ids: list[str], api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One without items may be null, and the items may have another name."""
    with answering(lambda _asked: (200, page)) as server:
        looks = made(api, server.url, monkeypatch).newest()
    assert [look.batch_id for look in looks] == ids


@pytest.mark.parametrize(
    "page",
    [{}, {"data": "x"}, {"data": None, "error": "busy"}, {"data": None, "has_more": True}, 7],
)
def test_what_is_no_list_names_the_call(
    page: Any, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no empty list; the error says which call was answered so, and how that begins."""
    with answering(lambda _asked: (200, page)) as server:
        adapter = made(api, server.url, monkeypatch)
        with pytest.raises(TransientError) as error:
            adapter.newest()
        path = server.asked[0].path
        assert f"(GET {path} gave no list, but '" in str(error.value)


@pytest.mark.parametrize("pack", [lambda b: {"data": b}, lambda b: {"batch": b}, lambda b: [b]])
def test_a_batch_is_read_wherever_a_server_puts_it(
    pack: Callable[[Any], Any], api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A create is paid for, so its batch must be found by looks that are packed alike."""
    with answering(lambda _asked: (200, pack(BATCH))) as server:
        look = made(api, server.url, monkeypatch).look("batch_1")
    assert (look.status, look.ended) == ("in_progress", False)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ({"id": "file-1"}, "file-1"),
        ({"data": {"id": "file-1"}}, "file-1"),
        ([{"id": 7}], "7"),
        ({}, None),
        ({"id": None}, None),
        ([], None),
        ("<html>busy</html>", None),
    ],
)
def test_an_upload_is_known_by_its_id(
    answer: Any, name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else of it is needed; without an id, the error says what was answered."""
    path = tmp_path / "requests.jsonl"
    path.write_text("{}")
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with answering(lambda _asked: (200, answer)) as server:
        openai = made("openai", server.url, monkeypatch)
        if name is not None:
            assert openai.upload(path) == name
            return
        with pytest.raises(TransientError, match="POST /files gave no "):
            openai.upload(path)


def test_what_is_no_batch_names_the_call(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a look says which call was answered with what."""
    with answering(lambda _asked: (200, [1])) as server:
        adapter = made(api, server.url, monkeypatch)
        with pytest.raises(TransientError, match=r"gave no JSON object, but '\[1\]'"):
            adapter.look("batch_1")


def test_a_create_that_is_answered_with_a_json_text_is_the_batch(
    api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer with a batch's id is the batch, also if a gateway packed it twice."""
    path = tmp_path / "requests"
    path.write_text('{"requests":[]}')
    with answering(lambda _asked: (200, '"{\\"id\\": \\"batch_1\\"}"')) as server:
        adapter = made(api, server.url, monkeypatch)
        assert adapter.create(path, "file-1", "t" * 20, lambda: None).batch_id == "batch_1"
