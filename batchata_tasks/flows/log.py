"""What stands in the log of a flow run: its story, without a line for each step that went well."""

from __future__ import annotations

import logging

from prefect.logging import get_logger

_FLOW = "enrich"
_WENT_WELL = ("Finished in state Completed(", "Finished in state Cached(")


def leave_out_finished_steps() -> None:
    """Leave what Prefect logs of each task that completed out of the logs of runs of `enrich`.

    Half of all lines said nothing else, and not of which task. The page of a run shows its tasks
    and their states, and what they did has lines of its own.
    """
    get_logger("prefect.task_runs").addFilter(_is_news)  # once, however often it is added


def _is_news(record: logging.LogRecord) -> bool:
    went_well = record.levelno == logging.INFO and str(record.msg).startswith(_WENT_WELL)
    return not went_well or getattr(record, "flow_name", None) != _FLOW
