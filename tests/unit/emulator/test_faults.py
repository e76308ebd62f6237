"""Faults: the emulator misbehaves when a test says so, and at no other time."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
import pytest

from batchata_tasks.emulator import ControlError
from tests.support.emulator_requests import (
    ANTHROPIC_HEADERS,
    SCHEMA,
    chats,
    entries,
    http,
    params,
    rows,
    satisfies,
)

if TYPE_CHECKING:
    from batchata_tasks.emulator import ControlClient, Emulator

FORMAT = {"format": {"type": "json_schema", "schema": SCHEMA}}
CHAT_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "row", "schema": SCHEMA, "strict": True},
}


def create(client: anthropic.Anthropic, *texts: str, **more: Any) -> str:
    """Create a batch and return its id."""
    return client.messages.batches.create(requests=entries(*(texts or ("a",)), **more)).id


def results(client: anthropic.Anthropic, batch_id: str) -> dict[str, Any]:
    """Return the results of a batch by custom_id, once it has ended."""
    client.messages.batches.retrieve(batch_id)
    return {item.custom_id: item.result for item in client.messages.batches.results(batch_id)}


def accepted(control: ControlClient, provider: str = "anthropic") -> int:
    """Return how many batches the provider accepted."""
    return control.ledger()[provider]["batches_accepted"]


@pytest.mark.parametrize("retry_after", [None, 7])
def test_429_with_and_without_retry_after(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, retry_after: int | None
) -> None:
    """Both SDKs raise their rate-limit error; the header is there only if it was requested."""
    control.faults(kind="http_429", route="list", retry_after=retry_after)
    for module, listing in (
        (anthropic, claude.messages.batches.list),
        (openai, gpt.batches.list),
    ):
        with pytest.raises(module.RateLimitError) as caught:
            listing()
        expected = None if retry_after is None else str(retry_after)
        assert caught.value.response.headers.get("retry-after") == expected


def test_a_500_before_acceptance_accepts_nothing(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """Only the nth call fails; the one after it is an ordinary call."""
    control.faults(kind="http_500_before", nth=2)
    create(claude)
    with pytest.raises(anthropic.InternalServerError):
        create(claude, "b")
    create(claude, "c")
    assert accepted(control) == 2


def test_a_500_after_acceptance_is_a_batch_that_nobody_was_told_of(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """The client sees an error, the provider has the batch, and a second create is visible."""
    control.faults(kind="http_500_after", count=2)
    with pytest.raises(anthropic.InternalServerError):
        create(claude)
    with pytest.raises(openai.InternalServerError):
        chats(gpt, "a")
    assert len(claude.messages.batches.list().data) == len(gpt.batches.list().data) == 1
    create(claude)
    book = control.ledger()["anthropic"]
    assert book["accepted_twice"]["number"] == 1


@pytest.mark.parametrize(("kind", "expected"), [("drop_before", 0), ("drop_after", 1)])
def test_a_dropped_connection_tells_nothing(
    claude: anthropic.Anthropic,
    gpt: openai.OpenAI,
    control: ControlClient,
    kind: str,
    expected: int,
) -> None:
    """The connection closes without an answer, before or after the batch was accepted."""
    control.faults(kind=kind, nth=1, provider="anthropic")
    control.faults(kind=kind, nth=1, provider="openai")
    with pytest.raises(anthropic.APIConnectionError):
        create(claude, "a" * 300_000)
    with pytest.raises(openai.APIConnectionError):
        chats(gpt, "a")
    assert accepted(control) == accepted(control, "openai") == expected
    assert [seen["status"] for seen in control.ledger()["creates"]] == [None, None]


def test_a_delayed_acceptance_shows_up_later(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """The batch that was not answered appears on the clock, with the time of its appearance."""
    control.freeze()
    control.faults(kind="accept_delay", seconds=30)
    with pytest.raises(anthropic.APIConnectionError):
        create(claude)
    assert claude.messages.batches.list().data == []
    control.advance(29)
    assert claude.messages.batches.list().data == []
    control.advance(1)
    (batch,) = claude.messages.batches.list().data
    assert batch.created_at.timestamp() == pytest.approx(control.now())
    assert accepted(control) == 1


def test_lists_lag_behind(claude: anthropic.Anthropic, control: ControlClient) -> None:
    """A batch can be had by its id before any list shows it."""
    control.freeze()
    control.faults(kind="list_lag", seconds=10)
    batch_id = create(claude)
    assert claude.messages.batches.retrieve(batch_id).id == batch_id
    assert claude.messages.batches.list().data == []
    control.advance(10)
    assert [batch.id for batch in claude.messages.batches.list()] == [batch_id]


def test_a_transient_404_after_a_create(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """An id that was just given can be unknown for a moment."""
    batch_id = create(claude)
    control.faults(kind="not_found", nth=1)
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve(batch_id)
    assert claude.messages.batches.retrieve(batch_id).processing_status == "ended"


def test_any_status_as_json_or_html(
    claude: anthropic.Anthropic, control: ControlClient, emulator: Emulator
) -> None:
    """Overload, a spend cap without retry-after, and a 413 page from in front of the API."""
    control.faults(
        kind="http_error", route="create", nth=1, status=529, error_type="overloaded_error"
    )
    with pytest.raises(anthropic.InternalServerError, match="overloaded_error"):
        create(claude)
    control.clear_faults()
    control.faults(kind="http_429", nth=1, error_code="enforced_spend_limit_reached")
    with pytest.raises(anthropic.RateLimitError) as caught:
        create(claude)
    assert caught.value.body["error"]["details"] == {  # type: ignore[index]
        "error_code": "enforced_spend_limit_reached"
    }
    control.clear_faults()
    control.faults(kind="http_error", route="create", status=413, html=True)
    status, headers, content = http(
        emulator.anthropic_url,
        "POST",
        "/v1/messages/batches",
        headers=ANTHROPIC_HEADERS,
        content={"requests": entries("a")},
    )
    assert (status, content[:6]) == (413, b"<html>")
    assert headers["content-type"].startswith("text/html")
    assert accepted(control) == 0


@pytest.mark.parametrize("clean", [False, True])
def test_a_download_is_cut(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, *, clean: bool
) -> None:
    """The nth download ends early: as a broken connection, or as if that were all."""
    batch_id = create(claude, *map(str, range(2_000)))
    whole = results(claude, batch_id)
    file_id = str(gpt.batches.retrieve(chats(gpt, "a", "b").id).output_file_id)
    size = len(gpt.files.content(file_id).content)
    control.faults(kind="cut_download", nth=1, after_bytes=400_000, clean=clean, route="results")
    control.faults(kind="cut_download", nth=1, after_bytes=size - 10, clean=clean, route="content")
    with suppress(
        httpx2.RemoteProtocolError, json.JSONDecodeError
    ):  # a clean cut may fall between two lines
        assert len(results(claude, batch_id)) < len(whole)
    if clean:
        assert len(gpt.files.content(file_id).content) == size - 10
    else:
        with pytest.raises(openai.APIConnectionError):
            gpt.files.content(file_id)
    assert results(claude, batch_id) == whole
    assert len(gpt.files.content(file_id).content) == size


def test_requests_fail_by_the_user_text(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """Each kind strikes the requests whose text contains its mark, on both providers."""
    kinds = (
        "error", "invalid", "expired", "refusal", "truncated", "invalid_answer", "missing",
    )  # fmt: skip
    for kind in kinds:
        control.faults(kind=f"request_{kind}", contains=f"«{kind}»")
    texts = [f'say "«{kind}»"' for kind in (*kinds, "fine")]
    lines = results(claude, create(claude, *texts, output_config=FORMAT))
    assert lines["r0"].error.error.type == "api_error"
    assert lines["r1"].error.error.type == "invalid_request_error"
    assert lines["r2"].type == "expired"
    assert lines["r3"].message.stop_reason == "refusal"
    assert lines["r4"].message.stop_reason == "max_tokens"
    assert not satisfies(lines["r5"].message.content[0].text, SCHEMA)
    assert "r6" not in lines
    assert satisfies(lines["r7"].message.content[0].text, SCHEMA)
    batch = gpt.batches.retrieve(chats(gpt, *texts, response_format=CHAT_FORMAT).id)
    done, failed = rows(gpt, batch.output_file_id), rows(gpt, batch.error_file_id)
    assert failed["r0"]["response"]["status_code"] == 500
    assert failed["r1"]["response"]["status_code"] == 400
    assert failed["r2"]["error"]["code"] == "batch_expired"
    assert set(done) == {"r3", "r4", "r5", "r7"}
    choices = {key: row["response"]["body"]["choices"][0] for key, row in done.items()}
    assert choices["r3"]["message"]["refusal"]
    assert choices["r4"]["finish_reason"] == "length"
    assert not satisfies(choices["r5"]["message"]["content"], SCHEMA)
    for provider in ("anthropic", "openai"):
        assert control.ledger()[provider]["requests_billed"] == 4


def test_a_share_strikes_the_same_contents_every_time(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """About the given share of requests fails, always the same ones, whatever their custom_id."""
    control.faults(kind="request_error", share=0.2)
    texts = [f"row {number}" for number in range(500)]
    first = results(claude, create(claude, *texts))
    struck = {int(key[1:]) for key, result in first.items() if result.type == "errored"}
    assert 60 < len(struck) < 140
    again = results(claude, create(claude, *reversed(texts)))
    assert {499 - int(key[1:]) for key, item in again.items() if item.type == "errored"} == struck


def test_a_fault_strikes_a_content_so_many_times(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """With `times=1` the retry of a request succeeds, even if its cap was raised."""
    control.faults(kind="request_truncated", contains="x", times=1)
    assert results(claude, create(claude, "x"))["r0"].message.stop_reason == "max_tokens"
    retried = results(claude, create(claude, "x", max_tokens=512))
    assert retried["r0"].message.stop_reason == "end_turn"


def test_lines_are_duplicated_or_broken(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """A line may come twice, or not be JSON at all."""
    control.faults(kind="request_duplicated", contains="twice")
    batch_id = create(claude, "twice", "once")
    claude.messages.batches.retrieve(batch_id)
    names = [item.custom_id for item in claude.messages.batches.results(batch_id)]
    assert sorted(names) == ["r0", "r0", "r1"]
    control.faults(kind="request_broken_line", contains="broken")
    with pytest.raises(json.JSONDecodeError):
        results(claude, create(claude, "broken"))


def test_the_enqueued_token_limit_is_a_wait(gpt: openai.OpenAI, control: ControlClient) -> None:
    """The batch fails its validation; the same content passes later."""
    control.faults(kind="token_limit", nth=1)
    batch = gpt.batches.retrieve(chats(gpt, "a").id)
    assert batch.errors
    assert batch.errors.data
    assert batch.errors.data[0].code == "token_limit_exceeded"
    assert gpt.batches.retrieve(chats(gpt, "a").id).status == "completed"
    assert control.ledger()["openai"]["accepted_twice"]["number"] == 0


def test_probability_is_reproducible(claude: anthropic.Anthropic, control: ControlClient) -> None:
    """The same seed makes the same calls fail."""

    def outcomes() -> list[bool]:
        control.clear_faults()
        control.faults(kind="http_error", route="models", probability=0.5, seed=3, status=503)
        seen: list[bool] = []
        for _ in range(20):
            try:
                claude.models.retrieve("claude-opus-5-5")
            except anthropic.InternalServerError:
                seen.append(False)
            else:
                seen.append(True)
        return seen

    first = outcomes()
    assert set(first) == {True, False}
    assert outcomes() == first


def test_knobs_that_do_not_exist_are_refused(control: ControlClient) -> None:
    """A misspelt fault is an error, never a test that tests nothing."""
    for knobs in ({"kind": "http_430"}, {"kind": "http_429", "ntn": 1}, {}):
        with pytest.raises(ControlError):
            control.faults(**knobs)
    with pytest.raises(ControlError):
        control.limits(nothing=1)
    with pytest.raises(ControlError):
        control.progress("sometimes")  # type: ignore[arg-type]
    control.faults(kind="http_429", count=1)
    assert [rule["strikes"] for rule in control.list_faults()] == [0]


def test_the_books_by_content(claude: anthropic.Anthropic, control: ControlClient) -> None:
    """The detail lists each content with its custom_ids and its cost, without text or key."""
    sent: Any = [
        *entries("secret text"),
        {"custom_id": "bad", "params": params("secret text", max_tokens=0)},
    ]
    batch = claude.messages.batches.create(requests=sent)
    claude.messages.batches.retrieve(batch.id)
    create(claude, "secret text")
    book = control.ledger(detail=True)
    assert "secret" not in json.dumps(book)
    assert "some-key" not in json.dumps(book)
    contents = {tuple(item["custom_ids"]): item for item in book["anthropic"]["contents"].values()}
    assert contents["r0", "r0"]["accepted"] == contents["r0", "r0"]["billed"] == 2
    assert contents[("bad",)]["billed"] == contents[("bad",)]["input_tokens"] == 0
    assert book["anthropic"]["accepted_twice"]["number"] == 1
    assert book["anthropic"]["input_tokens_billed"] == contents["r0", "r0"]["input_tokens"]
