"""Rounds within a run, requests to stop, marks by the provider's clock, emptied parts."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add the columns; older rows have no rounds, stops or marks."""
    op.add_column("runs", Column("stop", String(16)))
    op.add_column("intents", Column("mark", BigInteger))
    op.add_column("chunks", Column("emptied", Integer, nullable=False, server_default="0"))
    # version 1 did not record which parts were emptied: none of them is looked for
    op.execute("UPDATE chunks SET emptied = 1 WHERE state = 'landed'")
    op.add_column("outcomes", Column("retried", BigInteger, nullable=False, server_default="0"))
