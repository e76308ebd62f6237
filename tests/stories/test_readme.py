"""The README's code runs as printed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from batchata_tasks.cli.commands import app
from batchata_tasks.common.settings import Settings
from batchata_tasks.emulator import ControlClient
from batchata_tasks.pipeline.receipt import EXIT_CODES
from batchata_tasks.spec.enrichment import EnrichmentSpec
from batchata_tasks.spec.loading import load_spec, parse_spec
from tests.support.commands import python
from tests.support.paths import ROOT
from tests.support.prefect_server import give_database
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.emulator import Emulator

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCS = [path.read_text(encoding="utf-8") for path in PAGES if path.parent.name == "docs"]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


class Shell:
    """The places in which a reader follows the README from top to bottom.

    `project` is a copy of the repository, `team` a folder with a table and nothing else.
    """

    def __init__(self, home: Path, emulator: Emulator) -> None:
        self.project = home / "project"
        for name in ("data", "deployments"):
            shutil.copytree(
                ROOT / name,
                self.project / name,
                ignore=shutil.ignore_patterns("out", "__pycache__"),
            )
        for name in ("prefect.yaml", "Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy2(ROOT / name, self.project / name)
        self.team = home / "team"
        self.team.mkdir()
        rows = "".join(f"{i},Where is my parcel {i}?\n" for i in range(30))
        (self.team / "tickets.csv").write_text(f"id,text\n{rows}")
        (self.project / "ready").touch()
        (self.project / ".venv").symlink_to(sys.prefix)
        environment = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("PREFECT_", "ANTHROPIC_", "OPENAI_", "BATCHATA_"))
        }
        self.env = {
            **environment,
            **emulator.env(),
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "BATCHATA_POLL_INTERVAL": "0.2",
            "BATCHATA_LEDGER_URL": f"sqlite:///{home / 'ledger.db'}",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            # `make` finds the environment made: this one
            "MAKEFLAGS": f" -- READY=ready BIN={Path(sys.executable).parent}",
        }

    @property
    def head(self) -> str:
        return f"source {self.project}/.venv/bin/activate\n"

    def run(self, script: str, cwd: Path | None = None) -> str:
        """Run a block, stopping at its first failure; background jobs end with it."""
        head = f"set -eu\nset -o pipefail\n{self.head}"
        log = self.project.parent / "output.txt"
        with (
            log.open("w") as stream,
            subprocess.Popen(
                ["bash", "-c", head + script],
                cwd=cwd or self.project,
                env=self.env,
                start_new_session=True,
                stdout=stream,
                stderr=stream,
            ) as shell,
        ):
            try:
                code = shell.wait(PATIENCE)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)
        output = log.read_text()
        assert code == 0, output
        return output

    @contextmanager
    def terminal(self, script: str, cwd: Path | None = None) -> Iterator[None]:
        """Run a block that goes on until it is stopped."""
        command = ["bash", "-c", self.head + script]
        with (
            (self.project.parent / "terminal.txt").open("a") as log,
            subprocess.Popen(
                command,
                cwd=cwd or self.project,
                env=self.env,
                start_new_session=True,
                stdout=log,
                stderr=log,
            ) as running,
        ):
            try:
                yield
            finally:
                os.killpg(running.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def shell(
    tmp_path_factory: pytest.TempPathFactory, _one_emulator: Emulator, prefect_database: Path
) -> Shell:
    """Return one shell for all blocks, in their order."""
    _one_emulator.control.reset()
    home = tmp_path_factory.mktemp("reader")
    give_database(prefect_database, home / ".prefect")
    return Shell(home, _one_emulator)


@pytest.fixture(scope="module")
def team(shell: Shell) -> Path:
    """Return the folder of a team, in which a first spec was written for its table."""
    shell.run(blocks("bash")[3], shell.team)
    return shell.team


def test_every_block_is_covered() -> None:
    """No block is in an untested language; the test command is the one that runs this."""
    assert {language for language, _ in BLOCKS} <= {"bash", "python", "yaml"}
    assert {
        language for text in DOCS for language in re.findall(r"^```(\w+)\n", text, re.MULTILINE)
    } == {"bash", "python", "sql", "toml", "yaml"}
    assert [text.strip() for text in blocks("bash")][1:3] == ["make demo", "make test"]
    assert len(blocks("bash")) == 10


def test_what_is_installed_is_this() -> None:
    """The first lines install this project, by pip or by uv; `make wheel` tries it for real."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line.partition("#")[0].strip() for line in blocks("bash")[0].splitlines()]
    name = project["name"]
    assert lines == [f"pip install {name}", f"uv tool install {name}"]
    assert "batchata" in project["scripts"]


