"""Fingerprints: they show whether a row is to be sent again, and why."""

from __future__ import annotations

from functools import lru_cache

from batchata_tasks.common.canonical import canonical, digest

FINGERPRINT_VERSION = "v1"
_PART_BYTES = 12  # 96 bits: no clash to be expected below 10^14 rows


def part(kind: str, value: object) -> str:
    """Return one part of a fingerprint: 24 hexadecimal digits (96 bits) over canonical JSON."""
    return digest(kind, canonical(value))[:_PART_BYTES].hex()


def fingerprint(input_part: str, prompt_part: str, model_part: str, schema_part: str) -> str:
    """Return `v1:<input>.<prompt>.<model+params>.<schema>`."""
    return f"{FINGERPRINT_VERSION}:{input_part}.{prompt_part}.{model_part}.{schema_part}"


_PARTS = ("input", "prompt", "model", "schema")


@lru_cache(maxsize=4096)  # rows of one table share the last three parts, so few pairs recur often
def _parts(text: str) -> tuple[str, tuple[str, ...]]:
    version, _, rest = text.partition(":")
    return version, tuple(rest.split("."))


def changed(old: str, new: str) -> list[str]:
    """Return the parts in which two fingerprints differ: prompt, input, model, schema.

    None of them if they are equal. The prompt comes first, since a template that reads other
    columns changes the input too. A fingerprint of another version differs in its input.
    """
    if old == new:
        return []
    (old_version, old_parts), (_, new_parts) = _parts(old), _parts(new)
    if old_version != FINGERPRINT_VERSION or len(old_parts) != len(new_parts):
        return ["input"]
    before = dict(zip(_PARTS, old_parts, strict=True))
    after = dict(zip(_PARTS, new_parts, strict=True))
    reasons = ("prompt", "input", "model", "schema")
    return [reason for reason in reasons if before[reason] != after[reason]]
