"""Shows on Prefect's server how a run stands: a bar, and a page with its money and its batches.

Both are artifacts, made once for a flow run and brought up to date, so that the history of their
keys has one entry for each. A thread of its own does that: a server that is slow, or does not
answer, neither fails a run nor holds it up.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.client.schemas.sorting import ArtifactSort
from prefect.runtime import flow_run

from batchata_tasks.common.errors import LedgerError
from batchata_tasks.common.text import pluralize
from batchata_tasks.flows.artifacts import leave, markdown, slug, table
from batchata_tasks.progress.layout import OPEN, facts, state_of

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from prefect.client.orchestration import SyncPrefectClient

    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.progress.snapshot import Snapshot

_EVERY = 5.0  # seconds between two looks at a run; what is as it was is not sent again
_SLOWEST = 300.0  # seconds, once the server does not answer
_TIMEOUT = 10.0  # seconds for a request
_LAST = 5.0  # seconds for which the end of a run waits until its last state is shown
_BATCHES = 50  # of a page
_HEADS = ("Batch", "Requests", "Done", "State", "Sent (UTC)", "Model", "Batch id")


class _Shown(NamedTuple):
    """What an artifact shows."""

    kind: str
    data: str | float
    description: str


class ProgressArtifacts:
    """The artifacts that show how the run of one flow run stands; `name` is that of its spec."""

    def __init__(self, flow_run_id: UUID, name: str) -> None:
        self._flow_run_id, self._name = flow_run_id, name
        self._ids: dict[str, UUID] | None = None  # by key; None: the server is to be asked
        self._last: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Show a state of the run, if there is anything new; nothing before it is planned.

        Raises:
            HTTPError: the server does not answer, or not as it should.
        """
        if not snapshot.total or snapshot == self._last:
            return
        shown = {
            slug(f"progress-{self._name}"): _bar(snapshot),
            slug(f"status-{self._name}"): _Shown(
                "markdown",
                page(self._name, snapshot),
                f"How the run stood at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC.",
            ),
        }
        try:
            with get_client(sync_client=True, httpx_settings={"timeout": _TIMEOUT}) as client:
                self._write(client, shown)
        except HTTPError:
            self._ids = None  # one may be there although the answer was lost, or be deleted
            raise
        self._last = snapshot

    def _write(self, client: SyncPrefectClient, shown: Mapping[str, _Shown]) -> None:
        if self._ids is None:
            self._ids = self._found(client, shown)
        for key, one in shown.items():
            if key in self._ids:
                update = ArtifactUpdate(data=one.data, description=one.description)
                client.update_artifact(self._ids[key], update)
                continue
            self._ids[key] = leave(client, self._flow_run_id, key=key, **one._asdict())

    def _found(self, client: SyncPrefectClient, keys: Mapping[str, _Shown]) -> dict[str, UUID]:
        """Return the artifacts that an earlier process of the flow run made."""
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(
                key=ArtifactFilterKey(any_=list(keys)),
                flow_run_id=ArtifactFilterFlowRunId(any_=[self._flow_run_id]),
            ),
            sort=ArtifactSort.CREATED_DESC,
        )
        return {one.key: one.id for one in reversed(found) if one.key is not None}


@contextmanager
def shown_progress(progress: Progress, name: str) -> Generator[None, None, None]:
    """Show on the server how the run of this flow run stands while the block lasts."""
    artifacts, ended = ProgressArtifacts(UUID(str(flow_run.id)), name), threading.Event()
    # with this thread's context variables, which tell what is configured
    work = threading.Thread(
        target=copy_context().run,
        args=(_keep_showing, artifacts, progress, ended),
        name="progress",
        daemon=True,  # it may wait for an answer that never comes when the program ends
    )
    work.start()
    try:
        yield
    finally:
        ended.set()
        work.join(_LAST)


def _keep_showing(artifacts: ProgressArtifacts, progress: Progress, ended: threading.Event) -> None:
    pause = _EVERY
    while not ended.wait(pause):
        try:
            artifacts.show(progress.look())
            pause = _EVERY
        except LedgerError:  # a busy database
            continue
        except HTTPError:
            pause = min(pause * 2, _SLOWEST)
    with suppress(LedgerError, HTTPError):
        artifacts.show(progress.look())


def done_share(snapshot: Snapshot) -> float:
    """Return the share of a run's rows that are done; those that have another attempt are not."""
    again = sum(one.jobs for one in snapshot.batches if one.round > 1 and one.state in OPEN)
    return max(snapshot.landed - again, 0) / max(snapshot.total, 1)


def _bar(snapshot: Snapshot) -> _Shown:
    of = pluralize(snapshot.total, "row")
    # rounded down: it is full only at the end
    percent = min(int(done_share(snapshot) * 1000) / 10, 100.0)
    told = f"{snapshot.landed:,} of {of} landed"
    if snapshot.failed:
        counts = (f"{count:,} {outcome}" for outcome, count in snapshot.outcomes.items())
        told = f"{told}: {', '.join(counts)}"
    return _Shown("progress", percent, told)


def page(name: str, snapshot: Snapshot) -> str:
    """Return how a run stands as Markdown; open batches come first, and not all are listed."""
    batches = list(snapshot.batch_data().values())
    ranked = sorted(
        batches,
        key=lambda one: (
            one["state"] not in ("held", "overdue"),
            one["state"] not in OPEN,
            one["number"] or len(batches),
        ),
    )
    lines = [markdown(name, facts(snapshot.stats(), batches)), "\n"]
    lines.append(table(_HEADS, map(_row, ranked[:_BATCHES])))
    if len(ranked) > _BATCHES:
        more = pluralize(len(ranked) - _BATCHES, "more batch", "more batches")
        lines.append(f"\nand {more}\n")
    return "".join(lines)


def _row(batch: Mapping[str, Any]) -> tuple[str, ...]:
    sent = batch["sent_at"]
    return (
        "" if batch["number"] is None else f"{batch['number']:,}",
        f"{batch['jobs']:,}",
        "" if batch["done"] is None else f"{batch['done']:,}",
        state_of(batch),
        "" if sent is None else f"{datetime.fromtimestamp(sent, UTC):%Y-%m-%d %H:%M:%S}",
        batch["model"],
        batch["batch_id"] or "",
    )
