"""Queues of providers: who waits for room in them, what they hold, and until when nobody looks.

And the work that held a dataset last, such as a flow run.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, String, Text

revision = "7"
down_revision = "6"


def upgrade() -> None:
    """Add the tables; batches that were sent by older versions have no place in a queue."""
    op.add_column("datasets", Column("worked_by", Text))
    op.add_column("chunks", Column("tokens", BigInteger))
    op.create_index("batches_account", "batches", ["account", "ended_at"])
    op.create_table(
        "queue_places",
        Column("chunk_id", String(40), primary_key=True),
        Column("account", String(64), nullable=False),
        Column("model", String(200), nullable=False),
        Column("amount", BigInteger, nullable=False),
        Column("too_little", BigInteger),
        Column("stated", BigInteger),
        Column("since", BigInteger, nullable=False),
        Column("fence", BigInteger, nullable=False),
        Column("let_in_at", BigInteger),
        Column("kept_until", BigInteger),
    )
    op.create_index("queue_places_queue", "queue_places", ["account", "model"])
    op.create_table(
        "queue_limits",
        Column("account", String(64), primary_key=True),
        Column("model", String(200), primary_key=True),
        Column("amount", BigInteger, nullable=False),
        Column("told_at", BigInteger, nullable=False),
        Column("probe", String(40)),
    )
    op.create_table(
        "pauses",
        Column("account", String(64), primary_key=True),
        Column("until", BigInteger, nullable=False),
    )
