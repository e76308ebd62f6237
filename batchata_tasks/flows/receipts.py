"""What the end of a run leaves on Prefect's server: its receipt, the rows that failed, its events.

A flow run leaves that of its own run. `watch` leaves it of runs that it ends, or lands, itself.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.sorting import LogSort
from prefect.runtime import flow_run

from batchata_tasks.common.text import pluralize, printable
from batchata_tasks.flows.artifacts import leave, left_if_possible, markdown, slug
from batchata_tasks.flows.events import send_events
from batchata_tasks.flows.failed_rows import failed_data, failed_key, leave_failed_rows

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

    from batchata_tasks.pipeline.receipt import Receipt

_NEWEST = 20  # lines of a log among which one is looked for that may be there already


def leave_own(receipt: Receipt, key: list[str], spec: str | None) -> None:
    """Leave the receipt of this flow run's own run, and send its events.

    `key` are the columns of the dataset's key; `spec` is the path of its spec, if that is known.
    """
    get_run_logger().info(_in_a_line(receipt))
    flow_run_id = UUID(str(flow_run.id))
    with get_client(sync_client=True) as client:
        with left_if_possible("the receipt"):
            _leave_receipt(client, flow_run_id, receipt, spec)
        with left_if_possible("the table of failed rows"):
            leave_failed_rows(client, flow_run_id, receipt, key, spec)
    send_events(receipt)


def leave_anothers(
    client: SyncPrefectClient, run: FlowRun, receipt: Receipt, key: list[str]
) -> None:
    """Leave the receipt of a run that another flow run began, on the page of that one.

    What is there already is not left twice, and the line in the log comes last. What an earlier run
    left there, if a person started the flow run again since, is another receipt.

    Raises:
        StorageError: the dataset cannot be read.
        HTTPError: the server does not take it.
    """
    wanted = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]),
        key=ArtifactFilterKey(any_=[_key(receipt), failed_key(receipt)]),
    )
    there = [one.data for one in client.read_artifacts(artifact_filter=wanted)]
    if _page(receipt, None) not in there:
        _leave_receipt(client, run.id, receipt, None)
    if failed_data(receipt, key, None) not in there:
        leave_failed_rows(client, run.id, receipt, key, None)
    newest = client.read_logs(
        LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])),
        _NEWEST,
        sort=LogSort.TIMESTAMP_DESC,
    )
    if (line := _in_a_line(receipt)) not in [one.message for one in newest]:
        log_anothers(client, run, line)


def log_anothers(client: SyncPrefectClient, run: FlowRun, text: str) -> None:
    """Write a line into the log of another flow run.

    Raises:
        HTTPError: the server does not take it.
    """
    line = {
        "name": "prefect.flow_runs",
        "level": logging.INFO,
        "message": text,
        "timestamp": datetime.now(UTC).isoformat(),
        "flow_run_id": str(run.id),
    }
    client.create_logs([line])


def _leave_receipt(
    client: SyncPrefectClient, flow_run_id: UUID, receipt: Receipt, spec: str | None
) -> None:
    leave(
        client,
        flow_run_id,
        key=_key(receipt),
        kind="markdown",
        data=_page(receipt, spec),
        description="What the run did and cost.",
    )


def _page(receipt: Receipt, spec: str | None) -> str:
    return markdown(receipt.name, receipt.lines(), spec)


def _key(receipt: Receipt) -> str:
    return slug(f"receipt-{receipt.name}")


def _in_a_line(receipt: Receipt) -> str:
    text = f"{receipt.result_in_words}: {summary(receipt)}; cost: {receipt.cost_in_words}"
    return f"receipt: {printable(text)} (see the artifact {_key(receipt)})"


def summary(receipt: Receipt) -> str:
    """Return in a line how a run ended, what it did not send, and the limit that it met."""
    text = ", ".join(f"{count:,} {name}" for name, count in receipt.outcomes.items())
    if receipt.unsent_rows:
        unsent = f"{pluralize(receipt.unsent_rows, 'row')} not sent"
        text += f"{text and '; '}{unsent}{receipt.limit_in_words}"
    if not text and receipt.held_rows:
        text = f"{pluralize(receipt.held_rows, 'row')} held"
    if receipt.accepted_twice:
        text += f"{text and '; '}the provider accepted a batch twice"
    text = text or "nothing to send"
    if exhausted := receipt.plan["exhausted"]:
        again = pluralize(exhausted, "row is", "rows are")
        text += f"; {again} not sent again, having failed for good or used up all attempts"
    return f"{text}; an unfinished run was carried on" if receipt.continued else text
