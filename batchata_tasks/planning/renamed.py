"""Columns that source and spec call otherwise than the dataset: told apart from other changes."""

from __future__ import annotations

import shlex
from itertools import islice, permutations
from typing import TYPE_CHECKING

import orjson
import pyarrow.compute as pc

from batchata_tasks.dataset.declared import DeclaredSchema, Role
from batchata_tasks.dataset.renames import Renames
from batchata_tasks.planning.earlier_prompts import earlier_parts
from batchata_tasks.planning.fingerprint import OTHERS_FROM, other_parts
from batchata_tasks.spec.enrichment import EnrichmentSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.dataset.parts import Dataset
    from batchata_tasks.planning.summary import PlanSummary
    from batchata_tasks.planning.table import PreparedTable
    from batchata_tasks.spec.parts import Turn

_MOST = 24  # ways to pair old names with new ones


def note_renamed(table: PreparedTable, folder: DatasetFolder, summary: PlanSummary) -> None:
    """Write into a plan's summary which columns seem to have another name by now.

    They do if rows are to be sent for their prompt, which reads columns that are new, and rows were
    sent with this very prompt over columns that are gone. Call it before the dataset's record of
    its columns is written anew.
    """
    spec = table.spec
    if not summary.reasons.get("prompt") or not isinstance(spec, EnrichmentSpec):
        return
    declared = DeclaredSchema.read(folder) or DeclaredSchema()
    known = [column.name for column in declared.columns if column.role is not Role.ANSWER]
    source = table.source.names()
    gone = [name for name in known if name not in source]
    new = [name for name in table.builder.columns_used() if name not in known]
    if not new or len(gone) < len(new):
        return
    _, model, schema = table.builder.constant
    landed, renames = landed_parts(table.dataset), Renames.read(folder)
    for old in islice(permutations(gone, len(new)), _MOST):
        names = dict(zip(old, new, strict=True))
        earlier = earlier_prompt(spec.turns(), names, renames, landed)
        if earlier is not None and other_parts(earlier, model, schema) in landed:
            summary.renamed = names
            return


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


def as_option(names: Mapping[str, str]) -> str:
    """Return renamed columns as the command line of `batchata rename` has them."""
    plain = not any("=" in name for pair in names.items() for name in pair)
    words = [f"{old}={new}" for old, new in names.items()]
    if not plain:
        words = [orjson.dumps(dict(names)).decode()]
    return " ".join(f"--column {shlex.quote(word)}" for word in words)
