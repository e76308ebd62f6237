"""A row's key, as people write it on a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from batchata_tasks.common.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence


def typed_key(names: list[str], words: Sequence[str], schema: pa.Schema) -> dict[str, pa.Scalar]:
    """Return a key's values in the types of their columns.

    It is given as words: the value of the key column, or `column=value`.

    Raises:
        SpecError: a column is not given, or a word is no value of its column.
    """
    texts = dict[str, str]()
    for word in words:
        name, sign, text = word.partition("=")
        if sign and name in names:
            texts[name] = text
        elif len(names) == 1:  # a value may hold the sign itself
            texts[names[0]] = word
    if missing := [name for name in names if name not in texts]:
        example = " ".join(f"--key {name}=…" for name in names)
        reason = f"--key: the key has {len(names)} columns, and {missing[0]!r} is not given"
        message = f"{reason}; write {example}."
        raise SpecError(message)
    if len(words) > len(names):
        message = f"--key: {len(words)} values are given, and the key is {', '.join(names)}."
        raise SpecError(message)
    return {name: _value(name, text, schema.field(name).type) for name, text in texts.items()}


def _value(name: str, text: str, kind: pa.DataType) -> pa.Scalar:
    try:
        return pa.scalar(text, pa.string()).cast(kind)
    except pa.ArrowException as error:
        message = f"--key: {text!r:.80} is no value of the column {name!r}, which is {kind}."
        raise SpecError(message) from error
