"""Shared budgets, expected costs, list prices, cache writes, corrections of low bounds."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, String, Text

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Add the columns and tables; older rows belong to no budget."""
    op.add_column("chunks", Column("expected", BigInteger))
    op.add_column(
        "outcomes", Column("cache_write_tokens", BigInteger, nullable=False, server_default="0")
    )
    op.add_column("outcomes", Column("list_cost", BigInteger))
    op.add_column("reservations", Column("budget", String(200)))
    op.add_column("reservations", Column("period", BigInteger))
    op.create_index("reservations_budget", "reservations", ["budget", "period"])
    op.create_table(
        "budgets",
        Column("name", String(200), primary_key=True),
        Column("limit_amount", BigInteger, nullable=False),
        Column("period", String(8), nullable=False),
        Column("timezone", Text, nullable=False),
        Column("said", Text, nullable=False),
        Column("agreed", Text),
        Column("changed_at", BigInteger, nullable=False),
    )
    op.create_table(
        "corrections",
        Column("provider", String(32), primary_key=True),
        Column("model", String(200), primary_key=True),
        Column("factor", BigInteger, nullable=False),
        Column("chunk_id", String(40), nullable=False),
        Column("noted_at", BigInteger, nullable=False),
    )
