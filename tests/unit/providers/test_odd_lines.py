"""What a result line means, field by field, in the words and shapes that servers write."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from batchata_tasks.execution.judged import judge, with_answer
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.providers.anthropic import results as anthropic_lines
from batchata_tasks.providers.anthropic.adapter import AnthropicAdapter
from batchata_tasks.providers.openai.chat import OpenAIAdapter
from batchata_tasks.providers.openai.responses import OpenAIResponsesAdapter
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import Outcome
from tests.support.result_lines import LINES

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.providers import Provider

ADAPTERS: dict[str, type[Provider]] = {
    "anthropic": AnthropicAdapter,
    "openai": OpenAIAdapter,
    "responses": OpenAIResponsesAdapter,
}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the place of a results file."""
    return tmp_path / "results.jsonl"


def read(dialect: str, line: Any, path: Path) -> Answer:
    """Return the answer of one line, given as JSON or as bytes, as a run judges it."""
    path.write_bytes(line if isinstance(line, bytes) else orjson.dumps(line) + b"\n")
    (answer,) = ADAPTERS[dialect]().answers(path)
    return answer


def outcome(answer: Answer) -> str:
    return judge(answer, None)[0].value


def put(line: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """Return a copy of a line with another value at a place such as `result.message.content`."""
    changed = copy.deepcopy(line)
    *holders, last = where.split(".")
    at: Any = changed
    for name in holders:
        at = at[int(name)] if isinstance(at, list) else at[name]
    at[last] = value
    return changed


CLAUDE, CHAT, GPT = LINES["anthropic"], LINES["openai"], LINES["responses"]
STOP, FINISH = "result.message.stop_reason", "response.body.choices.0.finish_reason"


@pytest.mark.parametrize("reason", [None, ""])
def test_an_answer_without_a_text_and_a_reason_is_told_as_empty(reason: Any, path: Path) -> None:
    """Nothing was said and no end is named: the answer is empty, which is not "stopped by None"."""
    lines = {
        "anthropic": put(put(CLAUDE, "result.message.content", []), STOP, reason),
        "openai": put(put(CHAT, "response.body.choices.0.message.content", None), FINISH, reason),
    }
    for dialect, line in lines.items():
        answer = read(dialect, line, path)
        assert outcome(answer) == "invalid"
        assert answer.error == "response: the answer is empty"


@pytest.mark.parametrize(
    ("reason", "ended"),
    [
        *((word, "succeeded") for word in ("stop", "STOP", "eos", "end_turn", "stop_sequence")),
        *((word, "succeeded") for word in ("EOS_TOKEN", "eos_token", "FinishReason.STOP", None)),
        *((word, "truncated") for word in ("length", "max_tokens", "MAX_TOKENS", "model_length")),
        *((word, "truncated") for word in ("max_output_tokens", "model_context_window_exceeded")),
        *((word, "refused") for word in ("content_filter", "SAFETY", "refusal", "RECITATION")),
        *((word, "succeeded") for word in ("FINISH_REASON_STOP", "<|im_end|>", "<|eot_id|>")),
        *((word, "truncated") for word in ("FINISH_REASON_MAX_TOKENS", "REASON_MAX_LEN", "limit")),
        *((word, "succeeded") for word in ({"type": "stop", "matched": 2}, ["stop"])),
        ({"type": "length", "length": 64}, "truncated"),
        *((word, "invalid") for word in ("tool_calls", "tool_use", "pause_turn", "error", 7)),
        *((word, "invalid") for word in (["stop", "error"], {"matched": 2})),
    ],
)
def test_words_for_the_end_of_an_answer(reason: Any, ended: str, path: Path) -> None:
    """A whole answer is finished under any word for it, and one that was cut never is."""
    assert outcome(read("openai", put(CHAT, FINISH, reason), path)) == ended
    assert outcome(read("anthropic", put(CLAUDE, STOP, reason), path)) == ended


@pytest.mark.parametrize(
    ("reason", "ended"),
    [("max_tokens", "truncated"), ("SAFETY", "refused"), ("stop", "invalid"), (None, "invalid")],
)
def test_words_for_an_incomplete_response(reason: Any, ended: str, path: Path) -> None:
    """An incomplete response never succeeds."""
    line = put(put(GPT, "response.body.status", "incomplete"), "response.body.x", 1)
    line = put(line, "response.body.incomplete_details", {"reason": reason})
    assert outcome(read("responses", line, path)) == ended
    assert outcome(read("responses", put(GPT, "response.body.status", "COMPLETED"), path)) == (
        "succeeded"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "a"}, {"type": "output_text", "text": "b"}], "ab"),
        ([{"text": "a"}, "b"], "ab"),
        ({"type": "text", "text": "a"}, "a"),
        ({"text": "a"}, "a"),
        ([{"type": "text", "text": {"value": "a"}}], "a"),
        ([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "a"}], "a"),
        ([{"type": "TEXT", "text": "a"}], "a"),
        ({"label": "x", "n": 1}, '{"label":"x","n":1}'),
        ("0", "0"),
        (0, "0"),
        ("", ""),
        ([], None),
        (None, None),
        ([None, 7], None),
    ],
)
def test_content_of_any_shape(content: Any, text: str | None, path: Path) -> None:
    """The text is taken from a text, from parts, or from an object."""
    answer = read("openai", put(CHAT, "response.body.choices.0.message.content", content), path)
    assert answer.text == text
    assert outcome(answer) == ("succeeded" if text else "invalid")
    assert answer.readable


