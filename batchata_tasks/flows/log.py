"""What stands in the log of a flow run: its story, without a line for each step that went well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.logging import get_logger

if TYPE_CHECKING:
    import logging

_FLOW = "enrich"
# a task that completed; one of a run that was cancelled, which tells of that itself; and a flow run
# of which its worker says how it ended
_NO_NEWS = {
    "prefect.task_runs": (
        "Finished in state Completed(",
        "Finished in state Cached(",
        "Finished in state Cancelled(",
    ),
    "prefect.flow_runs": ("Finished in state Running(",),
}


def leave_out_what_is_no_news() -> None:
    """Leave out of the logs of runs of `enrich` what Prefect logs of each task that completed.

    Half of all lines said nothing else, and not of which task. The page of a run shows its tasks
    and their states, and what they did has lines of its own. A run that is cancelled is no more
    `Running`, whatever Prefect says last.
    """
    for name in _NO_NEWS:
        get_logger(name).addFilter(_is_news)  # once, however often it is added


def _is_news(record: logging.LogRecord) -> bool:
    is_ours = getattr(record, "flow_name", None) == _FLOW
    return not is_ours or not str(record.msg).startswith(_NO_NEWS[record.name])
