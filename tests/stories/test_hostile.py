"""Answers and inputs that do harm, or seem to: the run ends, and every promise holds."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.errors import CredentialsError, SourceError, SpecError, TransientError
from batchata_tasks.common.money import usd
from batchata_tasks.providers import Provider, provider_type
from tests.support.books import check_money
from tests.support.operations import preview

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.table import Table


ROWS = 6


def after_download(
    table: Table,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[bytes], bytes],
    times: int = 10**6,
) -> None:
    """Change results files between the wire and the disk, as a broken proxy or provider would."""
    kind = provider_type(table.provider)
    real, done = kind.download, [0]

    def download(self: Provider, look: Any, folder: Path, stem: str) -> list[Path]:
        paths = real(self, look, folder, stem)
        if done[0] < times:
            done[0] += 1
            for path in paths:
                path.write_bytes(change(path.read_bytes()))
        return paths

    monkeypatch.setattr(kind, "download", download)


def test_a_page_that_is_no_results_file_lands_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A maintenance page of as many lines arrives instead of results.

    No row lands as missing, and none is paid twice: they are held until the results are there.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.1")
    with monkeypatch.context() as broken:
        after_download(table, broken, lambda _content: b"<p>maintenance</p>\n" * 50)
        assert (table.run().held_rows, table.rows()) == (6, [])
    assert table.run().plan["up_to_date"] == 6
    table.check_answers()
    assert table.ledger()["requests_accepted"] == 6


def with_usage(
    table: Table, monkeypatch: pytest.MonkeyPatch, value: str, field: bytes | None = None
) -> None:
    """Have one line of the next results state another count of output tokens."""
    output = b'"output_tokens":' if table.provider == "anthropic" else b'"completion_tokens":'

    def change(content: bytes) -> bytes:
        first, rest = content.split(b"\n", 1)
        head, tail = first.split(field or output, 1)
        digits = len(tail) - len(tail.lstrip(b"0123456789"))
        return head + (field or output) + value.encode() + tail[digits:] + b"\n" + rest

    after_download(table, monkeypatch, change)


@pytest.mark.parametrize("value", ["[1]", "-5", "NaN", "0.5", "true", '"-1"', '"many"', "null"])
def test_usage_that_is_none_spoils_the_cost_of_one_row_alone(
    table: Table, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """If tokens are no numbers, the answer lands, its cost is unknown, and its bound is spent."""
    with_usage(table, monkeypatch, value)
    receipt = table.run()
    assert receipt.outcomes == {"succeeded": 6}
    assert any("without a readable result line or usage" in text for text in receipt.warnings)
    (row,) = [row for row in table.rows() if row["_cost_usd"] is None]
    assert (row["_status"], row["_attempts"]) == ("succeeded", 1)
    assert receipt.cost_usd is not None
    check_money(table, lost=True)


@pytest.mark.parametrize("value", ["99.0", '"99"', "99e0"])
def test_a_count_may_be_written_in_other_ways(
    table: Table, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Servers write counts as floats or texts; they are counts."""
    with_usage(table, monkeypatch, value)
    receipt = table.run()
    assert (receipt.outcomes, receipt.warnings) == ({"succeeded": 6}, [])
    assert 99 in [row["_output_tokens"] for row in table.rows()]