@pytest.mark.slow
def test_the_demo_runs(shell: Shell) -> None:
    """`make demo` enriches with both providers through Prefect, and prints the dataset's place."""
    output = shell.run(blocks("bash")[1])
    assert output.count("400 succeeded") == 2
    assert "read_parquet" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_rehearsal_without_a_trace(shell: Shell, team: Path) -> None:
    """The block rehearses the written spec twice, once with a fault, and leaves no dataset."""
    output = shell.run(blocks("bash")[4], team)
    assert "20 succeeded" in output
    assert "refused" in output
    assert not (team / "out").exists()


@pytest.mark.slow
def test_the_first_real_run_and_its_result(shell: Shell, team: Path) -> None:
    """The blocks are plan, 20 rows, a look, and the dataset in pandas and DuckDB."""
    output = shell.run(blocks("bash")[5], team)
    assert "20 succeeded" in output
    shell.run(f"python - <<'CODE'\n{blocks('python')[0]}\nCODE", team)


@pytest.mark.slow
def test_jobs_from_python(shell: Shell) -> None:
    """The examples of jobs run: a first Batch, structured output, a frame, and a document.

    The second uses both providers, with limits, a dry run, a run that is not awaited, and its
    state.
    """
    _, first, second, frame, third = blocks("python")
    output = shell.run(f"python - <<'CODE'\n{first}\nCODE")
    assert [
        name for name in ("Lisbon", "Oslo", "Quito") if f"\n{name} Echo" not in f"\n{output}"
    ] == []
    output = shell.run(f"python - <<'CODE'\n{second}\nCODE")
    assert "2 requests in 2 batches to anthropic, openai" in output
    assert re.search(r"^2 \d", output, re.MULTILINE), output
    output = shell.run(f"python - <<'CODE'\n{frame}\nCODE")
    assert output.count("succeeded") == 5
    output = shell.run(f"python - <<'CODE'\n{third}\nCODE")
    assert re.search(r"^annual-report\.pdf [12] ", output, re.MULTILINE), output


