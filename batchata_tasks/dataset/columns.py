"""The dataset's columns, and the keys of its rows."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.canonical import canonical_rows, key_digest
from batchata_tasks.common.conversion import UnfitError, converted
from batchata_tasks.common.errors import SpecError, StorageError
from batchata_tasks.common.json_columns import python_list, type_name
from batchata_tasks.dataset.answers import fitted
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Container

    from numpy.typing import NDArray

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
        pa.field("grade", pa.string()),
        pa.field("verified", pa.bool_()),
        pa.field("reason", pa.string()),
    ]
)
CITATION_NAMES = [field.name for field in CITATION]
COST = pa.decimal128(20, 12)  # US dollars, exact to the picodollar
UNKNOWN_COST = np.iinfo(np.int64).min
_PICODOLLAR = pa.scalar(Decimal("1e-12"), pa.decimal128(12, 12))
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
MISSING_SINCE = pa.field("_missing_since", pa.timestamp("us", tz="UTC"))
"""Since when the source lacks a row; null if it has it. Only datasets of `on_missing: mark` have
it."""
OWN_NAMES = (*META_FIELDS.names, MISSING_SINCE.name)
"""The names of all columns that come neither from a source nor from an answer."""
_TEXT_ANSWER = pa.schema([pa.field("response", pa.string())])


def dataset_schema(
    carried: pa.Schema,
    response: ResponseSchema | None,
    retired: pa.Schema | None = None,
    *,
    marks: bool = False,
) -> pa.Schema:
    """Return the columns: key and carried columns, the answer's fields, then the metadata.

    `retired` columns, which are kept though the spec no longer names them, follow the carried ones.
    `marks`: rows that the source lacks are marked.

    Raises:
        SpecError: two of them have the same name.
    """
    answers = response.arrow if response is not None else _TEXT_ANSWER
    taken = dict.fromkeys([*OWN_NAMES, *SYSTEM_FIELDS.names], "a metadata column")
    retired = retired or pa.schema([])
    for fields, what in (
        (carried, "a source column"),
        (retired, "a source column that the dataset keeps"),
        (answers, "a field of the response model"),
    ):
        for name in fields.names:
            if name in taken:
                remedy = "rename one of them, or remove it from `columns`"
                if name in retired.names:
                    remedy = "rename the field, or name another `output`"
                message = f"the column {name!r} is {what} and {taken[name]} as well; {remedy}."
                raise SpecError(message)
            taken[name] = what
    columns = (*carried, *retired, *answers, *META_FIELDS, *([MISSING_SINCE] if marks else []))
    return pa.schema([pa.field(field.name, field.type) for field in columns])


def cost_column(picodollars: pa.Array) -> pa.Array:
    """Return amounts, integers of 64 bits, as the column `_cost_usd` has them."""
    return pc.multiply(picodollars.cast(pa.decimal128(19, 0)), _PICODOLLAR).cast(COST)


def picodollars(column: pa.Array) -> NDArray[np.int64]:
    """Return the column `_cost_usd` as integers, in which `UNKNOWN_COST` stands for null."""
    column = column.cast(COST)
    if not len(column) or column.null_count == len(column):
        return np.full(len(column), UNKNOWN_COST)
    # a decimal of 128 bits is an integer of so many, and its low half comes first
    halves = np.frombuffer(column.buffers()[1], "<i8")[2 * column.offset :: 2][: len(column)]
    return np.where(pc.is_null(column).to_numpy(zero_copy_only=False), UNKNOWN_COST, halves)


def keys_of(batch: pa.RecordBatch | pa.Table, key: list[str]) -> list[bytes]:
    """Return the canonical key of every row."""
    return list(canonical_rows([python_list(batch.column(name)) for name in key]))


def replaced_keys(manifest: pa.Table, key: list[str]) -> dict[str, set[bytes]]:
    """Return the keys (digests) that a chunk supersedes, by the part that holds them."""
    replaces, left = manifest["_replaces"], manifest["_batchata_left"]
    rows = manifest.filter(pc.and_(pc.is_valid(replaces), pc.is_null(left)))
    replaced: dict[str, set[bytes]] = defaultdict(set)
    for part, row_key in zip(rows["_replaces"].to_pylist(), keys_of(rows, key), strict=True):
        replaced[part].add(key_digest(row_key))
    return replaced


def without(batch: pa.RecordBatch, key: list[str], gone: set[bytes]) -> pa.RecordBatch:
    """Return the rows whose keys (digests) are not among `gone`."""
    keep = [key_digest(row_key) not in gone for row_key in keys_of(batch, key)]
    return batch.filter(pa.array(keep, type=pa.bool_()))


def conformed(
    batch: pa.RecordBatch, schema: pa.Schema, answers: Container[str] = ()
) -> pa.RecordBatch:
    """Return the rows of an older part in the columns and types of a schema.

    Columns that the part lacks are null. `answers` are those of them that hold what a response
    model can: of an older one each value that fits. If answers are texts now, older rows take them
    from their raw answers.

    Raises:
        StorageError: a column that is no answer has a value that its type cannot hold.
    """
    arrays = [_conformed(batch, field, is_answer=field.name in answers) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _conformed(batch: pa.RecordBatch, field: pa.Field, *, is_answer: bool) -> pa.Array:
    present, nulls = batch.schema.names, pa.nulls(batch.num_rows, field.type)
    if field.name in present:
        column = batch.column(field.name)
        return fitted(column, field.type) if is_answer else kept(column, field)
    is_text_answer = field.name in _TEXT_ANSWER.names and field.type.equals(pa.string())
    if is_text_answer and "_response" in present:
        succeeded = pc.equal(batch.column("_status"), Outcome.SUCCEEDED)
        return pc.if_else(succeeded, batch.column("_response"), nulls)
    return nulls


def kept(column: pa.Array, field: pa.Field) -> pa.Array:
    """Return the values of a column in its declared type, all of them.

    Raises:
        StorageError: one does not fit, which its declaration excludes.
    """
    try:
        return converted(column, field.type)
    except UnfitError as error:
        kind = type_name(field.type)
        message = (
            f"the column {field.name!r} is declared as {kind}, and the dataset holds "
            f"{error.value!r}; nothing was changed: delete `_batchata/schema.json`, which is made "
            "anew, and start again."
        )
        raise StorageError(message) from error