@pytest.mark.parametrize("value", ["9223372036854775808", "1e300", "100000000000", "20000000"])
def test_a_usage_that_cannot_be_is_not_believed(
    table: Table, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """One absurd number costs its row's bound; it is told, and spoils no bounds and no limit."""
    with_usage(table, monkeypatch, value)
    receipt = table.run(cost_limit_usd=1)
    assert (receipt.outcomes, receipt.exit_code) == ({"succeeded": 6}, 0)
    assert [text for text in receipt.warnings if "not believed" in text] == receipt.warnings
    bound = preview(table.spec(output=str(table.folder / "other"))).summary.bound
    dearest = max(row["_cost_usd"] for row in table.rows())
    assert dearest == usd((bound or 0) // 6)
    check_money(table, lost=True)


def test_broken_lines_cannot_carry_spend_over_the_limit(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If most answers are unreadable the limit still holds: each such row counts at its bound."""
    bound = preview(table.spec()).summary.bound
    assert bound is not None
    after_download(
        table, monkeypatch, lambda content: content.replace(b'"usage":{', b'"usage":{broken', 2)
    )
    receipt = table.run(cost_limit_usd=float(usd(bound)) / 2)
    assert receipt.result == "cost_limit_reached"
    assert table.ledger()["requests_accepted"] == 3


def test_a_validator_that_raises_costs_its_row_not_the_run(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a response model's own code raises anything, the answer is invalid and the run ends."""
    (table.folder / "model.py").write_text(
        "from pydantic import BaseModel, field_validator\n\n\n"
        "class Answer(BaseModel):\n    label: str\n\n"
        "    @field_validator('label')\n    def odd(cls, value):\n        return {}[value]\n"
    )
    monkeypatch.setenv("BATCHATA_CODE_ROOTS", str(table.folder))
    receipt = table.run(response_schema=None, response_model=f"{table.folder / 'model.py'}:Answer")
    assert receipt.outcomes == {"invalid": 6}
    assert "KeyError" in table.rows()[0]["_error"]


def test_a_dear_row_does_not_block_cheap_ones(table: Table) -> None:
    """A row beyond the limit is left out; the others use it."""
    table.values[0]["text"] = "dear " * 5000
    table.write()
    limit = float(usd(preview(table.spec(where="id != 'k0'")).summary.bound or 0))
    receipt = table.run(cost_limit_usd=limit)
    assert (receipt.outcomes, receipt.exit_code, receipt.unsent_rows) == ({"succeeded": 5}, 4, 1)


def test_a_key_keeps_its_type(table: Table) -> None:
    """A key column of another type is refused: it would make every row a new one."""
    for value in table.values:
        value["id"] = value["id"].removeprefix("k")
    table.write()
    table.run()
    with pytest.raises(SpecError, match="a dataset keeps what landed"):
        table.run(types={"id": "int"})
    assert len(table.rows()) == 6


def test_doubt_is_not_resolved_under_another_key(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unclear create can be judged by its own account alone.

    Another account's empty list proves nothing.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0")
    table.emulator.control.faults(kind="drop_after", count=1)
    for call in range(2, 12):  # the first list goes before the create
        table.emulator.control.faults(kind="http_error", route="list", status=500, nth=call)
    with pytest.raises(TransientError):
        table.run()
    table.emulator.control.clear_faults()
    variable = f"{table.provider.upper()}_API_KEY"
    with monkeypatch.context() as other:
        other.setenv(variable, "acct:other:key")
        with pytest.raises(CredentialsError, match="under another API key"):
            table.run()
    assert table.run().outcomes == {"succeeded": 6}
    assert table.ledger()["accepted_twice"]["number"] == 0


def test_templates_see_plain_values_alone(table: Table, tmp_path: Path) -> None:
    """A nanosecond timestamp must not hand a template an object that can write files."""
    source = tmp_path / "table.parquet"
    moments = pa.array([1_700_000_000_000_000_001], pa.timestamp("ns"))
    pq.write_table(pa.table({"id": ["a"], "note": ["n"], "at": moments}), source)
    for attack in ("to_datetime64().tofile", "to_numpy().tofile", "to_datetime64().dump"):
        with pytest.raises(SourceError):
            table.run(
                source=str(source),
                prompt="{{ at." + attack + "('" + str(tmp_path / "pwned") + "') }}",
            )
    assert not (tmp_path / "pwned").exists()
    assert table.run(source=str(source), prompt="At {{ at }}").outcomes == {"succeeded": 1}


def test_encoded_columns_are_plain_ones(table: Table, tmp_path: Path) -> None:
    """Categories and views of one table are the strings of another: same keys, same rows."""
    source = tmp_path / "table.parquet"
    parts = [
        pa.table(
            {
                "id": pa.array([f"k{i}"]).dictionary_encode(),
                "note": pa.array(["n"], pa.large_string()),
                "text": ["t"],
            }
        )
        for i in range(3)
    ]
    with pq.ParquetWriter(source, parts[0].schema) as writer:
        for part in parts:
            writer.write_table(part)
    assert table.run(source=str(source)).outcomes == {"succeeded": 3}
    pq.write_table(
        pa.table({"id": ["k0", "k1", "k2"], "note": ["n"] * 3, "text": ["t"] * 3}), source
    )
    assert table.run(source=str(source)).plan["up_to_date"] == 3


def test_a_key_that_an_answer_quotes_is_masked(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the provider goes into the dataset without the API key that it may hold."""
    key = "canary-" + "x" * 30
    monkeypatch.setenv(f"{table.provider.upper()}_API_KEY", key)
    table.emulator.control.faults(
        kind="request_invalid", contains="row 4", message=f"the key {key} is bad"
    )
    table.run()
    row = next(row for row in table.rows() if row["id"] == "k4")
    assert "***" in row["_error"]
    assert key not in orjson.dumps(row, default=str).decode()


def test_moments_out_of_range_are_invalid(table: Table) -> None:
    """A date-time out of range is an invalid answer, not a broken dataset."""
    from batchata_tasks.schema.response import ResponseSchema

    when = {
        "type": "object",
        "properties": {"at": {"type": "string", "format": "date-time"}},
        "required": ["at"],
    }
    schema = ResponseSchema.from_json_schema(when, "x")
    assert schema.parse('{"at": "0001-01-01T00:00:00+14:00"}')[0] is None
    assert schema.parse('{"at": "2026-11-22T10:00:00+02:00"}')[0] == {
        "at": dt.datetime(2026, 11, 22, 8, tzinfo=dt.UTC)
    }
