"""What sentences tell people to do fits what fills the dataset: frames and jobs have no command."""

from __future__ import annotations

import pytest

from batchata_tasks.pipeline.ways import kept_by, renamed_by, retried_by
from batchata_tasks.spec.enrichment import EnrichmentSpec
from batchata_tasks.spec.jobs import JobsSpec
from batchata_tasks.types.destination import Destination

RUN = {"name": "x", "output": "out dir"}
ASKED = {"key": "id", "model": "claude-haiku-5-5", "prompt": "{{ body }}"}
TABLE = EnrichmentSpec.model_validate({**RUN, **ASKED, "source": "t.csv"})
FRAME = EnrichmentSpec.model_validate({**RUN, **ASKED, "source": {"frame": "pandas"}})
JOBS = JobsSpec(
    **RUN, jobs="j.parquet", count=1, to=[Destination("openai", "m", "chat")], uniform=True
)
KEEP = "`batchata_tasks.revalidate('out dir', response_model)`"


@pytest.mark.parametrize(
    ("spec", "keep", "retry"),
    [
        (TABLE, "`batchata revalidate SPEC`", "`batchata run SPEC --retry-failed`"),
        (FRAME, KEEP, "`enrich(…, retry_failed=True)`"),
        (JOBS, KEEP, "`Batch(retry_failed=True)`"),
    ],
)
def test_a_way_is_one_that_there_is(spec: EnrichmentSpec | JobsSpec, keep: str, retry: str) -> None:
    """Also of a spec as the ledger keeps it."""
    assert kept_by(spec) == keep
    assert retried_by(spec) == retried_by(spec.model_dump(mode="json")) == retry


def test_a_renamed_column_of_a_frame_has_no_command() -> None:
    """The frame itself is given its old name."""
    assert "`batchata rename SPEC --column text=body` keeps" in renamed_by(TABLE, {"text": "body"})
    said = renamed_by(FRAME, {"text": "body"})
    assert said.startswith("'text' seems to be 'body' now: under the old name, in frame and prompt")
    assert "batchata rename" not in said
