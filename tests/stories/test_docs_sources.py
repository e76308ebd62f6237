"""The sources in docs/sources.md work as printed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.settings import Settings
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.reports.plan import preview
from batchata_tasks.spec.loading import load_spec, parse_spec
from tests.support.paths import ROOT
from tests.support.table import MODELS
from tests.support.workbook import write_workbook

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

TEXT = (ROOT / "docs/sources.md").read_text(encoding="utf-8")
SPECS = [
    yaml.safe_load(text)
    for text in re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
]


@pytest.fixture(autouse=True)
def _in_a_folder_with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.read_csv(ROOT / "data/packages.csv", dtype=str)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        rows.to_sql("packages", database)
    monkeypatch.setenv("SHOP_DB", f"sqlite:///{tmp_path / 'shop.db'}")
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("out"))
    sheets = {"Notes": [["of", 2026]], "Packages": [list(rows.columns), *rows.values.tolist()]}
    write_workbook(tmp_path / "data/packages.xlsx", sheets)
    monkeypatch.chdir(tmp_path)


def test_a_column_is_renamed_as_printed(emulator: Emulator, tmp_path: Path) -> None:
    """The block's commands, once source and spec have the new name: nothing is to be sent."""

    def write(column: str) -> None:
        rows = [{"id": f"k{i}", column: f"text {i}"} for i in range(3)]
        pd.DataFrame(rows).to_csv(tmp_path / "tickets.csv", index=False)
        spec = {
            "name": "tickets",
            "source": "tickets.csv",
            "key": "id",
            "model": MODELS["anthropic"],
            "prompt": f"{{{{ {column} }}}}",
            "output": "out",
        }
        (tmp_path / "tickets.yaml").write_text(yaml.safe_dump(spec))

    (block,) = [
        text
        for text in re.findall(r"^```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
        if "rename" in text
    ]
    write("text")
    enrich(load_spec("tickets.yaml"))
    write("body")
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        done = CliRunner().invoke(app, [*words[1:], "--json"])
        assert done.exit_code == 0, done.output
    assert json.loads(done.output)["requests"] == 0
    assert emulator.control.ledger()["anthropic"]["requests_accepted"] == 3


@pytest.mark.parametrize("keys", SPECS, ids=range(len(SPECS)))
def test_each_source_has_the_rows_of_the_table(emulator: Emulator, keys: dict[str, Any]) -> None:
    """Each block, as the keys of a spec over the shipped table, plans a request for each row."""
    if "sheet" in keys["source"]:
        pytest.importorskip("python_calamine")
    spec = {
        "name": "docs",
        "key": "name",
        "model": MODELS["anthropic"],
        "prompt": "{{ name }}: {{ summary }}",
        "output": "out",
        **keys,
    }
    assert preview(parse_spec(spec), Settings()).summary.requests == 400
