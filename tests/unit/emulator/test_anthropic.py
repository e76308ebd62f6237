"""The Anthropic side, driven by Anthropic's SDK."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import anthropic
import pytest

from batchata_tasks.emulator import answer_text
from tests.support.emulator_requests import ANTHROPIC_HEADERS, SCHEMA, entries, http, params

if TYPE_CHECKING:
    from batchata_tasks.emulator import ControlClient, Emulator

BATCHES = "/v1/messages/batches"


def results(client: anthropic.Anthropic, batch_id: str) -> dict[str, Any]:
    """Return the results of a batch by custom_id."""
    return {item.custom_id: item.result for item in client.messages.batches.results(batch_id)}


def refusal(client: anthropic.Anthropic, requests: Any) -> str:
    """Return the message with which a create call is refused."""
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.batches.create(requests=requests)
    assert caught.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
    return caught.value.body["error"]["message"]  # type: ignore[index]


def test_a_batch_runs_and_every_request_gets_its_own_answer(claude: anthropic.Anthropic) -> None:
    """What comes back under a custom_id is the answer to what was sent under it."""
    sent = entries(*[f"row {number}" for number in range(50)])
    batch = claude.messages.batches.create(requests=sent)
    assert batch.processing_status == "in_progress"
    assert batch.request_counts.processing == 50
    ended = claude.messages.batches.retrieve(batch.id)
    assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 50)
    lines = results(claude, batch.id)
    for entry in sent:
        message = lines[entry["custom_id"]].message
        assert message.content[0].text == answer_text("anthropic", entry["params"])
        assert message.stop_reason == "end_turn"
        assert message.usage.service_tier == "batch"


def test_results_are_shuffled_the_same_way_each_time(claude: anthropic.Anthropic) -> None:
    """A client that joins by position fails against the emulator."""
    batch = claude.messages.batches.create(requests=entries(*map(str, range(100))))
    claude.messages.batches.retrieve(batch.id)
    first = [item.custom_id for item in claude.messages.batches.results(batch.id)]
    again = [item.custom_id for item in claude.messages.batches.results(batch.id)]
    assert first == again
    assert sorted(first) == sorted(f"r{number}" for number in range(100))
    assert first != [f"r{number}" for number in range(100)]


def test_counts_say_nothing_while_a_batch_runs(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """All requests count as processing until the batch ends, as the contract has it."""
    control.progress("reads", 3)
    batch = claude.messages.batches.create(requests=entries("a", "b", "c", "d"))
    for _ in range(3):
        batch = claude.messages.batches.retrieve(batch.id)
        assert batch.processing_status == "in_progress"
        assert batch.request_counts.processing == 4
        assert batch.results_url is None
    batch = claude.messages.batches.retrieve(batch.id)
    assert (batch.processing_status, batch.request_counts.processing) == ("ended", 0)


def test_the_wire_object_has_every_documented_key(emulator: Emulator) -> None:
    """A client that reads raw JSON finds all keys, null until they are reached."""
    status, headers, content = http(
        emulator.anthropic_url,
        "POST",
        BATCHES,
        headers=ANTHROPIC_HEADERS,
        content={"requests": entries("a")},
    )
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert headers["request-id"].startswith("req_")
    batch = json.loads(content)
    assert set(batch) == {
        "id", "type", "processing_status", "request_counts", "ended_at", "created_at",
        "expires_at", "archived_at", "cancel_initiated_at", "results_url",
    }  # fmt: skip
    assert batch["ended_at"] is batch["archived_at"] is batch["results_url"] is None


def test_results_come_from_the_emulator_itself_as_jsonl(
    claude: anthropic.Anthropic, emulator: Emulator
) -> None:
    """`results_url` stays on the emulator: no key ever leaves for the real host."""
    batch = claude.messages.batches.create(requests=entries("a\u2028b", "c"))
    url = str(claude.messages.batches.retrieve(batch.id).results_url)
    assert url == f"{emulator.anthropic_url}{BATCHES}/{batch.id}/results"
    path = url.removeprefix(emulator.anthropic_url)
    _, headers, content = http(emulator.anthropic_url, "GET", path, headers=ANTHROPIC_HEADERS)
    assert headers["content-type"] == "application/x-jsonl"
    assert batch.id in headers["content-disposition"]
    assert content.count(b"\n") == 2
    assert content.endswith(b"\n")
    assert b"\r" not in content


@pytest.mark.parametrize(
    ("custom_id", "message"),
    [
        ("a:b", "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"),
        ("a" * 65, "requests.0.custom_id: String should have at most 64 characters"),
        ("a\n", "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"),
        ("", "requests.0.custom_id: String should have at least 1 character"),
    ],
)
def test_a_bad_custom_id_refuses_the_whole_batch(
    claude: anthropic.Anthropic, custom_id: str, message: str
) -> None:
    """The refusal is immediate, and worded as the real one."""
    assert refusal(claude, [{"custom_id": custom_id, "params": params("a")}]) == message


def test_a_malformed_create_call_refuses_the_whole_batch(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """Duplicates, unknown keys, missing keys, too few and too many requests are refused at once."""
    one = entries("a")[0]
    assert "Duplicate custom_id" in refusal(claude, [one, one])
    assert refusal(claude, [{**one, "x": 1}]) == "requests.0.x: Extra inputs are not permitted"
    assert refusal(claude, [{"custom_id": "a"}]) == "requests.0.params: Field required"
    assert "at least 1 item" in refusal(claude, [])
    control.limits(anthropic_requests=2)
    assert "at most 2 items after validation, not 3" in refusal(claude, entries("a", "b", "c"))
    assert control.ledger()["anthropic"]["requests_accepted"] == 0


def test_a_body_that_is_too_large_is_answered_413(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """The size of the whole call is bounded, and the refusal arrives."""
    control.limits(anthropic_bytes=10_000)
    with pytest.raises(anthropic.APIStatusError) as caught:
        claude.messages.batches.create(requests=entries("a" * 500_000))
    assert caught.value.status_code == 413
    assert caught.value.body["error"]["type"] == "request_too_large"  # type: ignore[index]


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b'{"requests":1}', b'{"requests":[]} x', b'{"requests":[],"metadata":{}}', b""],
)
def test_a_body_of_the_wrong_shape_is_answered_400(emulator: Emulator, content: bytes) -> None:
    """Nothing but an object with `requests` is a create call."""
    status, _, answer = http(
        emulator.anthropic_url, "POST", BATCHES, headers=ANTHROPIC_HEADERS, content=content
    )
    assert status == 400
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"


def layouts(sent: Any) -> list[str]:
    """Write one create call in the ways that JSON leaves open."""
    backwards = [dict(reversed(row.items())) for row in sent]
    return [
        json.dumps({"requests": sent}, indent=2),
        json.dumps({"requests": sent}, separators=(",", ":")),
        json.dumps({"requests": backwards}),
        "  " + json.dumps({"requests": sent}) + "\n\n",
    ]


@pytest.mark.parametrize("layout", range(4))
def test_any_layout_of_the_same_json_is_the_same_batch(
    emulator: Emulator, claude: anthropic.Anthropic, layout: int
) -> None:
    """White space, the order of keys, and texts like the border of two requests change nothing."""
    tricky = '"},{"custom_id":"r9","params":{}},{"custom_id": '
    sent = entries("a", tricky, "b", metadata={"user_id": "u"}, stop_sequences=[tricky])
    content = layouts(sent)[layout].encode()
    _, _, answer = http(
        emulator.anthropic_url, "POST", BATCHES, headers=ANTHROPIC_HEADERS, content=content
    )
    batch_id = json.loads(answer)["id"]
    claude.messages.batches.retrieve(batch_id)
    lines = results(claude, batch_id)
    assert {key: item.message.content[0].text for key, item in lines.items()} == {
        row["custom_id"]: answer_text("anthropic", row["params"]) for row in sent
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 100_000}, "max_tokens: 100000 > 64000, which is the maximum allowed"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"stream": True}, "stream"),
        ({"temperature": 0.5}, "temperature"),
        ({"unheard_of": 1}, "unheard_of: Extra inputs are not permitted"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "user", "content": " "}]}, "must contain non-whitespace text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
            "must contain non-whitespace text",
        ),
        ({"model": "claude-3-haiku-20240307"}, "model: claude-3-haiku-20240307"),
        ({"model": ["x"]}, "model"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            "'additionalProperties' must be explicitly set to false",
        ),
        (
            {
                "output_config": {
                    "format": {
                        "type": "json_schema",
                        "schema": {
                            "$ref": "#/$defs/a",
                            "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}},
                        },
                    }
                }
            },
            "Recursive",
        ),
    ],
)
def test_wrong_params_error_one_request_and_only_at_the_end(
    claude: anthropic.Anthropic, change: dict[str, Any], message: str
) -> None:
    """The batch is accepted, and the request's line holds the error, nested twice."""
    sent: Any = [*entries("fine"), {"custom_id": "bad", "params": {**params("x"), **change}}]
    batch = claude.messages.batches.create(requests=sent)
    counts = claude.messages.batches.retrieve(batch.id).request_counts
    assert (counts.succeeded, counts.errored) == (1, 1)
    result = results(claude, batch.id)["bad"]
    assert result.type == "errored"
    assert message in result.error.error.message