SEARCH = [
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
]


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        ([said("I will look."), *SEARCH, said("{}")], "{}"),
        (
            [said("I will look."), *SEARCH, said("It "), said("is", citations=[]), said(".")],
            "It is.",
        ),
        ([said("a"), said("b")], "ab"),
        ([said("{}"), *SEARCH, said(" ")], "{}"),
        ([{"type": "thinking", "thinking": "hm"}, said("a")], "a"),
        (["a"], "a"),
        ("a", "a"),
        (SEARCH, None),
        ([said(""), said(" ")], " "),
    ],
)
def test_the_last_speech_is_the_answer(blocks: Any, text: str | None, path: Path) -> None:
    """What was said before a tool was used is no part of it; texts that citations split are."""
    assert read("anthropic", put(CLAUDE, "result.message.content", blocks), path).text == text


def test_the_citations_are_those_of_the_answer(path: Path) -> None:
    """Odd citations cost themselves alone."""
    cited = {"type": "char_location", "cited_text": "x", "start_char_index": 1}
    blocks = [said("a", citations=[7]), *SEARCH, said("b", citations=[cited, None, "x"])]
    answer = read("anthropic", put(CLAUDE, "result.message.content", blocks), path)
    assert [row["cited_text"] for row in answer.citations] == ["x"]
    assert read("anthropic", put(CLAUDE, "result.message.content", [said("a", citations=7)]), path)


@pytest.mark.parametrize("dialect", LINES)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"fine"', b'"fine \\ud83d"'),
        (b'"fine"', b'"fine \xf0\x9f\x98"'),
        (b'{"', b'\xef\xbb\xbf{"'),
        (b'{"', b'{"score":NaN,"'),
        (b'{"', b'{"score":-Infinity,"'),
        (b'{"', b'{"score":1e400,"'),
        (b'{"', b'{"score":' + b"9" * 5000 + b',"'),
        (b'{"', b'{"custom_id":"other","'),
    ],
)
def test_odd_bytes_cost_themselves_alone(dialect: str, old: bytes, new: bytes, path: Path) -> None:
    """Half a surrogate pair, a cut character, a mark, NaN: usage, end and text are still read."""
    usual = read(dialect, LINES[dialect], path)
    line = orjson.dumps(LINES[dialect]).replace(old, new, 1) + b"\n"
    answer = read(dialect, line, path)
    assert (answer.custom_id, answer.usage, answer.readable) == ("r1", usual.usage, True)
    assert (outcome(answer), answer.model) == ("succeeded", usual.model)
    assert answer.text in ("fine", "fine \ufffd")


