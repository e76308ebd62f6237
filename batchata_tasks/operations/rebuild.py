"""Rebuilding a ledger that was lost, or is too old, from what the dataset's own folder holds.

Beside the rows lie the intents (what was about to be sent), the manifests, the specs, and the
commits (what was landed, and what it cost). A chunk with an intent and no commit is unclear: the
next run looks for its batch at the provider before it sends anything, as after any crash.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from batchata_tasks.common.errors import CredentialsError, SpecError, WrongLedgerError
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.forgotten import forgotten_of
from batchata_tasks.execution.intent_files import sent_without
from batchata_tasks.execution.renaming import tell_renames
from batchata_tasks.execution.reread import reread_parts
from batchata_tasks.execution.run_context import stored_spec
from batchata_tasks.execution.twice import recount
from batchata_tasks.ledger import (
    SET_ASIDE,
    UNFINISHED,
    ChunkKind,
    ChunkState,
    Restored,
    RunPhase,
    opened_ledger,
)
from batchata_tasks.planning.stored_specs import stored_records
from batchata_tasks.providers import block_of, names_of_account, open_adapter

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.ledger import Ledger
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.providers import Adapter
    from batchata_tasks.types.destination import Destination

_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_AMOUNTS = ("settled", "superseded", "overhead")


@dataclass(frozen=True)
class Rebuilt:
    """What was restored to a ledger."""

    dataset: str
    runs: int
    chunks: int
    open_chunks: int  # sent, and not landed as far as the folder shows
    held_chunks: int

    def lines(self) -> list[tuple[str, str]]:
        """Return it for people, as (label, value)."""
        counts = f"{pluralize(self.runs, 'run')}, {pluralize(self.chunks, 'batch')}"
        rows = [("Rebuilt", f"{self.dataset}: {counts}")]
        if self.open_chunks:
            batches = pluralize(self.open_chunks, "batch")
            rows.append(("Open", f"{batches}, which the next run looks for and lands"))
        if self.held_chunks:
            batches = pluralize(self.held_chunks, "batch")
            rows.append(("Held", f"{batches}: decide with `batchata reconcile`"))
        return rows


def rebuild(ready: PreparedRun, settings: Settings) -> Rebuilt:
    """Restore a dataset whose ledger is lost to the ledger in use, which owns it from then on.

    A ledger that is older than the dataset, since it came from a backup, is brought up to date.

    No run may be at work on the dataset under the old ledger, if that exists after all.

    Raises:
        SpecError: there is no dataset.
        WrongLedgerError: this ledger owns the dataset already, and knows all of it.
    """
    default = _Default(ready.record, ready.spec.destinations()[0], ready.adapters[0])
    return _rebuilt(DatasetFolder(ready.spec.output), default, settings)


def rebuild_in(folder: str, settings: Settings) -> Rebuilt:
    """Restore the dataset in a folder, whatever fills it, as `rebuild`; its runs' specs lie there.

    Raises:
        SpecError: there is no dataset, or no copy of a spec.
        CredentialsError: no key of a provider is set.
        WrongLedgerError: see `rebuild`.
    """
    dataset = DatasetFolder(folder)
    _require_dataset(dataset)
    if not (records := stored_records(dataset)):
        message = (
            f"output: {dataset.specs} has no copy of a spec, so that the folder does not tell what "
            "fills it; name the file of the spec instead."
        )
        raise SpecError(message)
    spec = stored_spec(json.loads(records[0]["spec"]))
    destinations = spec.destinations()
    with ExitStack() as opened:
        adapters = [
            opened.enter_context(closing(open_adapter(to.provider, to.endpoint, spec.block)))
            for to in destinations
        ]
        return _rebuilt(dataset, _Default(records[0], destinations[0], adapters[0]), settings)


def _rebuilt(folder: DatasetFolder, default: _Default, settings: Settings) -> Rebuilt:
    owner = _require_dataset(folder)
    with opened_ledger(settings.ledger_url) as ledger:
        if owner["ledger_id"] == ledger.id and not sent_without(folder, ledger):
            message = (
                f"output: the ledger in use owns the dataset in {folder.root} already: there is "
                "nothing to rebuild."
            )
            raise WrongLedgerError(message)
        dataset_id = ledger.dataset_id(folder.url, owner["dataset_id"])
        lease = ledger.acquire_lease(dataset_id, settings.lease_seconds)
        try:
            restored = _Reader(folder, ledger, dataset_id, default).read()
            ledger.restore(lease, restored)
            tell_renames(folder, ledger, lease)
            recount(ledger, lease, folder)
            folder.write_owner(dataset_id, ledger.id)  # last: if it fails, a retry begins anew
        finally:
            ledger.release_lease(lease)
    states = [chunk["state"] for chunk in restored.chunks]
    return Rebuilt(
        dataset=str(folder.root),
        runs=len(restored.runs),
        chunks=len(states),
        open_chunks=sum(state in UNFINISHED for state in states),
        held_chunks=sum(state in SET_ASIDE for state in states),
    )


def _require_dataset(folder: DatasetFolder) -> dict[str, Any]:
    """Return what a dataset says of its owner; refuse a folder without a dataset."""
    owner = folder.owner()
    if owner is None:
        message = (
            f"output: there is no dataset in {folder.root}, so there is nothing to rebuild a "
            "ledger from."
        )
        raise SpecError(message)
    return owner


def _known_cost(commit: dict[str, Any]) -> int | None:
    """Return what a commit settled; None if no price was known for its answers."""
    tallies = [as_dict(total) for total in as_dict(commit.get("tallies")).values()]
    is_known = not tallies or any(tally.get("cost") is not None for tally in tallies)
    return commit.get("settled_picodollars") if is_known else None


class _Default(NamedTuple):
    """What is taken for runs that left no copy of their spec, and for intents that were lost."""

    record: dict[str, Any]
    to: Destination
    adapter: Adapter


@dataclass
class _Reader:
    """Turns the intents and commits of a dataset's folder into rows of the ledger."""

    folder: DatasetFolder
    ledger: Ledger
    dataset_id: str
    default: _Default
    restored: Restored = field(default_factory=Restored)
    # by provider, block and old ledger: the account's names under that one, its name under this one
    accounts: dict[tuple[str, str | None, str], tuple[set[str], str] | None] = field(
        default_factory=dict[tuple[str, str | None, str], "tuple[set[str], str] | None"]
    )

    def read(self) -> Restored:
        tokens = {path.stem for path in self.folder.noted_files()}
        parts = Dataset(self.folder.data, pa.schema([]), [], []).holders()
        for token in sorted(tokens):
            commit = kept_json(self.folder.commit(token)) or {}
            noted = kept_json(self.folder.intent(token)) or {}
            # where the folder was lost meanwhile, a file holds only what was noted since
            intent = noted if "run_id" in noted else self._intent_from(commit)
            if not intent and not commit:
                continue
            self.restored.forgotten.update(forgotten_of(commit))
            self.restored.rereads.update(reread_parts(commit))
            # older commits do not tell a part that was emptied from one that was lost
            emptied = bool(commit.get("emptied", part_of_chunk(token) not in parts))
            self._add_chunk(token, intent, commit, emptied=emptied)
        open_runs = {
            chunk["run_id"] for chunk in self.restored.chunks if chunk["state"] in UNFINISHED
        }
        for run in self.restored.runs.values():
            run["state"] = RunPhase.OPEN if run["id"] in open_runs else RunPhase.CLOSED
        return self.restored

    def _intent_from(self, commit: dict[str, Any]) -> dict[str, Any]:
        """Return a lost intent as far as a commit shows it; empty if its rows were never sent."""
        if not commit.get("batch_id"):
            return {}
        adapter = self.default.adapter
        return {
            "run_id": commit["run_id"],
            "requests": commit["rows"],
            "fence": commit["fence"],
            "bound_picodollars": _known_cost(commit),
            "ledger_id": self.ledger.id,
            "provider": adapter.name,
            "account": adapter.account(self.ledger.id),
        }

    def _add_chunk(
        self, token: str, intent: dict[str, Any], commit: dict[str, Any], *, emptied: bool
    ) -> None:
        run_id = str(intent.get("run_id") or commit["run_id"])
        at = intent.get("sent_at_us") or commit.get("enriched_at_us") or 0
        self._add_run(run_id, at, rehearsal=intent.get("rehearsal"))
        batch_id = commit.get("batch_id") or intent.get("batch_id")
        state = self._state(intent, commit)
        landed = state == ChunkState.LANDED
        start, to = intent.get("start", 0), self.default.to
        rows = intent.get("requests") or commit.get("rows", 0)
        self.restored.chunks.append(
            {
                "id": token,
                "run_id": run_id,
                "dataset_id": self.dataset_id,
                "round": intent.get("round", 1),
                "kind": ChunkKind.BATCH if intent else ChunkKind.LOCAL,
                "provider": intent.get("provider", to.provider),
                "model": intent.get("model", to.model),
                "endpoint": intent.get("endpoint", to.endpoint),
                "start": start,
                "stop": start + rows,
                "bytes": intent.get("bytes", 0),
                "resends": intent.get("resends", 0),
                "bound": intent.get("bound_picodollars"),
                "expected": intent.get("expected_picodollars"),
                "state": state,
                "batch_id": batch_id,
                "updated_at": max(at, commit.get("enriched_at_us") or 0),
                "emptied": int(landed and emptied),
            }
        )
        settled = landed or state == ChunkState.ABANDONED
        self._add_reservation(token, run_id, intent, commit if settled else None, at)
        if landed:
            self._add_outcomes(token, run_id, commit)
        if intent:
            self._add_intent(token, intent, batch_id, at)

    def _state(self, intent: dict[str, Any], commit: dict[str, Any]) -> ChunkState:
        if commit.get("state") == "closed":
            return ChunkState.LANDED
        if commit.get("state") == "abandoned":
            return ChunkState.ABANDONED
        if intent.get("overdue"):
            return ChunkState.OVERDUE
        batch_id = commit.get("batch_id")
        # without the account's key nobody can look for the batch: a person decides
        unreachable = bool(intent) and not batch_id and self._account(intent) is None
        if intent.get("held") or unreachable:
            return ChunkState.HELD
        if batch_id:
            return ChunkState.SUBMITTED
        return ChunkState.UNCLEAR if intent else ChunkState.COLLECTED

    def _add_run(self, run_id: str, at: int, *, rehearsal: bool | None) -> None:
        # older runs wrote no copy of their spec
        record = kept_json(self.folder.spec_of(run_id)) or self.default.record
        if rehearsal is None:  # older versions did not tell
            rehearsal = record.get("rehearsal")
        row = {
            "id": run_id,
            "dataset_id": self.dataset_id,
            "name": record["name"],
            "spec": record["spec"],
            "spec_digest": "rebuilt",
            "result": "rebuilt",
            "rehearsal": None if rehearsal is None else int(rehearsal),
            "started_at": at,
            "finished_at": at,
        }
        run = self.restored.runs.setdefault(run_id, row)
        run["started_at"] = min(run["started_at"], at)
        run["finished_at"] = max(run["finished_at"], at)

    def _add_reservation(
        self,
        token: str,
        run_id: str,
        intent: dict[str, Any],
        commit: dict[str, Any] | None,
        at: int,
    ) -> None:
        """Add a chunk's money: settled if it has a closed `commit`, else in flight."""
        budget = as_dict(intent.get("budget"))
        amounts: dict[str, int | None] = dict.fromkeys(_AMOUNTS)
        if commit is not None:
            amounts = {name: commit.get(f"{name}_picodollars", 0) for name in _AMOUNTS}
        row = {
            "chunk_id": token,
            "run_id": run_id,
            "reserved": intent.get("bound_picodollars") or 0,
            "reserved_at": at,
            "settled_at": None if commit is None else at,
            "budget": budget.get("name"),
            "period": budget.get("period_us"),
        }
        self.restored.reservations.append(row | amounts)

    def _add_outcomes(self, token: str, run_id: str, commit: dict[str, Any]) -> None:
        rows = as_dict(commit.get("outcomes"))
        retried = as_dict(commit.get("retried"))
        totals = as_dict(commit.get("tallies"))  # older commits have none
        for outcome in rows.keys() | retried.keys():
            total = as_dict(totals.get(outcome))
            row = {
                "chunk_id": token,
                "outcome": outcome,
                "run_id": run_id,
                "rows": rows.get(outcome, 0),
                "retried": retried.get(outcome, 0),
                "cost": total.get("cost"),
                "list_cost": total.get("list_cost"),
            }
            self.restored.outcomes.append(row | {name: total.get(name, 0) for name in _TOKENS})

    def _add_intent(
        self, token: str, intent: dict[str, Any], batch_id: str | None, at: int
    ) -> None:
        account = self._account(intent) or intent["account"]
        self.restored.intents.append(
            {
                "chunk_id": token,
                "account": account,
                "requests": intent["requests"],
                "fence": intent["fence"],
                "sent_at": at,
                "input_file_id": intent.get("input_file_id"),
                "mark": intent.get("mark_us"),
                "scope": intent.get("scope"),
            }
        )
        if batch_id is not None:
            self.restored.batches.append(
                {
                    "batch_id": batch_id,
                    "chunk_id": token,
                    "provider": intent["provider"],
                    "account": account,
                    "status": "rebuilt",
                    "submitted_at": at,
                }
            )

    def _account(self, intent: dict[str, Any]) -> str | None:
        """Return the account's name under this ledger; None if its key is not set."""
        block = block_of(intent.get("scope"))
        names = self._account_names(intent["provider"], block, intent["ledger_id"])
        return names[1] if names is not None and intent["account"] in names[0] else None

    def _account_names(
        self, provider: str, block: str | None, ledger_id: str
    ) -> tuple[set[str], str] | None:
        """Return the names, under the old ledger and this one, of the account whose key is set."""
        place = provider, block, ledger_id
        if place not in self.accounts:
            try:
                with closing(open_adapter(provider, block=block)) as adapter:
                    names = names_of_account(adapter, ledger_id), adapter.account(self.ledger.id)
            except CredentialsError:
                names = None
            self.accounts[place] = names
        return self.accounts[place]
