"""The OpenAI side, driven by OpenAI's SDK."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import openai
import pytest

from batchata_tasks.emulator import answer_text
from tests.support.emulator_requests import (
    CHAT,
    OPENAI_HEADERS,
    SCHEMA,
    body,
    chats,
    http,
    jsonl,
    line,
    rows,
    submit,
)

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import ControlClient, Emulator

FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "row", "schema": SCHEMA, "strict": True},
}


def errors(client: openai.OpenAI, *given: Any, **more: Any) -> list[tuple[Any, ...]]:
    """Return how a batch over these lines fails its validation."""
    batch = submit(client, *given, **more)
    assert batch.status == "validating"
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "failed"
    assert batch.failed_at
    assert batch.output_file_id is batch.error_file_id is None
    assert batch.request_counts
    assert batch.request_counts.total == 0
    assert batch.errors
    return [(item.code, item.line, item.param) for item in batch.errors.data or []]


def test_a_batch_runs_and_every_request_gets_its_own_answer(gpt: openai.OpenAI) -> None:
    """What comes back under a custom_id is the answer to what was sent under it."""
    texts = [f"row {number}" for number in range(50)]
    batch = chats(gpt, *texts, response_format=FORMAT)
    assert (batch.status, batch.model, batch.usage) == ("validating", None, None)
    batch = gpt.batches.retrieve(batch.id)
    assert (batch.status, batch.model) == ("completed", "gpt-6-luna")
    assert batch.error_file_id is None
    lines = rows(gpt, batch.output_file_id)
    for index, text in enumerate(texts):
        answer = lines[f"r{index}"]["response"]["body"]
        expected = answer_text("openai", body(text, response_format=FORMAT))
        assert answer["choices"][0]["message"]["content"] == expected
        assert set(json.loads(expected)) == {"topic", "score"}


def test_usage_adds_up(gpt: openai.OpenAI, control: ControlClient) -> None:
    """The batch's usage is the sum of its lines, and the books say the same."""
    batch = gpt.batches.retrieve(chats(gpt, "a", "bb" * 100, "ccc").id)
    used = [row["response"]["body"]["usage"] for row in rows(gpt, batch.output_file_id).values()]
    assert batch.usage
    assert batch.usage.input_tokens == sum(item["prompt_tokens"] for item in used)
    assert batch.usage.output_tokens == sum(item["completion_tokens"] for item in used)
    book = control.ledger()["openai"]
    assert book["input_tokens_billed"] == batch.usage.input_tokens
    assert book["output_tokens_billed"] == batch.usage.output_tokens


def test_states_and_counts_move_while_a_batch_runs(
    gpt: openai.OpenAI, control: ControlClient
) -> None:
    """validating, in_progress with live counts, finalizing, completed."""
    control.progress("seconds", 100)
    control.freeze()
    batch = chats(gpt, *map(str, range(10)))
    seen: list[tuple[str, int]] = []
    for _ in range(6):
        batch = gpt.batches.retrieve(batch.id)
        assert batch.request_counts
        seen.append((batch.status, batch.request_counts.completed))
        control.advance(20)
    assert [status for status, _ in seen] == [
        "validating", "in_progress", "in_progress", "in_progress", "finalizing", "completed",
    ]  # fmt: skip
    assert [done for _, done in seen] == [0, 2, 5, 8, 10, 10]


def test_requests_that_fail_go_to_the_error_file(gpt: openai.OpenAI) -> None:
    """A 400 is a line with a status and no `error`; a file without lines does not exist."""
    batch = submit(
        gpt,
        line("good", body("a")),
        line("capped", body("b", max_tokens=5)),
        line("warm", body("c", temperature=0.2)),
        line("one", body("d", temperature=1)),
        line("empty", {"model": "gpt-6-luna", "messages": []}),
    )
    batch = gpt.batches.retrieve(batch.id)
    assert batch.request_counts
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 3)
    assert set(rows(gpt, batch.output_file_id)) == {"good", "one"}
    failed = rows(gpt, batch.error_file_id)
    assert all(row["error"] is None for row in failed.values())
    assert all(row["response"]["status_code"] == 400 for row in failed.values())
    codes = {key: row["response"]["body"]["error"]["code"] for key, row in failed.items()}
    assert codes == {
        "capped": "unsupported_parameter",
        "warm": "unsupported_value",
        "empty": "empty_array",
    }
    alone = gpt.batches.retrieve(chats(gpt, "a", max_tokens=5).id)
    assert (alone.status, alone.output_file_id) == ("completed", None)
    older = submit(gpt, line("a", {**body("a", max_tokens=5, temperature=0), "model": "gpt-4.1"}))
    assert gpt.batches.retrieve(older.id).error_file_id is None


