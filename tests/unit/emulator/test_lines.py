"""Invalid lines: in an input file that fails its batch, and among the results."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import anthropic
import pytest

from batchata_tasks.emulator import answer_text
from tests.support.emulator_requests import SCHEMA, chats, entries, satisfies

if TYPE_CHECKING:
    import openai

    from batchata_tasks.emulator import ControlClient, Emulator

FORMAT = {"format": {"type": "json_schema", "schema": SCHEMA}}
CHAT_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "row", "schema": SCHEMA, "strict": True},
}
RAW = [character.encode() for character in "\u2028\u2029\u0085"]


def anthropic_lines(client: anthropic.Anthropic, *texts: str, **more: Any) -> list[Any]:
    """Run a batch and return its result lines as they come, which are as many as its bytes say."""
    batch = client.messages.batches.create(requests=entries(*texts, **more))
    client.messages.batches.retrieve(batch.id)
    return list(client.messages.batches.results(batch.id))


def openai_lines(
    client: openai.OpenAI, *texts: str, **more: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run a batch and return the lines of its output and of its error file."""
    batch = client.batches.retrieve(chats(client, *texts, **more).id)
    files = (batch.output_file_id, batch.error_file_id)
    contents = [client.files.content(name).content if name else b"" for name in files]
    output, errors = ([json.loads(row) for row in content.splitlines()] for content in contents)
    return output, errors


def total(client: openai.OpenAI) -> tuple[int, int, int]:
    """Return the counts of the newest batch."""
    counts = client.batches.list().data[0].request_counts
    assert counts
    return counts.total, counts.completed, counts.failed


