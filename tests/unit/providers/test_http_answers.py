"""Every HTTP answer to every call is certain, unclear, transient or final, as the docs list them.

The table in docs/providers.md is held to what the code does with each status from 400 to 599, as
both SDKs raise it, and each kind of call is tried over HTTP.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import anthropic
import httpx2
import openai
import pytest

from batchata_tasks.common.errors import (
    BatchataError,
    CredentialsError,
    TerminalError,
    TransientError,
    UnclearError,
)
from batchata_tasks.providers import Provider, provider_type
from batchata_tasks.providers.anthropic import adapter
from batchata_tasks.providers.gate import Gate
from batchata_tasks.providers.openai import chat
from batchata_tasks.providers.request_file import write_request_file
from batchata_tasks.providers.sdk import Errors, created, translated
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.providers import BatchLook

STATUSES = range(400, 600)
SDKS = {
    "anthropic": (adapter._ERRORS, anthropic.Anthropic(api_key="k", base_url="http://h")),
    "openai": (chat._ERRORS, openai.OpenAI(api_key="k", base_url="http://h")),
}
BODIES: dict[str, list[dict[str, Any]]] = {
    "the API": [
        {"json": {"type": "error", "error": {"type": "x", "message": "No."}}},
        {"json": {"error": {"message": "No.", "type": "x", "param": None, "code": None}}},
        {"content": b""},
        {"content": b" \r\n"},
    ],
    "something else": [
        {"html": "<html>No.</html>"},
        {"json": {"message": "No."}},
        {"json": {"error": "No."}},
        {"json": {"detail": "No."}},
        {"json": ["No."]},
        {"json": {"error": {}}},
        {"content": b"\xff\xfe"},
        {"text": "upstream request timeout"},
    ],
}
ENDS = {
    TransientError: "transient",
    TerminalError: "final",
    CredentialsError: "final",
    UnclearError: "unclear",
}


class Told(NamedTuple):
    """A row of the table: what an answer means for a create, and for any other call."""

    create: str
    other: str


def raised(name: str, status: int, body: dict[str, Any]) -> Exception:
    """Return the error that an SDK makes of an answer."""
    request = httpx2.Request("POST", "http://h/x")
    return SDKS[name][1]._make_status_error_from_response(
        httpx2.Response(status, request=request, **body)
    )


def outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except BatchataError as error:
        return ENDS[type(error)]
    return "done"


def _raise(error: Exception) -> Any:
    raise error


def told(name: str, error: Exception) -> Told:
    """Return what the code makes of an error."""
    sdk, gate = SDKS[name][0], Gate(lambda: None)
    gate()
    create = outcome(lambda: created(sdk, name, gate, lambda: _raise(error)))

    def read() -> None:
        with translated(sdk, name):
            raise error

    return Told("unclear" if create == "unclear" else "certain", outcome(read))


def documented() -> dict[tuple[int, str], Told]:
    """Return the table of the docs, status by status."""
    text = (ROOT / "docs/providers.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([0-9, to]+) \| (the API|something else|anyone) \| (\w+) \| (\w+) \|$",
        text,
        re.MULTILINE,
    )
    table: dict[tuple[int, str], Told] = {}
    for statuses, sender, create, other in rows:
        for part in statuses.split(","):
            first, _, last = part.strip().partition(" to ")
            for status in range(int(first), int(last or first) + 1):
                for one in BODIES if sender == "anyone" else (sender,):
                    assert (status, one) not in table, "each status stands in one row"
                    table[status, one] = Told(create, other)
    return table


@pytest.mark.parametrize("name", SDKS)
def test_the_docs_list_every_status_as_the_code_takes_it(name: str) -> None:
    """All statuses from 400 to 599, by whom they come from, for creates and other calls."""
    table = documented()
    assert set(table) == {(status, sender) for status in STATUSES for sender in BODIES}
    for (status, sender), row in table.items():
        for body in BODIES[sender]:
            assert told(name, raised(name, status, body)) == row, (status, sender, body)


@pytest.mark.parametrize("name", SDKS)
def test_every_error_of_an_sdk_becomes_one_of_ours(name: str) -> None:
    """Whatever class an SDK raises once bytes went out, a create is never certain by accident."""
    sdk = SDKS[name][0]
    module = {"anthropic": anthropic, "openai": openai}[name]
    classes = {
        one
        for one in map(module.__dict__.get, dir(module))
        if isinstance(one, type) and issubclass(one, sdk.base) and "._exceptions" in one.__module__
    }
    of_statuses = {one for one in classes if issubclass(one, sdk.status)}
    raised_by_now = {type(raised(name, status, BODIES["the API"][0])) for status in STATUSES}
    assert of_statuses <= {above for one in raised_by_now for above in one.__mro__} | _ODD
    for one in classes - of_statuses:
        error = one.__new__(one)  # their constructors differ; what counts is the class
        Exception.__init__(error, "No.")
        assert told(name, error) == Told("unclear", "transient"), one


# of other products, or raised before anything is sent
_ODD: set[type[Exception]] = {openai.OAuthError}


@pytest.mark.parametrize("name", SDKS)
def test_what_was_never_sent_is_certain(name: str) -> None:
    """An error before the first byte went out leaves nothing in doubt."""
    sdk: Errors = SDKS[name][0]
    for error in (sdk.connection, ValueError, httpx2.ProxyError):
        made = error.__new__(error)
        Exception.__init__(made, "No.")
        with pytest.raises((TransientError, TerminalError)):
            created(sdk, name, Gate(lambda: None), lambda made=made: _raise(made))


# --- over HTTP ------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Provider, BatchLook, Path], object]] = {
    "create": lambda provider, look, folder: _created(provider, folder),
    "upload": lambda provider, look, folder: provider.upload(folder / "requests.jsonl"),
    "get": lambda provider, look, folder: provider.look(look.batch_id),
    "list": lambda provider, look, folder: list(provider.recent(0)),
    "cancel": lambda provider, look, folder: provider.cancel(look.batch_id),
    "results": lambda provider, look, folder: provider.download(look, folder, "x"),
}
ROUTES = {"openai": {"results": "content"}}


def _created(provider: Provider, folder: Path) -> BatchLook:
    path = folder / "requests.jsonl"
    body = b'{"model":"claude-haiku-5-5","max_tokens":9,"messages":[{"role":"user","content":"a"}]}'
    if provider.name == "openai":
        body = b'{"model":"gpt-6-luna","messages":[{"role":"user","content":"a"}]}'
    write_request_file(path, provider.framing, "t" * 20, [("r" * 24, body)])
    return provider.create(path, provider.upload(path), "t" * 20, lambda: None)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", SDKS)
def test_each_call_takes_answers_as_the_docs_say(
    emulator: Emulator, tmp_path: Path, name: str, call: str
) -> None:
    """A sample of statuses, from the API and from a proxy, at each call, over HTTP."""
    if (name, call) == ("anthropic", "upload"):
        return  # it has no such call
    provider = provider_type(name)()
    look = provider.look(_created(provider, tmp_path).batch_id)
    route = ROUTES.get(name, {}).get(call, call)
    table = documented()
    for status in (400, 402, 403, 404, 408, 409, 413, 425, 429, 499, 500, 529):
        for html in (False, True):
            emulator.control.clear_faults()
            emulator.control.faults(kind="http_error", route=route, status=status, html=html)
            row = table[status, "something else" if html else "the API"]
            found = outcome(lambda: CALLS[call](provider, look, tmp_path))
            if call == "create":
                expected = "unclear" if row.create == "unclear" else None
                assert found == expected or (expected is None and found != "unclear")
            elif (call, status) == ("cancel", 409):
                assert found == "final"  # it cannot be cancelled: waiting does not help
            else:
                assert found == row.other, (status, html)