def test_sampling_parameters_depend_on_the_api_version(claude: anthropic.Anthropic) -> None:
    """`temperature` is accepted under the old version and errored under the new one."""
    for version, kind in (("2023-06-01", "succeeded"), ("2026-10-21", "errored")):
        batch = claude.messages.batches.create(
            requests=entries("a", temperature=0.5), extra_headers={"anthropic-version": version}
        )
        claude.messages.batches.retrieve(batch.id)
        assert results(claude, batch.id)["r0"].type == kind


def test_keys_and_versions_are_checked(emulator: Emulator) -> None:
    """Either header carries the key, a bad one is a 401, and the version is required."""
    url, version = emulator.anthropic_url, {"anthropic-version": "2026-10-21"}
    for headers, expected in (
        ({"x-api-key": "k", **version}, 200),
        ({"authorization": "Bearer k", **version}, 200),
        ({"x-api-key": "invalid", **version}, 401),
        ({"authorization": "Bearer invalid", **version}, 401),
        (version, 401),
        ({"x-api-key": "k"}, 400),
    ):
        status, answer, content = http(url, "GET", BATCHES, headers=headers)
        assert status == expected
        if status != 200:
            assert json.loads(content)["request_id"] == answer["request-id"]


def test_accounts_do_not_see_each_other(claude: anthropic.Anthropic, emulator: Emulator) -> None:
    """A key of the form `acct:<name>:<anything>` belongs to an account of its own."""
    batch = claude.messages.batches.create(requests=entries("a"))
    other = claude.with_options(api_key="acct:b:secret")
    with pytest.raises(anthropic.NotFoundError):
        other.messages.batches.retrieve(batch.id)
    assert other.messages.batches.list().data == []
    other.messages.batches.create(requests=entries("a"))
    assert len(claude.with_options(api_key="other").messages.batches.list().data) == 1
    assert "secret" not in json.dumps(emulator.control.ledger(detail=True))


