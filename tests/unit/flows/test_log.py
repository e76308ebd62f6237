"""What the log of a flow run leaves out."""

from __future__ import annotations

import logging

import pytest

from batchata_tasks.flows.log import _is_news


@pytest.mark.parametrize(
    ("whose", "message", "flow", "stays"),
    [
        ("task", "Finished in state Completed()", "enrich", False),
        ("task", "Finished in state Cached(type=COMPLETED)", "enrich", False),
        ("task", "Finished in state Cancelled('The run was cancelled')", "enrich", False),
        ("task", "Finished in state Completed()", "mine", True),
        ("task", "Finished in state Failed('no')", "enrich", True),
        ("task", "batch 1 (4 rows): landed", "enrich", True),
        ("flow", "Finished in state Running()", "enrich", False),
        ("flow", "Finished in state Running()", "mine", True),
        ("flow", "Finished in state Completed('4 succeeded')", "enrich", True),
    ],
)
def test_only_what_is_no_news_is_left_out(
    whose: str, message: str, flow: str, *, stays: bool
) -> None:
    """Failures and ends of runs stay, and so does all that other flows log in the same process."""
    record = logging.LogRecord(f"prefect.{whose}_runs", logging.INFO, "", 1, message, (), None)
    record.flow_name = flow
    assert _is_news(record) is stays
