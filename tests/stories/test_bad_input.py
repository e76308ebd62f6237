"""Bad input: one sentence with the field and the remedy, the right exit code, nothing sent or lost.

Every case starts from a project whose dataset holds two of its three rows, so that a run which does
not refuse would send something. After every case the corrected project runs to its end.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import traceback
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.emulator import Emulator
from tests.support.commands import batchata
from tests.support.paths import ROOT
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

HEADER = "name,stars,summary\n"
OLD_ROWS = "boto3,9000,The AWS SDK for Python\npydantic,20000,Data validation using type hints\n"
ROWS = HEADER + OLD_ROWS + "polars,30000,Blazingly fast DataFrames\n"
SPEC: dict[str, Any] = {
    "name": "topics",
    "source": "rows.csv",
    "key": "name",
    "model": "claude-haiku-5-5",
    "prompt": "{{ name }}: {{ summary }}",
    "response_model": "models.py:Topic",
    "max_tokens": 64,
    "output": "out",
    "cost_limit_usd": 1,
}
MODELS = """
from pydantic import BaseModel


class Topic(BaseModel):
    topic: str


class NotAModel:
    topic: str
"""
GPT = {"model": "gpt-6-luna"}
ABSENT = object()  # as the value of a changed key: the spec has no such key
MIB = 1 << 20


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Case:
    """One bad input: the difference from the good project, and the expected message."""

    name: str
    words: tuple[str, ...]
    change: Mapping[str, Any] = field(default_factory=dict[str, Any])
    files: Mapping[str, str | bytes] = field(default_factory=dict[str, str | bytes])
    prepare: Callable[[Path], object] = lambda _root: None
    options: tuple[str, ...] = ()
    env: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    code: int = 2
    plan: bool = True  # whether `plan` must refuse it too, in the same words


def in_process(*words: str) -> Ran:
    """Run a command here, and print an uncaught error as the interpreter does."""
    result = CliRunner().invoke(app, words)
    err = result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        err += "".join(traceback.format_exception(result.exception))
    return Ran(result.exit_code, result.stdout, err)


def in_shell(*words: str, limits: Mapping[int, int] | None = None) -> Ran:
    """Run a command as a process of its own, under the given resource limits."""

    def limit() -> None:
        for which, value in (limits or {}).items():
            resource.setrlimit(which, (value, value))

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "batchata_tasks.cli", *words]
    done = subprocess.run(
        command,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        preexec_fn=limit if limits else None,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def sentence(ran: Ran) -> str:
    """Return the one sentence of a refusal, having checked that it is whole, last and alone."""
    assert "Traceback" not in ran.err, ran.err
    lines = ran.err.strip().splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    assert len(errors) == 1, f"exit code {ran.code}, stderr: {ran.err!r}, stdout: {ran.out!r}"
    assert lines[-1] == errors[0], f"the sentence goes on over lines: {ran.err!r}"
    assert ran.out == ""
    return errors[0]


def check(ran: Ran, code: int, words: tuple[str, ...]) -> str:
    said = sentence(ran)
    missing = [word for word in words if word.lower() not in said.lower()]
    assert not missing, f"{missing} is not in: {said}"
    assert ran.code == code, f"exit code {ran.code}, not {code}: {said}"
    return said


def requests_accepted(emulator: Emulator) -> int:
    """Return how many requests both providers accepted.

    None is accepted twice, or over other routes.
    """
    ledger = emulator.control.ledger()
    books = [ledger["anthropic"], ledger["openai"]]
    assert [book["accepted_twice"]["number"] for book in books] == [0, 0]
    assert all(not any(book["direct"].values()) for book in books)
    return sum(book["requests_accepted"] for book in books)


def nothing_was_sent(emulator: Emulator) -> bool:
    ledger = emulator.control.ledger()
    books = [ledger["anthropic"], ledger["openai"]]
    billed = sum(
        book["requests_billed"] + book["input_tokens_billed"] + book["output_tokens_billed"]
        for book in books
    )
    return requests_accepted(emulator) == 0 and billed == 0


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return a dataset's rows as any reader sees them, in the order of their keys."""
    rows = pads.dataset(folder / "data", format="parquet").to_table().to_pylist()
    return sorted(rows, key=lambda row: str(row["name"]))


def state_of(root: Path) -> dict[str, bytes]:
    """Return every file of the dataset and the ledger: if none changed, there is nothing to fix."""
    paths = [*(root / "out").rglob("*"), *root.glob("ledger.db*")]
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


def write_project(root: Path, rows: str = ROWS) -> None:
    (root / "rows.csv").write_text(rows)
    (root / "models.py").write_text(MODELS)
    write_spec(root)


def write_spec(root: Path, **change: Any) -> None:
    values = {key: value for key, value in {**SPEC, **change}.items() if value is not ABSENT}
    (root / "spec.yaml").write_text(yaml.safe_dump(values))


def settle(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `root` the folder in which commands run."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{root / 'ledger.db'}")


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a dataset of two rows."""
    root = tmp_path_factory.mktemp("landed")
    write_project(root, HEADER + OLD_ROWS)
    with Emulator(anonymous=True) as emulator, pytest.MonkeyPatch.context() as patch:
        for name, value in {**emulator.env(), "BATCHATA_POLL_INTERVAL": "0.05"}.items():
            patch.setenv(name, value)
        settle(root, patch)
        ran = in_process("run", "spec.yaml", "--direct")
        assert ran.code == 0, ran.err
    write_project(root)
    return root


@pytest.fixture
def project(
    landed: Path, tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of the project: two rows in the dataset, a third in the source."""
    root = tmp_path / "project"
    shutil.copytree(landed, root)
    settle(root, monkeypatch)
    monkeypatch.setenv("BATCHATA_PATIENCE", "1")
    return root


