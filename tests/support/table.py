"""A small table, a spec over it, and the results of its runs."""

from __future__ import annotations

import csv
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq
from httpx import HTTPError

from batchata_tasks.emulator import Emulator, answer_text
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.spec.loading import parse_spec
from tests.support.request_files import sent_bodies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.planning.summary import Options
    from batchata_tasks.spec.enrichment import EnrichmentSpec

MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
# one for each adapter: each provider's usual endpoint, and the other one of OpenAI
APIS = (*MODELS, "responses")
# a time limit that passes once the first batches are sent, on a busy machine as well
TIME_TO_SEND = "3s"
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["x", "y", "z"]},
        "words": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["label", "words"],
}


@contextmanager
def open_batches(emulator: Emulator) -> Iterator[None]:
    """Let no batch end meanwhile.

    Afterwards all do, even after an error, so that no run is left waiting.
    """
    emulator.control.progress("reads", 10**6)
    try:
        yield
    finally:
        emulator.control.progress("immediate")


def finish_all(emulator: Emulator) -> None:
    """Let all open batches end."""
    for books in emulator.control.ledger().values():
        for batch in books["batches"] if isinstance(books, dict) else ():
            with suppress(HTTPError):  # it has ended
                emulator.control.finish(batch["id"])


class Table:
    """A CSV file with the columns id, text and note, and runs of one spec over it.

    The runs use one of the APIS.
    """

    def __init__(self, folder: Path, emulator: Emulator, api: str, rows: int = 20) -> None:
        self.folder, self.emulator = folder, emulator
        self.provider, self.endpoint = ("openai", api) if api == "responses" else (api, "chat")
        self.source, self.output = folder / "table.csv", folder / "out"
        self.values = [
            {"id": f"k{i}", "text": f"text of row {i}", "note": f"n{i}"} for i in range(rows)
        ]
        self.write()

    def write(self) -> None:
        with self.source.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["id", "text", "note"])
            writer.writeheader()
            writer.writerows(self.values)

    def spec(self, **changes: Any) -> EnrichmentSpec:
        given: dict[str, Any] = {
            "name": "table",
            "source": str(self.source),
            "key": "id",
            "model": MODELS[self.provider],
            "endpoint": self.endpoint,
            "system": "Label it.",
            "prompt": "{{ text }}",
            "response_schema": SCHEMA,
            "max_tokens": 200,
            "output": str(self.output),
            "columns": ["note"],
            "pilot": False,  # tests count batches
        }
        return parse_spec({**given, **changes})

    def run(self, options: Options | None = None, **changes: Any) -> Receipt:
        return enrich(self.spec(**changes), options)

    def rows(self) -> list[dict[str, Any]]:
        """Return the dataset's rows by key, having checked that every key is there once."""
        rows = pq.read_table(self.output / "data").to_pylist()
        assert len({row["id"] for row in rows}) == len(rows)
        return sorted(rows, key=lambda row: row["id"])

    def ledger(self) -> dict[str, Any]:
        """Return what the provider accepted and billed."""
        return self.emulator.control.ledger(detail=True)[self.provider]

    def turns(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the turns of a request body."""
        return body["input" if self.endpoint == "responses" else "messages"]

    def check_answers(self) -> None:
        """Check that each row holds the answer to its own request, as it went over the wire."""
        bodies = self.bodies()
        for row in self.rows():
            body = bodies[row["_custom_id"]]
            value = next(v for v in self.values if v["id"] == row["id"])
            assert value["text"] in orjson.dumps(body).decode()
            assert row["_response"] == answer_text(self.provider, body)

    def bodies(self) -> dict[str, dict[str, Any]]:
        """Return the request bodies that were sent, by custom_id."""
        return sent_bodies(self.output)
