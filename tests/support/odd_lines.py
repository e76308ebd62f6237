"""Result lines that Hypothesis makes odd: fields dropped, retyped, renamed, cut; bytes lost."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.support.result_lines import LINES

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

NAME = "r1"
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 20.0, 0.5, "20", "-3", "", " ", "x", [], {}, [[]], [None]),
    *(float("nan"), float("inf"), 2**40, 2**63, 10**11, 10**400, 1e300, "\ud83d", "\x00\x1b[2J"),
    *({"text": "a"}, {"message": "m"}, [{"type": "text", "text": "b"}], {"error": {"code": 400}}),
    *("{}", '{"choices": []}', "<html>", "stop", "length", "error", "expired", 404, "500", 0.0),
    *({"type": "tool_use"}, ["a", 7], "failed", {"a": {"b": {"c": [1, 2, {"d": None}]}}}),
]
_NAMES = ["type", "usage", "Usage", "text", "content", "message", "error", "x", "finishReason", ""]
_JUNK = [b"\xef\xbb\xbf", b"\xff", b"\x00", b'"', b"{", b"}", b",", b"\\ud83d", b"NaN", b"\xe2\x82"]


def _variants(dialect: str) -> list[dict[str, Any]]:
    """Return the documented lines of a dialect: answers, errors, what never ran."""
    whole = LINES[dialect]
    if dialect == "anthropic":
        cited = copy.deepcopy(whole)
        search = [{"type": "server_tool_use", "name": "web_search"}, {"type": "thinking"}]
        citation = {"type": "page_location", "cited_text": "x", "start_page_number": 1}
        last = {"type": "text", "text": "{}", "citations": [{**citation, "end_page_number": 3}]}
        message = cited["result"]["message"]
        message["content"] = [*message["content"], *search, last]
        message["usage"] |= {
            "server_tool_use": {"web_search_requests": 2},
            "iterations": [
                {"type": "compaction", "input_tokens": 500, "output_tokens": 35},
                {"type": "message", "input_tokens": 11, "output_tokens": 36},
            ],
        }
        error = {"type": "error", "error": {"type": "api_error", "message": "Oops"}}
        results = [{"type": "errored", "error": error}, {"type": "expired"}, {"type": "canceled"}]
        return [whole, cited, *({"custom_id": NAME, "result": result} for result in results)]
    body = {"error": {"message": "m", "type": "invalid_request_error", "param": None, "code": "c"}}
    refused = {"status_code": 400, "request_id": "q", "body": body}
    expired = {"code": "batch_expired", "message": "late"}
    return [
        whole,
        {"id": "b", "custom_id": NAME, "response": refused, "error": None},
        {"id": "b", "custom_id": NAME, "response": None, "error": expired},
    ]


def usage_of(dialect: str, line: Any) -> Any:
    """Return the usage block of a line where its API has it; None if none is there."""
    places = {"anthropic": ("result", "message", "usage")}
    for name in places.get(dialect, ("response", "body", "usage")):
        line = line.get(name) if isinstance(line, dict) else None
    return line


@dataclass(frozen=True)
class OddLine:
    """A line, and what it still holds of the whole one."""

    line: bytes
    named: bool  # whether it is JSON, and has its custom_id
    usage: dict[str, Any] | None  # the block, if the line states it as it was


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [(*path, name) for name, _ in items] if isinstance(value, dict | list) else []
    return found + [
        place
        for where in found
        if isinstance(value[where[-1]], dict | list)
        for place in _places(value[where[-1]], where)
    ]


Change = tuple[int, int, int]
"""Which place, what is done there, and with what: numbers that wrap around."""

_NUMBER = st.integers(0, 999)
_CHANGES = st.lists(st.tuples(_NUMBER, _NUMBER, _NUMBER), max_size=3)


def _mutated(whole: dict[str, Any], changes: list[Change]) -> dict[str, Any]:
    line = copy.deepcopy(whole)
    for where, what, how in changes:
        if not (places := _places(line)):
            break
        *way, last = places[where % len(places)]
        holder: Any = line
        for name in way:
            holder = holder[name]
        match what % 7:
            case 0:
                del holder[last]
            case 1 if isinstance(holder, dict):
                holder[_NAMES[how % len(_NAMES)]] = holder.pop(last)
            case 2:
                holder[last] = [holder[last]]
            case 3:
                holder[last] = json.dumps(holder[last])
            case 4 if isinstance(holder[last], str):
                holder[last] = holder[last][: how % 4]
            case _:
                holder[last] = copy.deepcopy(VALUES[how % len(VALUES)])
    return line


def odd_lines(dialect: str) -> SearchStrategy[OddLine]:
    """Draw a line of a dialect, usually odd."""
    return st.builds(
        _odd_line, st.just(dialect), _NUMBER, _CHANGES, st.tuples(_NUMBER, _NUMBER, _NUMBER)
    )


def _odd_line(dialect: str, number: int, changes: list[Change], cut: Change) -> OddLine:
    variants = _VARIANTS[dialect]
    whole = variants[number % len(variants)]
    line = _mutated(whole, changes)
    encoded = json.dumps(line, ensure_ascii=bool(number % 2)).encode(errors="surrogatepass")
    spoilt = _spoilt(encoded, cut)
    usage = usage_of(dialect, line)
    # as JSON, since True == 1
    is_whole = json.dumps(usage) == json.dumps(usage_of(dialect, whole))
    stated = usage is not None and is_whole and spoilt == encoded
    return OddLine(
        spoilt.replace(b"\n", b" "),
        line.get("custom_id") == NAME and spoilt == encoded,
        usage if stated else None,
    )


def _spoilt(encoded: bytes, cut: Change) -> bytes:
    """Return a line with some bytes lost or added, one time in three."""
    what, where, how = cut
    at = where * len(encoded) // 999
    match what % 12:
        case 1:
            return encoded[:at]
        case 2:
            return encoded[:at] + encoded[at + 1 + how % 9 :]
        case 3:
            return b"\xef\xbb\xbf" + encoded
        case 4:
            return encoded[:at] + _JUNK[how % len(_JUNK)] + encoded[at:]
        case _:
            return encoded


def files(dialect: str, names: list[str]) -> SearchStrategy[list[tuple[str, OddLine]]]:
    """Draw a results file: odd lines, each of the request of one of these names."""
    return st.lists(st.tuples(st.sampled_from(names), odd_lines(dialect)), max_size=6)


_VARIANTS = {dialect: _variants(dialect) for dialect in LINES}
