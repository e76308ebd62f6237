"""`endpoint: responses`: what is sent, how answers are read, and what rows and money come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import PICO
from batchata_tasks.planning.fingerprint import changed
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.providers.openai.chat import OpenAIAdapter
from batchata_tasks.providers.openai.responses import OpenAIResponsesAdapter
from batchata_tasks.providers.request_file import write_request_file
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import Outcome
from batchata_tasks.types.request import Message, Request
from tests.support.books import check_money
from tests.support.table import MODELS, SCHEMA, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

GPT = MODELS["openai"]
ROWS = 6


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> OpenAIResponsesAdapter:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    return OpenAIResponsesAdapter()


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of six rows."""
    return Table(tmp_path, emulator, "responses", rows=ROWS)


# --- what goes out --------------------------------------------------------------------------------


def test_a_body_has_turns_cap_and_form_under_the_endpoints_names(
    adapter: OpenAIResponsesAdapter,
) -> None:
    """Parts are input or output by their role, and the form of the answer is strict.

    Nothing is stored unless it is requested.
    """
    turns = (
        Message("system", "Be brief."),
        Message("user", ("one", "two")),
        Message("assistant", ("three",)),
        Message("user", "four"),
    )
    schema = ResponseSchema.from_json_schema(SCHEMA, "x")
    params = {"text": {"verbosity": "low"}, "reasoning": {"effort": "low"}}
    assert adapter.body(Request(GPT, turns, 200, params, schema)) == {
        "model": GPT,
        "input": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "one"},
                    {"type": "input_text", "text": "two"},
                ],
            },
            {"role": "assistant", "content": [{"type": "output_text", "text": "three"}]},
            {"role": "user", "content": "four"},
        ],
        "max_output_tokens": 200,
        "store": False,
        "reasoning": {"effort": "low"},
        "text": {
            "format": {
                "type": "json_schema",
                "name": schema.name,
                "schema": schema.wire,
                "strict": True,
            },
            "verbosity": "low",
        },
    }
    assert adapter.body(Request(GPT, turns, 200, {"store": True}))["store"] is True


@pytest.mark.parametrize("name", ["reasoning_effort", "verbosity"])
def test_a_parameter_of_chat_is_told_its_name_here(table: Table, name: str) -> None:
    """What the API would refuse for each row is refused before, with the correct words."""
    with pytest.raises(
        SpecError, match=rf"^params\.{name}: /v1/responses has it under another name; write `"
    ):
        table.run(params={name: "low"})
    assert table.ledger()["requests_accepted"] == 0


def test_a_temperature_goes_with_a_model_that_does_not_reason(table: Table) -> None:
    """Models that can reason take a temperature only if told not to reason."""
    with pytest.raises(SpecError, match=r"params\.temperature"):
        table.run(params={"temperature": 0})
    assert table.run(params={"temperature": 0, "reasoning": {"effort": "none"}}).exit_code == 0


def test_models_that_chat_does_not_serve_are_sent_here(table: Table) -> None:
    """A model that only this endpoint serves is refused at chat, with the place that serves it.

    It answers here.
    """
    with pytest.raises(SpecError, match="gpt-5-pro is served by the endpoint /v1/responses alone"):
        table.run(model="gpt-5-pro", endpoint="chat")
    assert table.run(model="gpt-5-pro").exit_code == 0
    assert {row["_model"] for row in table.rows()} == {"gpt-5-pro"}


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [(OpenAIAdapter, OpenAIResponsesAdapter), (OpenAIResponsesAdapter, OpenAIAdapter)],
)
def test_requests_to_one_endpoint_are_no_batch_of_the_other(
    emulator: Emulator, tmp_path: Path, url: type[OpenAIAdapter], endpoint: type[OpenAIAdapter]
) -> None:
    """The provider checks each line's URL against the batch's: all are named, nothing runs."""
    adapter, path = endpoint(), tmp_path / "requests.jsonl"
    body = orjson.dumps(url().body(Request(GPT, (Message("user", "x"),), 200)))
    write_request_file(path, url.framing, "t" * 20, [("0" * 24, body), ("1" * 24, body)])
    look = adapter.look(adapter.create(path, adapter.upload(path), "t" * 20, lambda: None).batch_id)
    assert (look.status, sorted(look.bad_lines)) == ("failed", [1, 2])
    assert look.bad_lines[1].startswith("invalid_url: ")
    assert emulator.control.ledger()["openai"]["requests_billed"] == 0


def test_another_endpoint_is_another_model(
    emulator: Emulator, table: Table, tmp_path: Path
) -> None:
    """Another endpoint may answer otherwise, so its rows are sent again, for the reason `model`."""
    table.run(endpoint="chat")
    before = {row["id"]: row["_fingerprint"] for row in table.rows()}
    assert table.run().plan["reasons"] == {"model": ROWS}
    after = {row["id"]: row["_fingerprint"] for row in table.rows()}
    assert {tuple(changed(before[key], after[key])) for key in before} == {("model",)}
    assert table.run().plan["up_to_date"] == ROWS


