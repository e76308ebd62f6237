"""docs/migrating.md: its script runs, and what it says of old habits is so."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks import Batch
from batchata_tasks.api.job_result import JobResult
from batchata_tasks.common.errors import SpecError, StorageError
from tests.support.commands import python
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

TEXT = (ROOT / "docs/migrating.md").read_text(encoding="utf-8")


def test_the_script_runs(tmp_path: Path, emulator: Emulator) -> None:
    """The page's script gives an answer for each job, and no failed one."""
    (script,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    done = python(script, cwd=tmp_path, env={**emulator.env(), "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"
    assert "2 of 2 jobs, 1 of 1 batches, $" in done.stdout


def test_success_is_as_true_without_a_call() -> None:
    """A property by habit is neither always true nor an error; the method stays a method."""
    good, bad = JobResult("a", response="x"), JobResult("b", error="refused: no")
    assert [bool(one.is_success) for one in (good, bad)] == [True, False]
    assert [one.is_success() for one in (good, bad)] == [True, False]
    assert [one.job_id for one in (good, bad) if not one.is_success] == ["b"]
    assert (good.is_success == True, bad.is_success == True) == (True, False)  # noqa: E712 - a habit
    assert list(map(JobResult.is_success, (good, bad))) == [True, False]
    assert (f"{bad.is_success}", JobResult.from_dict(bad.to_dict())) == ("False", bad)


def test_results_by_outcome_are_refused_with_a_sentence(tmp_path: Path, emulator: Emulator) -> None:
    """`results()["completed"]` says that results are by id, and which ids there are."""
    del emulator
    batch = Batch(tmp_path / "answers").set_default_params(model="gpt-6-luna")
    results = batch.add_job(id="a", prompt="x").run().results()
    with pytest.raises(KeyError, match=r"no job has the id 'completed': .* \('a'\); ask each one"):
        results["completed"]
    with pytest.raises(KeyError, match=r"no job has the id 'failed'"):
        results.get("failed", [])
    assert results.get("b") is None
    assert dict(results) == results


def test_a_callback_in_the_place_of_wait(tmp_path: Path) -> None:
    """`run(callback)` is refused: it would count as true, and never be called."""
    batch = Batch(tmp_path / "answers").add_job(model="gpt-6-luna", prompt="x")
    with pytest.raises(SpecError, match="give a callback as `on_progress=…`"):
        batch.run(print)  # pyright: ignore[reportArgumentType] - a habit


def test_what_a_callback_gets_no_more_is_told(tmp_path: Path, emulator: Emulator) -> None:
    """Names of the other package that are here raise or work; others say what there is."""
    del emulator
    seen = list[tuple[dict[str, Any], dict[str, dict[str, Any]]]]()
    batch = Batch(tmp_path / "answers").add_job(id="a", model="gpt-6-luna", prompt="x")
    batch.run(on_progress=lambda stats, _, batches: seen.append((stats, batches)))
    stats, batches = seen[-1]
    assert (stats["completed"], stats["cancelled"], stats["batches_total"]) == (1, 0, 1)
    for name in ("is_complete", "items_per_batch", "current_batch_index", "current_batch_size"):
        with pytest.raises(KeyError, match=f"no '{name}'; it gets: .*completed"):
            stats[name]
    (one,) = batches.values()
    assert (one["state"], one["jobs"]) == ("landed", 1)
    for name in ("status", "total", "completed", "cost", "start_time"):
        with pytest.raises(KeyError, match=f"no '{name}'; it gets: .*state"):
            one[name]


def test_other_names_of_a_result() -> None:
    """`raw_response` and `total_tokens` are what they were."""
    result = JobResult("a", response="x", input_tokens=2, output_tokens=3)
    assert (result.raw_response, result.total_tokens) == ("x", 5)
    assert "raw_response" not in result.to_dict()


def test_the_word_warn_is_taken(tmp_path: Path) -> None:
    """`warn` is `warning`; another word is refused as ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Batch(tmp_path).set_verbosity("warn").config.verbosity_level == "warning"
        upper: Any = "ERROR"
        assert Batch(tmp_path).set_verbosity(upper).config.verbosity_level == "error"


def test_a_state_file_of_the_other_package_is_left_alone(tmp_path: Path) -> None:
    """It is refused in one sentence before anything is sent, and stays as it is."""
    file = tmp_path / "state.json"
    file.write_text('{"created_at": "2025-07-01", "pending_jobs": [], "total_cost_usd": 0.1}')
    before = file.read_bytes()
    batch = Batch(tmp_path / "answers").set_state(file).add_job(model="gpt-6-luna", prompt="x")
    with pytest.raises(StorageError, match=r"state\.json"):
        batch.run()
    assert file.read_bytes() == before
