"""Waits that a server asks for are the caller's: no SDK sleeps them inside of a call."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import httpx2
import orjson
import pytest

from batchata_tasks.common.errors import TransientError
from batchata_tasks.providers import Adapter, BatchLook, provider_type
from batchata_tasks.providers.retry_after import LONGEST, retry_after
from tests.support.answering import answering

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.answering import Answer, Asked

_DAYS = 432_000.0
_LOOK = BatchLook("batch_1", "completed", ended=True, created_at=0.0, files=("file_1",))
CALLS: dict[str, Callable[[Adapter, Path], Any]] = {
    "look": lambda provider, _: provider.look("batch_1"),
    "list": lambda provider, _: list(provider.recent(0.0)),
    "newest": lambda provider, _: provider.newest(),
    "cancel": lambda provider, _: provider.cancel("batch_1"),
    "results": lambda provider, folder: provider.download(_LOOK, folder, "r"),
    "owner": lambda provider, _: provider.owns(_LOOK, "t" * 20),
    "upload": lambda provider, folder: provider.upload(folder / "requests.jsonl"),
    "uploads": lambda provider, _: list(provider.uploads(0.0)),
    "discard": lambda provider, _: provider.discard_results(_LOOK),
    "discard_upload": lambda provider, _: provider.discard_upload("file_1"),
}
_NO_CALLS = {"anthropic": ("upload", "uploads", "discard_upload"), "openai": ("owner",)}


@pytest.mark.parametrize(("status", "wait"), [(429, 60.0), (503, _DAYS)])
@pytest.mark.parametrize("api", ["anthropic", "openai"])
def test_no_call_sleeps_the_wait_that_a_server_asks_for(
    api: str, status: int, wait: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call raises at once, with the wait, which the run's patience then judges."""
    (tmp_path / "requests.jsonl").write_bytes(orjson.dumps({}))
    monkeypatch.setenv(f"{api.upper()}_API_KEY", "test-key")
    body = {"error": {"type": "overloaded_error", "message": "busy"}}

    def busy(_asked: Asked) -> tuple[int, Any, dict[str, str]]:
        return status, body, {"Retry-After": f"{wait:.0f}", "x-should-retry": "true"}

    with answering(busy) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        monkeypatch.setattr(f"{api}._base_client.time.sleep", pytest.fail)
        provider = provider_type(api)()
        for name in CALLS.keys() - _NO_CALLS[api]:
            server.asked.clear()
            with pytest.raises(TransientError, match="busy") as error:
                CALLS[name](provider, tmp_path)
            assert (error.value.retry_after, len(server.asked)) == (wait, 1), name
        provider.close()


@pytest.mark.parametrize("api", ["anthropic", "openai"])
def test_a_short_wait_is_no_error(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that asks for a moment gets it, and the call goes on."""
    monkeypatch.setenv(f"{api.upper()}_API_KEY", "test-key")
    answers: list[Answer] = [
        (200, {"data": [], "has_more": False}, {}),
        (429, {}, {"Retry-After": "0.01"}),
    ]
    with answering(lambda _asked: answers.pop()) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        assert list(provider_type(api)().recent(0.0)) == []
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7.5"}, 7.5),
        ({"Retry-After-Ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After-Ms": "soon", "Retry-After": "9"}, 9.0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "0"}, None),
        ({"Retry-After": "later"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"Retry-After": "Wed, 99 Oct 99999999 07:28:00 GMT"}, None),
        ({"Retry-After": "inf"}, float("inf")),
    ],
)
def test_a_wait_is_a_number_or_nothing(headers: dict[str, str], seconds: float | None) -> None:
    """What is no wait for a time to come is none: no pause is negative, or not a number."""
    assert retry_after(httpx2.Headers(headers)) == seconds


def test_a_wait_may_be_a_date() -> None:
    """A date counts from now."""
    date = formatdate(time.time() + _DAYS, usegmt=True)
    assert LONGEST < (retry_after(httpx2.Headers({"Retry-After": date})) or 0) <= _DAYS + 1
