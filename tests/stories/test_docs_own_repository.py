"""docs/own-repository.md: its blocks run as printed, in their order, in a repository of a team."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import duckdb
import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.prefect_server import give_database
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from tests.support.postgres import Server

pytestmark = pytest.mark.slow
TEXT = (ROOT / "docs/own-repository.md").read_text(encoding="utf-8")
_DBT = re.compile(r"^dbt .*$", re.MULTILINE)  # another program, which is not ours to install


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


class Repository:
    """A team's repository with two tables, and a shell in it."""

    def __init__(self, home: Path, emulator: Emulator) -> None:
        self.folder = home / "repository"
        self.enrichment = self.folder / "enrichment"
        (self.folder / "data").mkdir(parents=True)
        for name in ("tickets", "reviews"):
            rows = "".join(f"{i},Text {i} of the {name}\n" for i in range(30))
            (self.folder / f"data/{name}.csv").write_text(f"id,text\n{rows}")
        cleared = ("PREFECT_", "ANTHROPIC_", "OPENAI_", "BATCHATA_")
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(cleared)},
            **emulator.env(),
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",  # noqa: PTH120
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "BATCHATA_POLL_INTERVAL": "0.2",
            "BATCHATA_LEDGER_URL": f"sqlite:///{home / 'ledger.db'}",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        }

    def run(self, script: str, cwd: Path | None = None, **env: str) -> str:
        done = subprocess.run(
            ["bash", "-c", f"set -eu -o pipefail\n{_DBT.sub('', script)}"],
            cwd=cwd or self.enrichment,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def repository(
    tmp_path_factory: pytest.TempPathFactory, _one_emulator: Emulator, prefect_database: Path
) -> Repository:
    """Return a repository in which the two blocks about the layout were followed."""
    _one_emulator.control.reset()
    home = tmp_path_factory.mktemp("team")
    give_database(prefect_database, home / ".prefect")
    made = Repository(home, _one_emulator)
    first, second = blocks("bash")[:2]
    made.run(first, made.folder)
    assert "20 succeeded" in made.run(second, made.folder)
    return made


def test_the_layout_is_what_is_written(repository: Repository) -> None:
    """The tree on the page has each file that `batchata init` writes, and no other."""
    shown = re.findall(r"^    [├└]── ([\w.-]+)", TEXT, re.MULTILINE)
    written = {path.name for path in repository.enrichment.iterdir()}
    of_the_second = {"reviews.yaml", "models_reviews.py", "prefect.reviews.yaml"}
    assert written - of_the_second - {"__pycache__", "out", ".env"} == set(shown) - {"out"}


def test_secrets(repository: Repository) -> None:
    """The key comes from a file that git ignores."""
    assert "30 requests" in repository.run(blocks("bash")[2])
    assert ".env" in (repository.enrichment / ".gitignore").read_text().splitlines()


def test_ci(repository: Repository) -> None:
    """Each step of the workflow runs without a key, but for those that install."""
    (text, pull) = blocks("yaml")
    job = yaml.safe_load(text)["jobs"]["plan"]
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    assert scripts[0] == "pip install batchata-flows"
    folder = repository.folder / job["defaults"]["run"]["working-directory"]
    no_key = {"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": ""}
    for script in scripts[1:]:
        repository.run(script, folder, **no_key)
    wrong = repository.enrichment / "wrong.yaml"
    wrong.write_text((repository.enrichment / "tickets.yaml").read_text() + "promt: x\n")
    with suppress(AssertionError):
        repository.run("batchata plan wrong.yaml", **no_key)
        pytest.fail("a wrong spec passed")
    wrong.unlink()
    assert [next(iter(step)).rpartition(".")[2] for step in yaml.safe_load(pull)["pull"]] == [
        "git_clone",
        "set_working_directory",
    ]


def test_a_ledger_in_postgres(repository: Repository, postgres: Server) -> None:
    """The block, with the database that there is, makes the ledger's tables there."""
    url = postgres.url(postgres.create())
    script = re.sub(r"postgresql\+psycopg://\S+", url, blocks("bash")[3])
    assert script != blocks("bash")[3]
    assert "Traceback" not in repository.run(script)


def test_from_a_flow_a_script_and_after_dbt(repository: Repository) -> None:
    """A flow of one's own, a script, a shell script and dbt's neighbour send each row once."""
    for script, rows in zip(blocks("python"), (10, 15), strict=True):
        path = repository.enrichment / "own.py"
        path.write_text(script)
        assert f"{{'succeeded': {rows}}}" in repository.run("python own.py")
        path.unlink()
    assert "5 succeeded" in repository.run(blocks("bash")[4])
    assert "up to date" in repository.run(blocks("bash")[5])
    query = blocks("sql")[0].replace("out/tickets", f"{repository.enrichment}/out/tickets")
    assert len(duckdb.sql(query).fetchall()) == 30