def test_validation_lists_every_bad_line(gpt: openai.OpenAI) -> None:
    """One bad line fails the batch, and all bad lines are named, counted from 1."""
    faults = errors(
        gpt,
        line("a", body("a")),
        b"not json",
        {"custom_id": "b", "method": "POST", "url": CHAT},
        line("c", body("c"), url="/v1/embeddings"),
        line("d", {**body("d"), "model": "claude-opus-5"}),
        line("e", {"messages": []}),
        line("f", {"model": "gpt-6-luna"}),
        line("g", body("g", stream=True)),
        line("a", body("again")),
        line("h", {**body("h"), "model": "gpt-6-sol"}),
    )
    assert faults == [
        ("invalid_json_line", 2, None),
        ("missing_required_parameter", 3, "body"),
        ("invalid_url", 4, "url"),
        ("model_not_found", 5, "body.model"),
        ("invalid_request", 6, "body.model"),
        ("invalid_request", 7, "body.messages"),
        ("streaming_unsupported", 8, "body.stream"),
        ("duplicate_custom_id", 9, "custom_id"),
        ("mismatched_model", 10, "body.model"),
    ]


def test_a_byte_order_mark_fails_the_first_line(gpt: openai.OpenAI) -> None:
    """A file that Windows tools wrote is taken at upload and fails validation."""
    marked = b"\xef\xbb\xbf" + json.dumps(line("a", body("a"))).encode()
    assert errors(gpt, marked) == [("invalid_json_line", 1, None)]


def test_a_file_with_too_many_lines_fails(gpt: openai.OpenAI, control: ControlClient) -> None:
    """The number of requests is bounded, and shows in validation only."""
    control.limits(openai_requests=2)
    lines = [line(f"r{index}", body("a")) for index in range(3)]
    assert errors(gpt, *lines) == [("too_many_tasks", None, None)]


def test_an_unknown_input_file_is_not_a_create_error(gpt: openai.OpenAI) -> None:
    """The batch is created and then fails; nothing of it counts as accepted."""
    batch = gpt.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    batch = gpt.batches.retrieve(batch.id)
    assert batch.status == "failed"
    assert batch.errors
    assert batch.errors.data
    assert (batch.errors.data[0].code, batch.errors.data[0].param) == ("invalid_request", "file_id")


def test_failed_batches_are_neither_accepted_nor_billed(
    gpt: openai.OpenAI, control: ControlClient
) -> None:
    """The same content after a failed validation does not count as sent twice."""
    good = line("a", body("a"))
    errors(gpt, good, b"x")
    gpt.batches.retrieve(submit(gpt, good).id)
    book = control.ledger()["openai"]
    assert (book["batches_refused"], book["requests_accepted"]) == (1, 1)
    assert book["accepted_twice"]["number"] == 0


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"endpoint": "/v1/invalid/endpoint"}, "endpoint", "invalid_value"),
        ({"completion_window": "48h"}, "completion_window", "invalid_value"),
        ({"metadata": {"tags": ["a"]}}, "metadata.tags", "invalid_type"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, None, "invalid_value"),
    ],
)
def test_a_create_call_of_the_wrong_shape_is_refused(
    gpt: openai.OpenAI, change: dict[str, Any], param: str | None, code: str
) -> None:
    """Endpoint, window and metadata are checked at once, before any file is looked at."""
    given: Any = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.batches.create(**{**given, **change})
    assert param in (None, caught.value.param)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.json", b"{}\n", "Must be .jsonl"),
        ("in.jsonl", b"", "jsonl"),
        ("in.jsonl", b"nonsense\n", "jsonl"),
        ("in.jsonl", b"{}\n" * 500, "too large"),
    ],
)
def test_uploads_are_checked(
    gpt: openai.OpenAI, control: ControlClient, name: str, content: bytes, message: str
) -> None:
    """Wrong extension, empty, not JSON, too large: 400 at upload."""
    control.limits(openai_batch_bytes=1_000)
    with pytest.raises(openai.BadRequestError, match=message):
        gpt.files.create(file=(name, content), purpose="batch")