@pytest.mark.parametrize(
    ("dialect", "where"),
    [
        *(("anthropic", f"result.message.{name}") for name in ("model", "stop_reason")),
        *(("openai", f"response.body.{name}") for name in ("model", "choices.0.finish_reason")),
        *(("responses", f"response.body.{name}") for name in ("model", "status")),
    ],
)
def test_a_word_of_a_line_that_is_a_key_is_masked(dialect: str, where: str, path: Path) -> None:
    """A server that puts the key where a model or an end is named gets it into no row."""
    answer = read(dialect, put(LINES[dialect], where, "v1 test-key"), path)
    told = f"{answer.model} {answer.error} {judge(answer, None)}"
    assert ("test-key" in told, "v1 ***" in told) == (False, True)


def error(**fields: Any) -> dict[str, Any]:
    """Return an OpenAI line without a response, with this error."""
    return {**CHAT, "response": None, "error": fields}


def refused(status: Any, body: Any, beside: Any = None) -> dict[str, Any]:
    return {**CHAT, "response": {"status_code": status, "body": body}, "error": beside}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (refused(400, None, {"message": "too long", "code": 400}), "request: HTTP 400: too long"),
        (error(type="request_failed", message="too long"), "provider: too long"),
        (put(error(), "error", "too long"), "provider: too long"),
        (put(error(), "error", ["too long", "and odd"]), "provider: too long; and odd"),
        (error(code="server_error", message="Oops"), "provider: server_error: Oops"),
        (refused(200, {"error": {"message": "too long", "code": "x"}}), "provider: x: too long"),
        (refused(200, {"error": "too long"}), "provider: too long"),
        (refused("500", '{"error": {"message": "Oops"}}'), "provider: HTTP 500: Oops"),
        (refused(422, {"detail": [{"msg": "bad"}]}), "request: HTTP 422: bad"),
        (refused(400, "<html>bad</html>"), "request: HTTP 400: <html>bad</html>"),
        (refused(400, None), "request: HTTP 400: an error without any words"),
        (refused(429, {"error": {"message": "slow"}}), "provider: HTTP 429: slow"),
        (refused(0, {}), "provider: the provider lost the request"),
        (refused(0, {}, {"code": "batch_expired", "message": "late"}), "never_ran: batch_expired"),
        (error(code="batch_cancelled", message="off"), "never_ran: batch_cancelled: off"),
    ],
)
def test_an_error_in_the_servers_words(line: dict[str, Any], text: str, path: Path) -> None:
    """Wherever the words stand they are the row's, and such a line costs nothing."""
    answer = read("openai", line, path)
    assert answer.error is not None
    assert answer.error.startswith(text)
    assert (answer.usage, answer.readable, answer.text) == (Usage(), True, None)


def errored(given: Any) -> dict[str, Any]:
    return {"custom_id": "r1", "result": {"type": "errored", "error": given}}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (errored({"type": "api_error", "message": "Oops"}), "provider: api_error: Oops"),
        (
            errored({"error": {"error": {"type": "api_error", "message": "Oops"}}}),
            "provider: api_error: Oops",
        ),
        (errored("Oops"), "provider: Oops"),
        (errored(None), "provider: an error of the provider without any words"),
        (errored({"type": "invalid_request_error", "message": "no"}), "request: invalid_request"),
        (put(CLAUDE, "result.message", {"type": "error", "error": "no"}), "provider: no"),
    ],
)
def test_an_error_of_anthropic(line: dict[str, Any], text: str, path: Path) -> None:
    """An error's object may be nested, a text, or absent."""
    answer = read("anthropic", line, path)
    assert (answer.error or "").startswith(text)
    assert (answer.outcome, answer.readable) == (Outcome.ERRORED, True)


@pytest.mark.parametrize(
    ("dialect", "line"),
    [
        ("openai", put(CHAT, "response.body", {"model": "m", "messages": []})),
        ("openai", put(CHAT, "response.body", {})),
        ("openai", put(CHAT, "response.body.choices", [])),
        ("openai", error()),
        ("responses", put(GPT, "response.body", {"model": "m", "input": "x"})),
        ("anthropic", put(CLAUDE, "result.type", "weird")),
        ("anthropic", put(CLAUDE, "result.message", {"model": "m", "messages": []})),
        ("anthropic", put(CLAUDE, "result", None)),
        ("anthropic", {"custom_id": "r1"}),
    ],
)
def test_a_line_that_tells_nothing(dialect: str, line: dict[str, Any], path: Path) -> None:
    """It is an error that shows what came; what it cost is open."""
    answer = read(dialect, line, path)
    assert (answer.custom_id, answer.outcome, answer.readable) == ("r1", Outcome.ERRORED, False)
    assert (answer.error or "").startswith("provider: the result line has no answer and no error")


