"""Faults that any call can get: rate limits, slowness, transient 404s and a proxy's pages."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from batchata_tasks.emulator import ControlError
from tests.support.emulator_requests import (
    ANTHROPIC_HEADERS,
    CLAUDE,
    GPT,
    chats,
    entries,
    http,
    jsonl,
    rows,
)
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.emulator import ControlClient, Emulator

MESSAGE: Any = [{"role": "user", "content": "a"}]


def anthropic_calls(client: anthropic.Anthropic) -> dict[str, Callable[[], object]]:
    """Return a call of each route that succeeds if it gets no fault."""
    batches = client.messages.batches
    ended, stopped = (batches.create(requests=entries("a")).id for _ in range(2))
    batches.retrieve(ended)
    return {
        "create": lambda: batches.create(requests=entries("a")),
        "cancel": lambda: batches.cancel(stopped),
        "list": batches.list,
        "get": lambda: batches.retrieve(ended),
        "results": lambda: list(batches.results(ended)),
        "delete": lambda: batches.delete(ended),
        "messages": lambda: client.messages.create(model=CLAUDE, max_tokens=9, messages=MESSAGE),
        "count_tokens": lambda: client.messages.count_tokens(model=CLAUDE, messages=MESSAGE),
        "models": lambda: client.models.retrieve(CLAUDE),
    }


def openai_calls(client: openai.OpenAI) -> dict[str, Callable[[], object]]:
    """Return a call of each route that succeeds if it gets no fault."""
    ended, stopped = client.batches.retrieve(chats(client, "a").id), chats(client, "a").id
    file_id = ended.input_file_id
    return {
        "create": lambda: client.batches.create(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
        ),
        "cancel": lambda: client.batches.cancel(stopped),
        "list": client.batches.list,
        "get": lambda: client.batches.retrieve(ended.id),
        "upload": lambda: client.files.create(file=("in.jsonl", jsonl({})), purpose="batch"),
        "list_files": client.files.list,
        "file": lambda: client.files.retrieve(file_id),
        "content": lambda: client.files.content(str(ended.output_file_id)),
        "delete_file": lambda: client.files.delete(file_id),
        "messages": lambda: client.chat.completions.create(model=GPT, messages=MESSAGE),
        "models": lambda: client.models.retrieve(GPT),
    }


def strikes(control: ControlClient) -> int:
    """Return how often the only rule in force struck, and drop it."""
    (rule,) = control.list_faults()
    control.clear_faults()
    return rule["strikes"]


@pytest.mark.parametrize("retry_after", [None, 0.5])
def test_every_route_can_be_a_429(
    claude: anthropic.Anthropic,
    gpt: openai.OpenAI,
    control: ControlClient,
    retry_after: float | None,
) -> None:
    """With the header or without it, and only on the route that was named."""
    for module, calls in ((anthropic, anthropic_calls(claude)), (openai, openai_calls(gpt))):
        for route, call in calls.items():
            control.faults(kind="http_429", route=route, retry_after=retry_after, count=1)
            with pytest.raises(module.RateLimitError) as caught:
                call()
            expected = None if retry_after is None else "0.5"
            assert caught.value.response.headers.get("retry-after") == expected, route
            call()
            assert strikes(control) == 1, route


@pytest.mark.parametrize("kind", ["slow", "slow_after"])
def test_every_route_can_be_slow(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, kind: str
) -> None:
    """The answer is the usual one, the given number of seconds later."""
    for calls in (anthropic_calls(claude), openai_calls(gpt)):
        for route, call in calls.items():
            control.faults(kind=kind, route=route, seconds=0.05, count=1)
            started = time.monotonic()
            call()
            assert time.monotonic() - started >= 0.05, route
            assert strikes(control) == 1, route


def test_a_client_gives_up_on_a_slow_create_that_was_accepted(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """A client's timeout says nothing of the batch, which was created all the same."""
    control.faults(kind="slow_after", route="create", seconds=5, nth=1)
    with pytest.raises(anthropic.APITimeoutError):
        claude.messages.batches.create(requests=entries("a"), timeout=1)
    (batch,) = until(lambda: claude.messages.batches.list().data)
    assert batch.request_counts.succeeded == 1


