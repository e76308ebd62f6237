"""The work of all benchmarks: a table of support tickets, and the prompt for each row.

A row is about 300 bytes: a key, two columns that are carried along, and the text that is sent.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

SYSTEM = "You sort support tickets. Answer with the fields of the schema, and nothing else."
PROMPT = "Ticket from {customer}:\n\n{text}"
PROMPT_TEMPLATE = "Ticket from {{ customer }}:\n\n{{ text }}"
MAX_TOKENS = 200
SCHEMA: dict[str, Any] = {
    "title": "Ticket",
    "type": "object",
    "properties": {
        "topic": {"type": "string", "enum": ["billing", "delivery", "account", "product", "other"]},
        "summary": {"type": "string"},
        "urgency": {"type": "integer"},
        "angry": {"type": "boolean"},
    },
    "required": ["topic", "summary", "urgency", "angry"],
    "additionalProperties": False,
}
_BLOCK = 10_000
_TEXT = (
    "the order that I placed last week has still not arrived and nobody answers my mails about it "
    "please check invoice number payment was taken twice from my card although I cancelled before "
    "trial ended your app says password is wrong after every update on phone battery drains screen "
    "stays black we need this for our customers until Friday otherwise must look elsewhere thank "
    "you für Ihre Hilfe café naïve déjà delivery address changed parcel returned sender refund "
    "pending"
)
_WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Case:
    """One provider in a benchmark: its name, one of its models, and its limit of rows a batch."""

    provider: str
    model: str
    rows_per_batch: int


CASES = (Case("anthropic", "claude-haiku-5-5", 100_000), Case("openai", "gpt-6-luna", 50_000))


def make_table(path: Path, rows: int) -> None:
    """Write the source table as Parquet; the same rows every time."""
    rng = random.Random(20261122)
    schema = pa.schema(
        {
            "ticket_id": pa.string(),
            "customer": pa.string(),
            "opened": pa.date32(),
            "text": pa.string(),
        }
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _BLOCK):
            numbers = range(start, min(start + _BLOCK, rows))
            columns = [
                pa.array([f"T-{number:08d}" for number in numbers]),
                pa.array(
                    [f"Customer {rng.randrange(10**6)} {rng.choice('ABCDEFGH')}." for _ in numbers]
                ),
                pa.array([20_000 + rng.randrange(400) for _ in numbers], pa.int32()).cast(
                    pa.date32()
                ),
                pa.array([" ".join(rng.choices(_WORDS, k=rng.randrange(30, 64))) for _ in numbers]),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def write_spec(path: Path, case: Case, source: Path, output: Path) -> None:
    """Write the spec of one provider's run, in JSON (which the spec's loader reads as YAML)."""
    spec = {
        "name": f"bench-{case.provider}",
        "source": str(source),
        "key": "ticket_id",
        "columns": ["customer", "opened"],
        "model": case.model,
        "system": SYSTEM,
        "prompt": PROMPT_TEMPLATE,
        "response_schema": SCHEMA,
        "max_tokens": MAX_TOKENS,
        "output": str(output),
        "pilot": False,
    }
    path.write_text(json.dumps(spec, indent=1))
