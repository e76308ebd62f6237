"""A source that is another one each night, and the dataset that comes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.packs import changed_at, kept_bytes, kept_files
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.reports.plan import preview
from batchata_tasks.spec.loading import parse_spec
from tests.support.table import MODELS

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.planning.summary import PlanSummary


class Nights:
    """Nights of one spec over a Parquet file, or over JSON lines."""

    def __init__(self, folder: Path) -> None:
        self.source, self.output = folder / "rows.parquet", folder / "out"

    def spec(self, **changes: Any) -> Any:
        given = {
            "name": "nights",
            "source": str(self.source),
            "key": "id",
            "model": MODELS["anthropic"],
            "prompt": "Label {{ text }}",
            "max_tokens": 64,
            "columns": ["v"],
            "output": str(self.output),
            "pilot": False,
        }
        return parse_spec({**given, **changes})

    def write(self, **columns: Any) -> None:
        """Write the night's table as Parquet."""
        self.source = self.source.with_suffix(".parquet")
        table = pa.table(columns)
        if "text" not in columns:
            texts = pa.array([f"t{row}" for row in range(table.num_rows)])
            table = table.append_column("text", texts)
        pq.write_table(table, self.source)

    def write_lines(self, rows: list[dict[str, Any]]) -> None:
        """Write the night's rows as JSON lines; each gets a text."""
        self.source = self.source.with_suffix(".jsonl")
        lines = ({"text": f"t{number}", **row} for number, row in enumerate(rows))
        self.source.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def run(self, spec: dict[str, Any] | None = None, **columns: Any) -> int:
        """Run a night of a table; return how many rows were sent."""
        self.write(**columns)
        return self.run_again(**(spec or {}))

    def run_again(self, **changes: Any) -> int:
        """Run a night of what is there; return how many rows were sent."""
        return int(enrich(self.spec(**changes)).plan["requests"])

    def run_lines(self, rows: list[dict[str, Any]], **changes: Any) -> int:
        """Run a night of JSON lines; return how many rows were sent."""
        self.write_lines(rows)
        return self.run_again(**changes)

    def plan(self, **changes: Any) -> PlanSummary:
        return preview(self.spec(**changes), Settings()).summary

    def column(self, name: str) -> dict[Any, Any]:
        """Return the values of a column by id."""
        rows = pq.read_table(self.output / "data", columns=["id", name])
        keys = rows["id"].to_pylist()
        assert len(set(keys)) == len(keys)
        return dict(zip(keys, rows[name].to_pylist(), strict=True))

    def objects(self, name: str) -> dict[Any, Any]:
        """Return the values of a column of JSON by id."""
        texts = self.column(name)
        return {key: text if text is None else json.loads(text) for key, text in texts.items()}

    def type_of(self, name: str) -> pa.DataType:
        (kind,) = {pq.read_schema(p).field(name).type for p in self.output.glob("data/*")}
        return kind

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.output.glob("data/*")}

    def asked(self) -> list[str]:
        """Return all prompts that were sent, in order."""
        in_order = sorted(kept_files(self.output / "_batchata/requests", "*"), key=changed_at)
        requests = [one for path in in_order for one in json.loads(kept_bytes(path))["requests"]]
        return [one["params"]["messages"][0]["content"] for one in requests]