def test_a_reset_leaves_nothing_of_calls_that_are_under_way(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """A slow call that outlives its test creates nothing in the next one, nor in its books."""
    for kind in ("slow_after", "slow"):
        control.faults(kind=kind, route="create", seconds=1.2)
        with pytest.raises(anthropic.APITimeoutError):
            # So large a body still waits to be read when the client has gone.
            claude.messages.batches.create(requests=entries("a" * 500_000), timeout=0.6)
        control.reset()
    time.sleep(1.2)
    assert claude.messages.batches.list().data == control.ledger()["creates"] == []


def test_what_exists_can_be_a_404_for_a_moment(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """A batch, its results, a file and its content are a 404 once; the next call has them."""
    theirs, ours = anthropic_calls(claude), openai_calls(gpt)
    for module, calls, routes in (
        (anthropic, theirs, ("get", "results")),
        (openai, ours, ("get", "file", "content")),
    ):
        for route in routes:
            control.faults(kind="not_found", route=route, count=1)
            with pytest.raises(module.NotFoundError):
                calls[route]()
            calls[route]()
            assert strikes(control) == 1, route


def test_results_are_404_mid_life_and_then_complete(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """The nth of several downloads fails; later ones are complete."""
    control.faults(kind="not_found", route="results", nth=2)
    control.faults(kind="not_found", route="content", nth=2)
    batch = claude.messages.batches.create(requests=entries("a", "b"))
    claude.messages.batches.retrieve(batch.id)
    file_id = gpt.batches.retrieve(chats(gpt, "a", "b").id).output_file_id
    seen: list[int] = []
    for _ in range(3):
        try:
            lines = len(list(claude.messages.batches.results(batch.id)))
        except anthropic.NotFoundError:
            lines = -1
        try:
            seen += [lines, len(rows(gpt, file_id))]
        except openai.NotFoundError:
            seen += [lines, -1]
    assert seen == [2, 2, -1, -1, 2, 2]


def test_a_proxy_finds_a_body_too_large(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, emulator: Emulator
) -> None:
    """A 413 has a page as its body, without the API's own headers; nothing is accepted."""
    control.faults(kind="html_413")
    with pytest.raises(anthropic.APIStatusError) as caught:
        claude.messages.batches.create(requests=entries("a"))
    with pytest.raises(openai.APIStatusError) as other:
        chats(gpt, "a")
    for error in (caught.value, other.value):
        assert error.status_code == 413
        assert error.response.headers["content-type"].startswith("text/html")
        assert error.request_id is None
    path, content = "/v1/messages/batches", {"requests": entries("a")}
    _, headers, page = http(
        emulator.anthropic_url, "POST", path, headers=ANTHROPIC_HEADERS, content=content
    )
    assert headers["server"] == "cloudflare"
    with pytest.raises(json.JSONDecodeError):
        json.loads(page)
    assert claude.messages.batches.list().data == gpt.batches.list().data == []
    assert gpt.files.list().data == []


def test_a_proxy_lets_smaller_bodies_pass(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """`larger_than` strikes by the size of the body, so that sending it in parts helps."""
    control.faults(kind="html_413", larger_than=10_000)
    with pytest.raises(anthropic.APIStatusError, match="413"):
        claude.messages.batches.create(requests=entries("a" * 6_000, "b" * 6_000))
    with pytest.raises(openai.APIStatusError, match="413"):
        chats(gpt, "a" * 6_000, "b" * 6_000)
    for text in ("a" * 6_000, "b" * 6_000):
        claude.messages.batches.create(requests=entries(text))
        chats(gpt, text)
    assert len(claude.messages.batches.list().data) == len(gpt.batches.list().data) == 2


def test_a_create_of_a_stored_file_can_be_too_large_as_well(
    gpt: openai.OpenAI, control: ControlClient
) -> None:
    """If a route is named, the upload passes and only the create gets the page."""
    control.faults(kind="html_413", route="create")
    with pytest.raises(openai.APIStatusError, match="413"):
        chats(gpt, "a")
    assert len(gpt.files.list().data) == 1
    with pytest.raises(ControlError):
        control.faults(kind="html_414")
