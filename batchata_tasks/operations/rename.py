"""Renaming columns of a dataset: no row is sent again for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from batchata_tasks.common.errors import SpecError
from batchata_tasks.dataset.columns import OWN_NAMES
from batchata_tasks.dataset.declared import DeclaredSchema, Role
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS
from batchata_tasks.dataset.renames import Renames, in_order
from batchata_tasks.execution.renaming import rename_columns, renames_in_ledger
from batchata_tasks.operations.held_by_spec import held_by_spec
from batchata_tasks.planning.fingerprint import prompt_part
from batchata_tasks.planning.renamed import as_command, earlier_prompt, landed_parts, whole_rename
from batchata_tasks.planning.row_requests import RequestBuilder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.operations.held_by_spec import HeldBySpec
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec

_RESERVED = (*OWN_NAMES, *SYSTEM_FIELDS.names)


@dataclass(frozen=True)
class Renamed:
    """Columns that have other names now, by their old ones.

    `has_new_prompt`: no row was sent with the spec's prompt, under whatever names.
    """

    columns: dict[str, str]
    has_new_prompt: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"columns": self.columns, "has_new_prompt": self.has_new_prompt}

    def lines(self) -> list[tuple[str, str]]:
        """Return it for people, as (label, value)."""
        lines = [
            ("Renamed", f"{old!r} is {new!r} now; no row is sent again for that")
            for old, new in self.columns.items()
        ]
        if self.has_new_prompt:
            text = "no row was sent with it yet, so the next run sends all rows again for it"
            lines.append(("Prompt", text))
        return lines


def rename(
    spec: EnrichmentSpec,
    columns: Sequence[str],
    settings: Settings,
    progress: Progress | None = None,
) -> Renamed:
    """Give columns of a spec's dataset the names that spec and source have for them by now.

    Each of `columns` is old=new, or a JSON object of new names by old ones.

    Raises:
        SpecError: the dataset has no such column or has the new name already, rows are on their
            way, or the spec is not one of the same rows and prompt under the new names.
        BatchataError: see `held_by_spec`.
    """
    names = _new_names(columns)
    with held_by_spec(spec, settings, progress, "renaming columns of", renames=True) as dataset:
        _require_free(dataset, names)
        renaming = _Renaming(dataset, spec, names)
        if renaming.is_done():
            return Renamed(names, renaming.has_new_prompt())
        renaming.check()
        prompts = renaming.prompts()
        *first, last = in_order(names, renaming.roles)
        dataset.held.ledger.check_lease(dataset.held.lease)  # right before files change
        rename_columns(dataset.held, [*first, replace(last, prompts=prompts)])
        dataset.begin()  # a deletion that died is finished by the key's new name
    return Renamed(names, renaming.has_new_prompt())


def _new_names(columns: Sequence[str]) -> dict[str, str]:
    """Return the new names of columns by their old ones, as a command line has them."""
    names = dict[str, str]()
    for old, new in (pair for word in columns for pair in _pairs(word)):
        if old in names or new in names.values():
            name = old if old in names else new
            message = f"--column: {name!r} is given twice; a column has one old and one new name."
            raise SpecError(message)
        if new in _RESERVED:
            message = f"--column: {new!r} is the name of a metadata column; take another one."
            raise SpecError(message)
        names[old] = new
    return names


def _pairs(word: str) -> list[tuple[str, str]]:
    """Return (old name, new name) of the columns that one word of a command line names."""
    pairs = _pairs_of_json(word) if word.lstrip().startswith("{") else None
    if pairs is None:
        old, _, new = word.partition("=")
        pairs = [] if "=" in new else [(old, new)]
    if not pairs or any(not old or not new or old == new for old, new in pairs):
        message = (
            f"--column: {word!r} names no column and its new name; write it as old=new, or, if a "
            'name has a `=` in it, as a JSON object: {"old": "new"}.'
        )
        raise SpecError(message)
    return pairs


def _pairs_of_json(word: str) -> list[tuple[str, str]] | None:
    try:
        names = json.loads(word)
    except ValueError:
        return None  # a name may begin like an object
    if not isinstance(names, dict):
        return None
    pairs = cast("dict[str, object]", names).items()
    return [(old, new if isinstance(new, str) else "") for old, new in pairs]


def _require_free(dataset: HeldBySpec, names: Mapping[str, str]) -> None:
    """Refuse a dataset of which rows are on their way, under the old names."""
    # under the new names it would find no row of its prompt, and send all again
    fetched_by = "`batchata run` of the spec as it was, with the old names,"
    if _is_noted(dataset, names):
        fetched_by = "`batchata run SPEC`, with the new names, since the ledger knows them already,"
    dataset.require_no_unfinished_run("still has rows under the old name", fetched_by=fetched_by)
    if dataset.unfinished:
        message = (
            "rows of a batch that has not landed, or is held, have the old name; let `batchata run "
            "SPEC` land it first, or decide on it as `batchata reconcile` says."
        )
        raise SpecError(message)


def _is_noted(dataset: HeldBySpec, names: Mapping[str, str]) -> bool:
    """Whether the ledger's last renames are these: a command died after it had noted them."""
    held = dataset.held
    known = renames_in_ledger(held.ledger, held.lease.dataset_id)
    before = len(known) - len(in_order(names, ()))
    return before >= 0 and known.today(names, before) == list(names.values())


