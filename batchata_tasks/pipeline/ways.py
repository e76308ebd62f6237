"""What people do by hand about a run: for a spec by a command, for a Batch or a frame in Python."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.json import as_dict
from batchata_tasks.common.text import pluralize
from batchata_tasks.planning.renamed import as_command
from batchata_tasks.planning.summary import CHANGES

if TYPE_CHECKING:
    from batchata_tasks.planning.summary import PlanSummary
    from batchata_tasks.spec.run import RunSpec


class _Filler(Enum):
    """What fills a dataset."""

    TABLE = "the spec of a table"
    FRAME = "calls of `enrich`"
    JOBS = "a Batch"


def _filler(spec: RunSpec | Mapping[str, Any]) -> _Filler:
    """Return what fills a dataset, given its spec, or that as the ledger keeps it."""
    stored = spec if isinstance(spec, Mapping) else spec.model_dump(include={"kind", "source"})
    if stored.get("kind") == "jobs":
        return _Filler.JOBS
    return _Filler.FRAME if "frame" in as_dict(stored.get("source")) else _Filler.TABLE


def kept_by(spec: RunSpec) -> str:
    """Return what keeps the answers of a spec's dataset that today's response model takes."""
    if _filler(spec) is _Filler.TABLE:
        return "`batchata revalidate SPEC`"
    return f"`batchata_tasks.revalidate({spec.output!r}, response_model)`"


def code_changed_words(spec: RunSpec, taken: int = 0, refused: int = 0) -> str:
    """Return the sentence about a response model whose code has changed.

    Of `taken` rows it is known that it takes their answers now, of `refused` that it no longer
    does.
    """
    changed = "the code of the response model has changed since answers were checked by it"
    counts = [(taken, "that it takes by now"), (refused, "that it no longer takes")]
    known = [
        f"{pluralize(rows, 'row has', 'rows have')} an answer {which}"
        for rows, which in counts
        if rows
    ]
    if not known:
        how = "reads them again, for free, and tells which it no longer takes"
        return f"{changed}: {kept_by(spec)} {how}"
    how = "reads all again, for free, and keeps those that it takes"
    return f"{changed}: {', and '.join(known)}; {kept_by(spec)} {how}"


def grade_changed_words(spec: RunSpec, *, lowered: bool) -> str:
    """Return the sentence about a `min_grade` that is not what answers were checked by."""
    if lowered:
        return (
            "`min_grade` is lower than what answers in the dataset were checked by: the next run "
            "keeps, for free, those that had too little evidence until now"
        )
    marks = "--mark-invalid" if _filler(spec) is _Filler.TABLE else "mark_invalid=True"
    return (
        "`min_grade` is not what answers in the dataset were checked by: they stay as they are, "
        f"and are not sent again; {kept_by(spec)} tells, for free, which have too little evidence, "
        f"and makes them invalid with `{marks}`"
    )


def changed_words(plan: PlanSummary) -> str:
    """Return what changed in what rows ask that are sent again, in words."""
    if len(plan.changed) == 1:
        return f"{CHANGES[next(iter(plan.changed))]} changed"
    texts = [
        f"{CHANGES[reason]} ({pluralize(rows, 'row')})" for reason, rows in plan.changed.items()
    ]
    return f"{' and '.join(texts)} changed"


def retried_by(spec: RunSpec | Mapping[str, Any]) -> str:
    """Return what sends rows again that failed for good."""
    return {
        _Filler.TABLE: "`batchata run SPEC --retry-failed`",
        _Filler.FRAME: "`enrich(…, retry_failed=True)`",
        _Filler.JOBS: "`Batch(retry_failed=True)`",
    }[_filler(spec)]


def renamed_by(spec: RunSpec, names: Mapping[str, str]) -> str:
    """Return the sentence about columns that seem to have another name by now (old: new)."""
    pairs = ", ".join(f"{old!r} seems to be {new!r} now" for old, new in names.items())
    if _filler(spec) is _Filler.FRAME:
        return f"{pairs}: under the old name, in frame and prompt, its answers are kept, for free"
    return (
        f"{pairs}: {as_command(names)} keeps the answers to this prompt, for free, if it is given "
        "before anything is sent"
    )
