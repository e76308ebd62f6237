"""JSON objects that may be absent, and values that JSON cannot hold."""

from __future__ import annotations

import math
from typing import Any, cast

from batchata_tasks.common.text import is_unicode


def as_dict(value: object) -> dict[str, Any]:
    """Return a JSON object unchanged, and an empty one instead of anything else (null, absent)."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def not_json(value: object) -> str | None:
    """Return the first part of a value that JSON cannot hold, such as `nan`, or None."""
    if (
        value is None
        or isinstance(value, int)
        or is_unicode(value)
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return None
    if isinstance(value, list | tuple):
        parts = cast("list[object]", value)
    elif isinstance(value, dict):
        pairs = cast("dict[object, object]", value)
        if invalid := [name for name in pairs if not is_unicode(name)]:
            return f"the name {invalid[0]!r:.60}"
        parts = list(pairs.values())
    else:
        return f"{value!r:.60}"
    return next((wrong for part in parts if (wrong := not_json(part)) is not None), None)
