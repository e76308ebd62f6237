"""Batch objects and lists in shapes that other servers give them."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.faults import Rule

_BARE = (
    *("id", "object", "endpoint", "input_file_id", "completion_window", "status"),
    *("type", "processing_status"),
)
_PAGES = ("has_more", "first_id", "last_id")
_ENDED = frozenset({"completed", "failed", "expired", "cancelled", "ended"})


class Json(Response):
    """A JSON answer."""

    media_type = "application/json"
    content: Any

    def render(self, content: Any) -> bytes:
        """Encode the content."""
        self.content = content
        return orjson.dumps(content)


def reshape(response: Response, rules: Sequence[Rule]) -> Response:
    """Return an answer of success in the shape that the rules give it."""
    if (
        not rules
        or not isinstance(response, Json)
        or response.status_code >= HTTPStatus.MULTIPLE_CHOICES
    ):
        return response
    content = cast("JSON", response.content)
    for rule in rules:
        content = _shaped(content, rule)
    return Json(content, response.status_code)


def _shaped(content: JSON, rule: Rule) -> JSON:
    if rule.kind in _FORMS:
        return _FORMS[rule.kind](content)
    if rule.kind != "odd_objects":
        return content
    change = _CHANGES[str(rule.style)]
    if isinstance(content.get("data"), list):
        data = cast("list[JSON]", content["data"])
        return {**content, "data": [change(item, rule.word) for item in data]}
    return change(content, rule.word)


def _endless(content: JSON) -> list[JSON]:
    """Return the oldest of these batches, and one from an hour before that nobody knows."""
    oldest = cast("list[JSON]", content["data"])[-1:]
    other: JSON = {"object": "batch", "status": "completed"}
    if oldest:
        other = {**oldest[0], "metadata": None}
        made = _moment(other["created_at"]) - timedelta(hours=1)
        is_text = isinstance(other["created_at"], str)
        other["created_at"] = _iso(made) if is_text else int(made.timestamp())
    names = {name: f"{name}_{secrets.token_hex(12)}" for name in ("id", "input_file_id")}
    return [*oldest, {**other, **names}]


def _status(change: Callable[[str, str], str]) -> Callable[[JSON, str], JSON]:
    """Return the change of a batch's status by a function of the status and the rule's word."""

    def changed(item: JSON, word: str) -> JSON:
        names = [name for name in ("status", "processing_status") if name in item]
        return {**item, **{name: change(item[name], word) for name in names}}

    return changed


def _times(change: Callable[[datetime], object]) -> Callable[[JSON, str], JSON]:
    """Return the change of all times that are there."""

    def changed(item: JSON, word: str) -> JSON:
        del word
        return {
            name: change(_moment(value)) if _is_time(name) and value is not None else value
            for name, value in item.items()
        }

    return changed


def _is_time(name: str) -> bool:
    return name.endswith("_at")


def _moment(value: float | str) -> datetime:
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    return datetime.fromtimestamp(value, UTC)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _capitals(status: str, word: str) -> str:
    del word
    return status.upper()


def _progress(status: str, word: str) -> str:
    return _capitals(status, word).replace("IN_PROGRESS", "PROGRESS")


def _unknown(status: str, word: str) -> str:
    return status if status in _ENDED else word


def _without(part: Callable[[str], bool]) -> Callable[[JSON, str], JSON]:
    return lambda item, _: {name: value for name, value in item.items() if not part(name)}


def _blank(item: JSON, word: str) -> JSON:
    del word
    changed = dict(item)
    for name, value in item.items():
        if name in ("request_counts", "usage"):
            changed[name] = None
        elif value is None and (name in ("errors", "results_url") or name.endswith("_id")):
            changed[name] = ""
    return changed


def _text_counts(item: JSON, word: str) -> JSON:
    del word
    counts = cast("JSON", item.get("request_counts") or {})
    return {**item, "request_counts": {name: str(value) for name, value in counts.items()}}


def _low_counts(item: JSON, word: str) -> JSON:
    del word
    counts = cast("JSON", item.get("request_counts") or {})
    return {**item, "request_counts": {name: min(value, 1) for name, value in counts.items()}}


def _nonsense(item: JSON, word: str) -> JSON:
    del word
    made: JSON = {name: {"s": 1} for name in item if _is_time(name)}
    return {**item, **made, "request_counts": [1], "metadata": [1], "errors": [[["x"]]]}


def _errors_list(item: JSON, word: str) -> JSON:
    del word
    if "errors" not in item:
        return item
    errors = cast("JSON", item["errors"] or {})
    return {**item, "errors": [problem["message"] for problem in errors.get("data", [])]}


_CHANGES: dict[str, Callable[[JSON, str], JSON]] = {
    "capitals": _status(_capitals),
    "progress": _status(_progress),
    "iso_times": _times(_iso),
    "ms_times": _times(lambda moment: int(moment.timestamp() * 1_000)),
    "float_times": _times(lambda moment: moment.timestamp() + 0.25),
    "no_times": _without(_is_time),
    "null_times": _times(lambda _: None),
    "blank": _blank,
    "text_counts": _text_counts,
    "no_counts": _without("request_counts".__eq__),
    "no_metadata": lambda item, _: {**item, "metadata": None},
    "low_counts": _low_counts,
    "errors_list": _errors_list,
    "nonsense": _nonsense,
    "unknown_status": _status(_unknown),
    "unknown_end": _status(lambda _, word: word),
}
"""The change of an object for each style."""


_FORMS: dict[str, Callable[[JSON], JSON]] = {
    "list_flat": lambda content: _without(_PAGES.__contains__)(content, ""),
    "list_short": lambda content: {**content, "has_more": str(content["has_more"]).lower()},
    "list_endless": lambda content: {**content, "data": _endless(content), "has_more": True},
    "create_names_job": lambda _: {"id": f"job_{secrets.token_hex(8)}", "status": "accepted"},
    "bare_create": lambda content: {name: content[name] for name in _BARE if name in content},
}
"""The form of an answer for each other kind of scope `answer`; for some lists see `pages.py`."""
