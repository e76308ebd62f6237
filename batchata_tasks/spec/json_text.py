"""JSON as specs have it: a key given twice, which Python would take the last of, is refused."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str) -> Any:
    """Return the values of a file that a person wrote.

    Raises:
        ValueError: it is not valid, has a key twice, or more levels or digits than Python reads.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        message = "it is nested too deeply"
        raise ValueError(message) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict[str, Any]()
    for name, value in pairs:
        if name in values:
            message = f"the key {name} is given twice; remove one"
            raise ValueError(message)
        values[name] = value
    return values