def test_lists_page_from_the_newest(claude: anthropic.Anthropic) -> None:
    """`limit`, `after_id` and `before_id` walk all batches once, in either direction."""
    made = [claude.messages.batches.create(requests=entries("a")).id for _ in range(5)][::-1]
    assert [batch.id for batch in claude.messages.batches.list(limit=2)] == made
    page = claude.messages.batches.list(limit=2, before_id=made[3])
    assert ([batch.id for batch in page.data], page.has_more) == (made[1:3], True)
    assert [batch.id for batch in claude.messages.batches.list(limit=2).data] == made[:2]


def test_cancel_keeps_what_ran_and_cancels_the_rest(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """A cancelled batch is `canceling`, then `ended`, with partial results that are billed."""
    control.progress("reads", 3)
    batch = claude.messages.batches.create(requests=entries(*map(str, range(8))))
    claude.messages.batches.retrieve(batch.id)
    claude.messages.batches.retrieve(batch.id)
    cancelled = claude.messages.batches.cancel(batch.id)
    assert cancelled.processing_status == "canceling"
    assert cancelled.cancel_initiated_at is not None
    assert claude.messages.batches.retrieve(batch.id).processing_status == "canceling"
    ended = claude.messages.batches.retrieve(batch.id)
    assert (ended.request_counts.succeeded, ended.request_counts.canceled) == (4, 4)
    kinds = [result.type for result in results(claude, batch.id).values()]
    assert (kinds.count("succeeded"), kinds.count("canceled")) == (4, 4)
    assert control.ledger()["anthropic"]["requests_billed"] == 4


def test_results_are_gone_before_the_end_and_after_archiving(
    claude: anthropic.Anthropic, control: ControlClient, emulator: Emulator
) -> None:
    """Results are a 404 while it runs, 29 days after creation and for unknown batches.

    The batch stays.
    """
    control.progress("reads", 1)
    batch = claude.messages.batches.create(requests=entries("a"))
    path = f"{BATCHES}/{batch.id}/results"
    status, _, content = http(emulator.anthropic_url, "GET", path, headers=ANTHROPIC_HEADERS)
    assert status == 404
    message = f"Message Batch {batch.id} has no available results."
    assert json.loads(content)["error"] == {"type": "not_found_error", "message": message}
    control.progress("immediate")
    assert claude.messages.batches.retrieve(batch.id).archived_at is None
    control.advance(29 * 86_400)
    assert claude.messages.batches.retrieve(batch.id).archived_at is not None
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.results(batch.id)
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve("msgbatch_unknown")


def test_a_batch_expires_after_a_day(claude: anthropic.Anthropic, control: ControlClient) -> None:
    """What ran is kept and billed, the rest is `expired` and free."""
    control.progress("seconds", 2 * 86_400)
    batch = claude.messages.batches.create(requests=entries(*map(str, range(10))))
    control.advance(86_401)
    ended = claude.messages.batches.retrieve(batch.id)
    assert (ended.request_counts.succeeded, ended.request_counts.expired) == (5, 5)
    assert ended.ended_at == ended.expires_at
    assert control.ledger()["anthropic"]["requests_billed"] == 5


def test_only_an_ended_batch_can_be_deleted(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """A running batch must be cancelled first; a deleted one is gone."""
    control.progress("reads", 1)
    batch = claude.messages.batches.create(requests=entries("a"))
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.batches.delete(batch.id)
    control.progress("immediate")
    assert claude.messages.batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve(batch.id)
    assert control.ledger()["anthropic"]["requests_billed"] == 1


def test_direct_messages_tokens_and_models(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """The calls around batches work too, and count the same tokens."""
    given = params("hello", output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    message = cast("Any", claude).messages.create(**given)
    assert message.content[0].text == answer_text("anthropic", given)
    assert message.usage.service_tier == "standard"
    del given["max_tokens"]
    assert claude.messages.count_tokens(**given).input_tokens == message.usage.input_tokens
    assert control.ledger()["anthropic"]["direct"]["input_tokens"] == message.usage.input_tokens
    assert claude.models.retrieve("claude-opus-5-5").capabilities is not None
    assert any(model.lifecycle == "deprecated" for model in claude.models.list())
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("claude-2")
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(**params("x"), extra_body={"temperature": 1})


def test_citations_quote_the_document(claude: anthropic.Anthropic) -> None:
    """A cited text is in the document at the place that the citation names."""
    data = "First sentence. Second sentence! Third one?"
    document: Any = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": data},
        "title": "facts.txt",
        "citations": {"enabled": True},
    }
    content = [document, {"type": "text", "text": "What does it say?"}]
    given: Any = {**params(""), "messages": [{"role": "user", "content": content}]}
    message = cast("Any", claude).messages.create(**given)
    assert "".join(block.text for block in message.content) == answer_text("anthropic", given)
    (citation,) = message.content[1].citations
    assert citation.type == "char_location"
    assert citation.cited_text
    assert data[citation.start_char_index : citation.end_char_index] == citation.cited_text
    given["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
    with pytest.raises(anthropic.BadRequestError, match="not compatible"):
        claude.messages.create(**given)