class _Renaming:
    """What is to be renamed, beside what dataset and spec call their columns.

    `roles` are the columns that the dataset declares, with what they are.
    """

    def __init__(self, dataset: HeldBySpec, spec: EnrichmentSpec, names: dict[str, str]) -> None:
        self._folder, self._table = dataset.held.folder, dataset.ready.table
        self._spec, self._names = spec, names
        self._known = Renames.read(self._folder)
        declared = DeclaredSchema.read(self._folder) or DeclaredSchema()
        self.roles = {column.name: column.role for column in declared.columns}
        self._key = [name for name, role in self.roles.items() if role is Role.KEY]
        self._used = self._table.builder.columns_used()
        self._prompt = prompt_part((turn.role, turn.content) for turn in spec.turns())
        self._landed = landed_parts(self._table.dataset)

    def is_done(self) -> bool:
        """Whether this was done last: the command had died, or is given once more.

        Columns that exchanged their names have them all either way: what the spec does with each,
        and its prompt, tell whether it is of today.
        """
        steps = in_order(self._names, self.roles)
        last = self._known.all[-len(steps) :]
        old, new = set(self._names), set(self._names.values())
        same = [(one.old, one.new) for one in last] == [(one.old, one.new) for one in steps]
        if not same or not new <= self.roles.keys():
            return False
        if old.isdisjoint(new):
            return old.isdisjoint(self.roles)
        carried = {name for name, role in self.roles.items() if role in (Role.KEY, Role.CARRIED)}
        as_spec = self._key == self._spec.key and carried == set(self._spec.carried)
        return as_spec and (not last[-1].prompts or self._prompt in last[-1].prompts)

    def check(self) -> None:
        """Refuse what cannot be renamed, or what the spec calls otherwise."""
        for old, new in self._names.items():
            role = self._role(old, new)
            self._require_free_name(role, new)
            self._require_in_spec(role, old, new)
        key = [self._names.get(name, name) for name in self._key]
        is_reordered = key != self._spec.key and sorted(key) == sorted(self._spec.key)
        if is_reordered and not self._names.keys().isdisjoint(self._key):
            message = (
                f"--column: the columns of a key keep their order; write `key: [{', '.join(key)}]` "
                "into the spec."
            )
            raise SpecError(message)

    def _role(self, old: str, new: str) -> Role:
        """Return what a column is in the dataset; refuse one that cannot be renamed."""
        role = self.roles.get(old)
        if role is Role.ANSWER:
            message = (
                f"--column: {old!r} is a field of the answers, which are kept as the model wrote "
                "them; only columns of the source can be renamed."
            )
            raise SpecError(message)
        if role is not None:
            return role
        if self._landed and new in self._used and not self._has_values(new):
            return Role.USED  # a run that sent nothing noted the new name; the prompt will prove it
        builder = self._table.builder
        if isinstance(builder, RequestBuilder) and new in builder.columns_of_where():
            message = (
                f"--column: {new!r} is used by `where` alone, of which the dataset keeps nothing: "
                "there is nothing to rename, and no row is sent again for it."
            )
            raise SpecError(message)
        names = [name for name, role in self.roles.items() if role is not Role.ANSWER]
        known = f"it knows: {', '.join(names)}" if names else "run the spec once under its old name"
        message = f"--column: the dataset knows no column {old!r} of the source; {known}."
        raise SpecError(message)

    def _require_free_name(self, role: Role, new: str) -> None:
        """Refuse a new name that another column of the dataset has, and keeps.

        It is free if a run was planned under it, and sent nothing: no row has a value there.
        """
        if new in self._names or new not in self.roles:
            return
        was_left = role in (Role.RETIRED, Role.USED)
        is_noted = self.roles[new] in (Role.CARRIED, Role.USED) and not self._has_values(new)
        if not (was_left and is_noted):
            message = f"--column: the dataset has a column {new!r} already; take another name."
            raise SpecError(message)

    def _has_values(self, name: str) -> bool:
        batches = (batch for _, batch in self._table.dataset.rows([name]))
        return any(
            name in batch.schema.names and batch.column(name).null_count < batch.num_rows
            for batch in batches
        )

    def _require_in_spec(self, role: Role, old: str, new: str) -> None:
        if old in {*self._spec.carried, *self._used} and old not in self._names.values():
            message = (
                f"--column: the spec still names {old!r}; write {new!r} in its key, columns and "
                "prompt first, and rename the column of the source."
            )
            raise SpecError(message)
        expected = {
            Role.KEY: ("key", self._spec.key),
            Role.CARRIED: ("columns", self._spec.carried),
            Role.USED: ("prompt", self._used),
        }
        if role in expected and new not in expected[role][1]:
            message = (
                f"--column: {old!r} is in the spec's `{expected[role][0]}` until now, and the spec "
                f"does not name {new!r} there; edit the spec first."
            )
            raise SpecError(message)

    def prompts(self) -> dict[str, str]:
        """Return the part of today's prompt, and the one of its rows' fingerprints that it has."""
        names = {old: new for old, new in self._names.items() if new in self._used}
        if not self._landed or (not names and self._is_landed()):
            return {}
        if names:
            earlier = earlier_prompt(self._spec.turns(), names, self._known, self._landed)
            if earlier is not None:
                return {self._prompt: earlier}
        self._require_whole()
        if not names:
            return {}
        under = ", ".join(f"{old!r} in place of {new!r}" for old, new in names.items())
        message = (
            f"--column: with {under} the spec's prompt is not the one that rows were sent with, so "
            "that they would be sent again; change nothing but names, rename all of these columns "
            "by one command, and make other changes after that."
        )
        raise SpecError(message)

    def _require_whole(self) -> None:
        """Refuse columns without those that were renamed with them, if the prompt proves these."""
        known = [name for name, role in self.roles.items() if role is not Role.ANSWER]
        whole = whole_rename(self._table, self._names, known, self._known, self._landed)
        if whole is None:
            return
        others = [f"{old!r} is {new!r} now" for old, new in whole.items() if old not in self._names]
        message = (
            f"--column: in the spec's prompt {', '.join(others)}, too, and without that all rows "
            f"would be sent again; rename them together: {as_command(whole)}."
        )
        raise SpecError(message)

    def has_new_prompt(self) -> bool:
        """Whether runs send all rows again for the prompt, which none was sent with."""
        is_renamed = any(name in self._used for name in self._names.values())
        is_known = not self._landed or is_renamed or self._is_landed()
        return "prompt" in self._spec.rerun_on and not is_known

    def _is_landed(self) -> bool:
        """Whether rows were sent with the spec's prompt, whatever its columns were called then."""
        part = self._known.original_prompt(self._prompt)
        return any(parts.partition(".")[0] == part for parts in self._landed)
