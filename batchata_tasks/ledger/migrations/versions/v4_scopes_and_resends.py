"""The scope of accounts, and how often a chunk was sent again."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Integer, Text

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Add the columns; older rows say nothing about either."""
    op.add_column("chunks", Column("resends", Integer, nullable=False, server_default="0"))
    op.add_column("intents", Column("scope", Text))
