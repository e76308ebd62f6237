"""A document is gone after its batch was sent: what is paid for lands, and stays."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batchata_tasks import Batch, SpecError
from tests.support.by_day import moments
from tests.support.dying import dying_before
from tests.support.jobs import CLAUDE, GPT, sent
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.emulator import Emulator

PROGRAM = """
import sys
from batchata_tasks import Batch

batch = Batch("answers").set_state("state.json")
batch.set_default_params(model=sys.argv[1], max_tokens=64)
if sys.argv[2] == "jobs":
    batch.add_job(id="a", file="inbox/a.txt", prompt="What was ordered?")
    batch.add_job(file="inbox/b.txt", prompt="What was ordered?")
    batch.add_job(id="plain", prompt="Say hello.")
for result in batch.run().results().values():
    assert result.is_success(), result.error
    print(result.response)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for name in "ab":
        (inbox / f"{name}.txt").write_text(f"Order of {name}: ten pencils.")
    return tmp_path


def remove_one() -> None:
    Path("inbox/a.txt").unlink()


def remove_all() -> None:
    shutil.rmtree("inbox")


def replace_by_folder() -> None:
    remove_one()
    Path("inbox/a.txt").mkdir()


def leave_broken_link() -> None:
    remove_one()
    Path("inbox/a.txt").symlink_to("elsewhere.txt")


def run(model: str, by: str) -> list[str]:
    """Run the program; return the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "program.py", model, by],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def run_and_die(emulator: Emulator, model: str) -> None:
    """Run the program; kill it once the provider has accepted its jobs."""
    emulator.control.progress("seconds", 3600)
    process = subprocess.Popen([sys.executable, "program.py", model, "jobs"])
    try:
        until(lambda: sent(emulator) == 3)
    finally:
        process.kill()
        process.wait()
    emulator.control.progress("immediate")


@pytest.mark.parametrize(
    ("model", "loss", "by"),
    [
        (CLAUDE, remove_one, "jobs"),
        (CLAUDE, replace_by_folder, "state"),
        (GPT, remove_all, "state"),
        (GPT, leave_broken_link, "jobs"),
    ],
)
def test_what_was_sent_lands_without_its_documents(
    emulator: Emulator, model: str, loss: Callable[[], None], by: str
) -> None:
    """The program, or its state file alone, lands what a killed process sent, and sends nothing."""
    run_and_die(emulator, model)
    loss()
    assert len(run(model, by)) == 3
    assert len(run(model, by)) == 3
    assert sent(emulator) == 3


@pytest.mark.parametrize("by", ["jobs", "state"])
def test_landed_answers_need_no_documents(emulator: Emulator, by: str) -> None:
    """A program whose answers have landed runs on without the documents, and prints the same."""
    before = run(CLAUDE, "jobs")
    remove_all()
    assert run(CLAUDE, by) == before
    assert sent(emulator) == 3


def test_a_changed_document_by_the_state_file_alone(emulator: Emulator) -> None:
    """Jobs of a state file are the jobs that were added: what a file is by now changes nothing."""
    before = run(CLAUDE, "jobs")
    Path("inbox/a.txt").write_text("Something else.")
    assert run(CLAUDE, "state") == before
    assert sent(emulator) == 3


def batch(prompt: str = "p") -> Batch:
    made = Batch("answers").set_default_params(model=CLAUDE, max_tokens=64)
    return made.add_job(id="a", file="inbox/a.txt", prompt=prompt)


def test_a_job_to_be_sent_needs_its_document(emulator: Emulator) -> None:
    """A job that has changed, or was never sent, is refused by name if its document is gone.

    Nothing is sent, also of other jobs.
    """
    batch().run()
    remove_one()
    later = batch("another").add_job(id="b", file="inbox/b.txt", prompt="p")
    with pytest.raises(SpecError, match=r"job 'a': file: .*a\.txt cannot be read \(No such file"):
        later.run()
    with pytest.raises(SpecError, match=r"job 'new': file: .*c\.txt cannot be read \(No such file"):
        batch().add_job(id="new", file="inbox/c.txt", prompt="p")
    assert sent(emulator) == 1


def test_what_was_sent_lands_before_a_document_is_looked_at(emulator: Emulator) -> None:
    """A job that cannot be sent keeps no paid answer from landing."""
    run_and_die(emulator, CLAUDE)
    remove_one()
    later = Batch("answers").set_state("state.json")
    later.set_default_params(model=CLAUDE, max_tokens=64)
    later.add_job(id="a", file="inbox/a.txt", prompt="Another question?")
    with pytest.raises(SpecError, match="job 'a': file: "):
        later.run()
    remove_all()
    assert len(run(CLAUDE, "jobs")) == 3
    assert sent(emulator) == 3


def test_another_file_of_the_name_is_another_document(emulator: Emulator) -> None:
    """A job whose file is missing has no answer about a file of the same name elsewhere."""
    batch().run()
    later = Batch("answers").set_default_params(model=CLAUDE, max_tokens=64)
    with pytest.raises(SpecError, match=r"job 'a': file: .*next/a\.txt cannot be read"):
        later.add_job(id="a", file="next/a.txt", prompt="p")
    assert sent(emulator) == 1


@pytest.mark.sampled
@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_documents_may_go_at_any_moment(emulator: Emulator, model: str) -> None:
    """A process dies before a change of a file, and the documents are deleted.

    What was sent lands. What was not is refused by name, and sent once they are back.
    """
    refused = 0
    for number in moments():
        before = sent(emulator)
        place = f"answers{number}"
        with dying_before(number):
            try:
                two_jobs(place, model).run()
                has_ended = True
            except KeyboardInterrupt:
                has_ended = False
        Path("inbox").rename("elsewhere")
        told = ""
        try:  # also if nothing was sent, a request may be on disk already
            two_jobs(place, model).run()
        except SpecError as error:
            told = str(error)
            refused += 1
        assert not told or (sent(emulator) == before and "inbox/a.txt cannot be read" in told)
        Path("elsewhere").rename("inbox")
        results = two_jobs(place, model).run().results()
        assert all(result.is_success() for result in results.values())
        assert sent(emulator) - before == 2
        if has_ended:
            break
    assert 0 < refused < number


def two_jobs(place: str, model: str) -> Batch:
    made = Batch(place).set_default_params(model=model, max_tokens=64)
    for name in "ab":
        made.add_job(id=name, file=f"inbox/{name}.txt", prompt="What was ordered?")
    return made
