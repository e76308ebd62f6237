"""`result_files`: the result of each job as a JSON file of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from pydantic import BaseModel, field_serializer

from batchata_tasks import Batch, JobResult, SpecError, forget
from batchata_tasks.api.result_files import ResultFiles
from tests.support.jobs import CLAUDE, GPT, sent

if TYPE_CHECKING:
    from batchata_tasks.emulator import Emulator

APIS: dict[str, dict[str, str]] = {
    "anthropic": {"model": CLAUDE},
    "openai": {"model": GPT},
    "responses": {"model": GPT, "endpoint": "responses"},
}
NAMES = {
    "plain": "plain.json",
    "../a b": "..%2Fa b.json",
    "ü\n%": "%C3%BC%0A%25.json",
    "data": "data.json",
    "..": None,
    "x" * 400: None,
}


class Word(BaseModel):  # noqa: D101
    word: str


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def batch(api: str = "anthropic", *names: str, **more: Any) -> Batch:
    made = Batch("out", result_files=True).set_default_params(
        max_tokens=100, **cast("Any", APIS[api])
    )
    for name in names or ("a", "b"):
        made.add_job(id=name, prompt="Say it.", **more)
    return made


def files() -> dict[str, dict[str, Any]]:
    """Return what result files say, by their names."""
    return {path.name: json.loads(path.read_text()) for path in Path("out").glob("*.json")}


@pytest.mark.parametrize("model", [None, Word])
@pytest.mark.parametrize("api", APIS)
@pytest.mark.usefixtures("emulator")
def test_each_job_has_a_file(api: str, model: type[BaseModel] | None) -> None:
    """It says what the result does, and has a valid name in the folder for any id."""
    results = batch(api, *NAMES, response_model=model).run().results()
    written = files()
    assert len(written) == len(NAMES)
    for job_id, name in NAMES.items():
        [own] = [one for one in written.values() if one["job_id"] == job_id]
        assert own == json.loads(json.dumps(results[job_id].to_dict()))
        assert JobResult.from_dict(own).response == results[job_id].response != ""
        assert name is None or written[name] == own
    assert sorted(path.name for path in Path("out").iterdir() if path.suffix != ".json") == [
        "_batchata",
        "data",
        "raw_files",
    ]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.usefixtures("emulator")
def test_files_are_there_as_results_land(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies later has written those of the batches that landed."""
    monkeypatch.setattr(ResultFiles, "complete", lambda _files: None)
    batch(api).run()
    assert sorted(files()) == ["a.json", "b.json"]


def test_what_is_lacking_is_written_again(emulator: Emulator) -> None:
    """The next run writes what was deleted, or landed without files; it sends nothing for that."""
    batch().run()
    Path("out/a.json").unlink()
    Path("out/b.json").write_text("{}")
    before = Path("out/data").stat().st_mtime_ns
    batch().run()
    assert {name: one["outcome"] for name, one in files().items()} == {
        "a.json": "succeeded",
        "b.json": "succeeded",
    }
    assert sent(emulator) == 2
    assert Path("out/data").stat().st_mtime_ns == before


def test_a_job_that_failed_has_a_file(emulator: Emulator) -> None:
    """It says why; a later answer replaces it."""
    emulator.control.faults(kind="request_refusal", times=1)
    batch("anthropic", "a").run()
    assert files()["a.json"]["outcome"] == "refused"
    again = batch("anthropic", "a")
    again.config.retry_failed = True
    again.run()
    assert files()["a.json"]["outcome"] == "succeeded"


@pytest.mark.usefixtures("emulator")
def test_without_it_there_are_none() -> None:
    """By default results are in the dataset alone."""
    batch().result_files(False).run()
    assert files() == {}


@pytest.mark.usefixtures("emulator")
def test_no_state_file_is_overwritten() -> None:
    """A job whose file would be the state file is refused before anything is sent."""
    with pytest.raises(SpecError, match=r"job 'b': its result file would be the state file, out/b"):
        batch().set_state("out/b.json").run()
    batch().set_state("out/c.json").run()
    assert sorted(files()) == ["a.json", "b.json", "c.json"]


@pytest.mark.usefixtures("emulator")
def test_a_forgotten_job_has_no_file() -> None:
    """What is taken out of the dataset is nowhere else."""
    batch().run()
    forget("out", "a")
    assert sorted(files()) == ["b.json"]


class Odd(BaseModel):
    """A model whose own serializer fails."""

    word: str

    @field_serializer("word")
    def _fails(self, _value: str) -> str:
        message = "no"
        raise ValueError(message)


@pytest.mark.usefixtures("emulator")
def test_a_serializer_that_fails_stops_no_run() -> None:
    """The file has the answer as text then."""
    run = batch("anthropic", "a", response_model=Odd).run()
    assert run.results()["a"].is_success()
    assert files()["a.json"]["parsed_response"] is None
    assert "word" in files()["a.json"]["response"]
