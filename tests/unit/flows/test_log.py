"""What the log of a flow run leaves out."""

from __future__ import annotations

import logging

import pytest

from batchata_tasks.flows.log import _is_news


@pytest.mark.parametrize(
    ("level", "message", "flow", "stays"),
    [
        (logging.INFO, "Finished in state Completed()", "enrich", False),
        (logging.INFO, "Finished in state Cached(type=COMPLETED)", "enrich", False),
        (logging.INFO, "Finished in state Completed()", "mine", True),
        (logging.ERROR, "Finished in state Failed('no')", "enrich", True),
        (logging.INFO, "batch 1 (4 rows): landed", "enrich", True),
    ],
    ids=["completed", "cached", "of somebody's own flow", "failed", "ours"],
)
def test_only_steps_that_went_well_are_left_out(
    level: int, message: str, flow: str, stays: bool
) -> None:
    """Failures stay, and so does all that other flows log in the same process."""
    record = logging.LogRecord("prefect.task_runs", level, "", 1, message, (), None)
    record.flow_name = flow
    assert _is_news(record) is stays