def of_claude(kind: str, message: str, code: str | None = None) -> tuple[str, dict[str, Any]]:
    details = {"details": {"error_code": code}} if code else {}
    return "anthropic", errored({"error": {"type": kind, "message": message, **details}})


def of_openai(status: int, message: str, code: str | None = None) -> tuple[str, dict[str, Any]]:
    kind = "invalid_request_error"
    return "openai", refused(status, {"error": {"message": message, "type": kind, "code": code}})


@pytest.mark.parametrize(
    ("given", "account"),
    [
        (of_claude("invalid_request_error", "Your credit balance is too low to access"), True),
        (
            of_claude("invalid_request_error", "You have reached your specified API usage limits"),
            True,
        ),
        (of_claude("invalid_request_error", "This organization has been disabled."), True),
        (of_claude("billing_error", "No."), True),
        (of_claude("permission_error", "No."), True),
        (of_claude("authentication_error", "No."), True),
        (of_claude("rate_limit_error", "Spent.", "enforced_spend_limit_reached"), True),
        (of_claude("rate_limit_error", "Too many tokens per minute."), False),
        (of_claude("invalid_request_error", "max_tokens: 5 > 4"), False),
        (of_claude("api_error", "Your credit balance is too low"), True),
        (of_claude("api_error", "Your account is out of funds."), True),
        (of_claude("request_too_large", "Your credit balance is too low, it says."), False),
        (of_claude("api_error", "Internal server error"), False),
        (of_openai(429, "You exceeded your current quota", "insufficient_quota"), True),
        (of_openai(400, "Billing hard limit has been reached", "billing_hard_limit_reached"), True),
        (of_openai(400, "Your account is not active, please check your billing details"), True),
        (of_openai(401, "Incorrect API key"), True),
        (of_openai(403, "No access to the model"), True),
        (of_openai(402, "Pay"), True),
        (of_openai(400, "Insufficient Balance", "invalid_request_error"), True),
        (of_openai(429, "You have run out of credits", "1113"), True),
        (of_openai(429, "Monthly quota exceeded", "429"), True),
        (of_openai(429, "Quota exceeded for requests per minute", "429"), False),
        (of_openai(429, "Rate limit reached for gpt-6", "rate_limit_exceeded"), False),
        (of_openai(400, "Invalid value: 'x'", "invalid_value"), False),
    ],
)
def test_trouble_of_the_account(
    given: tuple[str, dict[str, Any]], account: bool, path: Path
) -> None:
    """It is told by type and code, and by words where the type names no other cause."""
    answer = read(*given, path)
    assert answer.outcome is Outcome.ERRORED
    assert (answer.error or "").startswith("account: ") is account
    assert (answer.usage, answer.readable) == (Usage(), True)


@pytest.mark.parametrize("dialect", ["openai", "responses"])
@pytest.mark.parametrize("place", ["body", "result", "line"])
def test_an_answer_that_stands_in_the_line_is_read(dialect: str, place: str, path: Path) -> None:
    """Some servers leave the response out, and write its body into the line or as its result."""
    whole = LINES[dialect]
    body = whole["response"]["body"]
    line = {"custom_id": whole["custom_id"], **(body if place == "line" else {place: body})}
    there, here = read(dialect, whole, path), read(dialect, line, path)
    assert (here.outcome, here.text, here.usage) == (there.outcome, there.text, there.usage)


def test_a_line_without_an_answer_is_quoted(path: Path) -> None:
    """Whoever looks into it sees what came instead, wherever in the line it stands."""
    answer = read("openai", {"custom_id": "r1", "body": {"model": "m", "messages": []}}, path)
    assert not answer.readable
    assert (answer.error or "").endswith('(no response): {"body": {"model": "m", "messages": []}}')


SAID = [{"type": "text", "text": "Here it is:"}, {"type": "text", "text": '{"a": 1}'}]
SPLIT = [{"type": "text", "text": '{"a":'}, {"type": "text", "text": " 1}"}]
IN_TWO = {
    "anthropic": (CLAUDE, "result.message.content"),
    "openai": (CHAT, "response.body.choices.0.message.content"),
    "responses": (GPT, "response.body.output.0.content"),
}


