"""The scope of accounts, how often a chunk was sent again, ids of batches of any length."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Integer, String, Text

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Add the columns; older rows say nothing about either."""
    op.add_column("chunks", Column("resends", Integer, nullable=False, server_default="0"))
    op.add_column("intents", Column("scope", Text))
    with op.batch_alter_table("batches") as batches:
        batches.alter_column("batch_id", existing_type=String(128), type_=Text)
