"""Columns that source and spec call otherwise than the dataset: told apart from other changes."""

from __future__ import annotations

import shlex
from itertools import combinations, islice, permutations
from typing import TYPE_CHECKING

import orjson
import pyarrow.compute as pc

from batchata_tasks.common.errors import SpecError
from batchata_tasks.dataset.declared import DeclaredSchema, Role
from batchata_tasks.dataset.renames import Renames
from batchata_tasks.planning.earlier_prompts import earlier_parts
from batchata_tasks.planning.exchanged import values_moved
from batchata_tasks.planning.fingerprint import OTHERS_FROM, other_parts
from batchata_tasks.sources.forms import FrameSource
from batchata_tasks.spec.enrichment import EnrichmentSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.dataset.parts import Dataset
    from batchata_tasks.planning.summary import PlanSummary
    from batchata_tasks.planning.table import PreparedTable
    from batchata_tasks.spec.parts import Turn

_MOST = 100  # ways to pair old names with new ones


def note_renamed(table: PreparedTable, folder: DatasetFolder, summary: PlanSummary) -> None:
    """Write into a plan's summary which columns seem to have another name by now.

    They do if rows are to be sent for their prompt, and rows were sent with this very prompt over
    columns that are gone from the source, or over two whose values have exchanged their places.
    Call it before the dataset's record of its columns is written anew.
    """
    if not summary.reasons.get("prompt") or not isinstance(table.spec, EnrichmentSpec):
        return
    declared = DeclaredSchema.read(folder) or DeclaredSchema()
    known = [column.name for column in declared.columns if column.role is not Role.ANSWER]
    landed = landed_parts(table.dataset)
    summary.renamed = whole_rename(table, {}, known, Renames.read(folder), landed) or {}


def whole_rename(
    table: PreparedTable,
    names: Mapping[str, str],
    known: Sequence[str],
    renames: Renames,
    landed: set[str],
) -> dict[str, str] | None:
    """Return columns that were renamed, and with them those by which the prompt is a landed one.

    `names` has the new names of some by the old ones, `known` are all columns of the source that
    the dataset knows, `landed` is what `landed_parts` returns. None if rows were sent with no such
    prompt, for this model and schema.
    """
    for more in islice(_likely_renames(table, names, known), _MOST):
        whole = {**names, **more}
        if _is_prompt_of(table, whole, renames, landed):
            is_exchange = bool(more.keys() & set(more.values()))
            if not is_exchange or values_moved(table, whole, renames, known):
                return whole
    return None


def _likely_renames(
    table: PreparedTable, names: Mapping[str, str], known: Sequence[str]
) -> Iterator[dict[str, str]]:
    """Yield what may have been renamed besides `names`: new names by the old ones.

    The columns that templates use and are new may be those that are gone. If none is new, there may
    be no others, or two have exchanged their names.
    """
    source, used = table.source.names(), table.builder.columns_used()
    gone = [name for name in known if name not in source and name not in names]
    new = [name for name in used if name not in known and name not in names.values()]
    for old in permutations(gone, len(new)):
        yield dict(zip(old, new, strict=True))
    if new:
        return
    told = (*names, *names.values(), *table.spec.key)
    there = [name for name in known if name in source and name not in told]
    for one, other in combinations(there, 2):
        if one in used or other in used:
            yield {one: other, other: one}


def _is_prompt_of(
    table: PreparedTable, names: Mapping[str, str], renames: Renames, landed: set[str]
) -> bool:
    """Whether rows were sent with the prompt that names columns otherwise, for this model."""
    spec = table.spec
    if not isinstance(spec, EnrichmentSpec):
        return False
    used = table.builder.columns_used()
    in_prompt = {old: new for old, new in names.items() if new in used}
    earlier = earlier_prompt(spec.turns(), in_prompt, renames, landed) if in_prompt else None
    _, model, schema = table.builder.constant
    return earlier is not None and other_parts(earlier, model, schema) in landed


def require_known_key(table: PreparedTable, folder: DatasetFolder) -> None:
    """Refuse a spec whose key has columns that the dataset does not know, with the way to go on.

    If they seem to be columns that are gone from the source, that is the whole command by which
    they are renamed, and with them those of the prompt.

    Raises:
        SpecError: it is so.
    """
    declared = DeclaredSchema.read(folder)
    if declared is None or not table.dataset.parts():
        return
    source, key = table.source.names(), table.spec.key
    known = [column.name for column in declared.columns if column.role is not Role.ANSWER]
    new = [name for name in key if name not in known]
    gone = [name for name in declared.of((Role.KEY,)).names if name not in (*source, *key)]
    if not new or len(new) != len(gone):
        return  # who reads the dataset refuses a key that it does not have
    names = dict(zip(gone, new, strict=True))
    landed = landed_parts(table.dataset)
    names = whole_rename(table, names, known, Renames.read(folder), landed) or names
    way = f"give {as_command(names)}, which is free"
    if isinstance(table.spec, EnrichmentSpec) and isinstance(table.spec.source, FrameSource):
        way = f"call it {gone[0]!r} again, in frame and call"
    message = (
        f"key: the dataset in {table.dataset.data} has no column {new[0]!r}; a dataset keeps its "
        f"key: name another `output`, or, if the column was renamed, {way}."
    )
    raise SpecError(message)


def landed_parts(dataset: Dataset) -> set[str]:
    """Return the fingerprints of all rows without their inputs: prompt, model and schema."""
    found = set[str]()
    for _, batch in dataset.rows(["_fingerprint"]):
        parts = pc.utf8_slice_codeunits(batch.column("_fingerprint"), OTHERS_FROM)
        found.update(pc.unique(parts.drop_null()).to_pylist())
    return found


def earlier_prompt(
    turns: Sequence[Turn], names: Mapping[str, str], known: Renames, landed: set[str]
) -> str | None:
    """Return the part that fingerprints of landed rows have of a prompt with its columns renamed.

    `names` has the new names by the old ones. None if no row was sent with it.
    """
    prompts = {parts.partition(".")[0] for parts in landed}
    parts = map(known.original_prompt, earlier_parts(turns, names))
    return next((part for part in parts if part in prompts), None)


def as_command(names: Mapping[str, str]) -> str:
    """Return the command by which columns are renamed: new names by the old ones."""
    plain = not any("=" in name for pair in names.items() for name in pair)
    words = [f"{old}={new}" for old, new in names.items()]
    if not plain:
        words = [orjson.dumps(dict(names)).decode()]
    columns = " ".join(f"--column {shlex.quote(word)}" for word in words)
    return f"`batchata rename SPEC {columns}`"
