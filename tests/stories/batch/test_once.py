"""What a run looks at once: a job, its document, the code and the provider that it needs."""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks import Batch, BatchRun, Job, SpecError
from batchata_tasks.api.config import BatchOptions, BatchParams, JobDefaults
from batchata_tasks.cli.running import run_spec
from batchata_tasks.providers import register, registry
from tests.support.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.types.request import Message

MODEL = """
from pathlib import Path
from pydantic import BaseModel

with (Path(__file__).parent / "loaded").open("a") as log:
    log.write("once\\n")

class Label(BaseModel):
    label: str
"""
CLAUDE = "claude-haiku-5-5"
OPENED: Counter[str] = Counter()
"""How often each file was opened by this process, once `opened` was asked for."""
_HOOKED = list[bool]()


@pytest.fixture
def opened() -> Counter[str]:
    """Count from here on how often each file is opened."""
    if not _HOOKED:  # an audit hook stays for as long as the process
        sys.addaudithook(_count)
        _HOOKED.append(True)
    OPENED.clear()
    return OPENED


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        OPENED[os.fspath(arguments[0])] += 1


@pytest.fixture
def counts(house: str) -> Counter[str]:
    """Count the clients of the house's provider, and the turns that it is asked to check."""
    from tests.support.house import HouseProvider  # registers, when it is first imported

    seen: Counter[str] = Counter()

    class CountingProvider(HouseProvider):
        def __init__(self) -> None:
            seen["clients"] += 1
            super().__init__()

        @classmethod
        def check_turns(cls, turns: Sequence[Message]) -> None:
            """Count the last of them."""
            seen[turns[-1].text] += 1

    del registry._ENTRIES["house"]
    register(CountingProvider, models="^house-")
    return seen


@pytest.mark.parametrize("job_id", ["a", None])
def test_a_document_is_read_when_its_job_is_added_and_when_it_is_sent(
    emulator: Emulator, tmp_path: Path, opened: Counter[str], job_id: str | None
) -> None:
    """It is read once to check and name its job, and once for the request.

    No document is kept in memory in between, and a file may change meanwhile.
    """
    file = tmp_path / "poem.txt"
    file.write_text("Roses are red.")
    opened.clear()
    batch = Batch(tmp_path / "out").add_job(id=job_id, prompt="p", model=CLAUDE, file=file)
    assert opened[str(file)] == 1
    assert all(result.is_success() for result in batch.run().results().values())
    assert opened[str(file)] == 2


def test_a_document_that_changed_before_the_run_is_looked_at_again(
    emulator: Emulator, tmp_path: Path
) -> None:
    """What a file holds when the run starts is checked and sent, whatever it held before."""
    file = tmp_path / "poem.txt"
    file.write_text("Roses are red.")
    batch = Batch(tmp_path / "out").add_job(id="a", prompt="p", model=CLAUDE, file=file)
    file.write_text("Violets are blue.")
    assert batch.run().results()["a"].is_success()
    (sent,) = (tmp_path / "out/raw_files/requests").iterdir()
    assert "Violets are blue." in sent.read_text()
    file.write_bytes(b"\0\xff")
    with pytest.raises(SpecError, match=r"job 'a': file: .*poem\.txt is not a document"):
        batch.run()


def test_an_added_job_is_checked_once(counts: Counter[str], house: str, tmp_path: Path) -> None:
    """It is not checked again when it is run, and a run makes one client of its provider."""
    batch = Batch(tmp_path / "out").set_default_params(model=house, max_tokens=10)
    batch.add_job(prompt="first").add_job(id="b", prompt="second")
    run = batch.run()
    assert all(result.is_success() for result in run.results().values())
    assert counts == {"first": 1, "second": 1, "clients": 1}


def test_jobs_that_differ_are_looked_at_each(tmp_path: Path) -> None:
    """What like jobs share is checked once; one that differs is refused or read as it is given."""
    model: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}
    batch = Batch(tmp_path / "out").set_default_params(model=CLAUDE)
    batch.add_job(id="a", prompt="p", response_model=model)
    model["properties"]["b"] = {"type": "integer"}
    batch.add_job(id="b", prompt="p", response_model=model)
    with pytest.raises(SpecError, match=r"job 'c': params\.temperature"):
        batch.add_job(id="c", prompt="p", response_model=model, temperature=0.5)
    models = [job.response_model for job in batch.jobs]
    assert [list(one["properties"]) for one in models if isinstance(one, dict)] == [
        ["a"],
        ["a", "b"],
    ]


def test_a_limit_that_comes_later_checks_again(
    counts: Counter[str], house: str, tmp_path: Path
) -> None:
    """A limit forbids parameters that were allowed without it, whenever it is set."""
    batch = Batch(tmp_path / "out").add_job(id="a", prompt="x", model=house, params={"invented": 1})
    with pytest.raises(SpecError, match=r"job 'a': params\.invented: its effect on the price"):
        batch.add_cost_limit(1).run()
    assert counts["x"] == 1  # the parameters are checked before the turns


def test_jobs_made_by_hand_are_held_to_the_limits_of_schemas(tmp_path: Path) -> None:
    """A response model that the provider would refuse is refused before anything is sent."""
    fields = {f"f{number}": {"type": ["string", "null"]} for number in range(40)}
    model = {"type": "object", "properties": fields, "required": list(fields)}
    job = Job("a", CLAUDE, prompt="p", response_model=model)
    run = BatchRun(BatchParams(results_dir=str(tmp_path / "out")), [job])
    with pytest.raises(SpecError, match="may be null, of which Anthropic takes"):
        run.start()


def test_a_job_that_was_changed_in_place_is_checked_again(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Whatever is done to a job after it was added, what is sent was checked as it is."""
    batch = Batch(tmp_path / "out").add_cost_limit(1)
    batch.add_job(id="a", prompt="p", model="gpt-6-luna", params={"seed": 1})
    batch.jobs[0].params["service_tier"] = "priority"
    with pytest.raises(SpecError, match=r"job 'a': params\.service_tier"):
        batch.run()


def test_the_code_of_a_spec_is_loaded_once(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of the command executes the file of a response model once."""
    monkeypatch.setenv("BATCHATA_CODE_ROOTS", str(tmp_path))
    (tmp_path / "model.py").write_text(MODEL)
    table = Table(tmp_path, emulator, "anthropic", rows=2)
    changes = {"response_schema": None, "response_model": f"{tmp_path / 'model.py'}:Label"}
    assert run_spec(table.spec(**changes), direct=True)["exit_code"] == 0
    assert (tmp_path / "loaded").read_text() == "once\n"


def test_the_fields_of_a_job_are_named_alike_everywhere() -> None:
    """`add_job` takes the fields of a Job, defaults are of their types; options are BatchParams."""
    fields, defaults = Job.__annotations__, JobDefaults.__annotations__
    arguments = inspect.signature(Batch.add_job).parameters
    assert arguments.keys() == {"self", *fields}
    for name, hint in defaults.items():
        assert fields[name].removesuffix(" | None") == hint.__forward_arg__
    assert BatchOptions.__annotations__.keys() | {"results_dir"} == BatchParams.model_fields.keys()