def test_files_come_back_byte_for_byte(gpt: openai.OpenAI, tmp_path: Path) -> None:
    """Upload, show, list, download and delete, with content that multipart must not confuse."""
    content = jsonl({"a": "\r\n--x\r\n"}, {"b": "é\u2028"}) + b"\r\n--\r\n" * 3
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    with path.open("rb") as handle:
        file = gpt.files.create(
            file=handle,
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 3_600},
        )
    assert (file.bytes, file.filename) == (len(content), "in.jsonl")
    assert file.expires_at == file.created_at + 3_600
    assert gpt.files.content(file.id).content == content
    assert [found.id for found in gpt.files.list(purpose="batch")] == [file.id]
    assert gpt.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        gpt.files.retrieve(file.id)


def test_cancel_keeps_what_ran(gpt: openai.OpenAI, control: ControlClient) -> None:
    """The states are cancelling, then cancelled with both files.

    A second cancellation changes nothing; a completed batch is a 409.
    """
    control.progress("reads", 3)
    batch = chats(gpt, *map(str, range(9)))
    gpt.batches.retrieve(batch.id)
    assert gpt.batches.cancel(batch.id).status == "cancelling"
    assert gpt.batches.retrieve(batch.id).status == "cancelling"
    ended = gpt.batches.retrieve(batch.id)
    assert ended.status == "cancelled"
    assert ended.cancelled_at
    never = rows(gpt, ended.error_file_id)
    assert {row["error"]["code"] for row in never.values()} == {"batch_cancelled"}
    assert all(row["response"] is None for row in never.values())
    assert len(never) + len(rows(gpt, ended.output_file_id)) == 9
    assert gpt.batches.cancel(batch.id).status == "cancelled"
    control.progress("immediate")
    other = gpt.batches.retrieve(chats(gpt, "a").id)
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        gpt.batches.cancel(other.id)


def test_a_batch_cancelled_while_validating_has_no_files(gpt: openai.OpenAI) -> None:
    """Nothing ran, so nothing is counted or billed."""
    batch = chats(gpt, "a", "b")
    gpt.batches.cancel(batch.id)
    ended = gpt.batches.retrieve(batch.id)
    assert (ended.status, ended.output_file_id, ended.error_file_id) == ("cancelled", None, None)
    assert ended.request_counts
    assert ended.request_counts.total == 0


def test_a_batch_expires_after_a_day(gpt: openai.OpenAI, control: ControlClient) -> None:
    """What ran is kept and billed; the rest is in the error file as `batch_expired`."""
    control.progress("seconds", 2 * 86_400)
    batch = chats(gpt, *map(str, range(9)))
    control.advance(86_401)
    ended = gpt.batches.retrieve(batch.id)
    assert ended.status == "expired"
    expired = rows(gpt, ended.error_file_id)
    assert {row["error"]["code"] for row in expired.values()} == {"batch_expired"}
    done = rows(gpt, ended.output_file_id)
    assert len(done) == control.ledger()["openai"]["requests_billed"] == 9 - len(expired)
    control.advance(30 * 86_400)
    with pytest.raises(openai.NotFoundError):
        gpt.files.content(str(ended.output_file_id))


def test_lists_keys_accounts_and_headers(gpt: openai.OpenAI, emulator: Emulator) -> None:
    """Lists page from the newest and carry metadata; keys are checked; accounts are apart."""
    made = [chats(gpt, "a").id]
    made.insert(0, submit(gpt, line("a", body("b")), metadata={"token": "t1"}).id)
    assert [batch.id for batch in gpt.batches.list(limit=1)] == made
    assert gpt.batches.list(limit=1).data[0].metadata == {"token": "t1"}
    assert gpt.with_options(api_key="acct:other:x").batches.list().data == []
    with pytest.raises(openai.AuthenticationError) as caught:
        gpt.with_options(api_key="invalid").batches.list()
    assert caught.value.code == "invalid_api_key"
    assert caught.value.request_id
    with pytest.raises(openai.NotFoundError, match="No batch found"):
        gpt.batches.retrieve("batch_none")
    status, _, _ = http(emulator.openai_url, "GET", "/batches", headers={})
    assert status == 401


