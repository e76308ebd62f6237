"""The name of the cap can be set for a server that knows `max_tokens` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.providers import provider_type
from batchata_tasks.types.request import Message, Request
from tests.support.books import money
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

VARIABLE = "BATCHATA_OPENAI_CAP"
CHAT = {"model": "gpt-4.1-mini", "response_schema": None}
CAPS = {"max_completion_tokens", "max_tokens", "max_output_tokens"}


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, "openai", rows=4)


def caps(table: Table) -> list[dict[str, Any]]:
    """Return what bodies say of their caps, the smallest first."""
    found = [{k: v for k, v in body.items() if k in CAPS} for body in table.bodies().values()]
    return sorted(found, key=lambda cap: next(iter(cap.values())))


@pytest.mark.parametrize("name", [None, "max_completion_tokens", "max_tokens"])
def test_the_cap_goes_out_under_the_name_that_is_set(
    table: Table, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """It goes out under that name alone, first and in rounds, where it grows; limits hold."""
    if name is not None:
        monkeypatch.setenv(VARIABLE, name)
    table.emulator.control.faults(kind="request_truncated", contains="row 2")
    receipt = table.run(max_tokens=64, cost_limit_usd=1, **CHAT)
    assert receipt.outcomes == {"succeeded": 3, "truncated": 1}
    expected = name or "max_completion_tokens"
    assert caps(table) == [*([{expected: 64}] * 4), {expected: 128}, {expected: 256}]
    sums = money(table)
    assert (sums.reserved, sums.settled) == (0, sums.dataset)


def test_the_name_is_no_part_of_the_question(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were answered under another name of the cap are up to date."""
    table.run(**CHAT)
    monkeypatch.setenv(VARIABLE, "max_tokens")
    assert table.run(**CHAT).plan["up_to_date"] == 4


def test_a_body_of_another_process_keeps_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process without the variable raises the cap that a body has, and adds no other one."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv(VARIABLE, "max_tokens")
    request = Request("gpt-4.1-mini", (Message("user", "x"),), 64)
    body = provider_type("openai")().body(request)
    monkeypatch.delenv(VARIABLE)
    later = provider_type("openai")()
    assert (later.cap_in(body), later.cap_param) == ("max_tokens", "max_completion_tokens")
    assert later.cap_in(later.body(request)) == "max_completion_tokens"


def test_the_other_endpoint_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """`/v1/responses` calls it `max_output_tokens` everywhere."""
    monkeypatch.setenv(VARIABLE, "max_tokens")
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    adapter = provider_type("openai", "responses")()
    body = adapter.body(Request("gpt-6-luna", (Message("user", "x"),), 64))
    assert {key: body[key] for key in CAPS & body.keys()} == {"max_output_tokens": 64}
    assert adapter.cap_in(body) == "max_output_tokens"


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "https://eu.api.openai.com/v1"])
def test_openai_itself_is_asked_by_the_newer_name(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Its models that reason refuse the older one: that is told before anything is sent."""
    monkeypatch.setenv(VARIABLE, "max_tokens")
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(SpecError, match=f"^{VARIABLE}: max_tokens is for other servers .* unset"):
        provider_type("openai")()


def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch, table: Table) -> None:
    """One sentence names the variable and the names that there are."""
    monkeypatch.setenv(VARIABLE, "max_output")
    with pytest.raises(
        SpecError, match=f"^{VARIABLE}: must be 'max_completion_tokens' or 'max_tokens'; fix or un"
    ):
        table.run(**CHAT)
