"""What JSON can hold, and JSON objects that may be absent."""

from __future__ import annotations

import math
from typing import Any, cast

from batchata_tasks.common.text import is_unicode


def as_dict(value: object) -> dict[str, Any]:
    """Return a JSON object as it is, and anything else (null, absent) as an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def not_json(value: object) -> str | None:
    """Return what of a value JSON cannot say, such as `nan`; None where it can say all of it."""
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
        named = cast("dict[object, object]", value)
        if strange := [name for name in named if not is_unicode(name)]:
            return f"the name {strange[0]!r:.60}"
        parts = list(named.values())
    else:
        return f"{value!r:.60}"
    return next((wrong for part in parts if (wrong := not_json(part)) is not None), None)
