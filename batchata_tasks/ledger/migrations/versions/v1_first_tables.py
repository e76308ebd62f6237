"""The tables of the first release."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, Text

revision = "1"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _runs()
    _chunks()
    _batches()
    _money()


def _runs() -> None:
    op.create_table(
        "meta",
        Column("ledger_id", String(40), primary_key=True),
        Column("schema_version", Integer, nullable=False),
        Column("created_at", BigInteger, nullable=False),
    )
    op.create_table(
        "datasets",
        Column("id", String(40), primary_key=True),
        Column("url", Text, nullable=False, unique=True),
        Column("created_at", BigInteger, nullable=False),
        Column("fence", BigInteger, nullable=False),
        Column("holder", Text),
        Column("lease_until", BigInteger),
    )
    op.create_table(
        "runs",
        Column("id", String(40), primary_key=True),
        Column("dataset_id", String(40), nullable=False),
        Column("name", Text, nullable=False),
        Column("spec", Text, nullable=False),
        Column("spec_digest", String(64), nullable=False),
        Column("state", String(16), nullable=False),
        Column("result", String(32)),
        Column("error", Text),
        Column("started_at", BigInteger, nullable=False),
        Column("finished_at", BigInteger),
        Column("refresh_before", BigInteger),
        Column("retry_failed", Integer, nullable=False),
        Column("cost_limit", BigInteger),
        Column("price_source", Text),
        Column("plan", Text),
    )
    op.create_index("runs_dataset", "runs", ["dataset_id", "state"])


def _chunks() -> None:
    op.create_table(
        "chunks",
        Column("id", String(40), primary_key=True),
        Column("run_id", String(40), nullable=False),
        Column("dataset_id", String(40), nullable=False),
        Column("round", Integer, nullable=False),
        Column("kind", String(8), nullable=False),
        Column("provider", String(32), nullable=False),
        Column("model", Text, nullable=False),
        Column("endpoint", String(32), nullable=False),
        Column("start", BigInteger, nullable=False),
        Column("stop", BigInteger, nullable=False),
        Column("bytes", BigInteger, nullable=False),
        Column("bound", BigInteger),
        Column("state", String(16), nullable=False),
        Column("batch_id", Text),
        Column("updated_at", BigInteger, nullable=False),
    )
    op.create_index("chunks_run", "chunks", ["run_id", "state"])
    op.create_index("chunks_dataset", "chunks", ["dataset_id", "state"])


def _batches() -> None:
    op.create_table(
        "intents",
        Column("chunk_id", String(40), primary_key=True),
        Column("account", String(64), nullable=False),
        Column("requests", BigInteger, nullable=False),
        Column("fence", BigInteger, nullable=False),
        Column("sent_at", BigInteger, nullable=False),
        Column("input_file_id", Text),
    )
    op.create_index("intents_account", "intents", ["account"])
    op.create_table(
        "batches",
        Column("batch_id", String(128), primary_key=True),
        Column("chunk_id", String(40), nullable=False),
        Column("provider", String(32), nullable=False),
        Column("account", String(64), nullable=False),
        Column("status", String(32), nullable=False),
        Column("requests_done", BigInteger),
        Column("submitted_at", BigInteger, nullable=False),
        Column("looked_at", BigInteger),
        Column("ended_at", BigInteger),
    )
    op.create_index("batches_chunk", "batches", ["chunk_id"])


def _money() -> None:
    op.create_table(
        "outcomes",
        Column("chunk_id", String(40), primary_key=True),
        Column("outcome", String(16), primary_key=True),
        Column("run_id", String(40), nullable=False),
        Column("rows", BigInteger, nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("cache_read_tokens", BigInteger, nullable=False),
        Column("cost", BigInteger),
    )
    op.create_index("outcomes_run", "outcomes", ["run_id"])
    op.create_table(
        "reservations",
        Column("chunk_id", String(40), primary_key=True),
        Column("run_id", String(40), nullable=False),
        Column("reserved", BigInteger, nullable=False),
        Column("settled", BigInteger),
        Column("superseded", BigInteger),
        Column("overhead", BigInteger),
        Column("reserved_at", BigInteger, nullable=False),
        Column("settled_at", BigInteger),
    )
    op.create_index("reservations_run", "reservations", ["run_id"])
