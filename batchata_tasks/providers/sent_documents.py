"""The documents of requests that were sent, out of their bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.common.json import as_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.providers.base import Adapter
    from batchata_tasks.types.document import Document


def documents_in(
    body: Mapping[str, Any], adapter: type[Adapter], *, first_alone: bool
) -> list[Document]:
    """Return the documents of a request.

    `first_alone`: it is a job's, whose document comes before any parts of its own; those of a row
    come before the one text of its last turn.
    """
    turns = cast("list[Any]", body.get(adapter.turns_param, []))
    contents = [as_dict(turn).get("content") for turn in turns]
    # turns that a further attempt added are plain texts
    split = [cast("list[Any]", one) for one in contents if isinstance(one, list)]
    parts = split[-1] if split else []
    found = map(adapter.document_of, map(as_dict, parts[:1] if first_alone else parts[:-1]))
    return [one for one in found if one is not None]


def body_of(line: bytes) -> dict[str, Any]:
    """Return the body in a line of a request file; empty if it has none."""
    record = as_dict(orjson.loads(line.rstrip().rstrip(b",")))
    bodies = [body for value in record.values() if (body := as_dict(value))]
    return bodies[0] if bodies else {}