def test_the_wire_objects_have_every_documented_key(gpt: openai.OpenAI, emulator: Emulator) -> None:
    """A client that reads raw JSON finds all keys, and downloads as the real ones are named."""
    batch = gpt.batches.retrieve(chats(gpt, "a").id)
    _, _, content = http(emulator.openai_url, "GET", f"/batches/{batch.id}", headers=OPENAI_HEADERS)
    assert set(json.loads(content)) == set(type(batch).model_fields)
    path = f"/files/{batch.output_file_id}/content"
    _, headers, _ = http(emulator.openai_url, "GET", path, headers=OPENAI_HEADERS)
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == f'attachment; filename="{batch.id}_output.jsonl"'
    assert headers["x-request-id"]


def test_the_responses_endpoint_works_in_batches_and_directly(gpt: openai.OpenAI) -> None:
    """Both endpoints answer; /v1/responses takes a schema under `text.format`."""
    form = {"type": "json_schema", "name": "row", "schema": SCHEMA, "strict": True}
    given: Any = {"model": "gpt-6-luna", "input": "hello", "text": {"format": form}}
    batch = submit(gpt, line("a", given, url="/v1/responses"), endpoint="/v1/responses")
    batch = gpt.batches.retrieve(batch.id)
    (row,) = rows(gpt, batch.output_file_id).values()
    text = row["response"]["body"]["output"][0]["content"][0]["text"]
    assert text == answer_text("openai", given)
    direct = cast("Any", gpt).responses.create(**given)
    assert direct.output_text == text


def asks(**more: Any) -> Any:
    """Return the body of a Responses request."""
    return {"model": "gpt-6-luna", "input": [{"role": "user", "content": "hello"}], **more}


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        ({"max_output_tokens": 15}, "max_output_tokens", "integer_below_min_value"),
        ({"max_completion_tokens": 64}, "max_completion_tokens", "unknown_parameter"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "unknown_parameter"),
        ({"temperature": 0}, "temperature", "unsupported_value"),
        ({"input": []}, "input", "empty_array"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": ["x"]}, "input[0].role", "invalid_value"),
        (
            {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            "input[0].content[0]",
            "invalid_value",
        ),
        (
            {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]},
            "input[0].content[0]",
            "invalid_value",
        ),
        (
            {"text": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            "text.format.name",
            "invalid_value",
        ),
    ],
)
def test_responses_refuses_what_is_wrong(
    gpt: openai.OpenAI, given: Any, param: str, code: str
) -> None:
    """A wrong body is a 400 that names its place, directly as in a line of a batch's error file."""
    with pytest.raises(openai.BadRequestError) as caught:
        cast("Any", gpt).responses.create(**asks(), extra_body=given)
    assert (caught.value.param, caught.value.code) == (param, code)
    sent = line("a", asks(**given), url="/v1/responses")
    batch = gpt.batches.retrieve(submit(gpt, sent, endpoint="/v1/responses").id)
    (row,) = rows(gpt, batch.error_file_id).values()
    assert row["response"]["status_code"] == 400
    assert row["response"]["body"]["error"]["param"] == param


def test_reasoning_comes_first_and_counts_against_the_cap(gpt: openai.OpenAI) -> None:
    """An effort makes an item without text, and output tokens.

    If it uses up the cap, there is nothing else.
    """
    effort: Any = {"reasoning": {"effort": "high"}}
    full = cast("Any", gpt).responses.create(**asks(**effort))
    assert [item.type for item in full.output] == ["reasoning", "message"]
    assert full.usage.output_tokens_details.reasoning_tokens == 64
    assert full.usage.output_tokens > 64
    cut = cast("Any", gpt).responses.create(**asks(**effort, max_output_tokens=64))
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert [item.type for item in cut.output] == ["reasoning"]
    assert (cut.usage.output_tokens, cut.output_text) == (64, "")
    plain = cast("Any", gpt).responses.create(**asks(temperature=0, reasoning={"effort": "none"}))
    assert [item.type for item in plain.output] == ["message"]
    batch = submit(gpt, line("a", asks(**effort), url="/v1/responses"), endpoint="/v1/responses")
    usage = gpt.batches.retrieve(batch.id).usage
    assert usage is not None
    assert usage.output_tokens_details.reasoning_tokens == 64


