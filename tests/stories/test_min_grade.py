"""`min_grade`: an answer counts only if its fields have evidence enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from batchata_tasks import Batch, SpecError, revalidate
from batchata_tasks.common.settings import Settings
from batchata_tasks.operations.revalidate import revalidate as revalidate_spec
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.reports.one_row import one_row
from batchata_tasks.reports.plan import preview
from batchata_tasks.spec.loading import parse_spec
from tests.support.jobs import CLAUDE, GPT, sent
from tests.support.pdfs import pdf

if TYPE_CHECKING:
    from batchata_tasks.emulator import Emulator
    from batchata_tasks.spec.enrichment import EnrichmentSpec

APIS: dict[str, dict[str, str]] = {
    "anthropic": {"model": CLAUDE},
    "openai": {"model": GPT},
    "responses": {"model": GPT, "endpoint": "responses"},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"invoice_no": {"type": "string"}, "grand_total": {"type": "number"}},
    "required": ["invoice_no", "grand_total"],
}
LACKS = "of grand_total "


class Total(BaseModel):  # noqa: D101
    grand_total: float


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "invoice.pdf").write_bytes(pdf("Invoice no.: 2026-0417", "Grand total: 29.16"))
    return tmp_path


def spec(api: str = "anthropic", min_grade: str | None = "high", **changes: Any) -> EnrichmentSpec:
    keys: dict[str, Any] = {"name": "invoices", "source": {"documents": "*.pdf"}}
    keys |= {"file": "{{ path }}", "prompt": "Read it.", "max_tokens": 900, "output": "out"}
    keys |= {"response_schema": SCHEMA, "enable_citations": True, "pilot": False, **APIS[api]}
    return parse_spec({**keys, "min_grade": min_grade, **changes})


def batch(api: str = "anthropic", **fields: Any) -> Batch:
    made = Batch("out").set_default_params(max_tokens=900, model=APIS[api]["model"])
    keys: dict[str, Any] = {"response_model": Total, "enable_citations": True, **fields}
    return made.add_job(id="a", file="invoice.pdf", prompt="Read it.", **keys)


def rows() -> list[dict[str, Any]]:
    return pq.read_table("out/data").to_pylist()


def told(changed: EnrichmentSpec) -> list[str]:
    """Return what a plan says of answers."""
    return [text for label, text in preview(changed, Settings()).lines() if label == "Answers"]


@pytest.mark.parametrize("api", APIS)
def test_too_little_evidence_is_invalid(emulator: Emulator, api: str) -> None:
    """The error names field, grade and what was asked for; answer and passages are kept."""
    emulator.control.faults(kind="request_misread")
    receipt = enrich(spec(api, "medium", max_attempts=1))
    assert receipt.outcomes == {"invalid": 1}
    assert receipt.exit_code == 3
    [row] = rows()
    assert row["_error"].startswith(f"response: {LACKS}")
    assert row["_error"].endswith(", and min_grade asks for medium")
    assert row["invoice_no"] is row["grand_total"] is None
    assert "92.16" in row["_response"]
    assert "invoice_no" in {one["field"] for one in row["_citations"]}
    assert row["_cost_usd"] > 0
    shown = one_row(spec(api, "medium"), ["path=invoice.pdf"]).text()
    assert "  invoice_no\n    page 1, " in shown
    assert shown.count("labelled 'Invoice no'") == 1


@pytest.mark.parametrize("api", APIS)
def test_evidence_enough_changes_nothing(emulator: Emulator, api: str) -> None:
    """A row whose values all have evidence lands as without `min_grade`."""
    assert enrich(spec(api)).outcomes == {"succeeded": 1}
    [row] = rows()
    assert {one["grade"] for one in row["_citations"]} == {"high"}
    assert sent(emulator) == 1


@pytest.mark.parametrize("api", APIS)
def test_another_attempt_is_told_why(emulator: Emulator, api: str) -> None:
    """As after any invalid answer, the next attempt may do better, and both are paid."""
    emulator.control.faults(kind="request_misread", times=1)
    assert enrich(spec(api)).outcomes == {"succeeded": 1}
    assert sent(emulator) == 2
    [row] = rows()
    assert row["_attempts"] == 2
    assert "was not accepted: of grand_total" in one_row(spec(api), ["path=invoice.pdf"]).text()


def test_raising_it_sends_nothing(emulator: Emulator) -> None:
    """It is told; `revalidate` finds the rows, and makes them invalid if it is asked to."""
    emulator.control.faults(kind="request_misread", times=1)
    enrich(spec(min_grade=None))
    assert not told(spec(min_grade=None))
    raised = spec(min_grade="high", max_attempts=1)
    assert "`batchata revalidate SPEC` tells, for free, which have" in told(raised)[0]
    assert enrich(raised).outcomes == {}
    assert sent(emulator) == 1
    assert rows()[0]["_status"] == "succeeded"
    found = revalidate_spec(raised, Settings(), mark_invalid=True)
    assert (found.no_longer_valid, found.marked) == (1, 1)
    assert LACKS in (found.example or "")
    [row] = rows()
    assert row["_status"] == "invalid"
    assert row["_error"].startswith(f"response: {LACKS}")
    assert not told(raised)


@pytest.mark.parametrize("lower", ["low", None])
def test_lowering_it_pays_for_nothing_again(emulator: Emulator, lower: str | None) -> None:
    """Rows that had too little evidence become valid at the next run, though attempts are left."""
    emulator.control.faults(kind="request_misread")
    Path("other.pdf").write_bytes(pdf("Invoice no.: 2026-0418", "Grand total: 12.50"))
    enrich(spec(max_attempts=1))
    assert [row["_status"] for row in rows()] == ["invalid", "invalid"]
    lowered = spec(min_grade=lower)
    assert "keeps, for free, those that had too little" in told(lowered)[0]
    assert preview(lowered, Settings()).summary.requests == 0
    assert enrich(lowered).outcomes == {}
    assert [row["_status"] for row in rows()] == ["succeeded", "succeeded"]
    assert None not in [row["grand_total"] for row in rows()]
    assert sent(emulator) == 2
    assert not told(lowered)


def test_lost_rows_come_back_as_they_were(emulator: Emulator) -> None:
    """A part that is lost is landed again with the same outcomes."""
    Path("other.pdf").write_bytes(pdf("Invoice no.: 2026-0418", "Nothing is to be paid."))
    enrich(spec(max_attempts=1))
    before = rows()
    for part in Path("out/data").iterdir():
        part.unlink()
    enrich(spec(max_attempts=1))
    assert rows() == before
    assert sent(emulator) == 2


def test_answers_that_quote_are_read_again(emulator: Emulator) -> None:
    """`revalidate` finds valid what landed as valid, passages and all."""
    enrich(spec(min_grade=None))
    before = rows()
    found = revalidate_spec(spec(min_grade=None), Settings(), mark_invalid=True)
    assert (found.no_longer_valid, found.marked, found.gained) == (0, 0, 0)
    assert rows() == before
    assert sent(emulator) == 1


@pytest.mark.parametrize("api", ["anthropic", "openai"])
def test_a_job_may_ask_for_it(emulator: Emulator, api: str) -> None:
    """A job whose answer has too little evidence has failed, and says why."""
    emulator.control.faults(kind="request_misread")
    [result] = batch(api, min_grade="high").run().results().values()
    assert result.outcome == "invalid"
    assert LACKS in (result.error or "")
    assert result.parsed_response is None
    attempts = sent(emulator)
    lower = batch(api).run().results()["a"]
    assert (lower.outcome, sent(emulator)) == ("succeeded", attempts)
    found = revalidate("out", Total, min_grade="high", mark_invalid=True)
    assert found.marked == 1
    assert revalidate("out", Total).became_valid == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"enable_citations": False}, "write `enable_citations: true` as well"),
        ({"response_schema": None}, "write `response_model` or `response_schema` as well"),
        ({"min_grade": "best"}, "min_grade"),
    ],
)
def test_a_spec_that_cannot_mean_it_is_refused(changes: dict[str, Any], sentence: str) -> None:
    """One sentence says what is lacking."""
    with pytest.raises(SpecError, match=sentence):
        spec(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"enable_citations": False}, "give enable_citations=True as well"),
        ({"response_model": None}, "give a response_model as well"),
        ({"min_grade": "best"}, "'best' is no grade"),
    ],
)
def test_a_job_that_cannot_mean_it_is_refused(changes: dict[str, Any], sentence: str) -> None:
    """One sentence says what is lacking, as the job is added."""
    with pytest.raises(SpecError, match=sentence):
        batch(**{"min_grade": "high", **changes})


def test_no_boolean_is_asked_for_too_much() -> None:
    """Booleans are graded medium at best, so that `high` would refuse, and pay for, all rows."""
    paid = {"type": "object", "properties": {"paid": {"type": "boolean"}}, "required": ["paid"]}
    fields = {"lines": {"type": "array", "items": paid}}
    schema = {"type": "object", "properties": fields, "required": ["lines"]}
    with pytest.raises(SpecError, match=r"^min_grade: lines\[\]\.paid is a boolean"):
        preview(spec(response_schema=schema), Settings())
    preview(spec(min_grade="medium", response_schema=schema), Settings())
