"""What servers answer, read leniently: batch objects and lists, of official APIs and of gateways.

Only an id makes a batch. All else may be absent, null, or of another type: times are seconds,
milliseconds or ISO texts, counts are numbers or texts, errors are a list, a text or an object.
"""

from __future__ import annotations

import json
import math
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.common.json import as_dict
from batchata_tasks.common.text import is_unicode, printable
from batchata_tasks.providers.keys import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import httpx2

# what lies above is no time in seconds: it is in milliseconds, microseconds or nanoseconds
_MOST_SECONDS = 1e11
_FINER = (1e3, 1e6, 1e9)
_BATCH = frozenset({"batch", "message_batch"})  # the `object` or `type` of a batch
_BEGUN = re.compile(r'\s*\{\s*"id"\s*:\s*"([^"\\]+)"')
_NO_PATHS = (".", "..")  # ids that are left out of a URL
_MARK = re.compile(r'"(object|type)"\s*:\s*"(batch|message_batch)"')
_STATUS_CHARS = 32  # as ledgers keep it
# OpenAI's and Anthropic's ids have about 40 characters; a gateway without a memory writes the whole
# job into them (batchlane: up to 1,511)
_ID_CHARS = 2000
# the most that is read of a list: 500,000 batches at the providers' page size
_MOST_PAGES = 5000
LONGEST_LIST = 180.0  # seconds
_HOLDERS = ("batch", "data", "result")  # names under which an object may be put
_ITEMS = ("data", "batches", "items")  # names of the items of a list
_QUOTED = 80  # characters of an answer that cannot be read


def json_of(response: httpx2.Response) -> Any:
    """Return the JSON of an answer.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        text = response.content.decode("utf-8-sig", errors="replace")
        try:
            # a BOM, halves of surrogates, NaN: the standard library reads more than orjson does
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            message = f"no JSON, but {_start(response)}"
            raise ValueError(message) from error


def object_of(response: httpx2.Response) -> dict[str, Any]:
    """Return the JSON object of an answer, with an id if there is one in it.

    Some servers put it into another one, into a list, or write it as a JSON text.

    Raises:
        ValueError, TypeError: it is not a JSON object.
    """
    try:
        value = _unpacked(json_of(response))
    except ValueError as error:
        message = f"{_call(response)} gave {error}"
        raise ValueError(message) from None
    if not isinstance(value, dict):
        message = f"{_call(response)} gave no JSON object, but {_start(response)}"
        raise TypeError(message)
    whole = cast("dict[str, Any]", value)
    inner = (as_dict(whole.get(name)) for name in _HOLDERS if not id_of(whole))
    return next(filter(id_of, inner), whole)


def _unpacked(answer: object) -> object:
    """Return what a JSON text holds, and the only item of a list."""
    value: object = orjson.loads(answer) if isinstance(answer, str) else answer
    if not isinstance(value, list):
        return value
    items = cast("list[object]", value)
    return items[0] if len(items) == 1 else items


def is_api_error(response: httpx2.Response) -> bool:
    """Whether an error comes from the API itself: in its own shape, or without a body.

    Anthropic writes {"type": "error", "error": {…}}, OpenAI {"error": {…}}. All else is of
    something in between, which need not know what became of the call.
    """
    if not response.content.strip():
        return True
    try:
        error = as_dict(as_dict(json_of(response)).get("error"))
    except ValueError:
        return False
    return any(isinstance(error.get(name), str) for name in ("message", "type", "code"))


def batch_in(response: httpx2.Response) -> dict[str, Any] | None:
    """Return the batch that the answer to a create names, or None.

    Whatever else an answer says: one that carries a batch's id is about a batch that exists.
    """
    try:
        answer = as_dict(_unpacked(json_of(response)))
    except ValueError:
        return _cut_batch(response.text)
    for one in (answer, *(as_dict(answer.get(name)) for name in _HOLDERS)):
        is_batch = any(status_of(one.get(name)) in _BATCH for name in ("object", "type"))
        if 0 < len(id_of(one)) <= _ID_CHARS and (
            is_batch or (response.is_success and not one.get("error"))
        ):
            return one
    return None


def _cut_batch(text: str) -> dict[str, Any] | None:
    """Return the batch in an answer that broke off after its id, or None."""
    begun = _BEGUN.match(text)
    return {"id": begun[1]} if begun is not None and _MARK.search(text) else None


def items_of(page: object) -> list[dict[str, Any]]:
    """Return the objects on a page of a list, which may be the list itself.

    Raises:
        TypeError: it is no list.
    """
    items = _items_in(_items_in(page))  # some servers write one list into another
    if not isinstance(items, list):
        message = "it is no list"
        raise TypeError(message)
    return [as_dict(item) for item in cast("list[object]", items)]


def _items_in(page: object) -> object:
    if not isinstance(page, dict):
        return page
    holder = cast("dict[str, Any]", page)
    name = next((name for name in _ITEMS if name in holder), None)
    if name is None:
        return None
    # servers in Go write null if there are none
    is_empty = holder[name] is None and not holder.get("has_more") and not holder.get("error")
    return list[object]() if is_empty else holder[name]


def pages(
    fetch: Callable[[str | None], httpx2.Response], unfinished: Callable[[], None] | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Yield the pages of a list; `fetch` gets the page after the object of this id.

    A page is yielded before the next one is asked for. One that brings no new id is the last,
    whatever `has_more` says: some servers ignore the cursor and list everything each time. If more
    was promised all the same, or the list does not end within 5,000 pages and three minutes,
    `unfinished` is called: nobody knows what the rest would show.

    Raises:
        ValueError, TypeError: an answer is no list.
    """
    after, seen, until = None, set[str](), time.monotonic() + LONGEST_LIST
    for _ in range(_MOST_PAGES):
        answer, found = _page_in(fetch(after))
        items = [item for item in found if id_of(item) and id_of(item) not in seen]
        if not items:
            if unfinished is not None and seen and as_dict(answer).get("has_more"):
                unfinished()
            return
        yield items
        # a page that does not say whether more follows (some servers list all at once) is asked on
        if str(as_dict(answer).get("has_more", not isinstance(answer, list))).lower() == "false":
            return
        if time.monotonic() > until:
            break
        seen.update(map(id_of, items))
        after = id_of(items[-1])
    if unfinished is not None:
        unfinished()


