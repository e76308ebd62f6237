"""When `watch` looked at a ledger last."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, String

revision = "8"
down_revision = "7"


def upgrade() -> None:
    """Add the table; it is empty until the next pass."""
    op.create_table(
        "passes",
        Column("work", String(40), primary_key=True),
        Column("ended_at", BigInteger, nullable=False),
    )
