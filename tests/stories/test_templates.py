"""What templates make of nulls, objects and timestamps arrives at the provider, and stays paid."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.errors import SourceError

if TYPE_CHECKING:
    from tests.support.table import Table

pytestmark = pytest.mark.in_turn


def prompts(table: Table) -> list[str]:
    """Return the prompts that went over the wire, in the order of the rows' ids."""
    sent = table.bodies()
    return [table.turns(sent[row["_custom_id"]])[-1]["content"] for row in table.rows()]


def accepted(table: Table) -> int:
    return table.ledger()["requests_accepted"]


def write(table: Table, rows: list[dict[str, Any]]) -> str:
    path = table.folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_null_is_none_and_is_not_sent_again(table: Table) -> None:
    """`empty` and `pass` ask alike; changing one into the other sends nothing."""
    source = write(table, [{"id": "1", "n": 5}, {"id": "2", "n": None}, {"id": "3", "n": 0}])
    prompt = (
        "{% if n is none %}unknown{% else %}{{ n }}{% endif %} {{ n | default('n/a', true) }} x"
        "{{ n }}{% if n is not none and n > 3 %}!{% endif %}"
    )
    given: dict[str, Any] = {"source": source, "prompt": prompt, "columns": None}
    table.run(**given, on_null="empty")
    assert prompts(table) == ["5 5 x5!", "unknown n/a x", "0 n/a x0"]
    table.run(**given, on_null="pass")
    assert accepted(table) == 3


def test_an_object_is_asked_for_its_items(table: Table) -> None:
    """`{{ order.items }}` is what the order holds; an order without any stops the run for free."""
    orders = [{"id": "1", "order": {"items": ["pen"], "n": 1}}]
    given: dict[str, Any] = {"prompt": "Order: {{ order.items }}", "columns": None}
    table.run(source=write(table, orders), **given)
    assert prompts(table) == ["Order: ['pen']"]
    orders = [{"id": "1", "order": {"n": 1}}]
    elsewhere = str(table.folder / "another")  # in that dataset an order has items, or null
    with pytest.raises(SourceError, match=r"row 1 \(id='1'\): the object has no attribute 'items'"):
        table.run(source=write(table, orders), output=elsewhere, **given)
    assert accepted(table) == 1


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_every_unit_are_datetimes_in_prompts(table: Table, unit: str) -> None:
    """As pandas writes them, and as others do."""
    at = pa.array([1_700_000_000], pa.timestamp("s")).cast(pa.timestamp(unit, "UTC"))
    source = table.folder / "rows.parquet"
    pq.write_table(pa.table({"id": ["1"], "t": at}), source)
    prompt = "{{ t.strftime('%Y-%m-%d') }} {{ t }}"
    table.run(source=str(source), prompt=prompt, columns=None)
    assert prompts(table) == ["2023-11-14 2023-11-14 22:13:20+00:00"]
    table.run(source=str(source), prompt=prompt, columns=None)
    assert accepted(table) == 1