# --- how answers are read -------------------------------------------------------------------------

USAGE = {
    "input_tokens": 350,
    "input_tokens_details": {"cached_tokens": 200, "cache_write_tokens": 50},
    "output_tokens": 109,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 459,
}
REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "content": [{"type": "reasoning_text", "text": "hidden"}],
    "summary": [],
}


def message(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": list(parts),
        **more,
    }


def said(text: Any) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def read(adapter: OpenAIResponsesAdapter, folder: Path, **changes: Any) -> Answer:
    """Return what the adapter makes of a completed response, changed like this."""
    body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "gpt-6-luna-2026-09-01",
        "output": [REASONING, message(said("Hi"), phase="final_answer")],
        "usage": USAGE,
    }
    line = {
        "id": "batch_req_1",
        "custom_id": "r1",
        "response": {"status_code": 200, "request_id": "q", "body": {**body, **changes}},
        "error": None,
    }
    path = folder / "results.jsonl"
    path.write_bytes(orjson.dumps(line) + b"\n")
    (answer,) = adapter.answers(path)
    return answer


INCOMPLETE = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
FILTERED = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
REFUSED = {"output": [message({"type": "refusal", "refusal": "No."})]}
READINGS: list[tuple[str, dict[str, Any], Outcome, str | None, str | None]] = [
    ("plain", {}, Outcome.SUCCEEDED, "Hi", None),
    (
        "parts and messages are one text",
        {"output": [message(said("a"), said("b")), REASONING, message(said("c"))]},
        Outcome.SUCCEEDED,
        "abc",
        None,
    ),
    (
        "commentary is no answer",
        {"output": [message(said("Let me see."), phase="commentary"), message(said("{}"))]},
        Outcome.SUCCEEDED,
        "{}",
        None,
    ),
    (
        "no message",
        {"output": [REASONING]},
        Outcome.SUCCEEDED,
        None,
        None,
    ),  # landing makes it invalid
    ("null output", {"output": None}, Outcome.SUCCEEDED, None, None),
    (
        "a call of a tool is no text",
        {"output": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
        Outcome.SUCCEEDED,
        None,
        None,
    ),
    (
        "cut short",
        INCOMPLETE,
        Outcome.TRUNCATED,
        "Hi",
        "truncated: stopped by the token cap (max_output_tokens)",
    ),
    (
        "only reasoned",
        {**INCOMPLETE, "output": [REASONING]},
        Outcome.TRUNCATED,
        None,
        "truncated: stopped by the token cap (max_output_tokens)",
    ),
    ("filtered", FILTERED, Outcome.REFUSED, "Hi", "refused: stopped by the content filter"),
    ("refused", REFUSED, Outcome.REFUSED, None, "refused: No."),
    ("refused at the cap", {**INCOMPLETE, **REFUSED}, Outcome.REFUSED, None, "refused: No."),
    (
        "steered",
        {"status": "incomplete", "incomplete_details": {"reason": "steered"}},
        Outcome.INVALID,
        "Hi",
        "response: ended as 'incomplete, steered', which is not a finished answer",
    ),
    (
        "incomplete for no reason",
        {"status": "incomplete"},
        Outcome.INVALID,
        "Hi",
        "response: ended as 'incomplete', which is not a finished answer",
    ),
    (
        "queued",
        {"status": "queued", "output": []},
        Outcome.INVALID,
        None,
        "response: ended as 'queued', which is not a finished answer",
    ),
    (
        "no status",
        {"status": None},
        Outcome.SUCCEEDED,
        "Hi",
        None,
    ),
    (
        "no status, and a reason why it is incomplete",
        {"status": None, "incomplete_details": {"reason": "max_output_tokens"}},
        Outcome.TRUNCATED,
        "Hi",
        "truncated: stopped by the token cap (max_output_tokens)",
    ),
    (
        "failed",
        {"status": "failed", "error": {"code": "server_error", "message": "Oops."}, "output": []},
        Outcome.ERRORED,
        None,
        "provider: server_error: Oops.",
    ),
    (
        "a prompt that no retry mends",
        {
            "status": "failed",
            "error": {"code": "invalid_prompt", "message": "Flagged."},
            "output": [],
        },
        Outcome.ERRORED,
        None,
        "request: invalid_prompt: Flagged.",
    ),
    (
        "failed for no reason",
        {"status": "failed", "output": []},
        Outcome.ERRORED,
        None,
        "provider: the response failed without a reason",
    ),
]


@pytest.mark.parametrize(
    ("changes", "outcome", "text", "error"),
    [row[1:] for row in READINGS],
    ids=[row[0] for row in READINGS],
)
def test_a_response_has_one_outcome(
    adapter: OpenAIResponsesAdapter,
    tmp_path: Path,
    changes: dict[str, Any],
    outcome: Outcome,
    text: str | None,
    error: str | None,
) -> None:
    """For any status and output, the outcome, the text and the usage are read."""
    answer = read(adapter, tmp_path, **changes)
    assert (answer.outcome, answer.text, answer.error) == (outcome, text, error)
    assert (answer.usage, answer.readable, answer.model) == (
        Usage(350, 109, 200, 50),
        True,
        "gpt-6-luna-2026-09-01",
    )


def test_a_failure_without_usage_cost_nothing(
    adapter: OpenAIResponsesAdapter, tmp_path: Path
) -> None:
    """As after an HTTP error, there is no answer to bill."""
    answer = read(adapter, tmp_path, status="failed", usage=None, output=[])
    assert (answer.usage, answer.readable) == (Usage(), True)


@pytest.mark.parametrize(
    "changes",
    [
        {"usage": None},
        {**INCOMPLETE, "usage": None},
        {"usage": {"input_tokens": "7"}},
        {"usage": {"input_tokens": [7], "output_tokens": 7}},
        {"output": [message(said("a"))], "usage": "many"},
    ],
)
def test_an_answer_that_does_not_say_what_it_used_leaves_the_cost_open(
    adapter: OpenAIResponsesAdapter, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """It was billed, whatever the line lost, so it counts at its bound."""
    assert not read(adapter, tmp_path, **changes).readable


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limit",
    [{}, {"cost_limit_usd": 1}, {"budget": {"name": "b", "limit_usd": 1}}],
    ids=["free", "limited", "budget"],
)
@pytest.mark.parametrize("effort", ["none", "high"])
def test_each_row_costs_what_its_line_was_billed(
    table: Table, limit: dict[str, Any], effort: str
) -> None:
    """Rows, ledger and provider agree, line by line.

    Reasoning is output and costs what output does.
    """
    receipt = table.run(params={"reasoning": {"effort": effort}}, **limit)
    assert (receipt.exit_code, receipt.outcomes) == (0, {"succeeded": ROWS})
    table.check_answers()
    rates = published_rates("openai", GPT)
    assert rates is not None
    billed = {
        name: Usage(*used)
        for one in table.ledger()["contents"].values()
        for name, used in zip(one["custom_ids"], one["usage"], strict=True)
    }
    for row in table.rows():
        used = billed[row["_custom_id"]]
        assert (row["_input_tokens"], row["_output_tokens"]) == (
            used.input_tokens,
            used.output_tokens,
        )
        assert int(row["_cost_usd"] * PICO) == rates.cost(used)
        assert (row["_output_tokens"] > 64) is (effort == "high")
    check_money(table)


@pytest.mark.parametrize(
    ("fault", "status", "error", "attempts"),
    [
        ("request_refusal", "refused", "refused: I'm sorry", 1),
        ("request_filtered", "refused", "refused: stopped by the content filter", 1),
        ("request_invalid", "errored", "request: HTTP 400", 1),
        ("request_failed", "errored", "provider: server_error: The model failed", 3),
        ("request_error", "errored", "provider: HTTP 500", 3),
        ("request_truncated", "truncated", "truncated: stopped by the token cap", 3),
        ("request_invalid_answer", "invalid", "response: ", 3),
    ],
)
def test_a_row_that_fails_says_why(
    table: Table, fault: str, status: str, error: str, attempts: int
) -> None:
    """A failed row ends as the provider says, and is sent again if that can help.

    All that was billed is in the books.
    """
    table.emulator.control.faults(kind=fault, contains="row 4")
    receipt = table.run(cost_limit_usd=1)
    assert receipt.outcomes == {"succeeded": ROWS - 1, status: 1}
    row = next(row for row in table.rows() if row["id"] == "k4")
    assert (row["_status"], row["_attempts"]) == (status, attempts)
    assert row["_error"].startswith(error)
    check_money(table)


def test_a_cap_that_is_spent_on_reasoning_brings_no_text(table: Table) -> None:
    """Such an answer is truncated and billed, and a larger cap gets the text."""
    plain = {
        "response_schema": None,
        "max_tokens": 64,
        "params": {"reasoning": {"effort": "high"}},
        "rerun_on": ["new", "failed"],
    }
    table.run(**plain, max_attempts=1)
    assert {(row["_status"], row["_response"], row["_output_tokens"]) for row in table.rows()} == {
        ("truncated", None, 64)
    }
    receipt = table.run(**plain)
    assert receipt.outcomes == {"succeeded": ROWS}
    table.check_answers()
    check_money(table)