@pytest.mark.parametrize("dialect", IN_TWO)
def test_the_last_part_is_the_answer_if_all_together_are_none(dialect: str, path: Path) -> None:
    """A model may say some words first, in a part of its own; one answer may be split as well."""

    def in_json(text: str) -> tuple[Any, str]:
        try:
            return orjson.loads(text), ""
        except ValueError as error:
            return None, str(error)

    line, where = IN_TWO[dialect]
    if dialect == "responses":
        line = put(line, "response.body.output", [{"type": "message", "content": []}])
    for parts, text in ((SAID, '{"a": 1}'), (SPLIT, '{"a": 1}')):
        answer = with_answer(read(dialect, put(line, where, parts), path), in_json)
        assert (answer.text, judge(answer, in_json)[2]) == (text, {"a": 1})
    plain = read(dialect, put(line, where, SAID), path)
    assert with_answer(plain, None).text == 'Here it is:{"a": 1}'


def test_each_iteration_has_its_own_tier() -> None:
    """A long compaction is dear, the short answer after it is not; both are billed."""
    usage = anthropic_lines.usage_of(
        {
            "input_tokens": 80,
            "output_tokens": 40,
            "server_tool_use": {"web_search_requests": 2},
            "iterations": [
                {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500},
                {"type": "message", "input_tokens": 80, "output_tokens": 40},
            ],
        }
    )
    assert (usage.input_tokens, usage.output_tokens) == (180_080, 3540)
    rates = published_rates("anthropic", "claude-haiku-5-5")
    assert rates is not None
    parts = (Usage(180_000, 3500), Usage(80, 40), Usage(web_searches=2))
    assert rates.cost(usage) == sum(map(rates.cost, parts))


@pytest.mark.parametrize("entries", [[], [7], [{"type": "message"}], "x", [{"input_tokens": 1}]])
def test_iterations_never_lower_what_the_totals_state(entries: Any) -> None:
    """If iterations hold less than the totals, the totals count."""
    usage = anthropic_lines.usage_of(
        {"input_tokens": 80, "output_tokens": 40, "iterations": entries}
    )
    assert usage == Usage(80, 40)


def test_no_part_of_a_key_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that an error quotes is masked before the error is cut, not after."""
    key = "canary" * 10
    monkeypatch.setenv("OPENAI_API_KEY", key)
    for gap in range(0, 2100, 30):
        for line in (error(message="x" * gap + key), put(error(), "response", "x" * gap + key)):
            assert "canary" not in (read("openai", line, path).error or "")
        path.write_bytes(b'{"custom_id": "r1", ' + b"x" * gap + key.encode() + b"\n")
        (broken,) = OpenAIAdapter().answers(path)
        assert "canary" not in (broken.error or "")


# --- answers in other places ----------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["openai", "responses"])
def test_a_response_that_is_the_answer_itself_is_read(dialect: str, path: Path) -> None:
    """A server that leaves `body` out has answered all the same, and its tokens cost."""
    line = LINES[dialect]
    answer = read(dialect, put(line, "response", line["response"]["body"]), path)
    assert answer == read(dialect, line, path)
    assert answer.usage.output_tokens > 0


@pytest.mark.parametrize("place", ["response", ""])
@pytest.mark.parametrize("dialect", ["openai", "responses"])
def test_usage_beside_the_body_is_read(dialect: str, place: str, path: Path) -> None:
    """Tokens count wherever a line states them."""
    line = copy.deepcopy(LINES[dialect])
    usage = line["response"]["body"].pop("usage")
    (line["response"] if place else line)["usage"] = usage
    assert read(dialect, line, path).usage == read(dialect, LINES[dialect], path).usage


def test_a_response_with_something_in_it_was_not_lost(path: Path) -> None:
    """Only an empty one was; what nobody can read may have been billed."""
    lost = put(CHAT, "response", {"status_code": 0, "request_id": "", "body": {}})
    assert read("openai", lost, path).readable
    odd = put(CHAT, "response", {"status_code": 0, "answer": "Hi"})
    assert not read("openai", odd, path).readable