@pytest.mark.parametrize(
    ("model", "given", "param"),
    [
        ("gpt-5-mini", {"stop": ["x"]}, "stop"),
        ("gpt-5.4-mini", {"stop": ["x"]}, "stop"),
        ("gpt-6-luna", {"logit_bias": {"1": 5}}, "logit_bias"),
        ("o3", {"presence_penalty": 1}, "presence_penalty"),
        ("gpt-5.4-mini", {"temperature": 0, "reasoning_effort": "low"}, "temperature"),
        ("gpt-5.4-mini", {"temperature": 0}, None),
        ("gpt-6-luna", {"temperature": 0, "stop": ["x"], "reasoning_effort": "none"}, None),
        ("gpt-4.1", {"stop": ["x"], "presence_penalty": 1}, None),
    ],
)
def test_models_refuse_some_parameters_while_they_reason(
    gpt: openai.OpenAI, model: str, given: dict[str, Any], param: str | None
) -> None:
    """Told not to reason, and if they reason only when told, models take them as older ones do."""
    chat = cast("Any", gpt).chat.completions.create
    messages = [{"role": "user", "content": "hello"}]
    if param is None:
        assert chat(model=model, messages=messages, **given).choices[0].message.content
        return
    with pytest.raises(openai.BadRequestError) as caught:
        chat(model=model, messages=messages, **given)
    assert caught.value.param == param


@pytest.mark.parametrize("store", [None, False, True])
def test_responses_says_what_it_was_asked(gpt: openai.OpenAI, store: bool | None) -> None:
    """The response repeats the request's settings.

    It is stored unless the request says otherwise.
    """
    given: Any = asks(max_output_tokens=64) | ({} if store is None else {"store": store})
    _, _, content = http(
        str(gpt.base_url).rstrip("/"), "POST", "/responses", headers=OPENAI_HEADERS, content=given
    )
    response = json.loads(content)
    assert (response["max_output_tokens"], response["store"]) == (64, store is not False)


def test_direct_chat_and_models(gpt: openai.OpenAI) -> None:
    """The calls around batches work too."""
    given: Any = body("hello", max_completion_tokens=2)
    answer = cast("Any", gpt).chat.completions.create(**given)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2
    with pytest.raises(openai.BadRequestError, match="max_completion_tokens"):
        gpt.chat.completions.create(**body("a", max_tokens=1))
    with pytest.raises(openai.NotFoundError):
        gpt.chat.completions.create(model="nothing", messages=given["messages"])
    assert gpt.models.retrieve("gpt-6-luna").id in {model.id for model in gpt.models.list()}


def test_strict_schemas_are_checked(gpt: openai.OpenAI) -> None:
    """What strict mode refuses is refused, with the reason."""
    loose: Any = {"name": "row", "schema": {"type": "object", "properties": {}}, "strict": True}
    with pytest.raises(openai.BadRequestError, match="'additionalProperties' is required"):
        gpt.chat.completions.create(
            **body("a", response_format={"type": "json_schema", "json_schema": loose})
        )
    optional = {**SCHEMA, "required": ["topic"]}
    with pytest.raises(openai.BadRequestError, match="Missing 'score'"):
        gpt.chat.completions.create(
            **body(
                "a",
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "row", "schema": optional, "strict": True},
                },
            )
        )


def test_what_belongs_elsewhere_is_refused_per_request(gpt: openai.OpenAI) -> None:
    """Another API's parameters, and endpoints that are not imitated, are 400s in the error file."""
    batch = gpt.batches.retrieve(chats(gpt, "a", output_config={}).id)
    (row,) = rows(gpt, batch.error_file_id).values()
    assert row["response"]["body"]["error"]["code"] == "unknown_parameter"
    given = {"model": "gpt-6-luna", "input": "a"}
    other = submit(gpt, line("a", given, url="/v1/embeddings"), endpoint="/v1/embeddings")
    (row,) = rows(gpt, gpt.batches.retrieve(other.id).error_file_id).values()
    assert row["response"]["status_code"] == 400
