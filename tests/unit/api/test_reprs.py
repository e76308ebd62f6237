"""What a shell and a notebook show of our objects: it fits a screen, and foreign text is inert."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks import Batch, JobResult

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks import BatchRun
    from batchata_tasks.emulator import Emulator

NASTY = "<script>alert(1)</script>\x1b[2J" + "long " * 10_000


@pytest.fixture
def run(emulator: Emulator, tmp_path: Path) -> BatchRun:
    batch = Batch(str(tmp_path / "out")).set_default_params(
        model="claude-haiku-5-5", max_tokens=900
    )
    for number in range(50):
        batch.add_job(id=f"job {number}", prompt="x" * 1000)
    return batch.run(wait=False)


def test_a_run(run: BatchRun) -> None:
    """Its state and its counts while it works, and what it cost once it has ended."""
    assert repr(run).startswith("BatchRun(results_dir=")
    assert "jobs=50" in repr(run)
    run.wait()
    assert "state=ended, jobs=50, result=succeeded, cost_usd=0.00" in repr(run)
    assert len(repr(run)) < 300
    shown = run._repr_html_()
    assert shown.count("<tr>") < 25
    assert '<td style="text-align:left">50 succeeded</td>' in shown


def test_a_receipt(run: BatchRun) -> None:
    """It is the receipt that a command prints."""
    run.wait()
    lines = repr(run.receipt).splitlines()
    assert lines[0] == "Receipt of out"
    assert "  Outcomes: 50 succeeded" in lines
    assert len(lines) < 25
    assert run.receipt is not None
    assert "<table>" in run.receipt._repr_html_()


@pytest.mark.parametrize("parsed", [None, {"label": NASTY}])
def test_a_result(parsed: dict[str, str] | None) -> None:
    """Long answers are cut, and what an answer has of HTML or of escapes does nothing."""
    result = JobResult("a", response=NASTY, parsed_response=parsed, error=NASTY, cost_usd=0.5)
    assert len(repr(result)) < 600
    assert repr(result).isprintable()
    shown = result._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "\x1b" not in shown
    assert len(shown) < 2000
    assert "response='yes'" in repr(JobResult("a", response="yes"))


def test_results_can_be_in_a_set() -> None:
    """Equal results are one, whatever their answers hold."""
    one, other = (JobResult("a", parsed_response={"label": "x"}) for _ in range(2))
    assert len({one, other, JobResult("b")}) == 2
