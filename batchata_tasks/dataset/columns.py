"""The dataset's columns, the names of its parts, and the keys of its rows."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.canonical import canonical, digest, key_digest
from batchata_tasks.common.errors import SpecError
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from batchata_tasks.schema.response import ResponseSchema

CITATION = pa.struct(
    [
        pa.field("field", pa.string()),
        pa.field("cited_text", pa.string()),
        pa.field("document", pa.string()),
        pa.field("page_start", pa.int32()),
        pa.field("page_end", pa.int32()),
        pa.field("char_start", pa.int64()),
        pa.field("char_end", pa.int64()),
    ]
)
COST = pa.decimal128(20, 12)  # US dollars, exact to the picodollar
META_FIELDS = pa.schema(
    [
        pa.field("_status", pa.string()),
        pa.field("_error", pa.string()),
        pa.field("_attempts", pa.int32()),
        pa.field("_provider", pa.string()),
        pa.field("_model", pa.string()),
        pa.field("_batch_id", pa.string()),
        pa.field("_custom_id", pa.string()),
        pa.field("_fingerprint", pa.string()),
        pa.field("_input_tokens", pa.int64()),
        pa.field("_output_tokens", pa.int64()),
        pa.field("_cache_read_tokens", pa.int64()),
        pa.field("_cost_usd", COST),
        pa.field("_citations", pa.list_(CITATION)),
        pa.field("_response", pa.string()),
        pa.field("_run_id", pa.string()),
        pa.field("_enriched_at", pa.timestamp("us", tz="UTC")),
    ]
)
_TEXT_ANSWER = pa.schema([pa.field("response", pa.string())])
_VERSION = re.compile(r"(.+)\.v([0-9]+)\.parquet")


def dataset_schema(carried: pa.Schema, response: ResponseSchema | None) -> pa.Schema:
    """Return the columns: key and carried columns, the answer's fields, then the metadata.

    Raises:
        SpecError: two of them have one name.
    """
    answers = response.arrow if response is not None else _TEXT_ANSWER
    taken = dict.fromkeys([*META_FIELDS.names, *SYSTEM_FIELDS.names], "a metadata column")
    for fields, what in ((carried, "a source column"), (answers, "a field of the response model")):
        for name in fields.names:
            if name in taken:
                message = f"the column {name!r} is {what} and {taken[name]} as well; rename one of them, or leave it out of `columns`."
                raise SpecError(message)
            taken[name] = what
    plain = [pa.field(field.name, field.type) for field in (*carried, *answers, *META_FIELDS)]
    return pa.schema(plain)


def part_of_chunk(chunk_id: str) -> str:
    """Return the name of the part that a chunk lands as."""
    return f"part-{chunk_id}.parquet"


def chunk_of_part(part: str) -> str:
    """Return the chunk that landed as a part."""
    return part.removeprefix("part-").removesuffix(".parquet")


def versioned(name: str) -> tuple[str, int]:
    """Return (the name of a part's first version, the version) of a file."""
    found = _VERSION.fullmatch(name)
    return (name, 1) if found is None else (f"{found[1]}.parquet", int(found[2]))


def keys_of(batch: pa.RecordBatch | pa.Table, key: list[str]) -> list[bytes]:
    """Return the canonical key of every row."""
    columns = [batch.column(name).to_pylist() for name in key]
    return [canonical(list(values)) for values in zip(*columns, strict=True)]


def carried_digests(batch: pa.RecordBatch, carried: list[str]) -> list[bytes]:
    """Return a digest of every row's carried columns; an absent column reads as null."""
    present = set(batch.schema.names)
    columns = [
        batch.column(n).to_pylist() if n in present else [None] * batch.num_rows for n in carried
    ]
    if not columns:
        return [b""] * batch.num_rows
    return [
        digest("carried", canonical(list(values)))[:16] for values in zip(*columns, strict=True)
    ]


def replaced_keys(manifest: pa.Table, key: list[str]) -> dict[str, set[bytes]]:
    """Return the keys (digests) that a chunk supersedes, by the part that holds them."""
    older = manifest.filter(pc.is_valid(manifest["_replaces"]))
    found: dict[str, set[bytes]] = defaultdict(set)
    for part, row_key in zip(older["_replaces"].to_pylist(), keys_of(older, key), strict=True):
        found[part].add(key_digest(row_key))
    return found


def without(batch: pa.RecordBatch, key: list[str], gone: set[bytes]) -> pa.RecordBatch:
    """Return the rows whose keys (digests) are not among those that are gone."""
    keep = [key_digest(row_key) not in gone for row_key in keys_of(batch, key)]
    return batch.filter(pa.array(keep, type=pa.bool_()))


def conformed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return rows of an older part in the columns and types of a schema; what it lacked is null.

    Where answers are texts now, older rows have them from their raw answers.
    """
    present = set(batch.schema.names)
    arrays: list[pa.Array] = []
    for field in schema:
        if (
            field.name not in present
            and field.name in _TEXT_ANSWER.names
            and "_response" in present
        ):
            succeeded = pc.equal(batch.column("_status"), Outcome.SUCCEEDED)
            arrays.append(
                pc.if_else(
                    succeeded, batch.column("_response"), pa.nulls(batch.num_rows, pa.string())
                )
            )
            continue
        if field.name not in present:
            arrays.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(field.name)
        try:
            arrays.append(column if column.type.equals(field.type) else column.cast(field.type))
        except pa.ArrowException:
            arrays.append(pa.nulls(batch.num_rows, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def family(kind: pa.DataType) -> str:
    """Return what identity knows of a type: integers of all widths are one, and so are floats."""
    return (
        "integer"
        if pa.types.is_integer(kind)
        else "float"
        if pa.types.is_floating(kind)
        else str(kind)
    )


def as_stored(schema: pa.Schema) -> pa.Schema:
    """Return the schema as Parquet gives it back: list items are named `element` there."""
    return pa.schema([pa.field(field.name, _stored_type(field.type)) for field in schema])


def _stored_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(pa.field("element", _stored_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _stored_type(f.type)) for f in kind])
    return kind
