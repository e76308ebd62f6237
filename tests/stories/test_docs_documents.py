"""The specs and commands in docs/documents.md work as printed."""

from __future__ import annotations

import re
import shlex
import shutil
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.settings import Settings
from batchata_tasks.reports.plan import preview
from batchata_tasks.sources.document_table import COLUMNS
from batchata_tasks.spec.loading import parse_spec
from tests.support.jobs import sent
from tests.support.paths import ROOT
from tests.support.pdfs import pdf

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = (ROOT / "docs/documents.md").read_text(encoding="utf-8")
INVOICES, CONTRACTS, FIGURES, REPORTS = re.findall(
    r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL
)
(COMMANDS,) = re.findall(r"^```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> Path:
    """Return a folder in which the page's specs and their documents lie."""
    del emulator
    monkeypatch.chdir(tmp_path)
    texts = {"invoices": INVOICES, "contracts": CONTRACTS, "figures": FIGURES, "reports": REPORTS}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    for name in ("inbox/a.pdf", "inbox/2026/b.pdf", "contracts/one.pdf", "terms.pdf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(pdf(f"This is {name}.", "Second page."))
    (tmp_path / "contracts.csv").write_text(
        "id,state,scan,annex,partner\n1,signed,one.pdf,terms.pdf,Weber\n"
        "2,signed,two.pdf,,Sons\n3,draft,none.pdf,,Nobody\n4,signed,one.pdf,,Lisbon\n"
    )
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("out"))
    return tmp_path


def command(line: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    return done.exit_code, done.output


def rows(name: str) -> list[dict[str, Any]]:
    return pq.read_table(f"out/{name}/data").to_pylist()


def test_a_folder_of_invoices(folder: Path, emulator: Emulator) -> None:
    """The commands as printed; then one more invoice, which alone is sent."""
    for line in COMMANDS.splitlines():
        code, output = command(line)
        assert code == 0, output
    found = {row["path"]: (row["name"], row["pages"], row["_status"]) for row in rows("invoices")}
    assert found == {
        "inbox/2026/b.pdf": ("b.pdf", 2, "succeeded"),
        "inbox/a.pdf": ("a.pdf", 2, "succeeded"),
    }
    (folder / "inbox/c.pdf").write_bytes(pdf("A third one."))
    assert command("batchata run invoices.yaml --direct")[0] == 0
    assert sent(emulator) == 3


def test_contracts_that_a_table_names(emulator: Emulator) -> None:
    """A row may have one document or two; one whose document is not there says so."""
    code, output = command("batchata run contracts.yaml --direct")
    assert (code, sent(emulator)) == (3, 2), output
    errors = {row["id"]: row["_error"] for row in rows("contracts")}
    assert errors.pop("2").startswith("document: file: contracts/two.pdf cannot be read")
    assert errors == {"1": None, "4": None}


def test_reports_are_cited() -> None:
    """Each answer cites its document."""
    code, output = command("batchata run reports.yaml --direct")
    assert code == 0, output
    [row] = rows("reports")
    assert row["_citations"][0]["document"] == "annual-report.pdf"


def test_figures_are_read(folder: Path) -> None:
    """Each figure that the document states has its passage."""
    (folder / "data/annual-report.pdf").write_bytes(pdf("Outlook", "Sales: 4.6 million"))
    code, output = command("batchata run figures.yaml --direct")
    assert code == 0, output
    [row] = rows("figures")
    [one] = row["_citations"]
    assert (one["field"], one["page_start"], one["grade"]) == ("sales", 2, "high")


def test_the_spec_in_the_readme_is_planned() -> None:
    """It plans a request for each document of the shipped data."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (text,) = (block for block in blocks if "documents:" in block.splitlines()[1])
    assert preview(parse_spec(yaml.safe_load(text)), Settings()).summary.requests == 1


def test_the_page_has_all_columns() -> None:
    """The page's table has each column of a table of documents, and the specs are whole."""
    assert {name for name in COLUMNS if f"`{name}`" not in TEXT} == set()
    assert all(yaml.safe_load(text)["file"] for text in (INVOICES, CONTRACTS, FIGURES, REPORTS))