@pytest.mark.slow
def test_the_notebook(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell of the example runs in a kernel, in which an event loop already runs."""
    for name, value in shell.env.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(ROOT / "docs/jobs.ipynb", as_version=4)
    NotebookClient(
        notebook, timeout=int(PATIENCE), resources={"metadata": {"path": str(shell.project)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert "3 requests in 1 batch to anthropic" in "".join(
        output.get("text", "") for output in outputs
    )
    assert "review-2" in outputs[-1]["data"]["text/plain"]


@pytest.mark.slow
def test_a_rehearsal(shell: Shell, free_port: int) -> None:
    """The blocks of docs/recovery.md: an emulator with a fault, a run that pays once, a look at it.

    The look shows what was accepted, lifts the fault and adds another one.
    """
    text = (ROOT / "docs/recovery.md").read_text(encoding="utf-8")
    serve, run = (
        block.replace("8089", str(free_port))
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    )
    (look,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    with shell.terminal(serve):
        wait_for(f"http://127.0.0.1:{free_port}/_emulator/health")
        output = shell.run(run)
        control = ControlClient(f"http://127.0.0.1:{free_port}")
        book = control.ledger()
        told = python(look.replace("8089", str(free_port)))
        (rule,) = control.list_faults()
    assert "{'number': 0, 'examples': []} {'number': 0, 'examples': []}" in told.stdout, told.stderr
    assert (rule["kind"], rule["count"]) == ("http_429", 1)
    assert "10 succeeded" in output
    assert [seen["status"] for seen in book["creates"]] == [502]
    assert book["anthropic"]["batches_accepted"] == 1


@pytest.mark.slow
def test_the_schedule(shell: Shell, team: Path, free_port: int) -> None:
    """The blocks are server, work pool, deployment, worker, and a run to its end."""
    serve, register, work, run = (
        block.replace("4200", str(free_port)) for block in blocks("bash")[6:]
    )
    shell.env |= {"PREFECT_SERVER_API_PORT": str(free_port), "PREFECT_WORKER_QUERY_SECONDS": "2"}
    with shell.terminal(serve):
        wait_for(f"http://127.0.0.1:{free_port}/api/health")
        shell.run(register, team)
        with shell.terminal(work, team):
            output = shell.run(run)
    assert "Completed" in output or "completed" in output, output


def wait_for(url: str) -> None:
    def answers() -> bool:
        with suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE):
            return True
        return False

    until(answers, every=0.3)


def test_the_spec_in_the_readme_is_the_shipped_one_with_all_defaults() -> None:
    """Its keys are all keys but alternatives, and its values are the defaults or the demo's.

    Editors and Prefect's form show the keys in the same order.
    """
    text, _ = blocks("yaml")  # the other one is in test_docs_documents
    shown = yaml.safe_load(text)
    shipped = load_spec(ROOT / "deployments/specs/package-topics.yaml")
    assert parse_spec(shown) == shipped
    alternatives = {
        "provider",
        "endpoint",
        "prompt_file",
        "messages",
        "response_schema",
    }
    assert set(shown) == set(EnrichmentSpec.model_fields) - alternatives
    listed = EnrichmentSpec.model_json_schema()["properties"]
    assert [name for name in listed if name not in alternatives] == list(shown)


def test_no_link_leads_nowhere() -> None:
    """Every file that the README or a page links to, or names in backquotes, exists."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        linked = [name for name in re.findall(r"\]\(([^)]+)\)", text) if "://" not in name]
        named = re.findall(
            r"`((?:benchmarks|deployments|docs|tests|flows|batchata_tasks)/[\w./-]+)`", text
        )
        assert [name for name in linked if not (page.parent / name).exists()] == []
        assert [
            name
            for name in named
            if not any((place / name).exists() for place in (ROOT, ROOT / "batchata_tasks"))
        ] == []


def test_the_map_of_the_package_is_true() -> None:
    """Every package is in docs/architecture.md, in a layer; every place that it names exists."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    package = ROOT / "batchata_tasks"
    packages = {path.parent.name for path in package.glob("*/__init__.py")}
    assert set(re.findall(r"^\| \d? ?\| `(\w+)` \|", text, re.MULTILINE)) == packages
    places = re.findall(r"`(\w+/[\w/<>]+(?:\.py|/))`", text)
    assert [place for place in places if "<" not in place and not (package / place).exists()] == []


def test_the_tables_are_true() -> None:
    """The README has every command, exit code and setting, and no other."""
    commands = {
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback
    }
    assert set(re.findall(r"^\| `batchata (\w+)", TEXT, re.MULTILINE)) == commands
    codes = set(map(int, re.findall(r"^\| .* \| (\d) \| ", TEXT, re.MULTILINE)))
    assert codes == {*EXIT_CODES.values(), 1, 2}
    named = set(re.findall(r"^\| `BATCHATA_(\w+)`", TEXT, re.MULTILINE))
    assert named == {name.upper() for name in Settings.model_fields}