def test_chosen_lines_fail_the_validation_of_a_whole_batch(
    gpt: openai.OpenAI, claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """Each invalid line is one error, counted from 1; there are no files and nothing is billed.

    Anthropic has no such validation.
    """
    control.faults(kind="request_invalid_line", contains="bad")
    batch = gpt.batches.retrieve(chats(gpt, "a", "bad 1", "b", "bad 2").id)
    assert batch.status == "failed"
    assert batch.errors
    errors = [(item.line, item.code, item.param) for item in batch.errors.data or []]
    assert errors == [
        (2, "invalid_request", "body.messages"),
        (4, "invalid_request", "body.messages"),
    ]
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert {item.result.type for item in anthropic_lines(claude, "a", "bad 1")} == {"succeeded"}
    book = control.ledger()["openai"]
    assert (book["batches_refused"], book["requests_billed"]) == (1, 0)
    assert gpt.batches.retrieve(chats(gpt, "a", "b").id).status == "completed"


def test_a_share_of_lines_fails_the_validation(gpt: openai.OpenAI, control: ControlClient) -> None:
    """The same contents fail each time, with the test's words, and pass later with `times`."""
    control.faults(
        kind="request_invalid_line",
        share=0.2,
        times=1,
        error_code="model_not_found",
        message="The provided model 'x' is not supported by the Batch API.",
    )
    texts = [f"row {number}" for number in range(200)]
    batch = gpt.batches.retrieve(chats(gpt, *texts).id)
    assert batch.errors
    problems = batch.errors.data or []
    assert 15 < len(problems) < 70
    assert {(item.code, str(item.message)[:24]) for item in problems} == {
        ("model_not_found", "The provided model 'x' i")
    }
    assert gpt.batches.retrieve(chats(gpt, *texts).id).status == "completed"


@pytest.mark.parametrize("first", [True, False])
def test_one_request_has_an_error_and_an_answer(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, first: bool
) -> None:
    """Two lines of one custom_id disagree, in the order that was set; counted and billed once."""
    control.faults(kind="request_error_first" if first else "request_error_last", contains="both")
    kinds = [
        item.result.type
        for item in anthropic_lines(claude, "both", "one")
        if item.custom_id == "r0"
    ]
    assert kinds == (["errored", "succeeded"] if first else ["succeeded", "errored"])
    output, errors = openai_lines(gpt, "both", "one")
    statuses = [row["response"]["status_code"] for row in output if row["custom_id"] == "r0"]
    assert (statuses, errors) == ([500, 200] if first else [200, 500], [])
    counts = claude.messages.batches.list().data[0].request_counts
    assert (counts.succeeded, counts.errored, total(gpt)) == (2, 0, (2, 2, 0))
    book = control.ledger()
    assert book["anthropic"]["requests_billed"] == book["openai"]["requests_billed"] == 2
    assert book["anthropic"]["billed_twice"]["number"] == 0


def test_a_line_of_a_request_that_nobody_sent(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """It has a custom_id of its own and usage; all requests have their lines, billed once."""
    control.faults(kind="request_unknown_id", contains="a")
    results = {item.custom_id: item.result for item in anthropic_lines(claude, "a", "b")}
    assert len(results) == 3
    (name,) = results.keys() - {"r0", "r1"}
    assert name.startswith("unknown-")
    assert results[name].message.usage.output_tokens > 0
    output, _ = openai_lines(gpt, "a", "b")
    rows = {row["custom_id"]: row["response"]["body"] for row in output}
    (name,) = rows.keys() - {"r0", "r1"}
    assert rows[name]["usage"]["total_tokens"] > 0
    book = control.ledger()
    assert book["anthropic"]["requests_billed"] == book["openai"]["requests_billed"] == 2
    assert total(gpt) == (2, 2, 0)


def test_a_line_that_says_neither_success_nor_failure(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient, emulator: Emulator
) -> None:
    """It is a result type of the future, or at OpenAI a line without response and error."""
    control.faults(kind="request_unknown_type", contains="odd")
    # Only a client that does not insist on the documented shape lets it pass.
    url = emulator.anthropic_url
    with anthropic.Anthropic(api_key="some-key", base_url=url, max_retries=0) as lenient:
        kinds = Counter(item.result.type for item in anthropic_lines(lenient, "odd", "b"))
    assert kinds == {"weird": 1, "succeeded": 1}
    output, (row,) = openai_lines(gpt, "odd", "b")
    assert (row["custom_id"], row["response"], row["error"]) == ("r0", None, None)
    assert [item["custom_id"] for item in output] == ["r1"]
    counts = claude.messages.batches.list().data[0].request_counts
    assert (counts.succeeded + counts.errored, total(gpt)) == (2, (2, 1, 1))
    book = control.ledger()
    assert book["anthropic"]["requests_billed"] == book["openai"]["requests_billed"] == 1


def test_answers_hold_raw_separators(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """U+2028, U+2029 and U+0085 are unescaped inside the line, which is still one line of JSON."""
    control.faults(kind="request_separators")
    (item,) = anthropic_lines(claude, "a")
    usual = answer_text("anthropic", entries("a")[0]["params"])
    text = item.result.message.content[0].text
    assert text == usual + " one\u2028two\u2029three\u0085four"
    batch = gpt.batches.retrieve(chats(gpt, "a", "b").id)
    content = gpt.files.content(str(batch.output_file_id)).content
    assert all(content.count(raw) == 2 for raw in RAW)
    assert len(content.split(b"\n")) == 3
    assert len(content.decode().splitlines()) > 3
    assert json.loads(content.split(b"\n")[0])["custom_id"] in ("r0", "r1")


def test_answers_by_a_schema_hold_raw_separators_and_satisfy_it(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, control: ControlClient
) -> None:
    """They are in the strings that the schema leaves free, also in plain JSON answers."""
    control.faults(kind="request_separators")
    (item,) = anthropic_lines(claude, "a", output_config=FORMAT)
    for text in (
        item.result.message.content[0].text,
        openai_lines(gpt, "a", response_format=CHAT_FORMAT)[0][0]["response"]["body"]["choices"][0][
            "message"
        ]["content"],
    ):
        assert satisfies(text, SCHEMA)
        assert "\u2028" in json.loads(text)["topic"]
        assert "\u2028" in text
    output, _ = openai_lines(gpt, "say json", response_format={"type": "json_object"})
    text = output[0]["response"]["body"]["choices"][0]["message"]["content"]
    assert "\u0085" in json.loads(text)["echo"]
