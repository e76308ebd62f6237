"""Rebuilding a ledger that was lost, from what the dataset's own folder knows.

Beside the rows lie the intents (what was about to be sent), the manifests, the specs and the commits
(what was landed, and what it cost). What has an intent and no commit is of unknown fate: the next run
looks for it at the provider before anything is sent, as after any crash.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import CredentialsError, SpecError, WrongLedgerError
from batchata_tasks.common.files import read_json
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.ledger import UNFINISHED, ChunkState, Ledger, Restored
from batchata_tasks.providers import provider_type
from batchata_tasks.spec.jobs import JobsSpec

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.planning.prepare import PreparedRun


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuilt ledger knows again."""

    dataset: str
    runs: int
    chunks: int
    open_chunks: int  # sent, and not landed as far as the folder knows
    held_chunks: int

    def lines(self) -> list[tuple[str, str]]:
        """Return it for people, as (what, value)."""
        rows = [
            (
                "Rebuilt",
                f"{self.dataset}: {pluralize(self.runs, 'run')}, {pluralize(self.chunks, 'batch')}",
            )
        ]
        if self.open_chunks:
            rows.append(
                (
                    "Open",
                    f"{pluralize(self.open_chunks, 'batch')}, which the next run looks for at the provider and lands",
                )
            )
        if self.held_chunks:
            rows.append(
                (
                    "Held",
                    f"{pluralize(self.held_chunks, 'batch')}: decide with `batchata reconcile`",
                )
            )
        return rows


def rebuild(ready: PreparedRun, settings: Settings) -> Rebuilt:
    """Make the ledger in use know a dataset whose own ledger is lost; the dataset is this ledger's from then on.

    No run may be at work on the dataset under the old ledger, if that exists after all.

    Raises:
        SpecError: there is no dataset.
        WrongLedgerError: this ledger owns the dataset already.
    """
    folder = DatasetFolder(ready.spec.output)
    owner = folder.owner()
    if owner is None:
        message = f"output: there is no dataset in {folder.root}, so there is nothing to rebuild a ledger from."
        raise SpecError(message)
    ledger = Ledger(settings.ledger_url)
    try:
        if owner["ledger_id"] == ledger.id:
            message = f"output: the ledger in use owns the dataset in {folder.root} already: there is nothing to rebuild."
            raise WrongLedgerError(message)
        dataset_id = ledger.dataset_id(folder.url, owner["dataset_id"])
        lease = ledger.acquire_lease(dataset_id, settings.lease_seconds)
        try:
            found = _Reader(folder, ledger, dataset_id, ready).read()
            ledger.restore(lease, found)
            folder.write_owner(dataset_id, ledger.id)  # last: until then the next try begins anew
        finally:
            ledger.release_lease(lease)
    finally:
        ledger.close()
    states = [chunk["state"] for chunk in found.chunks]
    return Rebuilt(
        str(folder.root),
        len(found.runs),
        len(states),
        sum(s in UNFINISHED for s in states),
        states.count(ChunkState.HELD),
    )


def spec_of_jobs(root: Path) -> JobsSpec:
    """Return the spec of the newest run of a Batch, from the folder of its results alone.

    Raises:
        SpecError: no Batch ran there.
    """
    folder = DatasetFolder(str(root))
    for path in sorted(
        folder.specs.glob("*.json"), key=lambda one: one.stat().st_mtime, reverse=True
    ):
        kept = json.loads(as_dict(read_json(path)).get("spec", "{}")).get("spec", {})
        if kept.get("kind") == "jobs":
            return JobsSpec.model_validate(
                {
                    **kept,
                    "jobs": str(folder.jobs / Path(kept["jobs"]).name),
                    "output": str(folder.root),
                }
            )
    message = f"{root}: no Batch ran with this folder as its results_dir; of a table's dataset name the spec."
    raise SpecError(message)


