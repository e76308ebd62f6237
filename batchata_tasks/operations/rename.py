"""Renaming a column of a dataset: no row is sent again for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from batchata_tasks.common.errors import SpecError
from batchata_tasks.dataset.columns import OWN_NAMES
from batchata_tasks.dataset.declared import DeclaredSchema, Role
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS
from batchata_tasks.dataset.renames import Rename, Renames
from batchata_tasks.execution.renaming import rename_column
from batchata_tasks.operations.held_by_spec import held_by_spec
from batchata_tasks.planning.earlier_prompts import earlier_parts
from batchata_tasks.planning.fingerprint import PROMPT_DIGITS, prompt_part

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.dataset.parts import Dataset
    from batchata_tasks.operations.held_by_spec import HeldBySpec
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec

_RESERVED = (*OWN_NAMES, *SYSTEM_FIELDS.names)


@dataclass(frozen=True)
class Renamed:
    """A column that has another name now."""

    old: str
    new: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return it for people, as (label, value)."""
        text = f"{self.old!r} is {self.new!r} now; no row is sent again for that"
        return [("Renamed", text)]


def rename(
    spec: EnrichmentSpec, column: str, settings: Settings, progress: Progress | None = None
) -> Renamed:
    """Give a column of a spec's dataset the name that spec and source have for it by now.

    `column` is old=new.

    Raises:
        SpecError: the dataset has no such column or has the new name already, rows are on their
            way, or the spec is not one of the same rows and prompt under the new name.
        BatchataError: see `held_by_spec`.
    """
    old, equals, new = column.partition("=")
    if not (old and equals and new) or old == new:
        message = f"--column: {column!r} names no column and its new name; write it as old=new."
        raise SpecError(message)
    if new in _RESERVED:
        message = f"--column: {new!r} is the name of a metadata column; take another one."
        raise SpecError(message)
    with held_by_spec(spec, settings, progress, "renaming a column of", renames=True) as dataset:
        _require_free(dataset)
        roles = _roles(dataset)
        if _is_done(dataset, roles, old, new):
            return Renamed(old, new)
        role = _role(roles, old, new)
        _require_new_name_in_spec(dataset, role, old, new)
        prompts = _prompts(dataset, spec, old, new)
        dataset.held.ledger.check_lease(dataset.held.lease)  # right before files change
        rename_column(dataset.held, Rename(old, new, prompts))
        dataset.begin()  # a deletion that died is finished by the key's new name
    return Renamed(old, new)


def _require_free(dataset: HeldBySpec) -> None:
    """Refuse a dataset of which rows are on their way, under the old name."""
    dataset.require_no_unfinished_run("still has rows under the old name")
    if dataset.unfinished:
        message = (
            "rows of a batch that has not landed, or is held, have the old name; let `batchata run "
            "SPEC` land it first, or decide on it as `batchata reconcile` says."
        )
        raise SpecError(message)


def _roles(dataset: HeldBySpec) -> dict[str, Role]:
    """Return the columns that the dataset declares, with what they are."""
    declared = DeclaredSchema.read(dataset.held.folder) or DeclaredSchema()
    return {column.name: column.role for column in declared.columns}


def _is_done(dataset: HeldBySpec, roles: Container[str], old: str, new: str) -> bool:
    """Whether this very rename was the last one: it had died, or is given once more."""
    last = Renames.read(dataset.held.folder).all[-1:]
    is_last = any((rename.old, rename.new) == (old, new) for rename in last)
    return is_last and old not in roles and new in roles


def _role(roles: Mapping[str, Role], old: str, new: str) -> Role:
    """Return what the column is in the dataset; refuse one that cannot be renamed."""
    if old not in roles:
        names = [name for name, role in roles.items() if role is not Role.ANSWER]
        known = f"it knows: {', '.join(names)}" if names else "run the spec once under its old name"
        message = f"--column: the dataset knows no column {old!r} of the source; {known}."
        raise SpecError(message)
    if roles[old] is Role.ANSWER:
        message = (
            f"--column: {old!r} is a field of the answers, which are kept as the model wrote them; "
            "only columns of the source can be renamed."
        )
        raise SpecError(message)
    if new in roles:
        message = f"--column: the dataset has a column {new!r} already; take another name."
        raise SpecError(message)
    return roles[old]


def _require_new_name_in_spec(dataset: HeldBySpec, role: Role, old: str, new: str) -> None:
    table = dataset.ready.table
    named = {*table.spec.carried, *table.builder.columns_used()}
    if old in named:
        message = (
            f"--column: the spec still names {old!r}; write {new!r} in its key, columns and prompt "
            "first, and rename the column of the source."
        )
        raise SpecError(message)
    used = set(table.builder.columns_used())
    expected = {
        Role.KEY: ("key", set(table.spec.key)),
        Role.CARRIED: ("columns", set(table.spec.carried)),
        Role.USED: ("prompt", used),
    }
    if role in expected and new not in expected[role][1]:
        message = (
            f"--column: {old!r} is in the spec's `{expected[role][0]}` until now, and the spec "
            f"does not name {new!r} there; edit the spec first."
        )
        raise SpecError(message)


def _prompts(dataset: HeldBySpec, spec: EnrichmentSpec, old: str, new: str) -> dict[str, str]:
    """Return the part of today's prompt, and the one of its rows' fingerprints that it has."""
    table = dataset.ready.table
    landed = _landed_prompts(table.dataset)
    if new not in table.builder.columns_used() or not landed:
        return {}
    known, turns = Renames.read(dataset.held.folder), spec.turns()
    for earlier in map(known.original_prompt, earlier_parts(turns, old, new)):
        if earlier in landed:
            return {prompt_part([(turn.role, turn.content) for turn in turns]): earlier}
    message = (
        f"--column: with {old!r} in place of {new!r} the spec's prompt is not the one that rows "
        "were sent with, so that they would be sent again; change nothing but the name, rename, "
        "and make other changes after that."
    )
    raise SpecError(message)


def _landed_prompts(dataset: Dataset) -> set[str]:
    """Return the prompt's parts of all rows' fingerprints."""
    found = set[str]()
    for _, batch in dataset.rows(["_fingerprint"]):
        parts = pc.utf8_slice_codeunits(batch.column("_fingerprint"), *PROMPT_DIGITS)
        found.update(pc.unique(parts.drop_null()).to_pylist())
    return found