def spoil(root: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring a case's bad input into the project."""
    write_spec(root, **case.change)
    for name, text in case.files.items():
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    case.prepare(root)
    for name, value in case.env.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def runs_when_mended(root: Path, emulator: Emulator, before: list[dict[str, Any]]) -> None:
    """Check that the corrected project runs to its end, and sends the one missing row once."""
    emulator.control.clear_faults()
    write_project(root)
    ran = in_process("run", "spec.yaml", "--direct")
    assert ran.code == 0, ran.err
    assert requests_accepted(emulator) == 1
    after = rows_of(root / "out")
    assert [row["name"] for row in after] == ["boto3", "polars", "pydantic"]
    assert [row for row in after if row["name"] != "polars"] == before


# --- what makes inputs bad ------------------------------------------------------------------------


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def rows_with(**columns: Any) -> Callable[[Path], object]:
    """Return a function that writes the good rows as Parquet, with some columns changed."""
    plain = {
        "name": ["boto3", "pydantic", "polars"],
        "stars": [1, 2, 3],
        "summary": ["a", "b", "c"],
    }
    return lambda root: parquet(root / "rows.parquet", **{**plain, **columns})


def truncated(root: Path) -> None:
    path = parquet(root / "rows.parquet", name=["boto3", "pydantic"], summary=["a", "b"])
    path.write_bytes(path.read_bytes()[:-20])


def broken_in_the_middle(root: Path) -> None:
    """Damage the data pages and leave the footer whole."""
    path = parquet(
        root / "rows.parquet", name=[f"package {i * i}" for i in range(5000)], summary=["a"] * 5000
    )
    content = bytearray(path.read_bytes())
    content[200:1200] = bytes(1000)
    path.write_bytes(bytes(content))


def link_out(root: Path) -> None:
    outside = root.parent / "outside.py"
    outside.write_text(MODELS)
    (root / "linked.py").symlink_to(outside)


def model(body: str, head: str = "from pydantic import BaseModel\n") -> dict[str, str]:
    return {"models.py": f"{head}\n\nclass Topic(BaseModel):\n{body}"}


def late_rows(bad: str) -> str:
    """Return a table of more than one block (a megabyte) whose last row is bad."""
    return HEADER + "".join(f"p{i},{i},{'words ' * 20}\n" for i in range(10_000)) + bad


def schema(properties: Any, **more: Any) -> dict[str, Any]:
    return {
        "response_model": ABSENT,
        "response_schema": {"type": "object", "properties": properties, **more},
    }


JSONL = {"source": "rows.jsonl"}
PARQUET = {"source": "rows.parquet"}
# what Python cannot hold
BEYOND = [
    (
        "year-12000",
        pa.array([1, 2, 316_516_204_800], pa.timestamp("s")),
        ("row 3", "the years 1 to 9999", "fix it"),
    ),
    (
        "year-within-a-list",
        pa.array([[1], [2], [316_516_204_800]], pa.list_(pa.timestamp("s"))),
        ("row 3", "the years 1 to 9999", "fix it"),
    ),
    (
        "year-within-an-object",
        pa.array([{"a": 1}, {"a": 2}, {"a": 4_000_000}], pa.struct([("a", pa.date32())])),
        ("row 3", "the years 1 to 9999", "fix it"),
    ),
    (
        "time-zone",
        pa.array([1, 2, 3], pa.timestamp("s", "Mars/Olympus")),
        ("row 1", "no time zone", "Mars/Olympus"),
    ),
    (
        "duration",
        pa.array([1, 2, 2**62], pa.duration("s")),
        ("row 3", "999,999,999 days", "fix it"),
    ),
    (
        "broken-text",
        pa.array([b"a", b"b", b"\xff"]).view(pa.string()),
        ("row 3", "utf-8", "fix it"),
    ),
]

CASES = [
    # the spec's keys
    Case("unknown-key", ("`max_token`", "did you mean `max_tokens`"), {"max_token": 5}),
    Case("unknown-key-like-no-other", ("`xyzzy`", "remove it"), {"xyzzy": "red"}),
    Case(
        "mistyped-required-key",
        ("`modle`", "did you mean `model`"),
        {"model": ABSENT, "modle": "claude-haiku-5-5"},
    ),
    Case(
        "unknown-inner-key",
        ("`fail_if.failedshare`", "remove it"),
        {"fail_if": {"failedshare": 1}},
    ),
    Case(
        "key-that-is-a-number", ("key", "7"), files={"spec.yaml": yaml.safe_dump(SPEC) + "7: red\n"}
    ),
    Case("missing-key", ("`model`", "missing", "add it"), {"model": ABSENT}),
    Case(
        "wrong-type",
        ("`max_tokens`", "must be a whole number, such as 20 (it is 'many')"),
        {"max_tokens": "many"},
    ),
    Case(
        "wrong-type-source",
        ("`source`", "write a path, {sql: SELECT …}", "(it is 5)"),
        {"source": 5},
    ),
    Case(
        "wrong-choice", ("`on_null`", "'error', 'empty', 'skip' or 'pass'"), {"on_null": "ignore"}
    ),
    Case("wrong-name", ("`name`", "letters, digits"), {"name": "../topics"}),
    Case("empty-output", ("`output`", "must not be empty"), {"output": ""}),
    Case(
        "zero-rows-per-batch", ("`items_per_batch`", "must be at least 1"), {"items_per_batch": 0}
    ),
    Case("limit-zero", ("`limit`", "must be at least 1"), {"limit": 0}),
    Case("negative-cost-limit", ("`cost_limit_usd`", "must be at least 0"), {"cost_limit_usd": -1}),
    Case("endless-cost-limit", ("`cost_limit_usd`", "finite"), {"cost_limit_usd": float("inf")}),
    Case("yes-as-cost-limit", ("`cost_limit_usd`", "true is no number"), {"cost_limit_usd": True}),
    *(
        Case(f"yes-as-{key}", (f"`{key}`: true is no number.",), {key: True})
        for key in (
            *("limit", "max_tokens", "items_per_batch", "max_parallel_batches"),
            *("max_attempts", "max_missing_share"),
        )
    ),
    Case("yes-as-pilot", ("`pilot.rows`: true is no number",), {"pilot": {"rows": True}}),
    Case(
        "no-as-budget",
        ("`budget.limit_usd`", "false is no number"),
        {"budget": {"name": "b", "limit_usd": False}},
    ),
    Case(
        "yes-as-share",
        ("`pilot.max_invalid_share`", "true is no number"),
        {"pilot": {"rows": 2, "max_invalid_share": True}},
    ),
    Case("cost-limit-not-a-number", ("`cost_limit_usd`",), {"cost_limit_usd": float("nan")}),
    Case("other-spec-version", ("`spec_version`", "must be 1 (it is 2)"), {"spec_version": 2}),
    Case("budget-without-limit", ("`budget.limit_usd`", "missing"), {"budget": {"name": "b"}}),
    Case("budget-misspelt", ("budget.limit",), {"budget": {"name": "b", "limit": 1}}),
    Case(
        "budget-period",
        ("`budget.period`",),
        {"budget": {"name": "b", "limit_usd": 1, "period": "year"}},
    ),
    Case(
        "budget-zone",
        ("`budget.timezone`", "Middle/Earth", "Europe/Berlin"),
        {"budget": {"name": "b", "limit_usd": 1, "timezone": "Middle/Earth"}},
    ),
    Case("pilot-without-rows", ("`pilot.rows`", "missing"), {"pilot": {}}),
    Case("pilot-of-less-than-nothing", ("`pilot.rows`",), {"pilot": {"rows": -1}}),
    Case(
        "pilot-share",
        ("`pilot.max_invalid_share`",),
        {"pilot": {"rows": 5, "max_invalid_share": 5}},
    ),
    Case(
        "file",
        ("row 1", "file: ", ".pdf cannot be read"),
        {"file": "{{ name }}.pdf", "where": "name == 'boto3'"},
    ),
    Case("file-template", ("file: ", "template", "nme"), {"file": "{{ nme }}.pdf"}),
    Case("no-file", ("`file`", "must not be empty"), {"file": []}),
    Case("document-root", ("`document_root`", "write `file`"), {"document_root": "docs"}),
    Case("enable-citations", ("`enable_citations`", "write `file`"), {"enable_citations": True}),
    Case("time-limit", ("`time_limit`", "90m"), {"time_limit": "soon"}),
    Case("time-limit-without-unit", ("`time_limit`", "90m"), {"time_limit": "90"}),
    Case("time-limit-that-is-a-number", ("`time_limit`", "90m"), {"time_limit": 90}),
    Case("retention-that-is-a-number", ("`retention`", "30d"), {"retention": 30}),
    Case("time-limit-of-nothing", ("`time_limit`", "90m"), {"time_limit": "0h"}),
    Case("no-retention", ("`retention`: 0d is no time", "raw_files: false"), {"retention": "0d"}),
    Case("retention", ("`retention`", "90m"), {"retention": "a month"}),
    Case("key-for-a-block", ("`credentials`", "name of a block"), {"credentials": "sk-Ab0"}),
    Case(
        "endpoint-of-another-provider",
        ("endpoint: ", "anthropic", "'responses'", "remove it"),
        {"endpoint": "responses"},
    ),
    Case(
        "endpoint-missing",
        ("model: gpt-5-pro", "/v1/responses alone", "`endpoint: responses`"),
        {"model": "gpt-5-pro"},
    ),
    Case(
        "cap-below-the-endpoints",
        ("max_tokens: 15", "at least 16"),
        {"endpoint": "responses", "max_tokens": 15, **GPT},
    ),
    Case(
        "endpoint-unknown",
        ("`endpoint`", "'chat' or 'responses'"),
        {"endpoint": "completions", **GPT},
    ),
    Case("on-missing-unknown", ("`on_missing`", "'delete'"), {"on_missing": "drop"}),
    Case("no-prompt", ("`prompt`", "`messages`", "exactly one"), {"prompt": ABSENT}),
    Case(
        "prompt-and-messages",
        ("`prompt`", "`messages`", "exactly one"),
        {"messages": [{"role": "user", "content": "x"}]},
    ),
    Case(
        "empty-turn-of-a-row",
        ("messages.0", "row 2", "empty turn", "`where`"),
        {
            "prompt": ABSENT,
            "messages": [
                {"role": "user", "content": "{{ summary }}"},
                {"role": "assistant", "content": "yes"},
                {"role": "user", "content": "{{ name }}"},
            ],
        },
        {"rows.csv": HEADER + "boto3,1,x\npydantic,2,\n"},
    ),
    Case(
        "messages-end-with-assistant",
        ("`messages`", "role user"),
        {"prompt": ABSENT, "messages": [{"role": "assistant", "content": "x"}]},
    ),
    Case(
        "prompt-file-missing",
        ("prompt_file", "no file gone.txt"),
        {"prompt": ABSENT, "prompt_file": "gone.txt"},
    ),
    Case(
        "prompt-file-not-text",
        ("prompt_file", "bad.txt", "UTF-8"),
        {"prompt": ABSENT, "prompt_file": "bad.txt"},
        {"bad.txt": b"\xff\xfe{\x00"},
    ),
    Case(
        "model-and-schema",
        ("`response_model`", "`response_schema`", "not both"),
        {"response_schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
    ),
    Case("same-key-column-twice", ("`key`", "'name'", "twice"), {"key": ["name", "name"]}),
    # the spec's file and the command
    Case("not-a-number", ("`cost_limit_usd`", "must be a number"), {"cost_limit_usd": "five"}),
    Case(
        "neither-true-nor-false", ("`raw_files`", "must be true or false"), {"raw_files": "perhaps"}
    ),
    Case("no-list", ("`columns`", "must be a list"), {"columns": "stars"}),
    Case(
        "broken-yaml",
        ("spec.yaml, line 2: not valid YAML: expected",),
        files={"spec.yaml": "name: [topics\nmodel: x\n"},
    ),
    Case(
        "key-given-twice",
        ("spec.yaml", "cost_limit_usd", "twice"),
        files={"spec.yaml": yaml.safe_dump(SPEC) + "cost_limit_usd: 1000\n"},
    ),
    Case(
        "spec-missing",
        ("SPEC", "no file spec.yaml"),
        prepare=lambda root: (root / "spec.yaml").unlink(),
    ),
    Case("spec-is-a-list", ("spec.yaml", "mapping"), files={"spec.yaml": "- name: topics\n"}),
    Case("spec-is-empty", ("spec.yaml", "mapping"), files={"spec.yaml": ""}),
    Case("spec-not-text", ("spec.yaml", "UTF-8"), files={"spec.yaml": b"name: \xff\xff\n"}),
    Case(
        "spec-that-holds-itself",
        ("params",),
        files={
            "spec.yaml": yaml.safe_dump({**SPEC, **GPT}) + "params: &again\n  metadata: *again\n"
        },
    ),
    Case("set-without-sign", ("--set limit", "key=value"), options=("--set", "limit")),
    Case(
        "set-bad-value",
        ("--set limit", "is not valid YAML", "in quotes"),
        options=("--set", "limit=[1"),
    ),
    Case("set-unknown-key", ("`limits`", "did you mean `limit`"), options=("--set", "limits=1")),
    Case("set-wrong-value", ("`limit`", "whole number"), options=("--set", "limit=few")),
    # sources
    Case("source-missing", ("source", "no file gone.csv"), {"source": "gone.csv"}),
    Case(
        "source-of-unknown-kind",
        ("source", "rows.odt", ".jsonl, .ndjson, .parquet"),
        {"source": "rows.odt"},
        {"rows.odt": b"PK"},
    ),
    Case("source-of-unknown-protocol", ("source", "gopher"), {"source": "gopher://host/rows.csv"}),
    Case(
        "empty-folder",
        ("source", "tables", "Parquet"),
        {"source": "tables"},
        prepare=lambda root: (root / "tables").mkdir(),
    ),
    Case(
        "broken-parquet",
        ("source", "rows.parquet", "cannot be read"),
        PARQUET,
        {"rows.parquet": b"PAR1 nothing of it PAR1"},
    ),
    Case(
        "truncated-parquet",
        ("source", "rows.parquet", "cannot be read"),
        PARQUET,
        prepare=truncated,
    ),
    Case(
        "parquet-broken-inside",
        ("source", "rows.parquet", "cannot be read"),
        PARQUET,
        prepare=broken_in_the_middle,
    ),
    Case(
        "types-on-parquet",
        ("types", "only columns of CSV", "remove `types`"),
        {**PARQUET, "types": {"stars": "int"}},
        prepare=rows_with(),
    ),
    Case(
        "parquet-date-beyond-python",
        ("source", "when"),
        {**PARQUET, "prompt": "{{ when }}"},
        prepare=rows_with(when=pa.array([1, 2, 90_000_000], pa.date32())),
    ),
    Case(
        "parquet-text-not-utf8",
        ("source", "summary", "UTF-8"),
        PARQUET,
        prepare=rows_with(summary=pa.array([b"a", b"b", b"\xff"]).view(pa.string())),
    ),
    Case(
        "same-column-twice-in-parquet",
        ("source", "rows.parquet", "two columns", "rename"),
        PARQUET,
        prepare=lambda root: pq.write_table(
            pa.Table.from_arrays([pa.array(["a"])] * 3, ["name", "summary", "summary"]),
            root / "rows.parquet",
        ),
    ),
    Case("empty-csv", ("source", "rows.csv", "empty"), files={"rows.csv": ""}),
    Case(
        "csv-with-a-ragged-row",
        ("source", "rows.csv row 2:", "4 cells", "3 columns", "pydantic,20000,x"),
        files={"rows.csv": ROWS.replace(",20000,", ",20000,x,")},
    ),
    Case(
        "csv-ragged-late",
        ("source", "rows.csv row ", "2 cells", "3 columns", "polars,1"),
        files={"rows.csv": late_rows("polars,1\n")},
    ),
    Case(
        "csv-not-utf8",
        ("source", "rows.csv row ", "'summary'", "UTF-8", "csv: {encoding: cp1252}"),
        files={"rows.csv": ROWS.encode() + b"ruff,1,\xff\xfe\n"},
    ),
    Case(
        "csv-same-column-twice",
        ("source", "two columns named 'stars'", "rename"),
        files={"rows.csv": "name,stars,stars\na,1,2\n"},
    ),
    Case(
        "csv-type-does-not-fit",
        ("rows.csv", "stars", "many", "types"),
        {"types": {"stars": "int"}, "prompt": "{{ stars }}"},
        {"rows.csv": ROWS.replace("30000", "many")},
    ),
    Case(
        "csv-type-of-unknown-column",
        ("types", "'star'", "name, stars, summary"),
        {"types": {"star": "int"}},
    ),
    Case("csv-unknown-type", ("`types.stars`", "'int'"), {"types": {"stars": "number"}}),
    Case(
        "gzip-that-is-none",
        ("source", "rows.csv.gz", "cannot be read"),
        {"source": "rows.csv.gz"},
        {"rows.csv.gz": ROWS},
    ),
    Case(
        "gzip-cut-off",
        ("source", "rows.csv.gz", "cannot be read"),
        {"source": "rows.csv.gz"},
        {"rows.csv.gz": gzip.compress(ROWS.encode())[:-12]},
    ),
    Case(
        "jsonl-with-a-bad-line",
        ("source", "rows.jsonl", "line 2", "JSON"),
        JSONL,
        {"rows.jsonl": '{"name": "a"}\n{"name": \n'},
    ),
    Case(
        "jsonl-with-half-a-surrogate",
        ("source", "rows.jsonl", "column 'text'", "row 2", "surrogate", "fix it"),
        {**JSONL, "prompt": "{{ name }} {{ text }}"},
        {"rows.jsonl": '{"name": "a", "text": "x"}\n{"name": "b", "text": "\\ud800"}\n'},
    ),
    Case(
        "jsonl-beyond-64-bits",
        ("source", "rows.jsonl", "column 'n'", "row 2", "64 bits", "in quotes"),
        {**JSONL, "prompt": "{{ name }} {{ n }}"},
        {"rows.jsonl": '{"name": "a", "n": [1]}\n{"name": "b", "n": [18446744073709551616]}\n'},
    ),
    Case(
        "jsonl-with-no-object",
        ("source", "rows.jsonl", "line 2", "object"),
        JSONL,
        {"rows.jsonl": '{"name": "a"}\n[1]\n'},
    ),
    Case(
        "jsonl-not-utf8",
        ("source", "rows.jsonl", "line 1"),
        JSONL,
        {"rows.jsonl": b'{"name": "\xff"}\n'},
    ),
    Case(
        "jsonl-changes-its-type",
        ("source", "rows.jsonl row 2", "'summary' is text", "an object ({'y': 1})"),
        JSONL,
        {"rows.jsonl": '{"name": "a", "summary": "x"}\n{"name": "b", "summary": {"y": 1}}\n'},
    ),
    Case("empty-jsonl", ("rows.jsonl", "empty"), JSONL, {"rows.jsonl": ""}),
    Case("missing-key-column", ("key", "'id'", "name, stars, summary"), {"key": "id"}),
    Case(
        "missing-carried-column",
        ("columns", "'version'", "name, stars, summary"),
        {"columns": ["version"]},
    ),
    # rows
    Case(
        "duplicate-keys",
        ("key", "rows 1 and 4", "'boto3'", "unique"),
        files={"rows.csv": ROWS + "boto3,1,Again\n"},
    ),
    Case(
        "duplicate-key-late",
        ("key", "rows 7 and 10001", "'p6'"),
        files={"rows.csv": late_rows("p6,1,Again\n")},
    ),
    Case(
        "null-key",
        ("key", "'name'", "row 2", "`where`"),
        PARQUET,
        prepare=rows_with(name=["boto3", None, "polars"]),
    ),
    Case(
        "null-in-the-prompt",
        ("on_null", "'summary'", "row 2", "'pydantic'", "`on_null` to pass", "or skip"),
        PARQUET,
        prepare=rows_with(summary=["a", None, "c"]),
    ),
    Case("where-syntax", ("where", "not a valid"), {"where": "stars >="}),
    Case(
        "where-unknown-column", ("where", "'star'", "name, stars, summary"), {"where": "star > 3"}
    ),
    Case("where-fails-on-a-row", ("where", "row 1", "'boto3'"), {"where": "stars > 3"}),
    # templates
    Case(
        "template-unknown-column",
        ("prompt", "'sumary'", "name, stars, summary"),
        {"prompt": "{{ sumary }}"},
    ),
    Case(
        "system-unknown-column",
        ("system", "'sumary'", "name, stars, summary"),
        {"system": "{{ sumary }}"},
    ),
    Case(
        "message-unknown-column",
        ("messages.1", "'sumary'", "name, stars, summary"),
        {
            "prompt": ABSENT,
            "messages": [
                {"role": "system", "content": "x"},
                {"role": "user", "content": "{{ sumary }}"},
            ],
        },
    ),
    Case(
        "template-prints-a-method",
        ("prompt", "row 1", "'boto3'", "'upper' is a method of a text", "upper()"),
        {"prompt": "{{ summary.upper }}"},
    ),
    Case(
        "template-misses-an-item",
        ("prompt", "row 1", "'a'", "no attribute 'items'", "it has: n"),
        {**JSONL, "prompt": "{{ o.items }}"},
        {"rows.jsonl": '{"name": "a", "o": {"n": 1}}\n'},
    ),
    Case(
        "template-compares-a-null",
        ("prompt", "row 2", "'b'", "a null cannot be compared with 3"),
        {**JSONL, "prompt": "{% if n > 3 %}many{% else %}few{% endif %}", "on_null": "pass"},
        {"rows.jsonl": '{"name": "a", "n": 5}\n{"name": "b", "n": null}\n'},
    ),
    Case(
        "template-column-with-a-blank",
        ("prompt", "line 1", 'write row["full name"]'),
        {"prompt": "{{ full name }}"},
        {"rows.csv": "name,full name\na,b\n"},
    ),
    Case("template-syntax", ("prompt", "line 2", "Jinja2"), {"prompt": "{{ name }}\n{% if %}"}),
    Case(
        "template-unknown-filter", ("prompt", "Jinja2", "shout"), {"prompt": "{{ name | shout }}"}
    ),
    Case(
        "template-fails-on-a-row",
        ("prompt", "row 2", "'pydantic'", "by zero"),
        {"prompt": "{{ 10 // stars }}", "types": {"stars": "int"}},
        {"rows.csv": ROWS.replace("20000", "0")},
    ),
    Case(
        "template-attribute-of-a-cell",
        ("prompt", "row 1", "'boto3'", "size"),
        {"prompt": "{{ name.size }}"},
    ),
    Case(
        "template-reaches-out",
        ("prompt", "row 1", "unsafe"),
        {"prompt": "{{ name.__class__.__mro__ }}"},
    ),
    Case(
        "template-bomb-product",
        ("prompt", "row 1", "not allowed"),
        {"prompt": "{{ name }}{{ 'x' * 10**9 }}"},
    ),
    Case(
        "template-bomb-width",
        ("prompt", "row 1", "64,000,000"),
        {"prompt": "{{ name.ljust(70000000) }}"},
    ),
    Case(
        "template-without-end",
        ("prompt", "row 1", "recursion"),
        {"prompt": "{% macro again(x) %}{{ again(x) }}{% endmacro %}{{ again(name) }}"},
    ),
    Case(
        "template-nested-too-deep",
        ("prompt", "Jinja2"),
        {"prompt": f"{{{{ {'(' * 3000}name{')' * 3000} }}}}"},
    ),
    Case(
        "where-nested-too-deep",
        ("where", "Jinja2", "such as month >="),
        {"where": "(" * 3000 + "1" + ")" * 3000},
    ),
    Case(
        "prompt-renders-empty",
        ("prompt", "row 1", "'boto3'", "empty", "`where`"),
        {"prompt": "{% if stars == '' %}x{% endif %} "},
    ),
    Case(
        "param-no-number",
        ("params", "nan is no JSON"),
        {"params": {"metadata": {"k": float("nan")}}},
    ),
    Case(
        "param-a-date", ("params", "is no JSON"), {"params": {"metadata": {"k": date(2026, 1, 2)}}}
    ),
    Case(
        "schema-no-number",
        ("response_schema", "inf is no JSON"),
        {"response_schema": {"type": "number", "maximum": float("inf")}},
    ),
    Case("prompt-with-half-a-character", ("prompt", "UTF-8"), {"prompt": "\ud83d {{ name }}"}),
    # response models
    Case(
        "model-outside",
        ("response_model", "code roots", "BATCHATA_CODE_ROOTS"),
        {"response_model": "../outside.py:Topic"},
        {"../outside.py": MODELS},
    ),
    Case(
        "model-by-a-link-out",
        ("response_model", "code roots", "BATCHATA_CODE_ROOTS"),
        {"response_model": "linked.py:Topic"},
        prepare=link_out,
    ),
    Case(
        "model-by-module-outside",
        ("response_model", "no file"),
        {"response_model": "json.decoder:JSONDecoder"},
    ),
    Case(
        "model-file-missing",
        ("response_model", "no file gone.py"),
        {"response_model": "gone.py:Topic"},
    ),
    Case(
        "model-without-class", ("response_model", "file.py:Class"), {"response_model": "models.py"}
    ),
    Case(
        "model-class-missing",
        ("response_model", "models.py", "no Pydantic model Theme", "it has Topic"),
        {"response_model": "models.py:Theme"},
    ),
    Case(
        "model-not-pydantic",
        ("response_model", "models.py", "no Pydantic model NotAModel"),
        {"response_model": "models.py:NotAModel"},
    ),
    Case(
        "model-fails-at-import",
        ("response_model", "fails at import", "ValueError: one two"),
        files={"models.py": "raise ValueError('one\\ntwo')\n"},
    ),
    Case(
        "model-with-wrong-syntax",
        ("response_model", "fails at import", "SyntaxError", "fix it", "python models.py"),
        files={"models.py": "class Topic(\n"},
    ),
    Case(
        "model-exits-at-import",
        ("response_model", "fails at import", "SystemExit"),
        files={"models.py": "raise SystemExit(7)\n"},
    ),
    Case(
        "model-with-a-dict",
        ("response_model", "the field scores", "map", "list of pairs"),
        files=model("    scores: dict[str, int]\n"),
    ),
    Case(
        "model-recursive",
        ("response_model", "recursive"),
        files=model("    parts: list['Topic']\n"),
    ),
    Case(
        "model-with-a-union",
        ("response_model", "the field topic", "union"),
        files=model("    topic: int | str\n"),
    ),
    Case(
        "model-with-any",
        ("response_model", "the field topic"),
        files=model("    topic: Any\n", "from typing import Any\nfrom pydantic import BaseModel\n"),
    ),
    Case(
        "model-with-bare-list",
        ("response_model", "the field topics"),
        files=model("    topics: list\n"),
    ),
    Case("model-without-fields", ("response_model", "no fields"), files=model("    pass\n")),
    Case(
        "model-with-a-callable",
        ("response_model", "the field act", "Callable"),
        files=model(
            "    act: Callable[[], int]\n",
            "from collections.abc import Callable\nfrom pydantic import BaseModel\n",
        ),
    ),
    Case(
        "model-clashes-with-source",
        ("'name'", "source column", "response model", "rename"),
        files=model("    name: str\n"),
    ),
    Case(
        "schema-clashes-with-metadata",
        ("'_status'", "metadata", "rename"),
        schema({"_status": {"type": "string"}}, required=["_status"]),
    ),
    Case(
        "source-clashes-with-metadata",
        ("'_status'", "metadata", "rename"),
        {"columns": ["_status"]},
        {"rows.csv": "name,_status,summary\na,b,c\n"},
    ),
    Case(
        "schema-file-missing",
        ("response_schema", "no file gone.json"),
        {"response_model": ABSENT, "response_schema": "gone.json"},
    ),
    Case(
        "schema-file-broken",
        ("response_schema", "bad.json", "JSON"),
        {"response_model": ABSENT, "response_schema": "bad.json"},
        {"bad.json": "{"},
    ),
    Case(
        "schema-file-is-a-list",
        ("response_schema", "object"),
        {"response_model": ABSENT, "response_schema": "list.json"},
        {"list.json": "[1]"},
    ),
    Case(
        "schema-of-a-list",
        ("response_schema", "object"),
        {
            "response_model": ABSENT,
            "response_schema": {"type": "array", "items": {"type": "string"}},
        },
    ),
    Case(
        "schema-field-is-no-schema",
        ("response_schema", "the field topic"),
        schema({"topic": "string"}),
    ),
    Case("schema-properties-are-a-list", ("response_schema", "name its keys"), schema(["topic"])),
    Case(
        "schema-pattern-is-no-regex",
        ("response_schema", "topic", "pattern"),
        schema({"topic": {"type": "string", "pattern": "["}}),
    ),
    Case(
        "schema-bound-is-no-number",
        ("response_schema", "topic", "minimum"),
        schema({"topic": {"type": "integer", "minimum": "a"}}),
    ),
    Case(
        "schema-with-a-foreign-keyword",
        ("response_schema", "the field topic", "'not'"),
        schema({"topic": {"type": "string", "not": {}}}),
    ),
    # models, parameters, credentials, settings
    Case(
        "no-anthropic-key",
        ("ANTHROPIC_API_KEY", "not set", "set it"),
        env={"ANTHROPIC_API_KEY": None},
        plan=False,  # it needs none
    ),
    Case(
        "no-openai-key",
        ("OPENAI_API_KEY", "not set", "set it"),
        GPT,
        env={"OPENAI_API_KEY": None},
        plan=False,
    ),
    Case(
        "anthropic-refuses-the-key",
        ("anthropic", "key", "refused", "environment"),
        env={"ANTHROPIC_API_KEY": "invalid"},
        plan=False,
    ),
    Case(
        "openai-refuses-the-key",
        ("openai", "key", "refused", "environment"),
        GPT,
        env={"OPENAI_API_KEY": "invalid"},
        plan=False,
    ),
    Case(
        "anthropic-key-with-a-line-end",
        ("ANTHROPIC_API_KEY", "line"),
        env={"ANTHROPIC_API_KEY": "key-of-mine\n"},
    ),
    Case(
        "openai-key-with-a-line-end",
        ("OPENAI_API_KEY", "line"),
        GPT,
        env={"OPENAI_API_KEY": "key-of-mine\n"},
    ),
    Case(
        "openai-key-that-no-header-takes", ("OPENAI_API_KEY",), GPT, env={"OPENAI_API_KEY": "sk-…"}
    ),
    Case(
        "anthropic-address-without-scheme",
        ("ANTHROPIC_BASE_URL", "http"),
        env={"ANTHROPIC_BASE_URL": "127.0.0.1/v1"},
    ),
    Case(
        "openai-address-without-scheme",
        ("OPENAI_BASE_URL", "http"),
        GPT,
        env={"OPENAI_BASE_URL": "127.0.0.1/v1"},
    ),
    Case("unknown-model", ("model", "'mistral-9'", "spelling", "provider"), {"model": "mistral-9"}),
    Case(
        "model-of-the-other-provider",
        ("provider", "anthropic", "remove `provider`"),
        {"provider": "openai"},
    ),
    Case(
        "unpriced-model-with-a-limit",
        ("cost_limit_usd", "claude-omega-99", "check its name", "remove the limit"),
        {"model": "claude-omega-99"},
    ),
    Case(
        "misspelt-model-with-a-limit",
        (
            "model:",
            "check its name (did you mean claude-haiku-4-5",
            "prices.toml",
            "remove the limit",
        ),
        {"model": "claude-haiku-4-6"},
    ),
    Case("reserved-parameter", ("params.max_tokens", "remove it"), {"params": {"max_tokens": 5}}),
    Case("reserved-parameter-openai", ("params.n", "remove it"), {"params": {"n": 5}, **GPT}),
    Case(
        "unbounded-parameter", ("params.tools", "cost limit", "allowed"), {"params": {"tools": []}}
    ),
    Case(
        "unbounded-parameter-openai",
        ("params.tools", "cost limit", "allowed"),
        {"params": {"tools": []}, **GPT},
    ),
    Case(
        "temperature-anthropic", ("params.temperature", "remove it"), {"params": {"temperature": 0}}
    ),
    Case(
        "temperature-reasoning-model",
        ("params.temperature", "remove it"),
        {"params": {"temperature": 0}, **GPT},
    ),
    Case(
        "stop-at-a-reasoning-model",
        ("params.stop", "gpt-5-mini", "remove it"),
        {"params": {"stop": ["x"]}, **GPT, "model": "gpt-5-mini"},
    ),
    Case(
        "unknown-effort",
        ("params.reasoning_effort", "'hihg'", "write none, minimal, low, medium, high, xhigh or"),
        {"params": {"reasoning_effort": "hihg"}, **GPT},
    ),
    Case(
        "blank-stop-sequence",
        ("params.stop_sequences", "more than blanks", "remove it"),
        {"params": {"stop_sequences": ["\n"]}},
    ),
    Case(
        "older-name-of-the-cap-at-openai",
        ("BATCHATA_OPENAI_CAP", "unset the variable"),
        GPT,
        env={"BATCHATA_OPENAI_CAP": "max_tokens", "OPENAI_BASE_URL": "https://api.openai.com/v1"},
    ),
    Case("parameter-beyond-json", ("params", "64-bit"), {"params": {"seed": 10**30}, **GPT}),
    Case(
        "setting-of-wrong-type",
        ("BATCHATA_POLL_INTERVAL", "number"),
        env={"BATCHATA_POLL_INTERVAL": "often"},
    ),
    Case(
        "setting-out-of-range",
        ("BATCHATA_LEASE_SECONDS", "more than 1"),
        env={"BATCHATA_LEASE_SECONDS": "0"},
    ),
    Case(
        "setting-without-end",
        ("BATCHATA_POLL_INTERVAL", "at most 86,400"),
        env={"BATCHATA_POLL_INTERVAL": "1e10"},
    ),
    Case(
        "code-of-nobody",
        ("BATCHATA_CODE_ROOTS", "~nobody-of-this-name/code"),
        env={"BATCHATA_CODE_ROOTS": "~nobody-of-this-name/code"},
    ),
    Case(
        "prices-of-nobody",
        ("BATCHATA_PRICES", "~nobody-of-this-name", "whole path"),
        env={"BATCHATA_PRICES": "~nobody-of-this-name/prices.toml"},
    ),
    Case(
        "ledger-url-malformed",
        ("BATCHATA_LEDGER_URL", "sqlite:///"),
        env={"BATCHATA_LEDGER_URL": "ledger.db"},
    ),
    Case(
        "ledger-of-unknown-kind",
        ("BATCHATA_LEDGER_URL", "sqlite:///"),
        env={"BATCHATA_LEDGER_URL": "nosuchdb://host/ledger"},
    ),
    Case(
        "ledger-in-no-folder",
        ("BATCHATA_LEDGER_URL", "cannot be opened"),
        plan=False,
        env={"BATCHATA_LEDGER_URL": "sqlite:////dev/null/ledger.db"},
    ),
    Case(
        "ledger-that-is-no-database",
        ("BATCHATA_LEDGER_URL", "not a database"),
        {"output": "other"},
        {"text.db": "x" * 5000},
        plan=False,
        env={"BATCHATA_LEDGER_URL": "sqlite:///text.db"},
    ),
    Case(
        "ledger-with-an-option-of-no-effect",
        ("BATCHATA_LEDGER_URL", "'mode'", "uri=true", "leave it out"),
        env={"BATCHATA_LEDGER_URL": "sqlite:///ledger.db?mode=ro"},
    ),
    Case(
        "source-of-nobody",
        ("source", "~$rows.csv", "whole path"),
        {"source": "~$rows.csv"},
    ),
    # outputs
    Case(
        "remote-output",
        ("output", "s3://bucket/out", "local folders"),
        {"output": "s3://bucket/out"},
    ),
    Case(
        "output-of-nobody",
        ("output", "~nobody-of-this-name", "whole path"),
        {"output": "~nobody-of-this-name/out"},
    ),
    Case(
        "encoding-that-reads-no-blocks",
        ("`csv.encoding`", "no encoding 'punycode'"),
        {"csv": {"encoding": "punycode"}},
    ),
    Case(
        "prompt-file-with-a-nul",
        ("prompt_file", "cannot be read"),
        {"prompt": ABSENT, "prompt_file": "a\0b"},
    ),
    Case(
        "model-with-a-nul",
        ("response_model", "not of the form"),
        {"response_model": "a\0.py:Topic"},
    ),
    Case(
        "model-of-too-long-a-name",
        ("response_model", "there is no file", "xxx"),
        {"response_model": f"{'x' * 300}.py:Topic"},
    ),
    Case(
        "schema-that-is-too-deep",
        ("response_schema", "deep.json", "nested too deeply"),
        {"response_model": ABSENT, "response_schema": "deep.json"},
        {"deep.json": "[" * 100_000},
    ),
    Case(
        "ledger-of-too-long-a-name",
        ("BATCHATA_LEDGER_URL", "xxx"),
        env={"BATCHATA_LEDGER_URL": f"sqlite:///{'x' * 300}"},
    ),
    Case("output-is-a-file", ("output", "rows.csv", "is a file", "folder"), {"output": "rows.csv"}),
    Case("output-with-a-nul", ("output", "'a\\x00b'", "NUL", "remove it"), {"output": "a\0b"}),
    Case(
        "output-of-too-long-a-name",
        ("output", "xxx", "too long", "name another folder"),
        {"output": "x" * 300},
    ),
    # values that are in no template
    *(
        Case(
            f"{role}-{what}",
            ("source", f"'{name}'", *words),
            {**PARQUET, "columns": ["name", "stars"], "prompt": "{{ summary }}", **more},
            prepare=rows_with(**{name: values}),
        )
        for role, name, more in (
            ("key", "name", {"output": "of_another_key"}),
            ("carried", "stars", {}),
        )
        for what, values, words in BEYOND
    ),
]
IN_SHELL = [
    case for case in CASES if case.name in ("unknown-key", "duplicate-keys", "no-openai-key")
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused(
    case: Case, project: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is one sentence with the exit code; nothing is accepted, billed or lost.

    `plan` says the same, and the corrected project runs.
    """
    rows, state = rows_of(project / "out"), state_of(project)
    with monkeypatch.context() as patch:
        spoil(project, case, patch)
        said = check(
            in_process("run", "spec.yaml", "--direct", *case.options), case.code, case.words
        )
        assert nothing_was_sent(emulator)
        assert rows_of(project / "out") == rows
        touched = state_of(project)
        if case.plan:
            planned = check(in_process("plan", "spec.yaml", *case.options), case.code, case.words)
            # Python words the rest at will
            assert planned.partition(" recursion ")[0] == said.partition(" recursion ")[0]
            assert nothing_was_sent(emulator)
    if touched != state:
        runs_when_mended(project, emulator, rows)


@pytest.mark.parametrize("case", IN_SHELL, ids=lambda case: case.name)
def test_a_shell_sees_the_same(
    case: Case, project: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of its own prints the same sentence to stderr and ends with the same code."""
    spoil(project, case, monkeypatch)
    done = batchata("run", "spec.yaml", "--direct", cwd=project)
    check(Ran(done.returncode or 0, done.stdout, done.stderr), case.code, case.words)
    assert nothing_was_sent(emulator)


def test_the_project_of_all_cases_runs(project: Path, emulator: Emulator) -> None:
    """The good project sends its one new row.

    So a case that sends nothing was refused, not idle.
    """
    runs_when_mended(project, emulator, rows_of(project / "out"))


def test_a_spec_in_json_means_what_json_says(project: Path, emulator: Emulator) -> None:
    """Tabs, escaped emoji and numbers with exponents are as valid in a JSON spec as in any JSON."""
    values = {
        **SPEC,
        "prompt": "\N{GRINNING FACE} {{ name }}: {{ summary }}",
        "cost_limit_usd": 1e-2,
    }
    text = json.dumps(values, indent="\t").replace("0.01", "1e-2")
    (project / "spec.json").write_text(text)
    ran = in_process("run", "spec.json", "--direct")
    assert ran.code == 0, ran.err
    sent = "".join(
        path.read_text() for path in (project / "out/_batchata/requests").glob("*.jsonl")
    )
    assert "\N{GRINNING FACE} polars" in sent


def test_line_ends_inside_of_cells_are_no_ragged_rows(project: Path, emulator: Emulator) -> None:
    """A quoted cell may hold line ends, wherever the blocks of a big file end."""
    cell = "one line\n" * 50
    rows = "".join(f'p{i},{i},"{cell}"\n' for i in range(8000))
    (project / "rows.csv").write_text(HEADER + rows)
    ran = in_process("plan", "spec.yaml", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["source_rows"] == 8000


@pytest.mark.parametrize(
    "words", [("--limit", "0"), ("--limit", "few"), ("--limits", "5")], ids=" ".join
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_wrong_option_is_named(
    command: str, words: tuple[str, str], project: Path, emulator: Emulator
) -> None:
    """An option that is unknown or out of range is named, with exit code 2."""
    ran = in_process(command, "spec.yaml", *words)
    assert ran.code == 2
    assert "--limit" in ran.err
    assert "Traceback" not in ran.err
    assert nothing_was_sent(emulator)


@pytest.mark.parametrize("command", ["status", "show"])
def test_other_commands_refuse_a_bad_spec_too(
    command: str, project: Path, emulator: Emulator
) -> None:
    """Every command that takes a spec refuses a bad one in the same words."""
    write_spec(project, max_token=5)
    check(in_process(command, "spec.yaml"), 2, ("`max_token`", "did you mean `max_tokens`"))


@pytest.mark.parametrize("command", ["run", "plan", "status", "show", "compact", "rehearse"])
def test_a_spec_of_too_long_a_name_is_named(
    command: str, project: Path, emulator: Emulator
) -> None:
    """Whatever was taken for a path, a prompt say, it is a sentence."""
    check(in_process(command, "x" * 300), 2, ("SPEC", "xxx", "cannot be read", "too long"))


# --- bad states: of folders, ledgers, servers and disks -------------------------------------------


def test_the_dataset_of_another_ledger_is_refused(
    project: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another ledger does not know the paid rows.

    The error says which to name, for `plan` as well.
    """
    before = rows_of(project / "out")
    with monkeypatch.context() as patch:
        patch.setenv("BATCHATA_LEDGER_URL", "sqlite:///another.db")
        for command in (("run", "spec.yaml", "--direct"), ("plan", "spec.yaml")):
            check(in_process(*command), 2, ("output", "another ledger", "BATCHATA_LEDGER_URL"))
    check(
        in_process("status", "spec.yaml", "--rebuild"),
        2,
        ("output", "owns the dataset", "nothing to rebuild"),
    )
    assert nothing_was_sent(emulator)
    runs_when_mended(project, emulator, before)


def test_a_folder_with_foreign_tables_is_refused(project: Path, emulator: Emulator) -> None:
    """Parquet files that no run wrote are never taken for a dataset, nor touched.

    That holds for `plan`, too.
    """
    foreign = project / "elsewhere/data"
    foreign.mkdir(parents=True)
    parquet(foreign / "theirs.parquet", name=["boto3"], summary=["not ours"])
    content = (foreign / "theirs.parquet").read_bytes()
    write_spec(project, output="elsewhere")
    for command in (("run", "spec.yaml", "--direct"), ("plan", "spec.yaml")):
        check(in_process(*command), 2, ("output", "Parquet files", "empty folder"))
    assert (foreign / "theirs.parquet").read_bytes() == content
    assert [path.name for path in foreign.iterdir()] == ["theirs.parquet"]
    assert nothing_was_sent(emulator)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("data/part-broken.parquet", ("part-broken.parquet", "damaged", "Restore it")),
        ("_batchata/owner.json", ("owner.json", "damaged", "Restore it")),
    ],
    ids=["part", "owner"],
)
@pytest.mark.parametrize(
    "command", [("run", "spec.yaml", "--direct"), ("plan", "spec.yaml")], ids=["run", "plan"]
)
def test_a_damaged_dataset_is_told(
    command: tuple[str, ...], path: str, words: tuple[str, ...], project: Path, emulator: Emulator
) -> None:
    """An unreadable file of the dataset is named; once restored, the same command continues."""
    before, damaged = rows_of(project / "out"), project / "out" / path
    was = damaged.read_bytes() if damaged.exists() else None
    damaged.write_bytes(b"nothing of it")
    check(in_process(*command), 1, words)
    assert nothing_was_sent(emulator)
    damaged.unlink() if was is None else damaged.write_bytes(was)
    runs_when_mended(project, emulator, before)


def test_a_folder_that_may_not_be_written_is_told(project: Path, emulator: Emulator) -> None:
    """If no folder can be made, the error is the storage's refusal with the path."""
    before = rows_of(project / "out")
    write_spec(project, output="/dev/null/out")
    check(in_process("run", "spec.yaml", "--direct"), 1, ("output", "/dev/null/out", "start again"))
    assert nothing_was_sent(emulator)
    runs_when_mended(project, emulator, before)


@pytest.mark.parametrize(
    ("model_id", "variable", "path"),
    [("claude-haiku-5-5", "ANTHROPIC_BASE_URL", ""), ("gpt-6-luna", "OPENAI_BASE_URL", "/v1")],
    ids=["anthropic", "openai"],
)
def test_a_server_that_cannot_be_reached(
    model_id: str,
    variable: str,
    path: str,
    project: Path,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After `BATCHATA_PATIENCE` the run ends with the server's name.

    The same command then sends each row once.
    """
    write_spec(project, model=model_id, rerun_on=["new"])
    before = rows_of(project / "out")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with monkeypatch.context() as patch:
        patch.setenv(variable, f"http://127.0.0.1:{port}{path}")
        check(in_process("run", "spec.yaml", "--direct"), 1, ("cannot reach", f"127.0.0.1:{port}"))
    assert nothing_was_sent(emulator)
    assert rows_of(project / "out") == before
    ran = in_process("run", "spec.yaml", "--direct")
    assert ran.code == 0, ran.err
    assert requests_accepted(emulator) == 1
    assert len(rows_of(project / "out")) == 3


def big_rows(count: int = 1500) -> str:
    return ROWS + "".join(f"p{i},{i},{'many words ' * 150}\n" for i in range(count))


@pytest.mark.slow
@pytest.mark.parametrize("size", [256 << 10, MIB], ids=["ledger", "plan"])
def test_a_file_that_may_not_grow(size: int, project: Path, emulator: Emulator) -> None:
    """If files may not grow, the run ends before it sends.

    The same command then sends each row once.
    """
    (project / "rows.csv").write_text(big_rows(700))
    write_spec(project, cost_limit_usd=100)
    before = rows_of(project / "out")
    limits = {
        resource.RLIMIT_FSIZE: size if size == MIB else (project / "ledger.db").stat().st_size // 2
    }
    check(in_shell("run", "spec.yaml", "--direct", limits=limits), 1, ("refused",))
    assert nothing_was_sent(emulator)
    assert rows_of(project / "out") == before
    ran = in_process("run", "spec.yaml", "--direct")
    assert ran.code == 0, ran.err
    assert requests_accepted(emulator) == 701
    assert len(rows_of(project / "out")) == 703


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="mounts a small disk, which takes root on Linux",
)
@pytest.mark.parametrize(
    ("kib", "accepted"),
    [(4, 0), (64, 0), (4000, 0), (6500, 1503)],
    ids=["keys", "plan", "requests", "responses"],
)
def test_a_full_disk(kib: int, accepted: int, project: Path, emulator: Emulator) -> None:
    """Wherever the disk fills up, the run ends with one sentence.

    With room again, no row is sent twice or lost.
    """
    (project / "rows.csv").write_text(big_rows())
    write_spec(project, cost_limit_usd=100, output="disk/out")
    disk = project / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", disk],
        check=False,
        capture_output=True,
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        ran = in_process("run", "spec.yaml", "--direct")
        check(ran, 1, ("No space left on device", "start again"))
        assert requests_accepted(emulator) == accepted
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        ran = in_process("run", "spec.yaml", "--direct")
        assert ran.code == 0, ran.err
        assert requests_accepted(emulator) == 1503
        assert len(rows_of(disk / "out")) == 1503
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "prompt",
    [
        (
            f"{{% for a in range(99999) %}}{{% for b in range(99999) "
            f"%}}{'0123456789' * 20}{{% endfor %}}{{% endfor %}}"
        ),
        (
            "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(40) %}{% "
            "set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
        ),
    ],
    ids=["loops", "doubling"],
)
def test_a_template_that_would_fill_the_memory(
    prompt: str, project: Path, emulator: Emulator
) -> None:
    """A few characters that make gigabytes are stopped in time, naming the row."""
    write_spec(project, prompt=f"{{{{ name }}}} {prompt}")
    ran = in_shell(
        "run",
        "spec.yaml",
        "--direct",
        limits={resource.RLIMIT_AS: 2500 * MIB, resource.RLIMIT_CPU: 25},
    )
    check(ran, 2, ("prompt", "row 1", "'boto3'"))
    assert nothing_was_sent(emulator)