@dataclass
class _Reader:
    """Reads intents and commits into rows of the ledger."""

    folder: DatasetFolder
    ledger: Ledger
    dataset_id: str
    ready: PreparedRun
    found: Restored = field(default_factory=Restored)
    accounts: dict[tuple[str, str], tuple[str, str] | None] = field(
        default_factory=dict[tuple[str, str], "tuple[str, str] | None"]
    )

    def read(self) -> Restored:
        tokens = {
            path.stem
            for folder in (self.folder.intents, self.folder.commits)
            for path in folder.glob("*.json")
        }
        parts = {path.name.split(".")[0] for path in self.folder.data.glob("*.parquet")}
        for token in sorted(tokens):
            intent = read_json(self.folder.intent(token))
            commit = read_json(self.folder.commit(token))
            gone = f"part-{token}" not in parts
            # older commits do not tell a part that was emptied from one that was lost
            self._chunk(
                token,
                intent or self._told_by(commit or {}),
                commit or {},
                emptied=bool((commit or {}).get("emptied", gone)),
            )
        open_runs = {chunk["run_id"] for chunk in self.found.chunks if chunk["state"] in UNFINISHED}
        for run in self.found.runs.values():
            run["state"] = "open" if run["id"] in open_runs else "closed"
        return self.found

    def _told_by(self, commit: dict[str, Any]) -> dict[str, Any]:
        """Return what a commit tells of an intent that is lost; nothing where its rows were never sent."""
        if not commit.get("batch_id"):
            return {}
        told = {
            "run_id": commit["run_id"],
            "requests": commit["rows"],
            "fence": commit["fence"],
            "ledger_id": self.ledger.id,
        }
        provider = self.ready.table.builder.routes[0].provider
        return told | {"provider": provider.name, "account": provider.account(self.ledger.id)}

    def _chunk(
        self, token: str, intent: dict[str, Any], commit: dict[str, Any], *, emptied: bool
    ) -> None:
        run_id = str(intent.get("run_id") or commit["run_id"])
        at = intent.get("sent_at_us") or commit.get("enriched_at_us") or 0
        self._run(run_id, at)
        closed, batch_id = commit.get("state") == "closed", commit.get("batch_id")
        # an account whose key is not at hand can be asked by nobody: a person decides
        unknown = bool(intent) and not batch_id and self._account(intent) is None
        if closed:
            state = ChunkState.LANDED
        elif intent.get("held") or unknown:
            state = ChunkState.HELD
        elif batch_id:
            state = ChunkState.SUBMITTED
        else:
            state = ChunkState.UNCLEAR if intent else ChunkState.COLLECTED
        to, bound = self.ready.spec.destinations()[0], intent.get("bound_picodollars")
        start, rows = intent.get("start", 0), intent.get("requests") or commit.get("rows", 0)
        self.found.chunks.append(
            {
                "id": token,
                "run_id": run_id,
                "dataset_id": self.dataset_id,
                "round": intent.get("round", 1),
                "kind": "batch" if intent else "local",
                "provider": intent.get("provider", to.provider),
                "model": intent.get("model", to.model),
                "endpoint": intent.get("endpoint", to.endpoint),
                "start": start,
                "stop": start + rows,
                "bytes": intent.get("bytes", 0),
                "bound": bound,
                "state": state,
                "batch_id": batch_id,
                "updated_at": at,
                "emptied": int(closed and emptied),
            }
        )
        reserved = {"chunk_id": token, "run_id": run_id, "reserved": bound or 0, "reserved_at": at}
        budget = as_dict(intent.get("budget"))
        reserved |= {"budget": budget.get("name"), "period": budget.get("period_us")}
        if closed:
            settled = {
                name: commit.get(f"{name}_picodollars", 0)
                for name in ("settled", "superseded", "overhead")
            }
            self._outcomes(token, run_id, commit)
        else:
            settled = dict.fromkeys(("settled", "superseded", "overhead"))
        self.found.reservations.append(reserved | settled | {"settled_at": at if closed else None})
        if intent:
            self._intent(token, intent, batch_id, at)

    def _run(self, run_id: str, at: int) -> None:
        record = (
            read_json(self.folder.specs / f"{run_id}.json") or self.ready.record
        )  # older runs kept no copy
        run = self.found.runs.setdefault(
            run_id,
            {
                "id": run_id,
                "dataset_id": self.dataset_id,
                "name": record["name"],
                "spec": record["spec"],
                "spec_digest": "rebuilt",
                "result": "rebuilt",
                "error": None,
                "started_at": at,
                "finished_at": at,
            },
        )
        run["started_at"], run["finished_at"] = (
            min(run["started_at"], at),
            max(run["finished_at"], at),
        )

    def _outcomes(self, token: str, run_id: str, commit: dict[str, Any]) -> None:
        outcomes, retried, tallies = (
            as_dict(commit.get(name)) for name in ("outcomes", "retried", "tallies")
        )
        for outcome in outcomes.keys() | retried.keys():
            tally = as_dict(tallies.get(outcome))  # older commits have none
            counts = {
                name: tally.get(name, 0)
                for name in (
                    "input_tokens",
                    "output_tokens",
                    "cache_read_tokens",
                    "cache_write_tokens",
                )
            }
            row = {
                "chunk_id": token,
                "outcome": outcome,
                "run_id": run_id,
                "cost": tally.get("cost"),
                "list_cost": tally.get("list_cost"),
            }
            self.found.outcomes.append(
                row
                | counts
                | {"rows": outcomes.get(outcome, 0), "retried": retried.get(outcome, 0)}
            )

    def _intent(self, token: str, intent: dict[str, Any], batch_id: str | None, at: int) -> None:
        account = self._account(intent) or intent["account"]
        self.found.intents.append(
            {
                "chunk_id": token,
                "account": account,
                "requests": intent["requests"],
                "fence": intent["fence"],
                "sent_at": at,
                "input_file_id": intent.get("input_file_id"),
                "mark": intent.get("mark_us"),
            }
        )
        if batch_id is not None:
            batch = {
                "batch_id": batch_id,
                "chunk_id": token,
                "provider": intent["provider"],
                "account": account,
            }
            self.found.batches.append(batch | {"status": "rebuilt", "submitted_at": at})

    def _account(self, intent: dict[str, Any]) -> str | None:
        """Return the account's name under this ledger; None where its key is not at hand."""
        names = self._names(intent["provider"], intent["ledger_id"])
        return names[1] if names is not None and names[0] == intent["account"] else None

    def _names(self, provider: str, ledger_id: str) -> tuple[str, str] | None:
        """Return what the account of the key at hand is called under the old ledger and under this one."""
        if (provider, ledger_id) not in self.accounts:
            try:
                adapter = provider_type(provider)()
                self.accounts[provider, ledger_id] = (
                    adapter.account(ledger_id),
                    adapter.account(self.ledger.id),
                )
            except CredentialsError:
                self.accounts[provider, ledger_id] = None
        return self.accounts[provider, ledger_id]
