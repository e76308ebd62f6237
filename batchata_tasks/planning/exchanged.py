"""Whether columns of a source have exchanged their names since rows were sent: their values tell.

A prompt that reads another column than before may mean just that. Only if the first rows have the
fingerprints with which they landed, once each value is read under its old name, were names changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.canonical import key_digests
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.renames import Renames, in_order
from batchata_tasks.planning.fingerprint import input_part, inputs_of
from batchata_tasks.planning.row_block import RowBlock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchata_tasks.planning.table import PreparedTable

_ROWS = 1000


def values_moved(
    table: PreparedTable, names: Mapping[str, str], known: Renames, columns: Sequence[str]
) -> bool:
    """Whether most of the first rows landed with the values that other columns have now.

    `names` has the new names of columns by the old ones, `columns` are all that the dataset knows.
    Rows in which those that exchanged their names have equal values tell nothing.
    """
    used, key = table.builder.columns_used(), table.spec.key
    wanted = dict.fromkeys((*key, *used, *names.values()))
    block = next(iter(table.source.batches([n for n in table.source.names() if n in wanted])), None)
    if block is None:
        return False
    rows = RowBlock(block.rows.slice(0, _ROWS), block.numbers(0)[:_ROWS], key)
    originals = Renames((*known.all, *in_order(names, columns))).originals(used)
    inputs = inputs_of({originals[name]: rows.values(name) for name in used}, len(rows))
    exchanged = {old: new for old, new in names.items() if old in names.values()}
    unlike = [
        any(_differ(rows.values(old)[i], rows.values(new)[i]) for old, new in exchanged.items())
        for i in range(len(rows))
    ]
    digests = key_digests(keys_of(table.source.stored(rows.batch.select(key)), key))
    expected = {
        digest: one.hex()
        for digest, one, tells in zip(digests, inputs, unlike, strict=True)
        if tells
    }
    old_names = {new: old for old, new in names.items()}
    landed = _landed_inputs(table, [old_names.get(name, name) for name in key], expected)
    same = sum(expected[digest] == one for digest, one in landed.items())
    return 2 * same > len(landed)


def _differ(one: object, other: object) -> bool:
    """Whether two values are told apart; two nan are not, though they are never equal."""
    return one != other and not (one != one and other != other)  # noqa: PLR0124 - only nan is so


def _landed_inputs(
    table: PreparedTable, key: list[str], wanted: Mapping[bytes, str]
) -> dict[bytes, str]:
    """Return the inputs with which rows of some keys (digests) landed.

    `key` are the names of its columns in the dataset.
    """
    found = dict[bytes, str]()
    for _, batch in table.dataset.rows([*key, "_fingerprint"]):
        prints = batch.column("_fingerprint").to_pylist()
        for digest, text in zip(key_digests(keys_of(batch, key)), prints, strict=True):
            if digest in wanted:
                found[digest] = input_part(text)
        if len(found) == len(wanted):
            break
    return found
