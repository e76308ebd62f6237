"""JSON as providers and gateways write it: read as far as it can be, however odd it is.

orjson reads nearly every line. What it refuses (half a surrogate pair, NaN, a byte order mark, a
character that was cut) is read by the standard library instead, so that it spoils a field at most.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar, cast

import orjson

from batchata_tasks.providers.keys import masked

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNKNOWN = "\ufffd"  # what stands for a character that is none
_DIGITS = 40  # of an integer that is still read; a longer one cannot be a count
_MOST_COUNT = 2**40
_COUNT = re.compile(r"\s*([0-9]{1,15})(\.0*)?\s*", re.ASCII)


def parsed(line: bytes | str) -> Any:
    """Return the value of a JSON text; halves of surrogate pairs become U+FFFD.

    Raises:
        ValueError: it is not JSON, even read leniently.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        refusal = error
    text = line if isinstance(line, str) else line.removeprefix(_BOM).decode(errors="replace")
    try:
        value = json.loads(text.removeprefix("\ufeff"), strict=False, parse_int=_integer)
        return _whole(value)
    except (ValueError, RecursionError):
        raise refusal from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float("inf")


def _whole(value: Any) -> Any:
    """Return a value with all halves of surrogate pairs replaced."""
    if isinstance(value, str):
        return _SURROGATE.sub(_UNKNOWN, value)
    if isinstance(value, list):
        return [_whole(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {_whole(name): _whole(item) for name, item in cast("dict[str, Any]", value).items()}
    return value


def object_of(value: object) -> dict[str, Any]:
    """Return a JSON object, also if it is given as a JSON text; an empty one for anything else."""
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            value = parsed(value)
        except ValueError:
            return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def list_of(value: object) -> list[Any]:
    """Return a JSON list; an empty one for anything else."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def name_of(value: object) -> str | None:
    """Return a name of a provider's answer, such as a model's, as one line without keys."""
    text = text_of(value)
    return None if text is None else masked(text)


def text_of(value: object) -> str | None:
    """Return a text, or None for anything else and for an empty one."""
    return value if isinstance(value, str) and value else None


def excerpt_of(value: object, length: int = 200) -> str:
    """Return the first characters of a value as JSON, for people."""
    if isinstance(value, str):
        return value[:length]
    try:
        return json.dumps(value, ensure_ascii=False, default=str)[:length]
    except RecursionError:
        return "JSON that is nested too deeply"


def count_of(value: object) -> int:
    """Return a number of tokens or calls as a provider states it; 0 if it is absent.

    20.0 and "20" are counts, too.

    Raises:
        ValueError: it is not a count.
    """
    if value is None:
        return 0
    if type(value) is int and 0 <= value <= _MOST_COUNT:  # nearly always
        return value
    if isinstance(value, str) and (match := _COUNT.fullmatch(value)):
        value = int(match[1])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        message = f"{value!r:.50} is not a number of tokens"
        raise ValueError(message)
    return min(value, _MOST_COUNT)  # more cannot be, and is not believed by whoever counts it


def plain_count(value: object) -> int:
    """Return a count that stands as a plain number, 0 if it is absent, and -1 for anything else."""
    if value is None:
        return 0
    return value if type(value) is int and 0 <= value <= _MOST_COUNT else -1


def leniently(read: Callable[[Callable[[object], int]], T]) -> tuple[T, bool]:
    """Return what `read` makes of counts that it is given a reader of, and whether all were valid.

    An invalid count reads as 0.
    """
    try:
        return read(count_of), True
    except ValueError:
        return read(_count_or_nothing), False


def _count_or_nothing(value: object) -> int:
    try:
        return count_of(value)
    except ValueError:
        return 0