def _page_in(response: httpx2.Response) -> tuple[Any, list[dict[str, Any]]]:
    """Return the JSON of a page of a list, and the objects on it.

    Raises:
        ValueError: it is none; the message names the call.
    """
    try:
        answer = json_of(response)
        return answer, items_of(answer)
    except (ValueError, TypeError):
        message = f"{_call(response)} gave no list, but {_start(response)}"
        raise ValueError(message) from None


def _call(response: httpx2.Response) -> str:
    return f"{response.request.method} {response.request.url.path}"


def _start(response: httpx2.Response) -> str:
    """Return how an answer that cannot be read begins, for people."""
    text = response.content[: 4 * _QUOTED].decode("utf-8-sig", errors="replace")
    return repr(printable(masked(text))[:_QUOTED])


def id_of(item: Mapping[str, Any]) -> str:
    """Return the id of an object, or an empty text."""
    name = text_or_none(item.get("id")) or ""
    return "" if name in _NO_PATHS else name


def new_id_of(response: httpx2.Response) -> str:
    """Return the id of what a call made.

    Raises:
        ValueError, TypeError: the answer names none.
    """
    name = id_of(object_of(response))
    if not 0 < len(name) <= _ID_CHARS:
        message = f"{_call(response)} gave no id, but {_start(response)}"
        raise ValueError(message)
    return name


def checked_id(item: Mapping[str, Any]) -> str:
    """Return the id of a batch that is to be kept.

    Raises:
        ValueError: it is absent, or longer than any that is known.
    """
    name = id_of(item)
    if not 0 < len(name) <= _ID_CHARS:
        message = f"{name!r:.60} is no id of a batch"
        raise ValueError(message)
    return name


def text_or_none(value: object) -> str | None:
    """Return a text, or None if it is empty or something else; numbers become texts."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and value.strip() and is_unicode(value) else None


def status_of(value: object) -> str:
    """Return a status in lower case, in a form that can be printed and kept; it may be empty."""
    words = masked(value).strip().lower() if isinstance(value, str) else ""
    return words.replace(" ", "_").replace("-", "_")[:_STATUS_CHARS]


def number_or_none(value: object) -> float | None:
    """Return a number that is stated as such or as a text; None if it is neither, or not finite."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def count_or_none(value: object) -> int | None:
    """Return a count of requests, or None if it is not told."""
    number = number_or_none(value)
    return int(number) if number is not None and 0 <= number <= _MOST_SECONDS else None


def seconds_or_none(value: object) -> float | None:
    """Return a moment in seconds since 1970, however it is stated, or None if it is not told."""
    number = number_or_none(value)
    if number is None:
        return _iso_seconds(value)
    if number <= 0:
        return None
    return next((number / by for by in (1.0, *_FINER) if number / by < _MOST_SECONDS), None)


def _iso_seconds(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def errors_of(value: object) -> list[dict[str, Any]]:
    """Return the errors of a batch as objects with a `message`, whatever form they come in."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return errors_of(fields["data"]) if "data" in fields else [fields] if fields else []
    if isinstance(value, list):
        return [error for item in cast("list[object]", value) for error in errors_of(item)]
    text = text_or_none(value)
    return [] if text is None else [{"message": text}]


def reason_of(error: Mapping[str, Any]) -> str:
    """Return what an error says, as one line: its code, if it has one, and its message."""
    message = text_or_none(error.get("message")) or text_or_none(error.get("detail")) or str(error)
    code = text_or_none(error.get("code"))
    return masked(message if code is None else f"{code}: {message}")[:500]
